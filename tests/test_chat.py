"""``Chat.retry`` and ``Chat.edit``: branches of a conversation, against the emulator."""

import itertools
import weakref
from typing import Any, Callable, Dict, Iterator, List

import pytest
from support import collect_garbage, stages

from copilot_sync import (
    Answer,
    Client,
    Conversation,
    CopilotError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    StreamInterruptedError,
)
from copilot_sync.chat import Chat
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.questions import Question, find_question

REPOSITORY = {"type": "repository", "owner": "octocat", "repo": "Hello-World"}
FILE = {"type": "thread-scoped-file", "name": "app.py", "text": "pass", "language": "py"}


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    """A client, of an emulator that numbers its answers."""
    numbers = itertools.count(1)
    emulator.reply = lambda prompt: f"answer {next(numbers)}"
    with Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=None) as made:
        yield made


def sent(emulator: Emulator) -> List[Dict[str, Any]]:
    """The bodies of all messages."""
    return [request.json for request in emulator.requests if request.stage == "message"]


def tree(emulator: Emulator) -> List[str]:
    """The messages of the only thread, each as its text and that of its parent, in the order of the thread."""
    (thread,) = emulator.threads.values()
    texts = {message["id"]: message["content"] for message in thread.messages}
    return [f"{message['content']} < {texts.get(message['parentMessageID'], 'root')}" for message in thread.messages]


#: ``retry`` and ``edit``, each in two ways.
Act = Callable[..., Answer]
RETRIES: Dict[str, Act] = {
    "retry": lambda chat, **options: chat.retry(**options),
    "stream_retry": lambda chat, **options: chat.stream_retry(**options).read(),
}
EDITS: Dict[str, Act] = {
    "edit": lambda chat, **options: chat.edit("other", **options),
    "stream_edit": lambda chat, **options: chat.stream_edit("other", **options).read(),
}
retries = pytest.mark.parametrize("retry", RETRIES.values(), ids=RETRIES)
edits = pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
both = pytest.mark.parametrize("act", [*RETRIES.values(), *EDITS.values()], ids=[*RETRIES, *EDITS])


@retries
def test_a_question_that_is_asked_again_is_a_sibling(emulator: Emulator, client: Client, retry: Act) -> None:
    """Under the same parent with the same text; the next question follows the new answer."""
    chat = client.chat()
    chat.ask("first")
    chat.ask("second")
    known: Any = chat.conversation
    assert retry(chat).text == "answer 3"
    chat.ask("third")
    assert chat.conversation is known
    assert tree(emulator) == [
        "first < root",
        "answer 1 < first",
        "second < answer 1",
        "answer 2 < second",
        "second < answer 1",
        "answer 3 < second",
        "third < answer 3",
        "answer 4 < third",
    ]
    assert "messages" not in stages(emulator)


@edits
def test_an_edited_question_is_a_sibling(emulator: Emulator, client: Client, edit: Act) -> None:
    """Another text in the same place, and the chat goes on there."""
    chat = client.chat()
    chat.ask("first")
    chat.ask("second")
    assert edit(chat).text == "answer 3"
    assert chat.question == "other"
    chat.ask("third")
    assert tree(emulator)[4:] == ["other < answer 1", "answer 3 < other", "third < answer 3", "answer 4 < third"]


def test_the_first_question_can_be_asked_again_and_edited(emulator: Emulator, client: Client) -> None:
    """Its siblings begin the same thread; a retry after an edit asks the edited text."""
    chat = client.chat()
    chat.ask("first")
    chat.retry()
    chat.retry()
    chat.edit("other")
    chat.retry()
    assert [(body["content"], body["parentMessageID"]) for body in sent(emulator)] == [
        *[("first", "root")] * 3,
        *[("other", "root")] * 2,
    ]
    assert len(emulator.threads) == 1


def test_exactly_the_text_that_was_sent_is_sent_again(emulator: Emulator, client: Client) -> None:
    """A transcript that began the conversation does not shrink to what the user said last, nor when it is edited."""
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello"}]
    chat = client.chat()
    chat.ask(message for message in messages)
    whole = "System: Be brief\nUser: Hello\nAssistant:"
    assert chat.question == whole
    chat.retry()
    chat.edit([*messages[:1], {"role": "user", "content": "Bye"}])
    chat.ask(messages)
    chat.edit(messages)
    assert [body["content"] for body in sent(emulator)] == [
        whole, whole, "System: Be brief\nUser: Bye\nAssistant:", "Hello", "Hello",
    ]  # fmt: skip


def test_a_retry_has_what_the_question_had(emulator: Emulator, client: Client) -> None:
    """Its references, instructions and model, unless they are given anew; the next question has nothing of it."""
    chat = client.chat(model="o1-mini")
    chat.ask("first", references=iter([REPOSITORY]), custom_instructions="Be brief", mode="assistive", model="gpt-4o")
    chat.retry()
    chat.retry(references=[FILE], mode=None)
    chat.edit("other", model=None)
    chat.edit("another", model="o1-preview", references=[])
    chat.ask("next")
    kept = ("references", "customInstructions", "mode", "model")
    assert [tuple(body[name] for name in kept) for body in sent(emulator)] == [
        ([REPOSITORY], ["Be brief"], "assistive", "gpt-4o"),
        ([REPOSITORY], ["Be brief"], "assistive", "gpt-4o"),
        ([FILE], ["Be brief"], "assistive", "gpt-4o"),
        ([FILE], ["Be brief"], "assistive", "gpt-4o"),
        ([], ["Be brief"], "assistive", "o1-preview"),
        ([], [], "immersive", "o1-mini"),
    ]


@pytest.mark.parametrize("stored", [False, True], ids=["asked", "stored"])
def test_another_model_answers_once(emulator: Emulator, client: Client, stored: bool) -> None:
    """The next retry and the next question go to the model of before."""
    chat = client.chat(client.ask("first", model="o1-mini").conversation if stored else None, model="o1-mini")
    if not stored:
        chat.ask("first")
    chat.retry("o1-preview")
    chat.retry()
    chat.ask("second")
    assert [body["model"] for body in sent(emulator)] == ["o1-mini", "o1-preview", "o1-mini", "o1-mini"]


def test_a_call_s_own_options_are_not_repeated(emulator: Emulator, client: Client) -> None:
    """Such as ``on_start``, which is called if it is given anew."""
    told: List[Conversation] = []
    chat = client.chat()
    chat.ask("first", on_start=told.append)
    chat.retry()
    assert len(told) == 1
    chat.retry(on_start=told.append)
    assert told == [chat.conversation] * 2


@both
def test_a_question_that_failed_can_be_asked_again(emulator: Emulator, client: Client, act: Act) -> None:
    """In its place, though the service refused it."""
    chat = client.chat()
    chat.ask("first")
    emulator.fail("message", Fault.status(402), None)
    with pytest.raises(QuotaExceededError):
        chat.ask("second")
    act(chat)
    assert tree(emulator)[2].endswith(" < answer 1")
    assert len(emulator.threads) == 1
    bodies = sent(emulator)
    assert bodies[1]["parentMessageID"] == bodies[2]["parentMessageID"]


@both
@pytest.mark.parametrize("stage", ["token", "thread"])
def test_a_question_whose_conversation_did_not_begin_can_be_asked_again(
    emulator: Emulator, client: Client, act: Act, stage: str
) -> None:
    """The conversation begins with it."""
    chat = client.chat()
    emulator.fail(stage, Fault.status(422), None)
    with pytest.raises(CopilotError):
        chat.ask("first")
    assert (chat.conversation, chat.question) == (None, "first")
    act(chat)
    assert len(emulator.threads) == 1
    assert tree(emulator)[0] in ("first < root", "other < root")


def test_an_answer_that_was_stopped_can_be_asked_for_again(emulator: Emulator, client: Client) -> None:
    """The question is in the thread already; the new one is its sibling, and the chat goes on behind it."""
    chat = client.chat()
    chat.ask("first")
    emulator.script("one two three")
    emulator.fail("message", Fault.stall(("after_events", 2)))
    with chat.stream("second") as stream:
        assert next(stream) == "one"
    assert emulator.wait_until(lambda: len(emulator.disconnects) == 1)
    assert chat.retry().text == "answer 2"
    chat.ask("third")
    assert tree(emulator)[-4:] == ["second < answer 1", "answer 2 < second", "third < answer 2", "answer 3 < third"]


def test_a_cut_answer_can_be_asked_for_again(emulator: Emulator, client: Client) -> None:
    chat = client.chat()
    chat.ask("first")
    emulator.script("one two three")
    emulator.fail("message", Fault.cut(2))
    with pytest.raises(StreamInterruptedError):
        chat.ask("second", resume=False)
    chat.retry()
    assert [body["parentMessageID"] for body in sent(emulator)][1:] == [sent(emulator)[1]["parentMessageID"]] * 2


@both
def test_the_chat_stays_where_it_was_if_it_fails(emulator: Emulator, client: Client, act: Act) -> None:
    """The next question follows the earlier answer; one more retry asks what failed."""
    chat = client.chat()
    before = chat.ask("first").conversation.to_dict()
    emulator.fail("message", Fault.status(422), None)
    with pytest.raises(InvalidRequestError):
        act(chat)
    known: Any = chat.conversation
    assert known.to_dict() == before
    failed = sent(emulator)[-1]
    chat.retry()
    assert (sent(emulator)[-1]["content"], sent(emulator)[-1]["parentMessageID"]) == (failed["content"], "root")
    emulator.fail("message", Fault.status(422), None)
    moved = known.message_id
    with pytest.raises(InvalidRequestError):
        act(chat)
    chat.ask("next")
    assert sent(emulator)[-1]["parentMessageID"] == moved


@both
def test_nothing_to_ask_again_is_told_in_words(emulator: Emulator, client: Client, act: Act) -> None:
    """Without a request; a stored conversation is looked at, and nothing is sent."""
    with pytest.raises(ValueError, match="there is no question yet"):
        act(client.chat())
    assert emulator.requests == []
    chat = client.chat(client.create_thread())
    with pytest.raises(ValueError, match="there is no question yet"):
        act(chat)
    assert "message" not in stages(emulator)
    assert chat.question is None


@both
@pytest.mark.parametrize("as_id", [False, True], ids=["object", "id"])
def test_a_stored_conversation_is_looked_up_once(emulator: Emulator, client: Client, act: Act, as_id: bool) -> None:
    """The last question of its newest branch; from then on the chat knows."""
    first = client.chat()
    first.ask("first")
    first.ask("second")
    first.edit("third")
    known: Any = first.conversation
    chat = client.chat(known.conversation_id if as_id else Conversation.from_dict(known.to_dict()))
    act(chat)
    act(chat)
    assert tree(emulator)[4] == "third < answer 1"
    assert tree(emulator)[6].endswith((" < answer 1", "third < answer 1", "other < answer 1"))
    assert {body["parentMessageID"] for body in sent(emulator)[1:]} == {sent(emulator)[1]["parentMessageID"]}
    assert stages(emulator).count("messages") == 1
    assert sent(emulator)[-1]["content"] in ("third", "other")


def test_the_branch_of_a_stored_conversation_is_that_of_its_last_message(emulator: Emulator, client: Client) -> None:
    """And the newest if that is not there any more."""
    chat = client.chat()
    chat.ask("first")
    chat.ask("old")
    earlier: Any = chat.conversation
    kept = Conversation.from_dict(earlier.to_dict())
    chat.edit("new")
    client.chat(kept).retry()
    assert sent(emulator)[-1]["content"] == "old"
    gone = Conversation.from_dict({**kept.to_dict(), "message_id": "gone"})
    (thread,) = emulator.threads.values()
    thread.messages[:] = [
        message for message in thread.messages if message["content"] not in ("old", "answer 2", "answer 4")
    ]
    client.chat(gone).retry()
    assert sent(emulator)[-1]["content"] == "new"


def test_a_question_that_nobody_answered_is_the_last_one(emulator: Emulator, client: Client) -> None:
    """Another process may have been stopped: the question follows the last answer that is known."""
    conversation = client.ask("first").conversation
    kept = Conversation.from_dict(conversation.to_dict())
    client.ask("second", conversation=conversation)
    (thread,) = emulator.threads.values()
    del thread.messages[-1]
    client.chat(kept).retry()
    assert tree(emulator)[-2:] == ["second < answer 1", "answer 3 < second"]


def test_a_question_whose_place_is_unknown_is_looked_up(emulator: Emulator, client: Client) -> None:
    """The conversation was known by its id alone, so the service chose the place, or the service did not keep it."""
    conversation = client.ask("first").conversation
    chat = client.chat(conversation.conversation_id)
    emulator.fail("message", Fault.status(422), None)
    with pytest.raises(InvalidRequestError):
        chat.ask("second", references=[REPOSITORY])
    chat.retry()
    assert sent(emulator)[-1]["references"] == [REPOSITORY]
    assert sent(emulator)[-1].get("parentMessageID") != "root"  # it takes nobody's place
    chat.retry()
    parents = [body.get("parentMessageID", "unknown") for body in sent(emulator)[1:]]
    assert parents[-1] == parents[-2] or parents[-2] == "unknown"
    assert sent(emulator)[-1]["content"] == "second"


def test_a_chat_that_was_given_another_conversation_looks_that_up(emulator: Emulator, client: Client) -> None:
    """Or forgets the place, if it is to begin a new one."""
    chat = client.chat()
    chat.ask("first")
    chat.conversation = client.ask("elsewhere").conversation
    chat.retry()
    assert sent(emulator)[-1]["content"] == "elsewhere"
    chat.ask("second")
    chat.conversation = None
    chat.edit("anew")
    assert sent(emulator)[-1]["parentMessageID"] == "root"
    assert len(emulator.threads) == 3


@both
@pytest.mark.parametrize("name", ["conversation", "parent_message_id"])
def test_the_place_can_not_be_chosen(emulator: Emulator, client: Client, act: Act, name: str) -> None:
    chat = client.chat()
    chat.ask("first")
    with pytest.raises(TypeError, match=name):
        act(chat, **{name: None})
    assert len(sent(emulator)) == 1


@pytest.mark.parametrize(
    "act, error",
    [
        (lambda chat: chat.edit(""), ValueError),
        (lambda chat: chat.edit("\ud800"), ValueError),
        (lambda chat: chat.edit(5), TypeError),
        (lambda chat: chat.edit(None), TypeError),
        (lambda chat: chat.retry(5), TypeError),
        (lambda chat: chat.retry("\ud800"), ValueError),
        (lambda chat: chat.retry(colour="red"), TypeError),
        (lambda chat: chat.stream_retry(references="x"), TypeError),
    ],
    ids=["empty", "surrogate", "number", "none", "model", "model-surrogate", "unknown", "references"],
)
def test_wrong_calls_change_nothing(
    emulator: Emulator, client: Client, act: Callable[[Chat], Any], error: type
) -> None:
    """They are refused unsent, and the last question stays the last question."""
    chat = client.chat()
    chat.ask("first")
    with pytest.raises(error):
        act(chat)
    assert len(sent(emulator)) == 1
    assert chat.question == "first"


def test_a_stream_that_nobody_reads_asks_nothing(emulator: Emulator, client: Client) -> None:
    """So the question before it is the last one."""
    chat = client.chat()
    chat.ask("first")
    chat.stream_edit("never").close()
    chat.stream("never").close()
    assert chat.question == "first"
    assert len(sent(emulator)) == 1


def test_a_conversation_that_is_gone_is_told(emulator: Emulator, client: Client) -> None:
    conversation = client.ask("first").conversation
    client.delete_thread(conversation)
    with pytest.raises(NotFoundError):
        client.chat(conversation).retry()


@pytest.mark.parametrize("content", ["", "  ", None, 5, ["x"]])
def test_a_stored_question_without_a_text_can_be_edited(emulator: Emulator, client: Client, content: Any) -> None:
    """But not asked again: only an image was sent, or the service said nonsense."""
    conversation = client.ask("first").conversation
    (thread,) = emulator.threads.values()
    thread.messages[0]["content"] = content
    chat = client.chat(conversation)
    with pytest.raises(ValueError, match="empty"):
        chat.retry()
    assert len(sent(emulator)) == 1
    chat.edit("other")
    assert sent(emulator)[-1]["parentMessageID"] == "root"


def test_a_thread_of_nonsense_has_no_question() -> None:
    """As one without a user's message."""
    conversation = Conversation("c")
    assert find_question([], conversation) is None
    asked = Question("first", conversation_id="c")
    assert find_question([], conversation, asked) is asked


def test_a_chat_keeps_no_stream_alive(emulator: Emulator, client: Client) -> None:
    """One that nobody holds any more frees its connection."""
    chat = client.chat()
    chat.ask("first")
    streams = [chat.stream("next"), chat.stream_retry(), chat.stream_edit("other")]
    for stream in streams:
        stream.start()
    references = [weakref.ref(stream) for stream in streams]
    del stream, streams
    collect_garbage()
    assert [reference() for reference in references] == [None] * 3


@retries
def test_the_instructions_of_a_retry_are_those_of_its_text(emulator: Emulator, client: Client, retry: Act) -> None:
    """They can't be others; an edit can bring others."""
    chat = client.chat()
    chat.ask("one", system="Be brief")
    with pytest.raises(TypeError, match="edit the question"):
        retry(chat, system="Be nice")
    retry(chat)
    assert [body["content"] for body in sent(emulator)] == ["System: Be brief\nUser: one\nAssistant:"] * 2


@edits
def test_an_edit_may_bring_other_instructions(emulator: Emulator, client: Client, edit: Act) -> None:
    """Behind those of the chat, if the question brought these."""
    chat = client.chat(system="Be brief")
    chat.ask("one")
    edit(chat, system="Be nice")
    chat.ask("two", system="Be kind")
    edit(chat)
    edit(chat, system="Be good")
    contents = [body["content"] for body in sent(emulator)]
    assert contents[1] == "System: Be brief\n\nBe nice\nUser: other\nAssistant:"
    assert contents[3:] == ["Be kind\n\nother", "Be good\n\nother"]


@retries
def test_files_given_anew_take_the_place_of_those_before(emulator: Emulator, client: Client, retry: Act) -> None:
    chat = client.chat()
    chat.ask("one", files=[("a.py", "1")], references=[REPOSITORY])
    retry(chat)
    retry(chat, files=[("b.py", "2")])
    names = [[each.get("name", each["type"]) for each in body["references"]] for body in sent(emulator)]
    assert names == [["repository", "a.py"], ["repository", "a.py"], ["b.py"]]


@edits
def test_an_edit_of_a_stored_question_brings_what_was_not_sent_yet(
    emulator: Emulator, client: Client, edit: Act
) -> None:
    """The instructions and files of the chat that goes on there, once."""
    stored = client.ask("one").conversation
    chat = client.chat(stored.conversation_id, system="Be brief", files=[("a.py", "1")])
    edit(chat)
    chat.ask("two")
    _, edited, after = sent(emulator)
    assert edited["content"] == "System: Be brief\nUser: other\nAssistant:"
    assert [each["name"] for each in edited["references"]] == ["a.py"]
    assert (after["content"], after["references"]) == ("two", [])
