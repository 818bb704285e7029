"""Copilot Chat in Flask: answers that stream, and conversations in the session.

    copilot = CopilotSync(app)  # or CopilotSync() and copilot.init_app(app)

    @app.post("/chat")
    def chat():
        return copilot.stream_response(request.form.get("prompt"), name="chat")

``app.config`` takes the arguments of ``Client`` as ``COPILOT_SYNC_MODEL`` and so on, and ``COPILOT_SYNC_HEARTBEAT``.
The page reads ``text/event-stream``, as ``copilot_sync.contrib.sse`` describes it. This module turns Flask's things
into the client's and back, and knows nothing of the protocol.
"""

import sys
from typing import Any, Dict, Optional, Union

from copilot_sync.client import Client
from copilot_sync.contrib.lazy_client import LazyClient, option_names
from copilot_sync.contrib.sse import HEADERS, HEARTBEAT, EventStream, check_heartbeat, error_event, log_failure
from copilot_sync.errors import CopilotError
from copilot_sync.models import Conversation
from copilot_sync.prompts import PromptInput
from copilot_sync.terminal_text import one_line, write_pieces

try:
    import click
    from flask import Flask, Response, current_app, session
    from flask.cli import AppGroup
    from werkzeug.exceptions import BadRequest
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(f'this module needs {error.name}: pip install "copilot-sync[flask]"', name=error.name) from None

#: The key of the extension, and the one in the session under which all conversations are.
KEY = "copilot_sync"
_PREFIX = "COPILOT_SYNC_"
_OTHERS = ("heartbeat",)


class CopilotSync:
    """The extension. One object may serve several applications; each has a client of its own.

    Args:
        app: The application. Default: ``init_app`` is called later.
        token_cache: Where tokens are kept for all processes: a file, or a cache of Flask-Caching or cachelib. Default:
            ``COPILOT_SYNC_TOKEN_CACHE`` of ``app.config``, else of the environment, else nowhere.

    Raises:
        ValueError: ``app.config`` has a ``COPILOT_SYNC_`` name that is not known, or a heartbeat of zero.
        TypeError: The heartbeat is no number.
    """

    def __init__(self, app: Optional[Flask] = None, *, token_cache: Any = None) -> None:
        self._token_cache = token_cache
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve an application: read its configuration and add the commands ``flask copilot``.

        The client is made when it is first needed, in each process.

        Raises:
            TypeError: As for the class.
            ValueError: As for the class.
        """
        check_heartbeat(_configured(app).get("heartbeat", HEARTBEAT))
        app.extensions[KEY] = LazyClient(lambda: self._make_client(app))
        app.cli.add_command(_commands(self))

    @property
    def client(self) -> Client:
        """The client of the current application in this process. Safe from any thread.

        Raises:
            RuntimeError: There is no current application, or it was not given to ``init_app``.
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
        **options: Any,
    ) -> Response:
        """Answer a request with the answer to a prompt, as ``text/event-stream``, while it is written.

        Uses the network if a conversation is to be kept and has to be begun first. Whatever fails, also there,
        the page is told in an ``error`` event, and the log in full.

        Flask's session has been sent when the answer is streamed, so it keeps the conversation's id and never the
        answer's. The page learns that from the ``complete`` event and may send it back, as ``parent_message_id``.

        Args:
            prompt: A text, or role messages.
            name: The name under which the session keeps the conversation. Default: it is not kept.
            conversation: A conversation or its id. Default: the one that the session keeps, else a new one. An id
                that comes from the page is the page's word: all users of a site share one account.
            **options: As ``Client.stream`` takes them: ``model``, ``timeout``, ``parent_message_id`` … The last is
                passed over if the session does not keep the conversation (any more) and a new one is begun.

        Raises:
            werkzeug.exceptions.BadRequest: There is nothing to ask.
            TypeError: An option has the wrong type or a name that is not known.
            ValueError: An option can't be sent.
        """
        if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
            raise BadRequest("there is nothing to ask")
        if conversation is None and name is not None:
            conversation = self.conversations().get(name)
            if conversation is None:  # the page may still show one that the session has lost
                options.pop("parent_message_id", None)
        stream = self.client.stream(prompt, conversation=conversation, **options)
        heartbeat = _configured(current_app).get("heartbeat", HEARTBEAT)
        if name is not None:
            try:
                _remember(name, stream.start())
            except CopilotError as error:
                log_failure(error)
                return Response(error_event(error, stream.conversation), headers=HEADERS)
        return Response(EventStream(stream, heartbeat=heartbeat), headers=HEADERS)

    def conversations(self) -> Dict[str, Conversation]:
        """Return the conversations that the session holds, by name, the one begun last at the end."""
        return {name: Conversation(id) for name, id in session.get(KEY, [])}

    def forget(self, name: str) -> None:
        """Forget a conversation, so that the next question under its name begins a new one.

        Nothing is deleted elsewhere.
        """
        kept = session.get(KEY, [])
        if name in dict(kept):
            session[KEY] = [[each, id] for each, id in kept if each != name]

    def _make_client(self, app: Flask) -> Client:
        return Client(**self._options(app))

    def _options(self, app: Flask) -> Dict[str, Any]:
        options = {name: value for name, value in _configured(app).items() if name not in _OTHERS}
        cache = options.get("token_cache") if self._token_cache is None else self._token_cache
        return {**options, "token_cache": cache}


def _configured(app: Flask) -> Dict[str, Any]:
    """What the configuration says, by the names of ``Client``'s arguments. Secrets stand in it.

    No variable here holds them before the names are checked: an error may be reported with them.
    """
    given = [name[len(_PREFIX) :] for name in app.config if name.startswith(_PREFIX)]
    names = option_names(given, _OTHERS, f"app.config, behind {_PREFIX},")
    return {names[name]: app.config[_PREFIX + name] for name in given}


def _remember(name: str, conversation: Conversation) -> None:
    # A list of pairs, because Flask writes the members of an object in the order of their names.
    kept = dict(session.get(KEY, []))
    if kept.get(name) != conversation.conversation_id:
        others = [[each, id] for each, id in kept.items() if each != name]
        session[KEY] = [*others, [name, conversation.conversation_id]]


def _commands(copilot: CopilotSync) -> AppGroup:
    group = AppGroup("copilot", help="Ask GitHub Copilot with this application's configuration.")

    @group.command("ask")
    @click.argument("prompt")
    @click.option("--model", help="The model's id.  [default: the application's]")
    @click.option("--conversation", metavar="ID", help="Go on with a conversation.  [default: a new one]")
    def ask(prompt: str, model: Optional[str], conversation: Optional[str]) -> None:
        """Ask PROMPT and print the answer as it comes."""
        try:
            with copilot.client.stream(prompt, model=model, conversation=conversation) as stream:
                write_pieces(stream, sys.stdout)
        except (CopilotError, TypeError, ValueError) as error:
            raise click.ClickException(one_line(str(error))) from error

    return group
