"""The API host of the account's plan: named in an error, or looked up on the account's page and followed."""

import contextlib
import json
import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

import pytest
from support import PATIENCE, Peer, Server, Worker, answering, fork, nothing_left_open, stages, wait_for, wait_until

from copilot_sync import Client, Conversation, GithubCopilot, RetryPolicy, Timeout
from copilot_sync.auth import api_host
from copilot_sync.auth.api_host import ApiHost
from copilot_sync.auth.tokens import ExchangedTokens
from copilot_sync.batch import run
from copilot_sync.emulator import Emulator, EmulatorOptions, Fault
from copilot_sync.errors import (
    AuthenticationError,
    ModelNotAvailableError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamClosedError,
    WrongHostError,
)
from copilot_sync.settings import Urls
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Transport

AT_ONCE = RetryPolicy(base=0.0)
ADVICE = "https://api.business.githubcopilot.com or https://api.enterprise.githubcopilot.com, as the plan is"


@pytest.fixture
def business() -> Iterator[Emulator]:
    """An account whose API is at ``plan_api_url``."""
    with Emulator(options=EmulatorOptions(plan="business")) as emulator:
        yield emulator
        assert emulator.leaks == []


def client_of(emulator: Emulator, **options: Any) -> Client:
    given = {"cookies": emulator.cookies, "github_url": emulator.github_url, "api_url": "auto", "retry": AT_ONCE}
    return Client(**{**given, **options})


def misplaced(emulator: Emulator, **options: Any) -> Client:
    """A client of the individual host."""
    return client_of(emulator, **{"api_url": emulator.api_url, **options})


def page_naming(text: str) -> Fault:
    return Fault.garbage(f'<script>{{"apiURL":"{text}"}}</script>', "text/html")


def test_a_wrong_host_is_told_with_the_right_one(business: Emulator) -> None:
    """The page is asked once, with the cookies alone, and what it named is told to later calls as well."""
    with misplaced(business) as client:
        with pytest.raises(WrongHostError) as caught:
            client.ask("hi")
        error = caught.value
        assert (error.api_url, error.status, error.stage, error.attempts) == (business.plan_api_url, 421, "thread", 1)
        assert f"to {business.plan_api_url}, which the account's page names" in str(error)
        assert ADVICE not in str(error)
        assert stages(business) == ["token", "thread", "page"]
        page = business.requests[-1]
        assert (page.host, page.method, page.path, page.cookies) == ("github", "GET", "/copilot", business.cookies)
        assert "Authorization" not in page.headers
        with pytest.raises(WrongHostError, match=business.plan_api_url):
            client.models()
        assert stages(business) == ["token", "thread", "page", "models"]
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), copied.api_url, str(copied)) == (WrongHostError, error.api_url, str(error))


@pytest.mark.parametrize("with_cookies", [False, True])
def test_a_given_token_says_nothing_of_the_plan(business: Emulator, with_cookies: bool) -> None:
    """Without cookies, the words are about all plans; cookies that were given besides show the page."""
    cookies = business.cookies if with_cookies else None
    with misplaced(business, api_key=business.api_key, cookies=cookies) as client:
        with pytest.raises(WrongHostError) as caught:
            client.models()
    assert caught.value.api_url == (business.plan_api_url if with_cookies else None)
    assert (ADVICE in str(caught.value)) is not with_cookies
    assert stages(business) == ["models", *["page"] * with_cookies]


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(500),
        Fault.status(429, retry_after=0),
        Fault.redirect(),
        Fault.drop(),
        Fault.cut(),
        Fault.garbage("<html>", "text/html"),
        page_naming("https://evil.example"),
        page_naming("http://10.0.0.1"),
        Fault.garbage(b"\xff" * 9_000_000, "text/html"),
    ],
    ids=["500", "429", "login", "drop", "cut", "no host", "evil", "not here", "huge"],
)
def test_a_page_that_does_not_help_hides_nothing(business: Emulator, fault: Fault) -> None:
    """It is asked once, without a retry, and the error is the one of the API."""
    business.fail("page", fault)
    with misplaced(business) as client:
        with pytest.raises(WrongHostError) as caught:
            client.models()
    assert (caught.value.api_url, caught.value.status, caught.value.stage) == (None, 421, "models")
    assert ADVICE in str(caught.value)
    assert "evil" not in str(caught.value)
    assert stages(business) == ["token", "models", "page"]


def test_cookies_that_cannot_be_used_hide_nothing(business: Emulator) -> None:
    """They are only looked at to explain the error."""
    with misplaced(business, api_key=business.api_key, cookies={"user_session": "line\nbreak"}) as client:
        with pytest.raises(WrongHostError) as caught:
            client.models()
    assert caught.value.api_url is None


@pytest.mark.parametrize("limit", ["the call's", "its own"])
def test_an_explanation_takes_no_longer_than_it_may(
    business: Emulator, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page stalls, and the error comes when the call's time is over, or after some seconds."""
    business.fail("page", Fault.stall())
    if limit == "its own":
        monkeypatch.setattr(api_host, "_EXPLANATION_TIMEOUT", 0.5)
    with misplaced(business, timeout=Timeout(total=0.5 if limit == "the call's" else None)) as client:
        began = time.monotonic()
        with pytest.raises(WrongHostError) as caught:
            client.models()
        assert 0.3 < time.monotonic() - began < 5
    assert caught.value.api_url is None


def test_closing_ends_an_explanation(business: Emulator) -> None:
    """At once, as it ends every other wait."""
    business.fail("page", Fault.stall())
    with misplaced(business) as client:
        call = Worker(client.models)
        assert business.wait_until(lambda: business.stalled, PATIENCE)
        client.close()
        with pytest.raises(StreamClosedError):
            call.result()


def test_a_page_that_names_the_refusing_host_is_told(business: Emulator) -> None:
    """There is no better host to advise."""
    business.fail("page", page_naming(business.api_url))
    with misplaced(business) as client:
        with pytest.raises(WrongHostError, match="but the page names") as caught:
            client.models()
    assert caught.value.api_url == business.api_url


@pytest.mark.parametrize("plan", ["pro", "business"])
def test_auto_finds_the_host_of_the_plan(plan: Any) -> None:
    """Before the first request to the API, after the token, once."""
    with Emulator(options=EmulatorOptions(plan=plan)) as emulator:
        home = emulator.plan_api_url if plan == "business" else emulator.api_url
        with nothing_left_open(), client_of(emulator) as client:
            assert (client.api_url, "auto" in repr(client)) == ("auto", True)
            assert client.ask("one").text == "one"
            assert (client.api_url, home in repr(client)) == (home, True)
            assert "".join(client.stream("two")) == "two"
            client.models()
        assert stages(emulator)[:3] == ["token", "page", "thread"]
        assert stages(emulator).count("page") == 1
        assert {request.host for request in emulator.requests[2:]} == {"plan_api" if plan == "business" else "api"}
        assert emulator.leaks == []


def test_auto_may_come_from_the_environment(business: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And from the documented class's options."""
    with monkeypatch.context() as patch:
        patch.setenv("COPILOT_SYNC_API_URL", "auto")
        with client_of(business, api_url=None) as client:
            assert client.ask("hi").text == "hi"
    where = {"github_url": business.github_url, "api_url": "auto"}
    messages = [{"role": "user", "content": "hi"}]
    assert GithubCopilot.create_completion("", messages, cookies=business.cookies, **where) == "hi"


@pytest.mark.parametrize("way", ["argument", "environment", "cookies of another place"])
def test_auto_needs_cookies(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token does not say what its plan is: that is told at once, whoever gave it."""
    if way == "environment":
        monkeypatch.setenv("COPILOT_SYNC_API_KEY", "planted-token")
    if way == "cookies of another place":  # which may be another account's
        monkeypatch.setenv("COPILOT_SYNC_COOKIES", "user_session=planted")
    with pytest.raises(ValueError, match='^api_url="auto" needs cookies') as caught:
        Client(None if way == "environment" else "planted-token", api_url="auto")
    assert "planted" not in str(caught.value)
    assert "COPILOT_SYNC_COOKIES beside COPILOT_SYNC_API_KEY" in str(caught.value)


@pytest.mark.parametrize("given_as", ["arguments", "environment"])
def test_auto_takes_the_cookies_beside_a_token(
    business: Emulator, given_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They show the page, and the token is used as it is; a pickled copy has both as well."""
    given: Dict[str, Any] = {"api_key": business.api_key, "cookies": business.cookies}
    if given_as == "environment":
        monkeypatch.setenv("COPILOT_SYNC_API_KEY", business.api_key)
        monkeypatch.setenv("COPILOT_SYNC_COOKIES", f"user_session={business.cookies['user_session']}")
        given = {"cookies": None}
    with client_of(business, **given) as client, pickle.loads(pickle.dumps(client)) as copied:
        client.models()
        assert stages(business) == ["page", "models"]
        assert business.requests[0].cookies == business.cookies
        assert business.requests[-1].bearer == business.api_key
        copied.models()
        assert copied.quota().plan == "business"
    assert stages(business) == ["page", "models", "page", "models", "quota"]


def test_the_documented_class_tells_a_token_from_one_with_cookies(business: Emulator) -> None:
    """A client that was made for both is not used for a call with the token alone."""
    where = {"github_url": business.github_url, "api_url": "auto", "api_key": business.api_key}
    messages = [{"role": "user", "content": "hi"}]
    assert GithubCopilot.create_completion("", messages, cookies=business.cookies, **where) == "hi"
    with pytest.raises(ValueError, match="needs cookies"):
        GithubCopilot.create_completion("", messages, **where)


def test_cookies_that_the_page_refused_are_read_anew(business: Emulator, tmp_path: Path) -> None:
    """As those are that got no token: the user may renew the file meanwhile."""
    path = tmp_path / "cookies.json"
    path.write_text('{"user_session": "stale"}')
    with client_of(business, api_key=business.api_key, cookies=path) as client:
        with pytest.raises(AuthenticationError):
            client.models()
        path.write_text(json.dumps(business.cookies))
        assert client.models()
    assert stages(business) == ["page", "page", "models"]


def test_every_call_finds_the_host(business: Emulator) -> None:
    """Whichever of them is the first; the quota alone needs none."""
    given = Conversation("gone")
    calls: Dict[str, Callable[[Client], Any]] = {
        "models": lambda client: client.models(all=True),
        "threads": lambda client: client.threads(),
        "messages": lambda client: client.messages(given),
        "rename": lambda client: client.name_thread(given),
        "delete": lambda client: client.delete_thread(given),
        "thread": lambda client: client.create_thread(),
    }
    for stage, call in calls.items():
        business.requests.clear()
        with client_of(business) as client, contextlib.suppress(NotFoundError):
            call(client)
        asked = [(request.stage, request.host) for request in business.requests]
        assert asked == [("token", "github"), ("page", "github"), (stage, "plan_api")]
    business.requests.clear()
    with client_of(business) as client:
        assert client.quota().plan == "business"
    assert stages(business) == ["quota"]


def test_a_chat_and_its_branches_stay_at_the_host_that_was_found(business: Emulator) -> None:
    """The name, another try, another text and a question that is refused with its thread: all is asked of it."""
    with client_of(business) as client:
        with pytest.raises(ModelNotAvailableError) as caught:
            client.ask("refused", model="gpt-5.5x")
        assert caught.value.suggestions[0] == "gpt-5.5"
        assert business.threads == {}
        assert stages(business) == ["token", "page", "thread", "message", "models", "delete"]
        chat = client.chat()
        with chat.stream("one") as stream:
            assert "".join(stream) == "one"
            naming = stream.naming()
            assert naming is not None
            assert naming.run() == "one"
        assert (chat.retry().text, chat.edit("two").text) == ("one", "two")
    assert stages(business).count("page") == 1
    assert {request.host for request in business.requests[2:]} == {"plan_api"}


def test_a_batch_finds_the_host_and_deletes_its_threads_there(business: Emulator) -> None:
    """At the pace of the service, as long as nobody knows that the host is on this machine."""
    with client_of(business) as client:
        results = list(run(["one", "two"], client=client, rate=None, delete_threads=True))
    assert sorted(result.text for result in results) == ["one", "two"]
    assert business.threads == {}
    assert stages(business).count("page") == 1


@pytest.mark.parametrize(
    ("fault", "error", "words", "pages"),
    [
        (Fault.redirect(), AuthenticationError, "login page", 1),
        (Fault.redirect("/features/copilot"), ProtocolError, "redirects to", 1),
        (Fault.status(404), AuthenticationError, "refused the cookies", 1),
        (Fault.status(500), ServerError, "failed", 4),
        (Fault.drop(), NetworkError, "closed", 4),
        (Fault.garbage("<html>", "text/html"), WrongHostError, "names no API host", 1),
        (page_naming("https://evil.example"), WrongHostError, "names no API host", 1),
        (page_naming("https://127.0.0.1.evil.example"), WrongHostError, "names no API host", 1),
        (Fault.garbage(b"\xff" * 9_000_000, "text/html"), ProtocolError, "longer than", 1),
    ],
    ids=["login", "elsewhere", "404", "500", "drop", "no host", "evil", "evil name", "huge"],
)
def test_why_no_host_was_found_is_told(business: Emulator, fault: Fault, error: Any, words: str, pages: int) -> None:
    """Nothing is sent to any API; what may pass is tried again as the policy has it; the next call asks anew."""
    business.fail("page", *[fault] * pages)
    with client_of(business) as client:
        with pytest.raises(error, match=words) as caught:
            client.ask("hi")
        assert caught.value.stage == "token"
        assert getattr(caught.value, "api_url", None) is None
        assert stages(business) == ["token", *["page"] * pages]
        assert client.api_url == "auto"


def test_a_page_that_was_read_later_is_enough(business: Emulator) -> None:
    """A failure is not remembered as the host is."""
    business.fail("page", Fault.status(502), Fault.garbage("<html>", "text/html"))
    with client_of(business) as client:
        with pytest.raises(WrongHostError):
            client.models()
        client.models()
        assert client.api_url == business.plan_api_url


def test_a_limit_on_the_page_holds_the_account_back(business: Emulator) -> None:
    """As one on any other request: the next call waits, or says so."""
    business.fail("page", Fault.status(429, retry_after=60))
    with client_of(business, retry=None) as client:
        for _ in range(2):
            with pytest.raises(RateLimitError):
                client.models()
    assert stages(business) == ["token", "page"]


def test_many_threads_ask_the_page_once(business: Emulator) -> None:
    """One asks, and the others wait for what comes of it."""
    business.fail("page", Fault.stall())
    with nothing_left_open(), client_of(business) as client:
        calls = [Worker(client.models) for _ in range(8)]
        assert business.wait_until(lambda: business.stalled, PATIENCE)
        wait_until(lambda: len(client._calls) == 8)
        business.release()
        for call in calls:
            assert call.result()
    assert (stages(business).count("page"), stages(business).count("token")) == (1, 1)


class Waiting(CallContext):
    """A call that says when it waits for another one."""

    def __init__(self, waits: Callable[[], None]) -> None:
        super().__init__(Timeout())
        self._waits = waits

    def check(self, stage: Optional[str] = None) -> None:
        self._waits()
        super().check(stage)


@pytest.mark.parametrize("page", ["no host", "the same host"])
def test_a_failed_look_is_shared(page: str, transport: Transport) -> None:
    """By those who waited for it: none of them asks the same again, neither at first nor after a refusal."""
    together = threading.Event()
    refused = "http://127.0.0.1:9"
    body = b"<html>" if page == "no host" else f'"apiURL":"{refused}"'.encode()

    def script(peer: Peer) -> None:
        peer.receive()
        wait_for(together)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        peer.wait_closed()

    with Server(script) as server:
        urls = Urls(server.url, "auto")
        host = ApiHost(urls, ExchangedTokens(lambda: {"user_session": "value"}, urls, transport, None))

        def look(call: CallContext) -> Optional[str]:
            if page == "the same host":
                return host.after_refusal(refused, call)
            with pytest.raises(WrongHostError, match="names no API host"):
                host.find(call, AT_ONCE)
            return None

        first = Worker(lambda: look(CallContext(Timeout())))
        wait_for(server.asked)
        second = Worker(lambda: look(Waiting(together.set)))
        expected = None if page == "no host" else refused
        assert (first.result(), second.result()) == (expected, expected)
        assert len(server.received) == 1
        transport.close()


def test_who_waits_for_the_look_of_another_has_a_deadline(business: Emulator) -> None:
    """Of its own. The look goes on for its call."""
    business.fail("page", Fault.stall())
    with nothing_left_open(), client_of(business) as client:
        first = Worker(client.models)
        assert business.wait_until(lambda: business.stalled, PATIENCE)
        with pytest.raises(RequestTimeoutError) as caught:
            client.ask("hi", timeout=Timeout(total=0.2))
        assert (caught.value.stage, caught.value.phase) == ("token", "total")
        business.release()
        assert first.result()
    assert stages(business).count("page") == 1


def test_closing_ends_the_look_and_the_wait_for_it(business: Emulator) -> None:
    """At once; the client can be used again."""
    business.fail("page", Fault.stall())
    with nothing_left_open(), client_of(business) as client:
        calls = [Worker(client.models)]
        assert business.wait_until(lambda: business.stalled, PATIENCE)
        calls += [Worker(client.threads), Worker(lambda: client.ask("hi"))]
        wait_until(lambda: len(client._calls) + len(client._streams) == 3)
        client.close()
        for call in calls:
            with pytest.raises(StreamClosedError):
                call.result()
        assert client.ask("hi").text == "hi"


def test_the_account_may_move_to_another_plan(business: Emulator) -> None:
    """And back. A request that was refused for it was not processed: it is sent again, to the new host, once."""
    with client_of(business) as client:
        chat = client.chat()
        assert chat.ask("one").text == "one"
        business.options.plan = "pro"
        business.requests.clear()
        assert chat.ask("two", retry=None).text == "two"
        assert stages(business) == ["message", "page", "message"]
        assert client.api_url == business.api_url
        business.options.plan = "business"
        client.models()
        assert client.api_url == business.plan_api_url


def test_a_page_that_lags_behind_is_told(business: Emulator) -> None:
    """It names the host that has just refused the token: sending there again would bring the same."""
    with client_of(business) as client:
        client.models()
        home = business.plan_api_url
        business.options.plan = "pro"
        business.fail("page", page_naming(home))
        business.requests.clear()
        with pytest.raises(WrongHostError, match="but the page names") as caught:
            client.models()
        assert (caught.value.api_url, stages(business)) == (home, ["models", "page"])
        client.models()
        assert client.api_url == business.api_url


@pytest.mark.parametrize("fault", [Fault.status(500), Fault.garbage("<html>", "text/html")])
def test_where_the_account_has_moved_may_stay_unknown(business: Emulator, fault: Fault) -> None:
    """Then the refusal is the error, and the next call asks again."""
    with client_of(business) as client:
        client.models()
        business.options.plan = "pro"
        business.fail("page", fault)
        with pytest.raises(WrongHostError) as caught:
            client.models()
        assert (caught.value.api_url, caught.value.status) == (None, 421)
        client.models()


def test_two_hosts_that_both_refuse_are_asked_once_each(business: Emulator) -> None:
    """A request does not go back and forth between them."""
    business.fail("page", page_naming(business.api_url))
    business.fail("models", Fault.status(421), Fault.status(421))
    with client_of(business) as client:
        with pytest.raises(WrongHostError, match="but the page names") as caught:
            client.models()
        assert (caught.value.api_url, caught.value.attempts) == (business.plan_api_url, 2)
    assert stages(business) == ["token", "page", "models", "page", "models"]


@pytest.mark.parametrize("api_url", ["auto", "https://api.business.githubcopilot.com"])
def test_a_421_for_the_token_is_no_matter_of_the_api(business: Emulator, api_url: str) -> None:
    """The page is not asked what ``github_url`` is."""
    business.fail("token", Fault.status(421))
    with client_of(business, api_url=api_url) as client:
        with pytest.raises(WrongHostError) as caught:
            client.models()
    assert (caught.value.stage, stages(business)) == ("token", ["token"])


def test_many_threads_follow_the_account_together(business: Emulator) -> None:
    """Whoever is refused after another has asked the page takes what that one found."""
    with nothing_left_open(), client_of(business) as client:
        client.models()
        business.options.plan = "pro"
        business.requests.clear()
        business.fail("page", Fault.stall())
        calls = [Worker(client.models) for _ in range(6)]
        assert business.wait_until(lambda: business.stalled and stages(business).count("models") == 6, PATIENCE)
        business.release()
        for call in calls:
            assert call.result()
    assert stages(business).count("page") == 1
    assert stages(business).count("models") == 12


def test_a_copy_and_a_child_know_the_host(business: Emulator) -> None:
    """What was found lasts as long as the client, in another process too."""
    with client_of(business) as client:
        client.models()
        copied = pickle.loads(pickle.dumps(client))
        assert copied.api_url == business.plan_api_url
        with copied:
            copied.models()
        child = fork()
        if child == 0:  # pragma: no cover - the child's lines are counted in the child
            os._exit(0 if client.api_url == business.plan_api_url and client.models() else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert stages(business).count("page") == 1


def test_a_child_does_not_wait_for_a_look_of_its_parent(business: Emulator) -> None:
    """The thread that asks the page is not there."""
    business.fail("page", Fault.stall())
    with client_of(business) as client:
        first = Worker(client.models)
        assert business.wait_until(lambda: business.stalled, PATIENCE)
        child = fork()
        if child == 0:  # pragma: no cover - the child's lines are counted in the child
            os._exit(0 if client.models() else 1)
        assert os.waitpid(child, 0)[1] == 0
        business.release()
        assert first.result()


def test_the_token_goes_nowhere_else(business: Emulator) -> None:
    """A page that names a listener that is not the account's own is on this machine, and gets the token alone."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b'{"data":[]}'
    with Server(answering(reply)) as server:
        business.fail("page", page_naming(server.url.replace("/", "\\/")))
        with client_of(business) as client:
            client.models()
            assert client.api_url == server.url
    [request] = server.received
    assert b"authorization: GitHub-Bearer" in request.replace(b"Authorization", b"authorization")
    assert b"ookie" not in request
