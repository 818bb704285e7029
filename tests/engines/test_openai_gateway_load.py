"""The gateway under load: 200 connections at once, of which 60 vanish. The others notice nothing of it."""

import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import pytest
from support import PATIENCE, wait_until

from copilot_sync.emulator import Emulator, Fault, RecordedRequest

pytest.importorskip("gunicorn")
pytest.importorskip("waitress")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into the process as Linux shows it")

KEY = "sk-test"
#: What the servers have.
THREADS = 128
CONNECTIONS = 200
#: Of ten connections, those that vanish.
VANISHING = (1, 4, 7)
#: Where they vanish, and how the service falls silent meanwhile, so that only the vanishing ends the question.
SILENT: Dict[str, Any] = {
    "before the answer": "before_headers",
    "after a piece": ("after_events", 1),
    "in the middle": ("after_events", 3),
}
PHASES = ("in the head", "in the body", "at once", *SILENT)
#: How the others ask; the answer to each third waits for those that vanish.
KINDS = (("chat/completions", True), ("chat/completions", False), ("responses", True), ("responses", False))
STREAMED = [kind for kind in KINDS if kind[1]]
#: What stands in each piece of a stream, of the one kind or the other.
PIECES = (b'"delta":{"content":', b'"type":"response.output_text.delta"')
#: More than waitress keeps in memory.
LARGE = 600_000


class Process(NamedTuple):
    """A process that serves.

    Attributes:
        pid: Its number.
        port: Where it listens.
    """

    pid: int
    port: int

    def threads(self) -> int:
        """How many it has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def files(self) -> List[str]:
        """What it has open, but for sockets."""
        return sorted(name for name in self._open() if not name.startswith("socket:"))

    def _open(self) -> List[str]:
        found = []
        for each in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(os.readlink(each))
        return found

    def connections(self) -> List[Tuple[int, int]]:
        """The ports of its connections: its own, and the other end's."""
        names = set(self._open())
        lines = [line.split() for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]]
        addresses = [fields[1:3] for fields in lines if f"socket:[{fields[9]}]" in names]
        ports = [(int(ours[-4:], 16), int(theirs[-4:], 16)) for ours, theirs in addresses]
        return [(ours, theirs) for ours, theirs in ports if theirs]  # else it listens

    def clients(self) -> Set[int]:
        """The ports of its clients."""
        return {theirs for ours, theirs in self.connections() if ours == self.port}


def begin_waitress(start: Callable[..., Any], stack: ExitStack) -> Process:
    """``copilot-sync serve``, as a user starts it."""
    process = start(
        ["-m", "copilot_sync", "serve", "--port", "0", "--key", KEY, "--concurrency", str(CONNECTIONS)],
        stdout=subprocess.PIPE,
    )
    found = re.search(r":(\d+)/v1", process.stdout.readline())
    assert found is not None
    return Process(process.pid, int(found[1]))


def begin_gthread(start: Callable[..., Any], stack: ExitStack) -> Process:
    """The worker of gunicorn with threads."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
    command = ["-m", "gunicorn", "--worker-class", "gthread", "--threads", str(THREADS), "--log-level", "warning"]
    process = start(
        [*command, "--bind", f"fd://{listener.fileno()}", "gateway_program:application"],
        pass_fds=[listener.fileno()],
        env={"COPILOT_SYNC_GATEWAY_KEY": KEY},
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: bool(children.read_text()))
    return Process(int(children.read_text()), listener.getsockname()[1])


class Asking:
    """One connection with its question."""

    def __init__(self, port: int, text: str, kind: Tuple[str, bool], phase: Optional[str] = None) -> None:
        path, self.is_streamed = kind
        self.text, self.phase = text, phase
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=3 * PATIENCE)
        self.port: int = self._sock.getsockname()[1]
        asked: Any = {"input": text} if path == "responses" else {"messages": [{"role": "user", "content": text}]}
        body = json.dumps({**asked, "model": "auto", "stream": self.is_streamed}).encode()
        head = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nContent-Length: "
        if phase == "in the head":
            self._sock.sendall(head.encode())
        elif phase == "in the body":
            self._sock.sendall(f"{head}{2 * LARGE}\r\n\r\n".encode() + b" " * LARGE)
        else:
            self._sock.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)

    def vanish(self, is_reset: bool) -> None:
        """Go as far as the phase says, and close the connection."""
        if self.phase in ("after a piece", "in the middle"):
            self._read_pieces(SILENT[self.phase][1])
        if is_reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def _read_pieces(self, count: int) -> None:
        received = b""
        while sum(map(received.count, PIECES)) < count:
            data = self._sock.recv(65536)
            assert data, received
            received += data

    def answer(self) -> str:
        """Read the whole answer; return its text."""
        with closing(http.client.HTTPResponse(self._sock, method="POST")) as response:
            response.begin()
            body = response.read().decode()
        assert response.status == 200, body
        if not self.is_streamed:
            return text_of(json.loads(body))
        events = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
        if events[-1] == "[DONE]":
            return "".join(
                choice["delta"].get("content", "") for event in events[:-1] for choice in json.loads(event)["choices"]
            )
        last = json.loads(events[-1])
        assert last["type"] == "response.completed", last
        return text_of(last["response"])

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


def text_of(answer: Any) -> str:
    """The text of a completion or of a response."""
    if "choices" in answer:
        return str(answer["choices"][0]["message"]["content"])
    return str(answer["output"][0]["content"][0]["text"])


def halves(prompt: str, may_end: threading.Event) -> Iterator[str]:
    """An answer that repeats the question, and waits in the middle."""
    first, _, rest = prompt.partition(" ")
    yield first + " "
    assert may_end.wait(6 * PATIENCE)
    yield rest


def warm_up(port: int, emulator: Emulator) -> None:
    """Have the server begin all threads it may have: as many questions are answered at the same time."""
    at_once = threading.Barrier(THREADS)

    def answer(prompt: str) -> Iterator[str]:
        at_once.wait(6 * PATIENCE)
        yield prompt

    emulator.reply = answer
    with ExitStack() as stack:
        first = [
            stack.enter_context(closing(Asking(port, f"It is the first {number}", KINDS[number % len(KINDS)])))
            for number in range(THREADS)
        ]
        assert [asking.answer() for asking in first] == [asking.text for asking in first]


def fault_of(stage: str, request: RecordedRequest) -> Optional[Fault]:
    """The silence for a question whose client is going to vanish."""
    content = json.loads(request.body)["content"] if stage == "message" else ""
    return next((Fault.stall(SILENT[phase]) for phase in SILENT if phase in content), None)


def ask_all(port: int, stack: ExitStack) -> Tuple[List[Asking], List[Asking]]:
    """Begin all questions; return those that vanish, and the others."""
    leaving: List[Asking] = []
    staying: List[Asking] = []
    for number in range(CONNECTIONS):
        if number % 10 in VANISHING:
            turn, place = divmod(len(leaving), len(PHASES))
            phase = PHASES[place]
            kinds = STREAMED if "piece" in phase or "middle" in phase else KINDS
            text = f"It vanishes {phase}" + (" and waits" if phase == "at once" else "")
            asking = Asking(port, text, kinds[turn % len(kinds)], phase)
            if phase == "at once":
                asking.vanish(is_reset=True)
        else:
            waits = "" if len(staying) % 3 else "waits and "
            asking = Asking(port, f"Number {number} {waits}is answered", KINDS[len(staying) % len(KINDS)])
        (leaving if asking.phase else staying).append(stack.enter_context(closing(asking)))
    return leaving, staying


@pytest.mark.parametrize("begin", [begin_waitress, begin_gthread], ids=["waitress", "gthread"])
def test_who_vanishes_leaves_nothing_and_harms_nobody(
    emulator: Emulator, start: Callable[..., Any], begin: Callable[..., Process]
) -> None:
    """Their questions end, nothing of theirs stays open, and all others get their own answers, whole."""
    may_end = threading.Event()
    emulator.choose_fault = fault_of
    with ExitStack() as stack:
        stack.callback(may_end.set)
        process = begin(start, stack)
        warm_up(process.port, emulator)
        emulator.reply = lambda prompt: halves(prompt, may_end) if "waits" in prompt else prompt
        threads, files = process.threads(), process.files()
        leaving, staying = ask_all(process.port, stack)
        silent = sum(asking.phase in SILENT for asking in leaving)
        assert emulator.wait_until(lambda: emulator.stalled >= silent, 3 * PATIENCE)
        gone = {asking.port for asking in leaving}
        for number, asking in enumerate(leaving):
            if asking.phase != "at once":
                asking.vanish(is_reset=number % 4 > 0)
        # While a third of the others are being answered.
        assert emulator.wait_until(lambda: not emulator.stalled and len(emulator.disconnects) >= silent, PATIENCE)
        wait_until(lambda: not gone & process.clients())
        may_end.set()
        assert [asking.answer() for asking in staying] == [asking.text for asking in staying]
        for asking in staying:
            asking.close()
        wait_until(lambda: not process.clients())
        wait_until(lambda: len(process.connections()) == emulator.idle_connections)
        wait_until(lambda: process.files() == files)
        wait_until(lambda: process.threads() <= threads)
