"""The command line: ``copilot-sync``.

One module for each command, imported when the command is used. Answers go to stdout, everything else to stderr. Exit
statuses: 0 done, 1 failed, 2 wrong usage, 3 some of a batch failed, 130 Ctrl-C. ``click`` and ``rich`` come with the
extra ``cli``; without them there is a message instead of a traceback.
"""

import sys


def main() -> None:
    """Run the command line with the arguments of the process, and end the process with its exit status."""
    try:
        from copilot_sync.cli.program import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    except ImportError as error:
        print(
            f'copilot-sync: the command line needs {error.name}: pip install "copilot-sync[cli]"',
            file=sys.stderr,
        )
        status = 1
    sys.exit(status)
