"""Role messages and texts become the one text that a message takes."""

import pickle
from typing import Any, Callable, Dict, List, Type

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import Worker
from wire import JSON_VALUES

from copilot_sync.prompts import CheckedPrompt, PromptText, format_prompt, last_user_turn, prompt_text


def turn(role: str, content: Any) -> Dict[str, Any]:
    return {"role": role, "content": content}


PARTS = [
    {"type": "text", "text": "What is "},
    {"text": "this"},
    "?",
    {"type": "text"},
]
CHAT = [turn("system", "Be brief"), turn("user", "Hi"), turn("assistant", "Hello"), turn("user", " Why? ")]


@pytest.mark.parametrize(
    "messages, prompt",
    [
        ([turn("user", "Hi")], "Hi"),
        ([turn("system", " Hi\n")], " Hi\n"),
        ([turn("user", PARTS)], "What is this?"),
        ([turn("user", tuple(PARTS))], "What is this?"),
        ((turn("user", text) for text in ["Hi"]), "Hi"),
        (CHAT, "System: Be brief\nUser: Hi\nAssistant: Hello\nUser:  Why? \nAssistant:"),
        ([turn("USER", "a"), turn("toolResult", "b")], "User: a\nToolresult: b\nAssistant:"),
        ([turn("user", "a"), turn("assistant", " \n"), turn("user", "")], "User: a\nAssistant:"),
        ([turn("user", "a\nb"), turn("user", PARTS)], "User: a\nb\nUser: What is this?\nAssistant:"),
        ([turn("assistant", "a"), turn("assistant", "b")], "Assistant: a\nAssistant: b\nAssistant:"),
        ([turn("user", "a"), turn("assistant", None), turn("tool", "b")], "User: a\nTool: b\nAssistant:"),
        ([{"role": "user", "content": "a", "name": "me", "extra": object()}], "a"),
    ],
    ids=[
        "single",
        "single-as-it-is",
        "parts",
        "tuple-of-parts",
        "iterator",
        "transcript",
        "roles-capitalised",
        "blank-left-out",
        "lines-and-parts",
        "no-user",
        "null-left-out",
        "other-fields",
    ],
)
def test_a_transcript_becomes_one_string(messages: Any, prompt: str) -> None:
    """A single message is its content alone; several are ``Role: content`` lines closed by ``Assistant:``."""
    assert format_prompt(messages) == prompt


@pytest.mark.parametrize(
    "messages, prompt",
    [
        ([turn("user", "Hi")], "Hi"),
        (CHAT, "Why?"),
        ([*CHAT, turn("user", " And how?\n")], "Why?\nAnd how?"),
        ([*CHAT, turn("user", " "), turn("user", "And how?")], "Why?\nAnd how?"),
        ([*CHAT, turn("assistant", "Because")], "Why?"),
        ([*CHAT, turn("user", None), turn("assistant", None)], "Why?"),
        ([*CHAT, turn("assistant", "Because"), turn("system", "Stop")], "Why?"),
        ([turn("user", "a"), turn("user", "b"), turn("tool", "c")], "a\nb"),
        ([turn("user", PARTS), turn("user", "a\nb ")], "What is this?\na\nb"),
        (iter(CHAT), "Why?"),
    ],
    ids=["single", "last", "run", "blank-dropped", "answered", "null", "behind", "whole", "parts", "iterator"],
)
def test_a_known_conversation_gets_the_last_run_of_user_messages(messages: Any, prompt: str) -> None:
    """Each stripped, blank ones dropped, joined by newlines; what stands behind the run is left out."""
    assert last_user_turn(messages) == prompt


@pytest.mark.parametrize("read", [format_prompt, last_user_turn], ids=["transcript", "last turn"])
@pytest.mark.parametrize(
    "messages, kind, words",
    [
        (None, TypeError, "messages must be a list of dictionaries, not NoneType"),
        ("Hi", TypeError, "messages must be a list of dictionaries, not str"),
        (b"Hi", TypeError, "messages must be a list of dictionaries, not bytes"),
        (turn("user", "Hi"), TypeError, "messages must be a list of dictionaries, not dict"),
        ([], ValueError, "messages must not be empty"),
        pytest.param(iter([]), ValueError, "messages must not be empty", id="iterator of nothing"),
        (["Hi"], TypeError, "message 0 must be a dictionary, not str"),
        ([turn("user", "a"), None], TypeError, "message 1 must be a dictionary, not NoneType"),
        ([{"content": "Hi"}], ValueError, "message 0 has no role"),
        ([turn("user", "a"), {"role": "user"}], ValueError, "message 1 has no content"),
        ([turn("user", None)], ValueError, "the messages hold no text"),
        ([turn(None, "Hi")], ValueError, "message 0 has no role"),
        (
            [turn("user", [{"type": "refusal", "refusal": "no", "text": "not this"}])],
            ValueError,
            "message 0 has a part of type 'refusal', which can't be sent: only text, text files",
        ),
        (
            [turn("user", [{"type": "file"}]), turn("assistant", "a"), turn("user", "b")],
            ValueError,
            r"message 0 has a file, which can't be sent \(the part does not hold it in file_data\): only text",
        ),
        (
            [turn("user", "a"), turn("user", ["b", {"image_url": {"url": "https://a"}}])],
            ValueError,
            "message 1 has a part without a type or text",
        ),
        ([turn("", "Hi")], ValueError, "message 0 has no role"),
        ([turn(" ", "Hi")], ValueError, "message 0 has no role"),
        ([{"role": 5, "content": "Hi"}], TypeError, "the role of message 0 must be a string, not int"),
        ([turn("user", 5)], TypeError, "the content of message 0 must be a string or a list of parts"),
        ([turn("user", {"text": "Hi"})], TypeError, "the content of message 0 must be a string or a list of parts"),
        ([turn("user", [5])], TypeError, "a part of message 0 must be a dictionary, not int"),
        ([turn("user", [{"text": None}])], TypeError, "the text of a part in message 0 must be a string, not NoneType"),
        ([turn("user", "a\ud800")], ValueError, "messages holds text that is not valid Unicode"),
        ([turn("user", " \n")], ValueError, "the messages hold no text"),
        ([turn("user", ""), turn("user", [])], ValueError, "the messages hold no text"),
    ],
    ids=ascii,
)
def test_messages_that_can_not_be_sent_are_refused(
    read: Callable[[Any], str], messages: Any, kind: Type[Exception], words: str
) -> None:
    """Empty or malformed ones are told by their number, before anything goes out."""
    with pytest.raises(kind, match=words):
        read(messages)


@pytest.mark.parametrize(
    "messages",
    [
        [turn("system", "Be brief")],
        [turn("assistant", "Hello")],
        [turn("user", "Hi"), turn("assistant", "Hello"), turn("user", " ")],
    ],
    ids=["system", "assistant", "blank"],
)
def test_a_known_conversation_needs_something_the_user_says(messages: Any) -> None:
    """An earlier question must not be asked again in its place."""
    with pytest.raises(ValueError, match="the messages hold no text of the user's"):
        last_user_turn(messages)


@pytest.mark.parametrize(
    "prompt, kind, words",
    [
        (None, TypeError, "a prompt must be a string or a list of messages, not NoneType"),
        (b"Hi", TypeError, "a prompt must be a string or a list of messages, not bytes"),
        ("", ValueError, "the prompt is empty"),
        (" \n\t", ValueError, "the prompt is empty"),
        ("a\udc80", ValueError, "the prompt holds text that is not valid Unicode"),
    ],
    ids=ascii,
)
def test_a_prompt_must_be_text(prompt: Any, kind: Type[Exception], words: str) -> None:
    """A prompt that isn't text is told before anything goes out."""
    with pytest.raises(kind, match=words):
        prompt_text(prompt)


def test_a_prompt_is_sent_as_it_is() -> None:
    """Blanks around a text may matter, as in code."""
    assert prompt_text("  def f():\n") == "  def f():\n"


def test_instructions_come_first() -> None:
    """As a role message where the conversation begins, as a paragraph where it goes on; blank ones are none."""
    transcript = format_prompt([turn("system", "Be brief"), turn("user", "question")])
    assert prompt_text("question", "Be brief", is_new=True) == transcript
    assert prompt_text("question", "Be brief", is_new=False) == "Be brief\n\nquestion"
    assert prompt_text("question", " ", is_new=True) == "question"
    assert prompt_text("question", None, is_new=True) == "question"
    assert prompt_text(CHAT, "Be nice", is_new=False) == "Be nice\n\nWhy?"
    assert prompt_text(CHAT[1:2], "Be nice") == "System: Be nice\nUser: Hi\nAssistant:"


@pytest.mark.parametrize(
    "system, kind, words",
    [
        (5, TypeError, "system must be a string, not int"),
        ("a\udc80", ValueError, "system holds text that is not valid Unicode"),
    ],
)
@pytest.mark.parametrize("is_new", [True, False])
def test_instructions_must_be_text(system: Any, kind: Type[Exception], words: str, is_new: bool) -> None:
    """They are part of what is sent."""
    with pytest.raises(kind, match=words):
        prompt_text("Hi", system, is_new=is_new)


def test_a_text_that_was_checked_is_not_checked_again() -> None:
    """It is handed on as it is, whether the conversation is new or not; instructions still come in front of it."""
    text = prompt_text(CHAT)
    assert prompt_text(text) is prompt_text(text, is_new=False) is text
    assert prompt_text(PromptText("Hi"), "Be brief", is_new=False) == "Be brief\n\nHi"


def test_a_prompt_is_checked_before_its_conversation_is_known() -> None:
    """One check serves all texts that can become of it. Messages that can be read only once are enough."""
    checked = CheckedPrompt.from_value(iter(CHAT))
    assert checked.text() == format_prompt(CHAT)
    assert checked.text(is_new=False) == last_user_turn(CHAT)
    assert type(checked.text()) is type(checked.text(is_new=False)) is PromptText


def image(name: str) -> Dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"https://a.example/{name}.png"}}


def names(prompt: PromptText) -> List[str]:
    """The names of the images that go with a prompt."""
    return [media["name"] for media in prompt.attachments.media]


SEEN = [
    turn("user", ["What is this?", image("1")]),
    turn("assistant", "A cat"),
    turn("user", [image("2")]),
    turn("user", ["And ", image("3"), "these?", image("4")]),
    turn("assistant", [image("5")]),
]


def test_a_conversation_gets_the_parts_of_the_messages_that_it_gets() -> None:
    """In their order, also of a message without text; what was said earlier is not sent again."""
    assert names(format_prompt(SEEN)) == ["1.png", "2.png", "3.png", "4.png", "5.png"]
    assert names(last_user_turn(SEEN)) == ["2.png", "3.png", "4.png"]
    assert format_prompt(SEEN) == "User: What is this?\nAssistant: A cat\nUser: And these?\nAssistant:"
    assert last_user_turn(SEEN) == "And these?"


@pytest.mark.parametrize("is_new", [True, False])
def test_instructions_take_no_parts_away(is_new: bool) -> None:
    """Whether the prompt is a list, or was read before."""
    for prompt in (SEEN[:1], format_prompt(SEEN[:1])):
        assert names(prompt_text(prompt, "Be brief", is_new=is_new)) == ["1.png"]
        assert "Be brief" in prompt_text(prompt, "Be brief", is_new=is_new)


@pytest.mark.parametrize("read", [format_prompt, last_user_turn], ids=["transcript", "last turn"])
def test_parts_are_not_sent_without_text(read: Callable[[Any], str]) -> None:
    """The service refuses a message without content."""
    with pytest.raises(ValueError, match="images and files can't be sent alone"):
        read([turn("user", [image("1"), " "])])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_prompt_travels_with_its_parts(protocol: int) -> None:
    """To another process."""
    for prompt in (format_prompt(SEEN), PromptText("Hi")):
        copy = pickle.loads(pickle.dumps(prompt, protocol))
        assert (type(copy), copy, copy.attachments) == (PromptText, prompt, prompt.attachments)


def test_instructions_go_in_front_of_the_last_turn() -> None:
    """As a role message if a conversation begins with it, else as a paragraph."""
    assert last_user_turn(CHAT, "Be nice", is_new=True) == "System: Be nice\nUser: Why?\nAssistant:"
    assert last_user_turn(CHAT, "Be nice") == "Be nice\n\nWhy?"
    assert format_prompt(CHAT[1:2], "Be nice") == "System: Be nice\nUser: Hi\nAssistant:"


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]) | JSON_VALUES, "content": JSON_VALUES})
    | JSON_VALUES,
    max_size=3,
)


def test_a_great_many_messages_with_images_are_one_prompt_soon() -> None:
    """The text and the images are not copied once for each message, which would take minutes."""
    messages = [turn("user", ["text " * 10, {"type": "image_url", "image_url": "https://a/b.png"}])] * 100_000
    assert len(Worker(lambda: format_prompt(messages)).result().attachments.media) == 100_000


@given(MESSAGES | JSON_VALUES)
@example([turn("user", "Hi")])
def test_any_messages_are_a_prompt_or_a_mistake_of_the_callers(messages: Any) -> None:
    """What comes out of reading arguments is text that can be sent, a ``TypeError`` or a ``ValueError``."""
    for read in (format_prompt, last_user_turn):
        try:
            prompt = read(messages)
        except (TypeError, ValueError) as error:
            assert str(error)
        else:
            assert prompt.strip()
            assert prompt.encode("utf-8")
