"""What became of a message whose answer was lost: its thread is looked at, and judged.

``judge`` is pure: it reads a thread's messages for what is known of the one that was sent. ``Search`` looks, again and
again while that makes sense, under these rules:

- A whole answer is the answer. An answer that is being written is waited for.
- A message that is not there counts as not taken on the second look, ``RECOVERY_DELAY`` seconds after the failure at
  the earliest: something between here and the service may still deliver it.
- Whatever else comes of looking, a thread that can't be found included, leaves the outcome unknown: then nothing is
  sent again.
- All of it lasts ``RECOVERY_TIMEOUT`` seconds at most, or as long as silence is allowed, if that is less.
"""

import enum
import functools
import unicodedata
from dataclasses import dataclass
from typing import Callable, List, Optional, Union

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.errors import CopilotError, StreamClosedError, StreamInterruptedError
from copilot_sync.models import Message
from copilot_sync.protocol.replies import read_messages
from copilot_sync.protocol.requests import ROOT, messages_request
from copilot_sync.settings import RECOVERY_DELAY, RECOVERY_TIMEOUT, RetryPolicy
from copilot_sync.transport.call import CallContext

#: Seconds between the first two looks at a thread, and the longest between two.
_FIRST_LOOK = 0.25
_LONGEST_LOOK = 4.0
#: How much of the time that is left is spent waiting, so that a last look still fits.
_SHARE_OF_WAITING = 0.9


@dataclass(frozen=True)
class SentMessage:
    """What is known of a message that may have been taken.

    Attributes:
        content: Its text.
        conversation_id: The thread that it went to.
        parent_id: The message that it answers; ``root`` at a thread's beginning, ``None`` if that is unknown.
        answer_id: The id that its answer will have.
        is_first: Whether the thread was empty before it.
    """

    content: str
    conversation_id: str
    parent_id: Optional[str]
    answer_id: str
    is_first: bool


class Trace(enum.Enum):
    """What a thread shows of a message whose whole answer is not there."""

    #: Nothing of it.
    NONE = "none"
    #: It is there.
    TAKEN = "taken"
    #: Something that may be it, in another form.
    UNCLEAR = "unclear"


def judge(messages: List[Message], sent: SentMessage) -> Union[Message, Trace]:
    """Find the whole answer of a message in its thread, or tell what else there is of it."""
    for message in messages:
        if message.id == sent.answer_id:
            return message if message.content and not message.interrupted else Trace.TAKEN
    answered = {message.parent_id for message in messages if message.role == "assistant"}
    same = [message for message in messages if message.role != "assistant" and _is_same(message, sent)]
    if any(message.id not in answered for message in same):
        return Trace.TAKEN
    # The same question, answered under another id, or something behind the message that ours answers: it may be
    # ours, on a server that keeps it in another form.
    return Trace.UNCLEAR if same or _has_strangers(messages, sent) else Trace.NONE


def _is_same(message: Message, sent: SentMessage) -> bool:
    if _comparable(message.content) != _comparable(sent.content):
        return False
    return sent.parent_id is None or (message.parent_id or ROOT) == sent.parent_id


def _comparable(text: str) -> str:
    """A text without what a server may make of it while it keeps it."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()


def _has_strangers(messages: List[Message], sent: SentMessage) -> bool:
    """Whether anything stands where only our message should."""
    if sent.parent_id == ROOT:
        return sent.is_first and bool(messages)
    places = [place for place, message in enumerate(messages) if message.id == sent.parent_id]
    return bool(places) and places[-1] < len(messages) - 1


class Search:
    """Looks for the answer of one message in its thread, on behalf of the call that sent it.

    Args:
        access: What is asked with.
        call: The call.
        retry: How often a look that failed is tried again.
        sent: The message.
        interrupted: Makes the error of an answer that is not had, of its words and what it came of.
    """

    def __init__(
        self,
        access: ApiSession,
        call: CallContext,
        retry: Optional[RetryPolicy],
        sent: SentMessage,
        interrupted: Callable[[str, CopilotError], StreamInterruptedError],
    ) -> None:
        self._access = access
        self._call = call
        self._retry = retry
        self._sent = sent
        self._interrupted = interrupted
        self._request = messages_request(access.urls, sent.conversation_id)

    def once(self) -> Optional[Message]:
        """Look once, and give the whole answer, ``None`` if it can't be had that way.

        Raises:
            StreamClosedError: The call was stopped.
        """
        try:
            with self._call.limited(self._seconds()):
                found = judge(self._messages(None), self._sent)
        except StreamClosedError:
            raise
        except CopilotError:
            return None
        return found if isinstance(found, Message) else None

    def until_settled(self, failure: CopilotError, failed_at: float) -> Optional[Message]:
        """Look until it is known what became of the message, and wait for an answer that is being written.

        Args:
            failure: What the message failed with.
            failed_at: When, on the call's clock.

        Returns:
            The whole answer; ``None`` if the message was not taken.

        Raises:
            StreamInterruptedError: It can't be told, or the answer did not come in time.
            StreamClosedError: The call was stopped.
        """
        seconds = self._seconds()
        last_look = self._call.clock() + seconds * _SHARE_OF_WAITING
        with self._call.limited(seconds):
            return self._settled(failure, failed_at, last_look)

    def _settled(self, failure: CopilotError, failed_at: float, last_look: float) -> Optional[Message]:
        call = self._call
        pause, looks, taken = _FIRST_LOOK, 0, False
        doubt = self._interrupted(
            "it is unknown whether the message was taken: look at the conversation before sending it again", failure
        )
        while True:
            found = self._look(doubt)
            looks += 1
            if isinstance(found, Message):
                return found
            if found is Trace.UNCLEAR:
                raise doubt
            now = call.clock()
            wait = pause
            if found is Trace.TAKEN and not taken:
                taken = True
                doubt = self._interrupted("the message was taken, but its answer did not appear in time", failure)
            if not taken:
                settled_at = failed_at + RECOVERY_DELAY
                if looks > 1 and now >= settled_at:
                    return None
                wait = max(pause, settled_at - now)
                if now + wait > last_look:
                    raise doubt
            if now >= last_look:
                raise doubt
            call.sleep(min(wait, last_look - now))
            pause = min(2 * pause, _LONGEST_LOOK)

    def _look(self, doubt: StreamInterruptedError) -> Union[Message, Trace]:
        try:
            return judge(self._messages(self._retry), self._sent)
        except StreamClosedError:
            raise
        except CopilotError as error:
            raise doubt from error

    def _messages(self, retry: Optional[RetryPolicy]) -> List[Message]:
        read = functools.partial(read_messages, thread_id=self._sent.conversation_id)
        return self._access.fetch(self._request, self._call, retry, read)

    def _seconds(self) -> float:
        """How long looking may take in all."""
        remaining = self._call.remaining()
        patience = min(RECOVERY_TIMEOUT, self._call.timeout.read or RECOVERY_TIMEOUT)
        return patience if remaining is None else min(patience, remaining)
