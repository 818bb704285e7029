"""``Chat``: one conversation, question by question.

It goes on with its conversation and remembers its last question, so that this can be asked again or edited.
Everything else is the client's.
"""

from dataclasses import replace
from typing import Any, Dict, List, Optional, Protocol, Union

from copilot_sync.models import Answer, Conversation, Message
from copilot_sync.prompts import PromptInput, prompt_text
from copilot_sync.questions import Question, find_question
from copilot_sync.stream import Stream


class _ChatClient(Protocol):
    """What a chat needs of its ``Client``."""

    def stream(self, prompt: PromptInput, **options: Any) -> Stream: ...

    def messages(self, conversation: Union[str, Conversation]) -> List[Message]: ...


class Chat:
    """One conversation, question by question. For one thread at a time.

    Chats are made by ``Client.chat``.

    ``retry`` and ``edit`` begin a branch of the conversation in the place of the last question, and the chat goes on
    there. The earlier question and its answer stay in the thread. If they fail, the chat stays where it was: the next
    question follows the earlier answer. The last question is the one that was asked last, whether it was answered, was
    stopped or failed.

    Attributes:
        conversation: The conversation, ``None`` before the first question was sent.
    """

    def __init__(self, client: _ChatClient, conversation: Optional[Conversation], model: Optional[str]) -> None:
        self._client = client
        self._model = model
        self._last: Optional[Question] = None
        self.conversation = conversation

    @property
    def question(self) -> Optional[str]:
        """The text of the last question as it was sent; ``None`` if this chat does not know of any yet.

        A chat that goes on with a stored conversation looks it up with the first ``retry`` or ``edit``.
        """
        return None if self._last is None else self._last.content

    def ask(self, prompt: PromptInput, **options: Any) -> Answer:
        """Ask the next question and wait for its whole answer. Options and errors are those of ``Client.ask``."""
        with self.stream(prompt, buffered=True, **options) as stream:
            return stream.read()

    def stream(self, prompt: PromptInput, **options: Any) -> Stream:
        """Ask the next question and get its answer in pieces. Options and errors are those of ``Client.stream``."""
        return self._stream(prompt, {"model": self._model, "conversation": self.conversation, **options})

    def retry(self, model: Optional[str] = None, **options: Any) -> Answer:
        """Ask the last question again, and wait for the whole answer. It takes the place of the earlier answer.

        The text that was sent is sent again, for the same model and with the same ``references``, ``media`` and so on,
        unless they are given anew. Of a stored conversation only the text is known.

        Args:
            model: The model for this one answer. Default: the one that the question was asked.
            **options: Options of ``Client.ask`` but ``conversation`` and ``parent_message_id``.

        Raises:
            ValueError: There is no question to ask again, or an option can't be sent. Nothing was sent.
            TypeError: An option has the wrong type or a name that is not known.
            CopilotError: The call failed; ``partial`` is the text that had come.
        """
        with self.stream_retry(model, buffered=True, **options) as stream:
            return stream.read()

    def stream_retry(self, model: Optional[str] = None, **options: Any) -> Stream:
        """Ask the last question again, and get the answer in pieces. Arguments are those of ``retry``.

        Uses the network at once if the chat goes on with a stored conversation: then its thread is looked up, once.

        Raises:
            ValueError: There is no question to ask again, or an option can't be sent. Nothing was sent.
            TypeError: An option has the wrong type or a name that is not known.
            CopilotError: The thread could not be looked up.
        """
        last = self._last_question()
        return self._stream_in_place(last, last.content, {**options, "model": model}, retried=last)

    def edit(self, text: PromptInput, **options: Any) -> Answer:
        """Ask another text in the place of the last question, and wait for the whole answer.

        Args:
            text: The text, or role messages.
            **options: As for ``retry``, and ``model``. The default of each is what the last question had.

        Raises:
            ValueError: There is no question to edit, the text is empty, or an option can't be sent. Nothing was sent.
            TypeError: An argument has the wrong type or a name that is not known.
            CopilotError: The call failed; ``partial`` is the text that had come.
        """
        with self.stream_edit(text, buffered=True, **options) as stream:
            return stream.read()

    def stream_edit(self, text: PromptInput, **options: Any) -> Stream:
        """Ask another text in the place of the last question, and get the answer in pieces. As ``edit``.

        Uses the network at once as ``stream_retry`` does.

        Raises:
            ValueError: There is no question to edit, the text is empty, or an option can't be sent. Nothing was sent.
            TypeError: An argument has the wrong type or a name that is not known.
            CopilotError: The thread could not be looked up.
        """
        last = self._last_question()
        content = prompt_text(text, is_new=last.begins_thread)
        return self._stream_in_place(last, content, options)

    def _stream_in_place(
        self, last: Question, content: str, options: Dict[str, Any], retried: Optional[Question] = None
    ) -> Stream:
        place = {"conversation": self.conversation, "parent_message_id": last.parent_id}
        for name in place:
            if name in options:
                raise TypeError(f"{name} is that of the last question and can't be another one")
        kept = {"model": last.model or self._model, **last.to_options()}
        missing = {name: value for name, value in kept.items() if options.get(name) is None}
        return self._stream(content, {**options, **missing, **place}, retried)

    def _stream(self, prompt: PromptInput, options: Dict[str, Any], retried: Optional[Question] = None) -> Stream:
        """Return a stream whose question is the last one as soon as it is asked.

        Args:
            prompt: The question.
            options: The arguments of ``Client.stream``.
            retried: The question, if it is asked again. It keeps its model.
        """
        told, forget = options.pop("on_start", None), options.pop("on_discard", None)

        def asked(conversation: Optional[Conversation]) -> None:
            question = Question.from_pending(message, conversation)
            self._last = question if retried is None else replace(question, model=retried.model)

        def started(conversation: Conversation) -> None:
            self.conversation = conversation
            asked(conversation)
            if told is not None:
                told(conversation)

        def discarded(conversation: Conversation) -> None:
            self.conversation = None
            if forget is not None:
                forget(conversation)

        stream = self._client.stream(prompt, on_start=started, on_discard=discarded, **options)
        message = stream._message  # not the stream: it holds these functions, and ends when nobody holds it
        if self.conversation is None:
            asked(None)  # it can be asked again also if its conversation can't be begun
        return stream

    def _last_question(self) -> Question:
        """Return the last question. Look it up in its thread if this chat does not know it, or not its place."""
        last, conversation = self._last, self.conversation
        if conversation is None:
            last = last and replace(last, conversation_id=None, parent_id=None)
        else:
            if last is not None and last.conversation_id != conversation.conversation_id:
                last = None
            if last is None or last.parent_id is None:
                last = find_question(self._client.messages(conversation), conversation, last)
        if last is None:
            raise ValueError("there is no question yet that could be asked again, or edited")
        self._last = last
        return last
