"""A forked child has connections of its own, and its parent never notices it."""

import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

import pytest
from support import PATIENCE, Peer, Server, answering, authority_file, collect_garbage, server_context, wait_for

from copilot_sync import Client, StreamClosedError
from copilot_sync.emulator import Emulator, Fault, Script
from copilot_sync.protocol.requests import Request
from copilot_sync.settings import Timeout
from copilot_sync.transport import fork, session, ssl_contexts
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.fork import reset_after_fork
from copilot_sync.transport.session import Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

# The child does something with the stream that it inherited, then asks for itself; after that the parent reads on.
PROGRAM = """
import os, sys
from copilot_sync.errors import StreamClosedError
from copilot_sync.protocol.requests import Request
from copilot_sync.settings import Timeout
from copilot_sync.transport.call import CallContext
from copilot_sync.transport.session import Transport

url, verify, way = sys.argv[1:]
transport, call = Transport(verify=verify), CallContext(Timeout())
streamed, short = (Request("threads", "GET", url + path, path, {}) for path in ("/streamed", "/short"))

def same(prepared):
    return prepared

def ask():
    return transport.fetch(short, same, CallContext(Timeout())).body

body = transport.open(streamed, same, call).body
pieces = body.pieces()
assert next(pieces) == b"one"
assert ask() == b"ok"  # through a connection that then waits for the next request
child = os.fork()
if not child:
    if way == "reads it":
        try:
            next(pieces)
        except StreamClosedError:
            pass
        else:
            os._exit(2)
    if way == "stops it":
        call.cancel()
    if way == "closes it":
        body.close()
        transport.close()
    if way == "finishes it":
        try:
            list(body.finishing())
        except StreamClosedError:
            pass
    if way == "drops it":
        del body, pieces
    os._exit(ask() != b"ok")
assert os.waitpid(child, 0)[1] == 0
print("the child is done", flush=True)
assert list(pieces) == [b"two"]
list(body.finishing())
assert ask() == b"ok"
transport.close()
"""


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@needs_fork
@pytest.mark.parametrize(
    ("way", "tls"),
    [
        ("reads it", False),
        ("stops it", False),
        ("closes it", False),
        ("finishes it", False),
        ("drops it", False),
        ("closes it", True),
    ],
)
def test_a_child_leaves_its_parents_stream_alone(tmp_path: Path, way: str, tls: bool) -> None:
    """Whatever it does with its copy; what it asks for itself goes through a connection of its own."""
    child_is_done = threading.Event()

    def script(peer: Peer) -> None:
        for request in iter(peer.receive, b""):
            if b"/short" in request:
                peer.send(OK)
            else:
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
                wait_for(child_is_done)
                peer.send(b"two")

    with Server(script, tls=tls) as server:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.url, authority_file(tmp_path), way],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as parent:
            assert parent.stdout is not None
            told = parent.stdout.readline()
            child_is_done.set()
            _, complaints = parent.communicate(timeout=3 * PATIENCE)
        assert (told, complaints, parent.returncode) == (b"the child is done\n", b"", 0)
        assert server.connections == 3


# The child leaves like any program does, so that everything that it inherited is finalized.
CLIENT_PROGRAM = """
import os, sys
from copilot_sync import Client, StreamClosedError

client = Client(verify=sys.argv[1])
unbegun = client.stream("begun by the child")
stream = client.stream("halves")
assert next(stream) == "one "
client.ask("warm")
child = os.fork()
if not child:
    try:
        next(stream)
    except StreamClosedError as error:
        assert "forked" in str(error), error
    else:
        sys.exit(2)
    assert "".join(unbegun) == "begun by the child"
    assert client.ask("asked by the child").text == "asked by the child"
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
client.ask("go on")
assert list(stream) == ["two"]
client.close()
"""


def halving(context: Optional[ssl.SSLContext] = None) -> Emulator:
    """A Copilot that finishes its answer to "halves" only once it was told to go on."""
    told = threading.Event()

    def halves() -> Iterator[str]:
        yield "one "
        wait_for(told)
        yield "two"

    def answer(prompt: str) -> Script:
        if prompt == "go on":
            told.set()
        return halves() if prompt == "halves" else prompt

    return Emulator(ssl_context=context, reply=answer)


def run(program: str, *arguments: str, env: Mapping[str, str]) -> None:
    """Run a program that has to end well, and in silence."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **env, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


@needs_fork
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_child_that_comes_and_goes_is_not_noticed(tmp_path: Path, tls: bool) -> None:
    """It has connections of its own, begins what was not begun, and its end closes nothing of its parent's."""
    with halving(server_context() if tls else None) as emulator:
        run(CLIENT_PROGRAM, authority_file(tmp_path), env=emulator.environment)
        prompts: Dict[int, List[str]] = defaultdict(list)
        for request in emulator.requests:
            if request.stage == "message":
                prompts[request.connection].append(json.loads(request.body)["content"])
    assert sorted(prompts.values()) == [["begun by the child", "asked by the child"], ["halves"], ["warm", "go on"]]
    assert (emulator.connections, emulator.tokens_issued) == (4, 1)


# The line about the warning is the documentation's.
WARNED_PROGRAM = """
import os, threading, warnings
from copilot_sync import Client

client, end = Client(), threading.Event()
client.ask("warm")
other = threading.Thread(target=end.wait)
other.start()
{line}
child = os.fork()
if not child:
    os._exit(client.ask("asked by the child").text != "asked by the child")
assert os.waitpid(child, 0)[1] == 0
end.set()
other.join()
client.close()
"""


@needs_fork
def test_a_process_with_threads_forks_where_warnings_are_errors() -> None:
    """As the documentation says: Python 3.15 would raise after it has forked."""
    page = (Path(__file__).parents[1] / "docs" / "concurrency.rst").read_text(encoding="utf-8")
    [line] = [line.strip() for line in page.splitlines() if line.startswith("    warnings.filterwarnings(")]
    with Emulator() as emulator:
        run(WARNED_PROGRAM.format(line=line), env={**emulator.environment, "PYTHONWARNINGS": "error"})
    [setting] = re.findall(r'^    PYTHONWARNINGS="(.+)"$', page, re.MULTILINE)
    with Emulator() as emulator:
        run(WARNED_PROGRAM.format(line=""), env={**emulator.environment, "PYTHONWARNINGS": setting})


def test_the_copy_of_a_stream_says_what_had_come() -> None:
    """Its error is not the one of a stream that another thread closed."""
    with Emulator(reply=["one", "two"]) as emulator, Client(
        cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url
    ) as client:
        emulator.fail("message", Fault.stall(("after_events", 1)))
        stream = client.stream("Hello")
        assert next(stream) == "one"
        stream._call.after_fork_in_child()  # as it is done in a child
        with pytest.raises(StreamClosedError) as caught:
            next(stream)
        assert caught.value.partial == "one"
        assert "thread" not in str(caught.value)


# The greenlets of gevent go on in the child as well: there, a copy of the reader is in the middle of the same read.
# gevent's own waitpid waits for SIGCHLD, and misses that of a child that is soon over now and then (4 % of 200 programs
# that only fork, gevent 26.9 with CPython 3.13 on a busy machine). So the kernel is asked.
GEVENT_PROGRAM = """
from gevent import monkey
monkey.patch_all()
import os
import gevent
from copilot_sync import Client, StreamClosedError

client = Client()
stream = client.stream("halves")
assert next(stream) == "one "
ends = []

def read_on():
    try:
        ends.append(next(stream))
    except StreamClosedError:
        ends.append("closed")

reader = gevent.spawn(read_on)
gevent.sleep(0)
child = os.fork()
if not child:
    reader.join()
    os._exit(ends != ["closed"])
assert monkey.get_original("os", "waitpid")(child, 0)[1] == 0
client.ask("go on")
reader.join()
assert ends == ["two"], ends
client.close()
"""


@needs_fork
@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_a_greenlet_that_was_copied_reads_nothing_of_the_parents_stream() -> None:
    """The copy ends at once, and what comes next is the parent's."""
    with halving() as emulator:
        run(GEVENT_PROGRAM, env=emulator.environment)


@pytest.mark.usefixtures("registered")
def test_an_inherited_lock_does_not_hold_a_child_up() -> None:
    """It may be held by a thread that the child doesn't have."""
    transport = Transport()
    transport._lock.acquire()
    fork._reset_all()
    with Server(answering(OK)) as server:
        request = Request("threads", "GET", server.url, "/", {})
        assert transport.fetch(request, lambda prepared: prepared, CallContext(Timeout())).body == b"ok"
        transport.close()


class Counter:
    """Counts how often it was made anew."""

    def __init__(self) -> None:
        self.renewals = 0

    def after_fork_in_child(self) -> None:
        self.renewals += 1


@pytest.mark.usefixtures("registered")
def test_each_thing_is_renewed_once_in_a_child() -> None:
    """However often it named itself."""
    one, other = Counter(), Counter()
    for thing in (one, other, one):
        reset_after_fork(thing)
    fork._reset_all()
    assert (one.renewals, other.renewals) == (1, 1)


@pytest.mark.usefixtures("registered")
def test_one_thing_that_fails_does_not_keep_the_others_from_being_renewed() -> None:
    """An exception out of the hook would only be printed."""

    class Failing(Counter):
        def after_fork_in_child(self) -> None:
            super().after_fork_in_child()
            raise RuntimeError("no")

    things = [Failing(), Counter(), Failing(), Counter()]
    for thing in things:
        reset_after_fork(thing)
    fork._reset_all()
    assert [thing.renewals for thing in things] == [1, 1, 1, 1]
    assert len(fork.abandoned) == 2


def test_what_nobody_holds_any_more_is_forgotten() -> None:
    """Naming itself keeps nothing alive."""
    collect_garbage()
    before = len(fork._registered)
    thing = Counter()
    reset_after_fork(thing)
    assert len(fork._registered) == before + 1
    del thing
    collect_garbage()
    assert len(fork._registered) == before


# Whatever a call may meet, it meets here; none of it is met for the first time before.
FIRST_TIMES_PROGRAM = """
import sys, encodings
from copilot_sync import Client, CopilotError

client = Client(token_cache=sys.argv[1])
modules, codecs = set(sys.modules), set(encodings._cache)
for key in (None, *sys.argv[2:]):  # each refusal slows the account down that it met
    try:
        Client(key).ask("\u00fcber")
    except CopilotError as error:
        str(error)
thread = client.threads()[0].id
client.models(), client.messages(thread), client.rename_thread(thread, "name"), client.delete_thread(thread)
for error in (CopilotError("one"),):
    error.__reduce__()
assert set(sys.modules) == modules, set(sys.modules) - modules
assert set(encodings._cache) == codecs, set(encodings._cache) - codecs
client.close()
"""


def test_a_call_does_nothing_for_the_first_time(tmp_path: Path) -> None:
    """An import or the look-up of a codec takes a lock, which a child that is forked at that moment inherits locked."""
    dated = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}
    page: Dict[str, Any] = {"headers": {"Content-Type": "text/html"}, "body": "<title>No &amp; no</title>"}
    faults = [
        Fault.status(429, headers=dated),
        Fault.cut(1),
        Fault.drop(processed=False),
        Fault.status(400, **page),
        Fault.garbage(b"\xef\xbb\xbfsomething else", "text/plain"),
        Fault.status(403, body={"error": {"code": "quota_exceeded"}}),
    ]
    keys = [f"key-{number}" for number in range(len(faults))]
    with Emulator() as emulator:
        emulator.options.accept_api_keys = tuple(keys)
        emulator.fail("token", Fault.status(503))
        emulator.fail("thread", Fault.status(500, **page))
        emulator.fail("message", Fault.expired_token())
        for fault in faults:
            emulator.fail("message", fault)
        run(FIRST_TIMES_PROGRAM, str(tmp_path / "tokens"), *keys, env=emulator.environment)


# A thread reads CAs, or is as good as in the middle of it.
READING_PROGRAM = """
import os, threading, warnings
from copilot_sync.transport import ssl_contexts

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: it is what this is about

reads, may_end = threading.Event(), threading.Event()

def read():
    with ssl_contexts._reading:
        reads.set()
        may_end.wait()

reader = threading.Thread(target=read)
reader.start()
reads.wait()
threading.Timer(0.2, may_end.set).start()
child = os.fork()
if not child:
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
        reader.join(10)
    os._exit(not may_end.is_set() or any(reader.is_alive() for reader in readers))
assert os.waitpid(child, 0)[1] == 0
reader.join()
with ssl_contexts._reading:  # the parent's is free as well
    pass
"""


@needs_fork
def test_a_fork_waits_until_authorities_are_read() -> None:
    """OpenSSL has locks of its own for that, and nothing could free them in the child."""
    run(READING_PROGRAM, env={})


def test_a_fork_that_was_not_waited_for_does_no_harm() -> None:
    """An exception out of a signal handler may have ended the wait; the hooks run all the same."""
    ssl_contexts._wait_for_reading()
    ssl_contexts._go_on_reading()
    ssl_contexts._go_on_reading()
    before = ssl_contexts._reading
    ssl_contexts._read_for_itself()
    assert ssl_contexts._reading is not before


def test_a_childs_copies_of_idle_connections_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the parent's end is the end; what the child lets go of is never freed by it."""
    abandoned: List[Any] = []
    monkeypatch.setattr(session, "abandoned", abandoned)
    with Server(answering(OK, OK)) as server:
        request = Request("threads", "GET", server.url, "/", {})
        transport = Transport()
        for _ in range(2):
            assert transport.fetch(request, lambda prepared: prepared, CallContext(Timeout())).body == b"ok"
            transport.after_fork_in_child()  # as in a child; there is no parent here
            wait_for(server.peer_closed)
        assert server.connections == 2
        for each in abandoned:
            each.__del__()
            ((_, find),) = each.get_adapter(server.url)._pools
            pool = find()
            assert len(pool._idle) == 1
            pool.close()
        assert len(abandoned) == 2
