"""Looking into a thread: for a lost answer, and for the message that the next one answers.

Here are the requests and the waits. ``recovery`` decides what follows for a lost answer; ``message_tree`` knows the
branches.
"""

import functools
from typing import Callable, List, Optional

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.message import SentMessage
from copilot_sync.delivery.recovery import (
    Action,
    LookState,
    decide,
    find_answer,
    reason_for,
    search_seconds,
    waiting_seconds,
)
from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    RateLimitError,
    StreamClosedError,
    StreamInterruptedError,
    WrongHostError,
)
from copilot_sync.message_tree import answer_to_go_on_from
from copilot_sync.models import Message
from copilot_sync.protocol.replies import read_messages
from copilot_sync.protocol.requests import ROOT, messages_request
from copilot_sync.settings import RetryPolicy
from copilot_sync.transport.call import CallContext

#: Seconds for which a message waits until it is known what it answers.
_PARENT_SECONDS = 10.0


class Lookup:
    """Looks for the answer of one message in its thread, on behalf of the call that sent it.

    Args:
        session: What requests are sent with.
        call: The call.
        retry: How often a look that failed is tried again.
        sent: The message.
        interrupted: Makes the error for an answer that can't be had, out of words and the failure that led to it.
    """

    def __init__(
        self,
        session: ApiSession,
        call: CallContext,
        retry: Optional[RetryPolicy],
        sent: SentMessage,
        interrupted: Callable[[str, CopilotError], StreamInterruptedError],
    ) -> None:
        self._session = session
        self._call = call
        self._retry = retry
        self._sent = sent
        self._interrupted = interrupted
        self._request = messages_request(session.urls, sent.conversation_id)

    def once(self) -> Optional[Message]:
        """Look once, and return the whole answer; ``None`` if it can't be had that way.

        Raises:
            StreamClosedError: The call was stopped.
        """
        messages = self._listed_once()
        found = None if messages is None else find_answer(messages, self._sent)
        return found if isinstance(found, Message) else None

    def parent(self) -> Optional[str]:
        """Return the answer that the next question of the thread follows, or ``root``.

        Returns:
            The id; ``None`` if the messages can't be listed, whatever the reason: a message may still be sent then.

        Raises:
            CopilotError: The message can't be sent either: no token, a limit, a wrong host.
        """
        try:
            with self._call.limited(min(_PARENT_SECONDS, self._seconds())):
                return _next_parent(self._messages(self._retry))
        except (StreamClosedError, AuthenticationError, RateLimitError, WrongHostError):
            raise
        except CopilotError as error:
            if error.stage != "messages":
                raise
            return None

    def other_parent(self) -> Optional[str]:
        """Look once whether the message that ours answers is gone, and return the one to answer instead.

        Returns:
            The id, or ``root``; ``None`` if the message is there, or if that can't be seen.

        Raises:
            StreamClosedError: The call was stopped.
        """
        messages = self._listed_once()
        if messages is None or any(message.id == self._sent.parent_id for message in messages):
            return None
        return _next_parent(messages)

    def until_settled(self, failure: CopilotError, failed_at: float) -> Optional[Message]:
        """Look until it is known what became of the message, and wait for an answer that is being written.

        Args:
            failure: What the message failed with.
            failed_at: When, on the call's clock.

        Returns:
            The whole answer; ``None`` if the service has not processed the message.

        Raises:
            StreamInterruptedError: It can't be known, or the answer did not come in time.
            StreamClosedError: The call was stopped.
        """
        seconds = self._seconds()
        last_look = self._call.clock() + waiting_seconds(seconds)
        with self._call.limited(seconds):
            return self._settled(failure, failed_at, last_look)

    def _settled(self, failure: CopilotError, failed_at: float, last_look: float) -> Optional[Message]:
        looks, is_present = 0, False
        while True:
            try:
                messages = self._messages(self._retry)
            except StreamClosedError:
                raise
            except CopilotError as error:
                raise self._interrupted(reason_for(is_present), failure) from error
            looks, now = looks + 1, self._call.clock()
            decision = decide(messages, self._sent, LookState(looks, now - failed_at, last_look - now, is_present))
            if decision.action is Action.GIVE_UP:
                raise self._interrupted(decision.reason, failure)
            if decision.action is not Action.LOOK_AGAIN:
                return decision.answer
            is_present = decision.is_present
            self._call.sleep(decision.seconds)

    def _listed_once(self) -> Optional[List[Message]]:
        """List the messages without another attempt; ``None`` if they can't be listed that way."""
        try:
            with self._call.limited(self._seconds()):
                return self._messages(None)
        except StreamClosedError:
            raise
        except CopilotError:
            return None

    def _messages(self, retry: Optional[RetryPolicy]) -> List[Message]:
        read = functools.partial(read_messages, thread_id=self._sent.conversation_id)
        return self._session.fetch(self._request, self._call, retry, read)

    def _seconds(self) -> float:
        return search_seconds(self._call.timeout.read, self._call.remaining())


def _next_parent(messages: List[Message]) -> str:
    """Return the message that the next question of a thread answers."""
    answer = answer_to_go_on_from(messages)
    return ROOT if answer is None else answer.id
