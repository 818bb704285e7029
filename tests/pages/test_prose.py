"""The prose of the documentation keeps the few rules that CONTRIBUTING lists.

The rules are checked here because no checker that was tried knows reStructuredText. ``proselint`` 0.16 and
``write-good`` 1.0.8 read code, roles and tables as prose, and have no rule for the length of a sentence. The parser of
``textlint`` for reStructuredText, ``textlint-plugin-rst`` 0.1.1, needs another program in Python, which is to parse the
pages as Sphinx does. The package ``vale`` fetches a program from GitHub when it runs. Sphinx has parsed the pages
already, so what is left is short.
"""

import pickle
import re
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest
from docutils import nodes
from docutils.core import publish_doctree

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.rst"
#: Words in a sentence; a piece of code is one.
MOST_WORDS = 40
#: Verbs in the passive in a sentence.
MOST_PASSIVES = 2
#: Words that promise, that fill, that only some readers know, or that hide who acts.
BANNED = (
    "anew|basically|easily|easy|effortless|effortlessly|hence|leverage|lest|obvious|obviously|please|"
    "powerful|robust|seamless|seamlessly|shall|simply|thereby|thereof|utilise|utilize|utilised|utilized|"
    "whence|whilst|whoever"
)
BANNED_PHRASES = r"as per|blazing fast|e\.g\.|etc\.|i\.e\.|in order to|of course|state of the art"

_PARTICIPLES = (
    "begun|bound|broken|brought|built|bought|caught|chosen|cut|done|drawn|driven|felt|forgotten|found|"
    "given|gone|handed|heard|held|hidden|hit|kept|known|laid|left|let|lost|made|meant|met|paid|put|read|"
    "run|said|seen|sent|set|shown|shut|sold|spent|split|stolen|taken|taught|thought|thrown|told|"
    "understood|withdrawn|won|written"
)
_PASSIVE = re.compile(
    r"\b(?:is|are|was|were|be|been|being)\b(?:\s+(?:not|never|also|always|only|then|still|already|often|once|first|\w+ly))*"
    rf"\s+(?:\w+ed|{_PARTICIPLES})\b",
    re.IGNORECASE,
)
#: "Where" for "if" or "when": before the clause that depends on it, or behind a word that makes it a condition.
_WHERE = re.compile(r"^Where\s[^,:;.?]+,\s|\b(?:[Oo]nly|[Ee]ven|but|[Ee]xcept|unless)\s+where\b")
_BANNED = re.compile(rf"\b(?:{BANNED})\b|(?<!\w)(?:{BANNED_PHRASES})", re.IGNORECASE)
#: What stands for a piece of code, so that no rule looks into it.
_CODE = "□"
_END = re.compile(r"(?<=[.!?])[”»\")]*\s+(?=[A-Z“«\"(0-9□])")


def _too_long(sentence: str) -> str:
    words = len(sentence.split())
    return f"{words} words" if words > MOST_WORDS else ""


def _too_passive(sentence: str) -> str:
    passives = _PASSIVE.findall(sentence)
    return f"in the passive: {', '.join(passives)}" if len(passives) > MOST_PASSIVES else ""


def _says_where_for_if(sentence: str) -> str:
    return "says “where” for “if” or “when”" if _WHERE.search(sentence) else ""


def _has_banned_words(sentence: str) -> str:
    return ", ".join(match[0] for match in _BANNED.finditer(sentence))


RULES: Dict[str, Callable[[str], str]] = {
    "length": _too_long,
    "passive": _too_passive,
    "where": _says_where_for_if,
    "words": _has_banned_words,
}


def text_of(node: nodes.Node) -> str:
    """Return the prose of a node, with a sign for each piece of code."""
    if isinstance(node, (nodes.literal, nodes.image, nodes.math)):
        return _CODE
    if isinstance(node, nodes.Text):
        return str(node)
    return "".join(text_of(child) for child in node.children)


def sentences(document: nodes.Node) -> Iterator[str]:
    """Yield the sentences of a document's paragraphs.

    Not those of docstrings, which name themselves as their source, nor the fields of a signature, which have none.
    """
    for paragraph in document.findall(nodes.paragraph):
        if paragraph.source is not None and "docstring of" not in paragraph.source:
            yield from _END.split(" ".join(text_of(paragraph).split()))


def breaches(document: nodes.Node) -> List[str]:
    """Return what breaks a rule, each with its sentence."""
    return [
        f"{rule}: {fault} | {sentence}"
        for sentence in sentences(document)
        for rule, broken in RULES.items()
        for fault in [broken(sentence)]
        if fault
    ]


@pytest.mark.parametrize("page", sorted(path.stem for path in DOCS.glob("*.rst")))
def test_a_page_keeps_the_rules(page: str, site: Path) -> None:
    """As Sphinx has parsed it. The changelog, the guide for contributors and the one on security are pages too."""
    document = pickle.loads((site / ".doctrees" / f"{page}.doctree").read_bytes())
    assert breaches(document) == []


def test_the_first_page_of_the_repository_keeps_the_rules() -> None:
    """README is no page of the site, so it is parsed here."""
    assert breaches(publish_doctree(README.read_text(encoding="utf-8"), settings_overrides={"report_level": 4})) == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("length", "Word" + " word" * MOST_WORDS + "."),
        ("passive", "It is sent, is received and was never stored."),
        ("where", "Where a line ends, cut it."),
        ("where", "Cut it only where a line ends."),
        ("words", "Simply run it."),
        ("words", "Run it, e.g. now."),
    ],
    ids=lambda value: value[:20],
)
def test_a_rule_finds_what_breaks_it(rule: str, text: str) -> None:
    """Behind a sentence that breaks none, and named by its rule."""
    (breach,) = breaches(publish_doctree(f"It waits. {text}"))
    assert breach.startswith(f"{rule}: ")
    assert breach.endswith(f"| {text}")


@pytest.mark.parametrize(
    "text",
    [
        "``simply easy`` is code.",
        "Where is the file?",
        "It prints where the file is.",
        "Set it in Redis, where all workers see it.",
        "It is sent and stored.",
        " ".join(["word"] * MOST_WORDS) + ". " + " ".join(["Word"] * MOST_WORDS) + ".",
        "::\n\n    Simply in order to shall.",
    ],
    ids=lambda value: value[:20],
)
def test_a_rule_leaves_good_prose_alone(text: str) -> None:
    """Code, questions, places, and two sentences that are long together."""
    assert breaches(publish_doctree(text)) == []


def test_contributors_can_read_the_rules() -> None:
    """CONTRIBUTING has the numbers and all words."""
    guide = " ".join((DOCS.parent / "CONTRIBUTING.rst").read_text(encoding="utf-8").split())
    assert f"at most {MOST_WORDS} words" in guide
    for word in f"{BANNED}|{BANNED_PHRASES}".replace("\\", "").split("|"):
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", guide), word
