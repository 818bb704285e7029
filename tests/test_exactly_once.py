"""A message that may have been taken: nothing is lost, and nothing is asked twice."""

import itertools
import threading
from typing import Any, Iterator, List, Optional, Tuple, Type

import pytest
from asking import AT_ONCE, ONE, TEXT, Ask, both_ways, looks, questions, sent, silence
from support import PATIENCE, Worker

from copilot_sync import (
    AuthenticationError,
    Client,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    Timeout,
)
from copilot_sync.delivery import recovery
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
    """Where nothing listens, nothing was taken. The thread is looked at once, for what the message answers."""
    conversation = client.create_thread()
    emulator.close()
    errors: List[CopilotError] = []

    def serve_again(error: CopilotError, seconds: float) -> None:
        errors.append(error)
        emulator.start()

    retry = RetryPolicy(base=0.0, cap=0.0, on_retry=serve_again)
    assert client.ask("hi", conversation=conversation, retry=retry).text == TEXT
    assert [(type(error), error.attempts) for error in errors] == [(NetworkError, 1)]
    assert (questions(emulator), len(sent(emulator)), looks(emulator)) == (["hi"], 1, 1)


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


def unknown(processed: bool) -> List[Any]:
    """The faults after which nobody knows whether the message was processed."""
    return [
        pytest.param(Fault.drop(processed=processed), id="cut before the head"),
        pytest.param(Fault.drop(reset=True, processed=processed), id="reset before the head"),
        pytest.param(Fault.drop("in_headers", processed=processed), id="cut in the head"),
        pytest.param(Fault.drop("in_headers", reset=True, processed=processed), id="reset in the head"),
        pytest.param(Fault.stall(processed=processed), id="silence before the head"),
        pytest.param(Fault.status(500, processed=processed), id="500"),
        pytest.param(Fault.status(502, processed=processed), id="502"),
        pytest.param(Fault.status(503, processed=processed), id="503 without Retry-After"),
        pytest.param(
            Fault.status(503, headers={"x-ratelimit-reset": "1"}, processed=processed), id="503 with a reset alone"
        ),
        pytest.param(Fault.status(504, processed=processed), id="504"),
        pytest.param(Fault.garbage("", "text/event-stream", processed=processed), id="an empty stream"),
        pytest.param(Fault.garbage(": hello\n\n", "text/event-stream", processed=processed), id="a stream of comments"),
        pytest.param(Fault.garbage(ONE[:-1], "text/event-stream", processed=processed), id="half an event"),
    ]


@pytest.mark.parametrize("fault", unknown(processed=True))
@both_ways
def test_a_message_that_was_taken_is_not_sent_again(emulator: Emulator, client: Client, fault: Fault, ask: Ask) -> None:
    """The thread has the answer under the id that was asked for: that is the answer."""
    emulator.fail("message", fault)
    assert ask(client, timeout=silence(fault)) == (TEXT, True)
    assert (len(sent(emulator)), questions(emulator)) == (1, ["hi"])
    assert looks(emulator) >= 1


@pytest.mark.parametrize("fault", unknown(processed=False))
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
    emulator.fail("message", Fault.drop(processed=taken))
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
    emulator.fail("message", Fault.status(502), Fault.status(502, processed=True))
    assert client.ask("hi", retry=RetryPolicy(attempts=2, base=0.0, cap=0.0)).text == TEXT
    assert questions(emulator) == ["hi"]


def test_what_is_not_taken_and_what_is_unknown_share_the_attempts(emulator: Emulator, client: Client) -> None:
    """One budget for the stage, whatever goes wrong."""
    emulator.fail(
        "message", Fault.status(409), Fault.drop(processed=False), Fault.status(503, retry_after=0), Fault.cut(0)
    )
    assert client.ask("hi").text == TEXT
    assert (len(sent(emulator)), looks(emulator), questions(emulator)) == (4, 3, ["hi"])


def test_the_last_failure_is_raised_where_none_of_the_attempts_was_taken(emulator: Emulator, client: Client) -> None:
    """Nothing is looked up for a failure that says itself that nothing was taken."""
    emulator.fail("message", Fault.drop(processed=False), Fault.status(409))
    with pytest.raises(ServerError) as caught:
        client.ask("hi", retry=RetryPolicy(attempts=2, base=0.0, cap=0.0))
    assert (caught.value.status, caught.value.attempts, looks(emulator)) == (409, 2, 2)


@pytest.mark.parametrize(
    "fault, kind",
    [
        pytest.param(Fault.drop(processed=False), NetworkError, id="cut"),
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


def test_no_mixture_of_faults_asks_twice_or_mixes_answers(emulator: Emulator, client: Client) -> None:
    """Each pair of faults, one after the other: the right answer, and one message in its thread."""
    faults = [
        Fault.drop(),
        Fault.drop(processed=False),
        Fault.drop("in_headers"),
        Fault.status(502, processed=True),
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
