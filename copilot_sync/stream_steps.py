"""The driver of one stream, and who may go on with it: the engine under ``Stream``.

The driver is the generator of ``delivery.exchange``. A thread that blocks goes on with ``block``; one that has other
things to do polls; an event loop takes turns, in steps that wait for nothing. What blocks in between, such as sending
the question, is done by a thread that helps, and ends with it.

How a stream ended is noted once, by whoever is first: the driver notes an answer or a failure, ``close`` notes the
thread that called it. All later calls go by that note, so no timing decides what a reader sees.

Threads: whoever goes on holds a lock, for which nobody waits. The rest is confined to whoever goes on.
"""

import contextlib
import threading
from collections import deque
from typing import Any, Callable, Deque, Generator, List, NoReturn, Optional

from copilot_sync.delivery.answer_builder import FAILED, AnswerBuilder, Closed
from copilot_sync.errors import CopilotError, StreamClosedError
from copilot_sync.events import ContentEvent
from copilot_sync.models import Conversation
from copilot_sync.os_threads import ThreadResult
from copilot_sync.stepping import Pace, Pause, Watch
from copilot_sync.transport.call import CallContext

#: Items that are read ahead of whoever takes them.
READ_AHEAD = 256


class StreamSteps:
    """The steps of one stream. Items are events, and the conversation, which comes first.

    Args:
        driver: The generator of the call.
        call: Its context.
        builder: What has come of the answer.
        on_start: Called with the conversation once it is known.
        on_discard: Called with the conversation if it is of no use any more.
    """

    def __init__(
        self,
        driver: Generator[Any, None, None],
        call: CallContext,
        builder: AnswerBuilder,
        on_start: Optional[Callable[[Conversation], None]],
        on_discard: Optional[Callable[[Conversation], None]],
    ) -> None:
        self._driver = driver
        self._call = call
        self._builder = builder
        self._ends = builder.ends
        self._on_start = on_start
        self._on_discard = on_discard
        # Whoever holds it may enter the driver: without the GIL, two threads in one generator crash Python. Nobody
        # waits for it. If a signal handler raises just before it is released, its thread can still enter.
        self._inside = threading.RLock()
        #: Whether the conversation is known.
        self.started = False
        self._begun: Optional[Conversation] = None
        self._reader = 0  # the thread that polls, or blocks after it
        self._starter = 0  # the thread that is inside of ``on_start``
        self._closed_by_reader = False  # in there
        # What an event loop watches the connection with. It closes the driver, in the loop's own thread.
        self._watch: Optional[Watch] = None
        # One at most: it came right behind items that were returned. Raised out of here, no frame of its holds it.
        self._late_failures: List[CopilotError] = []

    def step(self) -> Any:
        """Go on at the present pace, and return an item, or a ``Pause``. Errors as in ``block``."""
        if self._late_failures:
            raise self._late_failures.pop()
        item = self._next()
        return item if self.started or type(item) is Pause else self._started_with(item)

    def note_patience(self) -> None:
        """Begin the time for silence anew, because whoever reads had enough to do until now."""
        self._call.touch()

    def begin_turn(self, add: Callable[[Any], object], looks_at_time: bool) -> bool:
        """Begin a turn of an event loop: its steps wait for nothing, and together read no more than a turn may.

        Events that have arrived are handed out at once, without going through the driver for each.

        Args:
            add: Takes an event.
            looks_at_time: Whether time may be over.

        Returns:
            Whether the turn has ended, because more has to arrive. If not, ``step`` goes on.
        """
        call = self._call
        if self._ends and isinstance(self._builder.end, Closed):
            return False  # a thread that helps may be inside, and goes by what would be changed here
        call.begin_poll(0.0, looks_at_time)
        if call.reading is None or not self._inside.acquire(False):
            return False
        try:
            reading = call.reading
            while reading is not None and not reading.is_over:
                events = reading.take()
                if events is None:
                    return not reading.is_over
                for event in events:
                    add(event)
            return False
        finally:
            self._inside.release()
            if self._ends and isinstance(self._builder.end, Closed):
                self.close_driver()

    def help(self) -> List[Any]:
        """Do what a step was paused for, however long that takes. Return what comes next, as ``step`` does.

        It is one item, or several if they came at once.
        """
        self._call.pace = Pace.HELPING
        item = self.step()
        is_alone = type(item) in (Pause, Conversation)  # the question is not sent before the next item is asked for
        return [item] if is_alone else [item, *self._rest_of_turn()]

    def _rest_of_turn(self) -> List[Any]:
        """Return the items in what has been read already."""
        self._call.begin_poll()
        self._call.end_turn()
        items: List[Any] = []
        while len(items) < READ_AHEAD:
            try:
                item = self.step()
            except (StopIteration, StreamClosedError):  # which come again
                break
            except CopilotError as error:
                self._late_failures.append(error)
                break
            if type(item) is Pause:
                break
            items.append(item)
        return items

    def watched_by(self, watch: Watch) -> None:
        """Have the connection watched between two turns. From now on the driver is closed where that is done."""
        self._watch = self._call.watch = watch

    def end_watch(self) -> None:
        """Watch the connection no more. One that is kept for the next question knows its last call, but no loop."""
        self._call.watch.end()
        self._call.watch = Watch()

    def wait(self) -> bool:
        """Have bytes and time watched after a step that paused with ``NOTHING_YET``.

        Returns:
            Whether they are. If not, a thread has to wait for them, by ``help``.
        """
        call, watch = self._call, self._call.watch
        if watch.is_watching and not call.has_more and not call.has_nearer_limit:
            return True
        if not self._inside.acquire(False):  # another thread is about to close the driver
            watch.call_soon()
            return True
        try:
            if call.has_more or call.attached is None or call.cancelled:
                watch.call_soon()
                return True
            call.has_nearer_limit = False
            return watch.begin(call.attached, call.time_left)
        finally:
            self._inside.release()

    def _started_with(self, conversation: Conversation) -> Conversation:
        self.started, self._begun = True, conversation
        if self._on_start is not None:
            self._starter = 0 if self._ends else threading.get_ident()
            try:
                self._on_start(conversation)
                self._closed_by_reader = self._is_closed_by_starter()
            finally:
                self._starter = 0
        return conversation

    def _is_closed_by_starter(self) -> bool:
        end = self._builder.end
        return isinstance(end, Closed) and end.thread == self._starter

    def _check_open(self, reader: int = 0) -> None:
        if self._ends and isinstance(self._builder.end, Closed):
            self._stop(reader)

    def _check_free(self) -> None:
        """Refuse to go on while the driver is executing, before anything is changed that it goes by."""
        if getattr(self._driver, "gi_running", False):
            self._refuse_second_reader()

    def _next(self) -> Any:
        if self._ends:
            self._check_open()
        if not self._inside.acquire(False):
            self._refuse_second_reader()
        try:
            return next(self._driver)
        except StopIteration:
            self._stop()
        except CopilotError:
            self._note_discard()
            if not isinstance(self._builder.note_end(FAILED), Closed):
                raise
            self._stop()
        except ValueError as error:
            if "already executing" not in str(error):
                raise
            self._refuse_second_reader()
        finally:
            self._inside.release()
            if self._ends and isinstance(self._builder.end, Closed):
                self.close_driver()

    def _refuse_second_reader(self) -> NoReturn:
        """End the iteration of a thread while another is inside the driver, or of a signal handler while its own is.

        After the end, the other one is about to close the driver: there is nothing more to read.
        """
        if self._builder.end is None:
            raise RuntimeError("a stream can be read by one thread at a time") from None
        self._stop()

    def _stop(self, reader: int = 0) -> NoReturn:
        """End the iteration: quietly, or with an error if whoever reads did not close the stream."""
        end, reader = self._builder.end, reader or self._reader or threading.get_ident()
        # In an event loop, any task of the thread may have closed it. A thread that helps may have the number of the
        # one that closed it, which has ended.
        is_here = self._watch is None and isinstance(end, Closed) and end.thread == reader
        is_here = is_here or self._closed_by_reader or self._is_closed_by_starter()
        if isinstance(end, Closed) and not is_here:
            where = "another thread" if self._watch is None else "another task or thread"
            words = f"the stream was closed by {where}"
            raise StreamClosedError(words, stage="stream", partial=self._builder.text) from None
        raise StopIteration

    def _note_discard(self) -> None:
        """Say that the conversation that this stream began is of no use any more."""
        if self._begun is not None and self._builder.conversation is None and self._on_discard is not None:
            self._on_discard(self._begun)

    def close_driver(self) -> None:
        """Close the driver, unless a thread is inside. That one does it when it comes out."""
        is_free = self._inside.acquire(False)  # before the question who closes it, because ``wait`` changes the answer
        try:
            is_elsewhere = self._watch is not None and self._watch.closes(self.close_driver)
            if is_free and not is_elsewhere:
                with contextlib.suppress(ValueError):  # a signal handler closes it while its own thread is inside
                    self._driver.close()
        finally:
            if is_free:
                self._inside.release()


class ThreadSteps(StreamSteps):
    """The steps of a stream that threads read: they block, or they poll."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._was_polled = False
        self._waiting = threading.RLock()  # held by whoever waits for a thread that helped
        self._helper: Optional[ThreadResult[None]] = None
        self._helped: Deque[Any] = deque()  # what a thread came to that helped

    def block(self) -> Any:
        """Wait for the next item.

        Raises:
            StopIteration: The answer has ended, or this thread closed the stream.
            StreamClosedError: Another thread closed the stream.
            RuntimeError: Another thread is inside the driver.
            CopilotError: Anything else went wrong.
        """
        if self._was_polled:
            return self._block_after_polls()
        item = self._next()
        return item if self.started else self._started_with(item)

    def _block_after_polls(self) -> Any:
        self._check_open(threading.get_ident())
        if self._call.pace is not Pace.BLOCKING:
            self._call.touch()  # what is waited for now begins now
        while self._helper is not None:
            self._is_helped(None)
        while self._helped:
            item = self._helped.popleft()
            if type(item) is not Pause:
                return item
        while True:
            self._check_free()
            self._reader = threading.get_ident()
            self._call.pace = Pace.BLOCKING
            item = self.step()
            if type(item) is not Pause:  # pragma: no branch - else somebody else has tried to poll at that moment
                return item

    def poll(self, seconds: float) -> Optional[str]:
        """Wait for the next piece of text, up to so many seconds; ``None`` if there is none. Errors as in ``block``."""
        call = self._call
        until = call.clock() + min(seconds, threading.TIMEOUT_MAX)
        self._was_polled = True
        self._check_open(threading.get_ident())
        while True:
            item = self._polled(until)
            if type(item) is ContentEvent:
                return item.body
            if item is Pause.BLOCKS:
                if self._helper is None:
                    self._helper = ThreadResult(self._help_to_poll)
                if not self._is_helped(until - call.clock()):
                    return None
            elif item is Pause.NOTHING_YET and call.clock() >= until and not call.has_more:
                return None

    def _help_to_poll(self) -> None:
        """Help, and leave what it comes to where it is found even if an interruption had the thread forgotten."""
        try:
            self._helped.extend(self.help())
        except StreamClosedError:
            raise
        except CopilotError as error:
            self._late_failures.append(error)

    def _polled(self, until: float) -> Any:
        if self._helped:
            return self._helped.popleft()
        if self._helper is not None:
            return Pause.BLOCKS
        self._check_free()
        self._reader = threading.get_ident()
        self._call.begin_poll(until)
        return self.step()

    def poll_all(self, seconds: float) -> List[str]:
        """Wait as ``poll`` does, and return all pieces that came at once."""
        first = self.poll(seconds)
        if first is None:
            return []
        return [first, *(item.body for item in self._rest_of_turn() if type(item) is ContentEvent)]

    def _is_helped(self, seconds: Optional[float]) -> bool:
        """Wait for a thread that helps, up to so many seconds; return whether it has ended."""
        self._call.check_process()  # else the thread is the parent's
        if not self._waiting.acquire(False):
            self._refuse_second_reader()
        try:
            helper = self._helper
            if helper is not None and not helper.wait(seconds):
                return False
            if helper is not None and self._helper is helper:  # else a handler of a signal has taken it
                self._helper = None
                helper.take()
            return True
        except StreamClosedError:
            self._stop()  # which knows who closed it; the thread does not
        finally:
            self._waiting.release()

    @property
    def is_helped(self) -> bool:
        """Whether there is a thread that helps ``poll``. It holds this object."""
        return self._helper is not None

    def join(self) -> None:
        """Wait a moment for the end of a thread that helps ``poll``, after the stream was closed."""
        helper = self._helper
        if helper is not None:
            helper.join()
