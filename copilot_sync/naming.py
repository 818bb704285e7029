"""The name that a new conversation gets by itself, when its first answer is whole.

The service names a conversation only if a client asks for it, as its page does after the first answer (public
captures, 2026). Nobody should wait for a name, or hear of an error, when all they wanted is an answer. So a
``ThreadNaming`` never raises, is over within seconds and can be cancelled. It has no thread of its own: whoever runs it
decides where.

Threads: confined to the thread that runs it. Others only cancel its call.
"""

import logging

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.errors import CopilotError
from copilot_sync.models import Conversation
from copilot_sync.protocol.replies import read_name
from copilot_sync.protocol.requests import rename_request
from copilot_sync.settings import Timeout
from copilot_sync.transport.call import CallContext

logger = logging.getLogger(__name__)

#: Seconds that a naming lasts at most.
NAMING_TIMEOUT = 5.0


class ThreadNaming:
    """One request for the name of a conversation. ``Stream.naming`` makes it.

    Args:
        session: What the request is sent with.
        conversation: The conversation.
    """

    def __init__(self, session: ApiSession, conversation: Conversation) -> None:
        self._session = session
        self._request = rename_request(session.urls, conversation.conversation_id, "")
        self._call = CallContext(Timeout(NAMING_TIMEOUT, NAMING_TIMEOUT, total=NAMING_TIMEOUT))
        self._begun = False

    def run(self) -> str:
        """Ask the service for a name and return it. Lasts at most 5 seconds, never raises a ``CopilotError``.

        Returns:
            The name; ``""`` if the service returned none, the request failed, ``cancel`` was called, or this is not the
            first call. The debug log says what failed.
        """
        if self._begun:
            return ""
        self._begun = True
        self._call.begin()
        try:
            return self._session.fetch(self._request, self._call, None, read_name)
        except CopilotError as error:
            logger.debug("a conversation got no name: %s", error)
            return ""

    def cancel(self) -> None:
        """End a run at once, also one that has not begun. Safe from any thread; never blocks."""
        self._call.cancel()
