"""One client's connection: its requests in turn, and each one's reply with the fault that hits it.

``Connection`` reads requests from an ``HttpSocket`` until one side ends it. ``ReplySender`` replies to one
request; it is the only place that turns a ``Fault`` into something that a client can see.

Rules: a connection runs in a thread of its own and touches no other connection's socket. Whatever the client
does, the thread ends quietly; only a defect in a test's own function or generator shows. An answer that
nobody reads any more is finished by ``ThreadGroup``, never by keeping the connection open.

Threads: a connection is confined to its thread, but for the end of a stall, which is locked.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from itertools import islice
from typing import Callable, Optional, Sequence, Tuple, Union

from copilot_sync.emulator.fault_script import FaultScript
from copilot_sync.emulator.faults import NO_FAULT
from copilot_sync.emulator.http1 import (
    BadRequestError,
    ClientGoneError,
    HttpResponse,
    HttpSocket,
    json_response,
    response_head,
)
from copilot_sync.emulator.rendering import AnswerContext, BodyEncoder, RenderedEvent
from copilot_sync.emulator.replies import Reply, to_reply
from copilot_sync.emulator.routes import match_route
from copilot_sync.emulator.service import EmulatedService, ServiceResult
from copilot_sync.emulator.state import Host, RecordedRequest, StoredAnswer
from copilot_sync.emulator.thread_group import ThreadGroup


class AbortConnection(Exception):  # noqa: N818 - a fault that was asked for, which is no error
    """Ends the connection in the middle of a reply, because a fault says so."""

    def __init__(self, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


class Connection:
    """One accepted connection.

    Args:
        number: its number, from 1.
        host: which of the hosts it came to.
        sock: its socket.
        service: what answers.
        fault_script: what will happen, and the record of it.
        thread_group: the emulator's threads.

    Attributes:
        idle: whether it is between requests.
        stalled: whether a fault keeps it silent.
        events_sent: events sent over it so far.
    """

    def __init__(
        self,
        number: int,
        host: Host,
        sock: HttpSocket,
        service: EmulatedService,
        fault_script: FaultScript,
        thread_group: ThreadGroup,
    ) -> None:
        self.number = number
        self.host = host
        self.sock = sock
        self.service = service
        self.fault_script = fault_script
        self.thread_group = thread_group
        self.idle = True
        self.stalled = False
        self.events_sent = 0
        self._requests = 0
        self._wake: Optional[socket.socket] = None
        self._lock = threading.Lock()

    def run(self, on_close: Callable[[Connection], None]) -> None:
        """Serve requests until one side ends the connection.

        Args:
            on_close: called at the end, after the socket is closed.
        """
        orderly = reset = False
        try:
            self.sock.handshake()
            while self._serve_request():
                pass
            orderly = True
        except ClientGoneError:
            pass
        except AbortConnection as abort:
            reset = abort.reset
        finally:
            self.sock.close(orderly=orderly, reset=reset)
            on_close(self)

    def stall(self, pause: Callable[[Optional[socket.socket]], None]) -> None:
        """Call ``pause`` with a socket that becomes readable when ``release`` is called."""
        wake, waker = socket.socketpair()
        with self._lock:
            self._wake, self.stalled = waker, True
        self.fault_script.notify()
        try:
            pause(wake)
        finally:
            with self._lock:
                self._wake, self.stalled = None, False
            wake.close()
            waker.close()

    def release(self) -> None:
        """End a stall; safe from any thread, and without effect if there is none."""
        with self._lock:
            if self._wake is not None:
                self._wake.send(b".")

    def _serve_request(self) -> bool:
        self._set_idle(True)
        try:
            request = self._read_request()
        except BadRequestError as error:
            self._refuse(error)
            return False
        if request is None:
            return False
        self._set_idle(False)
        self.fault_script.record(request)
        return ReplySender(self, request).run()

    def _set_idle(self, idle: bool) -> None:
        self.idle = idle
        self.fault_script.notify()

    def _read_request(self) -> Optional[RecordedRequest]:
        request = self.sock.read_request()
        if request is None:
            return None
        self._requests += 1
        route = match_route(self.host, request.method, request.path)
        return RecordedRequest(
            **vars(request),
            stage=route.stage,
            host=self.host,
            thread_id=route.thread_id,
            connection=self.number,
            time=time.monotonic(),
            request_id=f"{self.number:04X}:{self._requests:04X}",
        )

    def _refuse(self, error: BadRequestError) -> None:
        response = json_response(400, {"message": f"Bad Request: {error}", "status": "400"})
        length = ("Content-Length", str(len(response.body)))
        fields = [*response.headers, length, ("Connection", "close")]
        self.sock.send(response_head(400, fields) + response.body)
        self.sock.drain()


class ReplySender:
    """Replies to one request, with the fault that is scripted for it.

    Args:
        connection: the connection that the request came over.
        request: the request.
    """

    def __init__(self, connection: Connection, request: RecordedRequest) -> None:
        self._connection = connection
        self._sock = connection.sock
        self._script = connection.fault_script
        self._request = request
        self._fault = self._script.next_fault(request) or NO_FAULT
        self._answer: Optional[StoredAnswer] = None
        self._encoder: Optional[BodyEncoder] = None
        self._sent = 0
        self._due = 0.0

    def run(self) -> bool:
        """Reply, and return whether the connection can be used for another request.

        Raises:
            ClientGoneError: the client is gone.
            AbortConnection: a fault ends the connection.
        """
        try:
            return self._reply()
        except ClientGoneError:
            if not self._connection.thread_group.stopping.is_set():
                self._script.record_disconnect(self._request, self._sent)
            raise
        finally:
            self._finish_answer()

    def _reply(self) -> bool:
        fault = self._fault
        self._send_interims()
        if fault.expires_token:
            self._connection.service.revoke(self._request.bearer)
        result = self._process() if fault.processed else None
        if fault.where == "before_headers":
            self._trigger_fault()
        if fault.reply is not None:
            self._finish_answer()
            return self._send_replacement(fault.reply)
        if result is None:
            result = self._process()
        if isinstance(result, HttpResponse):
            return self._send_response(result)
        if result.reply.as_json:
            return self._send_document(result)
        return self._send_stream(result)

    def _send_interims(self) -> None:
        if self._request.version == "HTTP/1.1":
            for status in self._fault.interims:
                fields = [("Link", "</style.css>; rel=preload")] if status == 103 else []
                self._sock.send(response_head(status, fields))

    def _process(self) -> ServiceResult:
        """Let the service process the request, and start the answer if there is one."""
        result = self._connection.service.handle(self._request)
        if isinstance(result, StoredAnswer):
            reply = to_reply(self._script.next_reply(), result.context.prompt)
            result.start(_resolve(reply, result.context, self._request))
            self._answer = result
        return result

    def _finish_answer(self) -> None:
        """Have the answer finished in its thread if this client won't read the rest of it."""
        answer, self._answer = self._answer, None
        if answer is None or answer.finished:
            return
        if self._script.options.finish_when_disconnected:
            self._connection.thread_group.finish_answer(answer)

    def _send_replacement(self, reply: Union[HttpResponse, bytes]) -> bool:
        if isinstance(reply, HttpResponse):
            return self._send_response(reply)
        self._sock.send(reply)
        raise AbortConnection

    def _send_response(self, response: HttpResponse) -> bool:
        fields = list(response.headers)
        if response.status != 204:
            fields.append(("Content-Length", str(len(response.body))))
        body = b"" if self._request.method == "HEAD" else response.body
        keep_alive = self._request.keep_alive
        head = self._head(response.status, fields, keep_alive)
        if self._fault.where is None:
            self._sock.send(head + body)
            return keep_alive
        self._send_head(head)
        if self._fault.where == "in_body":
            half = len(body) // 2
            self._sock.send(body[:half])
            self._trigger_fault()
            body = body[half:]
        self._sock.send(body)
        return keep_alive

    def _head(self, status: int, fields: Sequence[Tuple[str, str]], keep_alive: bool) -> bytes:
        more = [("x-github-request-id", self._request.request_id)]
        if not keep_alive:
            more.append(("Connection", "close"))
        return response_head(status, [*fields, *more])

    def _send_head(self, head: bytes) -> None:
        if self._fault.where == "in_headers":
            half = len(head) // 2
            self._sock.send(head[:half])
            self._trigger_fault()
            head = head[half:]
        self._sock.send(head)

    def _send_document(self, answer: StoredAnswer) -> bool:
        self._pause(answer.reply.first_delay)
        self._due = time.monotonic()
        for event in answer.events:
            self._script.notify()
            if not event.is_last:
                self._keep_pace(answer.reply.pace)
        message = {"content": answer.text, "references": list(answer.reply.references)}
        return self._send_response(json_response(200, {"message": message}))

    def _send_stream(self, answer: StoredAnswer) -> bool:
        reply = answer.reply
        keep_alive = self._request.keep_alive and reply.framing != "close"
        encoder = BodyEncoder(reply, answer.context)
        self._send_head(self._head(200, encoder.headers, keep_alive))
        self._encoder = encoder
        self._pause(reply.first_delay)
        self._send_events(answer, encoder)
        try:
            self._send_all(encoder.finish())
        except ClientGoneError:
            return False  # it has every event, and so has missed nothing
        return keep_alive

    def _send_events(self, answer: StoredAnswer, encoder: BodyEncoder) -> None:
        self._due = time.monotonic()
        fault, reply = self._fault, answer.reply
        fault_after = fault.after_events if fault.where == "in_body" else None
        while True:
            size = reply.per_write
            if fault_after is not None:
                if self._sent == fault_after:
                    self._trigger_fault_in_body(answer, encoder)
                elif self._sent < fault_after:
                    size = min(size, fault_after - self._sent)
            events = list(islice(answer.events, size))
            if not events:
                break
            if events[0].is_announcement:
                events += islice(answer.events, 1)
            self._send_packet(events, encoder.encode([event.data for event in events]))
            if not events[-1].is_last:
                self._keep_pace(reply.pace)
        if fault_after is not None and self._sent < fault_after:
            self._trigger_fault()

    def _send_packet(self, events: Sequence[RenderedEvent], writes: Sequence[bytes]) -> None:
        self._send_all(writes)
        count = sum(not event.is_announcement for event in events)
        self._sent += count
        self._connection.events_sent += count
        self._script.notify()

    def _trigger_fault_in_body(self, answer: StoredAnswer, encoder: BodyEncoder) -> None:
        events = list(islice(answer.events, 1)) if self._fault.mid_event else []
        packet = b"".join(encoder.encode([event.data for event in events]))
        half = len(packet) // 2
        self._send_all([packet[:half]])
        self._trigger_fault()
        self._send_packet(events, [packet[half:]])

    def _send_all(self, writes: Sequence[bytes]) -> None:
        for write in writes:
            self._sock.send(write)

    def _trigger_fault(self) -> None:
        """End the connection here, or be silent for a while, as the fault says."""
        if self._fault.action != "stall":
            raise AbortConnection(self._fault.action == "reset")
        self._connection.stall(lambda wake: self._pause(self._fault.seconds, wake))

    def _keep_pace(self, pace: float) -> None:
        """Wait for the next packet's time. A delay is not made up for with a burst."""
        if pace:
            now = time.monotonic()
            self._due = max(self._due + pace, now)
            self._pause(self._due - now)

    def _pause(self, seconds: Optional[float], wake: Optional[socket.socket] = None) -> None:
        """Wait until the time is over or ``wake`` is readable; ``None`` waits without a limit.

        Raises:
            ClientGoneError: the client closed the connection.
        """
        until = None if seconds is None else time.monotonic() + seconds
        interval = self._comment_interval()
        while True:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            if self._sock.wait(_shorter(left, interval), wake):
                return
            if interval is not None and self._encoder is not None:
                self._send_all(self._encoder.encode([b": keep-alive\n\n"]))

    def _comment_interval(self) -> Optional[float]:
        if self._encoder is None or self._answer is None:
            return None
        return self._answer.reply.comments


def _resolve(reply: Reply, context: AnswerContext, request: RecordedRequest) -> Reply:
    """Return ``reply`` with the parts that depend on the request filled in."""
    if reply.as_json is None:
        reply = replace(reply, as_json=not context.streaming)
    if request.version == "HTTP/1.0" and reply.framing == "chunked":
        reply = replace(reply, framing="close")
    return reply


def _shorter(one: Optional[float], other: Optional[float]) -> Optional[float]:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
