"""From a ``Reply`` to bytes: the events of the documented stream, and the HTTP body that carries them.

``render`` yields the events of an answer, ``BodyEncoder`` frames, compresses and tears them. Neither touches
a socket or a clock.

Rule: events are rendered one at a time, because an answer may have no end and its pieces may come from a
generator that waits for the test.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, List, Mapping, NamedTuple, Sequence, Tuple, Union

from copilot_sync.emulator.listed_models import AUTO
from copilot_sync.emulator.replies import Piece, Reply

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
#: What a ``complete`` event has in common with the message that the thread lists.
_STORED = ("references", "usage")


@dataclass(frozen=True)
class AnswerContext:
    """The message that is answered, and the ids of its answer: what the answer's events repeat."""

    prompt: str
    model: str
    intent: str
    streaming: bool
    message_id: str
    parent_id: str
    created_at: str
    auto_model: str


class RenderedEvent(NamedTuple):
    """One event of a stream.

    Attributes:
        data: its bytes.
        text: what it adds to the answer.
        is_last: whether the answer ends with it; ``data: [DONE]`` may still follow.
        stored: the fields of the thread's message that it sets.
        is_announcement: whether it only says which model ``auto`` chose. It isn't counted and goes out with the event
            behind it, so that what is scripted to happen after some events does so whatever model was asked for.
    """

    data: bytes
    text: str
    is_last: bool
    stored: Mapping[str, Any] = {}
    is_announcement: bool = False


def render(reply: Reply, context: AnswerContext) -> Iterator[RenderedEvent]:
    """Yield the events of a reply that ``to_reply`` returned."""
    line_ends = reply.newline.encode("ascii") * 2
    pieces: Iterable[Piece] = reply.pieces  # type: ignore[assignment]  # to_reply saw to it
    if reply.raw is not None:
        yield RenderedEvent(reply.raw, "".join(piece for piece in pieces if isinstance(piece, str)), True)
        return
    routed = routed_model(reply, context)
    if routed:
        event = _event({"type": "routedModel", "model": routed}, line_ends)
        yield event._replace(is_announcement=not reply.routed_model)
    count = 0
    for piece in pieces:
        count += isinstance(piece, str)
        yield _content(piece, line_ends)
    if reply.error is not None:
        yield _event(_error(reply.error), line_ends)
    elif reply.complete is not False:
        yield _event(_complete(reply, context, count), line_ends)
    if reply.done:
        yield RenderedEvent(b"data: [DONE]" + line_ends, "", True)


def routed_model(reply: Reply, context: AnswerContext) -> str:
    """Return the model that was chosen to answer, or ``""`` if nothing says that one was chosen."""
    return reply.routed_model or (context.auto_model if context.model == AUTO else "")


def _content(piece: Piece, line_ends: bytes) -> RenderedEvent:
    if isinstance(piece, bytes):
        return RenderedEvent(piece, "", False)
    if not isinstance(piece, str):
        return _event(piece, line_ends)
    return RenderedEvent(b'data: {"type":"content","body":' + _json(piece) + b"}" + line_ends, piece, False)


def _event(fields: Mapping[str, Any], line_ends: bytes) -> RenderedEvent:
    kind, body = fields.get("type"), fields.get("body")
    text = body if kind == "content" and isinstance(body, str) else ""
    stored = {name: fields[name] for name in _STORED if name in fields} if kind == "complete" else {}
    return RenderedEvent(b"data: " + _json(fields) + line_ends, text, kind in ("complete", "error"), stored)


def _error(error: Union[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"type": "error", **({"message": error} if isinstance(error, str) else error)}


def _complete(reply: Reply, context: AnswerContext, count: int) -> Mapping[str, Any]:
    usage = reply.usage
    if usage is None:
        usage = {"inputTokens": len(context.prompt.split()), "outputTokens": count}
    return {
        "type": "complete",
        "id": context.message_id,
        "parentMessageID": context.parent_id,
        "model": reply.model,
        "turnId": "",
        "createdAt": context.created_at,
        "references": list(reply.references),
        "role": "assistant",
        "intent": context.intent,
        **({"usage": usage} if usage else {}),
        "copilotAnnotations": {"CodeVulnerability": [], "PublicCodeReference": []},
        **(reply.complete if isinstance(reply.complete, Mapping) else {}),
    }


def _json(value: object) -> bytes:
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair can only be escaped
        return json.dumps(value).encode("ascii")


class BodyEncoder:
    """Turns the events of one reply into the bytes of an HTTP body.

    Args:
        reply: how to frame, compress and tear the body.
        context: what it answers; needed to compute a length in advance.
    """

    def __init__(self, reply: Reply, context: AnswerContext) -> None:
        self._reply = reply
        self._context = context
        self._chunked = reply.framing == "chunked"
        self._gzip = zlib.compressobj(wbits=31) if reply.encoding else None

    @property
    def headers(self) -> List[Tuple[str, str]]:
        """The header fields that the body needs."""
        fields = [("Content-Type", self._reply.content_type), ("Cache-Control", "no-cache")]
        if self._gzip is not None:
            fields.append(("Content-Encoding", "gzip"))
        if self._chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        elif self._reply.framing == "length":
            fields.append(("Content-Length", str(self._length())))
        return [*fields, *self._reply.headers.items()]

    def encode(self, events: Sequence[bytes]) -> List[bytes]:
        """Return the writes that carry these events in one packet. Send each by itself."""
        return self._frame(b"".join(map(self._compress, events)))

    def finish(self) -> List[bytes]:
        """Return the writes that end the body."""
        writes = self._frame(self._gzip.flush()) if self._gzip is not None else []
        return [*writes, b"0\r\n\r\n"] if self._chunked else writes

    def _compress(self, data: bytes) -> bytes:
        if self._gzip is None:
            return data
        return self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)

    def _frame(self, data: bytes) -> List[bytes]:
        size = self._reply.split
        parts = [data] if size is None else [data[i : i + size] for i in range(0, len(data), size)]
        if not self._chunked:
            return parts
        return [b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]

    def _length(self) -> int:
        rehearsal = BodyEncoder(self._reply, self._context)
        events = (rehearsal.encode([event.data]) for event in render(self._reply, self._context))
        total = sum(len(write) for writes in events for write in writes)
        return total + sum(len(write) for write in rehearsal.finish())
