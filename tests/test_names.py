"""How the code is laid out: one name for one class, short modules and classes, and no banners over groups of functions.

Two classes of the package share a name if the names differ in leading underscores alone, wherever the classes stand.
"""

import ast
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest

import copilot_sync

LONGEST_MODULE, LONGEST_CLASS, LONGEST_TEST_MODULE = 450, 300, 800

PACKAGE = Path(copilot_sync.__file__).parent
TESTS = Path(__file__).parent
#: What has statements in it that belong to the module or class around it.
_OPEN = (ast.ClassDef, ast.If, ast.Try, ast.With)
#: For formatters, linters and type checkers, or the description of the value that follows.
_DIRECTIVE = re.compile(r"#:|# *(fmt|isort|mypy|noqa|pragma|ruff|type)\b")
_SENTENCE = re.compile(r"[.?!]($|\s)")
#: A line of signs, such as "# -----", also with words between them.
_RULE = re.compile(r"^# *[-=~*#_]{3,}|[-=~*#_]{3,}$")


def sources(folder: Path) -> Dict[str, str]:
    """The text of each module below a folder, by its path from beside the folder."""
    paths = sorted(folder.rglob("*.py"))
    return {path.relative_to(folder.parent).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def classes(text: str) -> Iterator[ast.ClassDef]:
    """Every class of a module, also those in classes and functions."""
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef))


def shared_names(modules: Dict[str, str]) -> List[str]:
    """Each name that more than one class has, and where they are."""
    places: Dict[str, List[str]] = defaultdict(list)
    for path, text in modules.items():
        for node in classes(text):
            places[node.name.lstrip("_")].append(f"{path}:{node.lineno}")
    return [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]


def long_modules(modules: Dict[str, str], limit: int) -> List[str]:
    """Each module of more lines than the limit."""
    lengths = {path: len(text.splitlines()) for path, text in modules.items()}
    return [f"{path}:{limit + 1}: {length} lines" for path, length in lengths.items() if length > limit]


def long_classes(modules: Dict[str, str], limit: int) -> List[str]:
    """Each class of more lines than the limit."""
    found = []
    for path, text in modules.items():
        for node in classes(text):
            length = len(lines_of(node))
            if length > limit:
                found.append(f"{path}:{node.lineno}: {node.name}, {length} lines")
    return found


def lines_of(node: ast.stmt) -> range:
    assert node.end_lineno is not None  # of a node that was parsed
    return range(node.lineno, node.end_lineno + 1)


def banners(modules: Dict[str, str]) -> List[str]:
    """Each comment that stands alone between functions or classes and says what follows, as a heading does.

    It fills its lines, has blank lines above and below, belongs to a module or a class, and has no sentence in it, or
    is drawn with a line of signs.
    """
    return [f"{path}:{number}: {line}" for path, text in modules.items() for number, line in _banners(text)]


def _banners(text: str) -> Iterator[Tuple[int, str]]:
    lines = ["", *text.splitlines(), ""]
    comments = _whole_line_comments(text) - _inner_lines(ast.parse(text))
    for first in sorted(number for number in comments if number - 1 not in comments):
        block = [lines[first].strip()]
        while first + len(block) in comments:
            block.append(lines[first + len(block)].strip())
        alone = not lines[first - 1].strip() and not lines[first + len(block)].strip()
        says_something = any(_SENTENCE.search(line) or _DIRECTIVE.match(line) for line in block)
        if any(map(_RULE.search, block)) or (alone and not says_something):
            yield first, block[0]


def _whole_line_comments(text: str) -> Set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {
        token.start[0]
        for token in tokens
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip() and token.start[0] > 1
    }


def _inner_lines(tree: ast.Module) -> Set[int]:
    """The lines of functions and of statements that can't hold others."""
    inner = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and not isinstance(node, _OPEN)]
    return {number for node in inner for number in lines_of(node)}


def test_each_class_of_the_package_has_a_name_of_its_own() -> None:
    """One name is one thing: whoever reads it needs no module to know which is meant."""
    found = shared_names(sources(PACKAGE))
    assert not found, "\n".join(found)


def test_no_module_of_the_package_is_long() -> None:
    """A module is about one thing, and can be read in one go."""
    found = long_modules(sources(PACKAGE), LONGEST_MODULE)
    assert not found, "\n".join(found)


def test_no_class_of_the_package_is_long() -> None:
    """A class has one job."""
    found = long_classes(sources(PACKAGE), LONGEST_CLASS)
    assert not found, "\n".join(found)


def test_no_test_module_is_long() -> None:
    """The name of a test module says which tests it has."""
    found = long_modules(sources(TESTS), LONGEST_TEST_MODULE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_no_comment_is_a_banner(folder: Path) -> None:
    """What needs a heading is a module or a class of its own."""
    found = banners(sources(folder))
    assert not found, "\n".join(found)


def test_names_that_differ_in_underscores_are_the_same() -> None:
    """Also in one module, in a function or in another class."""
    modules = {
        "a.py": "class Turn: ...\nclass Other: ...",
        "b.py": "def f():\n    class _Turn: ...",
        "c.py": "class Alone:\n    class __Turn: ...",
    }
    assert shared_names(modules) == ["Turn: a.py:1, b.py:2, c.py:2"]


def test_length_is_counted_in_lines() -> None:
    """As many as the limit are allowed; the blank ones count."""
    text = "class A:\n    x = 1\n\n    y = 2\n"
    assert long_modules({"a.py": text}, 4) == long_classes({"a.py": text}, 4) == []
    assert long_modules({"a.py": text}, 3) == ["a.py:4: 4 lines"]
    assert long_classes({"a.py": text}, 3) == ["a.py:1: A, 4 lines"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = 1\n\n\n# Reading\n\n\ndef f(): ...\n", ["# Reading"]),
        ("class A:\n    x = 1\n\n    # How it ends\n\n    def f(self): ...\n", ["# How it ends"]),
        ("class A:\n    # How it begins\n\n    def f(self): ...\n", []),
        ("x = 1\n\n# Two lines\n# of words\n\ny = 2\n", ["# Two lines"]),
        ("if x:\n    y = 1\n\n    # Otherwise\n\n    def f(): ...\n", ["# Otherwise"]),
        ("x = 1\n# -----\n# Reading\n# -----\ny = 2\n", ["# -----"]),
        ("x = 1\n\n# --- Reading ---\ny = 2\n", ["# --- Reading ---"]),
        ("x = 1\n\n#: Seconds\n\ny = 2\n", []),
        ("x = 1\n\n# The status says little.\n\ny = 2\n", []),
        ("x = 1\n\n# It says little. That is why\n\ny = 2\n", []),
        ("x = 1\n\n# Above what it is about\ny = 2\n", []),
        ("x = 1\n\n# fmt: off\n\ny = 2\n", []),
        ("#!/usr/bin/python\n\nx = 1\n", []),
        ("def f():\n    x = 1\n\n    # A step\n\n    return x\n", []),
        ("x = [\n    1,\n\n    # The others\n\n    2,\n]\n", []),
        ('x = """\n\n# No comment\n\n"""\n', []),
        ("x = 1  # at the end of a line\n\ny = 2\n", []),
    ],
)
def test_a_banner_is_a_heading_and_no_sentence(text: str, found: List[str]) -> None:
    """Sentences, directives, descriptions of values, and comments on a statement are none."""
    assert [banner.split(": ", 1)[1] for banner in banners({"a.py": text})] == found


def test_a_banner_is_told_with_its_line() -> None:
    """So that it can be found."""
    assert banners({"a.py": "x = 1\n\n# Reading\n\ny = 2\n"}) == ["a.py:3: # Reading"]
