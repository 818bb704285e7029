"""One reply being read: what a stream hands out, and how long it lives."""

import gc
import itertools
import pickle
import platform
import sys
import threading
import warnings
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from streams import COMPLETE, ONE, client_of
from support import Worker, collect_garbage, stages

from copilot_sync import (
    AuthenticationError,
    Client,
    CompleteEvent,
    ContentEvent,
    Conversation,
    ResponseTooLargeError,
    StreamClosedError,
    StreamInterruptedError,
    Usage,
)
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.settings import Limits


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator) as opened:
        yield opened


def test_a_stream_yields_each_piece_of_text_as_the_service_cut_it(emulator: Emulator, client: Client) -> None:
    """Iterating gives the pieces themselves, neither joined nor split."""
    emulator.script(["Hel", "lo", "\n", " 🎉"])
    assert list(client.stream("hi")) == ["Hel", "lo", "\n", " 🎉"]


def test_the_text_so_far_holds_the_piece_that_is_being_yielded(emulator: Emulator, client: Client) -> None:
    """``text`` is never behind the loop that reads."""
    emulator.script(["a", "b", "c"])
    stream = client.stream("hi")
    assert stream.text == ""
    assert [(piece, stream.text) for piece in stream] == [("a", "a"), ("b", "ab"), ("c", "abc")]
    assert stream.text == "abc"


def test_nothing_is_sent_before_the_first_item_is_asked_for(emulator: Emulator, client: Client) -> None:
    """A stream that nobody reads costs nothing."""
    stream = client.stream("hi")
    events = stream.events()
    assert (emulator.requests, stream.conversation, stream.answer) == ([], None, None)
    next(events)
    assert stages(emulator) == ["thread", "message"]


@pytest.mark.parametrize("taken", [0, 1, 4], ids=["of a new one", "of one that was begun", "of one that has ended"])
def test_reading_a_stream_gives_its_whole_answer(emulator: Emulator, client: Client, taken: int) -> None:
    """Whatever was iterated before; and again when it is asked again, also after the stream was closed."""
    emulator.script(["a", "b", "c"])
    with client.stream("hi") as stream:
        assert list(itertools.islice(stream, taken)) == ["a", "b", "c"][:taken]
        answer = stream.read()
    assert (answer.text, answer.complete, stream.text) == ("abc", True, "abc")
    assert stream.read() is stream.answer is answer
    assert (list(stream), stages(emulator)) == ([], ["thread", "message"])


def test_starting_begins_the_conversation_and_sends_nothing_of_the_message(emulator: Emulator, client: Client) -> None:
    """``start`` may be called again and gives the same conversation, without another request."""
    seen: List[Conversation] = []
    stream = client.stream("hi", on_start=seen.append)
    conversation = stream.start()
    assert stages(emulator) == ["thread"]
    assert stream.start() is stream.conversation is conversation
    assert "".join(stream) == "hi"
    assert stages(emulator) == ["thread", "message"]
    assert [known is conversation for known in seen] == [True]


def test_the_conversation_is_known_before_the_message_is_sent(emulator: Emulator, client: Client) -> None:
    """``on_start`` gets it in time to be stored, also where the caller brought it along."""
    known = client.create_thread()
    asked: List[Tuple[Conversation, List[str]]] = []
    client.ask("hi", conversation=known, on_start=lambda conversation: asked.append((conversation, stages(emulator))))
    assert asked == [(known, ["thread"])]


def test_events_give_everything_that_the_service_says(emulator: Emulator, client: Client) -> None:
    """All types come through in order, those that are not known as well."""
    emulator.script(
        Reply(
            ["Hel", {"type": "thinking", "step": 1}, "lo", {"type": "annotations", "copilotAnnotations": {"A": []}}],
            routed_model="mai-code-1.1-flash",
        )
    )
    events = list(client.stream("hi").events())
    assert [event.type for event in events] == [
        "routedModel",
        "content",
        "thinking",
        "content",
        "annotations",
        "complete",
    ]
    assert [event.body for event in events if isinstance(event, ContentEvent)] == ["Hel", "lo"]
    assert events[2].data == {"type": "thinking", "step": 1}


def test_events_and_text_are_two_views_of_one_reading(emulator: Emulator, client: Client) -> None:
    """What one of them has handed out, the other does not repeat."""
    emulator.script(["a", "b", "c"])
    stream = client.stream("hi")
    assert next(stream) == "a"
    assert [event.type for event in stream.events()] == ["content", "content", "complete"]
    assert list(stream) == []


@pytest.mark.parametrize(
    "reply, model",
    [
        pytest.param(Reply("x", routed_model="routed", model="named"), "routed", id="the routed one"),
        pytest.param(Reply("x", model="named"), "named", id="else the one that complete names"),
        pytest.param(Reply("x"), "o1-mini", id="else the one asked for"),
        pytest.param(Reply("x", routed_model="routed", model="named", as_json=True), "o1-mini", id="plain JSON"),
        pytest.param(
            Reply([{"type": "routedModel", "model": "routed"}, {"type": "threadAutoPickedModel"}, "x"]),
            "routed",
            id="a routing without a name says nothing",
        ),
    ],
)
def test_an_answer_names_the_model_that_wrote_it(emulator: Emulator, client: Client, reply: Reply, model: str) -> None:
    """The routed model, else ``complete``'s, else the one asked for."""
    emulator.script(reply)
    assert client.ask("hi", model="o1-mini").model == model


@pytest.mark.parametrize(
    "pieces, complete, annotations",
    [
        pytest.param(["x"], {"copilotAnnotations": {"A": [1]}}, {"A": [1]}, id="in complete"),
        pytest.param(
            [{"type": "annotations", "copilotAnnotations": {"B": [2]}}, "x"],
            {"copilotAnnotations": {}},
            {"B": [2]},
            id="ahead of it",
        ),
        pytest.param(["x"], {"copilotAnnotations": None}, {}, id="none"),
    ],
)
def test_an_answer_carries_the_annotations_wherever_they_stood(
    emulator: Emulator, client: Client, pieces: List[Any], complete: Dict[str, Any], annotations: Dict[str, Any]
) -> None:
    """They may come in ``complete`` or in an event of their own ahead of it."""
    emulator.script(Reply(pieces, complete=complete))
    assert client.ask("hi").annotations == annotations


def test_an_answer_says_what_it_cost_and_what_it_is_called(emulator: Emulator, client: Client) -> None:
    """Its id is the one that the message asked for, and its usage is the service's count."""
    emulator.script(Reply(["Hel", "lo"], usage={"inputTokens": 12, "outputTokens": 2}))
    answer = client.ask("hi")
    assert (str(answer), answer.complete, answer.usage) == ("Hello", True, Usage(12, 2))
    assert answer.message_id == emulator.requests[-1].json["responseMessageID"]


def test_the_conversation_goes_on_from_the_id_that_complete_gave(emulator: Emulator, client: Client) -> None:
    """It is updated in place, and its last message becomes the next one's parent."""
    first = client.ask("one")
    conversation = first.conversation
    assert conversation.message_id == first.message_id
    second = client.ask("two", conversation=conversation)
    assert second.conversation is conversation
    parents = [request.json["parentMessageID"] for request in emulator.requests if request.stage == "message"]
    assert parents == ["root", first.message_id]


@pytest.mark.parametrize("end", [b'data: {"type":"complete"}\n\n', b"data: [DONE]\n\n"], ids=["complete", "DONE"])
def test_an_answer_whose_end_names_no_id_is_called_what_the_message_asked_for(
    emulator: Emulator, client: Client, end: bytes
) -> None:
    """And the next message of the conversation answers it under that name."""
    emulator.script(Reply(raw=ONE + end))
    answer = client.ask("hi")
    assert answer.message_id == emulator.requests[-1].json["responseMessageID"]
    assert answer.conversation.message_id == answer.message_id


def test_an_answer_that_may_not_be_whole_moves_no_conversation_on(emulator: Emulator, client: Client) -> None:
    """What its end did not vouch for is not what the next message answers."""
    emulator.script(Reply(raw=ONE))
    answer = client.ask("hi")
    assert not answer.complete
    assert answer.conversation.message_id is None


def test_a_number_of_any_length_costs_no_text(emulator: Emulator, client: Client) -> None:
    """Newer Pythons refuse to read very long numbers; the rest of the event is not theirs to take away."""
    emulator.script(Reply(raw=b'data: {"type":"content","n":' + b"9" * 5000 + b',"body":"kept"}\n\ndata: [DONE]\n\n'))
    assert client.ask("hi").text == "kept"


def test_a_whole_answer_comes_as_one_piece_and_its_end(client: Client) -> None:
    """Where only the whole is wanted, the events are its text and ``complete``, and no text has no event."""
    kinds = [[type(event) for event in client.stream(text, buffered=True).events()] for text in ("a b c",)]
    assert kinds == [[ContentEvent, CompleteEvent]]


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b""], ids=["DONE", "no word"])
def test_a_whole_answer_without_a_complete_event_is_its_text_alone(
    emulator: Emulator, client: Client, end: bytes
) -> None:
    """Nothing is made up that the service did not say."""
    emulator.script(Reply(raw=ONE + end))
    assert [type(event) for event in client.stream("hi", buffered=True).events()] == [ContentEvent]


@pytest.mark.parametrize(
    "reply, connections",
    [
        pytest.param(Reply(), 1, id="chunked"),
        pytest.param(Reply(framing="length"), 1, id="Content-Length"),
        pytest.param(Reply(encoding="gzip"), 1, id="gzip"),
        pytest.param(Reply(done=True), 1, id="[DONE] after complete"),
        pytest.param(Reply(complete=False, done=True), 1, id="[DONE] alone"),
        pytest.param(Reply(complete=False), 4, id="an end without complete"),
        pytest.param(Reply(as_json=True), 1, id="plain JSON"),
        pytest.param(Reply([COMPLETE, b"x" * 10_000]), 1, id="a little after the end"),
        pytest.param(Reply([COMPLETE, b"x" * 200_000]), 3, id="too much after the end"),
        pytest.param(Reply(framing="close"), 3, id="close-delimited"),
    ],
)
def test_a_finished_answer_gives_its_connection_back(
    emulator: Emulator, client: Client, reply: Reply, connections: int
) -> None:
    """The next question needs no new connection, unless this one is used up, or was not understood to its end."""
    conversation = client.create_thread()
    emulator.reply = reply
    for _ in range(3):
        client.ask("hi there", conversation=conversation.conversation_id)
    assert emulator.connections == connections


def test_an_answer_does_not_wait_for_a_body_that_stays_open(emulator: Emulator, client: Client) -> None:
    """After ``complete`` the connection is given up where the body does not end."""
    emulator.script(["one"])
    emulator.fail("message", Fault.stall(("after_events", 2)))
    assert client.ask("hi").complete
    assert emulator.wait_until(lambda: emulator.stalled == 0 and emulator.idle_connections == 0)
    assert client.ask("again").text == "again"


@pytest.mark.parametrize(
    "limits, pieces, partial",
    [
        pytest.param(Limits(answer=6), ["abc", "def", "g"], "abcdef", id="an answer"),
        pytest.param(Limits(answer=6), ["aé", "ßü", "x"], "aé", id="bytes, not characters"),
        pytest.param(Limits(event=100), ["abc", "x" * 100], "abc", id="an event"),
    ],
)
def test_an_answer_past_its_bounds_is_given_up(
    emulator: Emulator, limits: Limits, pieces: List[str], partial: str
) -> None:
    """The text so far is in the error, the connection is closed, and nothing is fetched from the thread."""
    emulator.script(pieces)
    with client_of(emulator, limits=limits) as client:
        with pytest.raises(ResponseTooLargeError) as caught:
            client.ask("hi")
        assert (caught.value.partial, caught.value.stage) == (partial, "stream")
        assert emulator.wait_until(lambda: emulator.open_connections == 0)
    assert stages(emulator) == ["thread", "message"]


def test_a_stream_closes_as_soon_as_nobody_holds_it(emulator: Emulator, client: Client) -> None:
    """Dropping it is enough; on CPython that needs no garbage collection."""
    emulator.script(Reply(iter(["one", "two"])))
    emulator.fail("message", Fault.status(409), Fault.stall(("after_events", 1)))
    gc.disable()
    try:
        stream = client.stream("hi")
        assert next(stream) == "one"
        del stream
        if platform.python_implementation() != "CPython":  # pragma: no cover - only there it needs a collection
            collect_garbage()
        assert emulator.wait_until(lambda: emulator.disconnects)
    finally:
        gc.enable()


def test_a_stream_in_a_cycle_closes_its_connection(emulator: Emulator, client: Client) -> None:
    """Whichever of them is older: garbage collection doesn't find the connection first, open, and warn of it."""
    client.ask("hi")
    collect_garbage()  # which goes from old to young
    emulator.fail("message", Fault.stall(("after_events", 1)))
    cycle: List[Any] = [client.stream("hi")]
    assert next(cycle[0])
    cycle.append(cycle)
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always", ResourceWarning)
        del cycle
        collect_garbage()
    assert emulator.wait_until(lambda: emulator.disconnects)
    assert [str(complaint.message) for complaint in complaints] == []


def test_a_stream_closed_before_it_began_is_just_over(emulator: Emulator, client: Client) -> None:
    """For the thread that closed it there is nothing to read; another one is told why."""
    stream = client.stream("hi")
    stream.close()
    stream.close()
    assert (list(stream), list(stream.events()), emulator.requests) == ([], [], [])
    with pytest.raises(StreamClosedError, match="before its conversation began"):
        stream.start()
    errors: List[BaseException] = []

    def read() -> None:
        with pytest.raises(StreamClosedError, match="closed by another thread") as caught:
            next(stream)
        errors.append(caught.value)

    in_thread(read)
    assert len(errors) == 1


def test_reading_a_stream_that_was_closed_raises_what_had_come(emulator: Emulator, client: Client) -> None:
    """There is no answer to give, whichever thread closed it."""
    emulator.script(["one", "two"], ["one", "two"])
    mine, another = client.stream("hi"), client.stream("hi")
    assert (next(mine), next(another)) == ("one", "one")
    mine.close()
    in_thread(another.close)
    for stream in (mine, another, another):
        with pytest.raises(StreamClosedError) as caught:
            stream.read()
        assert (caught.value.partial, caught.value.stage) == ("one", "stream")


def test_an_answer_that_is_whole_is_given_whoever_closed_the_stream(emulator: Emulator, client: Client) -> None:
    """Once its last event was seen, there is nothing more to come."""
    emulator.script(["one", "two"])
    stream = client.stream("hi")
    assert next(event for event in stream.events() if event.type == "complete")
    in_thread(stream.close)
    assert stream.read().text == "onetwo"


def test_reading_ends_when_another_thread_closes_the_stream(emulator: Emulator, client: Client) -> None:
    """At once, also while it waits for the service."""
    emulator.script(["one", "two"])
    emulator.fail("message", Fault.stall(("after_events", 1)))
    stream = client.stream("hi")
    reading = Worker(stream.read)
    assert emulator.wait_until(lambda: emulator.stalled)
    stream.close()
    with pytest.raises(StreamClosedError, match="closed by another thread"):
        reading.result()


def test_reading_a_stream_that_has_failed_says_so(emulator: Emulator, client: Client) -> None:
    """The first time with what went wrong, from then on that there is no answer; nothing is asked again."""
    emulator.script(["one", "two"])
    emulator.fail("message", Fault.cut(1, reset=True))
    stream = client.stream("hi", resume=False)
    with pytest.raises(StreamInterruptedError) as caught:
        stream.read()
    assert caught.value.partial == "one"
    with pytest.raises(StreamClosedError, match="or had failed") as again:
        stream.read()
    assert (again.value.partial, stages(emulator)) == ("one", ["thread", "message"])


def test_a_stream_that_could_not_begin_says_so_when_it_is_asked_again(emulator: Emulator, client: Client) -> None:
    """The first call raises what went wrong; there is no conversation to give afterwards."""
    emulator.fail("thread", Fault.status(403))
    stream = client.stream("hi")
    with pytest.raises(AuthenticationError):
        stream.start()
    with pytest.raises(StreamClosedError):
        stream.start()
    assert list(stream) == []


def test_a_stream_is_read_by_one_thread_at_a_time(emulator: Emulator, client: Client) -> None:
    """A second reader is told, and the first one is not disturbed."""
    emulator.script(["one", "two"])
    emulator.fail("message", Fault.stall(("after_events", 1)))
    stream = client.stream("hi")
    pieces: List[str] = []
    reader = threading.Thread(target=lambda: pieces.extend(stream))
    reader.start()
    assert emulator.wait_until(lambda: emulator.stalled)
    with pytest.raises(RuntimeError, match="one thread at a time"):
        next(stream)
    with pytest.raises(RuntimeError, match="one thread at a time"):
        stream.read()
    emulator.release()
    reader.join(5)
    assert pieces == ["one", "two"]


def test_the_text_may_be_looked_at_from_any_thread(emulator: Emulator, client: Client) -> None:
    """Looking never loses a piece that comes at the same time."""
    pieces = [f"{number} " for number in range(10_000)]
    emulator.script(Reply(pieces, per_write=1000))
    stream = client.stream("hi")
    interval = sys.getswitchinterval()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            repr(stream)

    watcher = threading.Thread(target=look)
    watcher.start()
    sys.setswitchinterval(1e-6)
    try:
        assert list(stream) == pieces
    finally:
        sys.setswitchinterval(interval)
        over.set()
        watcher.join(5)
    assert stream.text == "".join(pieces)


def test_an_argument_that_turns_out_wrong_is_no_error_of_the_stream(emulator: Emulator) -> None:
    """Credentials are looked at when the first token is needed; what is wrong with them comes through as it is."""

    def refuse(conversation: Conversation) -> None:
        raise ValueError("not this one")

    with client_of(emulator) as client:
        stream = client.stream("hi", on_start=refuse)
        with pytest.raises(ValueError, match="not this one"):
            next(stream)
    with Client(cookies={"user_session": "a\nb"}, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        with pytest.raises(ValueError, match="user_session"):
            next(client.stream("hi"))


def test_a_stream_shows_its_state(emulator: Emulator, client: Client) -> None:
    """Its ``repr`` says how far it is, and nothing of what was said."""
    emulator.script(["secret", "!"], "done")
    stream = client.stream("hi")
    next(stream)
    assert repr(stream) == "<Stream open, 6 characters>"
    stream.close()
    assert repr(stream) == "<Stream closed, 6 characters>"
    with client.stream("hi") as finished:
        assert list(finished) == ["done"]
    assert repr(finished) == "<Stream finished, 4 characters>"


def test_a_stream_does_not_pickle_and_says_what_does(client: Client) -> None:
    """A live connection can't travel."""
    with pytest.raises(TypeError, match="pickle its answer or its conversation"):
        pickle.dumps(client.stream("hi"))


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
