"""An answer as the body of a response, for WSGI servers. The server's own thread reads it.

If the reader leaves before the end, the answer is stopped, or read on in a thread for a bounded time, and as long as
another page follows it. Nobody listens then; the answer goes into its record only.

Threads: confined to the thread that iterates; after ``close``, to the one that reads on. The set of those threads is
atomic.
"""

import threading
import time
from typing import Any, Callable, Iterator, NamedTuple, Optional, Set

from copilot_sync.contrib.chat.readings import HEARTBEAT, AnswerFollowing, AnswerReading
from copilot_sync.contrib.sse import COMMENT, PREAMBLE, EventStream
from copilot_sync.models import Answer
from copilot_sync.os_threads import start_thread

#: Answers that are read on in one process at once, after their readers have left. Others are stopped.
MOST_READ_ON = 64

_reading_on: Set[threading.Thread] = set()


class BodyOptions(NamedTuple):
    """How an answer is sent.

    Attributes:
        background: Seconds for which it is read on after its reader has left.
        on_complete: Called with the answer when it is complete.
        name_thread: Whether a new conversation gets a name.
        after: Called at the end of a thread that has read on.
    """

    background: float = 0.0
    on_complete: Optional[Callable[[Answer], object]] = None
    name_thread: bool = True
    after: Optional[Callable[[], object]] = None


class ChatBody(Iterator[bytes]):
    """An answer that is read from the service.

    Args:
        reading: The answer.
        options: How it is sent.
        begins: Whether it begins with the ``started`` event.
    """

    def __init__(self, reading: AnswerReading, options: BodyOptions, *, begins: bool = True) -> None:
        self._reading = reading
        self._options = options
        self._has_begun = not begins
        self._has_left = False
        self._body = self._new_body()

    def _new_body(self) -> EventStream:
        return EventStream(
            self._reading.stream,
            heartbeat=HEARTBEAT,
            on_complete=self._options.on_complete,
            name_thread=self._options.name_thread,
            format=self._reading,
        )

    def __next__(self) -> bytes:
        """Wait for the next bytes to send.

        Raises:
            StopIteration: Everything has been sent.
        """
        reading = self._reading
        if not self._has_begun:
            self._has_begun = True
            return PREAMBLE + reading.started()
        if reading.record.is_due and not reading.record.write():
            self._body.close()
            events = reading.stopped()
        else:
            events = next(self._body)
        if reading.has_ended and reading.record.is_due:
            reading.record.write()
        if reading.is_due_again:
            reading.look_again()
            self._body = self._new_body()
        return events

    def close(self) -> None:
        """Say that the reader has left, or has got everything. May be called any number of times."""
        if self._has_left:
            return
        self._has_left = True
        until = time.monotonic() + self._options.background
        if not self._reading.may_go_on(until) or not self._read_on(until):
            self._end()

    def _read_on(self, until: float) -> bool:
        """Have a thread read on, and return whether there is one."""
        if sum(thread.is_alive() for thread in _reading_on.copy()) >= MOST_READ_ON:
            return False
        thread = threading.Thread(target=self._finish, args=(until,), name="copilot-sync-reads-on", daemon=True)
        _reading_on.add(thread)
        try:
            start_thread(thread)
        except RuntimeError:  # there can't be another
            _reading_on.discard(thread)
            return False
        return True

    def _finish(self, until: float) -> None:
        try:
            while self._reading.may_go_on(until) and next(self, None) is not None:
                pass
        finally:
            self._end()
            if self._options.after is not None:
                self._options.after()
            _reading_on.discard(threading.current_thread())

    def _end(self) -> None:
        self._body.close()
        if not self._reading.has_ended:
            self._reading.record.leave()

    def __del__(self) -> None:
        # If __init__ raised, there is nothing to close.
        if hasattr(self, "_body"):
            self.close()


class FollowingBody(Iterator[bytes]):
    """An answer that another reader keeps, and that is taken over if that reader dies.

    Args:
        following: The answer.
        options: How it is sent if it is taken over.
    """

    def __init__(self, following: AnswerFollowing, options: BodyOptions) -> None:
        self._following = following
        self._options = options
        self._has_begun = False
        self._own: Optional[ChatBody] = None

    def __next__(self) -> bytes:
        """Wait for the next bytes to send.

        Raises:
            StopIteration: Everything has been sent.
        """
        following = self._following
        if self._own is not None:
            return next(self._own)
        if not self._has_begun:
            self._has_begun = True
            return PREAMBLE + following.started()
        if following.has_ended:
            raise StopIteration
        events = following.step()
        if following.reading is not None:
            self._own = ChatBody(following.reading, self._options, begins=False)
        elif events is None:
            time.sleep(HEARTBEAT)
        return events or COMMENT

    def close(self) -> None:
        """Say that the reader has left, or has got everything. May be called any number of times."""
        if self._own is not None:
            self._own.close()


def body_of(answer: Any, options: BodyOptions) -> Iterator[bytes]:
    """Return the body for an ``AnswerReading`` or an ``AnswerFollowing``."""
    return ChatBody(answer, options) if isinstance(answer, AnswerReading) else FollowingBody(answer, options)
