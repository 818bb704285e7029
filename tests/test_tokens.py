"""Tokens: one fetch for all threads, renewed ahead of their end, cached, and sent to their host alone."""

import contextlib
import copy
import json
import os
import pickle
import threading
from typing import Any, Callable, ContextManager, Dict, List, Optional

import pytest
import requests
from support import fork

from copilot_sync.auth.headers import cookie_header, mask_of, send_cookies, send_token
from copilot_sync.auth.single_flight import SingleFlight, WaitingTurn
from copilot_sync.auth.tokens import ExchangedTokens, GivenToken, StaticToken, bare, fingerprint
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    MissingCredentialsError,
    ProtocolError,
    RequestTimeoutError,
    ServerError,
    StreamClosedError,
)
from copilot_sync.secret import Secret
from copilot_sync.settings import RetryPolicy, Timeout, Urls
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Transport

THREADS = 8


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Memory:
    """A cache that keeps everything, and how long it was asked to."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.keys: List[str] = []
        self.timeouts: List[int] = []

    def get(self, key: str) -> Any:
        self.keys.append(key)
        return self.value if key == self.keys[0] else None

    def set(self, key: str, value: str, timeout: int) -> None:
        self.keys.append(key)
        self.timeouts.append(timeout)
        self.value = value


class RateLimiter(CallContext):
    """A call that tells when it waits for another one's token."""

    def __init__(self, waits: Callable[["RateLimiter"], None]) -> None:
        super().__init__(Timeout())
        self._waits = waits

    def check(self, stage: Optional[str] = None) -> None:
        self._waits(self)
        super().check(stage)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(emulator: Emulator, transport: Transport) -> ExchangedTokens:
    return ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, None)


def urls_of(emulator: Emulator) -> Urls:
    return Urls(emulator.github_url, emulator.api_url)


def call(clock: Optional[Clock] = None) -> CallContext:
    return CallContext(Timeout(), clock=clock) if clock else CallContext(Timeout())


def together(work: Callable[[], Any]) -> List[Any]:
    """What comes of the same work in several threads: results and errors."""
    results: List[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except CopilotError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return results


def test_a_given_token_is_used_as_it_is() -> None:
    """There is no other one to come up with."""
    token = StaticToken(GivenToken(Secret("key")))
    assert token.get(call(), None).reveal() == "key"
    token.accepted(Secret("key"))
    assert token.refused(Secret("key"), renewed=False) is False


def test_a_given_token_runs_out(clock: Clock) -> None:
    """From the moment on that was told, by the wall clock; in a copy as well."""
    token = StaticToken(GivenToken(Secret("key"), expires=1500.0), now=clock)
    clock.now = 1499.9
    assert token.get(call(), None).reveal() == "key"
    clock.now = 1500.0
    for each in (token, copy.deepcopy(token)):
        with pytest.raises(AuthenticationError, match="expired on 1970-01-01 00:25 UTC") as caught:
            each.get(call(), None)
        assert (caught.value.stage, caught.value.status) == ("credentials", None)


def test_cookies_are_exchanged_as_the_web_client_does(emulator: Emulator, tokens: ExchangedTokens) -> None:
    """One POST to github_url with the cookies, and the token of its reply."""
    token = tokens.get(call(), None)
    [request] = emulator.requests
    assert (request.host, request.method, request.path) == ("github", "POST", "/github-copilot/chat/token")
    assert request.cookies == emulator.cookies
    assert request.body == b""
    assert token.reveal().startswith("emulated-")


def test_many_threads_that_need_a_token_fetch_one(emulator: Emulator, tokens: ExchangedTokens) -> None:
    """One asks, and the others wait for what comes of it."""
    emulator.fail("token", Fault.stall())

    def release() -> None:
        assert emulator.wait_until(lambda: emulator.stalled)
        emulator.release()

    helper = threading.Thread(target=release)
    helper.start()
    found = together(lambda: tokens.get(call(), None))
    helper.join()
    assert len(found) == THREADS
    assert len(set(found)) == 1
    assert emulator.tokens_issued == 1


@pytest.mark.parametrize("kind", [MissingCredentialsError, AuthenticationError])
def test_a_failed_fetch_is_shared_by_those_who_waited(emulator: Emulator, transport: Transport, kind: type) -> None:
    """Each gets an error object of its own; who comes later asks anew."""
    waiting = set()
    all_wait = threading.Event()
    asked: List[int] = []

    def note(gate: RateLimiter) -> None:
        waiting.add(gate)
        if len(waiting) >= THREADS - 1:
            all_wait.set()

    def find() -> Dict[str, str]:
        asked.append(1)
        assert all_wait.wait(10)
        if kind is MissingCredentialsError:
            raise MissingCredentialsError("there are none", stage="credentials")
        return {"user_session": "stale-cookie"}

    tokens = ExchangedTokens(find, urls_of(emulator), transport, None)
    errors = together(lambda: tokens.get(RateLimiter(note), None))
    assert [type(error) for error in errors] == [kind] * THREADS
    assert len({id(error) for error in errors}) == THREADS
    assert len(asked) == 1
    with pytest.raises(kind):
        tokens.get(call(), None)
    assert len(asked) == 2
    assert len(emulator.requests) == (0 if kind is MissingCredentialsError else 2)


def test_a_kept_failure_keeps_no_frames(emulator: Emulator, transport: Transport) -> None:
    """Its copies don't hold the call that failed alive, nor what its variables hold."""
    tokens = ExchangedTokens(lambda: {"user_session": "stale"}, urls_of(emulator), transport, None)
    with pytest.raises(AuthenticationError):
        tokens.get(call(), None)
    failure = tokens._flight._failure
    assert failure is not None
    assert failure.__traceback__ is None


@pytest.mark.parametrize(
    ("lifetime", "expiration", "age", "fetches"),
    [
        (1800.0, "milliseconds", 1735, 1),
        (1800.0, "milliseconds", 1745, 2),
        (1800.0, "nanoseconds", 1745, 2),
        (100.0, "milliseconds", 85, 1),
        (100.0, "milliseconds", 95, 2),
        (1800.0, "missing", 535, 1),
        (1800.0, "missing", 545, 2),
    ],
)
def test_a_token_is_renewed_ahead_of_its_end(
    emulator: Emulator,
    tokens: ExchangedTokens,
    clock: Clock,
    lifetime: float,
    expiration: Any,
    age: float,
    fetches: int,
) -> None:
    """By a minute, or by a tenth of its life where that is shorter; ten minutes are taken where no end is told."""
    emulator.options.token_lifetime = lifetime
    emulator.options.expiration = expiration
    tokens.get(call(clock), None)
    clock.now += age
    tokens.get(call(clock), None)
    assert emulator.tokens_issued == fetches


@pytest.mark.parametrize("jump", [-1e8, 1e8], ids=["back", "ahead"])
def test_a_wall_clock_that_jumps_does_no_harm(
    emulator: Emulator, transport: Transport, clock: Clock, jump: float
) -> None:
    """How long a token is kept goes by the monotonic clock."""
    wall = Clock()
    tokens = ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, None, now=wall)
    first = tokens.get(call(clock), None)
    wall.now += jump
    clock.now += 500
    assert tokens.get(call(clock), None) is first
    clock.now += 3600
    assert tokens.get(call(clock), None) != first


def test_a_refused_token_is_replaced_once(emulator: Emulator, tokens: ExchangedTokens) -> None:
    """A late word about the old one does not cost the new one."""
    old = tokens.get(call(), None)
    assert tokens.refused(old, renewed=False) is True
    new = tokens.get(call(), None)
    assert new != old
    assert tokens.refused(old, renewed=False) is True
    assert tokens.get(call(), None) is new
    assert emulator.tokens_issued == 2


class Late(Secret[str]):
    """An old token, of which the word that it was refused comes at the worst moment."""

    meanwhile: Callable[[], object]

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other)
        self.meanwhile()
        return same

    __hash__ = Secret.__hash__


def test_a_word_about_an_old_token_never_costs_a_new_one(emulator: Emulator, tokens: ExchangedTokens) -> None:
    """Also if another thread renews it in the middle of taking note of that word."""
    late = Late(tokens.get(call(), None).reveal())
    renewed: List[Secret[str]] = []

    def renew() -> None:
        tokens.refused(Secret(late.reveal()), renewed=False)
        renewed.append(tokens.get(call(), None))

    late.meanwhile = renew
    assert tokens.refused(late, renewed=False) is True
    assert [tokens.get(call(), None)] == renewed
    assert emulator.tokens_issued == 2


def test_a_new_token_that_is_refused_is_the_end(tokens: ExchangedTokens) -> None:
    """The credentials are at fault where the token fetched for the very request is refused too."""
    assert tokens.refused(tokens.get(call(), None), renewed=False) is True
    assert tokens.refused(tokens.get(call(), None), renewed=True) is False


@pytest.mark.parametrize("others", ["accepted", "refused"])
def test_a_new_token_that_ended_for_others_is_replaced(tokens: ExchangedTokens, others: str) -> None:
    """Where it was good for another request, or refused to one, meanwhile, it only came to its end too soon."""
    old = tokens.get(call(), None)
    tokens.refused(old, renewed=False)
    new = tokens.get(call(), None)
    if others == "accepted":
        tokens.accepted(new)
        tokens.accepted(old)
    else:
        tokens.refused(new, renewed=False)
    assert tokens.refused(new, renewed=True) is True


def test_what_was_known_of_a_token_does_not_vouch_for_the_next(emulator: Emulator, tokens: ExchangedTokens) -> None:
    """Also where the service gives the same one again."""
    same = Fault.garbage('{"token": "the-same"}', "application/json")
    emulator.fail("token", same, same)
    tokens.accepted(tokens.get(call(), None))
    assert tokens.refused(tokens.get(call(), None), renewed=False) is True
    assert tokens.refused(tokens.get(call(), None), renewed=True) is False


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault.status(401), AuthenticationError, 401),
        (Fault.status(403), AuthenticationError, 403),
        (Fault.status(404), AuthenticationError, 404),
        (Fault.status(422), AuthenticationError, 422),
        (Fault.redirect(), AuthenticationError, 302),
        (Fault.garbage(), AuthenticationError, 200),
        (Fault.status(200, body={"expiration": "2026-06-27T13:15:06.000Z"}), AuthenticationError, 200),
        (Fault.status(200, body={"token": None}), AuthenticationError, 200),
        (Fault.status(200, body=b'{"token": "cut'), ProtocolError, 200),
        (Fault.status(200, body={"token": "line\nbreak"}), ProtocolError, 200),
        (Fault.status(500), ServerError, 500),
    ],
    ids=["401", "403", "404", "422", "login", "html", "no token", "null", "broken", "unsendable", "500"],
)
def test_why_there_is_no_token_is_told(
    emulator: Emulator, tokens: ExchangedTokens, fault: Fault, error: Any, status: int
) -> None:
    """The kind of error, its stage and status; and nothing of the reply hangs on to it."""
    emulator.fail("token", fault)
    with pytest.raises(error) as caught:
        tokens.get(call(), None)
    failure = caught.value
    assert (failure.stage, failure.status, failure.attempts) == ("token", status, 1)
    assert failure.__context__ is None


def test_refused_cookies_are_looked_for_again(emulator: Emulator, transport: Transport) -> None:
    """The user may have renewed them meanwhile. Cookies that work are looked for once."""
    found = [{"user_session": "stale"}, emulator.cookies]
    tokens = ExchangedTokens(lambda: found.pop(0), urls_of(emulator), transport, None)
    with pytest.raises(AuthenticationError):
        tokens.get(call(), None)
    tokens.refused(tokens.get(call(), None), renewed=False)
    tokens.get(call(), None)
    assert emulator.tokens_issued == 2


@pytest.mark.parametrize("api", ["auto", "https://api.example"])
def test_only_a_host_that_is_known_is_connected_to_early(
    emulator: Emulator, transport: Transport, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that the account's page is to name is not known yet."""
    early: List[str] = []

    def connecting(url: str, call: CallContext) -> ContextManager[None]:
        early.append(url)
        return contextlib.nullcontext()

    monkeypatch.setattr(transport, "connecting", connecting)
    ExchangedTokens(lambda: emulator.cookies, Urls(emulator.github_url, api), transport, None).get(call(), None)
    assert early == ([] if api == "auto" else [api])


def test_a_failed_exchange_is_tried_again_as_the_policy_has_it(emulator: Emulator, tokens: ExchangedTokens) -> None:
    """It does no harm where it is taken twice."""
    emulator.fail("token", Fault.status(502), Fault.drop())
    tokens.get(call(), RetryPolicy(base=0.0))
    assert [request.stage for request in emulator.requests] == ["token"] * 3


@pytest.mark.parametrize("way", ["closed", "timed out"])
def test_who_waits_for_anothers_token_can_be_stopped(
    emulator: Emulator, tokens: ExchangedTokens, clock: Clock, way: str
) -> None:
    """The fetch goes on for its own call."""
    emulator.fail("token", Fault.stall())
    first = threading.Thread(target=lambda: tokens.get(call(), None))
    first.start()
    assert emulator.wait_until(lambda: emulator.stalled)
    waiting = CallContext(Timeout(total=5), clock=clock)
    waiting.begin()
    if way == "closed":
        waiting.cancel()
    clock.now += 6
    with pytest.raises(StreamClosedError if way == "closed" else RequestTimeoutError) as caught:
        tokens.get(waiting, None)
    assert caught.value.stage == "token"
    emulator.release()
    first.join()
    assert emulator.tokens_issued == 1


@pytest.mark.parametrize("whose", ["this thread's", "one that lasts for ever"])
def test_a_turn_whose_end_was_lost_is_not_waited_for(
    emulator: Emulator, tokens: ExchangedTokens, clock: Clock, whose: str
) -> None:
    """An exception out of a signal handler may come anywhere."""
    thread = threading.get_ident() if whose == "this thread's" else -1
    tokens._flight._turn = WaitingTurn(thread, clock.now + (1000 if thread > 0 else -1))
    assert tokens.get(call(clock), None).reveal()
    assert emulator.tokens_issued == 1
    assert vars(tokens._flight)["_turn"] is None


def test_a_turn_may_end_while_another_thread_looks_at_it() -> None:
    """It ends without a lock, so that thread looks once."""
    looks = [WaitingTurn(-1, 1e9)]

    class Ending(SingleFlight):
        @property
        def _turn(self) -> Optional[WaitingTurn]:  # type: ignore[override]
            return looks.pop() if looks else None

        @_turn.setter
        def _turn(self, turn: Optional[WaitingTurn]) -> None:
            """The fetching is not what is tried."""

    assert Ending("token").run(call(), lambda: None, lambda: "fetched") == "fetched"
    assert looks == []


def test_a_signal_handler_may_need_a_token_while_one_is_fetched(emulator: Emulator, transport: Transport) -> None:
    """It interrupts the very thread that it would have to wait for."""
    got: List[Secret] = []

    def find_cookies() -> Dict[str, str]:
        if not got:
            got.append(Secret(""))
            got[0] = tokens.get(call(), None)
        return emulator.cookies

    tokens = ExchangedTokens(find_cookies, urls_of(emulator), transport, None)
    assert tokens.get(call(), None).reveal()
    assert got[0].reveal()
    assert emulator.tokens_issued == 2


def test_a_fetch_that_was_closed_is_no_failure_for_others(emulator: Emulator, tokens: ExchangedTokens) -> None:
    """One of those who waited asks instead."""
    emulator.fail("token", Fault.stall())
    leader = call()
    stopped: List[Any] = []

    def lead() -> None:
        with pytest.raises(StreamClosedError) as caught:
            tokens.get(leader, None)
        stopped.append(caught.value)

    first = threading.Thread(target=lead)
    first.start()
    assert emulator.wait_until(lambda: emulator.stalled)
    found = tokens.get(RateLimiter(lambda gate: leader.cancel()), None)
    first.join()
    assert found.reveal().startswith("emulated-")
    assert len(stopped) == 1


def test_a_cache_spares_the_next_client_its_fetch(emulator: Emulator, transport: Transport) -> None:
    """Two that share one cache share the token; its key and time-out are a fingerprint and the token's life."""
    cache = Memory()
    first = ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, cache).get(call(), None)
    second = ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, cache).get(call(), None)
    assert first == second
    assert emulator.tokens_issued == 1
    assert len(set(cache.keys)) == 1
    assert cache.keys[0].startswith("copilot-sync-")
    assert emulator.cookies["user_session"] not in cache.keys[0]
    assert 1790 < cache.timeouts[0] <= 1800


@pytest.mark.parametrize(
    ("cookies", "base"), [({"user_session": "another"}, ""), (None, "/base")], ids=["cookies", "host"]
)
def test_other_cookies_and_hosts_have_other_keys(
    emulator: Emulator, transport: Transport, cookies: Optional[Dict[str, str]], base: str
) -> None:
    """A token is never taken for somebody else's."""
    cache = Memory()
    ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, cache).get(call(), None)
    elsewhere = Urls(emulator.github_url + base, emulator.api_url)
    with pytest.raises(AuthenticationError):
        ExchangedTokens(lambda: cookies or emulator.cookies, elsewhere, transport, cache).get(call(), None)
    assert len(set(cache.keys)) == 2


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        b"bytes",
        "",
        "not json",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"token": "old"}',
        '{"until": 2000}',
        '{"token": "old", "until": "soon"}',
        '{"token": "old", "until": null}',
        '{"token": "old", "until": 1000.5}',
        '{"token": "old", "until": NaN}',
        '{"token": "old", "until": Infinity}',
        '{"token": "old", "until": 1' + "0" * 400 + "}",
        '{"token": "old", "until": 200000}',
        '{"token": null, "until": 2000}',
        '{"token": 5, "until": 2000}',
        '{"token": "line\\nbreak", "until": 2000}',
        "[" * 100,
    ],
)
def test_what_is_no_token_in_a_cache_is_passed_over(emulator: Emulator, transport: Transport, value: Any) -> None:
    """Whatever it is, it costs a fetch and no more, and the new token replaces it."""
    cache = Memory(value)
    tokens = ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, cache, now=lambda: 1000.0)
    token = tokens.get(call(), None)
    assert token.reveal().startswith("emulated-")
    assert json.loads(cache.value)["token"] == token.reveal()


def test_a_token_in_a_cache_is_renewed_ahead_of_its_end_too(
    emulator: Emulator, transport: Transport, clock: Clock
) -> None:
    """What is left of its life is told by the wall clock once, and by the monotonic one from then on."""
    cache = Memory('{"token": "cached-token", "until": 1100.0}')
    tokens = ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, cache, now=lambda: 1000.0)
    assert tokens.get(call(clock), None).reveal() == "cached-token"
    clock.now += 89
    assert tokens.get(call(clock), None).reveal() == "cached-token"
    cache.value = None
    clock.now += 2
    assert tokens.get(call(clock), None).reveal().startswith("emulated-")


def test_a_refused_token_is_not_taken_from_the_cache_again(emulator: Emulator, transport: Transport) -> None:
    """But one that another process put there meanwhile is."""
    cache = Memory()
    tokens = ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, cache, now=lambda: 1000.0)
    tokens.refused(tokens.get(call(), None), renewed=False)
    tokens.refused(tokens.get(call(), None), renewed=False)
    assert emulator.tokens_issued == 2
    cache.value = '{"token": "of-another-process", "until": 2000}'
    assert tokens.get(call(), None).reveal() == "of-another-process"


class Broken:
    """A cache whose server is gone."""

    def get(self, key: str) -> Any:
        raise ConnectionError

    def set(self, key: str, value: str, timeout: int) -> None:
        raise ConnectionError


def test_a_cache_that_fails_costs_no_token(
    emulator: Emulator, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """The token is fetched, and kept by whoever fetched it."""
    tokens = ExchangedTokens(lambda: emulator.cookies, urls_of(emulator), transport, Broken())
    first = tokens.get(call(), None)
    assert tokens.get(call(), None) == first
    assert emulator.tokens_issued == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2  # looking, and keeping


def test_a_copy_in_another_process_works(emulator: Emulator, transport: Transport) -> None:
    """It takes along the cookies, not the token, whose time goes by a clock that is not there."""
    tokens = ExchangedTokens(Cookies(emulator.cookies), urls_of(emulator), transport, None)
    token = tokens.get(call(), None)
    packed = pickle.dumps(tokens)
    assert token.reveal().encode() not in packed
    assert pickle.loads(packed).get(call(), None) != token
    assert copy.deepcopy(tokens).get(call(), None) != token


class Cookies:
    """Finds cookies, and pickles."""

    def __init__(self, cookies: Dict[str, str]) -> None:
        self._cookies = cookies

    def __call__(self) -> Dict[str, str]:
        return self._cookies


def test_a_forked_child_does_not_wait_for_a_thread_that_it_does_not_have(
    emulator: Emulator, tokens: ExchangedTokens
) -> None:
    """A lock that was held at the fork is a new one in the child."""
    emulator.fail("token", Fault.stall())
    first = threading.Thread(target=lambda: tokens.get(call(), None))
    first.start()
    assert emulator.wait_until(lambda: emulator.stalled)
    child = fork()
    if child == 0:  # pragma: no cover - the child's lines are counted in the child
        os._exit(0 if tokens.get(call(), None) else 1)
    status = os.waitpid(child, 0)[1]
    emulator.release()
    first.join()
    assert status == 0
    assert emulator.tokens_issued == 2


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://github.com/github-copilot/chat/token", True),
        ("https://github.com/", True),
        ("http://github.com/", False),
        ("https://github.com:8443/", False),
        ("https://api.github.com/", False),
        ("https://github.com.evil.example/", False),
        ("https://api.example/", False),
    ],
)
def test_credentials_go_to_their_host_alone(url: str, allowed: bool) -> None:
    """Scheme, host and port must be those of the base; the message shows no secret."""
    request = requests.Request("POST", url).prepare()
    here, there = Urls("https://GitHub.com", "https://api.example"), Urls("https://api.example", "https://GitHub.com")
    if allowed:
        assert send_cookies(Secret("a=b"), here)(request).headers["Cookie"] == "a=b"
        assert send_token(Secret("abc"), there)(request).headers["Authorization"] == "GitHub-Bearer abc"
        return
    for authenticate in (send_cookies(Secret("a=b"), here), send_token(Secret("abc"), there)):
        with pytest.raises(AssertionError, match="^credentials were about to go to another host$"):
            authenticate(request)
    assert not {"Cookie", "Authorization"} & set(request.headers)


@pytest.mark.parametrize(
    ("secret", "text", "masked"),
    [
        ("long-token", "your long-token is bad", "your *** is bad"),
        ("short", "short words", "short words"),
        ("user_session=abcdefg; logged_in=yes", "abcdefg yes", "*** yes"),
        ("user_session=abcdefg; logged_in=yes", "user_session=abcdefg; logged_in=yes!", "***!"),
        ("a=abcdef; b=abcdefghi", "abcdefghi abcdef", "*** ***"),
        ("", "nothing", "nothing"),
    ],
    ids=["token", "short", "value", "header", "one in another", "none"],
)
def test_a_mask_takes_secrets_out_of_a_text(secret: str, text: str, masked: str) -> None:
    """The whole of a header and each of its values, but for those that are ordinary words."""
    assert mask_of(Secret(secret))(text) == masked


def test_a_cookie_header_is_all_of_them() -> None:
    """In their order, and it does not show itself."""
    header = cookie_header({"a": "1", "b": "2"})
    assert header.reveal() == "a=1; b=2"
    assert "1" not in repr(header)


def test_fingerprints_tell_apart_and_tell_nothing() -> None:
    """Each part counts, and where it ends."""
    assert fingerprint("a", "b") == fingerprint("a", "b")
    assert len({fingerprint("a", "b"), fingerprint("ab"), fingerprint("b", "a"), fingerprint("\ud800")}) == 4
    assert "secret" not in fingerprint("secret")


def test_a_bare_error_has_no_past() -> None:
    """Neither frames nor context; its cause, which was made to be shown, stays."""
    try:
        try:
            json.loads("broken")
        except ValueError:
            raise ProtocolError("the reply is broken") from OSError()
    except ProtocolError as error:
        failure = error
    assert bare(failure) is failure
    assert (failure.__traceback__, failure.__context__) == (None, None)
    assert isinstance(failure.__cause__, OSError)
