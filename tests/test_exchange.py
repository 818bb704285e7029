"""What happens to a message decides whether it is sent again: the exchange over a session that is none."""

from typing import Any, Callable, Dict, Generator, Iterator, List, NamedTuple, Optional, Tuple, Type, Union

import pytest

from copilot_sync.delivery import recovery
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.delivery.exchange import drive
from copilot_sync.delivery.message import CallOptions, MessageHandle, PendingMessage
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from copilot_sync.events import ContentEvent
from copilot_sync.models import Conversation, Message
from copilot_sync.protocol.requests import ROOT, MessageOptions, Request
from copilot_sync.settings import Limits, RetryPolicy, Timeout, Urls
from copilot_sync.stepping import Pause
from copilot_sync.transport.call import CallContext

ONE = b'data: {"type":"content","body":"one"}\n\n'
WHOLE = ONE + b"data: [DONE]\n\n"
FAILED = b'data: {"type":"error","message":"boom"}\n\n'

ANSWER = Message("answer", "assistant", "one and two", "q-1")
OTHER = Message("answer", "assistant", "another", "q-1")
QUESTION = Message("q-1", "user", "hi", ROOT)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_FIRST_LOOK", 0.001)


class Body:
    """The bytes of a reply, and how they end."""

    framing_complete = True

    def __init__(self, content: bytes, failure: Optional[CopilotError] = None) -> None:
        self._content = content
        self._failure = failure

    def pieces(self) -> Iterator[bytes]:
        yield self._content
        if self._failure is not None:
            raise self._failure

    def finishing(self) -> Iterator[Pause]:
        """Nothing follows."""
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


class Response(NamedTuple):
    body: Body
    mask: Callable[[str], str] = str


Outcome = Union[CopilotError, Body]


class Session:
    """Answers each sending of the message with the next outcome, and each look with the messages of the thread."""

    urls = Urls("https://github.example", "https://api.example")
    limits = Limits()

    def __init__(self, outcomes: List[Outcome], messages: List[Message]) -> None:
        self._outcomes = outcomes
        self._messages = messages
        self.steps: List[str] = []

    def opening(
        self, request: Request, call: CallContext, policy: Optional[RetryPolicy], *, defers_reply: bool = False
    ) -> Generator[Pause, None, Response]:
        yield from ()
        assert defers_reply
        self.steps.append("send")
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, CopilotError):
            raise outcome
        return Response(outcome)

    def fetch(self, request: Request, call: CallContext, policy: Optional[RetryPolicy], understand: Any) -> Any:
        self.steps.append(LOOK if request.stage == "messages" else request.stage)
        return self._messages

    def note_success(self, stage: str) -> None:
        """Nothing is held back."""


def refused(status: int, kind: Type[CopilotError] = ServerError, **facts: Any) -> CopilotError:
    return kind("no", stage="message", status=status, **facts)


def lost(sent: bool = True) -> NetworkError:
    return NetworkError("gone", stage="message", may_have_been_sent=sent)


def exchange(
    outcomes: List[Outcome], messages: List[Message], handle: Optional[MessageHandle] = None, **options: Any
) -> Tuple[str, List[str]]:
    """Send a message into a new conversation: the text of the answer, and what was done for it."""
    session = Session(outcomes, messages)
    known = Conversation("t-1") if handle is not None else None
    message = PendingMessage("hi", "gpt-4o", MessageOptions(), known, handle=handle)
    builder = AnswerBuilder(Conversation("t-1"), "gpt-4o", "answer")
    settings = {"timeout": Timeout(), "retry": RetryPolicy(base=0.0, cap=0.0), "resume": True, **options}
    call_options = CallOptions(**settings)
    driver = drive(session, message, call_options, CallContext(Timeout()), builder)
    try:
        pieces = [event.body for event in driver if isinstance(event, ContentEvent)]
    except CopilotError as error:
        assert error.partial == builder.text
        return type(error).__name__, session.steps
    assert "".join(pieces) == builder.text
    return builder.text, session.steps


SEND, LOOK, FOUND = "send", "look", "one and two"
AGAIN, LOOKED_FOR, FINAL = [SEND, SEND], [SEND, LOOK, LOOK, SEND], [SEND]
REFUSED = [SEND, "delete"]

# fmt: off
ROWS: Dict[str, Tuple[Outcome, List[str]]] = {
    # what happened to the message  as an outcome                                      what is done
    "no connection":               (lost(sent=False),                                  AGAIN),
    "408":                         (refused(408),                                      AGAIN),
    "409":                         (refused(409),                                      AGAIN),
    "425":                         (refused(425),                                      AGAIN),
    "429":                         (refused(429, RateLimitError),                      AGAIN),
    "503 with Retry-After":        (refused(503, not_processed=True, retry_after=0.0), AGAIN),
    "cut before the head":         (lost(),                                            LOOKED_FOR),
    "500":                         (refused(500),                                      LOOKED_FOR),
    "502":                         (refused(502),                                      LOOKED_FOR),
    "504":                         (refused(504),                                      LOOKED_FOR),
    "503":                         (refused(503),                                      LOOKED_FOR),
    "no content":                  (Body(b""),                                         LOOKED_FOR),
    "no content, cut":             (Body(b"", lost()),                                 LOOKED_FOR),
    "a torn document":             (Body(b'{"message":'),                              LOOKED_FOR),
    "another status":              (refused(501),                                      FINAL),
    "a refusal":                   (refused(400, InvalidRequestError),                 REFUSED),
    "a token that is refused":     (refused(401, AuthenticationError),                 FINAL),
    "a quota":                     (refused(429, QuotaExceededError),                  REFUSED),
    "no token":                    (NetworkError("gone", stage="token"),               FINAL),
    "an error in the reply":       (Body(FAILED),                                      FINAL),
    "an error after some content": (Body(ONE + FAILED),                                FINAL),
    "words in place of a reply":   (Body(b"gateway"),                                  FINAL),
}
# fmt: on


@pytest.mark.parametrize("name", ROWS)
def test_a_message_is_sent_again_only_if_that_is_safe(name: str) -> None:
    """Each row of the module's table, when the thread shows nothing of the message."""
    outcome, steps = ROWS[name]
    text, done = exchange([outcome, Body(WHOLE)], [])
    assert done == steps
    assert (text == "one") is (steps not in (FINAL, REFUSED))


@pytest.mark.parametrize("name", [name for name, (_, steps) in ROWS.items() if steps is LOOKED_FOR])
def test_an_answer_that_was_written_all_the_same_is_found(name: str) -> None:
    """Then nothing is sent again, though there were no attempts left."""
    outcome, _ = ROWS[name]
    assert exchange([outcome], [QUESTION, ANSWER]) == (FOUND, [SEND, LOOK])
    only_one = RetryPolicy(attempts=1)
    assert exchange([outcome], [QUESTION, ANSWER], retry=only_one) == (FOUND, [SEND, LOOK])
    assert exchange([outcome], [], retry=only_one)[1] == [SEND, LOOK, LOOK]
    assert exchange([outcome], [QUESTION, ANSWER], retry=None)[1] == [SEND]


@pytest.mark.parametrize(
    "messages, resume, text, steps",
    [
        pytest.param([QUESTION, ANSWER], True, FOUND, [SEND, LOOK], id="its rest is in the thread"),
        pytest.param([QUESTION, OTHER], True, "StreamInterruptedError", [SEND, LOOK], id="another text is there"),
        pytest.param([], True, "StreamInterruptedError", [SEND, LOOK, LOOK], id="nothing is there"),
        pytest.param([QUESTION, ANSWER], False, "StreamInterruptedError", [SEND], id="its rest is not wanted"),
    ],
)
def test_the_rest_of_a_cut_answer_is_looked_for(
    messages: List[Message], resume: bool, text: str, steps: List[str]
) -> None:
    """After the first content, nothing is sent again."""
    assert exchange([Body(ONE, lost())], messages, resume=resume) == (text, steps)


@pytest.mark.parametrize(
    "messages, resume, text, steps",
    [
        pytest.param([QUESTION, ANSWER], True, FOUND, [SEND, LOOK], id="its rest is in the thread"),
        pytest.param([QUESTION, OTHER], True, "StreamInterruptedError", [SEND, LOOK], id="another text is there"),
        pytest.param([], True, "one", [SEND, LOOK], id="nothing is there"),
        pytest.param([QUESTION, ANSWER], False, "one", [SEND], id="its rest is not wanted"),
    ],
)
def test_an_answer_that_may_not_be_whole_is_looked_for_once(
    messages: List[Message], resume: bool, text: str, steps: List[str]
) -> None:
    """If the thread can't tell, it is the answer."""
    assert exchange([Body(ONE)], messages, resume=resume) == (text, steps)


def test_a_message_that_may_have_been_sent_is_looked_for_first() -> None:
    """And sent only if it is not there."""
    handle = MessageHandle("t-1", "answer", ROOT, maybe_sent=True)
    assert exchange([], [QUESTION, ANSWER], handle) == (FOUND, [LOOK])
    assert exchange([Body(WHOLE)], [], handle) == ("one", [LOOK, LOOK, SEND])


def test_a_message_that_may_be_there_in_another_form_is_not_sent_again() -> None:
    """The error says that it is unknown."""
    stranger = Message("q-1", "user", "something else", ROOT)
    assert exchange([lost()], [stranger]) == (StreamInterruptedError.__name__, [SEND, LOOK])
