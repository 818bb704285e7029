"""One client's connection: its requests in turn, and each one's reply with what goes wrong in it.

`Connection` reads requests off a `Wire` until one side has had enough; an `Exchange` is one request
and its reply, and the one place where a `Fault` becomes something that a client can see.

Rules: a connection runs in a thread of its own and touches no other's socket. Whatever the client
does, the thread ends quietly; only a defect in a test's own function or generator shows. An answer
that nobody reads any more is written to its end by `Crew`, never by holding the connection open.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from itertools import islice
from typing import Callable, Optional, Sequence, Set, Tuple, Union

from .http1 import BadRequestError, ClientGoneError, Response, Wire, json_response, response_head
from .replies import NO_FAULT, Event, Framer, Reply, Turn, to_reply
from .scenario import Scenario
from .service import Answer, Host, Outcome, RecordedRequest, Service, find_route

_JOIN_SECONDS = 5.0


class HangUpError(Exception):
    """The emulator ends the connection in the middle of a reply, because a fault says so."""

    def __init__(self, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


class Crew:
    """The threads of one emulator: all are started here, and all have ended after `dismiss`."""

    def __init__(self) -> None:
        self.leaving = threading.Event()
        self._lock = threading.Lock()
        self._threads: Set[threading.Thread] = set()

    def start(self, work: Callable[[], None], name: str) -> bool:
        """Runs `work` in a thread of its own; doesn't, and returns `False`, when all leave."""
        thread = threading.Thread(target=work, name=f"copilot-emulator-{name}", daemon=True)
        with self._lock:
            if self.leaving.is_set():
                return False
            # None takes itself out: what it does after that, `join` would not wait for.
            self._threads = {each for each in self._threads if each.is_alive()}
            thread.start()
            self._threads.add(thread)
        return True

    def dismiss(self) -> None:
        """Tells everyone to leave; those who wait for the clock do so at once."""
        with self._lock:
            self.leaving.set()

    def join(self) -> None:
        """Waits until all have left."""
        until = time.monotonic() + _JOIN_SECONDS
        with self._lock:
            threads = self._threads - {threading.current_thread()}
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def write_on(self, answer: Answer) -> None:
        """Writes an answer to its end in its thread, at its own pace, for nobody to read."""
        if answer.reply.instant:
            for _ in answer.events:
                if self.leaving.is_set():
                    break
        else:
            self.start(lambda: self._write_slowly(answer), "writer")

    def _write_slowly(self, answer: Answer) -> None:
        reply = answer.reply
        delay = reply.pace if answer.begun else reply.first_delay
        while not self.leaving.wait(delay):
            if not list(islice(answer.events, reply.per_write)):
                return
            delay = reply.pace


class Connection:
    """One accepted connection.

    Args:
        number: which one it is, from 1.
        host: which of the two services it came to.
        wire: its socket.
        service: what answers.
        scenario: what is to happen, and the record of it.
        crew: the emulator's threads.

    Attributes:
        idle: whether it is between requests.
        stalled: whether a fault keeps it silent.
        events_sent: events sent over it so far.
    """

    def __init__(
        self,
        number: int,
        host: Host,
        wire: Wire,
        service: Service,
        scenario: Scenario,
        crew: Crew,
    ) -> None:
        self.number = number
        self.host = host
        self.wire = wire
        self.service = service
        self.scenario = scenario
        self.crew = crew
        self.idle = True
        self.stalled = False
        self.events_sent = 0
        self._served = 0
        self._wake: Optional[socket.socket] = None
        self._lock = threading.Lock()

    def run(self, forget: Callable[[Connection], None]) -> None:
        """Serves requests until one side has had enough.

        Args:
            forget: called at the end, when the socket is closed.
        """
        orderly = reset = False
        try:
            self.wire.handshake()
            while self._serve_one():
                pass
            orderly = True
        except ClientGoneError:
            pass
        except HangUpError as end:
            reset = end.reset
        finally:
            self.wire.close(orderly=orderly, reset=reset)
            forget(self)

    def stall(self, pause: Callable[[Optional[socket.socket]], None]) -> None:
        """Calls `pause` with a socket that has something to read once `release` is called."""
        wake, waker = socket.socketpair()
        with self._lock:
            self._wake, self.stalled = waker, True
        self.scenario.changed()
        try:
            pause(wake)
        finally:
            with self._lock:
                self._wake, self.stalled = None, False
            wake.close()
            waker.close()

    def release(self) -> None:
        """Ends a stall; safe from any thread, and without effect where there is none."""
        with self._lock:
            if self._wake is not None:
                self._wake.send(b".")

    def _serve_one(self) -> bool:
        self._rest(True)
        try:
            request = self._read()
        except BadRequestError as refusal:
            self._refuse(refusal)
            return False
        if request is None:
            return False
        self._rest(False)
        self.scenario.record(request)
        return Exchange(self, request).run()

    def _rest(self, idle: bool) -> None:
        self.idle = idle
        self.scenario.changed()

    def _read(self) -> Optional[RecordedRequest]:
        request = self.wire.read_request()
        if request is None:
            return None
        self._served += 1
        route = find_route(self.host, request.method, request.path)
        return RecordedRequest(
            **vars(request),
            stage=route.stage,
            host=self.host,
            thread_id=route.thread_id,
            connection=self.number,
            time=time.monotonic(),
            request_id=f"{self.number:04X}:{self._served:04X}",
        )

    def _refuse(self, refusal: BadRequestError) -> None:
        response = json_response(400, {"message": f"Bad Request: {refusal}", "status": "400"})
        length = ("Content-Length", str(len(response.body)))
        fields = [*response.headers, length, ("Connection", "close")]
        self.wire.send(response_head(400, fields) + response.body)
        self.wire.drain()


class Exchange:
    """One request and its reply."""

    def __init__(self, connection: Connection, request: RecordedRequest) -> None:
        self._connection = connection
        self._wire = connection.wire
        self._request = request
        self._fault = connection.scenario.next_fault(request) or NO_FAULT
        self._answer: Optional[Answer] = None
        self._framer: Optional[Framer] = None
        self._sent = 0
        self._due = 0.0

    def run(self) -> bool:
        """Replies; returns whether the connection may be used for another request.

        Raises:
            ClientGoneError: the client is gone.
            HangUpError: a fault ended the connection.
        """
        try:
            return self._reply()
        except ClientGoneError:
            if not self._connection.crew.leaving.is_set():
                self._connection.scenario.record_disconnect(self._request, self._sent)
            raise
        finally:
            self._leave_answer()

    def _reply(self) -> bool:
        fault = self._fault
        if fault.expires_token:
            self._connection.service.revoke(self._request.bearer)
        outcome = self._handle() if fault.taken else None
        if fault.where == "before_headers":
            self._strike()
        if fault.reply is not None:
            self._leave_answer()
            return self._send_stand_in(fault.reply)
        if outcome is None:
            outcome = self._handle()
        if isinstance(outcome, Response):
            return self._send_response(outcome)
        if outcome.reply.as_json:
            return self._send_document(outcome)
        return self._send_stream(outcome)

    def _handle(self) -> Outcome:
        """Has the service do what is asked, and settles what an answer will be."""
        outcome = self._connection.service.handle(self._request)
        if isinstance(outcome, Answer):
            reply = to_reply(self._connection.scenario.next_reply(), outcome.turn.prompt)
            outcome.begin(_fitted(reply, outcome.turn, self._request))
            self._answer = outcome
        return outcome

    def _leave_answer(self) -> None:
        """Has an answer that this client won't read written to its end all the same."""
        answer, self._answer = self._answer, None
        if answer is None or answer.whole:
            return
        if self._connection.scenario.options.finish_when_disconnected:
            self._connection.crew.write_on(answer)

    def _send_stand_in(self, reply: Union[Response, bytes]) -> bool:
        if isinstance(reply, Response):
            return self._send_response(reply)
        self._wire.send(reply)
        raise HangUpError

    def _send_response(self, response: Response) -> bool:
        fields = list(response.headers)
        if response.status != 204:
            fields.append(("Content-Length", str(len(response.body))))
        body = b"" if self._request.method == "HEAD" else response.body
        keep_alive = self._request.keep_alive
        head = self._head(response.status, fields, keep_alive)
        if self._fault.where is None:
            self._wire.send(head + body)
            return keep_alive
        self._send_head(head)
        if self._fault.where == "in_body":
            half = len(body) // 2
            self._wire.send(body[:half])
            self._strike()
            body = body[half:]
        self._wire.send(body)
        return keep_alive

    def _head(self, status: int, fields: Sequence[Tuple[str, str]], keep_alive: bool) -> bytes:
        more = [("x-github-request-id", self._request.request_id)]
        if not keep_alive:
            more.append(("Connection", "close"))
        return response_head(status, [*fields, *more])

    def _send_head(self, head: bytes) -> None:
        if self._fault.where == "in_headers":
            half = len(head) // 2
            self._wire.send(head[:half])
            self._strike()
            head = head[half:]
        self._wire.send(head)

    def _send_document(self, answer: Answer) -> bool:
        self._pause(answer.reply.first_delay)
        self._due = time.monotonic()
        for event in answer.events:
            self._connection.scenario.changed()
            if not event.ends:
                self._keep_pace(answer.reply.pace)
        message = {"content": answer.text, "references": []}
        return self._send_response(json_response(200, {"message": message}))

    def _send_stream(self, answer: Answer) -> bool:
        reply = answer.reply
        keep_alive = self._request.keep_alive and reply.framing != "close"
        framer = Framer(reply, answer.turn)
        self._send_head(self._head(200, framer.headers, keep_alive))
        self._framer = framer
        self._pause(reply.first_delay)
        self._send_events(answer, framer)
        try:
            self._send_all(framer.end())
        except ClientGoneError:
            return False  # it has had every event, and so has missed nothing
        return keep_alive

    def _send_events(self, answer: Answer, framer: Framer) -> None:
        self._due = time.monotonic()
        fault, reply = self._fault, answer.reply
        breaks_at = fault.after_events if fault.where == "in_body" else None
        while True:
            size = reply.per_write
            if breaks_at is not None:
                if self._sent == breaks_at:
                    self._break_body(answer, framer)
                elif self._sent < breaks_at:
                    size = min(size, breaks_at - self._sent)
            events = list(islice(answer.events, size))
            if not events:
                break
            self._send_packet(events, framer.packet([event.data for event in events]))
            if not events[-1].ends:
                self._keep_pace(reply.pace)
        if breaks_at is not None and self._sent < breaks_at:
            self._strike()

    def _send_packet(self, events: Sequence[Event], writes: Sequence[bytes]) -> None:
        self._send_all(writes)
        self._sent += len(events)
        self._connection.events_sent += len(events)
        self._connection.scenario.changed()

    def _break_body(self, answer: Answer, framer: Framer) -> None:
        events = list(islice(answer.events, 1)) if self._fault.mid_event else []
        packet = b"".join(framer.packet([event.data for event in events]))
        half = len(packet) // 2
        self._send_all([packet[:half]])
        self._strike()
        self._send_packet(events, [packet[half:]])

    def _send_all(self, writes: Sequence[bytes]) -> None:
        for write in writes:
            self._wire.send(write)

    def _strike(self) -> None:
        """Lets the fault happen: the connection ends here, or is silent for a while."""
        if self._fault.action != "stall":
            raise HangUpError(self._fault.action == "reset")
        self._connection.stall(lambda wake: self._pause(self._fault.seconds, wake))

    def _keep_pace(self, pace: float) -> None:
        """Waits for the next packet's time; what is late isn't caught up with in a burst."""
        if pace:
            now = time.monotonic()
            self._due = max(self._due + pace, now)
            self._pause(self._due - now)

    def _pause(self, seconds: Optional[float], wake: Optional[socket.socket] = None) -> None:
        """Waits, as long as the client stays and `wake` doesn't say otherwise."""
        until = None if seconds is None else time.monotonic() + seconds
        interval = self._comment_interval()
        while True:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            if self._wire.wait(_shorter(left, interval), wake):
                return
            if interval is not None and self._framer is not None:
                self._send_all(self._framer.packet([b": keep-alive\n\n"]))

    def _comment_interval(self) -> Optional[float]:
        if self._framer is None or self._answer is None:
            return None
        return self._answer.reply.comments


def _fitted(reply: Reply, turn: Turn, request: RecordedRequest) -> Reply:
    """Returns `reply` with what depends on the request settled."""
    if reply.as_json is None:
        reply = replace(reply, as_json=not turn.streaming)
    if request.version == "HTTP/1.0" and reply.framing == "chunked":
        reply = replace(reply, framing="close")
    return reply


def _shorter(one: Optional[float], other: Optional[float]) -> Optional[float]:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
