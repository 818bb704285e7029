"""GitHub Copilot as a chat model of LangChain: ``ChatCopilot``.

Each call begins a conversation of its own and gets all messages, because LangChain keeps the history. The service has
no tools, no temperature and no stop sequences. Tools are refused; a temperature is ignored, as LangChain does with what
a model does not know; answers are cut in front of a stop sequence here.

Threads: nothing changes after a model was made. Its clients are locked.
"""

from typing import Any, AsyncIterator, Dict, Iterator, List, Optional, Sequence, Union

from copilot_sync.aio.client import AsyncClient
from copilot_sync.client import Client
from copilot_sync.errors import InvalidAnswerError
from copilot_sync.models import Answer
from copilot_sync.secret import Secret
from copilot_sync.settings import API_KEY_VARIABLE, COOKIES_VARIABLE, MODEL, Environment, RetryPolicy, Timeout
from copilot_sync.structured import asking

try:
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models.chat_models import BaseChatModel, generate_from_stream
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import ChatGenerationChunk, ChatResult
    from langchain_core.runnables import RunnableConfig, RunnableLambda
    from langchain_core.utils.function_calling import convert_to_json_schema
    from langchain_core.utils.pydantic import is_basemodel_subclass
    from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, model_validator
    from typing_extensions import Annotated, is_typeddict
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(
        f'this module needs {error.name}: pip install "copilot-sync[langchain]"', name=error.name
    ) from None

__all__ = ["ChatCopilot"]


def _secret(value: Any) -> Any:
    return None if value is None else Secret.coerce(value)


class ChatCopilot(BaseChatModel):
    """A chat model of LangChain that asks GitHub Copilot. Safe from any thread and in any event loop.

    >>> from copilot_sync.contrib.langchain import ChatCopilot  # doctest: +SKIP
    >>> ChatCopilot(model="gpt-4o").invoke("Explain WSGI in one line").content  # doctest: +SKIP

    Credentials are looked for as ``Client`` does. Further arguments of a call, as in ``model.invoke(messages,
    conversation=...)`` or ``model.bind(references=[...])``, are those of ``Client.stream``.

    Connections are closed when nobody holds the model any more, or by ``close`` or ``aclose``.
    """

    #: The model asked for if a call names none. Default ``COPILOT_SYNC_MODEL``, else ``auto``.
    model: str = Field(default_factory=lambda: Environment.read().model or MODEL)
    #: A token to use as it is. Default ``COPILOT_SYNC_API_KEY``, unless there are cookies.
    api_key: Optional[SecretStr] = None
    #: The github.com cookies, in each form that ``Client`` takes.
    cookies: Annotated[Any, BeforeValidator(_secret)] = Field(None, exclude=True)
    #: Seconds of silence allowed, or a ``Timeout``. Without one, the time-outs of ``Client`` hold.
    timeout: Union[None, float, Timeout] = None
    #: How often a failed request is sent again; 0 for never. Default as for ``Client``.
    max_retries: Optional[int] = Field(None, ge=0)
    #: Texts in front of which an answer ends. A call may name others.
    stop: Optional[List[str]] = None
    #: Whether ``invoke`` streams as well, for callbacks that want each piece.
    streaming: bool = False
    #: As for ``Client``.
    github_url: Optional[str] = None
    #: As for ``Client``.
    api_url: Optional[str] = None
    #: Further arguments of ``Client``, such as ``proxy``, ``token_cache`` or ``rate_limit``. They are not serialized.
    client_options: Dict[str, Any] = Field(default_factory=dict, repr=False, exclude=True)

    # An error of pydantic's would quote the arguments, and with them the secrets.
    model_config = ConfigDict(hide_input_in_errors=True)

    _client: Client = PrivateAttr()
    _async_client: AsyncClient = PrivateAttr()

    @model_validator(mode="after")
    def _make_clients(self) -> "ChatCopilot":
        arguments = {
            "api_key": None if self.api_key is None else Secret(self.api_key.get_secret_value()),
            "cookies": self.cookies,
            "timeout": self.timeout,
            "github_url": self.github_url,
            "api_url": self.api_url,
            **self.client_options,
        }
        if self.max_retries is not None:
            arguments["retry"] = RetryPolicy(attempts=self.max_retries + 1)
        self._client, self._async_client = Client(**arguments), AsyncClient(**arguments)
        return self

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether ``langchain_core.load`` can store and load a model. It can."""
        return True

    @property
    def lc_secrets(self) -> Dict[str, str]:
        """The environment variables by whose names secrets are stored."""
        return {"api_key": API_KEY_VARIABLE, "cookies": COOKIES_VARIABLE}

    @property
    def _llm_type(self) -> str:
        return "copilot-sync"

    @property
    def _identifying_params(self) -> Dict[str, Any]:
        return {"model": self.model, "api_url": self._client.api_url, "stop": self.stop}

    def close(self) -> None:
        """End all calls under way and close the connections. The model can be used again afterwards."""
        self._async_client.close()
        self._client.close()

    async def aclose(self) -> None:
        """As ``close``; it also waits a moment for the threads that help the event loop."""
        await self._async_client.aclose()
        self._client.close()

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> Any:
        """Return a runnable whose output is data that fits a schema, as ``Client.ask`` gets it.

        Args:
            schema: A model of pydantic, a JSON Schema, a ``TypedDict``, or a function as OpenAI's API describes it.
            include_raw: Whether the output is a dictionary of the message (``raw``), the data (``parsed``) and the
                error (``parsing_error``), which is not raised then.
            **kwargs: Further arguments of ``Client.ask``, such as ``repairs``. LangChain's ``method`` and ``strict``
                change nothing, because there is one way.

        Raises:
            InvalidAnswerError: No answer fits. The runnable raises it.
        """
        told = {"kwargs": {"method": "json_schema"}, "schema": schema}
        arguments = {name: value for name, value in kwargs.items() if name not in ("method", "strict")}
        asked = self.bind(schema=_schema_for_client(schema), ls_structured_output_format=told, **arguments)

        def parsed(message: AIMessage) -> Any:
            value = message.additional_kwargs["parsed"]
            return schema.parse_obj(value) if _is_old_model(schema) else value

        def raw(message: AIMessage) -> Dict[str, Any]:
            return {"raw": message, "parsed": parsed(message), "parsing_error": None}

        def failed(error: InvalidAnswerError) -> Dict[str, Any]:
            return {"raw": AIMessage(error.text), "parsed": None, "parsing_error": error}

        def ask(prompt: Any, config: RunnableConfig) -> Dict[str, Any]:
            try:
                return raw(asked.invoke(prompt, config))
            except InvalidAnswerError as error:
                return failed(error)

        async def ask_in_loop(prompt: Any, config: RunnableConfig) -> Dict[str, Any]:
            try:
                return raw(await asked.ainvoke(prompt, config))
            except InvalidAnswerError as error:
                return failed(error)

        return RunnableLambda(ask, ask_in_loop) if include_raw else asked | RunnableLambda(parsed)

    def _generate(
        self,
        messages: List[BaseMessage],
        stop: Optional[List[str]] = None,
        run_manager: Optional[CallbackManagerForLLMRun] = None,
        **kwargs: Any,
    ) -> ChatResult:
        # An answer that may be cut is read piece by piece, because reading stops there.
        kwargs.setdefault("buffered", not self._stops(stop, kwargs))
        return generate_from_stream(self._stream(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: List[BaseMessage],
        stop: Optional[List[str]] = None,
        run_manager: Optional[AsyncCallbackManagerForLLMRun] = None,
        **kwargs: Any,
    ) -> ChatResult:
        kwargs.setdefault("buffered", not self._stops(stop, kwargs))
        return generate_from_stream(iter([chunk async for chunk in self._astream(messages, stop, **kwargs)]))

    # LangChain passes each chunk to the callbacks by itself, and passes no run manager.
    def _stream(
        self,
        messages: List[BaseMessage],
        stop: Optional[List[str]] = None,
        run_manager: Optional[CallbackManagerForLLMRun] = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        text = _CutText(self._stops(stop, kwargs))
        arguments = self._arguments(kwargs)
        with self._client.stream(_role_messages(messages), **arguments) as stream:
            for piece in stream:
                yield _chunk(text.add(piece))
                if text.is_cut:
                    break
            # An answer that was cut has no end that was read.
            yield _last_chunk(text.rest, stream.answer or Answer("", stream.start(), arguments["model"]))

    async def _astream(
        self,
        messages: List[BaseMessage],
        stop: Optional[List[str]] = None,
        run_manager: Optional[AsyncCallbackManagerForLLMRun] = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        text = _CutText(self._stops(stop, kwargs))
        arguments = self._arguments(kwargs)
        async with self._async_client.stream(_role_messages(messages), **arguments) as stream:
            async for piece in stream:
                yield _chunk(text.add(piece))
                if text.is_cut:
                    break
            yield _last_chunk(text.rest, stream.answer or Answer("", await stream.start(), arguments["model"]))

    def _stops(self, stop: Optional[List[str]], arguments: Dict[str, Any]) -> Sequence[str]:
        """Return the stop sequences of a call. A text that is data is not cut."""
        return [text for text in stop or self.stop or () if text and "schema" not in arguments]

    def _arguments(self, given: Dict[str, Any]) -> Dict[str, Any]:
        """Return the arguments of ``Client.stream``; ``stream`` is LangChain's own."""
        arguments = {"model": self.model, **{name: value for name, value in given.items() if name != "stream"}}
        return asking(arguments) if "schema" in arguments else arguments


def _is_old_model(schema: Any) -> bool:
    """Whether a schema is a model of pydantic 1, as ``pydantic.v1`` has them."""
    return isinstance(schema, type) and is_basemodel_subclass(schema) and not issubclass(schema, BaseModel)


def _schema_for_client(schema: Any) -> Any:
    """Return what the client takes for a schema as LangChain has it."""
    is_function = isinstance(schema, dict) and not schema.keys().isdisjoint(("function", "parameters"))
    converts = is_function or is_typeddict(schema) or _is_old_model(schema)
    return convert_to_json_schema(schema) if converts else schema


def _role_messages(messages: Sequence[BaseMessage]) -> List[Dict[str, Any]]:
    """Return role messages as the client takes them. Of what a model said, the text alone is said again."""
    said = [AIMessage(str(each.text)) if isinstance(each, AIMessage) else each for each in messages]
    converted: List[Dict[str, Any]] = convert_to_openai_messages(said)
    return converted


def _chunk(text: str) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=text))


def _last_chunk(text: str, answer: Answer) -> ChatGenerationChunk:
    """Return the chunk that tells what the answer was besides its text."""
    usage = answer.usage
    counted = None
    if usage is not None and usage.input_tokens is not None and usage.output_tokens is not None:
        counted = UsageMetadata(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.input_tokens + usage.output_tokens,
        )
    told = {
        "model_name": answer.model,
        "finish_reason": "stop" if answer.complete else "incomplete",
        "conversation_id": answer.conversation.conversation_id,
        "message_id": answer.message_id,
    }
    message = AIMessageChunk(
        content=text,
        additional_kwargs={} if answer.parsed_json is None else {"parsed": answer.parsed},
        usage_metadata=counted,
        response_metadata=told,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=message)


class _CutText:
    """A text that comes in pieces and ends in front of the stop sequence that is complete first.

    Attributes:
        is_cut: Whether there was one.
        rest: The end of the text that came, as long as a stop sequence may begin with it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self.is_cut = False
        self.rest = ""

    def add(self, piece: str) -> str:
        """Add a piece, and return what may be passed on."""
        text, self.rest = self.rest + piece, ""
        found = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stops if stop in text]
        if found:
            self.is_cut = True
            return text[: sum(min(found))]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self.rest = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop sequence."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
