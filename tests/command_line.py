"""The commands of ``copilot-sync``, and how tests run them: as processes, or in this one with a keyboard of its own."""

import io
import os
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Tuple, Union

import click
import pytest
from hypothesis import strategies as st

from copilot_sync.cli.program import program


def _commands(group: Any = program, path: Tuple[str, ...] = ()) -> Iterator[Tuple[Tuple[str, ...], click.Command]]:
    yield path, group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            yield from _commands(group.get_command(context, name), (*path, name))


#: What Markdown is made of, to be put together in any order.
MARKDOWN = st.sampled_from(
    [
        "a word", " ", "\n", "\n\n", "# ", "## heading\n", "#", "include", "- ", "* item\n", "  ", "    ", "\t", "1. ",
        "2) x\n", "> ", "> quote\n", "```", "```python\n", "~~~\n", "---", "---\n", "===\n", "|a|b|\n", "|-|-|\n",
        "| 1 | 2 |\n", "`code`", "**bold**", "<b>", "<!-- x -->\n", "[a]: /b\n", "[a][a]", "\\", "é", "🙂", "&amp;",
    ]
)  # fmt: skip

#: Every command by the words that call it; the program itself has none.
ALL = dict(_commands())
each_command = pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "copilot-sync")


def command(*arguments: str) -> List[str]:
    """What starts the program."""
    return [sys.executable, "-W", "error", "-m", "copilot_sync", *arguments]


#: Becomes another program, which ignores what ``nohup program &`` ignores.
_BACKGROUND = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


def in_background(arguments: List[str]) -> List[str]:
    """What starts a program as a shell starts ``nohup program &``: Ctrl-C is ignored from its first moment on."""
    return [sys.executable, "-S", "-c", _BACKGROUND, *arguments]


def environment(**variables: str) -> Dict[str, str]:
    """This process's environment and some more."""
    return {**os.environ, **variables}


def spawn(*arguments: str, environment: Dict[str, str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start the program with pipes to read from."""
    return subprocess.Popen(
        command(*arguments), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


class Keys(io.StringIO):
    """A keyboard that types these lines, or Ctrl-C in place of one, and Ctrl-D at the end; it has no descriptor."""

    def __init__(self, *lines: Union[str, KeyboardInterrupt]) -> None:
        super().__init__()
        self._lines = list(lines)

    def isatty(self) -> bool:
        return True

    def readline(self, size: Any = -1) -> Any:
        if not self._lines:
            return ""
        line = self._lines.pop(0)
        if isinstance(line, KeyboardInterrupt):
            raise line
        return f"{line}\n"
