"""A reply being read: bytes go from its body to the parser, as long as the parser wants.

``events`` is a part of the driver. While that is paused because nothing has arrived, whoever makes the call may
``take`` the events that arrive, without going through the driver for each.

Threads: confined to whoever goes on with the stream.
"""

import contextlib
from typing import Iterator, List, Optional, Union

from copilot_sync.delivery.answer import AnswerParser
from copilot_sync.errors import CopilotError
from copilot_sync.events import ContentEvent, Event
from copilot_sync.stepping import Pause
from copilot_sync.transport.body import Body
from copilot_sync.transport.call import CallContext


class Reading:
    """Feeds one body to its parser, and waits for each piece as long as the parser says.

    Args:
        body: The body.
        parser: The parser.
        call: The call that they belong to.
        buffered: Whether nothing is handed out before the end, so that there is nothing to take.
    """

    def __init__(self, body: Body, parser: AnswerParser, call: CallContext, *, buffered: bool = False) -> None:
        self._body = body
        self._pieces = body.pieces()
        self._parser = parser
        self._call = call
        self._buffered = buffered
        self._patience = parser.patience
        self._window = contextlib.ExitStack()
        # What ``take`` met. One at most, and raised out of here, so that no frame in its traceback holds it.
        self._failures: List[CopilotError] = []
        #: Whether there is nothing more to take, and ``events`` goes on.
        self.is_over = False

    def events(self) -> Iterator[Union[Event, Pause]]:
        """Yield the events, up to the end of the reply.

        Raises:
            CopilotError: As ``Body.pieces`` raises them.
        """
        call, parser = self._call, self._parser
        with self._window:
            for piece in self._pieces:
                if not piece:
                    yield from self._paused()
                    if self.is_over:
                        break
                    continue
                for event in parser.feed(piece):
                    if type(event) is ContentEvent:
                        yield event
                    else:
                        with call.paused():
                            yield event
                if self._has_ended():
                    break
        if self._failures:
            raise self._failures.pop()
        if parser.end is None:
            yield from parser.feed_eof(framing_complete=self._body.framing_complete)

    def _paused(self) -> Iterator[Pause]:
        self._call.reading = None if self._buffered else self
        try:
            yield Pause.NOTHING_YET
        finally:
            self._call.reading = None

    def take(self) -> Optional[List[Event]]:
        """Return the events that the next piece makes whole; ``None`` if there is nothing to take."""
        try:
            piece = next(self._pieces, None)
        except CopilotError as error:
            self._failures.append(error)
            piece = None
        if not piece:
            self.is_over = piece is None
            return None
        events = list(self._parser.feed(piece))
        self.is_over = self._has_ended()
        return events

    def _has_ended(self) -> bool:
        """Take note of a piece that was fed, and return whether it was the last one that the parser wants."""
        call, parser = self._call, self._parser
        if parser.end is not None:
            return True
        if parser.has_progressed:
            call.touch()
        else:
            call.hear()
        if parser.patience is not self._patience:
            self._patience = parser.patience
            self._window.close()
            if self._patience is not None:
                self._window.enter_context(call.window(self._patience))
        return False
