"""Tools that replay requests, as they are: what they replay is not asked, and what they recorded is."""

import asyncio
import base64
import binascii
import contextlib
import gzip
import http.server
import re
import socket
import subprocess
import threading
import zlib
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, NamedTuple, Tuple

import betamax
import httpretty
import pook
import pytest
import requests_mock
import responses
import vcr
from blocks import DOCS, text_with
from responses._recorder import Recorder
from support import PATIENCE

from copilot_sync import AsyncClient, Client
from copilot_sync.emulator import Emulator
from copilot_sync.testing import filter_betamax_cassette, forget_tokens, session_of, vcr_config

EVENTS = 'data: {"type":"content","body":"replayed"}\n\ndata: {"type":"complete","id":"1"}\n\n'


def options_of(emulator: Emulator) -> Dict[str, Any]:
    urls = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    return {"cookies": emulator.cookies, "retry": None, "timeout": 20, **urls}


def client_of(emulator: Emulator) -> Client:
    return Client(**options_of(emulator))


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator) as made:
        yield made


def test_a_cassette_is_recorded_and_replayed(emulator: Emulator, client: Client, tmp_path: Path) -> None:
    """By a client that was used before, and by a new one; afterwards both ask again."""
    cassette = str(tmp_path / "cassette.yaml")
    assert client.ask("before").text == "before"
    with vcr.use_cassette(cassette):
        with client_of(emulator) as recorded:
            assert recorded.ask("recorded").text == "recorded"
    asked = len(emulator.requests)
    with vcr.use_cassette(cassette, record_mode="none", allow_playback_repeats=True):
        with client_of(emulator) as new:
            assert new.ask("recorded").text == "recorded"
            assert client.ask("recorded").text == "recorded"
        assert len(emulator.requests) == asked
    assert client.ask("after").text == "after"
    assert new.ask("after").text == "after"
    new.close()


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # of httpretty, since Python 3.12
def test_replayed_sockets_will_do(emulator: Emulator, client: Client) -> None:
    """TLS as well; closing a client in the middle is nothing special."""
    assert client.ask("before").text == "before"
    asked = len(emulator.requests)
    with httpretty.enabled(verbose=False, allow_net_connect=True):
        threads = "https://api.individual.githubcopilot.com/github/chat/threads"
        httpretty.register_uri("POST", threads, body='{"thread_id": "t"}')
        httpretty.register_uri("POST", f"{threads}/t/messages", body=EVENTS, content_type="text/event-stream")
        with Client("key", retry=None, timeout=20) as replayed:
            assert replayed.ask("never").text == "replayed"
        client.close()
    assert len(emulator.requests) == asked
    assert client.ask("after").text == "after"


def mocked(urls: Any) -> List[Tuple[str, str, str]]:
    """The URLs of a question, what is replied there, and its type."""
    threads = f"{urls.api_url}/github/chat/threads"
    return [
        (f"{urls.github_url}/github-copilot/chat/token", '{"token": "t"}', "application/json"),
        (threads, '{"thread_id": "t"}', "application/json"),
        (f"{threads}/t/messages", EVENTS, "text/event-stream"),
    ]


@contextlib.contextmanager
def by_responses(urls: Any) -> Iterator[None]:
    with responses.RequestsMock() as mock:
        for url, body, kind in mocked(urls):
            mock.post(url, body=body, content_type=kind)
        yield


@contextlib.contextmanager
def by_requests_mock(urls: Any) -> Iterator[None]:
    with requests_mock.Mocker() as mock:
        for url, body, kind in mocked(urls):
            mock.post(url, text=body, headers={"Content-Type": kind})
        yield


@contextlib.contextmanager
def by_httpretty(urls: Any) -> Iterator[None]:
    with httpretty.enabled(verbose=False, allow_net_connect=True):
        for url, body, kind in mocked(urls):
            httpretty.register_uri("POST", url, body=body, content_type=kind)
        yield


@contextlib.contextmanager
def by_pook(urls: Any) -> Iterator[None]:
    with pook.use():
        for url, body, kind in mocked(urls):
            pook.post(url, reply=200, response_body=body, response_type=kind, persist=True)
        yield


Tool = Callable[[Any], ContextManager[None]]
MOCKS = pytest.mark.parametrize("mock", [by_responses, by_requests_mock, by_httpretty, by_pook])
OF_HTTPRETTY = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # since Python 3.12


@OF_HTTPRETTY
@MOCKS
def test_what_a_tool_replies_is_not_asked(emulator: Emulator, client: Client, mock: Tool) -> None:
    """Of a client that was used before and of a new one, which both ask when the tool is off."""
    assert client.ask("before").text == "before"
    with client_of(emulator) as other:
        with mock(emulator):
            forget_tokens(client)
            asked = len(emulator.requests)
            for each in (client, other):
                assert each.ask("never").text == "replayed"
            assert len(emulator.requests) == asked
        for each in (client, other):
            assert each.ask("after").text == "after"


@OF_HTTPRETTY
@MOCKS
def test_what_a_tool_replies_reaches_an_event_loop(emulator: Emulator, mock: Tool) -> None:
    """There a question needs no thread if its connection waits, and must not pass the tool by."""

    async def ask() -> List[str]:
        async with AsyncClient(**options_of(emulator)) as client:
            texts = [(await client.ask("before")).text]
            with mock(emulator):
                forget_tokens(client)
                texts += [(await client.ask("never")).text for _ in range(2)]
            return [*texts, (await client.ask("after")).text]

    assert asyncio.run(ask()) == ["before", "replayed", "replayed", "after"]


class TlsHosts(NamedTuple):
    github_url: str = "https://localhost:1"
    api_url: str = "https://localhost:2"


@OF_HTTPRETTY
@MOCKS
def test_no_connection_is_made_while_a_tool_replies(monkeypatch: pytest.MonkeyPatch, mock: Tool) -> None:
    """A client connects ahead to the host of the API while it fetches a token. Nobody is to be connected to here."""
    connected: List[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: connected.append(address))
    with mock(TlsHosts()), Client(cookies="user_session=a", retry=None, **TlsHosts()._asdict()) as client:
        assert client.ask("never").text == "replayed"
    assert connected == []


@contextlib.contextmanager
def vcr_of(client: Any, folder: Path, replays: bool, **options: Any) -> Iterator[None]:
    place = str(folder / "cassette")
    with vcr.use_cassette(place, record_mode="none" if replays else "once", **vcr_config(), **options):
        yield


@contextlib.contextmanager
def vcr_json_of(client: Any, folder: Path, replays: bool) -> Iterator[None]:
    with vcr_of(client, folder, replays, serializer="json"):
        yield


@contextlib.contextmanager
def betamax_of(client: Any, folder: Path, replays: bool, **options: Any) -> Iterator[None]:
    with betamax.Betamax.configure() as config:
        config.before_stop(callback=filter_betamax_cassette)
    recorder = betamax.Betamax(session_of(client), cassette_library_dir=str(folder))
    with recorder.use_cassette("cassette", record="none" if replays else "once", **options):
        yield


@contextlib.contextmanager
def exact_betamax_of(client: Any, folder: Path, replays: bool) -> Iterator[None]:
    with betamax_of(client, folder, replays, preserve_exact_body_bytes=True):
        yield


Recording = Callable[[Any, Path, bool], ContextManager[None]]
OF_BETAMAX = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
RECORDERS = pytest.mark.parametrize("recording", [vcr_of, vcr_json_of, betamax_of, exact_betamax_of])


def texts_in(content: bytes) -> Iterator[bytes]:
    """A text, and all that is hidden in it by base64, gzip or both."""
    yield content
    for found in re.findall(rb"[A-Za-z0-9+/\s]{16,}={0,2}", content):
        with contextlib.suppress(binascii.Error):
            inner = base64.b64decode(re.sub(rb"\s", b"", found), validate=True)
            yield inner
            with contextlib.suppress(zlib.error):
                yield zlib.decompress(inner, 32 + zlib.MAX_WBITS)


def test_a_secret_is_found_however_it_is_packed() -> None:
    """Else the tests below would prove nothing."""
    packed = base64.b64encode(gzip.compress(b"a-secret")).decode()
    assert [b"a-secret" in b"".join(texts_in(f"body: {text}".encode())) for text in ("a-secret", packed)] == [
        True,
        True,
    ]


@pytest.fixture
def github(emulator: Emulator) -> Iterator[str]:
    """A github.com that packs the reply with the token, and sets a cookie with it."""
    emulator.options.accept_api_keys = ("a-secret-token",)

    class Github(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = gzip.compress(b'{"token": "a-secret-token"}')
            self.send_response(200)
            for name, value in {"Content-Encoding": "gzip", "Set-Cookie": "user_session=a-secret-cookie"}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Github) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def forbid_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was about to be made")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@OF_BETAMAX
@RECORDERS
@pytest.mark.parametrize("used_before", [False, True], ids=["a new client", "one that was used before"])
@pytest.mark.parametrize("packs", [False, True], ids=["plain", "gzip"])
def test_a_record_holds_no_secret_and_can_be_replayed(
    emulator: Emulator,
    github: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recording: Recording,
    used_before: bool,
    packs: bool,
) -> None:
    """With the service gone, by a client that knows other cookies. Afterwards it asks the service again."""
    cookies = {"user_session": "a-secret-cookie"} if packs else emulator.cookies
    options = {**options_of(emulator), "cookies": cookies, **({"github_url": github} if packs else {})}
    with Client(**options) as client:
        if used_before:
            assert client.ask("before").text == "before"
            forget_tokens(client)
        with recording(client, tmp_path, False):
            assert [client.ask(text).text for text in ("first", "second")] == ["first", "second"]
    (cassette,) = tmp_path.iterdir()
    tokens = {str(request.headers.get("authorization")).split()[-1] for request in emulator.requests} - {"None"}
    assert tokens
    for secret in (*tokens, *cookies.values()):
        assert not any(secret.encode() in text for text in texts_in(cassette.read_bytes()))
    asked = len(emulator.requests)
    with monkeypatch.context() as patched, Client(**{**options, "cookies": "user_session=other"}) as client:
        forbid_connections(patched)
        with recording(client, tmp_path, True):
            assert [client.ask(text).text for text in ("first", "second")] == ["first", "second"]
    assert len(emulator.requests) == asked


@OF_BETAMAX
@RECORDERS
def test_an_event_loop_records_and_replays(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: Recording
) -> None:
    """Its second question would need no thread, and must not pass the recorder by."""

    async def ask(replays: bool) -> List[str]:
        async with AsyncClient(**options_of(emulator)) as client:
            with recording(client, tmp_path, replays):
                return [(await client.ask(text)).text for text in ("first", "second")]

    assert asyncio.run(ask(False)) == ["first", "second"]
    asked = len(emulator.requests)
    forbid_connections(monkeypatch)
    assert asyncio.run(ask(True)) == ["first", "second"]
    assert len(emulator.requests) == asked


def test_the_token_of_a_record_is_no_token_afterwards(emulator: Emulator, client: Client, tmp_path: Path) -> None:
    """The service refuses it, and the client fetches another without losing the question."""
    for replays in (False, True):
        with vcr_of(client, tmp_path, replays):
            forget_tokens(client)
            assert client.ask("recorded").text == "recorded"
    assert client.ask("after").text == "after"


def test_the_recorder_of_responses_records_and_replays(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no filter: with a token that was given it meets no secret."""
    options = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    cassette = tmp_path / "cassette.yaml"
    with Recorder() as recorder, Client(emulator.api_key, **options) as client:
        assert client.ask("recorded").text == "recorded"
        recorder.dump_to_file(cassette)
    assert not any(emulator.api_key.encode() in text for text in texts_in(cassette.read_bytes()))
    forbid_connections(monkeypatch)
    with responses.RequestsMock() as mock, Client("another", **options) as client:
        mock._add_from_file(cassette)
        assert client.ask("recorded").text == "recorded"


UNMARKED = """

def test_unmarked():
    question = [{"role": "user", "content": "unmarked"}]
    for _ in range(2):
        assert GithubCopilot.create_completion("auto", question) == "unmarked"
"""


@OF_BETAMAX
@pytest.mark.parametrize("tool", ["vcr", "betamax", "responses"])
def test_the_page_about_records_runs(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    """Each of its blocks, as it stands; a cassette is replayed when the block runs again."""
    monkeypatch.chdir(tmp_path)
    block = text_with(f"import {tool}\n", DOCS / "testing.rst", "python")
    if tool != "responses":
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
    for _ in range(2):
        exec(block, {})
    assert len(emulator.requests) == (0 if tool == "responses" else 3)


@pytest.mark.parametrize("order", [("marked", "unmarked"), ("unmarked", "marked")], ids=" first, ".join)
def test_pytest_recording_takes_tests_in_any_order(
    start: Callable[..., Any], emulator: Emulator, tmp_path: Path, order: Tuple[str, str]
) -> None:
    """A test that was recorded in one order is replayed in the other, and alone, while the network is blocked."""
    program = tmp_path / "test_answers.py"
    block = text_with("@pytest.mark.vcr", DOCS / "testing.rst", "python")
    program.write_text(block.replace("def test_an_answer_is_short", "def test_marked") + UNMARKED)
    tmp_path.joinpath("pytest.ini").write_text("[pytest]")

    def passes(*arguments: str) -> bool:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = start(["-m", "pytest", "-q", "-p", "no:randomly", *arguments], cwd=tmp_path, **output)
        said, _ = process.communicate(timeout=6 * PATIENCE)
        print(said)
        return bool(process.returncode == 0)

    first, second = (f"{program}::test_{name}" for name in order)
    assert passes("--record-mode=once", first, second)
    cassette = (tmp_path / "cassettes" / "test_answers" / "test_marked.yaml").read_bytes()
    assert not any(value.encode() in cassette for value in emulator.cookies.values())
    assert len(emulator.requests) == 8
    assert passes(second, first)
    assert len(emulator.requests) == 13
    assert passes("--block-network", f"{program}::test_marked")
    assert len(emulator.requests) == 13
