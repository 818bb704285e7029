"""The language of the command line: Russian if the user's locale says so, or else English.

Commands mark their texts with ``_``, ``ngettext`` and ``marked``. ``click`` asks ``gettext`` for its own words too, so
all of them stand in one catalog, in ``copilot_sync/locale``. Only a program that runs chooses a language, and English
opens no catalog. What programs read stays English: JSON, lines with tabs, the log and the texts of the library's
errors.

Threads: the language is confined to the main thread, which chooses it; the others only read which it is.
"""

import codecs
import contextlib
import gettext
import locale
import os
import re
import sys
from typing import Iterator, Mapping, TextIO, Tuple

from copilot_sync.cli.terminal import is_terminal

DOMAIN = "copilot-sync"
LOCALE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "locale")
#: The first of these that is set counts, for ``gettext`` as well.
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
_ENGLISH = ("en", "C", "POSIX")
#: How a stream encodes what its encoding lacks: as these, or as a question mark. KOI8-R has the letters alone.
PLAIN = "copilot-sync-plain"
_PLAIN_CHARACTERS = {"«": '"', "»": '"', "—": "-", "–": "-"}

_ = gettext.gettext
ngettext = gettext.ngettext


def marked(message: str) -> str:
    """Return a text as it is, which is in the catalog for ``_`` to translate later."""
    return message


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Speak the user's language while the block lasts, if there is a catalog for it."""
    if not is_russian(os.environ) or not all(map(_takes_cyrillic, (sys.stdout, sys.stderr))):
        yield
        return
    gettext.bindtextdomain(DOMAIN, LOCALE)
    codecs.register_error(PLAIN, _plain)
    with _domain(DOMAIN):
        yield


@contextlib.contextmanager
def for_reader_of(stream: TextIO) -> Iterator[None]:
    """Speak English while the block lasts, unless a person reads the stream."""
    with contextlib.nullcontext() if is_terminal(stream) else _domain("messages"):
        yield


def is_translated() -> bool:
    """Whether another language than English is spoken."""
    return gettext.textdomain() == DOMAIN


def is_russian(environ: Mapping[str, str]) -> bool:
    """Whether Russian comes before English in the variables of the locale."""
    named = next(filter(None, map(environ.get, VARIABLES)), "")
    for name in named.split(":"):
        language = re.split("[_.@]", locale.normalize(name))[0]
        if language == "ru" or language in _ENGLISH:
            return language == "ru"
    return False


def _takes_cyrillic(stream: TextIO) -> bool:
    """Whether a stream has the letters. English can be read, and rows of question marks can't."""
    try:
        "Ёё".encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plain(error: UnicodeError) -> Tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 - it is for output
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN_CHARACTERS.get(character, "?") for character in lacking), error.end


@contextlib.contextmanager
def _domain(name: str) -> Iterator[None]:
    before = gettext.textdomain()
    gettext.textdomain(name)
    try:
        yield
    finally:
        gettext.textdomain(before)
