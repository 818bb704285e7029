"""Text as it comes: what its encoding is, where its lines end, and what is no text."""

import io
from typing import Iterator

import pytest

from copilot_sync.text_files import Line, decoded, lines_of, text_of


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_with_a_mark_is_decoded_by_it(encoding: str) -> None:
    """And without one it is UTF-8; the mark is no part of it."""
    assert decoded("é\r\nß".encode(encoding)) == "é\r\nß"
    assert decoded(b"") == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"caf\xe9", "not UTF-8 text"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        ("text".encode("utf-16-le"), "NUL characters"),
        ("text".encode("utf-16-be"), "NUL characters"),
        (b"text\0", "NUL characters"),
        ("text\0".encode("utf-16"), "NUL characters"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, words: str) -> None:
    """In words that hold nothing of it, nor does anything that hangs on the error: it may be a cookie."""
    with pytest.raises(ValueError, match=words) as caught:
        text_of(content)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"a\r\nb\n", "a\nb\n"), (b"a\rb\r", "a\nb\n"), (b"a\rb\n", "a\rb\n"), (b"a\r\r\nb", "a\r\nb")],
)
def test_line_ends_are_judged_once_for_a_text(content: bytes, text: str) -> None:
    """Where LF ends lines, a lone CR is a character."""
    assert text_of(content) == text


def test_lines_have_their_numbers_and_ends() -> None:
    """However large the file is; a wrong byte spoils its line, and a long line is passed over."""
    file = io.BytesIO(b"a\r\n\xff\rc\n" + b"x" * 3_000_000 + b"\r\n\nlast")
    assert list(lines_of(file, 1000)) == [
        Line(1, "a", "\r\n", 1),
        Line(2, "\udcff", "\r", 1, is_text=False),
        Line(3, "c", "\n", 1),
        Line(4, "", "\r\n", 1001, too_long=True),
        Line(5, "", "\n", 0),
        Line(6, "last", "", 4),
    ]


def test_a_limit_is_in_bytes() -> None:
    """A character may have four of them."""
    assert [line.too_long for line in lines_of(io.BytesIO("éé\nééé\n".encode()), 4)] == [False, True]


def test_who_stops_half_way_may_close_the_file_first() -> None:
    """As happens where the one who reads is thrown away later than the file is closed."""
    file = io.BytesIO(b"a\nb\n")
    lines: Iterator[Line] = lines_of(file, 10)
    next(lines)
    file.close()
    lines.close()  # type: ignore[attr-defined]
