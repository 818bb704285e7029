"""The models of GitHub Copilot in ``llm``, as its plugin: ``llm -m copilot-sync/auto "hello"``.

``llm`` asks for the models before it knows which one is used, so they are not looked up: there are the default, the
documented ones, and the one that ``COPILOT_SYNC_MODEL`` names.

The credentials are a key from ``llm keys set copilot-sync``, else those that the library finds. Two things are kept in
the folder of ``llm`` from one run to the next: the token, unless ``COPILOT_SYNC_TOKEN_CACHE`` says otherwise, and the
id of the service's thread for each conversation of ``llm``. Not all releases of ``llm`` return old answers to a plugin,
so a known thread is continued, and the earlier messages are not sent again.

Threads: the client is locked.
"""

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from copilot_sync.client import Client
from copilot_sync.models import Answer, Conversation
from copilot_sync.prompts import PromptInput
from copilot_sync.provider import GithubCopilot
from copilot_sync.settings import API_KEY_VARIABLE, MODEL, Environment

try:
    import llm
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(f'this module needs {error.name}: pip install "copilot-sync[llm]"', name=error.name) from None

#: The prefix of the model names, and the name of the key.
NAME = "copilot-sync"
_TOKENS_FILE = "copilot-sync-tokens.json"
_THREADS_FILE = "copilot-sync-threads.db"

# If it exists, it passes the key of the call.
_Model: Any = getattr(llm, "KeyModel", llm.Model)


@llm.hookimpl
def register_models(register: Callable[[Any], None]) -> None:
    """Register the models with ``llm``, without asking the service."""
    for model in dict.fromkeys(filter(None, (MODEL, Environment.read().model, *GithubCopilot.models))):
        register(CopilotModel(model))


class CopilotModel(_Model):
    """One model for ``llm``. Safe from any thread.

    Args:
        model: The id of the model at the service.
    """

    can_stream = True
    needs_key = NAME
    key_env_var = API_KEY_VARIABLE
    #: Images are sent by their ``https://`` addresses, and anything else if it is text.
    attachment_types = frozenset(
        [
            *("image/jpeg", "image/png", "image/gif", "image/webp"),
            *("text/plain", "text/markdown", "text/csv", "text/html", "application/json"),
        ]
    )

    def __init__(self, model: str) -> None:
        self.model_id = f"{NAME}/{model}"
        self._model = model
        self._lock = threading.RLock()
        self._client: Optional[Tuple[Optional[str], Client]] = None

    def get_key(self, explicit_key: Optional[str] = None) -> Optional[str]:
        """Return the key; ``None`` if there is none, which is no error, because there may be cookies."""
        key: Optional[str] = self.key or llm.get_key(explicit_key, NAME, API_KEY_VARIABLE)
        return key

    def execute(
        self,
        prompt: Any,
        stream: bool,
        response: Any,
        conversation: Any,
        key: Optional[str] = None,
    ) -> Iterator[str]:
        """Ask, and yield the answer: in pieces as they arrive, or in one piece if ``stream`` is false.

        Raises:
            ValueError: An attachment can't be sent.
            CopilotError: There is no complete answer.
        """
        threads = _ThreadMap(llm.user_dir() / _THREADS_FILE)
        thread = (threads.get(conversation.id) or _last_thread(conversation)) if conversation else None
        # If the first question is refused, its thread lacks the earlier messages, so nothing may go on there.
        keeping: Dict[str, Any] = {
            "on_start": lambda begun: threads.keep(conversation.id, begun),
            "on_discard": lambda _: threads.forget(conversation.id),
        }
        answering = self._client_for(key or self.get_key()).stream(
            _question(prompt, conversation if thread is None else None),
            conversation=thread,
            model=self._model,
            custom_instructions=prompt.system or None,
            buffered=not stream,
            **(keeping if conversation else {}),
        )
        with answering:
            yield from answering
            answer = answering.read()
            _record_answer(response, answer)
            if conversation:
                threads.keep(conversation.id, answer.conversation)

    def _client_for(self, key: Optional[str]) -> Client:
        """Return the client for a key. It is kept for the next question, so that a token is fetched only once."""
        with self._lock:
            if self._client is None or self._client[0] != key:
                cache = None if Environment.read().token_cache else llm.user_dir() / _TOKENS_FILE
                self._client = (key, Client(key, token_cache=cache))
            return self._client[1]


def _question(prompt: Any, conversation: Any) -> PromptInput:
    """Return the prompt, after the earlier messages of a conversation that has no thread yet."""
    messages: List[Dict[str, Any]] = []
    for response in conversation.responses if conversation else ():
        earlier = getattr(response, "attachments", [])  # those that were read back from the log of llm
        messages.append({"role": "user", "content": _content(response.prompt, earlier)})
        messages.append({"role": "assistant", "content": response.text()})
    content = _content(prompt)
    return content if isinstance(content, str) and not messages else [*messages, {"role": "user", "content": content}]


def _content(prompt: Any, attachments: Sequence[Any] = ()) -> Union[str, List[Dict[str, Any]]]:
    """Return the content of a prompt as a role message has it: a text, or its parts if it has attachments."""
    attachments = [*getattr(prompt, "attachments", []), *attachments]  # which the oldest releases do not know
    if not attachments:
        return str(prompt.prompt)
    return [{"type": "text", "text": str(prompt.prompt)}, *map(_part, attachments)]


def _part(attachment: Any) -> Dict[str, Any]:
    if attachment.url:
        return {"type": "image_url", "image_url": {"url": attachment.url}}
    name = os.path.basename(attachment.path or "attachment.txt")
    data = f"data:{attachment.type or ''};base64,{attachment.base64_content()}"
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def _last_thread(conversation: Any) -> Optional[Conversation]:
    """Return the thread of the last answer, if ``llm`` returns old answers.

    Old releases assign the id of a conversation after its first answer.
    """
    last = conversation.responses[-1] if conversation.responses else None
    if last is None or not isinstance(last.model, CopilotModel) or not last.response_json:
        return None
    return Conversation.from_dict(last.response_json)


def _record_answer(response: Any, answer: Answer) -> None:
    """Pass to ``llm`` what it keeps of an answer besides the text."""
    response.response_json = {**answer.conversation.to_dict(), "model": answer.model}
    if answer.usage is not None and hasattr(response, "set_usage"):
        response.set_usage(input=answer.usage.input_tokens, output=answer.usage.output_tokens)


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
