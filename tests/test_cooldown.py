"""What holds the calls of an account back after a refusal: on a clock that nobody waits for, and against servers."""

import contextlib
import itertools
import pickle
import re
import threading
import weakref
from typing import Any, Callable, Dict, List, Optional

import pytest
from support import Peer, Server, Worker, collect_garbage, stages

from copilot_sync import Client, GithubCopilot, RetryPolicy, batch
from copilot_sync.auth.tokens import GivenToken, StaticToken
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidRequestError,
    NetworkError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamClosedError,
)
from copilot_sync.pacing import cooldown as module
from copilot_sync.pacing.account_limiter import AccountLimiter
from copilot_sync.pacing.account_state import RateRules
from copilot_sync.pacing.cooldown import Cooldown, cooldown_of
from copilot_sync.pacing.shared_state import MemoryStore
from copilot_sync.secret import Secret
from copilot_sync.settings import Timeout, Urls
from copilot_sync.transport import fork
from copilot_sync.transport.call import CallContext

PATIENT = RetryPolicy(max_wait=1e6)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Patient(CallContext):
    """A call whose sleeps only move the clock."""

    def __init__(self, clock: Clock, total: Optional[float] = None) -> None:
        super().__init__(Timeout(total=total), clock=clock)
        self.slept: List[float] = []
        self._hands = clock
        self.begin()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._hands.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def call(clock: Clock) -> Patient:
    return Patient(clock)


def refusal(retry_after: Optional[float] = None, stage: str = "message") -> RateLimitError:
    return RateLimitError("slow down", status=429, stage=stage, retry_after=retry_after)


def starts_of(
    cooldown: Cooldown, call: Patient, seconds: float, failing: Optional[Callable[[], CopilotError]] = None
) -> List[float]:
    """When requests start that somebody makes in a loop, from now on for so many seconds."""
    began = call.clock()
    starts: List[float] = []
    while True:
        cooldown.wait(PATIENT, call, "message")
        if call.clock() - began > seconds or len(starts) > 1000:
            return starts
        starts.append(call.clock() - began)
        if failing is not None:
            cooldown.failed(failing(), PATIENT, call)


@pytest.mark.parametrize("again", [False, True], ids=["then all is well", "again and again"])
@pytest.mark.parametrize("told", [None, 0.0, 0.001, 0.5])
@pytest.mark.parametrize(
    "policy", [None, RetryPolicy(base=0.0, cap=0.0), RetryPolicy()], ids=["none", "hasty", "usual"]
)
def test_once_refused_few_requests_start(
    call: Patient, policy: Optional[RetryPolicy], told: Optional[float], again: bool
) -> None:
    """Four in the next second and thirty in the next minute, whatever the service calls a wait."""
    cooldown = Cooldown()
    cooldown.failed(refusal(told), policy, call)
    starts = starts_of(cooldown, call, 60.0, (lambda: refusal(told)) if again else None)
    assert len([start for start in starts if start <= 1.0]) <= 4
    assert 20 <= len(starts) <= 30
    assert min(later - sooner for sooner, later in zip(starts, starts[1:])) >= 0.29


def test_in_any_minute_of_refusals_few_requests_start(call: Patient) -> None:
    """Not in the first one alone."""
    cooldown = Cooldown()
    cooldown.failed(refusal(0.0), None, call)
    starts = starts_of(cooldown, call, 600.0, lambda: refusal(0.0))
    assert max(len([each for each in starts if start <= each < start + 60]) for start in starts) <= 30
    assert max(len([each for each in starts if start <= each < start + 1]) for start in starts) <= 4
    assert len(starts) > 200


def test_a_minute_without_a_refusal_ends_it(call: Patient, clock: Clock) -> None:
    """From then on, a call looks at a flag and goes on."""
    cooldown = Cooldown()
    cooldown.failed(refusal(5.0), PATIENT, call)
    assert cooldown.active
    clock.now += 65.0
    cooldown.wait(PATIENT, call, "message")
    assert not cooldown.active
    assert call.slept == []


def test_starts_are_left_to_chance(clock: Clock) -> None:
    """Processes that were refused in the same instant do not go on in step."""
    seen = set()
    for _ in range(3):
        cooldown, call = Cooldown(), Patient(Clock())
        cooldown.failed(refusal(), None, call)
        seen.add(tuple(starts_of(cooldown, call, 5.0)))
    assert len(seen) == 3


def test_a_pause_holds_calls_back_until_it_is_over(call: Patient, clock: Clock) -> None:
    """As long as the service said, counted from when it said so; of two, the later end counts."""
    cooldown = Cooldown()
    cooldown.failed(refusal(10.0), PATIENT, call)
    clock.now += 4
    cooldown.failed(refusal(2.0), PATIENT, call)
    cooldown.wait(PATIENT, call, "threads")
    assert call.slept == [6.0]


def test_the_log_says_what_is_waited_for(clock: Clock, call: Patient, caplog: pytest.LogCaptureFixture) -> None:
    """A turn is none of the service's refusals, and is not called one."""
    caplog.set_level("INFO", module.logger.name)
    cooldown = Cooldown()
    cooldown.failed(refusal(10), PATIENT, call)
    for _ in range(2):
        cooldown.wait(PATIENT, call, "message")
    assert caplog.messages[0] == "message: waiting 10.00 s for the end of a pause"
    assert [re.sub(r"[\d.]+", "…", words) for words in caplog.messages[1:]] == ["message: waiting … s for its turn"]
    with pytest.raises(RateLimitError, match="requests take turns: the next one is sent in 1 s"):
        cooldown.wait(None, Patient(clock, 0.1), "message")


def test_a_pause_lasts_an_hour_at_most(call: Patient, clock: Clock) -> None:
    """A service that asks for years may have meant something else; after an hour it is asked again."""
    cooldown = Cooldown()
    cooldown.failed(refusal(99999999.0), PATIENT, call)
    with pytest.raises(RateLimitError, match="another 1 h 0 min"):
        cooldown.wait(RetryPolicy(), call, "message")
    clock.now += 3600
    cooldown.wait(RetryPolicy(), call, "message")
    assert call.slept == []


@pytest.mark.parametrize(
    ("policy", "slept"),
    [
        pytest.param(RetryPolicy(base=2.5), 2.5, id="the policy's first wait"),
        pytest.param(RetryPolicy(base=5, cap=1.5), 1.5, id="its longest wait"),
        pytest.param(RetryPolicy(base=2.5, max_wait=0), 2.5, id="though nothing is waited for the service"),
        pytest.param(None, 0.3, id="no policy"),
    ],
)
def test_a_pause_of_unknown_length_is_what_the_policy_would_wait(
    call: Patient, policy: Optional[RetryPolicy], slept: float
) -> None:
    """And never nothing."""
    cooldown = Cooldown()
    cooldown.failed(refusal(), policy, call)
    cooldown.wait(policy, call, "message")
    assert call.slept == [pytest.approx(slept)]


@pytest.mark.parametrize(
    ("policy", "total"),
    [
        (None, None),
        (RetryPolicy(wait_for_limits=False), None),
        (RetryPolicy(max_wait=9.9), None),
        (RetryPolicy(), 10.0),
    ],
    ids=["no retries", "limits are not waited for", "too long for the policy", "too long for the call"],
)
def test_a_pause_that_does_not_fit_raises_at_once(
    clock: Clock, policy: Optional[RetryPolicy], total: Optional[float]
) -> None:
    """With what is left of it, and without a request that would make it worse."""
    cooldown, call = Cooldown(), Patient(clock, total)
    cooldown.failed(refusal(10.0), PATIENT, call)
    with pytest.raises(RateLimitError, match=r"for another 10 s \[stage threads\]") as caught:
        cooldown.wait(policy, call, "threads")
    assert (caught.value.retry_after, caught.value.status) == (10.0, None)
    assert call.slept == []


def test_a_search_for_a_message_waits_whatever_the_policy(call: Patient) -> None:
    """It may not be given up half-way: the message may be in its conversation."""
    cooldown = Cooldown()
    cooldown.failed(refusal(10.0), PATIENT, call)
    cooldown.wait(RetryPolicy(wait_for_limits=False), call, "messages")
    assert sum(call.slept) == pytest.approx(10.0)


def test_many_who_wait_do_not_wait_for_ever(clock: Clock) -> None:
    """Whoever does not get a turn within what the policy allows is told, without having asked."""
    cooldown = Cooldown()
    cooldown.failed(refusal(), None, Patient(clock))

    class Unlucky(Patient):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            cooldown.wait(PATIENT, Patient(clock), "message")  # somebody else is always first

    call = Unlucky(clock)
    with pytest.raises(RateLimitError):
        cooldown.wait(RetryPolicy(max_wait=20.0), call, "message")
    assert 15 < sum(call.slept) <= 20


@pytest.mark.parametrize(
    "failure",
    [
        ServerError("", status=500, stage="message"),
        ServerError("", status=503, stage="message"),
        NetworkError("", stage="message", may_have_been_sent=False),
        NetworkError("", stage="message"),
        RequestTimeoutError("", phase="connect", stage="message"),
    ],
    ids=repr,
)
def test_a_stage_that_keeps_failing_is_asked_rarely(call: Patient, failure: CopilotError) -> None:
    """Eight failures in a row are free; other stages are left alone, but for conversations without use."""
    cooldown = Cooldown()
    for _ in range(7):
        cooldown.failed(failure, None, call)
    cooldown.wait(None, call, "message")
    assert call.slept == []
    cooldown.failed(failure, None, call)
    cooldown.wait(None, call, "models")
    assert call.slept == []
    starts = starts_of(cooldown, call, 60.0, lambda: failure)
    assert 20 <= len(starts) <= 30
    other = Patient(Clock())
    other._hands.now = call.clock()
    cooldown.wait(None, other, "thread")
    assert len(other.slept) == 1


def test_one_success_ends_an_outage(call: Patient) -> None:
    """What fails now and then is not held back."""
    cooldown = Cooldown()
    for _ in range(9):
        cooldown.failed(ServerError("", status=502, stage="message"), None, call)
    cooldown.succeeded("thread")
    assert cooldown._outages_of("message")
    cooldown.succeeded("message")
    for _ in range(3):
        cooldown.wait(None, call, "message")
    assert call.slept == []
    assert not cooldown.active


def test_an_outage_that_does_not_fit_is_told_as_one(clock: Clock) -> None:
    """It is no limit of the account."""
    cooldown, call = Cooldown(), Patient(clock, 0.2)
    for _ in range(8):
        cooldown.failed(ServerError("", status=500, stage="message"), None, call)
    with pytest.raises(ServerError, match=r"failed again and again, and is asked again in 1 s") as caught:
        cooldown.wait(PATIENT, call, "message")
    assert (caught.value.status, caught.value.not_processed) == (None, False)


@pytest.mark.parametrize(
    "failure",
    [
        InvalidRequestError("", status=400, stage="message"),
        StreamClosedError("", stage="message"),
        RateLimitError("our own word", retry_after=5.0, stage="message"),
        QuotaExceededError("our own word", stage="message"),
        ServerError("our own word", retry_after=5.0, stage="message"),
        NetworkError("the proxy's word", status=407, may_have_been_sent=False, stage="message"),
        RequestTimeoutError("the caller's limit", phase="total", stage="message"),
        RateLimitError("of nowhere", status=429),
    ],
    ids=repr,
)
def test_what_is_no_refusal_holds_nobody_back(call: Patient, failure: CopilotError) -> None:
    """Mistakes, stops, and what was said here."""
    cooldown = Cooldown()
    for _ in range(9):
        cooldown.failed(failure, PATIENT, call)
    assert not cooldown.active


@pytest.mark.parametrize(
    "failure",
    [
        RateLimitError("", status=403, stage="token"),
        RateLimitError("", status=429, stage="models"),
        ServerError("", status=503, retry_after=0.0, not_processed=True, stage="thread"),
        QuotaExceededError("", status=402, stage="message"),
    ],
    ids=repr,
)
def test_a_refusal_of_any_kind_and_stage_holds_all_back(call: Patient, failure: CopilotError) -> None:
    """The account is one."""
    cooldown = Cooldown()
    cooldown.failed(failure, None, call)
    for stage in ("message", "token", "threads"):
        cooldown.wait(RetryPolicy(), call, stage)
    assert len(call.slept) == 3


def quota(status: int, retry_after: Optional[float] = None, stage: str = "message") -> QuotaExceededError:
    return QuotaExceededError("used up", status=status, stage=stage, retry_after=retry_after)


@pytest.mark.parametrize(
    ("failure", "seconds", "told"),
    [(quota(429, 465000.0), 3600, 465000.0), (quota(402, 90.0), 90, 90.0), (quota(429), 60, 60.0)],
    ids=["long", "402", "not told"],
)
def test_a_quota_that_is_used_up_is_told_to_everybody(
    call: Patient, clock: Clock, failure: QuotaExceededError, seconds: float, told: float
) -> None:
    """Without asking, for as long as the service said; after an hour one asks again."""
    cooldown = Cooldown()
    cooldown.failed(failure, PATIENT, call)
    clock.now += 10
    for stage in ("token", "thread", "message"):
        with pytest.raises(QuotaExceededError, match="used up") as caught:
            cooldown.wait(PATIENT, call, stage)
        assert caught.value.retry_after == told - 10
    cooldown.wait(PATIENT, call, "threads")
    clock.now += seconds - 10
    cooldown.wait(PATIENT, call, "message")


@pytest.mark.parametrize("failure", [quota(402), quota(429, 90.0, "models")], ids=["bare 402", "of a list"])
def test_a_quota_that_may_not_be_everybodys_only_slows_down(call: Patient, failure: QuotaExceededError) -> None:
    """Other models may cost nothing."""
    cooldown = Cooldown()
    cooldown.failed(failure, PATIENT, call)
    cooldown.wait(PATIENT, call, "message")
    assert len(call.slept) == 1


def test_all_who_use_one_account_share_one() -> None:
    """Also one after the other; but not all accounts that there ever were are remembered."""
    one = cooldown_of("an account")
    assert cooldown_of("an account") is one
    assert cooldown_of("another") is not one
    reference = weakref.ref(one)
    del one
    collect_garbage()
    assert cooldown_of("an account") is reference()
    for number in range(300):
        cooldown_of(f"account {number}")
    collect_garbage()
    assert reference() is None


def test_a_client_for_each_call_remembers_what_the_last_one_was_told(emulator: Emulator) -> None:
    """Some programs make one each time."""
    emulator.fail("models", Fault.status(429, retry_after=1000))
    options: Dict[str, Any] = {"github_url": emulator.github_url, "api_url": emulator.api_url, "retry": None}
    for _ in range(3):
        with Client(cookies=emulator.cookies, **options) as client, pytest.raises(RateLimitError):
            client.models()
        del client
        collect_garbage()
    assert stages(emulator).count("models") == 1


def test_a_token_that_travels_shares_the_cooldown_of_its_new_process() -> None:
    """What one process was told by its clock means nothing in another; in the same one it is the same account."""
    token = StaticToken(GivenToken(Secret("key")), Urls("https://github.com", "https://api.example"))
    copied = pickle.loads(pickle.dumps(token))
    assert copied.cooldown is token.cooldown
    alone = pickle.loads(pickle.dumps(StaticToken(GivenToken(Secret("key")))))
    assert alone.cooldown is not token.cooldown


def test_a_child_does_not_wait_for_its_parents_locks(call: Patient) -> None:
    """The pause holds for it as well."""
    cooldown = cooldown_of("forked")
    cooldown.failed(refusal(10.0), PATIENT, call)
    with module._shared._lock, cooldown._lock:
        fork._reset_all()
        assert cooldown_of("forked") is cooldown
        cooldown.wait(PATIENT, call, "message")
    assert call.slept == [10.0]


def storm(*ways: Callable[[], Any], clients: List[Client]) -> None:
    """Call in a loop from eight threads for a while, whatever comes of it."""
    over = threading.Event()
    turn = itertools.count()

    def loop() -> None:
        while not over.is_set():
            with contextlib.suppress(CopilotError):
                ways[next(turn) % len(ways)]()

    workers = [Worker(loop) for _ in range(8)]
    over.wait(1.25)
    over.set()
    for client in clients:
        client.close()
    for worker in workers:
        worker.result()


def in_the_next_second(emulator: Emulator, before: int) -> int:
    """How many requests came in the second after the last of so many, which was refused before the storm began."""
    times = [request.time for request in emulator.requests[before - 1 :]]
    return len([each for each in times[1:] if each - times[0] <= 1.0])


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        ("token", Fault.status(503, retry_after=0)),
        ("token", Fault.status(403, message="You have exceeded a secondary rate limit")),
        ("thread", Fault.status(429)),
        ("message", Fault.status(429, retry_after=0)),
        ("message", Fault.status(503, retry_after=0)),
        ("message", Fault.status(402)),
        ("token", Fault.status(401)),
        ("thread", Fault.status(403)),
        ("message", Fault.status(401)),
    ],
    ids=lambda value: value if isinstance(value, str) else str(getattr(value.reply, "status", "")),
)
def test_nobody_hammers_a_service_that_refuses(emulator: Emulator, stage: str, fault: Fault) -> None:
    """Eight threads in a loop, that catch each error and call again at once: four requests in the second after it."""
    emulator.choose_fault = lambda asked, request: fault if asked == stage else None
    policy = RetryPolicy(base=0.0, cap=0.0, max_wait=0.5)
    clients = [
        Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=policy)
        for _ in range(4)
    ]
    with pytest.raises(CopilotError):
        clients[0].ask("Hello", retry=None)
    before = len(emulator.requests)
    storm(*(lambda client=client: client.ask("Hello") for client in clients), clients=clients)
    assert 1 <= in_the_next_second(emulator, before) <= 4


def test_who_meets_refused_credentials_is_told_so(emulator: Emulator) -> None:
    """Those who may not ask yet as well; when the credentials are good again, nobody hears of it any more."""
    emulator.choose_fault = lambda stage, request: Fault.status(403, message="no seat") if stage == "thread" else None
    with Client(
        cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=None
    ) as client:
        client.models()  # a token and connections take their time on a busy machine
        total = Timeout(total=0.2)
        for _ in range(2):
            with pytest.raises(AuthenticationError, match="no seat"):
                client.ask("Hello", timeout=total)
        assert stages(emulator).count("thread") == 1
        emulator.choose_fault = None
        for _ in range(10):  # the first of them has to wait for a moment
            assert client.ask("Hello", timeout=5).text == "Hello"


def test_a_limit_counts_for_more_than_refused_credentials(emulator: Emulator) -> None:
    """Whichever comes first, and though the credentials turn out to be good."""
    limit, denied = Fault.status(429), Fault.status(403)
    for number, faults in enumerate([(limit, denied), (denied, limit)]):
        key = f"key-{number}"
        emulator.options.accept_api_keys = (key,)
        with Client(key, api_url=emulator.api_url, retry=None) as client:
            for fault in faults:
                emulator.fail("models", fault)
                with pytest.raises(CopilotError):
                    client.models()
            client.models()
            cooldown = client._session._tokens.cooldown
            assert (cooldown._turns is None, cooldown._denied) == (False, None)


def test_the_documented_generators_share_the_limit(emulator: Emulator) -> None:
    """With clients of their own; cookies are the same in whichever form they come."""
    emulator.choose_fault = lambda stage, request: Fault.status(429) if stage == "thread" else None
    options: Dict[str, Any] = {"github_url": emulator.github_url, "api_url": emulator.api_url, "retry": None}
    messages = [{"role": "user", "content": "Hello"}]
    header = "; ".join(f"{name}={value}" for name, value in emulator.cookies.items())
    client = Client(cookies=header, **options)
    with pytest.raises(RateLimitError):
        client.ask("Hello")
    before = len(emulator.requests)
    storm(
        lambda: list(GithubCopilot.create_generator("", messages, cookies=dict(emulator.cookies), **options)),
        lambda: client.ask("Hello"),
        client.create_thread,
        client.threads,
        clients=[client],
    )
    assert 1 <= in_the_next_second(emulator, before) <= 4


def test_normal_traffic_is_not_slowed(emulator: Emulator) -> None:
    """A call looks at a flag, and takes no lock."""
    with Client(emulator.api_key, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        cooldown = client._session._tokens.cooldown
        with cooldown._lock:
            assert client.ask("Hello").text == "Hello"
        assert not cooldown.active


def test_credentials_are_proven_by_another_call(emulator: Emulator) -> None:
    """What one call has come to says nothing about its own message; what others have come to does."""
    with Client(emulator.api_key, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        emulator.choose_fault = lambda stage, request: Fault.status(403) if stage == "message" else None
        for kind in (AuthenticationError, PermissionDeniedError, PermissionDeniedError):
            with pytest.raises(AuthenticationError) as caught:
                client.ask("Hello")
            assert type(caught.value) is kind
        emulator.choose_fault = lambda stage, request: Fault.status(403)
        with pytest.raises(AuthenticationError) as caught:
            client.models()
        assert type(caught.value) is AuthenticationError


def test_an_answer_that_is_found_is_a_success(emulator: Emulator) -> None:
    """A service that takes messages and loses replies is there."""
    emulator.choose_fault = lambda stage, request: Fault.drop() if stage == "message" else None
    policy = RetryPolicy(base=0.0)
    options: Dict[str, Any] = {"github_url": emulator.github_url, "api_url": emulator.api_url, "retry": policy}
    with Client(emulator.api_key, **options) as client:
        for number in range(20):
            assert client.ask(f"{number}").text == f"{number}"
        assert client._session._tokens.cooldown._failing == {}


def test_a_batch_and_a_client_wait_together(emulator: Emulator) -> None:
    """A refusal of one is known to the other."""
    emulator.fail("models", Fault.status(429, retry_after=0.7))
    options: Dict[str, Any] = {
        "cookies": emulator.cookies,
        "github_url": emulator.github_url,
        "api_url": emulator.api_url,
    }
    with Client(**options, retry=None) as client, Client(**options) as other:
        with pytest.raises(RateLimitError):
            client.models()
        (result,) = batch.run(["one"], client=other)
        assert result.text == "one"
    refused, *rest = [request.time for request in emulator.requests if request.stage != "token"]
    assert rest[0] - refused >= 0.69


def test_a_host_that_is_not_there_is_not_called_again_and_again() -> None:
    """Connections that are refused cost others as well."""
    gone = threading.Event()

    def script(peer: Peer) -> None:
        gone.set()
        peer.reset()

    with Server(script) as server:
        client = Client("key", github_url=server.url, api_url=server.url, retry=None)
        storm(client.create_thread, clients=[client])
        assert gone.is_set()
        # Eight and what was on its way with them; then as after a refusal, for the seconds that calls wait for a turn.
        assert server.connections <= 8 + 7 + 10


def test_a_refusal_of_one_account_is_not_anothers(emulator: Emulator) -> None:
    """Keys, cookies and hosts tell them apart."""
    emulator.options.accept_api_keys = ("one", "two")
    options: Dict[str, Any] = {"github_url": emulator.github_url, "api_url": emulator.api_url, "retry": None}
    emulator.fail("models", Fault.status(429, retry_after=1000))
    with Client("one", **options) as one, Client("two", **options) as two, Client("one", **options) as same:
        with pytest.raises(RateLimitError):
            one.models()
        assert two.models()
        with pytest.raises(RateLimitError, match="another"):
            same.models()
    assert stages(emulator) == ["models", "models"]


def two_processes(clock: Clock) -> List[Cooldown]:
    """The cool-downs of one account in two processes, as far as they know of each other."""
    store = MemoryStore(clock=clock)
    sharing = [Cooldown("x"), Cooldown("x")]
    for cooldown in sharing:
        cooldown.board = AccountLimiter("x", store, RateRules(), clock=clock)
    return sharing


def test_a_refusal_holds_for_other_processes(clock: Clock, call: Patient) -> None:
    """Each looks before a request, if nobody has a moment ago."""
    one, other = two_processes(clock)
    one.failed(refusal(30), PATIENT, call)
    assert (other.active, other.is_open) == (False, False)
    other.wait(PATIENT, call, "message")
    assert clock.now == pytest.approx(1030.3, abs=0.4)
    assert other.active


def test_what_was_seen_a_moment_ago_is_not_looked_at_again(clock: Clock, call: Patient) -> None:
    """There was no pause."""
    one, other = two_processes(clock)
    other.wait(PATIENT, call, "message")
    assert other.is_open
    one.failed(refusal(30), PATIENT, call)
    other.wait(PATIENT, call, "message")
    assert call.slept == []
    clock.now += 0.1
    other.wait(PATIENT, call, "message")
    assert clock.now >= 1030


def test_soon_after_a_pause_processes_take_turns(clock: Clock, call: Patient) -> None:
    """Also one that has heard of the pause only now. A request of the other one has just begun."""
    one, other = two_processes(clock)
    assert one.board is not None
    one.board.pause(5)
    clock.now += 20
    other.wait(PATIENT, call, "message")
    begun = clock.now
    one.wait(PATIENT, call, "message")
    assert clock.now - begun > 0.29
    assert other.active and one.active
    clock.now += 10  # their own turns have come
    begun = clock.now
    other.wait(PATIENT, call, "message")
    one.wait(PATIENT, call, "message")
    assert clock.now - begun == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("policy", "slept"),
    [(RetryPolicy(wait_for_limits=False), 0), (None, 0), (RetryPolicy(max_wait=2.9), 0), (PATIENT, 3)],
    ids=["limits are not waited for", "no retries", "too long for the policy", "patient"],
)
def test_a_pause_that_was_told_since_the_last_look_is_one(
    policy: Optional[RetryPolicy], slept: float, clock: Clock, call: Patient
) -> None:
    """A request that takes turns hears of it, however short the time was, and its policy says whether it waits."""
    one, other = two_processes(clock)
    one.failed(refusal(1), PATIENT, call)
    clock.now += 20
    other.wait(PATIENT, call, "message")  # it has looked now
    call.slept.clear()
    clock.now += 10  # its turn has come
    assert isinstance(other.board, AccountLimiter)
    other.board._seen_at = clock.now  # as a call of another thread leaves it
    one.failed(refusal(3), PATIENT, call)
    if slept:
        other.wait(policy, call, "message")
    else:
        with pytest.raises(RateLimitError, match="slow down for another 3 s"):
            other.wait(policy, call, "message")
    assert sum(call.slept) == pytest.approx(slept, abs=0.7)


def test_a_quota_of_another_process_is_used_up_here_too(clock: Clock, call: Patient) -> None:
    """For an hour at most, as in the process that was told; what uses nothing up goes on, at a distance."""
    one, other = two_processes(clock)
    one.failed(QuotaExceededError("used up", stage="message", status=402, retry_after=4000), PATIENT, call)
    with pytest.raises(QuotaExceededError, match="another process") as caught:
        other.wait(PATIENT, call, "message")
    assert caught.value.retry_after == 3600
    other.wait(PATIENT, call, "models")
    assert other.active
    clock.now += 3601
    other.wait(PATIENT, call, "message")
    assert not other.active


@pytest.mark.parametrize("has_looked", [False, True], ids=["a new process", "an old one"])
def test_a_process_that_begins_later_is_told_of_a_quota(has_looked: bool, clock: Clock, call: Patient) -> None:
    """Its first look asks for it; later ones only soon after a refusal, because they would cost a second question."""
    one, other = two_processes(clock)
    if has_looked:
        other.wait(PATIENT, call, "message")
    one.failed(QuotaExceededError("used up", stage="message", status=429, retry_after=600), PATIENT, call)
    clock.now += 100
    if has_looked:
        other.wait(PATIENT, call, "message")
        assert not other.active
    else:
        with pytest.raises(QuotaExceededError) as caught:
            other.wait(PATIENT, call, "message")
        assert caught.value.retry_after == 500


def test_a_process_that_has_begun_a_call_is_told_of_a_quota(clock: Clock, call: Patient) -> None:
    """To begin one it saw that there is no pause, a moment ago, but not that there is no quota."""
    one, other = two_processes(clock)
    one.failed(QuotaExceededError("used up", stage="message", status=429, retry_after=600), PATIENT, call)
    clock.now += 100
    assert isinstance(other.board, AccountLimiter)
    assert other.board.try_admit()
    assert other.board.is_fresh and not other.is_open
    with pytest.raises(QuotaExceededError):
        other.wait(PATIENT, call, "message")


def test_a_bare_402_is_told_to_nobody_as_a_quota(clock: Clock, call: Patient) -> None:
    """Other models may cost nothing."""
    one, other = two_processes(clock)
    one.failed(QuotaExceededError("used up", stage="message", status=402), PATIENT, call)
    other.wait(PATIENT, call, "message")
    assert other.active


class Busy:
    """A board on which the turn of this process never comes."""

    is_fresh = False

    def pause(self, seconds: float, part: str = "") -> None: ...

    def look(self, part: str = "") -> float:
        return 0.0

    def take_turn(self) -> float:
        return 2.0


@pytest.mark.parametrize("policy", [PATIENT, RetryPolicy(max_wait=4), None], ids=["patient", "less patient", "none"])
def test_a_turn_among_all_processes_is_waited_for_as_long_as_any(policy: Optional[RetryPolicy]) -> None:
    """A pause that another process was told of may have begun since it was looked for, and last for an hour."""
    clock = Clock()
    call = Patient(clock, total=None if policy is not PATIENT else 9)
    cooldown = Cooldown()
    cooldown.board = Busy()
    cooldown.failed(refusal(), policy, call)
    with pytest.raises(RateLimitError):
        cooldown.wait(policy, call, "message")
    assert sum(call.slept) < 10
