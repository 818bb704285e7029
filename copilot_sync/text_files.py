"""Text from files, pipes and stdin: one judgement of encoding and line ends for everything that is read.

Rules: text is UTF-8, with or without a byte order mark, or has the mark of UTF-16 or UTF-32. Nothing is guessed: what
has NUL characters, or is not valid in its encoding, is refused. LF, CR LF and CR end lines.

A message here never shows what stands in the file: cookie files are read with this too.
"""

import codecs
import contextlib
import io
import os
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Iterator, Tuple

if TYPE_CHECKING or sys.version_info >= (3, 9):  # pragma: some versions
    PathLike = os.PathLike[str]
else:  # pragma: some versions
    PathLike = os.PathLike  # which takes no ``[str]`` before

#: UTF-32's mark begins with UTF-16's, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ENDS = ("\n", "\r")
HAS_NULS = "it has NUL characters: it is binary, or UTF-16 without a byte order mark; save it as UTF-8"
NOT_TEXT = "it is not UTF-8 text; save it as UTF-8"


def encoding_of(beginning: bytes) -> str:
    """Name the encoding of a text by its first four bytes.

    Raises:
        ValueError: No text begins like this; the message says what to do.
    """
    for mark, encoding in _MARKS:
        if beginning.startswith(mark):
            return encoding
    if b"\0" in beginning[:2]:
        raise ValueError(HAS_NULS)
    return "utf-8"


def decoded(content: bytes) -> str:
    """Decode a whole text. Its lines end as they did.

    Raises:
        ValueError: It is not text; the message says what to do.
    """
    encoding = encoding_of(content[:4])
    text = None
    with contextlib.suppress(UnicodeDecodeError):  # it holds the whole text, so ours is raised outside
        text = content.decode(encoding)
    if text is None:
        raise ValueError(NOT_TEXT)
    if "\0" in text:
        raise ValueError(HAS_NULS)
    return text


def text_of(content: bytes) -> str:
    r"""Decode a whole text and end its lines with ``\n``. A lone CR ends a line only if the text has no LF.

    Raises:
        ValueError: It is not text; the message says what to do.
    """
    return with_plain_ends(decoded(content))


def with_plain_ends(text: str) -> str:
    r"""End the lines of a text with ``\n``. A lone CR ends a line only if the text has no LF."""
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


@dataclass(frozen=True)
class Line:
    """One line of a file.

    Attributes:
        number: Its number, from 1.
        text: What stands in it, without its end. Empty if it is too long.
        end: What ends it: LF, CR LF, CR, or nothing at the end of the file.
        size: The bytes of the text, as UTF-8. Of a line that is too long, some of them.
        too_long: Whether it has more bytes than the limit.
        is_text: Whether it could be decoded.
    """

    number: int
    text: str
    end: str
    size: int
    too_long: bool = False
    is_text: bool = True

    @property
    def is_blank(self) -> bool:
        """Whether nothing but white space stands in it."""
        return not self.too_long and not self.text.strip()


def lines_of(file: IO[bytes], limit: int) -> Iterator[Line]:
    """Read a file from its beginning, line by line. No more than a few lines are held in memory.

    Args:
        file: A file that can be sought.
        limit: Bytes of a line, as UTF-8. A longer one is passed over.

    Raises:
        ValueError: The file is not text from some place on; the message says what to do.
    """
    file.seek(0)
    encoding = encoding_of(file.read(4))
    file.seek(0)
    # With newline="" every kind of end is one, and stays in the text.
    text = io.TextIOWrapper(file, encoding, errors=_errors_of(encoding), newline="")
    number = 0
    try:
        for line in _numbered(text, limit):
            number = line.number
            yield line
    except UnicodeDecodeError:
        raise ValueError(f"behind line {number} {NOT_TEXT}") from None
    finally:
        with contextlib.suppress(ValueError):  # whoever stopped half-way may have closed the file before
            text.detach()


def _errors_of(encoding: str) -> str:
    # A wrong byte of UTF-8 spoils its line alone; in the wider encodings nothing behind it can be relied on.
    return "surrogateescape" if encoding.startswith("utf-8") else "strict"


def _numbered(file: io.TextIOWrapper, limit: int) -> Iterator[Line]:
    number = 0
    while True:
        text = file.readline(limit + 1)
        if not text:
            return
        number += 1
        body = text.rstrip("\r\n")
        end = text[len(body) :]
        size, is_text = _size_of(body)
        if size > limit:
            yield Line(number, "", _skipped(file, text), size, too_long=True)
        else:
            yield Line(number, body, end, size, is_text=is_text)


def _size_of(text: str) -> Tuple[int, bool]:
    """The bytes of a text, and whether all of them could be decoded."""
    if text.isascii():
        return len(text), True
    try:
        return len(text.encode("utf-8")), True
    except UnicodeEncodeError:
        return len(text.encode("utf-8", "surrogateescape")), False


def _skipped(file: io.TextIOWrapper, text: str) -> str:
    """Pass over the rest of a line and return its end."""
    while text and not text.endswith(_ENDS):
        text = file.readline(1 << 20)
    return text[len(text.rstrip("\r\n")) :]
