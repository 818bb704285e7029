"""``AsyncChat``: one conversation, question by question, in an asyncio event loop.

A ``Chat`` holds what there is to remember; this face awaits what that one waits for.

Threads: confined to the loop.
"""

from typing import Any, List, Mapping, Optional, Protocol, Union

from copilot_sync.aio.stream import AsyncStream
from copilot_sync.aio.twins import twin_of
from copilot_sync.chat import Chat
from copilot_sync.models import Answer, Conversation, Message
from copilot_sync.options import Options, StreamOptions, Unpack
from copilot_sync.prompts import PromptInput
from copilot_sync.questions import Question
from copilot_sync.settings import check_plain
from copilot_sync.stream import Stream
from copilot_sync.structured import asking


class _AsyncChatClient(Protocol):
    """What a chat needs of its ``AsyncClient``."""

    def _opened(self, stream: Stream) -> AsyncStream: ...

    async def messages(self, conversation: Union[str, Conversation]) -> List[Message]: ...


class AsyncChat:
    """One conversation, question by question. For one task at a time.

    Chats are made by ``AsyncClient.chat``. What ``Chat`` says of ``retry`` and ``edit`` holds here as well.
    """

    def __init__(self, client: _AsyncChatClient, chat: Chat) -> None:
        self._client = client
        self._chat = chat

    @property
    def conversation(self) -> Optional[Conversation]:
        """The conversation; ``None`` before the first question was sent."""
        return self._chat.conversation

    @property
    def question(self) -> Optional[str]:
        """The text of the last question as it was sent; ``None`` if this chat does not know of any yet.

        A chat that goes on with a stored conversation looks it up with the first ``retry`` or ``edit``.
        """
        return self._chat.question

    async def ask(self, prompt: PromptInput, **options: "Unpack[Options]") -> Answer:
        """Ask the next question and await its whole answer. Options and errors are those of ``AsyncClient.ask``."""
        async with self.stream(prompt, **asking(options)) as stream:
            return await stream.read()

    def stream(self, prompt: PromptInput, **options: "Unpack[StreamOptions]") -> AsyncStream:
        """Ask the next question and get its answer in pieces. Options and errors are those of ``AsyncClient.stream``.

        Nothing is sent before the first piece is asked for.
        """
        check_callbacks(options)
        return self._client._opened(self._chat.stream(prompt, **options))

    @twin_of(Chat.retry)
    async def retry(self, model: Optional[str] = None, **options: Any) -> Answer:
        """Ask the last question again, and await the whole answer. It takes the place of the earlier answer.

        The text that was sent is sent again, for the same model and with the same ``schema``, ``references``,
        ``media`` and so on, unless they are given anew. Of a stored conversation only the text is known.
        """
        check_callbacks(options)
        last = await self._last_question()
        stream = self._chat._stream_again(last, model, asking(options, last.expected))
        async with self._client._opened(stream) as opened:
            return await opened.read()

    @twin_of(Chat.stream_retry)
    async def stream_retry(self, model: Optional[str] = None, **options: Any) -> AsyncStream:
        """Ask the last question again, and get the answer in pieces. Arguments are those of ``retry``.

        A coroutine, because it looks up the thread, once, if the chat goes on with a stored conversation. The question
        is not sent before the first piece is asked for.

        >>> async with await chat.stream_retry() as stream:  # doctest: +SKIP
        ...     async for piece in stream:
        ...         print(piece)
        """
        check_callbacks(options)
        last = await self._last_question()
        return self._client._opened(self._chat._stream_again(last.streamed(), model, options))

    @twin_of(Chat.edit)
    async def edit(self, text: PromptInput, **options: Any) -> Answer:
        """Ask another text in the place of the last question, and await the whole answer."""
        async with await self.stream_edit(text, **asking(options)) as stream:
            return await stream.read()

    @twin_of(Chat.stream_edit)
    async def stream_edit(self, text: PromptInput, **options: Any) -> AsyncStream:
        """Ask another text in the place of the last question, and get the answer in pieces. As ``edit``.

        A coroutine, as ``stream_retry`` is.
        """
        check_callbacks(options)
        return self._client._opened(self._chat._stream_edited(await self._last_question(), text, options))

    async def _last_question(self) -> Question:
        """Return the last question. Its thread is looked up without blocking the loop, if that is needed."""
        conversation = self._chat._unplaced()
        if conversation is None:
            return self._chat._last_question()
        return self._chat._last_question(await self._client.messages(conversation))


def check_callbacks(options: Mapping[str, Any]) -> None:
    """Check the functions among the options of a question.

    Raises:
        TypeError: One is a coroutine function.
    """
    for name in ("on_start", "on_discard"):
        check_plain(name, options.get(name))
