"""The rest of an answer whose stream was cut: it is fetched from the thread, or the error holds what had come."""

from typing import Any, Iterator, List, Type, Union

import pytest
from asking import AT_ONCE, ONE, TEXT, Ask, both_ways, looks, questions, sent, silence

from copilot_sync import Client, ContentEvent, RequestTimeoutError, ServerError, StreamInterruptedError
from copilot_sync.emulator import Emulator, Fault, Reply

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
