"""The command line: ``copilot-sync``.

One module for each command. Answers go to stdout, everything else to stderr. Exit statuses: 0 done, 1 failed,
2 wrong usage, 130 Ctrl-C. ``click`` comes with the extra ``cli``; without it there is a message instead of a traceback.
"""

import sys


def main() -> None:
    """Run the command line with the arguments of the process, and end the process with its exit status."""
    try:
        from copilot_sync.cli.program import run
    except ImportError as error:
        print(
            f'copilot-sync: the command line needs {error.name}: pip install "copilot-sync[cli]"',
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))
