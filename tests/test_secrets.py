"""No secret shows anywhere: one of each kind is planted in every input, and looked for in all that comes out.

What comes out is log records of all loggers, values as they print, and errors: their words and arguments, what they
carry, what caused them, how they pickle, and the variables of the frames that they came through.
"""

import asyncio
import json
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
import urllib3
from requests.cookies import RequestsCookieJar
from support import PATIENCE, Server, reserved_port
from urllib3.exceptions import InsecureRequestWarning

from copilot_sync import (
    AsyncClient,
    Client,
    CopilotError,
    GithubCopilot,
    NetworkError,
    ProtocolError,
    RetryPolicy,
    provider,
)
from copilot_sync.emulator import Emulator, Fault, RecordedRequest, Reply

COOKIE = "planted-cookie-value"
KEY = "planted-api-key"
TOKEN = "planted-token"
PASSWORD = "planted-password"
HELLO = [{"role": "user", "content": "Hello"}]

CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def faults(secret: str) -> Dict[str, Fault]:
    """What a server may do, on which any stage fails, with a secret that it was sent."""
    headers = {
        "X-Echo": secret,
        "X-GitHub-Request-Id": secret,
        "WWW-Authenticate": secret,
        "Content-Type": f"text/plain; charset={secret}",
        "Set-Cookie": f"echo={secret}",
        "Date": secret,
    }
    statuses = (400, 401, 402, 403, 404, 407, 409, 421, 422, 429, 500, 503, 599)
    wire = {
        "reason": f"HTTP/1.1 500 {secret}\r\nContent-Length: 0\r\n\r\n",
        "no HTTP": f"{secret}\r\n\r\n",
        "no field": f"HTTP/1.1 500 Oops\r\n{secret}\r\nContent-Length: 0\r\n\r\n",
        "encoding": f"HTTP/1.1 200 OK\r\nContent-Encoding: {secret}\r\nContent-Length: 3\r\n\r\nabc",
        "lengths": f"HTTP/1.1 200 OK\r\nContent-Length: 1, 2, {secret}\r\n\r\nabc",
        "chunk size": f"{CHUNKED}{secret}\r\n\r\n",
        "cut chunk": f"{CHUNKED}ff\r\n{secret}",
    }
    return {
        **{
            f"status {status}": Fault.status(status, message=f"bad: {secret}", headers=headers, retry_after=0)
            for status in statuses
        },
        **{name: Fault.wire(text.encode()) for name, text in wire.items()},
        "code": Fault.status(500, body={"error": {"code": secret}}, headers=headers),
        "plain text": Fault.status(500, body=f"bad: {secret}", headers=headers),
        "error page": Fault.garbage(f"<title>{secret}</title>", status=502, headers=headers),
        "redirect": Fault.redirect(f"https://{secret}:{secret}@elsewhere.example/{secret}?{secret}"),
        "redirect to login": Fault.redirect(f"/login?{secret}"),
        "page": Fault.garbage(f"<title>{secret}</title>"),
        "broken JSON": Fault.garbage(f'{{"echo": "{secret}', "application/json"),
        "other JSON": Fault.garbage(f'{{"echo": "{secret}"}}', "application/json"),
        "unsendable": Fault.garbage(f'{{"token": "{secret}\\n", "message": "{secret}"}}', "application/json"),
        "cut": Fault.cut(),
        "cut head": Fault.drop("in_headers"),
        "drop": Fault.drop(),
        "reset": Fault.drop(reset=True),
    }


FAULTS = list(faults(""))
#: Where the secret stands in the text of a reply, which may stand in the variables of what reads it.
BODIES = ("page", "broken JSON", "other JSON", "unsendable", "cut chunk")


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No variables of whoever runs the tests; everything is logged, by everyone."""
    monkeypatch.chdir(tmp_path)
    for name in ("API_KEY", "COOKIES", "GITHUB_URL", "API_URL", "MODEL", "TOKEN_CACHE"):
        monkeypatch.delenv(f"COPILOT_SYNC_{name}", raising=False)
    caplog.set_level(logging.DEBUG)
    yield
    provider._clients.close()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A service that knows the planted secrets."""
    with Emulator() as served:
        served.cookies["user_session"] = COOKIE
        served.options.accept_api_keys = (TOKEN, KEY)
        served.fail("token", granted())
        yield served


def granted() -> Fault:
    return Fault.status(200, body={"token": TOKEN}, headers={"Set-Cookie": f"user_session={COOKIE}; Path=/"})


def given(emulator: Emulator, **options: Any) -> Dict[str, Any]:
    urls = {"github_url": emulator.github_url, "api_url": emulator.api_url, "retry": None}
    return {**urls, "cookies": {"user_session": COOKIE}, **options}


def ask(options: Dict[str, Any]) -> None:
    with Client(**options) as client:
        client.ask("Hello")


def generate(options: Dict[str, Any]) -> None:
    list(GithubCopilot.create_generator("", HELLO, stream=True, **options))


def generate_async(options: Dict[str, Any]) -> None:
    async def run() -> None:
        async for _ in GithubCopilot.create_async_generator("", HELLO, stream=True, **options):
            pass

    asyncio.run(run())


def ask_async(options: Dict[str, Any]) -> None:
    async def run() -> None:
        async with AsyncClient(**options) as client:
            await client.ask("Hello")

    asyncio.run(run())


def complete(options: Dict[str, Any]) -> None:
    GithubCopilot.create_completion("", HELLO, **options)


FACES = [ask, ask_async, generate, generate_async, complete]


def chain(error: BaseException) -> List[BaseException]:
    """An error, what caused it, and what it came up in; suppressed or not."""
    found: List[BaseException] = []
    waiting: List[Any] = [error]
    while waiting:
        item = waiting.pop()
        if item is not None and item not in found:
            found.append(item)
            waiting += [item.__cause__, item.__context__]
    return found


def variables(error: BaseException) -> Iterator[str]:
    """Those of all frames that an error came through, but for the ones in this file."""
    for frame in traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), capture_locals=True):
        if frame.filename != __file__:
            yield from (
                f"{frame.filename}:{frame.name}: {name} = {text}" for name, text in (frame.locals or {}).items()
            )


def revelations(error: BaseException, frames: bool = True) -> List[str]:
    """What of an error shows a secret; ``frames`` says whether variables count."""
    texts: List[str] = []
    for item in chain(error):
        texts += [str(item), repr(item), repr(item.args), repr(vars(item))]
        texts += variables(item) if frames else []
        texts += [repr(pickle.dumps(item))] if isinstance(item, CopilotError) else []
    return [text for text in texts if "planted" in text]


def logged(caplog: pytest.LogCaptureFixture) -> List[str]:
    """What of the log shows a secret."""
    form = logging.Formatter()
    texts = [f"{record.name}: {form.format(record)} {record.args!r}" for record in caplog.records]
    assert [text for text in texts if text.startswith("urllib3")]
    return [text for text in texts if "planted" in text]


@pytest.mark.parametrize("face", [ask, generate_async])
@pytest.mark.parametrize("stage", ["token", "thread", "message"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_failure_shows_a_secret(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, face: Callable[[Dict[str, Any]], None], stage: str, fault: str
) -> None:
    """Even where the server says it all back: in its words, its reason, its header, its framing."""
    emulator._faults["token"].clear()
    emulator.fail(stage, *[faults(COOKIE if stage == "token" else TOKEN)[fault]] * 2)
    emulator.fail("token", granted(), granted())
    with pytest.raises(CopilotError) as caught:
        face(given(emulator))
    assert revelations(caught.value, frames=stage == "token" or fault not in BODIES) == []
    assert logged(caplog) == []
    assert emulator.leaks == []


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("stage", ["thread", "message"])
def test_no_failure_shows_a_given_key(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, face: Callable[[Dict[str, Any]], None], stage: str
) -> None:
    """Echoed or not, and whichever face asked."""
    emulator.fail(stage, faults(KEY)["status 500"])
    with pytest.raises(CopilotError) as caught:
        face(given(emulator, api_key=KEY, proxy="", cookies=None))
    assert revelations(caught.value) == []
    assert logged(caplog) == []


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    "reply",
    [
        Reply(error=TOKEN),
        Reply(error={"message": TOKEN, "code": TOKEN}),
        Reply(raw=f"data: {TOKEN}\n\n: {TOKEN}\n\nevent: {TOKEN}\n\n".encode()),
        Reply(raw=f'data: {{"type":"content","body":["{TOKEN}"]}}\n\n'.encode(), framing="close"),
    ],
    ids=["error event", "error code", "garbage", "odd content"],
)
def test_no_stream_shows_a_secret(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, face: Callable[[Dict[str, Any]], None], reply: Reply
) -> None:
    """What is wrong in one is told without quoting it."""
    emulator.script(reply)
    with pytest.raises(CopilotError) as caught:
        face(given(emulator))
    assert revelations(caught.value, frames=False) == []
    assert logged(caplog) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_no_search_for_an_answer_shows_a_secret(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """Nor the retries before it."""
    emulator.fail("message", Fault.drop(processed=False), Fault.drop(processed=False))
    emulator.fail("messages", *[faults(TOKEN)[fault]] * 4)
    emulator.fail("token", granted(), granted(), granted())
    with pytest.raises(CopilotError) as caught:
        ask(given(emulator, retry=RetryPolicy(attempts=2, base=0.0)))
    assert revelations(caught.value, frames=fault not in BODIES) == []
    assert logged(caplog) == []


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": "long"}, TypeError),
        ({"github_url": "ftp://github.com"}, ValueError),
        ({"github_url": f"https://user:{PASSWORD}@github.com"}, ValueError),
        ({"api_url": f"https://user:{PASSWORD}/more@api.example"}, ValueError),
        ({"api_url": [f"https://user:{PASSWORD}@api.example"]}, TypeError),
        ({"verify": "/no/such/file"}, ValueError),
        ({"token_cache": 5}, TypeError),
        ({"api_key": f"{KEY}\n"}, ValueError),
        ({"api_key": KEY.encode()}, TypeError),
        ({"proxy": f"http://user:{PASSWORD}@localhost:port"}, ValueError),
        ({"proxy": [f"http://user:{PASSWORD}@localhost"]}, TypeError),
        ({"cookies": {"user_session": f"{COOKIE}\n"}}, ValueError),
        ({"cookies": {"user_session": [COOKIE]}}, TypeError),
        ({"cookies": {"user_session": "", "other": COOKIE}}, CopilotError),
        ({"cookies": [{"name": "user_session", "value": COOKIE, "domain": "elsewhere.example"}]}, CopilotError),
        ({"cookies": f"{COOKIE}/{TOKEN}"}, CopilotError),
    ],
    ids=[
        "time-out",
        "URL",
        "URL with a password",
        "URL with a slash in its password",
        "URLs",
        "verify",
        "cache",
        "key",
        "key of bytes",
        "proxy",
        "proxies",
        "cookie",
        "odd cookie",
        "empty cookie",
        "foreign cookie",
        "no file",
    ],
)
def test_no_wrong_call_shows_a_secret(
    emulator: Emulator, face: Callable[[Dict[str, Any]], None], options: Dict[str, Any], error: type
) -> None:
    """Neither the wrong argument nor the right ones beside it."""
    beside = {"proxy": f"http://user:{PASSWORD}@localhost:1"}
    with pytest.raises(error) as caught:
        face({**given(emulator), **beside, **options})
    assert revelations(caught.value) == []


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("way", ["refused", "turned away", "no tunnel", "not HTTP"])
def test_no_proxy_shows_its_password(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, face: Callable[[Dict[str, Any]], None], way: str
) -> None:
    """Whether it is there or not, and whatever it says."""
    options = given(emulator)
    emulator._faults["token"].clear()
    place = emulator.github_url.partition("//")[2]
    if way == "no tunnel":
        options.update(github_url="https://github.invalid", api_url="https://api.invalid")
    elif way == "turned away":
        emulator.fail("unknown", Fault.status(407, message="go away"))
    elif way == "not HTTP":
        emulator.fail("unknown", Fault.wire(b"no\r\n\r\n"))
    with reserved_port() as port:
        if way == "refused":
            place = f"127.0.0.1:{port}"
        with pytest.raises(CopilotError) as caught:
            face({**options, "proxy": f"http://user:{PASSWORD}@{place}"})
    assert revelations(caught.value) == []
    assert logged(caplog) == []


def test_no_success_shows_a_secret(emulator: Emulator, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """All of the API, used and looked at; and an error of the caller's own on its way through it."""
    cache = tmp_path / "tokens.json"
    with Client(**given(emulator, token_cache=cache)) as client:
        chat = client.chat()
        answer = chat.ask("Hello")
        stream = chat.stream("Hello")
        pieces = list(stream)
        listed = [client.models(), client.threads(), client.messages(answer.conversation)]
        client.rename_thread(answer.conversation, "Name")
        client.delete_thread(answer.conversation)
        shown = [client, chat, stream, stream.answer, pieces, answer, answer.conversation, listed, client._session]
        with pytest.raises(ProtocolError) as caught:
            client.ask("Hello", on_start=fail)
    assert [text for text in map(repr, shown) if "planted" in text] == []
    values = [answer, stream.answer, listed]
    assert b"planted" not in pickle.dumps(values)
    assert revelations(caught.value) == []
    assert logged(caplog) == []
    assert TOKEN in cache.read_text()
    assert COOKIE not in cache.read_text()


def cookie_jar() -> CookieJar:
    jar = RequestsCookieJar()
    jar.set("user_session", COOKIE, domain="github.com", path="/")
    return jar


LISTED = [{"name": "user_session", "value": COOKIE, "domain": ".github.com", "expirationDate": 4102444800}]
NETSCAPE = f"# Netscape HTTP Cookie File\n.github.com\tTRUE\t/\tTRUE\t4102444800\tuser_session\t{COOKIE}\n"
HAR = {"log": {"entries": [{"request": {"url": "https://github.com/", "cookies": LISTED}}]}}

#: Each way to give credentials: the arguments, the variables, and the files that it needs.
WAYS: Dict[str, Tuple[Dict[str, Any], Dict[str, str], Dict[str, str]]] = {
    "a mapping": ({"cookies": {"user_session": COOKIE}}, {}, {}),
    "a jar": ({"cookies": cookie_jar()}, {}, {}),
    "a header": ({"cookies": f"Cookie: user_session={COOKIE}"}, {}, {}),
    "a list": ({"cookies": LISTED}, {}, {}),
    "a cookies.txt": ({"cookies": "cookies.txt"}, {}, {"cookies.txt": NETSCAPE}),
    "a JSON file": ({"cookies": Path("cookies.json")}, {}, {"cookies.json": json.dumps(LISTED)}),
    "a variable": ({}, {"COPILOT_SYNC_COOKIES": f"user_session={COOKIE}"}, {}),
    "a file's variable": ({}, {"COPILOT_SYNC_COOKIES": "cookies.txt"}, {"cookies.txt": NETSCAPE}),
    "a HAR file": ({}, {"COPILOT_SYNC_COOKIES": "exports"}, {"exports/github.com.har": json.dumps(HAR)}),
    "a key": ({"api_key": KEY}, {}, {}),
    "a key's variable": ({}, {"COPILOT_SYNC_API_KEY": KEY}, {}),
    "a cached token": (
        {"cookies": {"user_session": COOKIE}},
        {"COPILOT_SYNC_TOKEN_CACHE": "tokens.json"},
        {"tokens.json": json.dumps({"other": {"value": TOKEN, "until": 4102444800}, "broken": TOKEN})},
    ),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dict[str, Any]]:
    """The arguments of one way to give credentials; nothing but what it needs has a secret in a file at the end."""
    arguments, variables, files = WAYS[request.param]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    yield arguments
    written = [path for path in tmp_path.rglob("*") if path.is_file() and b"planted" in path.read_bytes()]
    assert sorted(str(path.relative_to(tmp_path)) for path in written) == sorted(files)


@pytest.mark.parametrize("face", FACES)
def test_no_way_to_give_credentials_shows_them_when_all_is_well(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, face: Callable[[Dict[str, Any]], None], way: Dict[str, Any]
) -> None:
    """In the log, nor in any file that was not there before."""
    face({**given(emulator, cookies=None), **way})
    assert emulator.requests[-1].stage == "message"
    assert logged(caplog) == []


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("stage", ["token", "message"])
def test_no_way_to_give_credentials_shows_them_when_they_are_refused(
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
    face: Callable[[Dict[str, Any]], None],
    stage: str,
    way: Dict[str, Any],
) -> None:
    """The server says back what it was sent; where there is a key, it is not the token that is refused first."""

    def echo(asked: str, request: RecordedRequest) -> Optional[Fault]:
        sent = request.headers.get("authorization") or request.headers["cookie"]
        return faults(sent)["status 400"] if stage in (asked, "token") else None

    if stage == "token":
        emulator._faults["token"].clear()
    emulator.choose_fault = echo
    with pytest.raises(CopilotError) as caught:
        face({**given(emulator, cookies=None), **way})
    assert revelations(caught.value) == []
    assert logged(caplog) == []


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    "content",
    [f'{{"user_session": "{COOKIE}"', f"{COOKIE} of nothing", f'[{{"name": "user_session", "value": ["{COOKIE}"]}}]'],
    ids=["broken JSON", "no format", "odd list"],
)
def test_no_file_of_cookies_that_cannot_be_read_shows_them(
    emulator: Emulator, face: Callable[[Dict[str, Any]], None], content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is wrong with it is told without quoting it."""
    Path("cookies.txt").write_text(content)
    with pytest.raises((ValueError, CopilotError)) as caught:
        face(given(emulator, cookies="cookies.txt"))
    assert revelations(caught.value) == []
    assert [record for record in caplog.records if "planted" in record.getMessage()] == []


@pytest.mark.parametrize("face", FACES)
def test_no_proxy_of_the_environment_shows_its_password(
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
    face: Callable[[Dict[str, Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is the libraries below that read it."""
    with reserved_port() as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{port}")
        with pytest.raises(NetworkError) as caught:
            face(given(emulator))
    assert revelations(caught.value) == []
    assert logged(caplog) == []


def functions_of(thread: threading.Thread) -> List[str]:
    """The names of the functions that a thread is in."""
    return [frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._current_frames()[thread.ident or 0])]


class StoppedError(Exception):
    """What the handler of a signal raises: the time limit of a task queue, say."""


@pytest.mark.parametrize("way", ["direct", "proxy"])
@pytest.mark.parametrize("stage", ["token", "thread", "message"])
def test_no_foreign_frame_shows_a_secret_while_a_reply_is_waited_for(emulator: Emulator, stage: str, way: str) -> None:
    """A report of an error that is none of ours has the variables of the libraries below in it."""

    def stop(*_: object) -> None:
        raise StoppedError

    proxy = f"http://me:{PASSWORD}@{emulator.api_url.partition('//')[2]}" if way == "proxy" else None
    emulator._faults["token"].clear()
    if proxy:  # as another server that never answers
        emulator.fail("unknown", Fault.stall("before_headers"))
        stage = "proxy"
    elif stage == "token":
        emulator.fail("token", Fault.stall("before_headers"))
    else:
        emulator.fail("token", granted())
        emulator.fail(stage, Fault.stall("before_headers"))
    before = signal.signal(signal.SIGUSR1, stop)

    def strike() -> None:
        emulator.wait_until(lambda: emulator.stalled)
        end = time.monotonic() + PATIENCE
        while "_read_status" not in functions_of(threading.main_thread()) and time.monotonic() < end:
            time.sleep(0.001)  # pragma: no cover - where the reply is not waited for yet
        os.kill(os.getpid(), signal.SIGUSR1)

    striking = threading.Thread(target=strike)
    striking.start()
    try:
        with pytest.raises(StoppedError) as caught:
            ask(given(emulator, proxy=proxy))
    finally:
        striking.join()
        signal.signal(signal.SIGUSR1, before)
    assert [text for text in variables(caught.value) if "http/client.py" in text]
    assert revelations(caught.value) == []


@pytest.mark.skipif(urllib3.__version__.startswith("1."), reason="there, http.client keeps the joined bytes itself")
def test_no_foreign_frame_shows_a_secret_while_a_request_is_sent() -> None:
    """All of its head is in one variable of the libraries below then."""

    def stop(*_: object) -> None:
        raise StoppedError

    def strike() -> None:
        end = time.monotonic() + PATIENCE
        while "sendall" not in functions_of(threading.main_thread()) and time.monotonic() < end:
            time.sleep(0.001)  # pragma: no cover - where nothing is sent yet
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    striking = threading.Thread(target=strike)
    # TLS, because there the frame that sends is one of Python's; and more than any buffer of the system takes.
    with Server(lambda peer: peer.wait_closed(), tls=True) as server, Client(
        TOKEN, api_url=server.url, verify=False
    ) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureRequestWarning)
        striking.start()
        try:
            with pytest.raises(StoppedError) as caught:
                client.ask("x" * 30_000_000, conversation="a", parent_message_id="root")
        finally:
            striking.join()
            signal.signal(signal.SIGUSR1, before)
    assert [text for text in variables(caught.value) if "http/client.py" in text]
    assert revelations(caught.value) == []


def fail(conversation: object) -> None:
    raise ProtocolError("of the caller's own")


@pytest.mark.parametrize("face", FACES)
def test_credentials_reach_their_host_alone(emulator: Emulator, face: Callable[[Dict[str, Any]], None]) -> None:
    """On the wire: cookies at github_url, the token at api_url, and cookies that a reply sets go nowhere."""
    emulator.script(Reply("Hello", headers={"Set-Cookie": f"api={TOKEN}; Path=/"}))
    emulator.fail("token", granted())
    face(given(emulator))
    face(given(emulator))
    assert emulator.leaks == []
    for request in emulator.requests:
        cookie, bearer = request.headers.get("cookie"), request.headers.get("authorization")
        wanted = (f"user_session={COOKIE}", None) if request.host == "github" else (None, f"GitHub-Bearer {TOKEN}")
        assert (cookie, bearer) == wanted
    assert {request.host for request in emulator.requests} == {"github", "api"}


@pytest.mark.parametrize("face", FACES)
def test_a_netrc_changes_nothing(
    emulator: Emulator, face: Callable[[Dict[str, Any]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its passwords stay where they are, and our headers what they are."""
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1\nlogin user\npassword {PASSWORD}\ndefault login user password {PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    face(given(emulator))
    assert [request.stage for request in emulator.requests] == ["token", "thread", "message"]
    assert [request.headers.get("authorization") for request in emulator.requests] == [
        None,
        f"GitHub-Bearer {TOKEN}",
        f"GitHub-Bearer {TOKEN}",
    ]
    assert emulator.leaks == []
