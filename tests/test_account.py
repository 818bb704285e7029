"""The models and the quota of an account: where they are asked for, and what comes of it."""

import json
import pickle
import threading
import time
from typing import Any, Dict, List

import pytest
from support import Peer, Server, Worker, answering, nothing_left_open, stages, variables_with, wait_for

from copilot_sync import (
    AuthenticationError,
    Client,
    InvalidRequestError,
    MissingCredentialsError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    Quota,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    StreamClosedError,
    Timeout,
)
from copilot_sync.emulator import Emulator, Fault

PAGES, OLDER = "/github/chat/models", "/models"
COOKIES = {"user_session": "s3cr3t-session", "logged_in": "yes"}
ENTITLEMENT: Dict[str, Any] = {
    "plan": "individual",
    "licenseType": "licensed_full",
    "quotas": {"limits": {"chat": 50}, "remaining": {"chat": 48}, "resetDate": "2026-12-01", "overagesEnabled": True},
}
QUOTA = Quota("individual", "licensed_full", {"chat": 50}, {"chat": 48}, "2026-12-01", True)


def client_of(emulator: Emulator, **options: Any) -> Client:
    return Client(
        **{
            "cookies": emulator.cookies,
            "github_url": emulator.github_url,
            "api_url": emulator.api_url,
            "retry": None,
            **options,
        }
    )


def asked(emulator: Emulator) -> List[str]:
    """The addresses at which models were asked for."""
    return [request.path for request in emulator.requests if request.stage == "models"]


def model(id: str, **fields: Any) -> Dict[str, Any]:
    return {"id": id, "name": id, "vendor": "", "preview": False, **fields}


def test_models_that_can_be_chatted_with_are_listed(emulator: Emulator) -> None:
    """In the service's order, each once; of unknown kind as well, because the service may leave that out."""
    emulator.options.models = [
        model("z", capabilities={"type": "chat"}),
        model("embeds", capabilities={"type": "embeddings"}),
        model("completes", capabilities={"type": "completion"}),
        model("twice", model_picker_enabled=False),
        model("a", capabilities={}, policy=None),
        model("hidden", model_picker_enabled=False),
        model("forbidden", policy={"state": "disabled"}),
        model("twice", name="enabled"),
        model("twice", name="again"),
    ]
    with client_of(emulator) as client:
        listed = client.models()
        everything = client.models(all=True)
    assert [each.id for each in listed] == ["z", "a", "twice"]
    assert listed[2].name == "enabled"
    assert [each.id for each in everything] == [each["id"] for each in emulator.options.models]  # type: ignore[index]
    assert [each.kind for each in everything[:3]] == ["chat", "embeddings", "completion"]


def test_models_are_asked_for_where_the_page_does(emulator: Emulator) -> None:
    """Once; an empty list is a list."""
    emulator.options.models = []
    with client_of(emulator) as client:
        assert client.models() == []
    assert asked(emulator) == [PAGES]


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(404),
        Fault.status(405),
        Fault.status(410),
        Fault.status(501),
        Fault.status(302, headers={"Location": "/elsewhere"}),
        Fault.status(200, body={"hello": "world"}),
        Fault.status(200, body=[]),
        Fault.garbage("<html>", status=200),
    ],
    ids=["404", "405", "410", "501", "redirect", "another object", "another list", "text"],
)
def test_models_are_asked_for_at_the_older_address_if_the_pages_has_none(emulator: Emulator, fault: Fault) -> None:
    """It does not exist, or is something else."""
    emulator.fail("models", fault)
    with client_of(emulator) as client:
        assert client.models()
    assert asked(emulator) == [PAGES, OLDER]


@pytest.mark.parametrize(
    "fault, kind",
    [
        (Fault.status(400), InvalidRequestError),
        (Fault.status(401), AuthenticationError),
        (Fault.status(403), AuthenticationError),
        (Fault.status(429), RateLimitError),
        (Fault.status(500), ServerError),
        (Fault.wire(b"no HTTP\r\n\r\n"), ProtocolError),
    ],
    ids=["400", "401", "403", "429", "500", "no HTTP"],
)
def test_a_failure_of_the_pages_address_is_the_answer(emulator: Emulator, fault: Fault, kind: Any) -> None:
    """Another address would not help, and more requests may do harm."""
    emulator.fail("models", *[fault] * 2)
    with client_of(emulator, api_key=emulator.api_key) as client, pytest.raises(kind):
        client.models()
    assert asked(emulator) == [PAGES]


def test_a_token_that_is_refused_with_404_asks_for_no_models(emulator: Emulator) -> None:
    """The status is not that of the models' address."""
    emulator.fail("token", *[Fault.status(404)] * 2)
    with client_of(emulator) as client, pytest.raises(AuthenticationError):
        client.models()
    assert stages(emulator) == ["token"]


def test_the_error_of_the_older_address_is_the_answer_if_there_is_neither(emulator: Emulator) -> None:
    """Both requests count."""
    emulator.fail("models", Fault.status(404), Fault.status(404))
    with client_of(emulator) as client, pytest.raises(NotFoundError) as caught:
        client.models()
    assert (caught.value.stage, caught.value.status, caught.value.attempts) == ("models", 404, 2)


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


def found(value: Any = ENTITLEMENT) -> bytes:
    return http("200 OK", json.dumps(value).encode(), "Content-Type: application/json")


def github(server: Server, **options: Any) -> Client:
    """A client whose cookies go to a server; nothing listens at the address of its API."""
    given = {"cookies": COOKIES, "github_url": server.url, "api_url": "http://127.0.0.1:1", "retry": None}
    return Client(**{**given, **options})


def test_the_quota_is_asked_for_with_the_cookies() -> None:
    """One request for each call, as the page makes it; no token is fetched, nothing is kept."""
    with Server(answering(found(), found({"plan": "free"}))) as server, github(server) as client:
        assert client.quota() == QUOTA
        assert client.quota() == Quota("free")
    head = server.received[0].decode().lower().split("\r\n")
    assert head[0] == "get /github-copilot/chat/entitlement http/1.1"
    for line in ("cookie: user_session=s3cr3t-session; logged_in=yes", "github-verified-fetch: true"):
        assert line in head
    assert not any(line.startswith("authorization") for line in head)
    assert (len(server.received), server.connections) == (2, 1)


@pytest.mark.parametrize(
    "reply, words",
    [
        (http("302 Found", b"", "Location: /login?return_to=x"), "sent the request to its login page"),
        (http("200 OK", b"<html><title>Sign in</title>", "Content-Type: text/html"), "sign in again"),
        (http("401 Unauthorized"), "sign in again"),
        (
            http("403 Forbidden", b'{"message": "SAML enforcement for s3cr3t-session"}'),
            "SAML enforcement for \\*\\*\\*",
        ),
        (found({"error_details": {"message": "No access to s3cr3t-session"}}), "No access to \\*\\*\\*"),
    ],
    ids=["redirect", "page", "401", "403", "words"],
)
def test_cookies_that_are_refused_are_told(reply: bytes, words: str) -> None:
    """In the words of the token, and without the cookies: neither message nor frames show them."""
    with Server(answering(reply)) as server, github(server) as client:
        with pytest.raises(AuthenticationError, match=words) as caught:
            client.quota()
        assert client._session._tokens.cooldown.active is False  # type: ignore[attr-defined]
    assert caught.value.stage == "quota"
    assert variables_with("s3cr3t", caught.value) == []


def test_renewed_cookies_are_looked_for_after_a_refusal(tmp_path: Any) -> None:
    """As the token does it: the user may have exported them anew."""
    path = tmp_path / "cookies.json"
    path.write_text('{"user_session": "old"}')
    with Server(answering(http("401 Unauthorized"), found())) as server, github(server, cookies=path) as client:
        with pytest.raises(AuthenticationError):
            client.quota()
        path.write_text('{"user_session": "new"}')
        assert client.quota() == QUOTA
    assert [b"user_session=old" in each for each in server.received] == [True, False]
    assert b"user_session=new" in server.received[1]


def test_an_account_without_copilot_is_told() -> None:
    """404 is what the service says then."""
    with Server(answering(http("404 Not Found"))) as server, github(server) as client:
        with pytest.raises(NotFoundError, match="this account has no Copilot") as caught:
            client.quota()
    assert (caught.value.stage, caught.value.status, caught.value.attempts) == ("quota", 404, 1)


@pytest.mark.parametrize("api_key_from", ["argument", "variable"])
def test_an_api_key_alone_is_not_enough(api_key_from: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the other host; cookies of whoever else uses this machine are not looked for."""
    monkeypatch.setenv("COPILOT_SYNC_API_KEY" if api_key_from == "variable" else "COPILOT_SYNC_COOKIES", "s3cr3t=x")
    api_key = "s3cr3t" if api_key_from == "argument" else None
    with Server(answering()) as server, github(server, api_key=api_key, cookies=None) as client:
        with pytest.raises(
            MissingCredentialsError, match="the quota is asked for with the github.com cookies"
        ) as caught:
            client.quota()
    assert (server.received, caught.value.stage, caught.value.status) == ([], "credentials", None)
    assert variables_with("s3cr3t", caught.value) == []


@pytest.mark.parametrize("given_as", ["arguments", "variables"])
def test_cookies_beside_an_api_key_are_used(given_as: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both given in the same place belong to the same account; also after a trip to another process."""
    options: Dict[str, Any] = {"api_key": "key"}
    if given_as == "variables":
        monkeypatch.setenv("COPILOT_SYNC_API_KEY", "key")
        monkeypatch.setenv("COPILOT_SYNC_COOKIES", "user_session=s3cr3t-session")
        options = {"cookies": None}
    with Server(answering(found(), found())) as server, github(server, **options) as client:
        assert client.quota() == QUOTA
    with Server(answering(found())) as server, pickle.loads(pickle.dumps(github(server, **options))) as client:
        assert client.quota() == QUOTA
    assert b"user_session=s3cr3t-session" in server.received[0]


def test_a_quota_is_asked_for_again_as_the_policy_has_it() -> None:
    """A server that fails for a moment, a connection that breaks."""
    policy = RetryPolicy(attempts=3, base=0.0)
    failing = answering(http("503 Service Unavailable"), http("409 Conflict"), found())
    with Server(failing) as server, github(server, retry=policy) as client:
        assert client.quota() == QUOTA
    with Server(answering(*[http("500 Error")] * 3)) as server, github(server, retry=policy) as client:
        with pytest.raises(ServerError) as caught:
            client.quota()
    assert (caught.value.stage, caught.value.attempts) == ("quota", 3)


def test_a_success_ends_an_outage_of_the_quota() -> None:
    """Eight failures in a row slow the next request down; one success, and all is as before."""
    with Server(answering(*[http("500 Error")] * 8, *[found()] * 3)) as server, github(server) as client:
        for _ in range(8):
            with pytest.raises(ServerError):
                client.quota()
        assert [client.quota() for _ in range(3)] == [QUOTA] * 3
        assert client._session._tokens.cooldown._failing == {}  # type: ignore[attr-defined]


def test_a_limit_of_the_quota_holds_the_account_back() -> None:
    """As a limit of the token does: it is the account that github.com wants to slow down."""
    with Server(answering(http("429 Too Many Requests", b"", "Retry-After: 3600"))) as server, github(server) as client:
        for _ in range(2):
            with pytest.raises(RateLimitError) as caught:
                client.quota()
    assert caught.value.stage == "quota"
    assert len(server.received) == 1


def stalling(peer: Peer) -> None:
    peer.receive()
    peer.wait_closed()


def test_the_time_of_a_call_bounds_the_quota() -> None:
    """The whole call, retries included."""
    timeout = Timeout(read=30, total=0.2)
    with Server(stalling) as server, github(server, timeout=timeout, retry=RetryPolicy()) as client:
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError) as caught:
            client.quota()
    assert time.monotonic() - began < 5
    assert (caught.value.stage, caught.value.phase) == ("quota", "total")


def test_closing_the_client_ends_the_quota() -> None:
    """From another thread, wherever it is."""
    with nothing_left_open(), Server(stalling) as server:
        client = github(server)
        call = Worker(client.quota)
        wait_for(server.asked)
        client.close()
        with pytest.raises(StreamClosedError):
            call.result()


def test_a_hostile_reply_is_bounded() -> None:
    """However long it is, and however deeply nested."""
    deep = b'{"quotas": ' * 5000 + b"1" + b"}" * 5000
    for body in (deep, b'{"plan": "' + b"x" * 20_000_000 + b'"}'):
        with Server(answering(http("200 OK", body))) as server, github(server) as client:
            with pytest.raises(ProtocolError) as caught:
                client.quota()
        assert caught.value.stage == "quota"


class Memory:
    """A cache that keeps nothing, and remembers under which keys it was asked."""

    def __init__(self) -> None:
        self.keys: List[str] = []

    def get(self, key: str) -> None:
        self.keys.append(key)

    def set(self, key: str, value: str, timeout: int) -> None:
        self.keys.append(key)


def test_a_refused_quota_does_no_harm_to_a_token_on_its_way() -> None:
    """The token is kept under the cookies that it was fetched with, though they are forgotten meanwhile."""
    refused, cache = threading.Event(), Memory()

    def script(peer: Peer) -> None:
        if b"/token" in peer.receive():
            wait_for(refused)
            peer.send(found({"token": "t0ken"}))
        else:
            peer.send(http("401 Unauthorized"))

    with Server(script) as server, github(server, token_cache=cache) as client:
        listing = Worker(client.threads)
        wait_for(server.asked)
        with pytest.raises(AuthenticationError):
            client.quota()
        refused.set()
        with pytest.raises(NetworkError):  # nothing listens at the other host
            listing.result()
    assert len(cache.keys) == 2
    assert len(set(cache.keys)) == 1
