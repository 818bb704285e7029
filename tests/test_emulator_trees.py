"""The messages of an emulated thread: a tree, what an answer used, and what is forgotten."""

from __future__ import annotations

import uuid
from typing import Any, Dict, List, Optional

import pytest
from emulated import Heard, api, events_of, messages_of, new_thread, post
from support import Worker

from copilot_sync.emulator import Emulator, Fault, Reply

FILE = {"type": "file", "path": "app.py", "repoOwner": "octocat", "repoName": "Hello-World"}
PAGE = {"type": "web-search", "url": "https://example.com/"}


def ask(emulator: Emulator, thread_id: str, content: str, parent: Optional[str]) -> str:
    """Ask, and return the id of the answer."""
    reply = post(emulator, thread_id, content=content, parentMessageID=parent)
    assert reply.status == 200
    answer_id: str = events_of(reply)[-1]["id"]
    return answer_id


def branches(messages: List[Dict[str, Any]]) -> Dict[str, List[str]]:
    """What follows each message, by what they say; an answer repeats its question."""
    told = {message["id"]: f"{message['role'][0]} {message['content']}" for message in messages}
    found: Dict[str, List[str]] = {}
    for message in messages:
        found.setdefault(told.get(message["parentMessageID"], message["parentMessageID"]), []).append(
            told[message["id"]]
        )
    return found


def test_a_thread_is_a_tree(emulator: Emulator) -> None:
    """A question that was edited and an answer that was asked for again stand beside the first one."""
    thread_id = new_thread(emulator)
    first = ask(emulator, thread_id, "one", "root")
    ask(emulator, thread_id, "two", first)
    ask(emulator, thread_id, "two, edited", first)
    ask(emulator, thread_id, "one, edited", "root")
    assert branches(messages_of(emulator, thread_id)) == {
        "root": ["u one", "u one, edited"],
        "u one": ["a one"],
        "a one": ["u two", "u two, edited"],
        "u two": ["a two"],
        "u two, edited": ["a two, edited"],
        "u one, edited": ["a one, edited"],
    }


def test_a_question_that_is_asked_again_has_another_answer(emulator: Emulator) -> None:
    """The same words under the same parent are a message of their own."""
    thread_id = new_thread(emulator)
    emulator.script("yes", "no")
    answers = [ask(emulator, thread_id, "one?", "root") for _ in range(2)]
    first, second = emulator.threads[thread_id].assistant_messages
    assert ([first["id"], second["id"]], first["content"], second["content"]) == (answers, "yes", "no")
    assert first["parentMessageID"] != second["parentMessageID"]


@pytest.mark.parametrize("absent", [None, ""])
def test_a_message_without_a_parent_begins_a_branch_by_default(emulator: Emulator, absent: Optional[str]) -> None:
    """Nobody knows what the service does; ``absent_parent`` chooses."""
    thread_id = new_thread(emulator)
    ask(emulator, thread_id, "one", None)
    ask(emulator, thread_id, "two", absent)
    assert branches(messages_of(emulator, thread_id))["root"] == ["u one", "u two"]


def test_a_message_without_a_parent_may_follow_the_newest(emulator: Emulator) -> None:
    """The one that was begun last, on whatever branch; in a new thread, nothing."""
    emulator.options.absent_parent = "newest"
    thread_id = new_thread(emulator)
    first = ask(emulator, thread_id, "one", None)
    ask(emulator, thread_id, "two", first)
    ask(emulator, thread_id, "two, edited", first)
    ask(emulator, thread_id, "three", None)
    assert branches(messages_of(emulator, thread_id)) == {
        "root": ["u one"],
        "u one": ["a one"],
        "a one": ["u two", "u two, edited"],
        "u two": ["a two"],
        "u two, edited": ["a two, edited"],
        "a two, edited": ["u three"],
        "u three": ["a three"],
    }


@pytest.mark.parametrize("status", [400, 404])
def test_a_parent_that_is_gone_is_refused(emulator: Emulator, status: Any) -> None:
    """With a status of one's choice, because nobody knows the service's; the thread is still there."""
    emulator.options.gone_parent = status
    thread_id = new_thread(emulator)
    answer = ask(emulator, thread_id, "one", "root")
    emulator.expire_messages(thread_id)
    assert messages_of(emulator, thread_id) == []
    reply = post(emulator, thread_id, parentMessageID=answer)
    assert reply.status == status
    assert reply.json["error"]["message"] == f"parentMessageID: no message {answer} in this thread"
    assert ask(emulator, thread_id, "two", "root")


def test_the_newest_messages_may_stay(emulator: Emulator) -> None:
    """The parent of the oldest of them is gone; room is counted anew."""
    thread_id = new_thread(emulator)
    first = ask(emulator, thread_id, "x" * 5000, "root")
    second = ask(emulator, thread_id, "two", first)
    ask(emulator, thread_id, "three", second)
    size = emulator.threads[thread_id].size
    emulator.expire_messages(thread_id, keep=3)
    assert branches(messages_of(emulator, thread_id)) == {
        emulator.threads[thread_id].messages[0]["parentMessageID"]: ["a two"],
        "a two": ["u three"],
        "u three": ["a three"],
    }
    assert emulator.threads[thread_id].size < size - 10_000
    assert emulator._service._stored_bytes == emulator.threads[thread_id].size
    emulator.expire_messages(thread_id, keep=5)
    assert len(emulator.threads[thread_id].messages) == 3


def test_messages_of_no_thread_do_not_expire(emulator: Emulator) -> None:
    """A wrong id is the test's mistake."""
    with pytest.raises(KeyError):
        emulator.expire_messages("none")


def test_an_answer_may_end_after_its_question_was_forgotten(emulator: Emulator) -> None:
    """It is stored all the same, behind what there is."""
    thread_id = new_thread(emulator)
    emulator.fail("message", Fault.stall(("after_events", 1)))
    asking = Worker(lambda: post(emulator, thread_id, content="Hello there").status)
    assert emulator.wait_until(lambda: emulator.stalled)
    emulator.expire_messages(thread_id)
    emulator.release()
    assert asking.result() == 200
    assert [message["content"] for message in messages_of(emulator, thread_id)] == ["Hello there"]


def test_what_an_answer_used_is_told_and_kept(emulator: Emulator) -> None:
    """In ``complete`` and in the thread's message."""
    thread_id = new_thread(emulator)
    emulator.script(Reply("See there.", references=[FILE, PAGE], usage={"inputTokens": 7}))
    complete = events_of(post(emulator, thread_id))[-1]
    answer = messages_of(emulator, thread_id)[1]
    assert complete["references"] == answer["references"] == [FILE, PAGE]
    assert complete["usage"] == answer["usage"] == {"inputTokens": 7}


def test_a_document_has_what_the_answer_used(emulator: Emulator) -> None:
    """The reply to a request for no stream."""
    emulator.script(Reply("See there.", references=[FILE]))
    reply = post(emulator, new_thread(emulator), streaming=False)
    assert reply.json == {"message": {"content": "See there.", "references": [FILE]}}


@pytest.mark.parametrize(
    ("reply", "references", "usage"),
    [
        (Reply("x", references=[FILE], complete=False), [FILE], None),
        (Reply("x", references=[FILE], complete={"references": [PAGE]}), [PAGE], {"inputTokens": 1, "outputTokens": 1}),
        (Reply("x", usage={}), [], None),
        (Reply([{"type": "complete", "references": [PAGE]}], complete=False), [PAGE], None),
        (Reply([{"type": "annotations", "references": [PAGE]}, "x"], complete=False), [], None),
    ],
    ids=["no end", "an end of its own", "no usage", "a piece", "no end of these"],
)
def test_the_thread_keeps_what_the_end_says(emulator: Emulator, reply: Reply, references: Any, usage: Any) -> None:
    """Without an end, what the reply says."""
    thread_id = new_thread(emulator)
    emulator.script(reply)
    post(emulator, thread_id)
    answer = messages_of(emulator, thread_id)[1]
    assert (answer["references"], answer["usage"]) == (references, usage)


@pytest.mark.parametrize("references", ["file", {"type": "file"}, ["file"], [None]], ids=str)
def test_references_are_mappings(references: Any) -> None:
    """Anything else is refused in the call that passes it."""
    with pytest.raises(TypeError, match="references are a list of mappings"):
        Reply("x", references=references)


def test_an_event_may_have_any_type(emulator: Emulator) -> None:
    """A mapping among the pieces goes into the stream as it is, in its place, and adds no text."""
    thread_id = new_thread(emulator)
    extra = {"type": "skillExecution", "skill": {"name": "web-search"}, "body": "no text"}
    emulator.script(["Hel", extra, "lo", {"type": None}, {}])
    events = events_of(post(emulator, thread_id))
    assert [event.get("type") for event in events] == ["content", "skillExecution", "content", None, None, "complete"]
    assert events[1] == extra
    assert messages_of(emulator, thread_id)[1]["content"] == "Hello"


@pytest.mark.parametrize(
    "fields",
    [
        {"skills": ["web-search"]},
        {"skills": []},
        {"skillOptions": {"deepCodeSearch": True, "more": False}},
        {"customCopilotID": None},
        {"customCopilotID": "space-1"},
        {"confirmations": [{"id": "c1", "accepted": True}]},
        {"skills": None, "skillOptions": None},
        {"somethingNew": {"deep": [1, None]}},
    ],
    ids=str,
)
def test_what_is_known_by_name_alone_is_taken_and_recorded(emulator: Emulator, fields: Dict[str, Any]) -> None:
    """The request keeps it; fields that nobody knows are ignored."""
    reply = post(emulator, new_thread(emulator), **fields)
    assert reply.status == 200
    assert emulator.requests[-1].json.items() >= fields.items()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"skills": "web-search"}, "skills: list wanted, str given"),
        ({"skills": [1]}, "skills: not a list of strings"),
        ({"skillOptions": {"deepCodeSearch": "yes"}}, "skillOptions: not an object of booleans"),
        ({"customCopilotID": 7}, "customCopilotID: str wanted, int given"),
        ({"confirmations": {}}, "confirmations: list wanted, dict given"),
    ],
    ids=["text", "numbers", "no boolean", "number", "object"],
)
def test_what_is_known_by_name_alone_has_a_kind(emulator: Emulator, fields: Dict[str, Any], words: str) -> None:
    """422 in words that name the field."""
    heard: Heard = post(emulator, new_thread(emulator), **fields)
    assert (heard.status, heard.json["error"]["message"]) == (422, words)


def test_an_unfinished_answer_is_listed_with_all_fields(emulator: Emulator) -> None:
    """Interrupted, with what was written so far."""
    emulator.options.list_partial = True
    thread_id, wanted = new_thread(emulator), str(uuid.uuid4())
    emulator.fail("message", Fault.stall(("after_events", 1)))
    asking = Worker(lambda: post(emulator, thread_id, content="Hello there", model="auto", responseMessageID=wanted))
    assert emulator.wait_until(lambda: emulator.stalled)
    partial = api(emulator, "GET", f"/github/chat/threads/{thread_id}/messages").json["messages"][1]
    emulator.release()
    asking.result()
    finished = messages_of(emulator, thread_id)[1]
    assert partial == {**finished, "content": "Hello", "interrupted": True, "usage": None}
