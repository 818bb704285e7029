"""What records of requests keep of an account: nothing that is secret, and all that a replay needs."""

import base64
import gzip
import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Union

import pytest
import requests

import copilot_sync
from copilot_sync import AsyncClient, Client, GithubCopilot
from copilot_sync.emulator import Emulator
from copilot_sync.protocol.page import read_api_url
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.testing import filter_betamax_cassette, forget_tokens, session_of, vcr_config

TOKEN = b'{"token": "a-secret", "expiration": "2026-12-01T00:00:00Z"}'
PAGE = (
    b'<html>octocat a-secret <script>{"apiURL": "https://api.business.githubcopilot.com", "nonce": "a-secret"}</script>'
)


def filtered(body: bytes, **headers: str) -> Dict[str, Any]:
    """A reply as vcrpy has it, after our filter."""
    response = {
        "status": {"code": 200, "message": "OK"},
        "headers": {name.replace("_", "-"): [value] for name, value in headers.items()},
        "body": {"string": body},
    }
    result: Dict[str, Any] = vcr_config()["before_record_response"](response)
    return result


@pytest.mark.parametrize(
    "body",
    [
        TOKEN,
        b"\xef\xbb\xbf \r\n" + TOKEN,
        gzip.compress(TOKEN),
        zlib.compress(TOKEN),
        b'{"\\u0074oken": "a-secret"}',
        b'{"token": {"value": "a-secret"}}',
    ],
    ids=["plain", "after a byte order mark", "gzip", "deflate", "escaped", "in another form"],
)
def test_the_reply_with_the_token_is_replaced(body: bytes) -> None:
    """However it is packed; the headers that spoke of the old body go with it."""
    response = filtered(body, Content_Encoding="gzip", content_length="9", Transfer_Encoding="chunked", X_Id="7")
    assert response["body"] == {"string": b'{"token": "recorded"}'}
    assert response["headers"] == {"X-Id": ["7"]}


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"type":"content","body":"{\\"token\\": 1}"}\n\n',
        b'{"thread_id": "t"}',
        b'{"token": null, "error_details": {"message": "No access"}}',
        b'{"token": ',
        gzip.compress(b'{"models": []}'),
        b"",
        b"\x1f\x8bnot really",
    ],
    ids=["an answer", "a thread", "no token", "cut", "packed", "nothing", "packed badly"],
)
def test_other_replies_stay_as_they_are(body: bytes) -> None:
    """Byte for byte, and with their headers, but for cookies."""
    response = filtered(body, Content_Encoding="gzip", set_cookie="user_session=a-secret")
    assert response["body"] == {"string": body}
    assert response["headers"] == {"Content-Encoding": ["gzip"]}


def test_a_page_keeps_the_host_of_the_api_alone() -> None:
    """The rest of it may say whose account it is."""
    body = filtered(gzip.compress(PAGE))["body"]["string"]
    assert b"octocat" not in body
    assert b"a-secret" not in body
    assert read_api_url(RawReply(200, {}, body), "https://github.com") == "https://api.business.githubcopilot.com"


def test_requests_are_recorded_without_credentials() -> None:
    """Each header that carries some is named to vcrpy, which takes no notice of upper and lower case."""
    assert vcr_config()["filter_headers"] == ["Authorization", "Cookie", "Proxy-Authorization", "Set-Cookie"]


@pytest.mark.parametrize("packed", [False, True], ids=["text", "base64"])
def test_a_cassette_of_betamax_is_filtered_alike(packed: bool) -> None:
    """Those of its bodies that it encodes as well."""

    def interaction(body: bytes) -> Any:
        encoded = {"base64_string": base64.b64encode(gzip.compress(body)).decode()}
        recorded = encoded if packed else {"string": body.decode()}
        return SimpleNamespace(
            data={
                "request": {"headers": {"Cookie": ["user_session=a-secret"], "Accept": ["*/*"]}},
                "response": {"headers": {"Content-Encoding": ["gzip"]}, "body": {"encoding": None, **recorded}},
            }
        )

    token, thread = interaction(TOKEN), interaction(b'{"thread_id": "t"}')
    unchanged = dict(thread.data["response"]["body"])
    filter_betamax_cassette(SimpleNamespace(interactions=[token, thread]))
    assert token.data == {
        "request": {"headers": {"Accept": ["*/*"]}},
        "response": {"headers": {}, "body": {"encoding": "utf-8", "string": '{"token": "recorded"}'}},
    }
    assert thread.data["response"] == {"headers": {"Content-Encoding": ["gzip"]}, "body": unchanged}


@pytest.fixture
def options(emulator: Emulator) -> Dict[str, Any]:
    return {"cookies": emulator.cookies, "github_url": emulator.github_url, "api_url": emulator.api_url, "timeout": 20}


def fetches(emulator: Emulator) -> int:
    return [request.path for request in emulator.requests].count("/github-copilot/chat/token")


def test_a_client_that_forgets_its_token_fetches_another(
    emulator: Emulator, options: Dict[str, Any], tmp_path: Path
) -> None:
    """Also if the token is in a file; one that was given can't be fetched and stays."""
    with Client(token_cache=tmp_path / "tokens", **options) as client:
        forget_tokens(client)
        for count in (1, 2):
            assert [client.ask("a").text for _ in range(2)] == ["a", "a"]
            assert fetches(emulator) == count
            forget_tokens(client)
    with Client(emulator.api_key, github_url=emulator.github_url, api_url=emulator.api_url) as client:
        forget_tokens(client)
        assert client.ask("b").text == "b"


def test_the_clients_behind_the_provider_forget_theirs(emulator: Emulator, options: Dict[str, Any]) -> None:
    """Nobody else can reach them."""
    messages = [{"role": "user", "content": "a"}]
    for count in (1, 2):
        for _ in range(2):
            assert GithubCopilot.create_completion("auto", messages, **options) == "a"
        assert fetches(emulator) == count
        forget_tokens()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_session_is_the_one_that_sends(kind: Any, options: Dict[str, Any]) -> None:
    """For tools that replay the requests of one session."""
    client: Union[Client, AsyncClient] = kind(**options)
    session = session_of(client)
    assert isinstance(session, requests.Session)
    assert session_of(client) is session
    session.close()


def test_the_filters_are_reached_from_the_package() -> None:
    """As other parts of it are."""
    assert copilot_sync.testing.vcr_config is vcr_config
    assert json.loads(filtered(TOKEN)["body"]["string"])["token"]
