"""A forked child has connections of its own, and its parent never notices it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import PATIENCE, Peer, Server, answering, authority_file, collect_garbage, wait_for

from copilot_sync.protocol import Request
from copilot_sync.settings import Timeout
from copilot_sync.transport import fork
from copilot_sync.transport.call import Call
from copilot_sync.transport.fork import renew_in_child
from copilot_sync.transport.session import Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

# The child does something with the stream that it inherited, then asks for itself; after that the parent reads on.
PROGRAM = """
import os, sys
from copilot_sync.errors import StreamClosedError
from copilot_sync.protocol import Request
from copilot_sync.settings import Timeout
from copilot_sync.transport.call import Call
from copilot_sync.transport.session import Transport

url, verify, way = sys.argv[1:]
transport, call = Transport(verify=verify), Call(Timeout())
streamed, short = (Request("threads", "GET", url + path, path, {}) for path in ("/streamed", "/short"))

def same(prepared):
    return prepared

def ask():
    return transport.fetch(short, same, Call(Timeout())).body

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
            body.finish()
        except StreamClosedError:
            pass
    if way == "drops it":
        del body, pieces
    os._exit(ask() != b"ok")
assert os.waitpid(child, 0)[1] == 0
print("the child is done", flush=True)
assert list(pieces) == [b"two"]
body.finish()
assert ask() == b"ok"
transport.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
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


def test_an_inherited_lock_does_not_hold_a_child_up() -> None:
    """It may be held by a thread that the child doesn't have."""
    transport = Transport()
    transport._lock.acquire()
    fork._renew_all()
    with Server(answering(OK)) as server:
        request = Request("threads", "GET", server.url, "/", {})
        assert transport.fetch(request, lambda prepared: prepared, Call(Timeout())).body == b"ok"
        transport.close()


class Counter:
    """Counts how often it was made anew."""

    def __init__(self) -> None:
        self.renewals = 0

    def renew(self) -> None:
        self.renewals += 1


def test_each_thing_is_renewed_once_in_a_child() -> None:
    """However often it named itself."""
    one, other = Counter(), Counter()
    for thing in (one, other, one):
        renew_in_child(thing)
    fork._renew_all()
    assert (one.renewals, other.renewals) == (1, 1)


def test_what_nobody_holds_any_more_is_forgotten() -> None:
    """Naming itself keeps nothing alive."""
    collect_garbage()
    before = len(fork._registered)
    thing = Counter()
    renew_in_child(thing)
    assert len(fork._registered) == before + 1
    del thing
    collect_garbage()
    assert len(fork._registered) == before
