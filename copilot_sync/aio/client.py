"""``AsyncClient``: the client in an asyncio event loop.

It holds a ``Client``, whose parameters, settings and connections are its own. Answers are read by the loop itself. If
no connection is open, a thread makes one and sends the question, and ends with that. Each other call is made in a
short-lived thread of its own.

Threads: everything but ``close`` belongs to the loop that it is called in; sets are atomic, so there may be several.
"""

import asyncio
import weakref
from typing import Any, Callable, List, Optional, Set, TypeVar

from copilot_sync.account import AccountCalls, CancellableCall
from copilot_sync.aio.chat import AsyncChat, check_callbacks
from copilot_sync.aio.stream import AsyncStream
from copilot_sync.aio.threads import run_in_thread
from copilot_sync.aio.twins import awaitable, twin_of, with_sections_of
from copilot_sync.auth.stored_logins import MadeFromProfile
from copilot_sync.client import Client
from copilot_sync.models import Answer
from copilot_sync.os_threads import JOIN_TIMEOUT
from copilot_sync.secret import Secret
from copilot_sync.settings import RetryPolicy
from copilot_sync.stream import Stream
from copilot_sync.structured import asking

T = TypeVar("T")

#: How many calls that ask no question a client makes at once in one event loop. Others wait for their turn.
MAX_CALLS = 16

_SECRETS = ("api_key", "cookies", "proxy", "github_url", "api_url")


class AsyncClient(MadeFromProfile):
    """An asynchronous client of GitHub Copilot Chat: ``Client``, for asyncio.

    Its methods are those of ``Client``, to be awaited, with the same parameters, defaults and errors. Only ``stream``,
    ``chat`` and ``close`` are not awaited. It may be shared by any number of tasks. Making one touches neither the
    network nor a file.

    >>> async with AsyncClient(cookies={"user_session": "…"}) as client:  # doctest: +SKIP
    ...     print(await client.ask("Explain WSGI in one line"))
    ...     async for piece in client.stream("And ASGI?"):
    ...         print(piece)

    The event loop reads answers itself; a thread helps as long as a question is being sent. Every other call takes a
    short-lived thread. At most 16 of these run at once, and others wait for their turn, which no time limit counts. A
    call ends at once if its task is cancelled.

    ``on_start`` and ``on_discard`` are plain functions. They are called by the loop or by the thread that helps, so
    they must neither block nor use the loop, but by ``loop.call_soon_threadsafe``. Files are read at once, by the loop.
    A client may be used in several event loops, one after the other or in several threads.
    """

    @twin_of(Client.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Made secrets here already: a report of an error may show the variables of this frame.
        args = tuple(map(Secret.coerce, args))
        kwargs = {name: Secret.coerce(value) if name in _SECRETS else value for name, value in kwargs.items()}
        self._begin(Client(*args, **kwargs))

    def _begin(self, client: Client) -> None:
        self._client = client
        self._streams: Set[weakref.ref[AsyncStream]] = set()
        self._running: Set[asyncio.Future[None]] = set()
        # Of each event loop, because a semaphore belongs to one.
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._turns = weakref.WeakKeyDictionary()

    @property
    def retry(self) -> Optional[RetryPolicy]:
        """When failed requests are tried again, if a call does not say otherwise."""
        return self._client.retry

    @property
    def api_url(self) -> str:
        """The base URL of the API that is asked; ``auto`` as long as the account's page has not named it."""
        return self._client.api_url

    @twin_of(Client.ask)
    async def ask(self, *args: Any, **kwargs: Any) -> Answer:
        """Ask, and await the whole answer. If the task is cancelled, the call ends at once."""
        async with self.stream(*args, **asking(kwargs)) as stream:
            return await stream.read()

    @twin_of(Client.stream)
    def stream(self, *args: Any, **kwargs: Any) -> AsyncStream:
        """Ask, and return the answer as a stream. Nothing is sent before the first piece is asked for."""
        check_callbacks(kwargs)
        return self._opened(self._client.stream(*args, **kwargs))

    def _opened(self, stream: Stream) -> AsyncStream:
        opened = AsyncStream(stream)
        # Weak references in a plain set, whose operations are atomic.
        self._streams.add(weakref.ref(opened, self._streams.discard))
        return opened

    @twin_of(Client.chat)
    def chat(self, *args: Any, **kwargs: Any) -> AsyncChat:
        """Begin a conversation, or go on with one. Touches no network."""
        return AsyncChat(self, self._client.chat(*args, **kwargs))

    async def _run(self, call: Callable[[AccountCalls], T]) -> T:
        """Make a call of the client's in a thread when its turn has come."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        self._running.add(ended)
        try:
            with CancellableCall(self._client) as account:
                async with self._turns.setdefault(loop, asyncio.Semaphore(MAX_CALLS)):
                    return await run_in_thread(lambda: call(account), account.cancel)
        finally:
            self._running.discard(ended)
            ended.set_result(None)

    models = awaitable(AccountCalls.models, _run)
    quota = awaitable(AccountCalls.quota, _run)
    threads = awaitable(AccountCalls.threads, _run)
    messages = awaitable(AccountCalls.messages, _run)
    create_thread = awaitable(AccountCalls.create_thread, _run)
    rename_thread = awaitable(AccountCalls.rename_thread, _run)
    name_thread = awaitable(AccountCalls.name_thread, _run)
    delete_thread = awaitable(AccountCalls.delete_thread, _run)

    async def aclose(self) -> None:
        """End every call under way, close the connections, and wait a moment for the threads of this event loop.

        Tasks that wait for these calls get ``StreamClosedError``. May be called any number of times; the client can be
        used again afterwards. It waits until the ledger, if there is one, is written.
        """
        loop = asyncio.get_running_loop()
        streams = self._open_streams()
        self.close()
        running = [ended for ended in list(self._running) if ended.get_loop() is loop]
        await asyncio.gather(*(stream._items.join() for stream in streams))
        if running:
            await asyncio.wait(running, timeout=JOIN_TIMEOUT)
        if self._client._options.guards:
            await run_in_thread(self._client._close_guards, bool)

    def close(self) -> None:
        """End every call under way and close the connections, and wait for nothing.

        Tasks that wait for these calls get ``StreamClosedError`` at once. Call it from any task or thread, any number
        of times; the client can be used again afterwards.
        """
        for stream in self._open_streams():
            stream.close()
        self._client._end_calls()

    def _open_streams(self) -> List[AsyncStream]:
        return [stream for stream in [reference() for reference in list(self._streams)] if stream is not None]

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if "_client" not in self.__dict__:
            return "<AsyncClient that is being made>"  # as the report of an error out of __init__ may show it
        return repr(self._client).replace("Client", "AsyncClient", 1)

    def __getstate__(self) -> Client:
        return self._client

    def __setstate__(self, client: Client) -> None:
        self._begin(client)


# What ``Client`` says of its parameters.
AsyncClient.__doc__ = with_sections_of(Client, AsyncClient.__doc__)
