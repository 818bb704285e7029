"""Requests with a token: one renewal, no retries upon retries, and a pause for all calls of the credential."""

import pickle
from typing import Any, List, Optional

import pytest
from support import stages

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.auth.tokens import ExchangedTokens, GivenToken, StaticToken
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    ResponseTooLargeError,
    ServerError,
)
from copilot_sync.pacing.cooldown import Cooldown
from copilot_sync.protocol.requests import models_request
from copilot_sync.secret import Secret
from copilot_sync.settings import Limits, RetryPolicy, Timeout, Urls
from copilot_sync.stepping import Pause
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Transport

AT_ONCE = RetryPolicy(base=0.0)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Patient(CallContext):
    """A call whose sleep moves its clock instead of taking time."""

    def __init__(self, clock: Clock, total: Optional[float] = None) -> None:
        super().__init__(Timeout(total=total), clock=clock)
        self.slept: List[float] = []
        self._hands = clock

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._hands.now += seconds


@pytest.fixture
def urls(emulator: Emulator) -> Urls:
    return Urls(emulator.github_url, emulator.api_url)


@pytest.fixture
def access(emulator: Emulator, urls: Urls, transport: Transport) -> ApiSession:
    return ApiSession(urls, transport, ExchangedTokens(lambda: emulator.cookies, urls, transport, None))


@pytest.fixture
def keyed(emulator: Emulator, urls: Urls, transport: Transport) -> ApiSession:
    """Access with a token that was given."""
    return ApiSession(urls, transport, StaticToken(GivenToken(Secret(emulator.api_key))))


def models(access: ApiSession, call: Optional[CallContext] = None, policy: Optional[RetryPolicy] = None) -> Any:
    return access.fetch(models_request(access.urls), call or CallContext(Timeout()), policy, lambda reply: reply)


def test_requests_carry_the_token(emulator: Emulator, access: ApiSession) -> None:
    """In a ``GitHub-Bearer`` header, and the reply comes back whole."""
    reply = models(access)
    token, request = emulator.requests
    assert (token.stage, request.stage) == ("token", "models")
    assert request.headers["Authorization"].startswith("GitHub-Bearer emulated-")
    assert b"gpt-4o" in reply.body


def test_a_token_that_expired_is_renewed_and_the_request_sent_again(emulator: Emulator, access: ApiSession) -> None:
    """Even where nothing else is tried twice: what was refused was not taken."""
    models(access)
    emulator.expire_tokens()
    emulator.requests.clear()
    models(access, policy=None)
    assert stages(emulator) == ["models", "token", "models"]
    assert emulator.requests[0].bearer != emulator.requests[2].bearer


def test_a_second_401_is_an_authentication_error(emulator: Emulator, access: ApiSession) -> None:
    """A new token is fetched once, and then the refusal is believed."""
    emulator.fail("models", Fault.expired_token(), Fault.expired_token())
    with pytest.raises(AuthenticationError) as caught:
        models(access, policy=AT_ONCE)
    assert (caught.value.stage, caught.value.status, caught.value.attempts) == ("models", 401, 2)
    assert stages(emulator) == ["token", "models", "token", "models"]
    models(access)


def test_a_given_token_that_is_refused_is_an_error_at_once(emulator: Emulator, keyed: ApiSession) -> None:
    """There is none to renew it with."""
    emulator.fail("models", Fault.status(401))
    with pytest.raises(AuthenticationError):
        models(keyed, policy=AT_ONCE)
    assert stages(emulator) == ["models"]


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.status(429, retry_after=0), Fault.drop()])
@pytest.mark.parametrize("expired", [False, True], ids=["no token yet", "token expired"])
def test_a_token_that_cannot_be_had_has_its_own_attempts_alone(
    emulator: Emulator, access: ApiSession, fault: Fault, expired: bool
) -> None:
    """They don't begin anew with each attempt of the request that needs it."""
    if expired:
        models(access)
        emulator.expire_tokens()
        emulator.requests.clear()
    emulator.fail("token", *[fault] * 20)
    with pytest.raises(CopilotError) as caught:
        models(access, policy=AT_ONCE)
    assert (caught.value.stage, stages(emulator).count("token")) == ("token", AT_ONCE.attempts)


def test_a_failed_request_is_tried_again(emulator: Emulator, access: ApiSession) -> None:
    """As often as the policy has it."""
    emulator.fail("models", Fault.status(500), Fault.drop(), Fault.cut(reset=True))
    models(access, policy=AT_ONCE)
    assert stages(emulator).count("models") == 4


@pytest.mark.parametrize(
    ("fault", "error", "retry_after"),
    [
        (Fault.status(402, message="used up"), QuotaExceededError, None),
        (Fault.status(404), NotFoundError, None),
        (Fault.status(429, retry_after=7), RateLimitError, 7.0),
        (Fault.status(500), ServerError, None),
    ],
)
def test_a_status_becomes_an_error(
    emulator: Emulator, keyed: ApiSession, fault: Fault, error: Any, retry_after: Optional[float]
) -> None:
    """With its stage, its status and what the server told."""
    emulator.fail("models", fault)
    with pytest.raises(error) as caught:
        models(keyed)
    assert (caught.value.stage, caught.value.attempts) == ("models", 1)
    assert getattr(caught.value, "retry_after", None) == retry_after


@pytest.mark.parametrize("stage", ["models", "token"])
def test_after_a_429_all_calls_wait(emulator: Emulator, access: ApiSession, stage: str) -> None:
    """Not the one alone that was told to; and from the token's side as well. Then everything goes on."""
    clock = Clock()
    emulator.fail(stage, Fault.status(429, retry_after=30))
    with pytest.raises(RateLimitError):
        models(access, Patient(clock))
    clock.now += 10
    emulator.requests.clear()
    with pytest.raises(RateLimitError, match="slow down for another 20 s") as caught:
        models(access, Patient(clock))
    assert (caught.value.stage, caught.value.retry_after, caught.value.status) == (stage, 20.0, None)
    assert emulator.requests == []
    other = Patient(clock)
    models(access, other, AT_ONCE)
    assert other.slept[0] == 20.0
    clock.now += 61
    later = Patient(clock)
    models(access, later)
    assert later.slept == []


class Overtaken(Cooldown):
    """A pause that another thread begins right after a call has looked for one."""

    looks = 0

    @property  # type: ignore[override]
    def active(self) -> bool:
        self.looks += 1
        return self._active and self.looks > 1

    @active.setter
    def active(self, value: bool) -> None:
        self._active = value


def test_a_step_that_polls_never_waits_for_a_pause(emulator: Emulator, keyed: ApiSession) -> None:
    """Nor for one that begins as it goes on."""
    clock = Clock()
    keyed._tokens.cooldown = pause = Overtaken()
    emulator.fail("models", Fault.status(429, retry_after=1))
    with pytest.raises(RateLimitError):
        models(keyed, Patient(clock))
    pause.looks = 0
    call = Patient(clock)
    call.begin_poll()
    assert next(keyed.opening(models_request(keyed.urls), call, AT_ONCE)) is Pause.BLOCKS
    assert (call.slept, pause.looks) == ([], 2)


@pytest.mark.parametrize(
    ("policy", "total"), [(RetryPolicy(max_wait=29), None), (AT_ONCE, 30)], ids=["max_wait", "total"]
)
def test_a_pause_that_does_not_fit_is_told_at_once(
    emulator: Emulator, keyed: ApiSession, policy: RetryPolicy, total: Optional[float]
) -> None:
    """Nothing is sent meanwhile."""
    clock = Clock()
    emulator.fail("models", Fault.status(429, retry_after=30))
    with pytest.raises(RateLimitError):
        models(keyed, Patient(clock))
    call = Patient(clock, total)
    call.begin()
    with pytest.raises(RateLimitError) as caught:
        models(keyed, call, policy)
    assert caught.value.retry_after == 30.0
    assert call.slept == []
    assert stages(emulator) == ["models"]


def test_a_429_that_does_not_say_how_long_pauses_as_the_policy_has_it(emulator: Emulator, keyed: ApiSession) -> None:
    """The pause is the policy's first wait, for all calls."""
    clock = Clock()
    emulator.fail("models", Fault.status(429))
    with pytest.raises(RateLimitError):
        models(keyed, Patient(clock), RetryPolicy(attempts=1, base=0.75))
    call = Patient(clock)
    models(keyed, call, AT_ONCE)
    assert call.slept == [0.75]


def test_a_used_up_quota_pauses_nothing(emulator: Emulator, keyed: ApiSession) -> None:
    """Waiting would not help, and other models may not count."""
    emulator.fail("models", Fault.status(402, retry_after=30))
    with pytest.raises(QuotaExceededError):
        models(keyed, policy=AT_ONCE)
    models(keyed)


def test_what_the_server_says_is_told_without_the_token(emulator: Emulator, keyed: ApiSession) -> None:
    """An echo of it is masked."""
    emulator.fail("models", Fault.status(500, message=f"the token {emulator.api_key} is odd"))
    with pytest.raises(ServerError, match=r"the token \*\*\* is odd"):
        models(keyed)


def test_a_refusal_that_says_more_than_is_read_is_told(emulator: Emulator, keyed: ApiSession) -> None:
    """An error's body never hides its status."""
    emulator.fail("models", Fault.status(500, body="x" * 100_000))
    with pytest.raises(ServerError):
        models(keyed)


def test_limits_are_those_of_the_transport(emulator: Emulator, urls: Urls) -> None:
    """A reply that is larger is not read to its end."""
    transport = Transport(limits=Limits(reply=10))
    access = ApiSession(urls, transport, StaticToken(GivenToken(Secret(emulator.api_key))))
    assert access.limits.reply == 10
    with pytest.raises(ResponseTooLargeError):
        models(access)
    access.close()


def test_closing_drops_the_idle_connections(emulator: Emulator, keyed: ApiSession) -> None:
    """It can be used again afterwards."""
    models(keyed)
    models(keyed)
    assert emulator.connections == 1
    keyed.close()
    assert emulator.wait_until(lambda: emulator.open_connections == 0)
    models(keyed)
    assert emulator.connections == 2


def test_a_copy_works_and_has_no_pause(emulator: Emulator, keyed: ApiSession) -> None:
    """What one process was told by its clock means nothing in another."""
    emulator.fail("models", Fault.status(429, retry_after=1000))
    with pytest.raises(RateLimitError):
        models(keyed)
    copied = pickle.loads(pickle.dumps(keyed))
    models(copied)
    copied.close()
