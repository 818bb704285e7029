"""What the emulated assistant says: ``Reply``, and the shorter forms that can be scripted in its place.

A ``Reply`` is a plain value that a test or a load generator passes to the emulator. ``to_reply`` makes one
of everything else that can be scripted.

Rules: a wrong argument is a ``ValueError`` or ``TypeError`` in the call that passes it, not later in some
thread. The pieces of an answer may come from a generator, and may have no end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Iterable, Literal, Mapping, Optional, Sequence, Union

Piece = Union[str, bytes, Mapping[str, Any]]
"""A piece of an answer: text (a ``content`` event), a mapping (an event of its own, sent as it is), or
bytes (put into the stream as they are)."""

Pieces = Union[str, Iterable[Piece]]
Prompted = Callable[[str], Any]
Script = Union[str, bytes, Iterable[Piece], "Reply", Prompted]
"""What can be scripted; ``to_reply`` says what becomes of each form."""

Framing = Literal["chunked", "length", "close"]

_FRAMINGS = ("chunked", "length", "close")
_NEWLINES = ("\n", "\r\n", "\r")


@dataclass(frozen=True)
class Reply:
    r"""One answer, and how it is sent.

    Attributes:
        pieces: the answer: a string (one event per word), an iterable of pieces, or a function that takes
            the prompt and returns either. A mapping among the pieces is sent as an event as it is, whatever its
            type, e.g. ``{"type": "skillExecution", ...}``. ``None`` repeats the prompt, word by word.
        pace: seconds from one packet to the next.
        first_delay: seconds between the headers and the first event.
        model: the ``model`` of the ``complete`` event.
        routed_model: the model that a ``routedModel`` event names. By default there is such an event only if
            the request asks for the model ``auto``.
        usage: the ``usage`` of the ``complete`` event. ``None`` counts words; ``{}`` leaves it out.
        complete: whether a ``complete`` event ends the answer; a mapping adds to its fields.
        done: whether ``data: [DONE]`` follows.
        error: the message, or the fields, of an ``error`` event that ends the answer in place of ``complete``.
        framing: how the body's end is marked: ``"chunked"``, ``"length"`` or ``"close"``.
        encoding: ``"gzip"`` compresses the body, flushed after each event.
        newline: what ends a line: ``"\n"``, ``"\r\n"`` or ``"\r"``.
        split: bytes per write (and chunk); larger packets are torn. ``None`` sends a packet at once.
        per_write: events per packet.
        raw: these bytes are the whole body; ``pieces``, if there are any, is what the thread stores.
        as_json: whether to send one JSON document in place of a stream. ``None`` does as the request asks.
        comments: seconds between keep-alive comments while nothing else is sent; ``None`` sends none.
        content_type: the stream's ``Content-Type``.
        headers: further header fields of the stream.
    """

    pieces: Union[Pieces, Callable[[str], Pieces], None] = None
    pace: float = 0.0
    first_delay: float = 0.0
    model: str = ""
    routed_model: Optional[str] = None
    references: Sequence[Mapping[str, Any]] = ()
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
        if isinstance(self.references, (str, Mapping)) or not all(isinstance(ref, Mapping) for ref in self.references):
            raise TypeError("references are a list of mappings")
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
            raise ValueError("comments is above 0, and doesn't fit framing='length'")

    @property
    def is_instant(self) -> bool:
        """Whether the answer can be written without waiting for anything."""
        in_memory = self.pieces is None or isinstance(self.pieces, (str, list, tuple))
        return not self.pace and not self.first_delay and in_memory


def check_script(script: Script) -> None:
    """Raise ``TypeError`` if ``to_reply`` can't use ``script``."""
    if isinstance(script, (Reply, Iterable)) and not isinstance(script, Mapping):
        return
    if not callable(script):
        raise TypeError(f"a reply is text, pieces, bytes, a function or a Reply, not {script!r}")


def to_reply(script: Script, prompt: str) -> Reply:
    """Return the reply to ``prompt`` that ``script`` stands for, with its pieces resolved.

    A string is said word by word, an iterable piece by piece. Bytes are the raw body. A function is called
    with the prompt, and its result is treated the same way.
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
