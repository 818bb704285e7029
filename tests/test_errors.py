"""The family of errors: what a caller can tell them apart by, and that all of it travels from process to process."""

import copy
import pickle
import threading
from typing import Any, Callable, Dict, List, Tuple, Type

import pytest

from copilot_sync import errors
from copilot_sync.errors import (
    AuthenticationError,
    BudgetExceededError,
    CopilotError,
    InvalidAnswerError,
    InvalidRequestError,
    MissingCredentialsError,
    ModelNotAvailableError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ResponseTooLargeError,
    ServerError,
    StreamClosedError,
    StreamInterruptedError,
    WrongHostError,
)
from copilot_sync.models import Answer, Conversation

FACTS: Dict[str, Any] = {
    "stage": "stream",
    "status": 503,
    "attempts": 3,
    "partial": "Hel",
    "request_id": "A1:B2",
}
CONVERSATION = Conversation.from_dict({"conversation_id": "c1", "message_id": "m1"})
ANSWER = Answer("{}", CONVERSATION, "gpt-4o")
#: Each class, the class it is a kind of, and what it carries besides the common facts.
FAMILY: List[Tuple[Type[CopilotError], type, Dict[str, Any]]] = [
    (CopilotError, Exception, {}),
    (MissingCredentialsError, CopilotError, {}),
    (AuthenticationError, CopilotError, {}),
    (PermissionDeniedError, AuthenticationError, {}),
    (InvalidAnswerError, CopilotError, {"problems": ("$.age: it is no number",), "answer": ANSWER}),
    (InvalidRequestError, CopilotError, {}),
    (ModelNotAvailableError, InvalidRequestError, {"model": "gpt-9", "suggestions": ("gpt-5.5",)}),
    (NotFoundError, CopilotError, {}),
    (WrongHostError, CopilotError, {}),
    (RateLimitError, CopilotError, {"retry_after": 1.5}),
    (BudgetExceededError, RateLimitError, {"retry_after": 4.5}),
    (QuotaExceededError, RateLimitError, {"retry_after": 2.5}),
    (ServerError, CopilotError, {"retry_after": 3.5, "not_processed": True}),
    (NetworkError, CopilotError, {"may_have_been_sent": False, "permanent": True}),
    (
        RequestTimeoutError,
        NetworkError,
        {"may_have_been_sent": False, "permanent": True, "phase": "read", "seconds": 60.0},
    ),
    (ProtocolError, CopilotError, {}),
    (ResponseTooLargeError, ProtocolError, {}),
    (StreamInterruptedError, CopilotError, {"conversation": CONVERSATION}),
    (StreamClosedError, CopilotError, {}),
]
each_error = pytest.mark.parametrize("kind, parent, extras", FAMILY, ids=[kind.__name__ for kind, _, _ in FAMILY])
each_way = pytest.mark.parametrize(
    "travel",
    [copy.copy, copy.deepcopy]
    + [lambda error, p=p: pickle.loads(pickle.dumps(error, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)],
    ids=["copy", "deepcopy"] + [f"pickle-{p}" for p in range(pickle.HIGHEST_PROTOCOL + 1)],
)
Travel = Callable[[CopilotError], CopilotError]


def caused(error: CopilotError, cause: BaseException) -> CopilotError:
    error.__cause__ = cause
    return error


def test_the_table_here_holds_every_class_of_the_module() -> None:
    """A class that is added must be added to the table, and so to every promise below."""
    defined = {
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert {kind for kind, _, _ in FAMILY} == defined


@each_error
def test_an_error_is_of_the_documented_kind(kind: Type[CopilotError], parent: type, extras: Dict[str, Any]) -> None:
    """``except`` clauses rely on the tree of the documentation; the root is ``CopilotError``."""
    assert kind.__mro__[1] is parent
    assert issubclass(kind, CopilotError)


def test_a_time_out_is_a_builtin_one_too() -> None:
    """Code that knows nothing of this library catches it as ``TimeoutError``, and so as ``OSError``."""
    error = RequestTimeoutError("the answer fell silent")
    assert isinstance(error, TimeoutError)
    assert (error.phase, error.seconds, error.errno) == ("total", None, None)


@each_error
def test_an_error_carries_its_facts(kind: Type[CopilotError], parent: type, extras: Dict[str, Any]) -> None:
    """What is given by name can be read by name, and the message is the one argument."""
    error = kind("it failed", **FACTS, **extras)
    assert {name: vars(error)[name] for name in (*FACTS, *extras)} == {**FACTS, **extras}
    assert error.args == ("it failed",)


@each_error
def test_facts_that_are_not_known_have_quiet_defaults(
    kind: Type[CopilotError], parent: type, extras: Dict[str, Any]
) -> None:
    """A handler may read every attribute without asking whether it is there."""
    error = kind("it failed")
    assert (error.stage, error.status, error.attempts, error.partial, error.request_id) == (None, None, 0, "", None)
    quiet = {"may_have_been_sent": True, "permanent": False, "phase": "total", "not_processed": False}
    quiet.update(model="", suggestions=(), problems=())
    assert {name: getattr(error, name) for name in extras} == {name: quiet.get(name) for name in extras}


@each_way
@each_error
def test_an_error_travels_with_everything_it_carries(
    kind: Type[CopilotError], parent: type, extras: Dict[str, Any], travel: Travel
) -> None:
    """Celery and multiprocessing hand over the very error: class, message, facts, notes and cause."""
    error = caused(kind("it failed", **FACTS, **extras), ConnectionResetError(104, "reset by peer"))
    error.__notes__ = ["item 7"]  # type: ignore[attr-defined,unused-ignore] # as add_note of Python 3.11 does

    arrived = travel(error)

    assert type(arrived) is kind
    assert arrived.args == error.args
    assert vars(arrived) == vars(error)
    assert str(arrived) == str(error)
    assert type(arrived.__cause__) is ConnectionResetError
    assert arrived.__cause__.args == (104, "reset by peer")


class StrangeError(CopilotError):
    """An error of a caller's own, whose arguments are not those of the root."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


@each_way
def test_an_error_of_a_callers_own_class_travels(travel: Travel) -> None:
    """A subclass with other arguments arrives without being initialised again."""
    arrived = travel(StrangeError(1, 2))
    assert (type(arrived), str(arrived)) == (StrangeError, "1 and 2")


class UnloadableError(Exception):
    """Pickles, but can't be made again: its arguments don't fit it."""

    def __init__(self, first: str, *, second: str) -> None:
        super().__init__(f"{first}, {second}")


@pytest.mark.parametrize(
    "cause, words",
    [
        pytest.param(ValueError(threading.Lock()), "ValueError: <unlocked", id="does-not-pickle"),
        pytest.param(UnloadableError("a", second="b"), "UnloadableError: a, b", id="does-not-load"),
    ],
)
@each_way
def test_a_cause_that_can_not_travel_leaves_its_words(travel: Travel, cause: Exception, words: str) -> None:
    """Whatever a foreign library put into its exception, ours arrives, and still says why."""
    arrived = travel(caused(CopilotError("it failed", stage="token"), cause))
    assert str(arrived) == "it failed [stage token]"
    assert type(arrived.__cause__) is CopilotError
    assert str(arrived.__cause__).startswith(words)


def test_a_chain_of_causes_travels_whole() -> None:
    """The cause of a cause comes along; a long chain is not pickled twice as often with each link."""
    error = CopilotError("link 0")
    for number in range(1, 41):
        error = caused(CopilotError(f"link {number}", attempts=number), error)

    arrived: Any = pickle.loads(pickle.dumps(error))

    chain = []
    while arrived is not None:
        chain.append((str(arrived.args[0]), arrived.attempts))
        arrived = arrived.__cause__
    assert chain == [(f"link {number}", number) for number in range(40, -1, -1)]


def test_an_error_that_is_its_own_cause_travels() -> None:
    """A circle ends in words instead of in an error while pickling."""
    error = CopilotError("round")
    error.__cause__ = error
    assert str(pickle.loads(pickle.dumps(error)).__cause__) == "CopilotError: round"


def test_an_error_without_a_cause_arrives_without_one() -> None:
    """Nothing is made up on the way."""
    assert pickle.loads(pickle.dumps(CopilotError("it failed"))).__cause__ is None


@pytest.mark.parametrize(
    "facts, words",
    [
        ({}, "it failed"),
        ({"stage": "token"}, "it failed [stage token]"),
        ({"stage": "token", "status": 401}, "it failed [stage token, status 401]"),
        ({"attempts": 1}, "it failed"),
        ({"attempts": 4}, "it failed [4 attempts]"),
        ({"partial": "Hel"}, "it failed"),
        (FACTS, "it failed [stage stream, status 503, 3 attempts, request A1:B2]"),
    ],
)
def test_an_error_says_where_it_happened(facts: Dict[str, Any], words: str) -> None:
    """The facts stand behind the message; a single attempt and the text of the answer are not worth telling."""
    error = CopilotError("it failed", **facts)
    assert str(error) == words
    assert repr(error) == "CopilotError('it failed')"


def test_an_error_whose_arguments_were_taken_away_can_still_be_printed() -> None:
    """Error reporters may empty ``args``; printing must not fail then."""
    error = CopilotError("it failed", status=500)
    error.args = ()
    assert str(error) == " [status 500]"
