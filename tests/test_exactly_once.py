"""A message that may have been taken: nothing is lost, and nothing is asked twice."""

import dataclasses
import itertools
import threading
import time
import uuid
from typing import Any, Callable, Iterator, List, Optional, Tuple, Type, Union

import pytest
import requests
from support import PATIENCE, Peer, Server, Worker, wait_for

from copilot_sync import (
    AuthenticationError,
    Client,
    ContentEvent,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    Timeout,
    protocol,
    settings,
)
from copilot_sync.delivery import recovery
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.emulator import Emulator, Fault, Reply

AT_ONCE = RetryPolicy(base=0.0, cap=0.0)
ONE = b'data: {"type":"content","body":"one"}\n\n'


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(reply=Reply(["one ", "two ", "three"])) as served:
        yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    urls = emulator.github_url, emulator.api_url
    with Client(cookies=emulator.cookies, retry=AT_ONCE, github_url=urls[0], api_url=urls[1]) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_FIRST_LOOK", 0.001)
    monkeypatch.setattr(recovery, "_LONGEST_LOOK", 0.01)


def silence(fault: Fault) -> float:
    """Seconds of silence to allow: few where silence is what goes wrong."""
    return 0.15 if fault.action == "stall" else 10.0


def sent(emulator: Emulator) -> List[Any]:
    return [request.json for request in emulator.requests if request.stage == "message"]


def looks(emulator: Emulator) -> int:
    return [request.stage for request in emulator.requests].count("messages")


def questions(emulator: Emulator) -> List[str]:
    """What stands in all threads as said by the user."""
    messages = [message for thread in emulator.threads.values() for message in thread.messages]
    return [message["content"] for message in messages if message["role"] == "user"]


def asked(client: Client, **options: Any) -> Tuple[str, bool]:
    answer = client.ask("hi", **options)
    return answer.text, answer.complete


def streamed(client: Client, **options: Any) -> Tuple[str, bool]:
    stream = client.stream("hi", **options)
    text = "".join(stream)
    assert stream.answer is not None and stream.answer.text == text
    return text, stream.answer.complete


both_ways = pytest.mark.parametrize("ask", [asked, streamed])
Ask = Callable[..., Tuple[str, bool]]
TEXT = "one two three"


# Not taken


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.status(408), id="408"),
        pytest.param(Fault.status(409), id="409"),
        pytest.param(Fault.status(425), id="425"),
        pytest.param(Fault.status(429, retry_after=0), id="429"),
        pytest.param(Fault.status(503, retry_after=0), id="503 with Retry-After"),
    ],
)
@both_ways
def test_a_message_that_was_not_taken_is_sent_again(emulator: Emulator, client: Client, fault: Fault, ask: Ask) -> None:
    """The service said so, so the thread need not be looked at; the answer keeps its id."""
    emulator.fail("message", fault)
    assert ask(client, timeout=silence(fault)) == (TEXT, True)
    first, second = sent(emulator)
    assert first == second
    assert (questions(emulator), looks(emulator)) == (["hi"], 0)


def test_a_message_whose_connection_was_not_made_is_sent_again(emulator: Emulator, client: Client) -> None:
    """Where nothing listens, nothing was taken."""
    conversation = client.create_thread()
    emulator.close()
    errors: List[CopilotError] = []

    def serve_again(error: CopilotError, seconds: float) -> None:
        errors.append(error)
        emulator.start()

    retry = RetryPolicy(base=0.0, cap=0.0, on_retry=serve_again)
    assert client.ask("hi", conversation=conversation, retry=retry).text == TEXT
    assert [(type(error), error.attempts) for error in errors] == [(NetworkError, 1)]
    assert (questions(emulator), len(sent(emulator)), looks(emulator)) == (["hi"], 1, 0)


def test_a_message_refused_for_its_token_is_sent_again_with_a_new_one(emulator: Emulator, client: Client) -> None:
    """A refused request was not taken. It is no attempt of the policy's: one new token is fetched even without one."""
    emulator.fail("message", Fault.expired_token())
    assert client.ask("hi", retry=None).text == TEXT
    assert (emulator.tokens_issued, len(sent(emulator)), questions(emulator)) == (2, 2, ["hi"])
    emulator.fail("message", Fault.status(401), Fault.status(401))
    with pytest.raises(AuthenticationError) as caught:
        client.ask("hi")
    assert (caught.value.attempts, len(sent(emulator)), questions(emulator)) == (2, 4, ["hi"])


@pytest.mark.parametrize(
    "fault, kind",
    [
        pytest.param(Fault.status(400), InvalidRequestError, id="400"),
        pytest.param(Fault.status(402), QuotaExceededError, id="402"),
        pytest.param(Fault.status(403), AuthenticationError, id="403"),
        pytest.param(Fault.status(404), NotFoundError, id="404"),
        pytest.param(Fault.status(422), InvalidRequestError, id="422"),
        pytest.param(Fault.status(501), ServerError, id="501"),
        pytest.param(Fault.status(429, retry_after=3600), RateLimitError, id="429 for an hour"),
    ],
)
@both_ways
def test_a_final_refusal_is_raised_at_once(
    emulator: Emulator, client: Client, fault: Fault, kind: Type[CopilotError], ask: Ask
) -> None:
    """Asking again would not help, and neither would looking."""
    emulator.fail("message", fault)
    with pytest.raises(kind) as caught:
        ask(client)
    assert (caught.value.attempts, caught.value.partial) == (1, "")
    assert (len(sent(emulator)), looks(emulator), questions(emulator)) == (1, 0, [])


# Unknown


def unknown(taken: bool) -> List[Any]:
    """The faults after which nobody knows whether the message was taken."""
    return [
        pytest.param(Fault.drop(taken=taken), id="cut before the head"),
        pytest.param(Fault.drop(reset=True, taken=taken), id="reset before the head"),
        pytest.param(Fault.drop("in_headers", taken=taken), id="cut in the head"),
        pytest.param(Fault.drop("in_headers", reset=True, taken=taken), id="reset in the head"),
        pytest.param(Fault.stall(taken=taken), id="silence before the head"),
        pytest.param(Fault.status(500, taken=taken), id="500"),
        pytest.param(Fault.status(502, taken=taken), id="502"),
        pytest.param(Fault.status(503, taken=taken), id="503 without Retry-After"),
        pytest.param(Fault.status(503, headers={"x-ratelimit-reset": "1"}, taken=taken), id="503 with a reset alone"),
        pytest.param(Fault.status(504, taken=taken), id="504"),
        pytest.param(Fault.garbage("", "text/event-stream", taken=taken), id="an empty stream"),
        pytest.param(Fault.garbage(": hello\n\n", "text/event-stream", taken=taken), id="a stream of comments"),
        pytest.param(Fault.garbage(ONE[:-1], "text/event-stream", taken=taken), id="half an event"),
    ]


@pytest.mark.parametrize("fault", unknown(taken=True))
@both_ways
def test_a_message_that_was_taken_is_not_sent_again(emulator: Emulator, client: Client, fault: Fault, ask: Ask) -> None:
    """The thread has the answer under the id that was asked for: that is the answer."""
    emulator.fail("message", fault)
    assert ask(client, timeout=silence(fault)) == (TEXT, True)
    assert (len(sent(emulator)), questions(emulator)) == (1, ["hi"])
    assert looks(emulator) >= 1


@pytest.mark.parametrize("fault", unknown(taken=False))
@both_ways
def test_a_message_that_is_not_in_its_thread_is_sent_again(
    emulator: Emulator, client: Client, fault: Fault, ask: Ask
) -> None:
    """It is sent after a second look, with the same id for its answer, and counts as an attempt."""
    emulator.fail("message", fault)
    assert ask(client, timeout=silence(fault)) == (TEXT, True)
    first, second = sent(emulator)
    assert first == second
    assert (questions(emulator), looks(emulator)) == (["hi"], 2)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.cut(0), id="cut"),
        pytest.param(Fault.cut(0, reset=True), id="reset"),
        pytest.param(Fault.cut(0, mid_event=True), id="half an event"),
        pytest.param(Fault.stall(("after_events", 0)), id="silence"),
    ],
)
@both_ways
def test_a_reply_that_ended_before_its_first_content_is_looked_up(
    emulator: Emulator, client: Client, fault: Fault, ask: Ask
) -> None:
    """A good status is no proof that the answer was begun."""
    emulator.fail("message", fault)
    assert ask(client, timeout=silence(fault)) == (TEXT, True)
    assert (len(sent(emulator)), questions(emulator)) == (1, ["hi"])


def test_an_answer_found_in_the_thread_is_an_answer_like_any_other(emulator: Emulator, client: Client) -> None:
    """It has its id, its conversation goes on from there, and its events are content and complete."""
    emulator.fail("message", Fault.drop())
    stream = client.stream("hi")
    events = list(stream.events())
    assert [(event.type, event.data.get("body")) for event in events] == [("content", TEXT), ("complete", None)]
    assert stream.answer is not None and stream.conversation is not None
    assert stream.answer.message_id == stream.conversation.message_id == sent(emulator)[0]["responseMessageID"]


@pytest.mark.parametrize("list_partial", [False, True], ids=["not listed yet", "listed as interrupted"])
@both_ways
def test_an_answer_that_is_being_written_is_waited_for(
    emulator: Emulator, client: Client, list_partial: bool, ask: Ask
) -> None:
    """Our message is in the thread, so the answer will be: the thread is looked at until it is whole."""
    emulator.options.list_partial = list_partial

    def pieces() -> Iterator[str]:
        yield "one "
        emulator.wait_until(lambda: looks(emulator) >= 3)
        yield "two"

    emulator.script(Reply(pieces()))
    emulator.fail("message", Fault.drop())
    assert ask(client) == ("one two", True)
    assert (len(sent(emulator)), questions(emulator)) == (1, ["hi"])


@pytest.mark.parametrize(
    "patience, timeout",
    [pytest.param(0.5, None, id="patience"), pytest.param(30.0, Timeout(read=5, total=0.8), id="total")],
)
def test_an_answer_that_does_not_appear_in_time_is_an_error_that_says_so(
    emulator: Emulator,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    timeout: Optional[Timeout],
) -> None:
    """Looking ends with the patience, or with the time that the call may take in all."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", patience)
    over = threading.Event()

    def pieces() -> Iterator[str]:
        over.wait(PATIENCE)
        yield "late"

    emulator.script(Reply(pieces()))
    emulator.fail("message", Fault.drop())
    conversation = client.create_thread()
    try:
        with pytest.raises(StreamInterruptedError, match="was taken, but its answer did not appear in time") as caught:
            client.ask("hi", conversation=conversation, timeout=timeout)
    finally:
        over.set()
    assert (caught.value.stage, caught.value.partial) == ("message", "")
    assert caught.value.conversation is conversation
    assert (len(sent(emulator)), questions(emulator)) == (1, ["hi"])


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Fault.status(404)], id="404"),
        pytest.param([Fault.garbage()], id="a web page"),
        pytest.param([Fault.garbage("{}", "application/json")], id="no list"),
        pytest.param([Fault.drop()] * 4, id="cut, again and again"),
    ],
)
@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_where_looking_fails_the_outcome_stays_unknown(
    emulator: Emulator, client: Client, faults: List[Fault], taken: bool
) -> None:
    """Then the message is not sent again, and the error says what to do."""
    emulator.fail("message", Fault.drop(taken=taken))
    emulator.fail("messages", *faults)
    with pytest.raises(StreamInterruptedError, match="unknown whether the message was taken") as caught:
        client.ask("hi")
    assert caught.value.conversation is not None
    assert isinstance(caught.value.__cause__, CopilotError)
    assert (len(sent(emulator)), questions(emulator)) == (1, ["hi"] if taken else [])


def test_what_an_earlier_look_told_is_not_forgotten(emulator: Emulator, client: Client) -> None:
    """Once our message was seen in the thread, a look that fails does not make it unknown again."""
    emulator.options.finish_when_disconnected = False
    emulator.fail("message", Fault.drop())
    emulator.fail("messages", None, Fault.status(403))
    with pytest.raises(StreamInterruptedError, match="was taken, but its answer did not appear") as caught:
        client.ask("hi")
    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert questions(emulator) == ["hi"]


def test_looking_is_tried_again_like_any_request(emulator: Emulator, client: Client) -> None:
    """A look does no harm twice."""
    emulator.fail("message", Fault.drop())
    emulator.fail("messages", Fault.drop(), Fault.status(502), Fault.status(429, retry_after=0))
    assert client.ask("hi").text == TEXT
    assert (looks(emulator), len(sent(emulator))) == (4, 1)


def test_a_stream_that_is_closed_while_it_looks_is_closed(emulator: Emulator, client: Client) -> None:
    """Being closed is not taken for a failed look."""
    emulator.fail("message", Fault.drop())
    emulator.fail("messages", Fault.stall())
    stream = client.stream("hi")
    reader = Worker(lambda: next(stream))
    assert emulator.wait_until(lambda: emulator.stalled)
    stream.close()
    with pytest.raises(StreamClosedError):
        reader.result()


# What is still on its way


class Middlebox:
    """Has a message taken late: it answers itself, or cuts, and delivers half a second later."""

    def __init__(self, emulator: Emulator, delay: float) -> None:
        self._emulator = emulator
        self._timer: Optional[threading.Timer] = None
        self._delay = delay
        self.delivered = threading.Event()

    def __call__(self, stage: str, request: Any) -> Optional[Fault]:
        if stage == "message" and self._timer is None:
            self._timer = threading.Timer(self._delay, self._deliver, (request,))
            self._timer.start()
        return None

    def _deliver(self, request: Any) -> None:
        url = f"{self._emulator.api_url}{request.path}"
        names = ("authorization", "content-type", "copilot-integration-id", "x-github-api-version")
        headers = {name: value for name, value in request.headers.items() if name in names}
        requests.post(url, json=request.json, headers=headers, timeout=PATIENCE)
        self.delivered.set()


@pytest.mark.parametrize(
    "fault",
    [pytest.param(Fault.status(504), id="504"), pytest.param(Fault.drop(taken=False), id="cut")],
)
@pytest.mark.parametrize("taken_up", [False, True], ids=["by the call itself", "by another process"])
def test_a_message_that_is_still_on_its_way_is_not_sent_again(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch, fault: Fault, taken_up: bool
) -> None:
    """That it is not there is believed two seconds after the failure, and it comes half a second after it."""
    monkeypatch.setattr(recovery, "RECOVERY_DELAY", settings.RECOVERY_DELAY)
    middlebox = Middlebox(emulator, 0.5)
    handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), protocol.ROOT)
    late = [fault]

    def choose(stage: str, request: Any) -> Optional[Fault]:
        middlebox(stage, request)
        return late.pop() if stage == "message" and late else None

    emulator.choose_fault = choose
    stream = client.stream("hi", handle=handle, retry=None if taken_up else AT_ONCE)
    if taken_up:
        with pytest.raises(CopilotError):
            stream.read()
        stream = client.stream("hi", handle=dataclasses.replace(handle, maybe_sent=True))
    answer = stream.read()
    wait_for(middlebox.delivered)
    assert (answer.text, answer.complete, questions(emulator)) == (TEXT, True, ["hi"])
    assert looks(emulator) == 2


def test_a_message_that_never_comes_is_sent_after_two_seconds(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not before."""
    monkeypatch.setattr(recovery, "RECOVERY_DELAY", settings.RECOVERY_DELAY)
    times: List[float] = []
    emulator.choose_fault = lambda stage, request: times.append(time.monotonic()) if stage == "message" else None
    emulator.fail("message", Fault.status(504))
    began = time.monotonic()
    assert client.ask("hi").text == TEXT
    assert 2.0 <= times[-1] - began < PATIENCE
    assert (len(sent(emulator)), looks(emulator)) == (2, 2)


@pytest.mark.parametrize(
    "timeout",
    [pytest.param(Timeout(read=1.0), id="read"), pytest.param(Timeout(total=1.0), id="total")],
)
def test_a_message_that_can_not_be_waited_for_stays_unknown(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch, timeout: Timeout
) -> None:
    """Less time than it may be on its way is not enough to tell, and that is told at once."""
    monkeypatch.setattr(recovery, "RECOVERY_DELAY", settings.RECOVERY_DELAY)
    emulator.fail("message", Fault.status(504))
    with pytest.raises(StreamInterruptedError, match="unknown whether the message was taken"):
        client.ask("hi", timeout=timeout)
    assert (len(sent(emulator)), looks(emulator)) == (1, 1)


def test_a_message_that_was_seen_once_is_not_sent_again(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a later look, at another of the service's machines, does not show it any more."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.3)
    emulator.options.finish_when_disconnected = False
    emulator.fail("message", Fault.drop())
    emulator.fail("messages", None, *[Fault.garbage('{"messages": []}', "application/json")] * 1000)
    with pytest.raises(StreamInterruptedError, match="was taken, but its answer did not appear"):
        client.ask("hi")
    assert len(sent(emulator)) == 1


@pytest.mark.parametrize("timeout", [Timeout(read=0.6), Timeout(read=5, total=1.0)], ids=["read", "total"])
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.stall(), id="silent"),
        pytest.param(Fault.status(503, retry_after=1), id="busy"),
    ],
)
def test_looking_ends_with_its_time_whatever_it_waits_for(
    emulator: Emulator, client: Client, fault: Fault, timeout: Timeout
) -> None:
    """Its own requests and their retries are part of it."""
    emulator.fail("message", Fault.drop())
    emulator.fail("messages", *[fault] * 50)
    patient = RetryPolicy(attempts=50, base=0.0, cap=0.0)
    began = time.monotonic()
    with pytest.raises(StreamInterruptedError, match="unknown whether the message was taken"):
        client.ask("hi", timeout=timeout, retry=patient)
    assert time.monotonic() - began < 2.0
    assert looks(emulator) < 3


def test_a_look_that_drips_ends_with_the_time_of_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that comes byte by byte is no list."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.5)
    over = threading.Event()

    def script(peer: Peer) -> None:
        if peer.receive().startswith(b"GET"):
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
            while not over.wait(0.01):
                peer.send(b" ")

    with Server(script) as server, Client("key", api_url=server.url, retry=AT_ONCE) as client:
        with pytest.raises(StreamInterruptedError, match="unknown whether the message was taken"):
            client.ask("hi", conversation="t-1")
        over.set()


# Which message is ours


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("list_partial", [False, True], ids=["whole answers listed", "partial answers listed"])
def test_an_identical_earlier_message_is_told_apart_by_its_parent(
    emulator: Emulator, client: Client, taken: bool, list_partial: bool
) -> None:
    """Asking the same thing twice on purpose puts it into the thread twice, and not three times."""
    emulator.options.list_partial = list_partial
    conversation = client.ask("hi").conversation
    emulator.script("again")
    emulator.fail("message", Fault.drop(taken=taken))
    assert client.ask("hi", conversation=conversation).text == "again"
    assert (questions(emulator), len(sent(emulator))) == (["hi", "hi"], 2 if taken else 3)


# fmt: off
CHANGES = [
    # what the server keeps of the message      what is known of a first message, and of a second one
    ({"parentMessageID": None},                 "was taken",       "unknown whether"),
    ({"parentMessageID": "root"},               "was taken",       "unknown whether"),
    ({"parentMessageID": "a-stranger"},         "unknown whether", "unknown whether"),
    ({"content": None},                         "unknown whether", "unknown whether"),
    ({"content": "hi, but shortened"},          "unknown whether", "unknown whether"),
    ({"role": "User"},                          "was taken",       "was taken"),
    ({"content": "  e\u0301\nthe end"},         "was taken",       "was taken"),
]
# fmt: on


@pytest.mark.parametrize("known", [True, False], ids=["second message", "first message"])
@pytest.mark.parametrize(("change", "first", "second"), CHANGES, ids=lambda value: str(value)[:40])
def test_a_message_that_may_be_ours_in_another_form_is_not_sent_again(
    emulator: Emulator,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    first: str,
    second: str,
    known: bool,
) -> None:
    """Whatever stands behind the message that ours answers may be ours: then it can't be told, and nothing is sent."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.3)
    conversation = client.ask("hello").conversation if known else None

    def kept_otherwise(stage: str, request: Any) -> None:
        if stage == "messages":
            messages = emulator.threads[request.thread_id].messages
            messages[:] = messages[: 2 * known + 1]
            messages[-1].update(change)

    emulator.choose_fault = kept_otherwise
    emulator.fail("message", Fault.status(502, taken=True))
    with pytest.raises(StreamInterruptedError, match=second if known else first):
        client.ask("\u00e9\r\nthe end", conversation=conversation)
    assert len(sent(emulator)) == 1 + known


def test_an_answer_that_comes_late_is_looked_for_until_the_end(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that would go beyond the time that is left is cut short, and a last look follows it."""
    monkeypatch.setattr(recovery, "_FIRST_LOOK", 60.0)
    monkeypatch.setattr(recovery, "_LONGEST_LOOK", 60.0)
    waiting = threading.Event()

    def pieces() -> Iterator[str]:
        waiting.wait(PATIENCE)
        yield "late"

    def seen(stage: str, request: Any) -> None:
        if stage == "messages":
            waiting.set()

    emulator.choose_fault = seen
    emulator.script(Reply(pieces()))
    emulator.fail("message", Fault.drop())
    assert client.ask("hi", timeout=Timeout(total=2)).text == "late"


def test_an_identical_message_in_a_conversation_known_by_its_id_can_not_be_told_apart(
    emulator: Emulator, client: Client
) -> None:
    """Nobody knows what our message answers there, so the earlier one might be ours, answered under another id."""
    conversation = client.ask("hi").conversation
    emulator.fail("message", Fault.drop(taken=False))
    with pytest.raises(StreamInterruptedError, match="unknown whether the message was taken"):
        client.ask("hi", conversation=conversation.conversation_id)
    assert questions(emulator) == ["hi"]


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_another_message_in_a_conversation_known_by_its_id_is_told_apart(
    emulator: Emulator, client: Client, taken: bool
) -> None:
    """What it says tells it from the others."""
    conversation = client.ask("hello").conversation
    emulator.script("new")
    emulator.fail("message", Fault.drop(taken=taken))
    assert client.ask("hi", conversation=conversation.conversation_id).text == "new"
    assert questions(emulator) == ["hello", "hi"]


def test_our_message_is_waited_for_where_only_its_words_tell_it(emulator: Emulator, client: Client) -> None:
    """An unanswered message that says the same is taken for ours rather than sent twice."""
    conversation = client.create_thread()

    def pieces() -> Iterator[str]:
        emulator.wait_until(lambda: looks(emulator) >= 2)
        yield "late"

    emulator.script(Reply(pieces()))
    emulator.fail("message", Fault.drop())
    assert client.ask("hi", conversation=conversation.conversation_id).text == "late"
    assert questions(emulator) == ["hi"]


# How often


@pytest.mark.parametrize("attempts", [1, 3])
def test_attempts_are_counted_and_bounded(emulator: Emulator, client: Client, attempts: int) -> None:
    """As many requests are made as the policy has, each after two looks, and the error says how many they were."""
    emulator.fail("message", *[Fault.status(502)] * 5)
    with pytest.raises(ServerError) as caught:
        client.ask("hi", retry=RetryPolicy(attempts=attempts, base=0.0, cap=0.0))
    assert (caught.value.attempts, caught.value.stage, caught.value.status) == (attempts, "message", 502)
    assert (len(sent(emulator)), looks(emulator), questions(emulator)) == (attempts, 2 * attempts, [])
    assert len({message["responseMessageID"] for message in sent(emulator)}) == 1


def test_the_last_attempt_is_looked_up_as_well(emulator: Emulator, client: Client) -> None:
    """An answer that was written is not thrown away because no attempt is left."""
    emulator.fail("message", Fault.status(502), Fault.status(502, taken=True))
    assert client.ask("hi", retry=RetryPolicy(attempts=2, base=0.0, cap=0.0)).text == TEXT
    assert questions(emulator) == ["hi"]


def test_what_is_not_taken_and_what_is_unknown_share_the_attempts(emulator: Emulator, client: Client) -> None:
    """One budget for the stage, whatever goes wrong."""
    emulator.fail("message", Fault.status(409), Fault.drop(taken=False), Fault.status(503, retry_after=0), Fault.cut(0))
    assert client.ask("hi").text == TEXT
    assert (len(sent(emulator)), looks(emulator), questions(emulator)) == (4, 3, ["hi"])


def test_the_last_failure_is_raised_where_none_of_the_attempts_was_taken(emulator: Emulator, client: Client) -> None:
    """Nothing is looked up for a failure that says itself that nothing was taken."""
    emulator.fail("message", Fault.drop(taken=False), Fault.status(409))
    with pytest.raises(ServerError) as caught:
        client.ask("hi", retry=RetryPolicy(attempts=2, base=0.0, cap=0.0))
    assert (caught.value.status, caught.value.attempts, looks(emulator)) == (409, 2, 2)


@pytest.mark.parametrize(
    "fault, kind",
    [
        pytest.param(Fault.drop(taken=False), NetworkError, id="cut"),
        pytest.param(Fault.status(502), ServerError, id="502"),
        pytest.param(Fault.status(409), ServerError, id="409"),
        pytest.param(Fault.cut(0), NetworkError, id="an empty reply"),
    ],
)
def test_without_a_policy_the_first_failure_is_raised(
    emulator: Emulator, client: Client, fault: Fault, kind: Type[CopilotError]
) -> None:
    """``retry=None`` turns it all off: one request, and no look."""
    emulator.fail("message", fault)
    with pytest.raises(kind) as caught:
        client.ask("hi", retry=None)
    assert (caught.value.attempts, len(sent(emulator)), looks(emulator)) == (1, 1, 0)


def test_the_caller_hears_of_each_attempt(emulator: Emulator, client: Client) -> None:
    """``on_retry`` gets the error and the wait, with the requests made so far."""
    heard: List[Tuple[Optional[int], int, float]] = []
    retry = RetryPolicy(
        base=0.0, cap=0.0, on_retry=lambda error, seconds: heard.append((error.status, error.attempts, seconds))
    )
    emulator.fail("message", Fault.status(409), Fault.status(429, retry_after=0), Fault.status(502))
    client.ask("hi", retry=retry)
    assert heard == [(409, 1, 0.0), (429, 2, 0.0), (502, 3, 0.0)]


@pytest.mark.parametrize("base", [Exception, CopilotError])
@pytest.mark.parametrize("fault", [Fault.status(409), Fault.drop()], ids=["not taken", "unknown"])
def test_what_the_callback_raises_ends_the_call(
    emulator: Emulator, client: Client, fault: Fault, base: Type[Exception]
) -> None:
    """Nothing of ours catches it, so a task's own time limit gets through."""
    limit = type("TimeLimitError", (base,), {})

    def interrupt(error: CopilotError, seconds: float) -> None:
        raise limit("over")

    emulator.fail("message", fault)
    with pytest.raises(limit, match="over"):
        client.ask("hi", retry=RetryPolicy(on_retry=interrupt))
    assert (len(sent(emulator)), looks(emulator)) == (1, 0)


def test_a_token_that_can_not_be_had_is_no_attempt_of_the_message(emulator: Emulator, client: Client) -> None:
    """It has its own attempts; they are not multiplied by the message's, and nothing is looked up."""
    emulator.fail("token", *[Fault.status(502)] * 9)
    with pytest.raises(ServerError) as caught:
        client.ask("hi", conversation="t-1", retry=RetryPolicy(attempts=3, base=0.0, cap=0.0))
    assert (caught.value.stage, caught.value.attempts) == ("token", 3)
    assert [request.stage for request in emulator.requests] == ["token"] * 3


# The rest of a cut answer


CUTS = [
    pytest.param(Reply(["one ", "two ", "three"]), Fault.cut(1), id="a missing chunk"),
    pytest.param(Reply(["one ", "two ", "three"]), Fault.cut(2, mid_event=True), id="a torn event"),
    pytest.param(Reply(["one ", "two ", "three"]), Fault.cut(1, reset=True), id="a reset"),
    pytest.param(Reply(["one ", "two ", "three"]), Fault.cut(3), id="only complete is missing"),
    pytest.param(Reply(["one ", "two ", "three"], framing="close"), Fault.cut(1), id="a close-delimited body"),
    pytest.param(Reply(["one ", "two ", "three"]), Fault.stall(("after_events", 1)), id="silence"),
]


@pytest.mark.parametrize("reply, fault", CUTS)
@both_ways
def test_the_rest_of_a_cut_answer_is_fetched_from_its_thread(
    emulator: Emulator, client: Client, reply: Reply, fault: Fault, ask: Ask
) -> None:
    """The caller gets the whole text, each character once; nothing is sent again, whatever the policy."""
    emulator.script(reply)
    emulator.fail("message", fault)
    assert ask(client, retry=None, timeout=silence(fault)) == (TEXT, True)
    assert (len(sent(emulator)), questions(emulator)) == (1, ["hi"])


def test_only_the_missing_characters_follow(emulator: Emulator, client: Client) -> None:
    """What was yielded is not yielded again, and a missing end alone is no piece of text."""
    emulator.fail("message", Fault.cut(1), Fault.cut(3))
    assert list(client.stream("hi")) == ["one ", "two three"]
    bodies = [event.body for event in client.stream("hi").events() if isinstance(event, ContentEvent)]
    assert bodies == ["one ", "two ", "three"]


def test_the_rest_is_waited_for_while_it_is_written(emulator: Emulator, client: Client) -> None:
    """A cut does not stop the service from writing."""

    def pieces() -> Iterator[str]:
        yield "one "
        emulator.wait_until(lambda: looks(emulator) >= 2)
        yield "two"

    emulator.script(Reply(pieces()))
    emulator.fail("message", Fault.cut(1))
    assert list(client.stream("hi")) == ["one ", "two"]


OTHER = Reply(raw=ONE, pieces=["Quite", " another", " text"], framing="close")


def test_a_thread_that_tells_another_text_does_not_go_into_a_stream(emulator: Emulator, client: Client) -> None:
    """What was yielded can't be taken back, so the stream ends in an error with exactly that."""
    emulator.script(OTHER)
    conversation = client.create_thread()
    stream = client.stream("hi", conversation=conversation)
    pieces: List[str] = []
    with pytest.raises(StreamInterruptedError) as caught:
        pieces.extend(stream)
    assert (caught.value.partial, stream.text, stream.answer) == ("one", "one", None)
    assert caught.value.conversation is conversation
    assert questions(emulator) == ["hi"]


def test_a_thread_that_tells_another_text_is_right_where_nothing_was_handed_out(
    emulator: Emulator, client: Client
) -> None:
    """``ask`` gives the text that the thread has, and counts its size alone."""
    emulator.script(OTHER)
    assert client.ask("hi").text == "Quite another text"


@pytest.mark.parametrize(
    "faults, options",
    [
        pytest.param([], {"resume": False}, id="not wanted"),
        pytest.param([Fault.status(404)], {}, id="the look fails"),
    ],
)
@pytest.mark.parametrize(
    "reply, fault, kind, partial",
    [
        pytest.param(Reply(["one ", "two"]), Fault.cut(1), StreamInterruptedError, "one ", id="cut"),
        pytest.param(
            Reply(["one ", "two"]), Fault.stall(("after_events", 1)), RequestTimeoutError, "one ", id="silence"
        ),
    ],
)
@both_ways
def test_a_rest_that_is_not_had_is_an_error_with_what_had_come(
    emulator: Emulator,
    client: Client,
    faults: List[Fault],
    options: Any,
    reply: Reply,
    fault: Fault,
    kind: Type[Union[StreamInterruptedError, RequestTimeoutError]],
    partial: str,
    ask: Ask,
) -> None:
    """A time-out stays a time-out, a cut is an interruption; neither sends the message again."""
    emulator.script(reply)
    emulator.fail("message", fault)
    emulator.fail("messages", *faults)
    with pytest.raises(kind) as caught:
        ask(client, timeout=silence(fault), **options)
    assert (type(caught.value), caught.value.partial, caught.value.stage) == (kind, partial, "stream")
    assert (len(sent(emulator)), looks(emulator), questions(emulator)) == (1, len(faults), ["hi"])


def test_a_thread_without_our_message_can_not_give_the_rest(emulator: Emulator, client: Client) -> None:
    """The answer had begun, so the message is not sent again even where the thread does not show it."""
    emulator.fail("message", Fault.cut(1))
    emulator.fail("messages", *[Fault.garbage('{"messages": null}', "application/json")] * 2)
    with pytest.raises(StreamInterruptedError) as caught:
        client.ask("hi")
    assert (caught.value.partial, len(sent(emulator))) == ("one ", 1)


def test_an_answer_that_goes_wrong_by_itself_is_not_resumed(emulator: Emulator, client: Client) -> None:
    """An error event is the service's last word."""
    emulator.script(Reply(["one"], error="boom"))
    with pytest.raises(ServerError, match="boom"):
        client.ask("hi")
    assert looks(emulator) == 0


# All of it together


def test_no_mixture_of_faults_asks_twice_or_mixes_answers(emulator: Emulator, client: Client) -> None:
    """Each pair of faults, one after the other: the right answer, and one message in its thread."""
    faults = [
        Fault.drop(),
        Fault.drop(taken=False),
        Fault.drop("in_headers"),
        Fault.status(502, taken=True),
        Fault.status(502),
        Fault.status(409),
        Fault.expired_token(),
        Fault.cut(0),
        Fault.cut(1, mid_event=True),
    ]
    queue: List[Fault] = []
    emulator.choose_fault = lambda stage, request: queue.pop(0) if stage == "message" and queue else None
    emulator.reply = Reply(lambda prompt: f"the answer to {prompt}")
    for number, pair in enumerate(itertools.permutations(faults, 2)):
        queue[:] = pair
        answer = client.ask(f"question {number}")
        assert answer.text == f"the answer to question {number}"
        messages = emulator.threads[answer.conversation.conversation_id].messages
        assert [message["role"] for message in messages] == ["user", "assistant"]
