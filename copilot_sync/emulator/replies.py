"""What the emulated assistant says, and what goes wrong while it does: `Reply` and `Fault`.

Both are plain values that a test or a load generator hands to the emulator. `render` turns a
`Reply` into the events of the documented stream, `Framer` turns those into the bytes of an HTTP
body. Nothing here touches a socket or a clock.

Rules: events are rendered one at a time, so that an answer may be endless and its pieces may come
from a generator; what a caller set wrong is a `ValueError` or `TypeError` where it was set.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field, replace
from typing import (
    Any,
    Callable,
    Iterable,
    Iterator,
    List,
    Literal,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from .http1 import Body, Response, body_bytes, json_response

Piece = Union[str, bytes, Mapping[str, Any]]
"""A piece of an answer: text (a `content` event), a mapping (an event of its own, as it stands), or
bytes (put into the stream as they are)."""

Pieces = Union[str, Iterable[Piece]]
Prompted = Callable[[str], Any]
Script = Union[str, bytes, Iterable[Piece], "Reply", Prompted]
"""What can be scripted; `to_reply` says what becomes of each."""

Framing = Literal["chunked", "length", "close"]
When = Union[Literal["before_headers", "in_headers"], Tuple[str, int]]

_FRAMINGS = ("chunked", "length", "close")
_NEWLINES = ("\n", "\r\n", "\r")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Reply:
    r"""One answer, and how it goes over the wire.

    Attributes:
        pieces: the answer: a string (one event a word), an iterable of pieces, or a function of the
            prompt that returns either. `None`: the prompt, word by word.
        pace: seconds from one packet to the next.
        first_delay: seconds between the headers and the first event.
        model: the `model` of the `complete` event.
        routed_model: announced by a `routedModel` event; by default only where `auto` was asked.
        usage: the `usage` of the `complete` event. `None`: counted in words; `{}`: left out.
        complete: whether a `complete` event ends the answer; a mapping adds to its fields.
        done: whether `data: [DONE]` follows.
        error: the answer ends with an `error` event in place of `complete`: its message or fields.
        framing: how the body's end is told: `"chunked"`, `"length"` or `"close"`.
        encoding: `"gzip"` compresses the body, flushed after each event.
        newline: what ends a line: `"\n"`, `"\r\n"` or `"\r"`.
        split: tears each packet into writes (and chunks) of that many bytes.
        per_write: events in a packet.
        raw: these bytes are the whole body; `pieces`, if given, is what the thread keeps.
        as_json: one JSON document, not a stream. `None`: where the request wants no stream.
        comments: seconds between keep-alive comments while nothing else is sent; `None` for none.
        content_type: the stream's `Content-Type`.
        headers: further header fields of the stream.
    """

    pieces: Union[Pieces, Callable[[str], Pieces], None] = None
    pace: float = 0.0
    first_delay: float = 0.0
    model: str = ""
    routed_model: Optional[str] = None
    usage: Optional[Mapping[str, int]] = None
    complete: Union[bool, Mapping[str, Any]] = True
    done: bool = False
    error: Union[str, Mapping[str, Any], None] = None
    framing: Framing = "chunked"
    encoding: Optional[Literal["gzip"]] = None
    newline: str = "\n"
    split: Optional[int] = None
    per_write: int = 1
    raw: Optional[bytes] = None
    as_json: Optional[bool] = None
    comments: Optional[float] = None
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.pieces, (bytes, Mapping)):
            raise TypeError("pieces are a string or a list; a body of bytes is raw=...")
        if self.framing not in _FRAMINGS:
            raise ValueError(f"framing is one of {_FRAMINGS}, not {self.framing!r}")
        if self.encoding not in (None, "gzip"):
            raise ValueError(f"encoding is None or 'gzip', not {self.encoding!r}")
        if self.newline not in _NEWLINES:
            raise ValueError(f"newline is one of {_NEWLINES}, not {self.newline!r}")
        if self.per_write < 1 or (self.split is not None and self.split < 1):
            raise ValueError("per_write and split are at least 1")
        if self.pace < 0 or self.first_delay < 0:
            raise ValueError("pace and first_delay are seconds, and not negative")
        if self.comments is not None and (self.comments <= 0 or self.framing == "length"):
            raise ValueError("comments is above 0, and doesn't fit a body whose length is told")

    @property
    def instant(self) -> bool:
        """Whether the answer can be written without waiting for anything."""
        return not self.pace and not self.first_delay and _is_at_hand(self.pieces)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with one request; made by the class methods.

    Every fault has a `taken`: whether the service does what was asked although the client doesn't
    learn of it. A message that is taken stands in its thread, and is answered there.
    """

    where: Optional[Literal["before_headers", "in_headers", "in_body"]] = None
    action: Optional[Literal["close", "reset", "stall"]] = None
    seconds: Optional[float] = None
    after_events: int = 0
    mid_event: bool = False
    reply: Union[Response, bytes, None] = None
    taken: bool = True
    expires_token: bool = False

    @classmethod
    def status(
        cls,
        code: int,
        *,
        retry_after: Union[float, str, None] = None,
        headers: Optional[Mapping[str, str]] = None,
        body: Body = None,
        message: Optional[str] = None,
        taken: bool = False,
    ) -> Fault:
        """Answers with a status.

        Args:
            code: the status.
            retry_after: seconds or an HTTP date for a `Retry-After` field.
            headers: further fields; a `Content-Type` among them replaces the usual one.
            body: text, bytes, or what is sent as JSON; by default `{"message": ...}`.
            message: the words in that default body.
            taken: see the class.
        """
        fields = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        if retry_after is not None:
            fields["Retry-After"] = str(retry_after)
        if body is None:
            body = {"message": message or f"emulated status {code}", "status": str(code)}
        response = Response(code, body_bytes(body), tuple(fields.items()))
        return cls(reply=response, taken=taken)

    @classmethod
    def garbage(
        cls,
        body: Body = "<!DOCTYPE html><title>Not what was asked for</title>",
        content_type: str = "text/html; charset=utf-8",
        *,
        status: int = 200,
        headers: Optional[Mapping[str, str]] = None,
        taken: bool = False,
    ) -> Fault:
        """Answers with something else than the protocol has here."""
        fields = {"Content-Type": content_type, **(headers or {})}
        return cls.status(status, headers=fields, body=body_bytes(body), taken=taken)

    @classmethod
    def wire(cls, data: bytes, *, taken: bool = False) -> Fault:
        """Sends `data` in place of an HTTP reply, and closes the connection."""
        return cls(reply=data, taken=taken)

    @classmethod
    def redirect(cls, location: str = "/login?return_to=%2Fcopilot", *, status: int = 302) -> Fault:
        """Answers with a redirect."""
        return cls.garbage("", status=status, headers={"Location": location})

    @classmethod
    def expired_token(cls) -> Fault:
        """Answers 401, and the token that was sent is not valid from then on."""
        fault = cls(reply=unauthorized("the token has expired"), taken=False)
        return replace(fault, expires_token=True)

    @classmethod
    def drop(
        cls,
        when: Literal["before_headers", "in_headers"] = "before_headers",
        *,
        reset: bool = False,
        taken: bool = True,
    ) -> Fault:
        """Ends the connection before the reply's headers, or in the middle of them.

        Args:
            when: where.
            reset: with a RST in place of a FIN.
            taken: see the class.
        """
        # A reply whose headers break off needs headers, also where nothing was done for it.
        stand_in = None if taken or when == "before_headers" else json_response(200, {})
        return cls(where=_place(when)[0], action=_end(reset), reply=stand_in, taken=taken)

    @classmethod
    def cut(cls, after_events: int = 0, *, reset: bool = False, mid_event: bool = False) -> Fault:
        """Ends the connection in the body.

        Args:
            after_events: events of a stream that are sent before; where it has fewer, all of them,
                but not the body's end. Any other reply is cut in the middle of its body.
            reset: with a RST in place of a FIN.
            mid_event: half of the next event is sent as well.
        """
        _, events = _place(("after_events", after_events))
        return cls("in_body", _end(reset), after_events=events, mid_event=mid_event)

    @classmethod
    def stall(
        cls,
        when: When = "before_headers",
        seconds: Optional[float] = None,
        *,
        mid_event: bool = False,
        taken: bool = True,
    ) -> Fault:
        """Falls silent, then goes on as if nothing had been.

        Args:
            when: `"before_headers"`, `"in_headers"` or `("after_events", n)`.
            seconds: for how long; `None` until the emulator's `release()`.
            mid_event: half of the next event is sent before.
            taken: whether the service does what was asked before the silence, or after it.
        """
        where, events = _place(when)
        return cls(where, "stall", seconds, events, mid_event, taken=taken)

    @classmethod
    def delay(cls, seconds: float) -> Fault:
        """Does what was asked, and answers, `seconds` late."""
        return cls.stall(seconds=seconds, taken=False)


NO_FAULT = Fault()


@dataclass(frozen=True)
class Turn:
    """What an answer answers: the facts that its events repeat."""

    prompt: str
    model: str
    intent: str
    streaming: bool
    message_id: str
    parent_id: str
    created_at: str
    default_model: str


class Event(NamedTuple):
    """One event of a stream.

    Attributes:
        data: its bytes.
        text: what it adds to the answer.
        ends: whether the answer is over with it.
    """

    data: bytes
    text: str
    ends: bool


def unauthorized(words: str) -> Response:
    """Returns the api's refusal of a bearer token."""
    return json_response(401, {"error": {"message": words, "code": "unauthorized"}})


def check_script(script: Script) -> None:
    """Raises `TypeError` where `script` isn't anything that `to_reply` could use."""
    if isinstance(script, (Reply, Iterable)) and not isinstance(script, Mapping):
        return
    if not callable(script):
        raise TypeError(f"a reply is text, pieces, bytes, a function or a Reply, not {script!r}")


def to_reply(script: Script, prompt: str) -> Reply:
    """Returns the reply to `prompt` that `script` stands for, its pieces known.

    A string is said word by word, an iterable piece by piece, bytes are the raw body, a function
    is called with the prompt, and what it returns is treated the same way.
    """
    while not isinstance(script, (Reply, Iterable)):
        script = script(prompt)
    if isinstance(script, bytes):
        script = Reply(raw=script)
    reply = script if isinstance(script, Reply) else Reply(pieces=script)
    pieces = reply.pieces
    if pieces is None:
        pieces = prompt if reply.raw is None else ()
    elif callable(pieces):
        pieces = pieces(prompt)
    if isinstance(pieces, str):
        pieces = re.findall(r"\s*\S+|\s+", pieces)
    return replace(reply, pieces=tuple(pieces) if reply.framing == "length" else pieces)


def render(reply: Reply, turn: Turn) -> Iterator[Event]:
    """Yields the events of a reply whose pieces are known."""
    end = reply.newline.encode("ascii") * 2
    pieces: Iterable[Piece] = reply.pieces  # type: ignore[assignment]  # to_reply saw to it
    if reply.raw is not None:
        yield Event(reply.raw, "".join(filter(_is_text, pieces)), True)  # type: ignore[arg-type]
        return
    routed = reply.routed_model or (turn.default_model if turn.model == "auto" else None)
    if routed:
        yield _event({"type": "routedModel", "model": routed}, end)
    count = 0
    for piece in pieces:
        count += isinstance(piece, str)
        yield _content(piece, end)
    if reply.error is not None:
        yield _event(_error(reply.error), end)
    elif reply.complete is not False:
        yield _event(_complete(reply, turn, count), end)
    if reply.done:
        yield Event(b"data: [DONE]" + end, "", True)


def _content(piece: Piece, end: bytes) -> Event:
    if isinstance(piece, bytes):
        return Event(piece, "", False)
    if not isinstance(piece, str):
        return _event(piece, end)
    return Event(b'data: {"type":"content","body":' + _json(piece) + b"}" + end, piece, False)


def _event(fields: Mapping[str, Any], end: bytes) -> Event:
    kind, body = fields.get("type"), fields.get("body")
    text = body if kind == "content" and isinstance(body, str) else ""
    return Event(b"data: " + _json(fields) + end, text, kind in ("complete", "error"))


def _error(error: Union[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"type": "error", **({"message": error} if isinstance(error, str) else error)}


def _complete(reply: Reply, turn: Turn, count: int) -> Mapping[str, Any]:
    usage = reply.usage
    if usage is None:
        usage = {"inputTokens": len(turn.prompt.split()), "outputTokens": count}
    return {
        "type": "complete",
        "id": turn.message_id,
        "parentMessageID": turn.parent_id,
        "model": reply.model,
        "turnId": "",
        "createdAt": turn.created_at,
        "references": [],
        "role": "assistant",
        "intent": turn.intent,
        **({"usage": usage} if usage else {}),
        "copilotAnnotations": {"CodeVulnerability": [], "PublicCodeReference": []},
        **(reply.complete if isinstance(reply.complete, Mapping) else {}),
    }


def _json(value: object) -> bytes:
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair can only be escaped
        return json.dumps(value).encode("ascii")


class Framer:
    """Turns the events of one reply into the bytes of an HTTP body.

    Args:
        reply: how the body is framed, encoded and torn.
        turn: what it answers; needed to tell a length beforehand.
    """

    def __init__(self, reply: Reply, turn: Turn) -> None:
        self._reply = reply
        self._turn = turn
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

    def packet(self, events: Sequence[bytes]) -> List[bytes]:
        """Returns the writes that carry these events; each is to be sent by itself."""
        return self._frame(b"".join(map(self._encode, events)))

    def end(self) -> List[bytes]:
        """Returns the writes that tell the body's end."""
        writes = self._frame(self._gzip.flush()) if self._gzip is not None else []
        return [*writes, b"0\r\n\r\n"] if self._chunked else writes

    def _encode(self, data: bytes) -> bytes:
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
        rehearsal = Framer(self._reply, self._turn)
        events = (rehearsal.packet([event.data]) for event in render(self._reply, self._turn))
        total = sum(len(write) for writes in events for write in writes)
        return total + sum(len(write) for write in rehearsal.end())


def _is_at_hand(pieces: object) -> bool:
    return pieces is None or isinstance(pieces, (str, list, tuple))


def _is_text(piece: Piece) -> bool:
    return isinstance(piece, str)


def _end(reset: bool) -> Literal["close", "reset"]:
    return "reset" if reset else "close"


def _place(
    when: object,
) -> Tuple[Literal["before_headers", "in_headers", "in_body"], int]:
    if when == "before_headers":
        return "before_headers", 0
    if when == "in_headers":
        return "in_headers", 0
    if isinstance(when, tuple) and len(when) == 2 and when[0] == "after_events" and when[1] >= 0:
        return "in_body", when[1]
    raise ValueError(f"when is 'before_headers', 'in_headers' or ('after_events', n), not {when!r}")
