"""docs/troubleshooting.rst quotes messages, and each of them is one that the code makes."""

import ast
import re
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest

import copilot_sync
from copilot_sync import errors
from copilot_sync.cli import failures
from copilot_sync.contrib import sse
from copilot_sync.protocol import errors as statuses
from copilot_sync.transport import boundary, call_limits

PACKAGE = Path(copilot_sync.__file__).parent
PAGE = Path(__file__).parents[1].joinpath("docs", "troubleshooting.rst").read_text(encoding="utf-8")
#: The messages that the page explains: a term of its lists, or a line that stands under one.
QUOTED: List[str] = re.findall(r"^(?:    \| )?``(.+)``$", PAGE, re.MULTILINE)
#: What a message has in a place that differs: of ``%`` and of ``format``.
_PLACE = re.compile(r"%[sdr]|%\.\d+f|\{[a-z_]*(?::[^{}]*)?\}")


def _documented(tree: ast.AST) -> Set[int]:
    """The docstrings and other lone texts of a module, which no user ever sees."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _constants(tree: ast.Module) -> Dict[str, str]:
    """The texts that a module gives a name to."""
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _joined(node: ast.JoinedStr, constants: Dict[str, str]) -> str:
    """A text with its places, of which those that never differ are filled in."""
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        else:
            name = getattr(getattr(part, "value", None), "id", "")
            parts.append(constants.get(name, "\0"))
    return "".join(parts)


def _texts() -> Iterator[str]:
    """The texts in the code of the library, cut at each place that differs, and those of the chat page."""
    yield PACKAGE.joinpath("contrib", "chat", "static", "texts.js").read_text(encoding="utf-8")
    for path in PACKAGE.rglob("*.py"):
        if "emulator" in path.relative_to(PACKAGE).parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        unseen, constants = _documented(tree), _constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in unseen:
                yield from _PLACE.split(node.value)
            if isinstance(node, ast.JoinedStr):
                yield _joined(node, constants)


TEXTS = "\0".join(_texts())


def _pieces(message: str) -> List[str]:
    """What a message has beside the places that differ."""
    return [piece.strip() for piece in message.split("…") if piece.strip(" :;,()\"'")]


@pytest.mark.parametrize("message", QUOTED)
def test_each_message_of_the_page_is_in_the_code(message: str) -> None:
    """A message that was reworded is searched for in vain, so the page follows it."""
    pieces = _pieces(message)
    assert sum(map(len, pieces)) >= 10, "this would be found anywhere"
    assert [piece for piece in pieces if piece not in TEXTS] == []


def test_no_message_stands_twice() -> None:
    """Whoever searches for it finds one advice."""
    assert len(QUOTED) > 100
    assert len(QUOTED) == len(set(QUOTED))


def _shown(words: str) -> str:
    """A message of the code as the page writes it."""
    return re.sub(r"\{[^{}]*\}", "…", words)


@pytest.mark.parametrize(
    "words",
    [
        *[words for status, (_, words) in statuses._STATUSES.items() if status != 421],
        *[words for _, words in boundary._WORDS],
        *call_limits._TIMEOUT_WORDS.values(),
        *[words.partition("; ")[0] for _, words in failures._ADVICE if "copilot-sync" in words],
    ],
)
def test_what_the_code_lists_is_on_the_page(words: str) -> None:
    """The tables of statuses, of failures of the network, of limits and of advice are explained line by line."""
    begins = _shown(words)
    assert any(quoted == begins or quoted.startswith(f"{begins};") for quoted in QUOTED) or begins == "try again later"


def test_the_page_names_each_kind_of_error_that_its_messages_have() -> None:
    """By the kind a reader finds the advice, too."""
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds - set(re.findall(r"``(\w+Error)``", PAGE)) == {"CopilotError"}


def test_the_sentences_of_pages_are_those_of_the_server() -> None:
    """Each sentence that the page quotes is one that ``public_message`` returns, or the one about storing."""
    told = {each.message for each in sse._MESSAGES.values()} | {sse._NOT_KEPT.message}
    section = PAGE.partition("Web pages and tasks")[2].partition("The chat page itself")[0]
    quoted = re.findall(r"^(?:    \| )?``(.+)``$", section, re.MULTILINE)
    assert quoted
    assert set(quoted) <= told
