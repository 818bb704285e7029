"""What is done for one prompt by whoever works for a batch: begin a conversation, ask, delete the conversation.

A worker is a thread of this process, or a process anywhere. What goes to it and comes back are plain values that
pickle; what it needs to have a client is a way to get one, so that credentials need not travel. A process that works
for others keeps one client for each such way, for as long as it lives.
"""

import dataclasses
import pickle
import time
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Set, Union

from copilot_sync import protocol
from copilot_sync.client import Client, TimeoutValue
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.errors import CopilotError
from copilot_sync.models import Answer
from copilot_sync.pacing.backoff import RetryPolicy
from copilot_sync.pacing.cooldown import is_refusal
from copilot_sync.stream import Stream
from copilot_sync.transport.call import CallContext

#: Where a refusal is waited out by the call itself: a look at a conversation may not be given up half-way.
_PATIENT_STAGES = ("messages",)


@dataclass(frozen=True)
class Task:
    """What is to be asked.

    Without a ``handle``, the conversation is begun and the message sent in one go.
    """

    content: str
    model: Optional[str] = None
    timeout: TimeoutValue = None
    handle: Optional[MessageHandle] = None


@dataclass(frozen=True)
class StepResult:
    """What came of one step: of beginning a conversation, of asking, or of deleting a conversation."""

    conversation_id: Optional[str] = None
    answer: Optional[Answer] = None
    error: Optional[Exception] = None
    seconds: float = 0.0
    attempts: int = 0


class Worker:
    """Asks over one client. Safe for any number of threads; ``stop`` also for a signal's handler: there are no locks.

    Args:
        client: What is asked with.
        max_wait: Seconds that a call waits by itself at most; what takes longer is told instead. Default: as the
            client's policy has it.
    """

    def __init__(self, client: Client, *, max_wait: Optional[float] = None) -> None:
        self._client = client
        self._max_wait = max_wait
        self._under_way: Set[Callable[[], None]] = set()  # what ends it
        self._stopped = False

    @property
    def api_url(self) -> str:
        """Who is asked."""
        return self._client.api_url

    def begin(self, task: Task) -> StepResult:
        """Begin a conversation; nothing is said in it yet."""
        return self._step(task, _begun)

    def ask(self, task: Task) -> StepResult:
        """Ask, and wait for the whole answer."""
        return self._step(task, Stream.read)

    def delete(self, conversation_id: str) -> StepResult:
        """Delete a conversation."""
        access = self._client._access  # for a call of our own, which can be stopped
        call = CallContext(self._client._rules.timeout)
        call.begin()
        try:
            self._note(call.cancel)
            request = protocol.delete_request(access.urls, conversation_id)
            access.fetch(request, call, self._client.retry, protocol.read_nothing)
        except CopilotError as error:
            return StepResult(conversation_id, error=error.with_traceback(None))
        finally:
            self._under_way.discard(call.cancel)
        return StepResult(conversation_id)

    def stop(self) -> None:
        """End everything that is under way, at once, and begin nothing any more."""
        self._stopped = True
        for end in self._under_way.copy():
            end()

    def _step(self, task: Task, work: Callable[[Stream], Optional[Answer]]) -> StepResult:
        began = time.monotonic()
        try:
            stream = self._stream(task)
        except (TypeError, ValueError) as error:  # an id that is none, a text that can't be sent
            return StepResult(error=error)
        answer: Optional[Answer] = None
        failure: Optional[Exception] = None
        try:
            self._note(stream.close)
            answer = work(stream)
        except CopilotError as error:
            failure = error.with_traceback(None)
        finally:
            self._under_way.discard(stream.close)
            stream.close()
        known = stream.conversation
        conversation_id = None if known is None else known.conversation_id
        return StepResult(conversation_id, answer, failure, time.monotonic() - began, stream.attempts)

    def _stream(self, task: Task) -> Stream:
        return self._client.stream(
            task.content,
            model=task.model,
            timeout=task.timeout,
            retry=_telling_refusals(self._client.retry, self._max_wait),
            buffered=True,
            handle=task.handle,
        )

    def _note(self, end: Callable[[], None]) -> None:
        self._under_way.add(end)
        if self._stopped:  # whoever stopped may have looked before this was noted
            end()


def _begun(stream: Stream) -> None:
    stream.start()


def _telling_refusals(policy: Optional[RetryPolicy], max_wait: Optional[float]) -> Optional[RetryPolicy]:
    """Have a refusal end the call instead of being waited out, so that whoever lets prompts through hears of it."""
    if policy is None:
        return None
    own = policy.on_retry

    def tell(error: CopilotError, seconds: float) -> None:
        if is_refusal(error) and error.stage not in _PATIENT_STAGES:
            raise error
        if own is not None:
            own(error, seconds)

    longest = policy.max_wait if max_wait is None else min(policy.max_wait, max_wait)
    return dataclasses.replace(policy, on_retry=tell, max_wait=longest)


# In a process that works for others


class ClientSource:
    """A way to get a client that can travel to another process. Shows nothing of what is inside.

    Args:
        make: Makes a client. It is pickled, so it is a function or a class of a module, or a ``partial`` of one.

    Raises:
        TypeError: It can't be pickled.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        try:
            self._pickled = pickle.dumps(make)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"client must be a function of a module, which can be pickled, for other processes: {error}"
            ) from None

    def worker(self) -> Worker:
        """Give this process's own; all of its threads get the same."""
        known = _workers.get(self._pickled)
        if known is not None:
            return known
        client = pickle.loads(self._pickled)()  # noqa: S301 - pickled by the one who gives the work
        # Where two threads come at once, one client stays and the other was never used.
        return _workers.setdefault(self._pickled, Worker(client))

    def __repr__(self) -> str:
        return "<ClientSource>"


#: The clients of this process, by the way they were got: connections and tokens last from one prompt to the next.
_workers: Dict[bytes, Worker] = {}


def work(source: ClientSource, step: str, subject: Union[Task, str]) -> StepResult:
    """Do one step in whatever process this is: ``begin``, ``ask`` or ``delete``."""
    done: StepResult = getattr(source.worker(), step)(subject)
    return done
