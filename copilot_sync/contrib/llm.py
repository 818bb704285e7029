"""The models of GitHub Copilot in ``llm``, as its plugin: ``llm -m copilot-sync/auto "hello"``.

``llm`` asks for the models before it knows which one is used, so they are not looked up: there are the default, the
documented ones, and the one that ``COPILOT_SYNC_MODEL`` names.

The credentials are a key from ``llm keys set copilot-sync``, else those that the library finds. Two things are kept in
the folder of ``llm`` from one run to the next: the token, unless ``COPILOT_SYNC_TOKEN_CACHE`` says otherwise, and the
id of the service's thread for each conversation of ``llm``. Not all releases of ``llm`` return old answers to a plugin,
so a known thread is continued, and the earlier messages are not sent again.

What a release of ``llm`` lacks, such as asynchronous models or schemas, is lacking here with it.

Threads: the client is locked.
"""

import base64
import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from copilot_sync.aio.client import AsyncClient
from copilot_sync.client import Client
from copilot_sync.models import Answer, Conversation
from copilot_sync.prompts import PromptInput
from copilot_sync.provider import GithubCopilot
from copilot_sync.settings import API_KEY_VARIABLE, MODEL, Environment, Timeout
from copilot_sync.structured import REPAIRS, asking

try:
    import llm
    from pydantic import Field
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(f'this module needs {error.name}: pip install "copilot-sync[llm]"', name=error.name) from None

#: The prefix of the model names, and the name of the key.
NAME = "copilot-sync"
_TOKENS_FILE = "copilot-sync-tokens.json"
_THREADS_FILE = "copilot-sync-threads.db"

#: Earlier answers of a conversation, and their texts.
_Told = Sequence[Tuple[Any, str]]

# If they exist, they pass the key of the call.
_Model: Any = getattr(llm, "KeyModel", llm.Model)
_AsyncModel: Any = getattr(llm, "AsyncKeyModel", getattr(llm, "AsyncModel", object))


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the models with ``llm``, without asking the service."""
    for model in dict.fromkeys(filter(None, (MODEL, Environment.read().model, *GithubCopilot.models))):
        if _AsyncModel is object:  # pragma: some versions
            register(CopilotModel(model))
        else:
            register(CopilotModel(model), AsyncCopilotModel(model))


class CopilotOptions(llm.Options):
    """What ``llm -o NAME VALUE`` takes."""

    timeout: Optional[float] = Field(None, gt=0, description="Seconds per answer. Default: no limit")
    repairs: Optional[int] = Field(
        None, ge=0, description=f"With a schema, how often an answer is asked for again. Default: {REPAIRS}"
    )


class _ServiceModel:
    """What both kinds of models are. Safe from any thread.

    Args:
        model: The id of the model at the service.
    """

    can_stream = True
    supports_schema = True
    needs_key = NAME
    key_env_var = API_KEY_VARIABLE
    #: Images are sent by their ``https://`` addresses, and anything else if it is text.
    attachment_types = frozenset(
        [
            *("image/jpeg", "image/png", "image/gif", "image/webp"),
            *("text/plain", "text/markdown", "text/csv", "text/html", "application/json"),
        ]
    )
    Options = CopilotOptions
    key: Optional[str] = None
    _new_client: Callable[..., Any]

    def __init__(self, model: str) -> None:
        self.model_id = f"{NAME}/{model}"
        self._model = model
        self._lock = threading.RLock()
        self._client: Optional[Tuple[Optional[str], Any]] = None

    def get_key(self, explicit_key: Optional[str] = None) -> Optional[str]:
        """Return the key; ``None`` if there is none, which is no error, because there may be cookies."""
        key: Optional[str] = self.key or llm.get_key(explicit_key, NAME, API_KEY_VARIABLE)
        return key

    def _client_for(self, key: Optional[str]) -> Any:
        """Return the client for a key. It is kept for the next question, so that a token is fetched only once."""
        with self._lock:
            if self._client is None or self._client[0] != key:
                cache = None if Environment.read().token_cache else llm.user_dir() / _TOKENS_FILE
                self._client = (key, type(self)._new_client(key, token_cache=cache))
            return self._client[1]

    def _stream(self, prompt: Any, stream: bool, destination: "_Destination", told: _Told, key: Optional[str]) -> Any:
        """Return the answer as a stream of the client's.

        Raises:
            ValueError: An attachment can't be sent.
        """
        options = {
            "conversation": destination.thread,
            "model": self._model,
            "custom_instructions": prompt.system or None,
            "buffered": not stream,
            **destination.callbacks(),
        }
        timeout, repairs = (getattr(prompt.options, name, None) for name in ("timeout", "repairs"))
        if timeout is not None:
            options["timeout"] = Timeout(total=timeout)
        if getattr(prompt, "schema", None):  # which the oldest releases do not know
            options = asking({**options, "schema": prompt.schema, "repairs": REPAIRS if repairs is None else repairs})
        return self._client_for(key or self.get_key()).stream(_question(prompt, destination, told), **options)


class CopilotModel(_ServiceModel, _Model):
    """One model for ``llm``. Safe from any thread.

    Args:
        model: The id of the model at the service.
    """

    _new_client = Client

    def execute(
        self,
        prompt: Any,
        stream: bool,
        response: Any,
        conversation: Any,
        key: Optional[str] = None,
    ) -> Iterator[str]:
        """Ask, and yield the answer: in pieces as they arrive, or in one piece if ``stream`` is false.

        With a schema, the one piece is the JSON document that fits.

        Raises:
            ValueError: An attachment can't be sent.
            CopilotError: There is no complete answer, or none that fits.
        """
        destination = _Destination(conversation)
        told = [(each, each.text()) for each in destination.earlier()]
        with self._stream(prompt, stream, destination, told, key) as answering:
            if not getattr(prompt, "schema", None):
                yield from answering
            answer = answering.read()
            if answer.parsed_json is not None:
                yield answer.parsed_json
            _record_answer(response, answer)
            destination.keep(answer.conversation)


class AsyncCopilotModel(_ServiceModel, _AsyncModel):
    """One model for the asynchronous side of ``llm``, of releases that have one.

    Args:
        model: The id of the model at the service.
    """

    _new_client = AsyncClient

    async def execute(
        self,
        prompt: Any,
        stream: bool,
        response: Any,
        conversation: Any,
        key: Optional[str] = None,
    ) -> AsyncIterator[str]:
        """Ask, and yield the answer, as ``CopilotModel`` does."""
        destination = _Destination(conversation)
        told = [(each, await each.text()) for each in destination.earlier()]
        async with self._stream(prompt, stream, destination, told, key) as answering:
            if not getattr(prompt, "schema", None):
                async for piece in answering:
                    yield piece
            answer = await answering.read()
            if answer.parsed_json is not None:
                yield answer.parsed_json
            _record_answer(response, answer)
            destination.keep(answer.conversation)


def _question(prompt: Any, destination: "_Destination", told: _Told) -> PromptInput:
    """Return the prompt, after the earlier messages of a conversation that has no thread yet."""
    if not told and hasattr(prompt, "messages") and (destination.thread is None or not prompt.prompt):
        return _chain(prompt)
    messages: List[Dict[str, Any]] = []
    for response, text in told:
        earlier = getattr(response, "attachments", [])  # those that were read back from the log of llm
        messages.append({"role": "user", "content": _content(response.prompt, earlier)})
        messages.append({"role": "assistant", "content": text})
    content = _content(prompt)
    return content if isinstance(content, str) and not messages else [*messages, {"role": "user", "content": content}]


def _chain(prompt: Any) -> List[Dict[str, Any]]:
    """Return all messages that newer releases of ``llm`` have for a prompt, without what goes as an instruction."""
    messages = [{"role": each.role, "content": list(_parts(each))} for each in prompt.messages]
    instruction = {"role": "system", "content": [{"type": "text", "text": prompt.system}]}
    return [message for message in messages if message != instruction]


def _parts(message: Any) -> Iterator[Dict[str, Any]]:
    for part in message.parts:
        if isinstance(part, llm.parts.TextPart):
            yield {"type": "text", "text": part.text}
        elif isinstance(part, llm.parts.AttachmentPart):
            yield _part(part.attachment)
        elif isinstance(part, llm.parts.ToolResultPart):
            yield {"type": "text", "text": part.output}


def _content(prompt: Any, attachments: Sequence[Any] = ()) -> Union[str, List[Dict[str, Any]]]:
    """Return the content of a prompt as a role message has it: a text, or its parts if it has attachments."""
    attachments = [*getattr(prompt, "attachments", []), *attachments]  # which the oldest releases do not know
    if not attachments:
        return str(prompt.prompt)
    return [{"type": "text", "text": str(prompt.prompt)}, *map(_part, attachments)]


def _part(attachment: Any) -> Dict[str, Any]:
    if attachment.url:
        return {"type": "image_url", "image_url": {"url": attachment.url}}
    path, content = attachment.path, attachment.content
    if path and not content:
        content = Path(path).read_bytes()  # older releases of llm leave the file open
    name = os.path.basename(path or "attachment.txt")
    data = f"data:{attachment.type or ''};base64,{base64.b64encode(content).decode()}"
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def _record_answer(response: Any, answer: Answer) -> None:
    """Pass to ``llm`` what it keeps of an answer besides the text."""
    response.response_json = {**answer.conversation.to_dict(), "model": answer.model}
    if answer.usage is not None and hasattr(response, "set_usage"):
        response.set_usage(input=answer.usage.input_tokens, output=answer.usage.output_tokens)
    if hasattr(response, "set_resolved_model"):  # pragma: some versions
        response.set_resolved_model(answer.model)


class _Destination:
    """Where a question goes: into the thread of a conversation of ``llm``, if there are both.

    Attributes:
        thread: The thread; ``None`` for a new one.
    """

    def __init__(self, conversation: Any = None) -> None:
        self._conversation = conversation
        self._threads = _ThreadMap(llm.user_dir() / _THREADS_FILE)
        self.thread = None if conversation is None else self._threads.get(conversation.id) or self._last_thread()

    def earlier(self) -> Sequence[Any]:
        """Return the answers that a new thread lacks."""
        return self._conversation.responses if self._conversation is not None and self.thread is None else ()

    def callbacks(self) -> Dict[str, Any]:
        """Return what has the stream keep the thread from its beginning.

        If the first question is refused, its thread lacks the earlier messages, so nothing may go on there.
        """
        if self._conversation is None:
            return {}
        return {"on_start": self.keep, "on_discard": lambda _: self._threads.forget(self._conversation.id)}

    def keep(self, thread: Conversation) -> None:
        """Go on in this thread from now on."""
        if self._conversation is not None:
            self._threads.keep(self._conversation.id, thread)

    def _last_thread(self) -> Optional[Conversation]:
        """Return the thread of the last answer, if ``llm`` returns old answers.

        Old releases assign the id of a conversation after its first answer.
        """
        responses = self._conversation.responses
        if not responses or not isinstance(responses[-1].model, _ServiceModel) or not responses[-1].response_json:
            return None
        return Conversation.from_dict(responses[-1].response_json)


class _ThreadMap:
    """The service's thread for each conversation of ``llm``, in a file that several processes may use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, id: str) -> Optional[Conversation]:
        with self._open() as database:
            row = database.execute("SELECT thread, message FROM threads WHERE id = ?", (id,)).fetchone()
        return row and Conversation.from_dict({"conversation_id": row[0], "message_id": row[1]})

    def keep(self, id: str, thread: Conversation) -> None:
        with self._open() as database:
            row = (id, thread.conversation_id, thread.message_id)
            database.execute("INSERT OR REPLACE INTO threads VALUES (?, ?, ?)", row)

    def forget(self, id: str) -> None:
        with self._open() as database:
            database.execute("DELETE FROM threads WHERE id = ?", (id,))

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(str(self._path))) as database:
            with database:  # in one transaction
                database.execute(
                    "CREATE TABLE IF NOT EXISTS threads (id TEXT PRIMARY KEY, thread TEXT NOT NULL, message TEXT)"
                )
                yield database
