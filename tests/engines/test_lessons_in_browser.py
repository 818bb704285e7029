"""The lessons of the two chats, typed from their pages, and looked at in Chromium wherever they have a picture.

``tests/pages`` types them too, without a browser.
"""

import os
import sys
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from chat_pages import Page, running_chromium

sys.path.append(str(Path(__file__).parents[1] / "pages"))
from lessons import Lesson

DOCS = Path(__file__).parents[2] / "docs"
QUESTION = "Why does a chat show each word as soon as it is there?"
LONG = " ".join(f"word {number}" for number in range(30))
#: Notes each state that the answer of a lesson's own page is in.
WATCH = """
    const answer = document.getElementById("answer");
    window.states = [];
    new MutationObserver(() => window.states.push(answer.textContent)).observe(answer, { childList: true });
"""
#: The same for the newest answer of the chat page.
WATCH_CHAT = """
    const turns = document.getElementById("turns");
    window.states = new Set();
    const note = () => window.states.add([...turns.querySelectorAll(".assistant .body")].pop()?.textContent);
    new MutationObserver(note).observe(turns, { childList: true, characterData: true, subtree: true });
"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Of its own for each lesson, because cookies are those of all ports."""
    with running_chromium(tmp_path / "chromium") as driver:
        yield driver


class Reader:
    """Somebody with a browser, who does what a lesson says beside its pictures."""

    def __init__(self, lesson: Lesson, port: str, driver: Any, pictures: Path) -> None:
        self._lesson = lesson
        self._address = lesson.address(port)
        self._pictures = pictures
        self._own = Page(driver, f"{self._address}/")
        self._chat = Page(driver, f"{self._address}/chat/")
        self.drawn: Dict[str, int] = {}

    def look(self, figure: str) -> None:
        """Do what leads to this picture, and draw it."""
        name = Path(figure).name
        kind = name.rpartition("_")[2].partition(".")[0]
        {"stream": self._see_the_stream, "chat": self._see_the_chat, "error": self._see_the_error}[kind](name)

    def _draw(self, page: Page, name: str, width: int, height: int) -> None:
        page.show_as("light", width=width, height=height, motion="reduce")
        file = self._pictures / name
        assert page.driver.save_screenshot(str(file))
        self.drawn[name] = file.stat().st_size

    def _ask(self, question: str) -> None:
        """On the lesson's own page."""
        self._own.driver.get(self._own.url)
        self._own.run(WATCH)
        self._own.find("[name=prompt]").send_keys(question, "\ue007")

    def _see_the_stream(self, name: str) -> None:
        self._ask(QUESTION)
        self._own.wait(lambda: len(self._own.texts("#answer")[0]) > len(QUESTION) // 2)
        self._draw(self._own, name, 760, 300)
        # A page that leaves before the end of the response has stopped the answer, and its conversation gets no name.
        self._own.wait(lambda: self._own.run("return !document.querySelector('button').disabled"))
        assert self._own.texts("#answer") == [QUESTION]
        assert len(self._own.run("return window.states")) > 5
        assert self._own.texts("#error") == [""]
        assert self._own.run("return getSelection().toString()") == QUESTION

    def _see_the_chat(self, name: str) -> None:
        chat = self._chat
        chat.load()
        chat.hear("What **is** WSGI?")
        chat.wait(lambda: len(chat.titles) == 2)
        assert chat.texts(".assistant strong") == ["is"]
        chat.wait(self._are_both_named)
        chat.wait(lambda: chat.answers == ["What is WSGI?"])
        self._draw(chat, name, 1000, 560)
        self._see_another_visitor()
        chat.ask(LONG)
        chat.wait(lambda: chat.answers[-1].startswith("word"))
        chat.driver.refresh()
        chat.run(WATCH_CHAT)
        chat.wait(lambda: chat.answers and chat.answers[-1] == LONG)
        assert len(chat.run("return [...window.states]")) > 5
        assert chat.questions == ["What **is** WSGI?", LONG]

    def _are_both_named(self) -> bool:
        """After a reload: the service names a conversation when its answer is over, which may be later than that."""
        self._chat.reload()
        return self._chat.titles == ["What **is** WSGI?", QUESTION]

    def _see_another_visitor(self) -> None:
        """In a private window, which has no cookies."""
        here = self._chat.driver.current_url
        cookies = self._chat.driver.get_cookies()
        self._chat.driver.delete_all_cookies()
        self._chat.load()
        assert self._chat.titles == []
        self._chat.driver.delete_all_cookies()
        for cookie in cookies:
            self._chat.driver.add_cookie(cookie)
        self._chat.driver.get(here)
        self._chat.reload()
        self._chat.wait(lambda: self._chat.answers == ["What is WSGI?"])

    def _see_the_error(self, name: str) -> None:
        told = "The service can't be reached at the moment. Please try again later."
        self._ask(QUESTION)
        self._own.wait(lambda: self._own.texts("#error") == [told])
        self._chat.load()
        self._chat.hear(QUESTION)
        self._chat.wait(lambda: self._chat.notes == ["The service can’t be reached at the moment."])
        assert "Try again" in self._chat.texts("button")
        self._draw(self._chat, name, 1000, 560)
        assert "an answer for a page failed: nothing listens there: " in self._lesson.servers[-1].output


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ["lesson_django", "lesson_flask"])
def test_a_lesson_shows_what_its_pictures_promise(page: str, browser: Any, tmp_path: Path) -> None:
    """In the browser too. The pictures are small; ``PICTURES`` names the folder for those that are kept."""
    pictures = Path(os.environ.get("PICTURES", tmp_path))
    with Lesson(DOCS / f"{page}.rst", tmp_path, dict(os.environ)) as lesson:
        reader = Reader(lesson, "8000", browser, pictures)
        lesson.figure = reader.look
        lesson.type_all()
    assert list(reader.drawn) == [f"{page}_{kind}.png" for kind in ("stream", "chat", "error")]
    assert max(reader.drawn.values()) < 120_000
