"""What a client asks of its account besides questions: models, threads, the quota. Each call is one request, or few.

``AccountCalls`` is the part of ``Client`` that holds these calls. Each has the time limits and retries of the client,
and ``Client.close`` ends it.

Threads: the set of calls under way is atomic.
"""

import contextlib
import functools
from typing import Callable, Iterator, List, Optional, Protocol, Set, TypeVar, Union

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.message import CallOptions
from copilot_sync.errors import CopilotError, NotFoundError
from copilot_sync.model_list import chat_models, list_models
from copilot_sync.models import Conversation, Message, Model, Quota, Thread
from copilot_sync.protocol.replies import (
    read_messages,
    read_name,
    read_nothing,
    read_quota,
    read_thread_id,
    read_threads,
)
from copilot_sync.protocol.requests import (
    Request,
    delete_request,
    messages_request,
    quota_request,
    rename_request,
    thread_request,
    threads_request,
)
from copilot_sync.protocol.untrusted import RawReply
from copilot_sync.settings import RetryPolicy
from copilot_sync.transport.call import CallContext

T = TypeVar("T")


class AccountCalls:
    """The calls of a ``Client`` that ask no question. Safe for any number of threads.

    Args:
        session: What requests are sent with.
        options: The time limits and retries of each call.
    """

    def __init__(self, session: ApiSession, options: CallOptions) -> None:
        self._session = session
        self._options = options
        self._calls: Set[CallContext] = set()

    def models(self, all: bool = False) -> List[Model]:
        """List the models that can be chatted with, in the service's order and each once.

        ``auto``, by which the service chooses, may be asked for though it is not listed. A model that is not listed
        may be answered as well (public captures, 2026).

        Args:
            all: List everything as it came: also models of other kinds, and those that are not enabled.

        Raises:
            CopilotError: The request failed.
        """
        listed = self._models_with(self._options.retry)
        return listed if all else chat_models(listed)

    def _models_with(self, retry: Optional[RetryPolicy]) -> List[Model]:
        """List every model as it came, with other retries than those of the client."""
        with self._timed() as call:
            return list_models(self._session, call, retry)

    def quota(self) -> Quota:
        """Ask github.com for the account's plan, and for what it has left. One request, and nothing of it is kept.

        It is asked for with the cookies. A client with an ``api_key`` needs ``cookies`` besides it for this call, or
        both of ``COPILOT_SYNC_API_KEY`` and ``COPILOT_SYNC_COOKIES``.

        Raises:
            MissingCredentialsError: There are no cookies.
            AuthenticationError: The cookies were refused, or the account may not know its quota.
            NotFoundError: The account has no Copilot.
            CopilotError: The request failed.
        """
        with self._timed() as call:
            return self._session.fetch_with_cookies(
                quota_request(self._session.urls), call, self._options.retry, read_quota
            )

    def threads(self) -> List[Thread]:
        """List the account's threads.

        Raises:
            CopilotError: The request failed.
        """
        with self._calling() as fetch:
            return fetch(threads_request(self._session.urls), read_threads)

    def messages(self, conversation: Union[str, Conversation]) -> List[Message]:
        """List the messages of a conversation.

        Raises:
            NotFoundError: There is no such conversation.
            CopilotError: The request failed.
        """
        thread_id = _id_of(conversation)
        request = messages_request(self._session.urls, thread_id)
        with self._calling() as fetch:
            return fetch(request, functools.partial(read_messages, thread_id=thread_id))

    def create_thread(self) -> Conversation:
        """Create an empty conversation.

        Raises:
            CopilotError: The request failed.
        """
        with self._calling() as fetch:
            return Conversation(fetch(thread_request(self._session.urls), read_thread_id))

    def rename_thread(self, id: Union[str, Conversation], name: str) -> None:
        """Rename a conversation.

        Raises:
            TypeError: The name is not a string.
            ValueError: The name is blank.
            NotFoundError: There is no such conversation.
            CopilotError: The request failed.
        """
        if not isinstance(name, str):
            raise TypeError(f"a name must be a string, not {type(name).__name__}")
        if not name.strip():
            raise ValueError("a name must not be blank")
        request = rename_request(self._session.urls, _id_of(id), name)
        with self._calling() as fetch:
            fetch(request, read_name)

    def name_thread(self, conversation: Union[str, Conversation]) -> str:
        """Let the service name a conversation after what was said in it, and return the name.

        A conversation has no name until a client asks for one, which the service's page does after the first answer
        (public captures, 2026). A name that it has already is replaced.

        Returns:
            The name; ``""`` if the service returned none.

        Raises:
            NotFoundError: There is no such conversation.
            CopilotError: The request failed.
        """
        request = rename_request(self._session.urls, _id_of(conversation), "")
        with self._calling() as fetch:
            return fetch(request, read_name)

    def delete_thread(self, id: Union[str, Conversation]) -> None:
        """Delete a conversation.

        Raises:
            NotFoundError: There is no such conversation.
            CopilotError: The request failed.
        """
        request = delete_request(self._session.urls, _id_of(id))
        try:
            with self._calling() as fetch:
                fetch(request, read_nothing)
        except NotFoundError as error:
            if error.attempts < 2:
                raise
            # An earlier attempt, whose reply was lost, had deleted it.

    def _new_call(self) -> CallContext:
        return CallContext(self._options.timeout)

    @contextlib.contextmanager
    def _calling(self) -> Iterator["_Fetch"]:
        """Return what fetches and reads replies within the time of one call, which ``close`` ends."""
        with self._timed() as call:

            def fetch(request: Request, understand: Callable[[RawReply], T]) -> T:
                return self._session.fetch(request, call, self._options.retry, understand)

            yield fetch

    @contextlib.contextmanager
    def _timed(self) -> Iterator[CallContext]:
        """Begin a call, which ``close`` ends."""
        call = self._new_call()
        call.begin()
        self._calls.add(call)
        try:
            yield call
        except CopilotError as error:
            call.counted(error)
            raise
        finally:
            self._calls.discard(call)


class CancellableCall(AccountCalls):
    """One call of a client, of whichever kind, that can be cancelled at any time, also before it begins.

    For whoever has another thread make it. ``Client.close`` cancels it from now on, until ``__exit__``.

    Args:
        client: The client, or the part of it that has these calls.
    """

    def __init__(self, client: AccountCalls) -> None:
        super().__init__(client._session, client._options)
        self._call = CallContext(client._options.timeout)
        self._calls = client._calls
        self._calls.add(self._call)

    def _new_call(self) -> CallContext:
        return self._call

    def cancel(self) -> None:
        """End the call at once. Safe from any thread, any number of times; never blocks."""
        self._call.cancel()

    def __enter__(self) -> "CancellableCall":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._calls.discard(self._call)


class _Fetch(Protocol):
    """Sends a request and gives what is made of its reply."""

    def __call__(self, request: Request, understand: Callable[[RawReply], T]) -> T: ...


def _id_of(conversation: Union[str, Conversation]) -> str:
    known = Conversation.from_value(conversation)
    if known is None:
        raise ValueError("a conversation or its id is needed")
    return known.conversation_id
