"""Text from the service: no terminal obeys it, and none of it is hidden."""

import io
from typing import Iterator, List

import pytest
from support import FORGERIES

from copilot_sync.terminal_text import one_line, printable, shortened, write_pieces


def test_a_terminal_gets_nothing_to_obey() -> None:
    """Every control character but tab and newline is made visible; all other text stays as it is."""
    controls = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
    assert printable(controls) == "\ufffd" * 9 + "\t\n" + "\ufffd" * 2 + "\ufffd" * 51
    assert printable("é 🙂\u202f\u2028text\r\n") == "é 🙂\u202f\u2028text\n"


def test_a_direction_cannot_be_turned_in_an_answer() -> None:
    """It would show something else than it says; joiners, which emoji and some scripts are written with, stay."""
    assert printable("a\u202eb\u2066c\u2069d\u202ce") == "a\ufffdb\ufffdc\ufffdd\ufffde"
    assert printable("👨\u200d👩\u200c\u200f") == "👨\u200d👩\u200c\u200f"


@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_a_name_is_one_line_of_what_is_seen(text: str) -> None:
    """Nothing in it can pass for another line or cell, move the cursor, turn the direction or take no room."""
    line = one_line(f"  a {text} b")
    assert line.isprintable()
    assert (line[:2], line[-2:]) == ("a ", " b")
    assert one_line("é 🙂\u00a0中  x") == "é 🙂 中 x"


class Out(io.StringIO):
    """A file that may be a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize("is_terminal, text", [(True, "\ufffd[2Jred\n"), (False, "\x1b[2Jred\n")])
def test_pieces_are_filtered_for_a_terminal_alone(is_terminal: bool, text: str) -> None:
    """A pipe gets every character; both get a newline at the end if there is none."""
    out = Out(is_terminal)
    write_pieces(["\x1b[2J", "", "red", ""], out)
    assert out.getvalue() == text


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab\u2026"),
        ("a bcd", 3, "a\u2026"),
        ("\u5f85\u5f85", 3, "\u5f85\u2026"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
        ("abc", -1, "\u2026"),
        ("", -1, ""),
    ],
)
def test_a_text_is_cut_to_the_columns_that_it_takes(text: str, width: int, shown: str) -> None:
    """Some characters take two, and some none. No width is too small to be asked for."""
    assert shortened(text, width) == shown


@pytest.mark.parametrize("pieces", [[], [""], ["line\n"], ["line", "\n", ""]])
def test_a_line_that_has_ended_is_not_ended_again(pieces: List[str]) -> None:
    """Nothing is added to nothing either."""
    out = Out(False)
    write_pieces(pieces, out)
    assert out.getvalue() == "".join(pieces)


def test_the_line_ends_even_if_the_answer_breaks_off() -> None:
    """What is said of the failure gets a line of its own."""

    def pieces() -> Iterator[str]:
        yield "half"
        raise ValueError("cut")

    out = Out(True)
    with pytest.raises(ValueError, match="cut"):
        write_pieces(pieces(), out)
    assert out.getvalue() == "half\n"
