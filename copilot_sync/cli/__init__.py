"""The command line: ``copilot-sync``.

Each command has a module, which is imported when the command is used. Answers go to stdout, everything else to stderr.
The exit status is 0 for success, 1 for failure, 2 for wrong usage, 3 if some of a batch failed, and 130 after Ctrl-C.
``click``, ``rich`` and ``prompt_toolkit`` come with the extra ``cli``; without them a message says how to install them.
"""

import sys


def main() -> None:
    """Run the command line with the arguments of the process, and end the process with its exit status."""
    try:
        from copilot_sync.cli.language import _, speaking

        with speaking():
            try:
                from copilot_sync.cli.program import run

                status = run(sys.argv[1:])
            except ImportError as error:
                advice = _('copilot-sync: the command line needs {name}: pip install "copilot-sync[cli]"')
                print(advice.format(name=error.name), file=sys.stderr)
                status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
