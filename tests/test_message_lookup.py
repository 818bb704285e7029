"""Which message of a thread is ours, and how long it is looked for while it is on its way."""

import dataclasses
import threading
import time
import uuid
from typing import Any, Iterator, List, Optional

import pytest
import requests
from asking import AT_ONCE, TEXT, looks, questions, sent
from support import PATIENCE, Peer, Server, wait_for

from copilot_sync import Client, CopilotError, RetryPolicy, StreamInterruptedError, Timeout, settings
from copilot_sync.delivery import recovery
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.protocol.requests import ROOT

pytestmark = pytest.mark.usefixtures("quick_looks")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(reply=Reply(["one ", "two ", "three"])) as served:
        yield served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    urls = emulator.github_url, emulator.api_url
    with Client(cookies=emulator.cookies, retry=AT_ONCE, github_url=urls[0], api_url=urls[1]) as opened:
        yield opened


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
    [pytest.param(Fault.status(504), id="504"), pytest.param(Fault.drop(processed=False), id="cut")],
)
@pytest.mark.parametrize("taken_up", [False, True], ids=["by the call itself", "by another process"])
def test_a_message_that_is_still_on_its_way_is_not_sent_again(
    emulator: Emulator, client: Client, monkeypatch: pytest.MonkeyPatch, fault: Fault, taken_up: bool
) -> None:
    """That it is not there is believed two seconds after the failure, and it comes half a second after it."""
    monkeypatch.setattr(recovery, "RECOVERY_DELAY", settings.RECOVERY_DELAY)
    middlebox = Middlebox(emulator, 0.5)
    handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), ROOT)
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
            client.ask("hi", conversation="t-1", parent_message_id="root")
        over.set()


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("list_partial", [False, True], ids=["whole answers listed", "partial answers listed"])
def test_an_identical_earlier_message_is_told_apart_by_its_parent(
    emulator: Emulator, client: Client, taken: bool, list_partial: bool
) -> None:
    """Asking the same thing twice on purpose puts it into the thread twice, and not three times."""
    emulator.options.list_partial = list_partial
    conversation = client.ask("hi").conversation
    emulator.script("again")
    emulator.fail("message", Fault.drop(processed=taken))
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
    emulator.fail("message", Fault.status(502, processed=True))
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


def test_an_identical_message_in_a_conversation_known_by_its_id_is_told_apart(
    emulator: Emulator, client: Client
) -> None:
    """The thread was looked up before, so it is known what our message answers there."""
    conversation = client.ask("hi").conversation
    emulator.fail("message", Fault.drop(processed=False))
    client.ask("hi", conversation=conversation.conversation_id)
    assert questions(emulator) == ["hi", "hi"]


def test_an_identical_message_can_not_be_told_apart_where_nothing_is_listed(emulator: Emulator, client: Client) -> None:
    """Nobody knows what our message answers then, so the earlier one might be ours, answered under another id."""
    conversation = client.ask("hi").conversation
    emulator.fail("messages", Fault.status(404))
    emulator.fail("message", Fault.drop(processed=False))
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
    emulator.fail("message", Fault.drop(processed=taken))
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
