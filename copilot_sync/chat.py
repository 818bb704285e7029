"""``Chat``: one conversation, question by question.

It goes on with its conversation and remembers its last question, so that this can be asked again or edited.
Everything else is the client's.
"""

from dataclasses import replace
from typing import Any, Dict, Iterable, List, Mapping, Optional, Protocol, Union

from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.inline_files import FileInput, inline_files, read_files
from copilot_sync.message_parts import NO_ATTACHMENTS
from copilot_sync.models import Answer, Conversation, Message
from copilot_sync.options import (
    EditOptions,
    Options,
    RetryOptions,
    StreamEditOptions,
    StreamOptions,
    StreamRetryOptions,
    Unpack,
)
from copilot_sync.prompts import PromptInput, PromptText, checked_system, prompt_text
from copilot_sync.protocol.requests import MessageOptions
from copilot_sync.questions import Question, find_question
from copilot_sync.stream import Stream
from copilot_sync.structured import asking


class _ChatClient(Protocol):
    """What a chat needs of its ``Client``."""

    def stream(self, prompt: PromptInput, **options: "Unpack[StreamOptions]") -> Stream: ...

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

    def __init__(
        self,
        client: _ChatClient,
        conversation: Optional[Conversation],
        model: Optional[str],
        system: Optional[str] = None,
        files: Optional[Iterable[FileInput]] = None,
        extra: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self._client = client
        self._model = model
        self._system = checked_system(system)
        self._files = read_files(files)
        inline_files(self._files)
        self._extra = MessageOptions.coerce(extra=extra).extra
        self._is_opened = not (self._system or self._files)  # whether an answer began to a question that brought them
        self._opening: Optional[AnswerBuilder] = None  # what comes of the last question that brought them
        self._last: Optional[Question] = None
        self.conversation = conversation

    @property
    def question(self) -> Optional[str]:
        """The text of the last question as it was sent; ``None`` if this chat does not know of any yet.

        A chat that goes on with a stored conversation looks it up with the first ``retry`` or ``edit``.
        """
        return None if self._last is None else self._last.content

    def ask(self, prompt: PromptInput, **options: "Unpack[Options]") -> Answer:
        """Ask the next question and wait for its whole answer. Options and errors are those of ``Client.ask``."""
        with self.stream(prompt, **asking(options)) as stream:
            return stream.read()

    def stream(self, prompt: PromptInput, **options: "Unpack[StreamOptions]") -> Stream:
        """Ask the next question and get its answer in pieces. Options and errors are those of ``Client.stream``."""
        options = {"model": self._model, "conversation": self.conversation, **options}
        question = Question("", system=checked_system(options.get("system")), opens=not self._has_opened())
        if question.opens:
            question = replace(question, system=self._with_own_system(question.system))
            options["files"] = [*self._files, *read_files(options.get("files"))]
        return self._stream(prompt, {**options, "system": question.system}, question)

    def _has_opened(self) -> bool:
        """Whether the instructions and files of this chat are in its conversation, or there are none."""
        if self._opening is not None and self._opening.has_begun_once:
            self._is_opened, self._opening = True, None
        return self._is_opened

    def _with_own_system(self, system: str) -> str:
        return "\n\n".join(filter(None, (self._system, system)))

    def retry(self, model: Optional[str] = None, **options: "Unpack[RetryOptions]") -> Answer:
        """Ask the last question again, and wait for the whole answer. It takes the place of the earlier answer.

        The text that was sent is sent again, for the same model and with the same ``schema``, ``references``,
        ``media`` and so on, unless they are given anew. Of a stored conversation only the text is known.

        Args:
            model: The model for this one answer. Default: the one that the question was asked.
            **options: Options of ``Client.ask`` but ``conversation``, ``parent_message_id`` and ``system``. ``files``
                given anew take the place of all ``references`` and ``media`` that the question had.

        Raises:
            ValueError: There is no question to ask again, or an option can't be sent. Nothing was sent.
            TypeError: An option has the wrong type or a name that is not known.
            CopilotError: The call failed; ``partial`` is the text that had come.
        """
        last = self._last_question()
        with self._stream_again(last, model, asking(options, last.expected)) as stream:
            return stream.read()

    def stream_retry(self, model: Optional[str] = None, **options: "Unpack[StreamRetryOptions]") -> Stream:
        """Ask the last question again, and get the answer in pieces. Arguments are those of ``retry``.

        Uses the network at once if the chat goes on with a stored conversation: then its thread is looked up, once.

        Raises:
            ValueError: There is no question to ask again, its answer has to fit a schema, or an option can't be sent.
                Nothing was sent.
            TypeError: An option has the wrong type or a name that is not known.
            CopilotError: The thread could not be looked up.
        """
        return self._stream_again(self._last_question().streamed(), model, options)

    def _stream_again(self, last: Question, model: Optional[str], options: Mapping[str, Any]) -> Stream:
        """Return a stream that asks the last question again."""
        if "system" in options:
            raise TypeError("the instructions of a question are a part of its text: edit the question to change them")
        text = str(last.content)
        if last.expected is not None and "expected" in options:
            text = last.expected.schema.removed_from(text)
        return self._stream_in_place(prompt_text(text), {**options, "model": model}, last, keeps_model=True)

    def edit(self, text: PromptInput, **options: "Unpack[EditOptions]") -> Answer:
        """Ask another text in the place of the last question, and wait for the whole answer.

        Args:
            text: The text, or role messages.
            **options: As for ``retry``, and ``model`` and ``system``. The default of each is what the last question
                had.

        Raises:
            ValueError: There is no question to edit, the text is empty, or an option can't be sent. Nothing was sent.
            TypeError: An argument has the wrong type or a name that is not known.
            CopilotError: The call failed; ``partial`` is the text that had come.
        """
        with self.stream_edit(text, **asking(options)) as stream:
            return stream.read()

    def stream_edit(self, text: PromptInput, **options: "Unpack[StreamEditOptions]") -> Stream:
        """Ask another text in the place of the last question, and get the answer in pieces. As ``edit``.

        Uses the network at once as ``stream_retry`` does.

        Raises:
            ValueError: There is no question to edit, the text is empty, or an option can't be sent. Nothing was sent.
            TypeError: An argument has the wrong type or a name that is not known.
            CopilotError: The thread could not be looked up.
        """
        return self._stream_edited(self._last_question(), text, options)

    def _stream_edited(self, last: Question, text: PromptInput, given: Mapping[str, Any]) -> Stream:
        """Return a stream that asks another text in the place of the last question."""
        options = {**given}
        own = checked_system(options.pop("system", None))
        if not last.opens and not self._has_opened():
            last = replace(last, opens=True, system=self._with_own_system(own or last.system))
            options["files"] = [*self._files, *read_files(options.get("files"))] or None
        elif own:
            last = replace(last, system=self._with_own_system(own) if last.opens else own)
        content = prompt_text(text, last.system, is_new=last.begins_thread)
        return self._stream_in_place(content, options, last)

    def _stream_in_place(
        self, content: PromptText, options: Dict[str, Any], last: Question, *, keeps_model: bool = False
    ) -> Stream:
        """Return a stream that asks a text in the place of the last question, with what that had unless given anew."""
        place = {"conversation": self.conversation, "parent_message_id": last.parent_id}
        for name in place:
            if name in options:
                raise TypeError(f"{name} is that of the last question and can't be another one")
        kept = {"model": last.model or self._model, **last.to_options()}
        if options.get("files") is not None or content.attachments is not NO_ATTACHMENTS:
            kept = {name: value for name, value in kept.items() if name not in ("references", "media")}
        missing = {name: value for name, value in kept.items() if options.get(name) is None}
        return self._stream(content, {**options, **missing, **place}, last, keeps_model=keeps_model)

    def _stream(
        self, prompt: PromptInput, options: Dict[str, Any], question: Question, *, keeps_model: bool = False
    ) -> Stream:
        """Return a stream whose question is the last one as soon as it is asked.

        Args:
            prompt: The question's text.
            options: The arguments of ``Client.stream``.
            question: What is known of the question besides.
            keeps_model: Whether the question keeps its model though another one is asked.
        """
        told, forget = options.pop("on_start", None), options.pop("on_discard", None)
        extra = {**self._extra, **(options.pop("extra", None) or {})}

        def asked(conversation: Optional[Conversation]) -> None:
            now = Question.from_pending(message, conversation)
            model = question.model if keeps_model else now.model
            self._last = replace(now, model=model, system=question.system, opens=question.opens)

        def started(conversation: Conversation) -> None:
            self.conversation = conversation
            asked(conversation)
            if told is not None:
                told(conversation)

        def discarded(conversation: Conversation) -> None:
            self.conversation = None
            if forget is not None:
                forget(conversation)

        # A conversation that the caller is told of stays, unless the caller is also told that it is discarded.
        options["on_discard"] = discarded if told is None or forget is not None else None
        stream = self._client.stream(prompt, on_start=started, extra=extra or None, **options)
        message = stream._message  # not the stream: it holds these functions, and ends when nobody holds it
        if question.opens and not self._has_opened():
            self._opening = stream._builder
        if self.conversation is None:
            asked(None)  # it can be asked again also if its conversation can't be begun
        return stream

    def _last_question(self, messages: Optional[List[Message]] = None) -> Question:
        """Return the last question.

        Args:
            messages: Those of its thread, if whoever calls has looked it up. Default: looked up if that is needed.
        """
        last, conversation = self._last, self._unplaced()
        if conversation is not None:
            if last is not None and last.conversation_id != conversation.conversation_id:
                last = None
            if messages is None:
                messages = self._client.messages(conversation)
            last = find_question(messages, conversation, last)
        elif self.conversation is None:
            last = last and replace(last, conversation_id=None, parent_id=None)
        if last is None:
            raise ValueError("there is no question yet that could be asked again, or edited")
        self._last = last
        return last

    def _unplaced(self) -> Optional[Conversation]:
        """Return the conversation if its thread has to be looked up for the last question, or for its place."""
        last, conversation = self._last, self.conversation
        if conversation is None or last is None:
            return conversation
        is_known = last.conversation_id == conversation.conversation_id and last.parent_id is not None
        return None if is_known else conversation
