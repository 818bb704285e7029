"""The prepared answers for somebody who tries the library out."""

import pytest

from copilot_sync import Client
from copilot_sync.emulator import Emulator, Reply
from copilot_sync.emulator.demo import demo_answer


@pytest.mark.parametrize(
    ("question", "beginning"),
    [
        ("Explain WSGI in one line", "**This is a demo.** The answer"),
        ("", "**This is a demo.** The answer"),
        ("Review this", "**This is a demo review.**"),
        ("Well?\n\ndiff --git a/app.py b/app.py\n+++ b/app.py", "**This is a demo review.**"),
        ("What is not tested in app.py?", "**This is a demo.** It was prepared: no model has read your file."),
        ("What does it do?", "**This is a demo.** It was prepared: no model has read your file."),
        ("And in Django?", "**Still the demo**"),
        ("Tell me more", "**Still the demo**"),
    ],
)
def test_each_kind_of_question_has_its_answer(question: str, beginning: str) -> None:
    """Each says at once that it is a demo."""
    assert demo_answer(question).startswith(beginning)


def test_an_answer_shows_what_answers_may_hold() -> None:
    """Bold text, code in a language, a table; and the next thing to type."""
    answer = demo_answer("Explain WSGI in one line")
    assert all(part in answer for part in ("**", "```python\n", "|---|", "`copilot-sync doctor`"))


def test_the_emulator_plays_it(emulator: Emulator) -> None:
    """As any other function of a prompt."""
    emulator.reply = Reply(demo_answer)
    with Client(emulator.api_key, api_url=emulator.api_url) as client:
        chat = client.chat()
        assert [chat.ask(question).text for question in ("Hello", "And now?")] == [
            demo_answer("Hello"),
            demo_answer("And now?"),
        ]
