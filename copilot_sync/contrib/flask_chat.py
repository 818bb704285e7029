"""The chat page as a Flask blueprint.

    CopilotSync(app)
    app.register_blueprint(blueprint, url_prefix="/chat")

The application needs a ``SECRET_KEY``, because the session holds the visitor's conversations. Each POST has to have the
header field ``X-CSRFToken``, which no other site can make a browser send. If Flask-WTF protects the application, its
token is the value. ``app.config`` has these settings:

``COPILOT_SYNC_CHAT_CACHE``
    Where all processes keep the answers that are under way: a ``redis.Redis``, or a cache with ``get``, ``set`` and
    ``add``, such as one of Flask-Caching or cachelib. Default: each process's memory, which does for one process.
``COPILOT_SYNC_CHAT_BACKGROUND``
    Seconds for which an answer is read on after its reader has left. Default: 0, so that it is stopped.
``COPILOT_SYNC_CHAT_STOP_ON_LEAVE``
    Whether the page ends its answer when it is left, also if the browser keeps it for the back button. Default:
    ``False``.
"""

from typing import Any, Dict, Iterable, Optional, Tuple, Union

from copilot_sync.contrib.chat import page
from copilot_sync.contrib.chat.bodies import BodyOptions, body_of
from copilot_sync.contrib.chat.kept_answers import KeptAnswers
from copilot_sync.contrib.chat.service import ChatService, kept_answers_of
from copilot_sync.contrib.flask import CopilotSync, app_settings
from copilot_sync.contrib.sse import HEADERS, log_failure
from copilot_sync.errors import CopilotError
from copilot_sync.stream import Stream

try:
    from flask import Blueprint, Response, current_app, request
    from werkzeug.exceptions import BadRequest, Forbidden
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(f'this module needs {error.name}: pip install "copilot-sync[flask]"', name=error.name) from None

__all__ = ["blueprint"]

_CSRF_HEADER = "X-CSRFToken"
#: The key of the answers in ``app.extensions``.
_KEPT = "copilot_sync_chat"

#: The chat page, for every application that was given to ``CopilotSync``.
blueprint = Blueprint("copilot_chat", __name__, static_folder=str(page.STATIC), static_url_path="/assets")


class _ChatSync(CopilotSync):
    """The extension, whose answers are those of the chat page. The application has its client."""

    def _body(self, stream: Stream, name: Optional[str]) -> Iterable[bytes]:
        return body_of(_service().reading(stream), _body_options())


_copilot = _ChatSync()


def _service() -> ChatService:
    return ChatService(_copilot.client, _copilot, _kept_answers())


def _kept_answers() -> KeptAnswers:
    made: KeptAnswers = current_app.extensions.get(_KEPT) or kept_answers_of(app_settings().get("chat_cache"))
    kept: KeptAnswers = current_app.extensions.setdefault(_KEPT, made)
    return kept


def _body_options() -> BodyOptions:
    settings = app_settings()
    return BodyOptions(settings.get("chat_background", 0.0), name_thread=settings.get("name_threads", True))


@blueprint.before_request
def _check_origin() -> None:
    if request.method == "POST" and not request.headers.get(_CSRF_HEADER):
        raise Forbidden(f"the header field {_CSRF_HEADER} is missing")


@blueprint.get("/")
def _page() -> str:
    make_token: Any = current_app.jinja_env.globals.get("csrf_token")  # that of Flask-WTF, if the application has it
    token = make_token() if make_token else "same-origin"
    language, settings = request.headers.get("Accept-Language"), app_settings()
    stop_on_leave = settings.get("chat_stop_on_leave", False)
    return page.render(language, _CSRF_HEADER, token, settings.get("model"), stop_on_leave=stop_on_leave)


@blueprint.post("/ask")
def _ask() -> Response:
    form = request.form
    response = _copilot.stream_response(
        form["prompt"],
        name=_name(form),
        model=form.get("model") or None,
        parent_message_id=form.get("parent_message_id") or None,
    )
    _service().forget_oldest()
    return response


@blueprint.post("/retry")
def _retry() -> Response:
    return _copilot.retry_response(name=_name(request.form), model=request.form.get("model") or None)


@blueprint.get("/answer")
def _answer() -> Response:
    last_event_id = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
    answer = _service().answer(_name(request.args), last_event_id)
    if answer is None:
        return Response(status=204)
    return Response(body_of(answer, _body_options()), headers=HEADERS)


@blueprint.post("/stop")
def _stop() -> Dict[str, Any]:
    return _service().stop(_name(request.form))


@blueprint.get("/conversations")
def _conversations() -> Dict[str, Any]:
    return _service().conversations()


@blueprint.get("/messages")
def _messages() -> Dict[str, Any]:
    return _service().messages(_name(request.args))


@blueprint.post("/rename")
def _rename() -> Dict[str, Any]:
    try:
        return _service().rename(_name(request.form), request.form["title"])
    except ValueError as error:
        raise BadRequest(str(error)) from None


@blueprint.post("/delete")
def _delete() -> Dict[str, Any]:
    return _service().delete(_name(request.form))


@blueprint.get("/models")
def _models() -> Dict[str, Any]:
    return _service().models()


def _name(fields: Any) -> str:
    try:
        return page.check_name(fields["name"])
    except ValueError as error:
        raise BadRequest(str(error)) from None


@blueprint.errorhandler(CopilotError)
def _failed(error: CopilotError) -> Tuple[Dict[str, Any], int]:
    log_failure(error)
    return page.error_of(error), 502


@blueprint.errorhandler(BadRequest)
@blueprint.errorhandler(Forbidden)
def _refused(error: Union[BadRequest, Forbidden]) -> Tuple[Dict[str, Any], int]:
    return page.bad_request(error.description), error.code


@blueprint.after_request
def _secured(response: Response) -> Response:
    response.headers.update(page.SECURITY_HEADERS)
    return response
