"""The log of the library on stderr, for ``--verbose``: each request, what is sent again, and why."""

import contextlib
import logging
from typing import Iterator

import click

from copilot_sync.terminal_text import one_line

_library = logging.getLogger("copilot_sync")


class LineHandler(logging.Handler):
    """Prints a line for each record."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        click.echo(f"copilot-sync: {one_line(record.getMessage())}", err=True)


def is_shown() -> bool:
    """Whether the log is on stderr, warnings included."""
    return any(isinstance(handler, LineHandler) for handler in _library.handlers)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show it while the block lasts."""
    handler, before = LineHandler(), _library.level
    _library.addHandler(handler)
    _library.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        _library.removeHandler(handler)
        _library.setLevel(before)
