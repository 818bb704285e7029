"""``GithubCopilot``: the documented API, over the blocking client.

The class has the names, parameters, order and defaults of the module documentation that this library implements.
``create_generator`` and ``create_completion`` are its blocking twins; ``create_async_generator`` goes through the same
code in steps, on the event loop. Calls with the same credentials, URLs, proxy, ``verify`` and token cache share one
client, so connections stay warm and a token is fetched once.

Threads: the shared clients are locked.
"""

# mypy: implicit-optional
# The documented annotations say ``str = None`` though ``None`` is meant too, and they stay as documented.

import atexit
import logging
import os
import threading
from collections import OrderedDict
from typing import Any, AsyncIterator, Dict, Generator, Iterator, List, Optional, Tuple, Union
from typing import OrderedDict as OrderedDictType

from copilot_sync import settings
from copilot_sync.auth.credentials import Credentials
from copilot_sync.auth.tokens import fingerprint
from copilot_sync.client import Client
from copilot_sync.models import BaseConversation, Conversation, Cookies, Messages
from copilot_sync.prompts import format_prompt, last_user_turn
from copilot_sync.secret import Secret
from copilot_sync.stream import Stream
from copilot_sync.transport.fork import reset_after_fork

logger = logging.getLogger(__name__)

#: What ``create_async_generator`` gives.
AsyncResult = AsyncIterator[Union[str, BaseConversation]]
#: What ``create_generator`` gives.
Result = Iterator[Union[str, BaseConversation]]

#: Options of a call, and options that make another client.
_CALL_OPTIONS = (
    "references",
    "context",
    "intent",
    "mode",
    "custom_instructions",
    "media",
    "parent_message_id",
    "files",
    "extra",
    "timeout",
    "retry",
    "resume",
)
_URLS = ("github_url", "api_url")
_CLIENT_OPTIONS = ("api_key", "cookies", "proxy", *_URLS, "token_cache", "answer_cache", "verify")

#: Clients that are kept for later calls. The one that was used longest ago makes room.
_KEPT_CLIENTS = 64


class AsyncGeneratorProvider:
    """A provider whose answers come from an async generator."""

    supports_stream = True


class ProviderModelMixin:
    """A provider that knows its models by name."""

    default_model: str = ""
    models: List[str] = []  # noqa: RUF012 - the documented attribute of the class

    @classmethod
    def get_models(cls, **kwargs: Any) -> List[str]:
        """Return the models that are known here. Others may be asked for as well."""
        return list(cls.models) or [cls.default_model]

    @classmethod
    def get_model(cls, model: Optional[str], **kwargs: Any) -> str:
        """Return the model to ask for: the default one if none is named, else the one that is named."""
        return model or cls.default_model


class GithubCopilot(AsyncGeneratorProvider, ProviderModelMixin):
    """GitHub Copilot Chat as a provider.

    >>> for piece in GithubCopilot.create_generator("auto", messages, stream=True):  # doctest: +SKIP
    ...     print(piece, end="", flush=True)

    All methods are safe for any number of threads.
    """

    label = "GitHub Copilot"
    url = "https://github.com/copilot"
    working = True
    needs_auth = True
    supports_stream = True
    default_model = "gpt-4o"
    models = ["gpt-4o", "o1-mini", "o1-preview", "claude-3.5-sonnet"]  # noqa: RUF012 - as documented

    @classmethod
    async def create_async_generator(  # type: ignore[no-untyped-def]
        cls,
        model: str,
        messages: Messages,
        stream: bool = False,
        api_key: str = None,
        proxy: str = None,
        cookies: Cookies = None,
        conversation_id: str = None,
        conversation: Conversation = None,
        return_conversation: bool = False,
        **kwargs,
    ) -> AsyncResult:
        """Ask, and yield the answer without blocking the event loop.

        The parameters and errors are those of ``create_generator``. Leaving the loop, ``aclose()`` and cancellation
        free the connection at once.
        """
        from copilot_sync.aio.reader import AsyncReader, text_of, text_or_conversation

        api_key, cookies, proxy, kwargs = _as_secrets(api_key, cookies, proxy, kwargs)
        kwargs.update(api_key=api_key, cookies=cookies, proxy=proxy)
        turn = cls._open(model, messages, conversation_id, conversation, stream, return_conversation, kwargs)
        if return_conversation:
            turn._keep_conversation()
        items: AsyncReader[Union[str, BaseConversation]] = AsyncReader(
            turn, text_or_conversation if return_conversation else text_of
        )
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    @classmethod
    def create_generator(  # type: ignore[no-untyped-def]
        cls,
        model: str,
        messages: Messages,
        stream: bool = False,
        api_key: str = None,
        proxy: str = None,
        cookies: Cookies = None,
        conversation_id: str = None,
        conversation: Conversation = None,
        return_conversation: bool = False,
        **kwargs,
    ) -> Result:
        """Ask, and yield the answer.

        Nothing is sent before the first item is asked for.

        Args:
            model: The model's id; ``""`` or ``None`` for ``default_model``. If the service does not answer with
                ``default_model``, ``auto`` is asked instead, once, and a warning is logged.
            messages: Role messages. The whole transcript is sent; with ``return_conversation``, the user's last turn.
                Images with ``https://`` addresses and text files among their parts are sent along.
            stream: Yield each piece as it arrives, instead of the whole answer once.
            api_key: A token to use as it is. Then no cookies are looked for.
            proxy: The URL of a proxy.
            cookies: The github.com cookies. Default: ``get_cookies("github.com")``.
            conversation_id: The id of a conversation to go on with.
            conversation: A conversation to go on with; it wins over ``conversation_id``.
            return_conversation: Yield the ``Conversation`` first, and send the user's last turn alone.
            **kwargs: ``references``, ``context``, ``intent``, ``mode``, ``custom_instructions``, ``media``,
                ``parent_message_id``, ``system``, ``files``, ``extra``, ``timeout``, ``retry``, ``resume``,
                ``github_url``, ``api_url``, ``token_cache``, ``answer_cache`` and ``verify``, as ``Client`` has them.
                Others are ignored.

        Yields:
            Text, and before it the ``Conversation`` if that is wanted.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: The messages are empty, or an argument can't be sent.
            OSError: A file can't be read.
            CopilotError: The answer could not be had; ``partial`` holds what had come of it.
        """
        api_key, cookies, proxy, kwargs = _as_secrets(api_key, cookies, proxy, kwargs)
        kwargs.update(api_key=api_key, cookies=cookies, proxy=proxy)
        turn = cls._open(model, messages, conversation_id, conversation, stream, return_conversation, kwargs)
        yield from _items(turn, return_conversation)

    @classmethod
    def create_completion(  # type: ignore[no-untyped-def]
        cls,
        model: str,
        messages: Messages,
        stream: bool = False,
        api_key: str = None,
        proxy: str = None,
        cookies: Cookies = None,
        conversation_id: str = None,
        conversation: Conversation = None,
        return_conversation: bool = False,
        **kwargs,
    ) -> str:
        """Ask, and give the whole answer as one text. Parameters and errors are those of ``create_generator``."""
        api_key, cookies, proxy, kwargs = _as_secrets(api_key, cookies, proxy, kwargs)
        items = cls.create_generator(
            model,
            messages,
            False,
            api_key,
            proxy,
            cookies,
            conversation_id,
            conversation,
            return_conversation,
            **kwargs,
        )
        return "".join(item for item in items if isinstance(item, str))

    @classmethod
    def _open(
        cls,
        model: str,
        messages: Messages,
        conversation_id: Optional[str],
        conversation: Union[None, str, Conversation],
        stream: bool,
        return_conversation: bool,
        kwargs: Dict[str, Any],
    ) -> Stream:
        ignored = sorted(set(kwargs) - {*_CALL_OPTIONS, *_CLIENT_OPTIONS, "system"})
        if ignored:
            logger.debug("ignored options: %s", ", ".join(ignored))
        options = {name: kwargs[name] for name in _CALL_OPTIONS if name in kwargs}
        client = _clients.get({name: kwargs[name] for name in _CLIENT_OPTIONS if name in kwargs})
        known = Conversation.from_value(conversation) or Conversation.from_value(conversation_id)
        system = kwargs.get("system")
        if return_conversation:
            text = last_user_turn(messages, system, is_new=known is None)
        else:
            text = format_prompt(messages, system)
        model = cls.get_model(model)
        if model == cls.default_model:  # which is older than the service's models
            options["fallback_model"] = settings.MODEL
        return client.stream(text, conversation=known, model=model, buffered=not stream, **options)


def _items(turn: Stream, return_conversation: bool) -> Generator[Union[str, BaseConversation], None, None]:
    """What the documented generators yield of a stream."""
    with turn:
        if return_conversation:
            yield turn.start()
        yield from turn


def _as_secrets(
    api_key: Any, cookies: Any, proxy: Any, options: Dict[str, Any]
) -> Tuple[Any, Any, Any, Dict[str, Any]]:
    """Return all arguments that may hold a secret as secrets, the URLs among the options too."""
    urls: Dict[str, Any] = {name: Secret.coerce(options[name]) for name in _URLS if name in options}
    return Secret.coerce(api_key), Secret.coerce(cookies), Secret.coerce(proxy), {**options, **urls}


def _place_of(cache: Any) -> Any:
    """Return what tells one cache from another."""
    return os.fspath(cache) if isinstance(cache, (str, os.PathLike)) else id(cache)


class _SharedClients:
    """The clients of the provider, told apart by whose they are and where they go. Safe for any thread."""

    def __init__(self) -> None:
        self._clients: OrderedDictType[Tuple[Any, ...], Client] = OrderedDict()
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Begin with a lock of our own: an inherited one may be held by a thread that is not here."""
        self._lock = threading.RLock()

    def get(self, options: Dict[str, Any]) -> Client:
        environment = settings.Environment.read()
        urls = settings.choose_urls(options.get("github_url"), options.get("api_url"), environment)
        credentials = Credentials(options["api_key"], options["cookies"], environment)
        identity = fingerprint(credentials.fingerprint(), repr(options["proxy"].reveal()))
        places = [_place_of(options.get(name)) for name in ("token_cache", "answer_cache")]
        key = (identity, urls, str(options.get("verify", True)), *places, environment.token_cache)
        with self._lock:
            client = self._clients.pop(key, None) or Client(
                **{**options, "github_url": urls.github, "api_url": urls.api}
            )
            self._clients[key] = client
            if len(self._clients) > _KEPT_CLIENTS:
                self._clients.popitem(last=False)
        return client

    def close(self) -> None:
        """Close all of them and begin anew."""
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()


_clients = _SharedClients()
atexit.register(_clients.close)


def close_shared_clients() -> None:
    """Close the clients that calls share. The next call makes new ones, which fetch a token."""
    _clients.close()
