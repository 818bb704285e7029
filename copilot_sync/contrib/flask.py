"""Copilot Chat in Flask: answers that stream, and conversations in the session.

    copilot = CopilotSync(app)  # or CopilotSync() and copilot.init_app(app)

    @app.post("/chat")
    def chat():
        return copilot.stream_response(request.form.get("prompt"), name="chat")

``app.config`` takes the arguments of ``Client`` as ``COPILOT_SYNC_MODEL`` and so on, ``COPILOT_SYNC_HEARTBEAT``,
``COPILOT_SYNC_NAME_THREADS``, and the settings of the chat page (``copilot_sync.contrib.flask_chat``). The page reads
``text/event-stream``, as ``copilot_sync.contrib.sse`` describes it. This module connects Flask to the client, and knows
nothing of the protocol.
"""

import sys
from typing import Any, Dict, Iterable, Mapping, Optional, Union

from copilot_sync.client import Client
from copilot_sync.contrib.lazy_client import (
    SITE_OPTIONS,
    LazyClient,
    check_background,
    check_stop_on_leave,
    limits_users,
    option_names,
    user_of_session,
)
from copilot_sync.contrib.sse import (
    HEADERS,
    HEARTBEAT,
    EventStream,
    check_heartbeat,
    check_name_thread,
    error_event,
    is_gone,
    log_failure,
    whole_answer,
)
from copilot_sync.errors import CopilotError
from copilot_sync.models import Conversation
from copilot_sync.options import AskResponseOptions, StreamResponseOptions, StreamRetryOptions, Unpack
from copilot_sync.prompts import PromptInput
from copilot_sync.stream import Stream
from copilot_sync.structured import asking
from copilot_sync.terminal_text import one_line, write_pieces

try:
    import click
    from flask import Flask, Response, current_app, jsonify, session
    from flask.cli import AppGroup
    from werkzeug.exceptions import BadRequest
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(f'this module needs {error.name}: pip install "copilot-sync[flask]"', name=error.name) from None

__all__ = ["CopilotSync"]

#: The key of the extension in ``app.extensions``, and of the conversations in the session.
KEY = "copilot_sync"
_PREFIX = "COPILOT_SYNC_"


class CopilotSync:
    """The extension. One object may serve several applications; each has a client of its own.

    Args:
        app: The application. Default: you call ``init_app`` later.
        token_cache: Where all processes keep tokens: a file, or a cache of Flask-Caching or cachelib. Default:
            ``COPILOT_SYNC_TOKEN_CACHE`` of ``app.config``, else of the environment, else nowhere.

    Raises:
        ValueError: ``app.config`` has an unknown ``COPILOT_SYNC_`` name, a heartbeat that is not above zero, or a
            ``COPILOT_SYNC_CHAT_BACKGROUND`` that is not between zero and an hour.
        TypeError: One of the two is not a number, or ``COPILOT_SYNC_NAME_THREADS`` or
            ``COPILOT_SYNC_CHAT_STOP_ON_LEAVE`` is neither ``True`` nor ``False``.
    """

    def __init__(self, app: Optional[Flask] = None, *, token_cache: Any = None) -> None:
        self._token_cache = token_cache
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up an application: check its configuration and add the command ``flask copilot ask``.

        Each process creates its client when it first needs it.

        Raises:
            TypeError: As for the class.
            ValueError: As for the class.
        """
        check_heartbeat(_client_settings(app).get("heartbeat", HEARTBEAT))
        check_name_thread(_client_settings(app).get("name_threads", True))
        check_background(_client_settings(app).get("chat_background", 0.0))
        check_stop_on_leave(_client_settings(app).get("chat_stop_on_leave", False))
        app.extensions[KEY] = LazyClient(lambda: self._make_client(app))
        app.cli.add_command(_commands(self))

    @property
    def client(self) -> Client:
        """The client of the current application in this process. Safe from any thread.

        Raises:
            RuntimeError: There is no current application, or ``init_app`` was not called with it.
            TypeError: A value of its configuration has the wrong type.
            ValueError: A value of its configuration can't be used.
        """
        if KEY not in current_app.extensions:
            raise RuntimeError("this application was not given to CopilotSync.init_app")
        one: LazyClient = current_app.extensions[KEY]
        return one.get()

    def stream_response(
        self,
        prompt: Optional[PromptInput],
        *,
        name: Optional[str] = None,
        conversation: Union[None, str, Conversation] = None,
        **options: "Unpack[StreamResponseOptions]",
    ) -> Response:
        """Return a response that streams the answer to a prompt as ``text/event-stream``.

        Uses the network if ``name`` is set and a conversation has to be created first. If anything fails, the page gets
        an ``error`` event, and the log gets the details.

        Flask sends the session before the answer, so the session holds the id of the conversation and never that of the
        answer. The page gets it in the ``complete`` event, and may send it back as ``parent_message_id``.

        Args:
            prompt: A text, or role messages.
            name: The name under which the session keeps the conversation. Default: it does not.
            conversation: A conversation or its id. Default: the one in the session, else a new one. Don't trust an id
                that comes from the page: all users of a site share one account.
            **options: Options of ``Client.stream``: ``model``, ``timeout``, ``parent_message_id`` … The last is ignored
                if the session does not hold the conversation (any more), so that a new one starts. ``user`` is who
                asks, if there is a budget for each user. Default: the user of Flask-Login, else the session, if the
                server keeps it.

        Raises:
            werkzeug.exceptions.BadRequest: The prompt is empty.
            TypeError: An option has the wrong type or an unknown name.
            ValueError: An option can't be sent.
        """
        return self._respond(self._stream(prompt, name, conversation, {**options}), name)

    def ask_response(
        self,
        prompt: Optional[PromptInput],
        *,
        name: Optional[str] = None,
        conversation: Union[None, str, Conversation] = None,
        **options: "Unpack[AskResponseOptions]",
    ) -> Response:
        """Ask, wait for the whole answer, and return a response with it as JSON.

        This is the way to data: a stream takes no ``schema``. The object is that of the ``complete`` event, with the
        ``text``, and with ``parsed`` if there is a schema. If anything fails, it is that of the ``error`` event, with
        the status 503, or 404 if the service does not know the conversation any more.

        Args:
            prompt: As for ``stream_response``.
            name: As for ``stream_response``.
            conversation: As for ``stream_response``.
            **options: Options of ``Client.ask``: ``schema``, ``repairs``, ``timeout``, ``model``, and as for
                ``stream_response``.

        Raises:
            werkzeug.exceptions.BadRequest: The prompt is empty.
            TypeError: An option has the wrong type or an unknown name.
            ValueError: An option can't be used.
            ImportError: What judges the ``schema`` is not installed.
        """
        stream = self._stream(prompt, name, conversation, asking(options))
        data, status = whole_answer(stream)
        if name is not None and stream.answer is not None:
            _remember(name, stream.answer.conversation)
        elif name is not None and status == 404:
            self._forget_gone(name, stream.conversation)
        response = jsonify(data)
        response.status_code = status
        naming = stream.naming() if stream.is_new and _client_settings(current_app).get("name_threads", True) else None
        if naming is not None:
            response.call_on_close(naming.run)  # when the page has its answer
        return response

    def _stream(
        self,
        prompt: Optional[PromptInput],
        name: Optional[str],
        conversation: Union[None, str, Conversation],
        options: Dict[str, Any],
    ) -> Stream:
        """Return the stream of an answer to a prompt, in the conversation of that name unless another one is given."""
        if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
            raise BadRequest("there is nothing to ask")
        if conversation is None and name is not None:
            conversation = self.conversations().get(name)
            if conversation is None:  # the page may still show one that the session has lost
                options.pop("parent_message_id", None)
        return self.client.stream(prompt, conversation=conversation, **_with_user(options))

    def retry_response(
        self,
        *,
        name: Optional[str] = None,
        conversation: Union[None, str, Conversation] = None,
        model: Optional[str] = None,
        **options: "Unpack[StreamRetryOptions]",
    ) -> Response:
        """Return a response that answers the last question of a conversation again, as ``stream_response`` does.

        Uses the network: the thread is looked up first. The question is the last one of its newest branch. The next
        question follows the new answer if the page sends its id as ``parent_message_id``.

        Args:
            name: The name under which the session keeps the conversation.
            conversation: A conversation or its id, instead of ``name``.
            model: The model for this one answer. Default: the client's.
            **options: Options of ``Chat.stream_retry``.

        Raises:
            werkzeug.exceptions.BadRequest: There is no such conversation in the session, or no question in it.
            TypeError: An option has the wrong type or an unknown name.
        """
        if conversation is None and name is not None:
            conversation = self.conversations().get(name)
        if conversation is None:
            raise BadRequest("there is no question to answer again")
        try:
            stream = self.client.chat(conversation).stream_retry(model, **_with_user(options))
        except CopilotError as error:
            log_failure(error)
            if name is not None and is_gone(error):
                self._forget_gone(name, conversation)
            return Response(error_event(error, Conversation.from_value(conversation)), headers=HEADERS)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        return self._respond(stream, name)

    def _respond(self, stream: Stream, name: Optional[str]) -> Response:
        """Return the response that streams an answer. The session gets its conversation under the name."""
        if name is not None:
            try:
                # A page that waits for its turn is told so in the stream, if its conversation is known.
                _remember(name, stream.conversation or stream.start())
            except CopilotError as error:
                log_failure(error)
                return Response(error_event(error, stream.conversation), headers=HEADERS)
        return Response(self._body(stream, name), headers=HEADERS)

    def _body(self, stream: Stream, name: Optional[str]) -> Iterable[bytes]:
        settings = app_settings()
        heartbeat, name_thread = settings.get("heartbeat", HEARTBEAT), settings.get("name_threads", True)
        body = EventStream(stream, heartbeat=heartbeat, name_thread=name_thread)
        if name is not None and not stream.is_new and not body.finds_conversation():
            self._forget_gone(name, stream.conversation)
        return body

    def conversations(self) -> Dict[str, Conversation]:
        """Return the conversations in the session by name, the newest last."""
        return {name: Conversation(id) for name, id in session.get(KEY, [])}

    def forget(self, name: str) -> None:
        """Remove a conversation from the session, so that the next question under its name starts a new one.

        Nothing is deleted at the service.
        """
        kept = session.get(KEY, [])
        if name in dict(kept):
            session[KEY] = [[each, id] for each, id in kept if each != name]

    def _forget_gone(self, name: str, conversation: Union[None, str, Conversation]) -> None:
        """Remove a conversation that the service does not know any more, if it is the one of that name."""
        gone = Conversation.from_value(conversation)
        if gone is not None and [name, gone.conversation_id] in map(list, session.get(KEY, [])):
            self.forget(name)

    def _make_client(self, app: Flask) -> Client:
        return Client(**self._options(app))

    def _options(self, app: Flask) -> Dict[str, Any]:
        options = {name: value for name, value in _client_settings(app).items() if name not in SITE_OPTIONS}
        cache = options.get("token_cache") if self._token_cache is None else self._token_cache
        return {**options, "token_cache": cache}


def app_settings() -> Dict[str, Any]:
    """Return the configuration of the current application as ``_client_settings`` does."""
    return _client_settings(current_app)


def _client_settings(app: Flask) -> Dict[str, Any]:
    """Return the configuration by the names of ``Client``'s arguments. It contains secrets.

    No variable holds them before the names are checked: an error report may include the variables of this frame.
    """
    given = [name[len(_PREFIX) :] for name in app.config if name.startswith(_PREFIX)]
    names = option_names(given, SITE_OPTIONS, f"app.config, behind {_PREFIX},")
    return {names[name]: app.config[_PREFIX + name] for name in given}


def _with_user(options: Mapping[str, Any]) -> Dict[str, Any]:
    if "user" in options or not limits_users(_client_settings(current_app)):
        return {**options}
    return {**options, "user": _user()}


def _user() -> Optional[str]:
    """Return who asks: the user who has logged in, else the visitor whose session was kept before; else ``None``."""
    if hasattr(current_app, "login_manager"):
        user = sys.modules["flask_login"].current_user  # it is there, as it has set that
        if user.is_authenticated:
            return str(user.get_id())
    return user_of_session(getattr(session, "sid", None)) if session else None  # an empty one is not kept


def _remember(name: str, conversation: Conversation) -> None:
    # A list of pairs, because Flask sorts the members of an object by name.
    kept = dict(session.get(KEY, []))
    if kept.get(name) != conversation.conversation_id:
        others = [[each, id] for each, id in kept.items() if each != name]
        session[KEY] = [*others, [name, conversation.conversation_id]]


def _commands(copilot: CopilotSync) -> AppGroup:
    group = AppGroup("copilot", help="Ask GitHub Copilot with this application's configuration.")

    @group.command("ask")
    @click.argument("prompt")
    @click.option("--model", help="The model's id.  [default: the application's]")
    @click.option("--conversation", metavar="ID", help="Continue a conversation.  [default: a new one]")
    def ask(prompt: str, model: Optional[str], conversation: Optional[str]) -> None:
        """Ask PROMPT and print the answer as it comes."""
        try:
            with copilot.client.stream(prompt, model=model, conversation=conversation) as stream:
                write_pieces(stream, sys.stdout)
        except (CopilotError, TypeError, ValueError) as error:
            raise click.ClickException(one_line(str(error))) from error

    return group
