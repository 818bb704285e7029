"""Hostile text costs no more than its length: what is read from the wire or shown is read in linear time."""

import time
from typing import Any, Callable, Dict

import pytest

from copilot_sync.auth.cookies import read_cookies
from copilot_sync.cli.markdown_blocks import PARSER, BlockSplitter
from copilot_sync.errors import CopilotError
from copilot_sync.protocol.errors import error_of_status, server_words
from copilot_sync.protocol.events import decode
from copilot_sync.protocol.replies import read_token
from copilot_sync.protocol.requests import Request
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.safe_text import is_too_deep
from copilot_sync.terminal_text import one_line, printable
from copilot_sync.times import read_time

#: Characters of the shorter text, and of one that is read as Markdown. The longer one has four times as many.
SHORT, SHORT_MARKDOWN = 10_000, 1_000
#: How many times as long the longer one may take, seconds for what a busy machine does besides, and seconds at most.
MOST, SLACK, LONGEST = 10.0, 0.1, 3.0

PIECES = [
    *(
        "[",
        "![[",
        "![",
        "[a](",
        "[](",
        "](",
        "(",
        "*",
        "**a ",
        "*a_",
        "`",
        "<",
        "<title",
        "<title>",
        "<!--",
        "<![CDATA[",
    ),
    *(
        "{",
        '"',
        '\\"',
        "\\",
        '[{"',
        "|",
        "a|\n",
        "> ",
        "- a\n",
        "&",
        "=",
        ";",
        "/login",
        "\n\n",
        "\r",
        "\x1b[",
        "\u202e",
    ),
]


def words(text: str) -> str:
    return server_words(RawReply(500, {"content-type": "text/html"}, text.encode()), str)


def redirected(text: str) -> object:
    reply = RawReply(302, {"location": f"https://example.org/{text}"})
    return error_of_status(Request("thread", "POST", "", "", {}), reply, now=0.0, mask=str)


def tolerantly(read: Callable[[str], object]) -> Callable[[str], object]:
    def tolerant(text: str) -> object:
        try:
            return read(text)
        except (CopilotError, ValueError) as error:
            return error

    return tolerant


READERS: Dict[str, Callable[[str], Any]] = {
    "depth": lambda text: is_too_deep("[" * 201 + '"' + text + "\\"),
    "event": tolerantly(decode),
    "words": words,
    "redirect": redirected,
    "token": tolerantly(lambda text: read_token(RawReply(200, {}, text.encode()), 0.0)),
    "header of cookies": tolerantly(lambda text: read_cookies(f"a={text}")),
    "time": read_time,
    "line": one_line,
    "terminal": printable,
    "Markdown": PARSER.parse,
    "blocks": lambda text: BlockSplitter().add(text + "\n"),
}


def seconds(read: Callable[[str], object], text: str) -> float:
    started = time.perf_counter()
    read(text)
    return time.perf_counter() - started


@pytest.mark.parametrize("reader", READERS)
def test_four_times_the_text_takes_about_four_times_as_long(reader: str) -> None:
    """Whatever it is made of: a hundred thousand brackets cost nobody five seconds."""
    length, read = SHORT_MARKDOWN if reader in ("Markdown", "blocks") else SHORT, READERS[reader]
    slow = []
    for piece in PIECES:
        short, long = ((piece * size)[:size] for size in (length, 4 * length))
        for _ in range(3):  # the machine may be busy with something else
            before, after = seconds(read, short), seconds(read, long)
            if after <= min(MOST * before + SLACK, LONGEST):  # pragma: no branch - nearly always at once
                break
        else:  # pragma: no cover - none is slow
            slow.append(f"{piece!r}: {before:.4f} s and {after:.4f} s")
    assert slow == []


def test_a_page_of_brackets_is_drawn_at_once() -> None:
    """A link is looked for in so many of them; the rest is shown as it came."""
    began = time.monotonic()
    tokens = PARSER.parse("[a](http://example.org)\n\n" + "[" * 100_000)
    assert time.monotonic() - began < 1
    assert [child.type for child in tokens[1].children or ()] == ["link_open", "text", "link_close"]
    assert [child.content for child in tokens[4].children or ()] == ["[" * 100_000]
