"""The question of ``ask``, read from arguments, stdin and files.

A file is sent inside of the message, as a reference with its name, language and text. ``text_files`` decides what is
text, whatever the locale is.
"""

import os
import stat
import sys
from typing import Dict, Sequence

import click

from copilot_sync.safe_text import well_formed
from copilot_sync.text_files import decoded, text_of

#: Maximum size of one file in bytes. No model reads more than a few hundred thousand characters at once.
FILE_LIMIT = 1024 * 1024


def read_question(words: Sequence[str]) -> str:
    """Join the arguments and stdin with an empty line.

    stdin is read if it is a pipe or a file, if ``-`` is among the arguments, and if there are no other arguments.

    Raises:
        click.UsageError: The question is empty, or stdin is not text.
    """
    argument = " ".join(well_formed(word) for word in words if word != "-")
    parts = [argument] if argument.strip() else []
    if not parts or "-" in words or _is_piped():
        parts.append(_stdin_text(waits="-" not in words))
    question = "\n\n".join(part for part in parts if part.strip())
    if not question:
        raise click.UsageError("there is nothing to ask: pass a PROMPT, or pipe one in")
    return question


def read_reference(path: str) -> Dict[str, str]:
    """Read a file as a reference of a message.

    Raises:
        click.UsageError: The file can't be read, is too large, or is not text.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise click.UsageError(f"--file {path}: it can't be read: {error.strerror}") from error
    if len(content) > FILE_LIMIT:
        raise click.UsageError(f"--file {path}: it is larger than {FILE_LIMIT // 1024} KiB")
    try:
        text = decoded(content)
    except ValueError as error:
        raise click.UsageError(f"--file {path}: {error}") from error
    language = os.path.splitext(path)[1][1:]
    return {"type": "thread-scoped-file", "name": _shown_name(path), "text": text, "language": language}


def _shown_name(path: str) -> str:
    """Return the name of a file for the service, which hides where on this machine the file is."""
    relative = os.path.normpath(path)
    if os.path.isabs(relative) or relative.startswith(os.pardir):
        relative = os.path.basename(relative)
    return well_formed(relative.replace(os.sep, "/"))


def _is_piped() -> bool:
    """Whether stdin is a pipe, a socket or a file, not a terminal or ``/dev/null``."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # stdin is closed, or no real file
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _stdin_text(waits: bool) -> str:
    if sys.stdin is None:
        return ""
    if waits and sys.stdin.isatty():
        click.echo("copilot-sync: type the question, then Ctrl-D", err=True)
    content = b"".join(sys.stdin.buffer)  # by lines: read() wants Ctrl-D twice on PyPy
    try:
        return text_of(content)
    except ValueError as error:
        raise click.UsageError(f"stdin can't be sent: {error}") from error
