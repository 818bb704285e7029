"""The clients compared. Each asks for an answer and hands out its text, piece by piece, as it arrives.

They do the same work: a JSON object is read from each event, its text handed out, the reply read to its end, so that
the connection can be used again. Where no key is given, they exchange cookies for a token first, and keep it, but for
the asynchronous provider, whose shape is a session and a token for each call.

The libraries are imported when their client is made, and untyped, because they may not be there.
"""

import functools
import http.client
import importlib
import inspect
import json
import ssl
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, AsyncGenerator, Callable, Dict, Iterator, List, Optional, Union
from urllib.parse import urlsplit

from benchmarks.plans import Plan

if TYPE_CHECKING:
    import copilot_sync

THREAD = "11111111-2222-3333-4444-777777777777"
COOKIES = {"user_session": "session"}
_TOKEN_PATH = "/github-copilot/chat/token"
_THREADS_PATH = "/github/chat/threads"
#: More connections than any question has streams.
_CONNECTIONS = 1024
#: Seconds of silence that clients without a limit of their own are told to allow.
SILENCE = 60.0


@dataclass(frozen=True)
class Target:
    """Where the server is.

    Attributes:
        github: The base URL for tokens.
        api: The base URL for everything else.
        api_key: A token to use as it is; ``None`` to exchange cookies for one.
        authority: The file of the CA that signed the server's certificate, where it speaks TLS.
    """

    github: str
    api: str
    api_key: Optional[str] = "key"
    authority: Optional[str] = None


class Client:
    """A blocking client.

    Args:
        target: The server. A client belongs to one.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._token = target.api_key

    def pieces(self, plan: Plan, known: bool) -> Iterator[str]:
        """Ask in a known conversation or in a new one, and yield the text."""
        if self._token is None:
            self._token = str(self.post(self.target.github + _TOKEN_PATH, _cookie_header())["token"])
        headers = _token_header(self._token)
        thread = THREAD if known else self.post(self.target.api + _THREADS_PATH, headers)["thread_id"]
        url = f"{self.target.api}{_THREADS_PATH}/{thread}/messages"
        for data in self.events(url, headers, _body(plan)):
            event = json.loads(data)
            if event["type"] == "content":
                yield event["body"]

    def batch(self, plan: Plan, count: int, threads: int) -> List[str]:
        """Ask so often in new conversations, with so many threads, and give the texts."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda _: "".join(self.pieces(plan, False)), range(count)))

    def post(self, url: str, headers: Dict[str, str]) -> Any:
        """Send a request without a body, and give the JSON of its reply."""
        raise NotImplementedError

    def events(self, url: str, headers: Dict[str, str], body: Dict[str, Any]) -> "Iterator[Any]":
        """Send JSON, and yield the data of the events that come."""
        raise NotImplementedError


class AsyncClient:
    """A client for asyncio."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def pieces(self, plan: Plan, known: bool) -> "AsyncGenerator[str, None]":
        """Ask in a known conversation or in a new one, and yield the text."""
        raise NotImplementedError


def _cookie_header() -> Dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in COOKIES.items()), "Accept": "application/json"}


def _token_header(token: str) -> Dict[str, str]:
    return {"Authorization": f"GitHub-Bearer {token}"}


def _body(plan: Plan) -> Dict[str, Any]:
    return {
        "content": plan.prompt(),
        "intent": "conversation",
        "references": [],
        "context": [],
        "currentURL": f"https://github.com/copilot/c/{THREAD}",
        "streaming": True,
        "confirmations": [],
        "customInstructions": [],
        "model": "gpt-4o",
        "mode": "immersive",
    }


# Ours


class Ours(Client):
    """``copilot_sync``, blocking."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._client = _our_client(target)

    def pieces(self, plan: Plan, known: bool) -> Iterator[str]:
        return self.stream(plan, known)

    def stream(self, plan: Plan, known: bool) -> "copilot_sync.Stream":
        """Ask, and give all that the client gives."""
        stream: copilot_sync.Stream = self._client.stream(
            plan.prompt(), conversation=_conversation() if known else None
        )
        return stream

    def batch(self, plan: Plan, count: int, threads: int) -> List[str]:
        import copilot_sync.batch

        prompts = [plan.prompt()] * count
        return [result.text for result in copilot_sync.batch.run(prompts, client=self._client, workers=threads)]


class OursAsync(AsyncClient):
    """``copilot_sync`` through its asynchronous face."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._client = _our_client(target, "AsyncClient")

    def pieces(self, plan: Plan, known: bool) -> Any:
        stream = self._client.stream(plan.prompt(), conversation=_conversation() if known else None)
        if hasattr(stream, "__aiter__"):
            return stream
        from copilot_sync.aio import iterate_stream  # a checkout without an asynchronous client

        return iterate_stream(stream)


def _conversation() -> "copilot_sync.Conversation":
    """A conversation whose last message is known, as each but a program's first call has it: nothing is looked up."""
    import copilot_sync

    return copilot_sync.Conversation.from_dict({"conversation_id": THREAD, "message_id": "root"})


def _our_client(target: Target, kind: str = "Client") -> Any:
    import copilot_sync

    new = getattr(copilot_sync, kind, copilot_sync.Client)
    return new(
        target.api_key,
        cookies=None if target.api_key else COOKIES,
        github_url=target.github,
        api_url=target.api,
        verify=target.authority or True,
        limits=copilot_sync.Limits(event=1 << 30, answer=1 << 30),
    )


# The floor


class Floor(Client):
    """The least that can be done with the standard library: ``http.client``, ``read1``, a split, ``json``."""

    #: Seconds of silence allowed. Without any, a read is one call of the system less, and may last for ever.
    timeout: Optional[float] = None

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._context = ssl.create_default_context(cafile=target.authority) if target.authority else None
        self._local = threading.local()

    def post(self, url: str, headers: Dict[str, str]) -> Any:
        return json.loads(self._requested(url, headers, b"").read())

    def _requested(self, url: str, headers: Dict[str, str], body: bytes) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        connection = self._connection(parts.netloc)
        connection.request("POST", parts.path, body, headers)
        return connection.getresponse()

    def _connection(self, place: str) -> http.client.HTTPConnection:
        """A connection for each thread and host, which connects again where it was closed."""
        known: Dict[str, http.client.HTTPConnection] = self._local.__dict__
        if place not in known:
            known[place] = (
                http.client.HTTPSConnection(place, timeout=self.timeout, context=self._context)
                if self._context
                else http.client.HTTPConnection(place, timeout=self.timeout)
            )
        return known[place]

    def events(self, url: str, headers: Dict[str, str], body: Dict[str, Any]) -> Iterator[bytes]:
        content = json.dumps(body).encode()
        with self._requested(url, {**headers, "Content-Type": "application/json"}, content) as response:
            yield from self._data(response)

    def _data(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        unpacked: Callable[[bytes], bytes] = bytes
        if response.getheader("Content-Encoding") == "gzip":
            unpacked = zlib.decompressobj(wbits=31).decompress
        unfinished: List[bytes] = []
        while True:
            arrived = response.read1(65536)
            if not arrived:
                return
            data = unpacked(arrived)
            if b"\n" not in data:
                unfinished.append(data)
                continue
            lines = (b"".join(unfinished) + data).split(b"\n")
            unfinished = [lines.pop()]
            for line in lines:
                if line.startswith(b"data: "):
                    yield line[6:]


class TimedFloor(Floor):
    """The same with a time-out, which all clients but the floor have."""

    timeout = SILENCE


class Reads(Floor):
    """What reads with a time-out cost by themselves: the text is cut out where it stands, and nothing understood."""

    timeout = SILENCE

    def pieces(self, plan: Plan, known: bool) -> Iterator[str]:
        parts = urlsplit(self.target.api)
        connection = self._connection(parts.netloc)
        headers = {**_token_header(str(self._token)), "Content-Type": "application/json"}
        connection.request("POST", f"{_THREADS_PATH}/{THREAD}/messages", json.dumps(_body(plan)).encode(), headers)
        unfinished, left = b"", plan.events
        while left:
            *events, unfinished = (unfinished + connection.sock.recv(65536)).split(b"\n\n")
            texts = [event.partition(b'"body":"')[2].partition(b'"')[0].decode() for event in events]
            yield from texts[:left]
            left -= len(texts[:left])
        connection.close()  # there is more to come, which the next one would read


# Libraries


class _Requests(Client):
    """A session of ``requests``, kept."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        requests: Any = importlib.import_module("requests")
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._options = {"verify": target.authority or True, "timeout": SILENCE}

    def post(self, url: str, headers: Dict[str, str]) -> Any:
        return self._session.post(url, headers=headers, **self._options).json()

    def _opened(self, url: str, headers: Dict[str, str], body: Dict[str, Any]) -> Any:
        return self._session.post(url, headers=headers, json=body, stream=True, **self._options)


class RequestsLines(_Requests):
    """``requests`` and its ``iter_lines``."""

    def events(self, url: str, headers: Dict[str, str], body: Dict[str, Any]) -> Iterator[bytes]:
        with self._opened(url, headers, body) as response:
            for line in response.iter_lines():
                if line.startswith(b"data: "):
                    yield line[6:]


class RequestsSse(_Requests):
    """``requests`` and ``sseclient-py`` as its page shows them."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._sse: Any = importlib.import_module("sseclient").SSEClient

    def events(self, url: str, headers: Dict[str, str], body: Dict[str, Any]) -> Iterator[str]:
        with self._opened(url, headers, body) as response:
            for event in self._sse(response).events():
                yield event.data


class Httpx(Client):
    """``httpx`` and ``httpx-sse``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        httpx: Any = importlib.import_module("httpx")
        self._sse: Any = importlib.import_module("httpx_sse")
        verify = ssl.create_default_context(cafile=target.authority) if target.authority else True
        self._client = httpx.Client(verify=verify, limits=httpx.Limits(max_connections=_CONNECTIONS), timeout=SILENCE)

    def post(self, url: str, headers: Dict[str, str]) -> Any:
        return self._client.post(url, headers=headers).json()

    def events(self, url: str, headers: Dict[str, str], body: Dict[str, Any]) -> Iterator[str]:
        with self._sse.connect_sse(self._client, "POST", url, headers=headers, json=body) as source:
            for event in source.iter_sse():
                yield event.data


class AioHttp(AsyncClient):
    """``aiohttp`` in the shape of a provider: a session for each call, and the lines of the reply."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._aiohttp: Any = importlib.import_module("aiohttp")
        self._ssl = ssl.create_default_context(cafile=target.authority) if target.authority else True

    async def pieces(self, plan: Plan, known: bool) -> "AsyncGenerator[str, None]":
        api, token = self.target.api + _THREADS_PATH, self.target.api_key
        connector = self._aiohttp.TCPConnector(ssl=self._ssl, limit=0)
        async with self._aiohttp.ClientSession(connector=connector) as session:
            if token is None:
                token = (await self._posted(session, self.target.github + _TOKEN_PATH, _cookie_header()))["token"]
            headers = _token_header(token)
            thread = THREAD if known else (await self._posted(session, api, headers))["thread_id"]
            async with session.post(f"{api}/{thread}/messages", headers=headers, json=_body(plan)) as response:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        event = json.loads(line[6:])
                        if event["type"] == "content":
                            yield event["body"]

    async def _posted(self, session: Any, url: str, headers: Dict[str, str]) -> Any:
        async with session.post(url, headers=headers) as response:
            return await response.json()


class OpenAi(Client):
    """``openai``, blocking, on as many events with the same text in its own form."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        openai: Any = importlib.import_module("openai")
        self._client = openai.OpenAI(base_url=target.api + "/v1", api_key=target.api_key or "key", max_retries=0)

    def pieces(self, plan: Plan, known: bool) -> Iterator[str]:
        messages = [{"role": "user", "content": plan.prompt()}]
        stream = self._client.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
        for chunk in stream:
            text = chunk.choices[0].delta.content
            if text:
                yield text


# gpt4free, which knows the hosts by heart


class G4f(AsyncClient):
    """gpt4free's own provider of the same name."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._provider = _g4f_provider()

    def pieces(self, plan: Plan, known: bool) -> "AsyncGenerator[str, None]":
        _reroute(self.target)
        messages = [{"role": "user", "content": plan.prompt()}]
        return self._provider.create_async_generator(  # type: ignore[no-any-return]
            "gpt-4o", messages, stream=True, **_g4f_options(self.target, known)
        )


class G4fBlocking(Client):
    """gpt4free's blocking client with that provider."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        client = importlib.import_module("g4f.client").Client(provider=_g4f_provider())
        self._create = client.chat.completions.create

    def pieces(self, plan: Plan, known: bool) -> Iterator[str]:
        _reroute(self.target)
        messages = [{"role": "user", "content": plan.prompt()}]
        for chunk in self._create(messages, "gpt-4o", stream=True, **_g4f_options(self.target, known)):
            text = chunk.choices[0].delta.content
            if text:
                yield text


def _g4f_options(target: Target, known: bool) -> Dict[str, Any]:
    return {
        "api_key": target.api_key,
        "cookies": COOKIES,
        "conversation_id": THREAD if known else None,
        "return_conversation": False,
    }


def _g4f_provider() -> Any:
    return importlib.import_module("g4f.Provider.needs_auth.GithubCopilot").GithubCopilot


def _reroute(target: Target) -> None:
    """Have what ``aiohttp`` sends from here on to the real hosts go to a server of ours."""
    session: Any = importlib.import_module("aiohttp").ClientSession
    request = inspect.unwrap(session._request)
    context = ssl.create_default_context(cafile=target.authority) if target.authority else True

    @functools.wraps(request)
    async def rerouted(self: Any, method: str, url: Any, **options: Any) -> Any:
        there = str(url).replace("https://github.com", target.github, 1)
        there = there.replace("https://api.individual.githubcopilot.com", target.api, 1)
        return await request(self, method, there, **{**options, "ssl": context})

    session._request = rerouted


OURS = "copilot_sync"
OURS_ASYNC = "copilot_sync, asyncio"
FLOOR = "http.client + read1"
OPENAI = "openai"
G4F = "gpt4free, provider"
G4F_BLOCKING = "gpt4free, blocking client"
AIOHTTP = "aiohttp, as a provider"
TIMED_FLOOR = "the same, with a time-out"
#: Stands behind the name of a client of ours that comes from another checkout.
BEFORE = ", before"

#: What nobody can go below who waits for each event in a thread.
READS = "reads alone, with a time-out"
#: The clients by name; ours, the floor, and the others.
PEERS: Dict[str, Callable[[Target], "Union[Client, AsyncClient]"]] = {
    OURS: Ours,
    OURS_ASYNC: OursAsync,
    OURS + BEFORE: Ours,
    OURS_ASYNC + BEFORE: OursAsync,
    FLOOR: Floor,
    TIMED_FLOOR: TimedFloor,
    "requests + iter_lines": RequestsLines,
    "requests + sseclient-py": RequestsSse,
    "httpx + httpx-sse": Httpx,
    AIOHTTP: AioHttp,
    G4F: G4f,
    G4F_BLOCKING: G4fBlocking,
    OPENAI: OpenAi,
    READS: Reads,
}
