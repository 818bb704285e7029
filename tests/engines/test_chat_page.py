"""The chat page in Chromium: what one does there, and what one sees and hears."""

import os
import re
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest
from chat_pages import Page, serving
from selenium.webdriver.common.keys import Keys
from support import PATIENCE

from copilot_sync import RateLimit
from copilot_sync.emulator import Emulator, Fault

#: Pixels from what is in sight to the end.
GAP = "const box = document.getElementById('scroll'); return box.scrollHeight - box.scrollTop - box.clientHeight"
LONG = "# A heading is higher than its text\n\n" * 40


class Words:
    """An answer that is said word by word, as the test lets it go on."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self._go_on = threading.Semaphore(0)

    def __call__(self, prompt: str) -> Iterator[str]:
        for word in self._words:
            yield word
            assert self._go_on.acquire(timeout=3 * PATIENCE)

    def go_on(self, count: int = 100) -> None:
        self._go_on.release(count)


def button(name: str) -> str:
    return f'[aria-label="{name}"]'


def test_an_answer_is_copied_regenerated_and_described(emulator: Emulator, page: Page) -> None:
    """The copy is the Markdown; what was asked is asked once more; the model, tokens and time stand below."""
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.hear("**one**")
    assert page.answers == ["one"]
    assert re.fullmatch(r"\S+ · \d+ tokens? · [\d.]+ s", page.texts(".meta")[-1])
    page.click(button("Copy answer"))
    page.wait(lambda: page.run("return window.copied") == "**one**")
    page.wait(lambda: page.is_shown(button("Copied")))
    emulator.script("another")
    page.regenerate()
    assert (page.questions, page.answers) == (["**one**"], ["another"])
    page.reload()
    assert (page.questions, page.answers) == (["**one**"], ["another"])
    page.hear("two")
    (thread,) = emulator.threads.values()
    first, _, again, answer, last, _ = thread.messages
    assert first["parentMessageID"] == again["parentMessageID"] == "root"
    assert last["parentMessageID"] == answer["id"]


def test_an_answer_that_is_not_regenerated_stays(emulator: Emulator, page: Page) -> None:
    """After a failure, and after Stop."""
    page.hear("one")
    emulator.fail("message", Fault.status(402), Fault.stall(("after_events", 1)))
    page.regenerate()
    assert (page.answers, page.notes) == (["one"], ["The allowance of answers is used up for now."])
    page.click(button("Answer again"))
    assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
    page.find("#prompt").send_keys(Keys.ESCAPE)
    page.wait_for_rest()
    assert (page.answers, page.notes) == (["one"], ["You stopped this answer."])


def test_a_copy_that_the_browser_refuses_is_told(page: Page) -> None:
    """On the button, for a moment."""
    page.run("navigator.clipboard.writeText = () => Promise.reject(new DOMException('no', 'NotAllowedError'));")
    page.hear("one")
    page.click(button("Copy answer"))
    page.wait(lambda: page.is_shown(button("The browser does not let this page copy.")))
    page.wait(lambda: not page.is_shown(button("The browser does not let this page copy.")))


def test_a_question_can_be_changed(emulator: Emulator, page: Page) -> None:
    """It is asked anew behind what it followed; Escape leaves it as it was."""
    page.hear("one")
    page.hear("two")
    page.hear("three")
    page.run("document.querySelectorAll('[aria-label=\"Edit question\"]')[1].click()")
    page.press("!", Keys.ESCAPE)
    assert page.questions == ["one", "two", "three"]
    page.run("document.querySelectorAll('[aria-label=\"Edit question\"]')[1].click()")
    page.press(" again", Keys.ENTER)
    page.wait(lambda: page.at_rest and page.answers == ["one", "two again"])
    assert page.questions == ["one", "two again"]
    page.run("document.querySelectorAll('[aria-label=\"Edit question\"]')[0].click()")
    page.press(Keys.SHIFT + Keys.ENTER, Keys.NULL, "more", Keys.ENTER)
    page.wait(lambda: page.at_rest and len(page.answers) == 1)
    assert page.questions == ["one\nmore"]
    (thread,) = emulator.threads.values()
    questions = {message["content"]: message["parentMessageID"] for message in thread.user_messages}
    assert questions["two again"] == questions["two"]
    assert questions["one\nmore"] == "root"
    page.reload()
    assert page.questions == ["one\nmore"]


def test_a_refusal_is_tried_again_when_the_service_wants_it(emulator: Emulator, page: Page) -> None:
    """The button counts down until then; other failures can be tried again at once."""
    page.run("""
        window.seen = [];
        new MutationObserver(() => {
            const button = document.querySelector(".failure button");
            if (button) window.seen.push([button.textContent, button.disabled]);
        }).observe(document.getElementById("turns"), { childList: true, subtree: true });""")
    emulator.fail("message", Fault.status(429, retry_after=3), Fault.status(500), None)
    page.hear("one")
    assert page.notes == ["There are too many questions at the moment."]
    page.wait(lambda: page.texts(".failure button") == ["Try again"])
    seen = page.run("return window.seen")
    assert (seen[0], seen[-1]) == (["Try again in 0:03", True], ["Try again", False])
    page.click(".failure button")
    page.wait(lambda: page.notes == ["The service has a problem at the moment."])
    page.click(".failure button")
    page.wait(lambda: page.answers == ["one"] and page.at_rest)
    assert (page.questions, page.notes) == (["one"], [])


def test_an_answer_that_was_stopped_goes_on(emulator: Emulator, page: Page) -> None:
    """What was said stays; the rest comes from where it is."""
    emulator.fail("message", Fault.stall(("after_events", 2)))
    page.ask("one two three four")
    page.wait(lambda: page.answers == ["one two"])
    page.click("#stop")
    page.wait(lambda: page.notes == ["You stopped this answer."])
    assert page.answers == ["one two"]
    page.click(".note button")
    page.wait(lambda: page.at_rest and page.answers == ["one two three four"])
    assert (page.questions, page.notes) == (["one two three four"], [])


def test_a_reload_in_the_middle_of_an_answer_loses_nothing(emulator: Emulator, page: Page) -> None:
    """Nor does a connection that is lost, nor another page that is looked at; the question is asked once."""
    emulator.reply = words = Words("one ", "two ", "three ", "four")
    page.ask("Count")
    page.wait(lambda: page.answers == ["one"])
    page.driver.refresh()
    page.wait(lambda: page.answers == ["one"])
    assert page.questions == page.texts("h1") == ["Count"]
    words.go_on()
    page.wait(lambda: page.at_rest and page.answers == ["one two three four"])
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["Count"]
    assert page.questions == ["Count"]


def test_the_browser_keeps_nothing_of_what_was_said(page: Page) -> None:
    """Its back button would show a conversation as it was, without what was said since."""
    page.hear("one")
    page.reload()
    page.wait(lambda: page.requests("messages"))
    found = page.run_async("""
        const [{ name }] = performance.getEntriesByType("resource").filter(({ name }) => name.includes("messages?"));
        return fetch(name, { cache: "only-if-cached", mode: "same-origin" }).then(() => "kept", () => "not kept");""")
    assert found == "not kept"
    page.pardon("messages?")


#: What was said in a conversation comes when the test wants it.
HOLD_BACK = """
const real = window.fetch;
const held = new Promise((resolve) => { window.letGo = resolve; });
window.fetch = async (path, options) => {
    if (path.startsWith("messages")) await held;
    return real(path, options);
};
"""


def test_a_question_that_comes_before_the_answer_under_way_is_given_back(emulator: Emulator, page: Page) -> None:
    """One was faster than the page, which did not know yet that an answer comes: one can send it when that is over."""
    emulator.reply = words = Words("one ", "two")
    page.ask("Count")
    page.wait(lambda: page.answers == ["one"])
    page.run(HOLD_BACK)
    page.click("#new")
    page.driver.back()
    page.ask("And then?")
    page.run("window.letGo()")
    page.wait(lambda: page.answers == ["one"])
    assert page.questions == ["Count"]
    assert page.run("return document.getElementById('prompt').value") == "And then?"
    words.go_on()
    page.wait(lambda: page.at_rest and page.answers == ["one two"])
    page.press(Keys.ENTER)
    page.wait(lambda: page.at_rest and len(page.answers) == 2)
    (thread,) = emulator.threads.values()
    first, answer, second, _ = thread.messages
    assert second["parentMessageID"] == answer["id"]
    assert (first["content"], second["content"]) == ("Count", "And then?")


#: The connection of the next answer is lost after its first words. What is written of it is read by nobody.
LOSE = """
const real = window.fetch;
window.asked = [];
window.fetch = async (path, options) => {
    window.asked.push([path, options?.headers?.["Last-Event-ID"] ?? null]);
    const response = await real(path, options);
    if (path !== "ask") return response;
    const reader = response.body.getReader();
    const body = new ReadableStream({
        async pull(controller) {
            const { value } = await reader.read();
            controller.enqueue(value);
            if (!new TextDecoder().decode(value).includes('"content"')) return;
            reader.cancel();
            await window.lose;
            controller.error(new TypeError("network error"));
        },
    });
    return new Response(body, response);
};
window.lose = new Promise((resolve) => { window.loseNow = resolve; });
"""


def test_a_lost_connection_is_made_again(emulator: Emulator, page: Page) -> None:
    """The answer goes on where it was, after the last event that came, and the question is asked once."""
    emulator.reply = words = Words("one ", "two ", "three")
    page.run(LOSE)
    page.ask("Count")
    page.wait(lambda: page.answers == ["one"])
    page.run("window.loseNow()")
    page.wait(lambda: page.texts(".state") == ["The connection was lost. Reconnecting …"])
    words.go_on()
    page.wait(lambda: page.at_rest and page.answers == ["one two three"])
    asked = page.run("return window.asked.filter(([path]) => path.startsWith('answer'))")
    assert re.fullmatch(r".+:4", asked[0][1])
    (thread,) = emulator.threads.values()
    assert len(thread.user_messages) == 1


def test_a_page_that_comes_back_from_the_cache_has_kept_its_answer(emulator: Emulator, page: Page) -> None:
    """Nothing begins anew, and nobody has left."""
    emulator.reply = words = Words("one ", "two ", "three")
    page.ask("Count")
    page.wait(lambda: page.answers == ["one"])
    page.run("window.mark = 1")
    page.driver.get("about:blank")
    words.go_on(1)
    page.driver.back()
    words.go_on()
    page.wait(lambda: page.at_rest and page.answers == ["one two three"])
    print("kept" if page.run("return window.mark") else "loaded anew")
    (thread,) = emulator.threads.values()
    assert len(thread.user_messages) == 1


def test_a_page_may_end_its_answer_when_it_is_left(emulator: Emulator, chromium: Any) -> None:
    """If nobody should pay for an answer that nobody reads. It would be read on for an hour otherwise."""
    settings = {"COPILOT_SYNC_CHAT_BACKGROUND": 3600, "COPILOT_SYNC_CHAT_STOP_ON_LEAVE": True}
    with serving(emulator, **settings) as url:
        page = Page(chromium, url)
        page.load()
        emulator.reply = words = Words(*["and "] * 2000)
        page.ask("Count")
        page.wait(lambda: page.answers == ["and"])
        page.driver.get("about:blank")
        page.wait(lambda: words.go_on(1) or emulator.disconnects)
        words.go_on(2000)
        assert [each.request.stage for each in emulator.disconnects] == ["message"]


def test_conversations_are_renamed_found_and_deleted(emulator: Emulator, page: Page) -> None:
    """The list is grouped by day; a deletion can be undone for a moment, and is done when the page is left."""
    page.hear("first question")
    page.click("#new")
    page.hear("something else")
    page.wait(lambda: page.titles == ["something else", "first question"])
    assert page.texts("#conversations h2") == ["Today"]
    assert page.texts("h1") == ["something else"]
    page.click(button("Rename “first question”"))
    page.press(Keys.CONTROL, "a", Keys.NULL, "The beginning", Keys.ENTER)
    page.wait(lambda: "The beginning" in [thread.name for thread in emulator.threads.values()])
    page.wait(lambda: "The beginning" in page.titles and page.focus() == "Rename “The beginning”")
    page.find("#search").send_keys("BEGIN")
    assert page.titles == ["The beginning"]
    page.find("#search").send_keys("x")
    assert page.texts("#none") == ["No conversation has these words in its title."]
    page.press(Keys.ESCAPE)
    assert len(page.titles) == 2

    page.click(button("Delete “something else”"))
    assert page.titles == ["The beginning"]
    page.wait(lambda: page.questions == [])
    page.find(".toast button").click()
    assert "something else" in page.titles
    page.click(button("Delete “something else”"))
    page.driver.get("about:blank")
    assert emulator.wait_until(lambda: len(emulator.threads) == 1, PATIENCE)
    page.load()
    page.wait(lambda: page.titles == ["The beginning"])
    page.click("#conversations a")
    page.wait(lambda: page.answers == ["first question"])
    page.click(button("Delete “The beginning”"))
    page.wait(lambda: not emulator.threads)
    assert page.texts(".toast") == []
    page.wait(lambda: page.is_shown("#welcome"))


def test_a_conversation_that_the_service_has_forgotten_leaves_the_list(emulator: Emulator, page: Page) -> None:
    """The page says so, and the next question in it begins a new one."""
    page.hear("one")
    emulator.threads.clear()
    page.ask("two")
    page.wait_for_rest()
    assert page.notes == ["This conversation does not exist any more. Please begin a new one."]
    page.wait(lambda: page.titles == [])
    page.pardon_when_told("502")
    page.hear("three")
    page.wait(lambda: len(page.titles) == 1)
    assert len(emulator.threads) == 1


def test_a_new_visitor_gets_suggestions(emulator: Emulator, page: Page) -> None:
    """A click asks one."""
    assert page.texts("#welcome h2") == ["What would you like to know?"]
    question = page.texts("#suggestions span")[0]
    page.click("#suggestions li:first-child button")
    page.wait(lambda: page.at_rest and page.questions == [question])
    assert not page.is_shown("#welcome")


def test_a_model_can_be_chosen(emulator: Emulator, page: Page) -> None:
    """The service is asked for it, and the next visit has it chosen."""
    page.wait(lambda: page.is_shown("#model"))
    model = page.run("const model = document.getElementById('model'); return model.options[2].value")
    page.run(
        "const list = document.getElementById('model'); list.value = arguments[0]; "
        "list.dispatchEvent(new Event('change'))",
        model,
    )
    page.hear("one")
    (thread,) = emulator.threads.values()
    assert thread.user_messages[0]["model"] == model
    page.reload()
    page.wait(lambda: page.run("return document.getElementById('model').value") == model)


def test_a_conversation_is_exported(page: Page) -> None:
    """As Markdown, with who said what."""
    assert not page.is_shown("#export")
    page.hear("a `question`")
    page.run("URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return '#'; }")
    page.run("HTMLAnchorElement.prototype.click = function () { window.file = this.download; }")
    page.click("#export")
    page.wait(lambda: page.run("return window.saved"))
    assert page.run("return window.saved") == "# a `question`\n\n## You\n\na `question`\n\n## Answer\n\na `question`\n"
    assert page.run("return window.file") == "a question.md"


def test_the_theme_is_kept(page: Page) -> None:
    """It is as the system's, or as it was chosen, from the first frame on."""
    page.show_as("dark", width=1000, height=700)
    ground = "return getComputedStyle(document.body).backgroundColor"
    dark = page.run(ground)
    assert page.find("#theme").accessible_name == "Theme: as the system"
    page.click("#theme")
    light = page.run(ground)
    assert (page.find("#theme").accessible_name, light != dark) == ("Theme: light", True)
    page.reload()
    assert page.run(ground) == light
    page.click("#theme")
    assert page.run(ground) == dark
    page.click("#theme")
    assert page.find("#theme").accessible_name == "Theme: as the system"


def test_the_page_speaks_russian(emulator: Emulator, chromium: Any, page: Page) -> None:
    """If the browser wants it; each text of the page is there in both languages."""
    chromium.execute_cdp_cmd("Network.enable", {})
    chromium.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.5"}})
    try:
        page.load()
        assert page.run("return document.documentElement.lang") == "ru"
        assert page.texts("#welcome h2") == ["Что вы хотите узнать?"]
        emulator.fail("message", Fault.status(429, retry_after=60))
        page.hear("привет")
        assert page.notes == ["Сейчас слишком много вопросов."]
    finally:
        chromium.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
    source = page.run_async("return (await fetch('assets/texts.js')).text()")
    english, russian = (re.findall(r"^    (?:  )?(\w+): ", part, re.MULTILINE) for part in source.split("\n  ru: {"))
    assert english == russian[: len(english)]


def test_the_keyboard_is_enough(emulator: Emulator, page: Page) -> None:
    """One types at once; each thing is reached, and one sees where one is; a dialog lists the keys."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    page.press("two", Keys.SHIFT + Keys.ENTER, Keys.NULL, "lines", Keys.ENTER)
    assert emulator.wait_until(lambda: emulator.stalled, PATIENCE)
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.notes == ["You stopped this answer."] and page.at_rest)
    assert page.questions == ["two\nlines"]
    page.press(Keys.ENTER)  # nothing to ask
    page.press(Keys.CONTROL, Keys.SHIFT, "o", Keys.NULL)
    page.wait(lambda: not page.questions)
    page.press("more", Keys.ENTER)
    page.wait(lambda: page.at_rest and page.answers == ["more"])
    page.press(Keys.ARROW_UP)
    assert page.focus() == "Change your question"
    page.press(Keys.ESCAPE)
    assert page.focus() == "Edit question"
    page.press("?")
    assert page.is_shown("#shortcuts")
    page.press(Keys.ESCAPE)
    assert not page.is_shown("#shortcuts")
    page.press(Keys.CONTROL, "k", Keys.NULL)
    assert page.focus() == "Search conversations"
    page.press(Keys.SHIFT, Keys.ESCAPE, Keys.NULL)
    assert page.focus() == "prompt"
    page.wait(lambda: "two lines" in page.titles)
    page.walk_back("two lines")
    page.press(Keys.ENTER)
    page.wait(lambda: page.questions == ["two\nlines"])
    page.walk_back("Delete “more”")
    page.press(Keys.ENTER)
    assert page.titles == ["two lines"]
    page.wait(lambda: page.focus() in ("two lines", "prompt"))  # not at the page's beginning


def test_whole_sentences_are_read_out(emulator: Emulator, page: Page) -> None:
    """Each once, while the answer comes, and what happens without words."""
    page.run("""
        window.spoken = [];
        new MutationObserver((all) => all.forEach(({ addedNodes }) => addedNodes.forEach((each) =>
            window.spoken.push(each.textContent)))).observe(document.getElementById("speech"), { childList: true });""")
    emulator.reply = words = Words(
        "The first is", " here. And", " the second", ". ", "\n\n```python\nx = 1\n```\n", "Done"
    )
    page.ask("Speak")
    page.wait(lambda: page.answers == ["The first is"])
    assert page.run("return window.spoken") == []
    words.go_on(1)
    page.wait(lambda: page.run("return window.spoken") == ["The first is here."])
    words.go_on()
    page.wait_for_rest()
    said = ["The first is here.", "And the second.", "Code in python.", "Done"]
    page.wait(lambda: page.run("return window.spoken") == said)
    assert page.texts("#status") == ["The answer is complete."]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(emulator: Emulator, page: Page, scheme: str) -> None:
    """In either theme, wide and on a phone, with each thing open that can be."""
    page.show_as(scheme, width=1280, height=800, motion="reduce")
    assert page.accessibility_faults() == []
    emulator.script(
        "# Heading\n\nText with `code` and [a link](https://example.org).\n\n> quotation\n\n"
        "```python\n@wraps\ndef answer(x: int = 1) -> str:\n    '''Doc'''\n    return f'{x}'  # comment\n```\n\n"
        "```diff\n- old\n+ new\n```\n\n```html\n<a href='x'>&amp;</a>\n```\n\n|a|b|\n|-|-|\n|1|2|\n"
    )
    page.hear("a question")
    emulator.fail("message", Fault.status(429, retry_after=500))
    page.hear("one too many")
    page.wait(lambda: page.titles)
    assert page.accessibility_faults() == []
    page.click(button("Edit question"))
    page.click("#keyboard")
    assert page.accessibility_faults() == []
    page.press(Keys.ESCAPE)
    page.show_as(scheme, width=390, height=844, motion="reduce")
    assert page.accessibility_faults() == []
    page.click("#open-sidebar")
    page.click(button("Rename “a question”"))
    assert page.accessibility_faults() == []
    page.press(Keys.ESCAPE)
    page.click(button("Delete “a question”"))
    assert page.accessibility_faults() == []


def test_those_who_want_no_motion_get_none(emulator: Emulator, page: Page) -> None:
    """What breathes stands still."""
    emulator.fail("message", Fault.stall(("after_events", 0)))
    page.ask("Wait")
    page.wait(lambda: page.is_shown(".state"))
    name = "return getComputedStyle(document.querySelector('.dots')).animationName"
    assert page.run(name) == "breathe"
    page.show_as("light", width=1000, height=700, motion="reduce")
    assert page.run(name) == "none"
    page.click("#stop")
    page.wait_for_rest()


def test_a_phone_shows_all_of_it(emulator: Emulator, page: Page) -> None:
    """At a width of 360 pixels nothing sticks out, whatever the answer; the drawer opens and closes."""
    page.show_as("light", width=360, height=640)
    wide = "wide " * 40
    emulator.script(
        f"# A heading\n\n{'long' * 50}\n\n```\n{wide}\n```\n\n|{'|'.join('abcdefghij')}|\n{'|-' * 10}|\n|{wide}|\n"
    )
    page.hear("question" * 30)
    page.wait(lambda: page.texts(".body table"))
    outside = """
        const scrolls = (each) => each.closest("pre, .table, nav, .unseen");
        return [...document.querySelectorAll("main *")].filter((each) => !scrolls(each.parentElement)
            && each.getBoundingClientRect().right > 360).map((each) => each.outerHTML.slice(0, 80))"""
    assert page.run(outside) == []
    assert page.run("return document.scrollingElement.scrollWidth") == 360
    assert page.find("#send").is_displayed()
    assert not page.is_shown("#sidebar") or page.run("return getComputedStyle(sidebar).visibility") == "hidden"
    page.find("#open-sidebar").click()
    assert page.focus() == "Hide conversations"
    page.press(Keys.ESCAPE)
    assert page.find("#open-sidebar").get_attribute("aria-expanded") == "false"
    page.find("#open-sidebar").click()
    page.click("#conversations a")
    page.wait(lambda: page.find("#open-sidebar").get_attribute("aria-expanded") == "false")


def test_the_end_stays_in_sight_until_one_scrolls_up(emulator: Emulator, page: Page) -> None:
    """Then a button leads back there."""
    page.show_as("light", width=1000, height=500)
    emulator.script(LONG)
    page.hear("first")
    assert page.run("return document.scrollingElement.scrollHeight - window.innerHeight") == 0
    page.wait(lambda: page.run(GAP) < 2)
    page.run("document.getElementById('scroll').scrollTop -= 900")
    page.wait(lambda: page.is_shown("#to-end"))
    before = page.run("return document.getElementById('scroll').scrollTop")
    assert abs(page.run("return document.getElementById('scroll').scrollTop") - before) < 2
    page.click("#to-end")
    page.wait(lambda: page.run(GAP) < 2 and not page.is_shown("#to-end"))


def test_what_is_no_answer_of_the_site_is_told(emulator: Emulator, page: Page) -> None:
    """Such as the page of a log-in that has expired; the page can be used again."""
    page.hear("first")
    page.run("""
        window.real = window.fetch;
        window.fetch = () => Promise.resolve(new Response("<html>", { status: 403 }));""")
    page.hear("second")
    assert page.notes == ["The site refused this. Reload the page and try again."]
    page.run("window.fetch = window.real")
    page.click(".failure button")
    page.wait(lambda: page.at_rest and page.answers == ["first", "second"])
    assert page.notes == []
    page.run("""
        const headers = { "Content-Type": "text/html" };
        window.fetch = () => Promise.resolve(new Response("<html>", { headers }));""")
    page.hear("third")
    assert page.notes == ["The site did not answer as it should. Reload the page and try again."]


@pytest.mark.parametrize("status", [401, 403])
def test_a_log_in_that_expires_ends_an_answer(status: int, page: Page) -> None:
    """The connection is not made again and again: only what a proxy says may be over in a moment."""
    page.run(f"""
        window.asked = [];
        const begun = 'data: {{"type": "content", "text": "one"}}\\n\\n';
        const headers = {{ "Content-Type": "text/event-stream" }};
        window.fetch = (url) => Promise.resolve(window.asked.push(url) === 1
            ? new Response(begun, {{ headers }}) : new Response("<html>", {{ status: {status} }}));""")
    page.ask("first")
    page.wait(lambda: page.notes == ["The site refused this. Reload the page and try again."])
    assert sum(url.startswith("answer") for url in page.run("return window.asked")) == 1


ANSWER = """\
A view may return a **generator**. The server sends each piece as soon as it is there:

```python
@app.post("/ask")
def ask():
    return copilot.stream_response(request.form["prompt"], name="chat")
```

- The first words are on the page while the last ones are still being thought of.
- A visitor who goes away ends the answer: see [the documentation](https://flask.palletsprojects.com/).

| Server | Setting |
|---|---|
| gunicorn | `--worker-class gthread` |
| uvicorn | none |
"""


def test_the_pictures_of_the_documentation(emulator: Emulator, page: Page, tmp_path: Path) -> None:
    """They are small, and show what the page shows; ``PICTURES`` names the folder for those that are kept."""
    for question in ("What is a WSGI server?", "Compare gevent and threads", "Review my view"):
        page.hear(question)
        page.click("#new")
        page.wait(lambda: not page.questions)
    emulator.script(ANSWER)
    page.show_as("light", width=1280, height=800, motion="reduce")
    page.hear("How do answers stream?")
    page.wait(lambda: len(page.titles) == 4 and page.texts(".body td"))
    for shape, width, height in (("wide", 1280, 800), ("phone", 390, 844)):
        for scheme in ("light", "dark"):
            page.show_as(scheme, width=width, height=height, motion="reduce")
            page.wait(lambda: page.run(GAP) < 2)
            file = Path(os.environ.get("PICTURES", tmp_path)) / f"chat_page_{shape}_{scheme}.png"
            assert page.driver.save_screenshot(str(file))
            assert file.stat().st_size < 150_000


def test_a_wait_says_why(emulator: Emulator, chromium: Any) -> None:
    """And how long it is; it can be stopped, and the question is not sent."""
    words = re.compile(r"There are many questions at the moment\. Yours is sent in (1 min )?\d+ s\.")
    with serving(emulator, COPILOT_SYNC_RATE_LIMIT=RateLimit(per_minute=1)) as url:
        page = Page(chromium, url)
        page.load()
        page.hear("one")
        page.ask("two")
        page.wait(lambda: words.fullmatch(page.texts(".state")[-1]) and page.is_shown("article:last-child .state"))
        assert words.fullmatch(page.texts("#status")[0])
        page.click("#stop")
        page.wait(lambda: page.notes == ["You stopped this answer."])
        complaints = page.complaints()
        page.forget_all()
    assert complaints == []
    (thread,) = emulator.threads.values()
    assert [message["content"] for message in thread.user_messages] == ["one"]
