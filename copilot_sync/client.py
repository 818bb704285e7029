"""``Client``: the blocking client.

A ``Client`` holds what calls share: connections, the token, the defaults. It may be used by any number of
threads, and by a child that was forked; it pickles, for ``spawn``.

Threads: the set of streams is atomic. Everything else is set when the client is made.
"""

import weakref
from dataclasses import fields, replace
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set, Tuple, Union

from copilot_sync.account import AccountCalls
from copilot_sync.auth.api_session import ApiSession
from copilot_sync.auth.caches import TokenCache, cache_of
from copilot_sync.auth.cookie_formats import CookieSource
from copilot_sync.auth.credentials import Credentials
from copilot_sync.auth.stored_logins import MadeFromProfile
from copilot_sync.chat import Chat
from copilot_sync.delivery.answer_cache import AnswerCache
from copilot_sync.delivery.guards import CallGuard
from copilot_sync.delivery.message import CallOptions, MessageHandle, PendingMessage
from copilot_sync.hooks import Hook, hooks_of
from copilot_sync.inline_files import FileInput, inline_files, read_files
from copilot_sync.ledger.recorder import Recorder
from copilot_sync.ledger.sqlite_ledger import ledger_of
from copilot_sync.message_parts import NO_ATTACHMENTS
from copilot_sync.models import Answer, Conversation
from copilot_sync.options import AskFields, StreamFields, Unpack
from copilot_sync.pacing.budget import Budget
from copilot_sync.pacing.rate_limit import RateLimit
from copilot_sync.prompts import PromptInput, PromptText, prompt_text
from copilot_sync.protocol.requests import MessageOptions
from copilot_sync.safe_text import check_id, check_text
from copilot_sync.secret import Secret
from copilot_sync.settings import MODEL, Environment, Limits, RetryPolicy, Timeout, TimeoutValue, choose_urls
from copilot_sync.stream import Stream
from copilot_sync.structured import REPAIRS, Expectation, asking
from copilot_sync.text_files import PathLike
from copilot_sync.transport.proxies import check_proxy, check_verify
from copilot_sync.transport.session import Transport

#: The arguments of a question that people look for, by other names too, and its further options.
_ARGUMENTS = ("model", "system", "files", "timeout")
_OPTIONS = tuple(field.name for field in fields(MessageOptions))


class _Default:
    """Stands for "as the client has it" if ``None`` means something of its own."""

    def __repr__(self) -> str:
        return "<the client's>"


_DEFAULT: Any = _Default()


class Client(AccountCalls, MadeFromProfile):
    """A blocking client of GitHub Copilot Chat.

    It may be shared by any number of threads, and by forked children, which get connections of their own. Making one
    touches neither the network nor a file: credentials are looked for when the first token is needed.

    >>> with Client(cookies={"user_session": "…"}) as client:  # doctest: +SKIP
    ...     print(client.ask("Explain WSGI in one line"))

    Args:
        api_key: A token to use as it is, or the JSON in which the page keeps it, with its ``expiration``: after that
            it is refused unsent. With a token, cookies serve the quota and ``api_url="auto"`` alone, and only if both
            came as arguments or both from the environment.
        cookies: The github.com cookies: a mapping, a cookie jar, a ``Cookie`` header, a ``cookies.txt``, JSON or HAR
            file, a folder of such, or a browser extension's list. Without either, ``COPILOT_SYNC_API_KEY`` and then
            ``get_cookies`` are asked.
        model: The model asked for if a call names none. Default ``COPILOT_SYNC_MODEL``, else ``auto``: the service
            chooses one that the plan has. Free and student plans have no other (public captures, 2026).
        proxy: The URL of a proxy for all requests. Default: ``HTTPS_PROXY`` and its relatives.
        timeout: Seconds of silence allowed, or a ``Timeout``. Default: ``Timeout()``.
        retry: When failed requests are tried again; ``None`` for never. Default: ``RetryPolicy()``.
        resume: Whether the rest of an answer that was cut is fetched from its thread. Default: ``True``.
        token_cache: Where tokens are kept beyond this client's life: a file, or an object with ``get`` and
            ``set``, such as Django's cache. One that fails is logged and done without. Default
            ``COPILOT_SYNC_TOKEN_CACHE``, else nowhere.
        github_url: Where the cookies are exchanged. Default ``COPILOT_SYNC_GITHUB_URL``, else ``https://github.com``.
            ``http://`` is refused but for this machine, unless ``COPILOT_SYNC_ALLOW_HTTP=1`` is set: unsafe, because
            the network can then read the credentials.
        api_url: The API of the account's plan. Default ``COPILOT_SYNC_API_URL``, else the one of individual plans.
            With ``auto``, the first request looks at the account's page for the host, which needs cookies.
        verify: Whether certificates are checked, or the file of a CA to check them with. Default: ``True``.
        limits: How much of a reply is kept in memory. Default: ``Limits()``.
        rate_limit: How many calls of the account may begin in a minute or a day, and be under way at once. Default: no
            limit, but the pauses that the service asks for.
        shared: Where the processes that use the account share that, and the pauses: a folder of this machine; a
            ``redis.Redis`` (5 or newer) with a ``socket_timeout``; or a cache with ``get``, ``set``, ``add`` and
            ``delete``, such as Django's on Redis or memcached. Default: this process alone.
        answer_cache: Where whole answers are kept, for 30 days: a folder, or an object with ``get`` and ``set``. The
            same question in a new conversation is then answered without a request, for whichever account; see
            ``Answer.cached``. One that fails is logged and done without. Default: nowhere.
        ledger: Where each call is noted: a ``Ledger``, the path of one, or ``True`` for the one in the user's state
            folder. One that can't be written is logged and done without. Default ``COPILOT_SYNC_LEDGER``, else nowhere.
        budget: How many requests and tokens the account, and each ``user`` of a call, may use in a day. It is counted
            where ``shared`` says. Default: any number.
        hooks: A function, or several, that is called with a ``CallEvent`` for each step of a call. Default: none.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument can't be used, such as a key that can't be sent, or a CA file that is not there.
    """

    def __init__(
        self,
        api_key: Union[None, str, Secret[Any]] = None,
        *,
        cookies: Union[None, CookieSource, Secret[Any]] = None,
        model: Optional[str] = None,
        proxy: Union[None, str, Secret[Any]] = None,
        timeout: TimeoutValue = Timeout(),
        retry: Optional[RetryPolicy] = RetryPolicy(),
        resume: bool = True,
        token_cache: Union[None, str, PathLike, TokenCache] = None,
        github_url: Union[None, str, Secret[Any]] = None,
        api_url: Union[None, str, Secret[Any]] = None,
        verify: Union[bool, str, PathLike] = True,
        limits: Optional[Limits] = None,
        rate_limit: Optional[RateLimit] = None,
        shared: Any = None,
        answer_cache: Union[None, str, PathLike, TokenCache] = None,
        ledger: Union[None, bool, str, PathLike, Recorder] = None,
        budget: Optional[Budget] = None,
        hooks: Union[None, Hook, Iterable[Hook]] = None,
    ) -> None:
        api_key, cookies, proxy, github_url, api_url = map(
            Secret.coerce, (api_key, cookies, proxy, github_url, api_url)
        )
        environment = Environment.read()
        credentials = Credentials(api_key, cookies, environment)
        urls = choose_urls(github_url, api_url, environment)
        transport = Transport(proxy=check_proxy(proxy), verify=check_verify(verify), limits=limits)
        cache = cache_of(token_cache, environment.token_cache)
        session = ApiSession(urls, transport, credentials.token_source(urls, transport, cache))
        options = CallOptions(Timeout.from_value(timeout), RetryPolicy.from_value(retry), _checked_resume(resume))
        guards = _guards(session, ledger_of(ledger, environment.ledger), budget, rate_limit, shared)
        answers = AnswerCache.from_value(answer_cache)
        super().__init__(session, replace(options, guards=guards, answers=answers, hooks=hooks_of(hooks)))
        self._model = _checked_model(model, environment.model or MODEL)
        self._streams: Set[weakref.ref[Stream]] = set()

    @property
    def retry(self) -> Optional[RetryPolicy]:
        """When failed requests are tried again, if a call does not say otherwise."""
        return self._options.retry

    @property
    def api_url(self) -> str:
        """The base URL of the API that is asked; ``auto`` as long as the account's page has not named it."""
        return self._session.api_url

    def ask(
        self,
        prompt: PromptInput,
        *,
        conversation: Union[None, str, Conversation] = None,
        model: Optional[str] = None,
        system: Optional[str] = None,
        files: Optional[Iterable[FileInput]] = None,
        timeout: TimeoutValue = None,
        retry: Optional[RetryPolicy] = _DEFAULT,
        resume: Optional[bool] = None,
        on_start: Optional[Callable[[Conversation], None]] = None,
        label: Optional[str] = None,
        user: Optional[str] = None,
        answer_cache: Optional[bool] = None,
        schema: Any = None,
        repairs: int = REPAIRS,
        **options: "Unpack[AskFields]",
    ) -> Answer:
        """Ask, and wait for the whole answer.

        Args:
            prompt: A text, or role messages: a new conversation gets all of them, another the user's last ones. Their
                images with ``https://`` addresses and their text files are sent along.
            conversation: A conversation or its id, to go on with it. It is updated in place. Default: a new one.
            model: The model's id. Default: the client's.
            system: Instructions for the model: a role message in front of a new conversation, else a paragraph in
                front of the text. Default: none.
            files: Text files to attach, of at most 1 MiB each: paths, which are read at once, or pairs of a name and a
                text.
            timeout: Seconds of silence allowed, or a ``Timeout``. Default: the client's.
            retry: When failed requests are tried again, ``None`` for never. Default: the client's.
            resume: Whether a cut answer's rest is fetched. Default: the client's.
            on_start: Called with the conversation once it is known, before the message is sent. It is not deleted if
                its first question is refused, unless there is an ``on_discard`` as well.
            label: What the call is for, in words of yours, for your own records. The service is not told.
            user: For whom it is made, of those whom your program serves, for your own limits. The service is not told.
            answer_cache: ``False`` neither asks the client's cache of answers nor keeps the answer there.
            schema: What the answer has to fit, to become ``Answer.parsed``: a pydantic model or another type that
                pydantic takes, or a JSON Schema. Its JSON Schema is added to the prompt. Default: any text.
            repairs: How often an answer that does not fit is asked for again, in the same conversation.
            **options: ``references``, ``context``, ``intent``, ``mode``, ``custom_instructions``, ``media``,
                ``parent_message_id`` and ``extra``, as ``MessageOptions`` has them.

        Raises:
            TypeError: An argument has the wrong type or a name that is not known.
            ValueError: The prompt is empty, or an argument can't be sent.
            OSError: A file can't be read.
            ImportError: What judges the ``schema`` is not installed.
            InvalidAnswerError: No answer fits the ``schema``.
            CopilotError: The call failed; ``partial`` is the text that had come.
        """
        stream = self.stream(
            prompt,
            conversation=conversation,
            model=model,
            system=system,
            files=files,
            timeout=timeout,
            retry=retry,
            resume=resume,
            on_start=on_start,
            label=label,
            user=user,
            answer_cache=answer_cache,
            **asking({"schema": schema, "repairs": repairs, **options}),
        )
        with stream:
            return stream.read()

    def stream(
        self,
        prompt: PromptInput,
        *,
        conversation: Union[None, str, Conversation] = None,
        model: Optional[str] = None,
        system: Optional[str] = None,
        files: Optional[Iterable[FileInput]] = None,
        timeout: TimeoutValue = None,
        retry: Optional[RetryPolicy] = _DEFAULT,
        resume: Optional[bool] = None,
        on_start: Optional[Callable[[Conversation], None]] = None,
        label: Optional[str] = None,
        user: Optional[str] = None,
        answer_cache: Optional[bool] = None,
        buffered: bool = False,
        handle: Optional[MessageHandle] = None,
        fallback_model: str = "",
        on_discard: Optional[Callable[[Conversation], None]] = None,
        **options: "Unpack[StreamFields]",
    ) -> Stream:
        """Ask, and return the answer as a stream. Nothing is sent before the first piece is asked for.

        Args:
            prompt: As for ``ask``.
            conversation: As for ``ask``.
            model: As for ``ask``.
            system: As for ``ask``.
            files: As for ``ask``. They are read by this call, not with the first piece.
            timeout: As for ``ask``.
            retry: As for ``ask``.
            resume: As for ``ask``.
            on_start: As for ``ask``.
            label: As for ``ask``.
            user: As for ``ask``.
            answer_cache: As for ``ask``.
            buffered: Yield the text in one piece when it is whole, instead of as it comes.
            handle: Where the message goes, instead of ``conversation``. Another process can resume it by its handle.
            fallback_model: The model to ask instead, once, if the service does not answer with ``model``.
            on_discard: Called with a new conversation if its first question was refused before it was in there. The
                conversation is empty and of no use then; it is deleted, if that is possible.
            **options: As for ``ask``.

        Raises:
            TypeError: An argument has the wrong type or a name that is not known.
            ValueError: The prompt is empty, or an argument can't be sent.
            OSError: A file can't be read.
        """
        known = _checked_conversation(handle.conversation_id if handle is not None else conversation)
        content = prompt_text(prompt, system, is_new=known is None)
        rest: Dict[str, Any] = {**options}
        expected: Optional[Expectation] = rest.pop("expected", None)  # as ``asking`` makes it
        if expected is not None:
            content = expected.schema.added_to(content)
        message = PendingMessage(
            content=content,
            model=_checked_model(model, self._model),
            options=_checked_options(rest, content, files),
            conversation=known,
            buffered=buffered,
            handle=handle,
            fallback_model=fallback_model,
            label=_checked_word("label", label),
            user=_checked_word("user", user),
            expected=expected,
        )
        call_options = _merged(self._options, timeout, retry, resume, answer_cache)
        stream = Stream(self._session, message, call_options, on_start, on_discard)
        # Weak references in a plain set, whose operations are atomic: any thread may begin and drop streams.
        self._streams.add(weakref.ref(stream, self._streams.discard))
        return stream

    def chat(
        self,
        conversation: Union[None, str, Conversation] = None,
        *,
        model: Optional[str] = None,
        system: Optional[str] = None,
        files: Optional[Iterable[FileInput]] = None,
        extra: Optional[Mapping[str, Any]] = None,
    ) -> Chat:
        """Begin a conversation, or go on with one.

        Args:
            conversation: A conversation or its id. Default: a new one, begun with the first question.
            model: The model for all of it. Default: the client's.
            system: Instructions for the model, in front of the chat's first question. They are sent again with the next
                question as long as no answer has begun. Default: none.
            files: Text files that go with the instructions, as for ``ask``. Paths are read at once.
            extra: Further fields of each of its messages, as ``MessageOptions`` has them. Default: none.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument can't be sent.
            OSError: A file can't be read.
        """
        return Chat(self, Conversation.from_value(conversation), model, system, files, extra)

    def close(self) -> None:
        """End every call under way and close the connections.

        In the threads that wait for these calls, ``StreamClosedError`` is raised at once. Call it from any thread, any
        number of times; the client can be used again afterwards. It waits until the ledger, if any, is written.
        """
        self._end_calls()
        self._close_guards()

    def _end_calls(self) -> None:
        for stream in filter(None, [reference() for reference in list(self._streams)]):
            stream.close()
        for call in list(self._calls):
            call.cancel()
        self._session.close()

    def _close_guards(self) -> None:
        for guard in self._options.guards:
            guard.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if "_model" not in self.__dict__:
            return "<Client that is being made>"  # as the report of an error out of __init__ may show it
        return f"<Client of {self.api_url}, model {self._model!r}>"

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_streams": set(), "_calls": set()}


def _checked_conversation(value: Union[None, str, Conversation]) -> Optional[Conversation]:
    conversation = Conversation.from_value(value)
    if conversation is not None:
        check_id(conversation.conversation_id)
    return conversation


def _checked_options(
    options: Dict[str, Any], content: PromptText, files: Optional[Iterable[FileInput]]
) -> MessageOptions:
    for name in options:
        if name in ("schema", "repairs"):
            raise TypeError(f"{name} is an option of ask, which waits for the whole answer: a stream has none")
        if name not in _OPTIONS:
            known = ", ".join((*_ARGUMENTS, *_OPTIONS))
            raise TypeError(f"{name} is no option of a message; there are {known}")
    checked = MessageOptions.coerce(**options)
    if files is None and content.attachments is NO_ATTACHMENTS:
        return checked
    references, media = content.attachments
    return checked.attach((*inline_files(read_files(files)), *references), media)


def _checked_resume(resume: bool) -> bool:
    if not isinstance(resume, bool):
        raise TypeError(f"resume must be True or False, not {type(resume).__name__}")
    return resume


def _guards(
    session: ApiSession, ledger: Optional[Recorder], budget: Optional[Budget], limit: Optional[RateLimit], shared: Any
) -> Tuple[CallGuard, ...]:
    guards: List[CallGuard] = []  # the modules of the others are loaded here, because few need them
    if ledger is not None:
        guards.append(ledger)  # the last that a call leaves: it counts what the others cost
    if budget is not None:
        from copilot_sync.delivery.budget_guard import BudgetGuard

        guards.append(BudgetGuard(session, budget, shared))
    if limit is not None or shared is not None:
        from copilot_sync.delivery.rate_guard import RateGuard

        guards.append(RateGuard(session, limit, shared))
    return tuple(guards)


def _merged(
    own: CallOptions,
    timeout: TimeoutValue,
    retry: Optional[RetryPolicy],
    resume: Optional[bool],
    answer_cache: Optional[bool],
) -> CallOptions:
    """Return how a call behaves: as its arguments say, else as the client's ``own`` options do."""
    if answer_cache is not None and not isinstance(answer_cache, bool):
        raise TypeError(f"answer_cache of a call must be True or False, not {type(answer_cache).__name__}")
    return replace(
        own,
        timeout=own.timeout if timeout is None else Timeout.from_value(timeout),
        retry=own.retry if retry is _DEFAULT else RetryPolicy.from_value(retry),
        resume=own.resume if resume is None else _checked_resume(resume),
        answers=None if answer_cache is False else own.answers,
    )


def _checked_word(name: str, value: Optional[str]) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return value or ""


def _checked_model(model: Optional[str], default: str) -> str:
    if model is not None and not isinstance(model, str):
        raise TypeError(f"model must be a string, not {type(model).__name__}")
    return check_text("model", model or default)
