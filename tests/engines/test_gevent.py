"""gevent: hundreds of streams at once through one client, in one thread."""

import subprocess
import threading
from typing import Any, Callable, Iterator

from support import PATIENCE

from copilot_sync.emulator import Emulator, Fault

GREENLETS = 200

STREAMS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from copilot_sync import Client

def read(number):
    stream = client.stream(f"question {number}")
    return "".join(stream)

count = int(sys.argv[1])
with Client() as client:
    readers = [gevent.spawn(read, number) for number in range(count)]
    gevent.joinall(readers, raise_error=True)
    assert [reader.value for reader in readers] == [f"question {number}" for number in range(count)]
print("all right", flush=True)
"""

CLOSED = """
from gevent import monkey
monkey.patch_all()
import gevent
from copilot_sync import Client, StreamClosedError

def read_on():
    try:
        return next(stream)
    except StreamClosedError:
        return "closed"

with Client() as client:
    stream = client.stream("one two")
    assert next(stream) == "one"
    reader = gevent.spawn(read_on)
    gevent.sleep(0)
    stream.close()
    reader.join(5)
    print(reader.value, flush=True)
    input()  # until the service has seen the connection go
"""


def test_greenlets_stream_at_once_over_one_client(emulator: Emulator, start: Callable[..., Any]) -> None:
    """200 answers, none of which ends before all of them have begun."""
    together = threading.Barrier(GREENLETS)

    def piece_by_piece(prompt: str) -> Iterator[str]:
        yield prompt[:4]
        together.wait(PATIENCE)
        yield prompt[4:]

    emulator.reply = piece_by_piece
    program = start(["-W", "error", "-c", STREAMS, str(GREENLETS)], stdout=subprocess.PIPE)
    assert program.communicate(timeout=3 * PATIENCE)[0] == "all right\n"
    assert emulator.connections == GREENLETS + 1  # each its own at that moment, and the one of the token
    assert emulator.tokens_issued == 1


def test_a_greenlet_ends_the_read_of_another(emulator: Emulator, start: Callable[..., Any]) -> None:
    """At once, and the service sees the connection go."""
    emulator.fail("message", Fault.stall(("after_events", 1)))
    program = start(["-W", "error", "-c", CLOSED], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert program.stdout.readline() == "closed\n"
    assert emulator.wait_until(lambda: len(emulator.disconnects) == 1)
    program.communicate("go on\n", timeout=PATIENCE)
    assert program.returncode == 0
