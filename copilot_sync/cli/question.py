"""The question of ``ask``, read from arguments, stdin and files.

``inline_files`` reads the files. ``text_files`` decides what is text, whatever the locale is.
"""

import os
import stat
import sys
from typing import List, Sequence

import click

from copilot_sync.cli.language import _
from copilot_sync.inline_files import NamedText, read_files
from copilot_sync.prompts import PromptInput
from copilot_sync.safe_text import well_formed
from copilot_sync.text_files import text_of


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
        raise click.UsageError(_("there is nothing to ask: pass a PROMPT, or pipe one in"))
    return question


def with_images(question: str, urls: Sequence[str]) -> PromptInput:
    """Return the question with the images that ``--image`` names. The library checks their addresses."""
    if not urls:
        return question
    images = [{"type": "image_url", "image_url": {"url": well_formed(url)}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": question}, *images]}]


def read_attachments(paths: Sequence[str]) -> List[NamedText]:
    """Read the files that ``--file`` names, each with the name that is sent.

    Raises:
        click.UsageError: A file can't be read, is too large, or is not text.
    """
    return [_read_attachment(path) for path in paths]


def _read_attachment(path: str) -> NamedText:
    try:
        (attachment,) = read_files([path])
    except OSError as error:
        words = _("it can't be read: {reason}").format(reason=error.strerror)
        raise click.UsageError(f"--file {path}: {words}") from error
    except ValueError as error:
        raise click.UsageError(f"--file {error}") from error
    return attachment


def _is_piped() -> bool:
    """Whether stdin is a pipe, a socket or a file, not a terminal or ``/dev/null``."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # it is no real file
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _stdin_text(waits: bool) -> str:
    if waits and sys.stdin.isatty():
        click.echo(f"copilot-sync: {_('type the question, then Ctrl-D')}", err=True)
    content = b"".join(sys.stdin.buffer)  # by lines: read() wants Ctrl-D twice on PyPy
    try:
        return text_of(content)
    except ValueError as error:
        raise click.UsageError(_("stdin can't be sent: {error}").format(error=error)) from error
