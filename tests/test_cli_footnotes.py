"""The footnotes under an answer: what it used, one line each, in any terminal."""

import sys
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Sink

from copilot_sync.cli.footnotes import MOST, footnotes
from copilot_sync.cli.output import show_references

FILE = {
    "type": "file",
    "path": "src/app.py",
    "repoOwner": "octocat",
    "repoName": "Hello-World",
    "url": "https://github.com/octocat/Hello-World/blob/main/src/app.py",
}
PAGE = {"type": "web", "title": "PEP 3333", "url": "https://peps.python.org/pep-3333/"}


@pytest.mark.parametrize(
    "reference, width, expected",
    [
        (FILE, 120, "[1] src/app.py  octocat/Hello-World  https://github.com/octocat/Hello-World/blob/main/src/app.py"),
        (FILE, 80, "[1] src/app.py  oc…  https://github.com/octocat/Hello-World/blob/main/src/app.py"),
        (FILE, 60, "[1] src/app.py  octocat/Hello-World"),
        (FILE, 20, "[1] src/app.py  oct…"),
        (FILE, 5, "[1]…"),
        (FILE, 2, "[…"),
        (PAGE, 60, "[1] PEP 3333  https://peps.python.org/pep-3333/"),
        (PAGE, 46, "[1] PEP 3333"),
        ({"type": "repository", "owner": "octocat", "repo": "Hello-World"}, 60, "[1] octocat/Hello-World"),
        ({"path": "a.py", "repo": "octocat/Hello-World", "owner": "octocat"}, 60, "[1] a.py  octocat/Hello-World"),
        ({"type": "thread-scoped-file", "name": "app.py"}, 60, "[1] app.py"),
        ({"type": "news"}, 60, "[1] news"),
        ({}, 60, "[1] unnamed"),
        ({"path": 7, "title": None, "name": ["x"], "url": {}}, 60, "[1] unnamed"),
        ({"title": "a\x1b[2Jb\nc\rd\u202ee"}, 60, "[1] a\ufffd[2Jb c d\ufffde"),
        ({"title": " \n ", "url": "https://a.b/\n[2] fake"}, 60, "[1] unnamed  https://a.b/ [2] fake"),
        ({"title": "中文中文中文"}, 10, "[1] 中文…"),
        ({"title": "e\u0301" * 6}, 10, "[1] " + "e\u0301" * 6),
    ],
    ids=[
        *("wide", "a long address", "no room for the address", "narrow", "narrower", "two columns", "a page"),
        *("a page without room", "a repository", "its full name", "inline", "a type", "empty", "other types"),
        *("control characters", "lines", "wide characters", "combining characters"),
    ],
)
def test_a_reference_is_one_line(reference: Dict[str, Any], width: int, expected: str) -> None:
    """Number, name, repository and address, as far as there are any and there is room."""
    assert list(footnotes([reference], width)) == [expected]


def test_references_are_numbered() -> None:
    """In the order of the service."""
    assert [line[:12] for line in footnotes([PAGE, FILE], 80)] == ["[1] PEP 3333", "[2] src/app."]


def test_thousands_of_references_do_not_fill_the_screen() -> None:
    """The last line says how many there are, and where."""
    lines = list(footnotes([PAGE] * 5000, 80))
    assert len(lines) == MOST + 1
    assert lines[-1] == f"and {5000 - MOST} more; --json shows all"
    assert len(list(footnotes([PAGE] * MOST, 80))) == MOST


_ANYTHING = st.one_of(st.text(), st.none(), st.integers(), st.lists(st.text()), st.just("x" * 100_000))


@given(
    st.lists(st.dictionaries(st.sampled_from([*FILE, "title", "name", "repo", "owner"]), _ANYTHING), max_size=3),
    st.integers(1, 200),
)
def test_no_reference_spoils_the_screen(references: List[Dict[str, Any]], width: int) -> None:
    """Whatever it is, it is one printable line that fits."""
    lines = list(footnotes(references, width))
    assert len(lines) == len(references)
    for line in lines:
        assert all(character.isprintable() for character in line)
        assert len(line) <= max(width, 1) or not line.isascii()


@pytest.mark.parametrize(
    "is_terminal, expected",
    [(True, "\n[1] PEP 3333  https://peps.python.org/pep-3333/\n"), (False, "")],
    ids=["terminal", "pipe"],
)
def test_footnotes_are_for_people(is_terminal: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program gets none, and an answer without references has none."""
    out = Sink("utf-8", terminal=is_terminal)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "60")
    show_references([])
    show_references([PAGE])
    assert out.written().decode() == expected
