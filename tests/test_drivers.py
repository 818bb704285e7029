"""Whoever goes on with a stream, and however they wait, sees the same: the same text, the same end, the same error.

Each server behaves in one way. A thread that blocks reads its answer, and so do one that polls and an event loop.
"""

import functools
import gzip
import json
import threading
import zlib
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import pytest
from driven import (
    BLOCKING,
    BODY,
    DRIVERS,
    GOOD,
    HEAD,
    JSON,
    LAST,
    Act,
    Driver,
    Outcome,
    chunk,
    ended,
    outcome,
    reset,
    sent,
    service,
    silent,
    trickled,
)
from streams import AT_ONCE, COMPLETE, DONE, ONE, TWO
from support import Peer, Server, authority_file, wait_until

from copilot_sync import RetryPolicy, Timeout

#: Reached by whatever is silent.
SHORT = Timeout(connect=5, read=0.3, stall=5)
#: Longer than a busy machine keeps a sender of comments waiting.
LIVELY = Timeout(connect=5, read=1, stall=10)
STALL = Timeout(connect=5, read=0.3, stall=0.5)
TOTAL = Timeout(connect=5, read=5, total=0.4)
PATIENT = Timeout(connect=10, read=10)


class Case(NamedTuple):
    """How a server behaves, and what comes of it."""

    acts: Sequence[Act]
    text: str
    error: Any = None
    #: Whether the next call uses the connection.
    reuses: bool = False
    timeout: Timeout = PATIENT
    #: What is done for further messages, before they are answered well.
    further: Sequence[Sequence[Act]] = ()
    #: The answer that the thread has.
    stored: str = ""
    retry: Optional[RetryPolicy] = None
    #: Whether the token comes of cookies.
    has_cookies: bool = False


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", b""])


EVENTS = b"Content-Type: text/event-stream"
CHUNKED = b"Transfer-Encoding: chunked"
GZIP = b"Content-Encoding: gzip"
BROTLI = b"Content-Encoding: br"
DEFLATE = b"Content-Encoding: deflate"
HUGE_HEAD = head(EVENTS, CHUNKED, *[b"X-%d: %b" % (number, b"x" * 900) for number in range(90)])

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
BURST = b'data: {"type":"content","body":"%b"}\n\n' % (b"x" * 10_000)
TINY = b"".join(b'data: {"type":"content","body":"%d"}\n\n' % (number % 10) for number in range(3000))
TINY_TEXT = "0123456789" * 300
BOMB = gzip.compress(b'data: {"type":"content","body":"%b"}\n\n' % (b"x" * 100_000) * 30 + COMPLETE)
WORDS = json.dumps({"message": "words of the service"}).encode()
ROUTED = b'data: {"type":"routedModel","model":"gpt-4o"}\n\n'
ERROR = b'data: {"type":"error","code":"boom","message":"words"}\n\n'
DOCUMENT = json.dumps({"message": {"id": "m-1", "role": "assistant", "content": "one"}}).encode()


def failing(status: bytes, *lines: bytes, body: bytes = WORDS) -> bytes:
    return head(b"Content-Type: application/json", b"Content-Length: %d" % len(body), *lines, status=status) + body


def sized(length: int, body: bytes, *lines: bytes) -> bytes:
    return head(EVENTS, b"Content-Length: %d" % length, *lines) + body


def until_closed(body: bytes) -> bytes:
    return head(EVENTS) + body


def torn(size: int) -> bytes:
    return b"".join(chunk(BODY[place : place + size]) for place in range(0, len(BODY), size))


def packed(data: bytes) -> bytes:
    return head(EVENTS, CHUNKED, GZIP) + chunk(data) + LAST


def waiting(times: int, seconds: float) -> List[Act]:
    """Send comments from time to time."""

    def act(peer: Peer) -> None:
        for _ in range(times):
            peer.send(chunk(b": waiting\n\n"))
            peer.gone.wait(seconds)

    return [act]


def paused(peer: Peer) -> None:
    """Say nothing for less than ``LIVELY``."""
    peer.gone.wait(0.1)


GONE = "NetworkError"
CUT = "StreamInterruptedError"
LATE = "RequestTimeoutError"
GARBAGE = "ProtocolError"
CASES: Dict[str, Case] = {
    "at once": Case([sent(GOOD)], "onetwo", reuses=True),
    "byte by byte": Case([trickled(GOOD)], "onetwo", reuses=True),
    "in threes": Case([trickled(GOOD, 3)], "onetwo", reuses=True),
    "chunks of one byte": Case([sent(HEAD), sent(torn(1) + LAST)], "onetwo", reuses=True),
    "chunks of seven bytes, byte by byte": Case([sent(HEAD), trickled(torn(7) + LAST)], "onetwo", reuses=True),
    "[DONE]": Case([sent(HEAD + chunk(ONE + DONE) + LAST)], "one", reuses=True),
    "ten megabytes": Case(
        [sent(HEAD), *[sent(chunk(BURST) * 50)] * 20, sent(chunk(COMPLETE) + LAST)], "x" * 10_000_000, reuses=True
    ),
    "many events at once": Case([sent(HEAD + chunk(TINY + COMPLETE) + LAST)], TINY_TEXT, reuses=True),
    "many events in chunks of their own": Case(
        [sent(HEAD + b"".join(chunk(line + b"\n\n") for line in TINY.split(b"\n\n")[:-1]) + chunk(COMPLETE) + LAST)],
        TINY_TEXT,
        reuses=True,
    ),
    # How it is framed.
    "with a length": Case([sent(sized(len(BODY), BODY))], "onetwo", reuses=True),
    "with a length, byte by byte": Case([trickled(sized(len(BODY), BODY))], "onetwo", reuses=True),
    "longer than its length": Case([sent(sized(len(BODY), BODY + b"more"))], "onetwo"),
    "shorter than its length": Case([sent(sized(len(BODY) + 9, BODY)), ended], "onetwo"),
    "shorter than its length, and cut": Case([sent(sized(len(BODY) + 9, ONE)), ended], "one", CUT),
    "shorter than its length, and silent": Case([sent(sized(len(BODY) + 9, BODY)), silent], "onetwo"),
    "until it is closed": Case([sent(until_closed(BODY)), ended], "onetwo"),
    "until it is closed, byte by byte": Case([trickled(until_closed(BODY)), ended], "onetwo"),
    "until it is closed, and cut": Case([sent(until_closed(ONE)), ended], "one", CUT),
    "closes afterwards": Case(
        [sent(head(EVENTS, CHUNKED, b"Connection: close") + chunk(BODY) + LAST), ended], "onetwo"
    ),
    "HTTP/1.0": Case([sent(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + BODY), ended], "onetwo"),
    "no last chunk": Case([sent(HEAD + chunk(BODY)), silent], "onetwo"),
    "no last chunk, and closed": Case([sent(HEAD + chunk(BODY)), ended], "onetwo"),
    "bytes behind the end": Case([sent(GOOD + b"more")], "onetwo"),
    "a reply behind the end": Case([sent(GOOD + GOOD)], "onetwo"),
    "events behind the end": Case([sent(HEAD + chunk(BODY + ONE) + LAST)], "onetwo", reuses=True),
    "no end of what follows the end": Case([sent(HEAD + chunk(BODY) + chunk(b"x" * 9999) * 50), silent], "onetwo"),
    "trailers": Case([sent(HEAD + chunk(BODY) + b"0\r\nA: b\r\n\r\n")], "onetwo", reuses=True),
    "a size that is none": Case([sent(HEAD + chunk(ONE) + b"zz\r\n"), silent], "one", CUT),
    "a size without an end": Case([sent(HEAD + chunk(ONE) + b"0" * 20_000), silent], "one", GARBAGE),
    # How it is packed.
    "gzip": Case([sent(packed(gzip.compress(BODY)))], "onetwo", reuses=True),
    "gzip, byte by byte": Case([trickled(packed(gzip.compress(BODY)))], "onetwo", reuses=True),
    "deflate": Case([sent(head(EVENTS, CHUNKED, DEFLATE) + chunk(zlib.compress(BODY)) + LAST)], "onetwo", reuses=True),
    "gzip in two members": Case([sent(packed(gzip.compress(ONE) + gzip.compress(COMPLETE)))], "one", reuses=True),
    "a bomb": Case([sent(packed(BOMB))], "x" * 3_000_000, reuses=True),
    "gzip that is none": Case([sent(packed(b"nonsense"))], "", GARBAGE),
    "gzip that is cut": Case([sent(head(EVENTS, CHUNKED, GZIP) + chunk(gzip.compress(ONE)[:-9])), ended], "one", CUT),
    "packed in another way": Case([sent(head(EVENTS, CHUNKED, BROTLI) + chunk(BODY) + LAST)], "", GARBAGE),
    # What comes ahead of it.
    "hints": Case([sent(HINTS + GOOD)], "onetwo", reuses=True),
    "hints, byte by byte": Case([trickled(HINTS * 2 + GOOD)], "onetwo", reuses=True),
    "a hundred hints": Case([sent(HINTS * 100), sent(GOOD)], "onetwo", reuses=True),
    "hints that end inside": Case([sent(HINTS + HINTS[:20]), ended], "", GONE),
    "hints, and silence": Case([sent(HINTS), silent], "", LATE, timeout=SHORT),
    "hints without an end": Case([*[sent(HINTS * 1000)] * 10, silent], "", GARBAGE),
    "a line of hints without an end": Case([sent(HINTS[:-4]), *[sent(b"x" * 65536)] * 8, silent], "", GARBAGE),
    "another protocol": Case([sent(head(status=b"101 Switching Protocols")), silent], "", GARBAGE),
    # Its head.
    "a huge head": Case(
        [sent(HUGE_HEAD + GOOD[len(HEAD) :])],
        "onetwo",
        reuses=True,
    ),
    "a huge head in parts": Case(
        [
            trickled(HUGE_HEAD, 777),
            sent(GOOD[len(HEAD) :]),
        ],
        "onetwo",
        reuses=True,
    ),
    "too many fields": Case([sent(head(EVENTS, CHUNKED, *[b"X: y"] * 101)), silent], "", GARBAGE),
    "too many fields, and no end": Case([sent(head(EVENTS, CHUNKED, *[b"X: y"] * 120)[:-2]), ended], "", GARBAGE),
    "a field without an end": Case([sent(HEAD[:-2] + b"X: "), *[sent(b"x" * 65536)] * 4, silent], "", GARBAGE),
    "a line that is no field": Case([sent(head(EVENTS, b"no field", CHUNKED)), silent], "", GARBAGE),
    "a status without an end": Case([sent(b"HTTP/1.1 200 "), *[sent(b"x" * 65536)] * 4, silent], "", GARBAGE),
    "no HTTP": Case([sent(b"SSH-2.0-OpenSSH_9.6\r\n"), silent], "", GARBAGE),
    "no HTTP, and closed": Case([sent(b"SSH-2.0-OpenSSH_9.6\r\n"), ended], "", GARBAGE),
    "no HTTP, and no line": Case([sent(b"SSH-2.0"), ended], "", GONE),
    "a status that is none": Case([sent(b"HTTP/1.1 abc\r\n"), silent], "", GARBAGE),
    "only line ends": Case([sent(b"\r\n\r\n"), silent], "", GARBAGE),
    "bare line ends": Case([sent(HEAD.replace(b"\r\n", b"\n") + GOOD[len(HEAD) :])], "onetwo", reuses=True),
    "bare line ends, byte by byte": Case(
        [trickled(HEAD.replace(b"\r\n", b"\n") + GOOD[len(HEAD) :])], "onetwo", reuses=True
    ),
    # Where it stops.
    "closed before the head": Case([ended], "", GONE),
    "closed in the head": Case([sent(HEAD[:30]), ended], "", GONE),
    "closed in the end of the head": Case([sent(HEAD[:-2]), ended], "", GONE),
    "closed after the head": Case([sent(HEAD), ended], "", GONE),
    "closed in an event": Case([sent(HEAD + chunk(ONE + TWO[:9])), ended], "one", CUT),
    "closed in a chunk": Case([sent(HEAD + chunk(ONE + TWO)[:-9]), ended], "one", CUT),
    "the end inside an event": Case([sent(HEAD + chunk(ONE + TWO[:9]) + LAST)], "one", CUT),
    "reset before the head": Case([reset], "", GONE),
    "reset in the head": Case([sent(HEAD[:30]), reset], "", GONE),
    "reset after the head": Case([sent(HEAD), reset], "", GONE),
    "reset after an event": Case([sent(HEAD + chunk(ONE)), reset], "one", CUT),
    "reset after the end": Case([sent(HEAD + chunk(BODY)), reset], "onetwo"),
    "silent before the head": Case([silent], "", LATE, timeout=SHORT),
    "silent in the head": Case([sent(HEAD[:30]), silent], "", LATE, timeout=SHORT),
    "silent after the head": Case([sent(HEAD), silent], "", LATE, timeout=SHORT),
    "silent in an event": Case([sent(HEAD + chunk(ONE + TWO[:9])), silent], "one", LATE, timeout=SHORT),
    "silent in a chunk": Case([sent(HEAD + chunk(ONE + TWO)[:-20]), silent], "one", LATE, timeout=SHORT),
    "comments alone": Case([sent(HEAD + chunk(ONE)), *waiting(100, 0.05), silent], "one", LATE, timeout=STALL),
    "comments, then an answer": Case(
        [sent(HEAD), *waiting(8, 0.15), sent(chunk(BODY) + LAST)], "onetwo", reuses=True, timeout=LIVELY
    ),
    "comments, then an event without text, then an answer": Case(
        [sent(HEAD), *waiting(8, 0.15), sent(chunk(ROUTED)), paused, sent(chunk(BODY) + LAST)],
        "onetwo",
        reuses=True,
        timeout=LIVELY,
    ),
    "slower than the whole call may be": Case([sent(HEAD + chunk(ONE)), silent], "one", LATE, timeout=TOTAL),
    "no head in all the time": Case([silent], "", LATE, timeout=TOTAL),
    # What it says.
    "400": Case([sent(failing(b"400 Bad Request"))], "", "InvalidRequestError", reuses=True),
    "404": Case([sent(failing(b"404 Not Found"))], "", "NotFoundError", reuses=True),
    "500": Case([sent(failing(b"500 Oops"))], "", "ServerError", reuses=True),
    "500, byte by byte": Case([trickled(failing(b"500 Oops"))], "", "ServerError", reuses=True),
    "500, and cut": Case([sent(failing(b"500 Oops")[:-5]), ended], "", "ServerError"),
    "500, whose body never comes": Case(
        [sent(failing(b"500 Oops", body=b"")[:-2] + b"X: y\r\n\r\n")], "", "ServerError", reuses=True
    ),
    "503, then an answer": Case([sent(failing(b"503 Busy"))], "onetwo", reuses=True, retry=AT_ONCE),
    "a redirect": Case([sent(failing(b"302 Found", b"Location: /login"))], "", "AuthenticationError", reuses=True),
    "401": Case([sent(failing(b"401 Unauthorized"))], "", "AuthenticationError", reuses=True),
    "401, then a new token": Case([sent(failing(b"401 Unauthorized"))], "onetwo", reuses=True, has_cookies=True),
    "an error event": Case([sent(HEAD + chunk(ERROR) + LAST)], "", "ServerError"),
    "an error event after text": Case([sent(HEAD + chunk(ONE + ERROR) + LAST)], "one", "ServerError"),
    "an error right behind text, and closed": Case([sent(HEAD + chunk(ONE + ERROR)), ended], "one", "ServerError"),
    "a document": Case([sent(JSON % (len(DOCUMENT), DOCUMENT))], "one", reuses=True),
    "a document, byte by byte": Case([trickled(JSON % (len(DOCUMENT), DOCUMENT))], "one", reuses=True),
    "words of a gateway": Case([sent(head(CHUNKED) + chunk(b"upstream failed") + LAST)], "", "ServerError"),
    "words of a gateway, and silence": Case([sent(head(CHUNKED) + chunk(WORDS)), silent], "", "ServerError"),
    # What is looked for in the thread.
    "cut, and the rest is in the thread": Case(
        [sent(HEAD + chunk(ONE + TWO[:9])), ended], "onetwo", stored="onetwo", retry=AT_ONCE
    ),
    "closed before the head, and the answer is in the thread": Case([ended], "onetwo", stored="onetwo", retry=AT_ONCE),
    "silent, and the rest is in the thread": Case(
        [sent(HEAD + chunk(ONE)), silent], "onetwo", stored="onetwo", timeout=SHORT, retry=AT_ONCE
    ),
    "an end that nobody announced": Case([sent(HEAD + chunk(ONE) + LAST)], "one", reuses=False),
    "a hole": Case([sent(HEAD + chunk(ONE + b"data: {nonsense\n\n" + COMPLETE) + LAST)], "one"),
}


def run(case: Case, driver: Driver, verify: str) -> Outcome:
    script = service([case.acts, *case.further], case.stored)
    options: Dict[str, Any] = {"retry": case.retry, "timeout": case.timeout}
    if case.has_cookies:
        options["cookies"] = {"user_session": "c"}
    if verify:
        options["verify"] = verify
    with Server(script, tls=bool(verify)) as server:
        return outcome(server, driver, **options)


@functools.lru_cache(maxsize=None)
def blocking(name: str, verify: str) -> Outcome:
    return run(CASES[name], BLOCKING, verify)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    return authority_file(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def verify(request: pytest.FixtureRequest, ca: str) -> str:
    return ca if request.param else ""


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("name", CASES)
def test_a_thread_that_blocks_sees_it(name: str, verify: str) -> None:
    """All others are held against it."""
    seen, case = blocking(name, verify), CASES[name]
    assert (seen.text, seen.error) == (case.text, case.error)
    assert seen.connections == (1 if case.reuses else 2)


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", CASES)
def test_all_see_the_same(name: str, driver: str) -> None:
    """Text, error and what it carries, the end of the answer, and whether the connection is used again."""
    assert run(CASES[name], DRIVERS[driver], "") == blocking(name, "")


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("driver", ["poll", "asyncio", "uvloop"])
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].timeout is PATIENT])
def test_all_see_the_same_through_tls(name: str, driver: str, ca: str) -> None:
    """OpenSSL may hold what the system does not tell of any more, and what the system tells of may be no data."""
    assert run(CASES[name], DRIVERS[driver], ca) == blocking(name, ca)


@pytest.mark.parametrize("driver", ["poll", "poll without waiting", "asyncio", "uvloop"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_records_of_tls_may_be_torn(size: int, driver: str, ca: str) -> None:
    """What arrives may be a part of a record, from which no byte of the reply can be had yet."""
    acts = [sent(HEAD), *[sent(chunk(event)) for event in (ONE, TWO, COMPLETE)], sent(LAST)]
    with Server(service([acts], ""), tls=True) as behind, Server(lambda peer: peer.relay(behind.port, size)) as server:
        url = server.url.replace("http:", "https:")
        seen = outcome(server, DRIVERS[driver], url, retry=None, timeout=PATIENT, verify=ca)
    assert (seen.text, seen.complete, seen.after, seen.connections) == ("onetwo", True, "onetwo", 1)


@pytest.mark.parametrize("name", [name for name in DRIVERS if name != "asyncio in threads"])
def test_no_thread_waits_for_the_reply(name: str) -> None:
    """One helps until the question is sent. Then whoever reads the stream waits for the head and all that follows."""
    with Server(service([[sent_without_help(HEAD), sent_without_help(chunk(BODY) + LAST)]], "")) as server:
        assert outcome(server, DRIVERS[name], retry=None, timeout=PATIENT).text == "onetwo"


def sent_without_help(data: bytes) -> Act:
    """Send bytes when no thread helps to read."""

    def act(peer: Peer) -> None:
        wait_until(lambda: not any(thread.name == "copilot-sync-stream" for thread in threading.enumerate()))
        peer.send(data)

    return act
