"""A chat in Flask: one page, and the addresses that its script talks to.

    python -m examples.flask_chat --emulator            for development
    gunicorn --threads 100 examples.flask_chat.app:app  in production, with SECRET_KEY set

Credentials come from the environment. The conversations of a visitor are kept in the session, by names that the page
makes up; no id of one is ever taken from the page, because all visitors share one account.
"""

import os
from contextlib import suppress
from typing import Any, Dict, Tuple

import flask
from flask_wtf.csrf import CSRFProtect, generate_csrf

from copilot_sync import CopilotError, NotFoundError
from copilot_sync.contrib.flask import CopilotSync
from copilot_sync.contrib.sse import log_failure
from examples import chat_page

app = flask.Flask(__name__, static_folder=chat_page.STATIC, template_folder=chat_page.TEMPLATES)
app.config.update(
    SECRET_KEY=chat_page.secret_key(),
    SESSION_COOKIE_SAMESITE="Lax",
    SESSION_COOKIE_SECURE=bool(os.environ.get("HTTPS_ONLY")),
    # Bytes of a question, or of an answer to draw. Django has such a limit of its own.
    MAX_CONTENT_LENGTH=2_500_000,
    # A page may stay open for days: its token is good for as long as its session.
    WTF_CSRF_TIME_LIMIT=None,
    COPILOT_SYNC_HEARTBEAT=chat_page.HEARTBEAT,
    COPILOT_SYNC_RETRY=chat_page.RETRY,
)
CSRFProtect(app)
copilot = CopilotSync(app)


@app.get("/")
def page() -> str:
    """The page."""
    return flask.render_template("chat.html", csrf_token=generate_csrf())


@app.post("/ask")
def ask() -> flask.Response:
    """Answer a question, in a conversation of that name or in a new one, while the answer is written."""
    form = flask.request.form
    if not chat_page.is_name(form["name"]):
        flask.abort(400)
    response = copilot.stream_response(
        form["prompt"], name=form["name"], parent_message_id=form["parent_message_id"] or None
    )
    for name in list(copilot.conversations())[: -chat_page.MOST_CONVERSATIONS]:
        copilot.forget(name)
    return response


@app.post("/retry")
def retry() -> flask.Response:
    """Answer the last question of a conversation again."""
    return copilot.retry_response(name=flask.request.form["name"])


@app.get("/conversations")
def names() -> Dict[str, Any]:
    """The names of this visitor's conversations."""
    return {"names": list(copilot.conversations())}


@app.get("/messages")
def messages() -> Dict[str, Any]:
    """What was said in a conversation: nothing where there is none of that name."""
    conversation = copilot.conversations().get(flask.request.args["name"])
    found = copilot.client.messages(conversation) if conversation else []
    return {"messages": chat_page.shown(found)}


@app.post("/delete")
def delete() -> Dict[str, Any]:
    """Delete a conversation, here and at the service."""
    name = flask.request.form["name"]
    conversation = copilot.conversations().get(name)
    if conversation:
        with suppress(NotFoundError):  # somebody else was faster
            copilot.client.delete_thread(conversation)
        copilot.forget(name)
    return names()


@app.post("/markdown")
def markdown() -> Dict[str, Any]:
    """Give an answer that is complete as HTML."""
    return {"html": chat_page.as_html(flask.request.form["text"])}


@app.errorhandler(CopilotError)
def failed(error: CopilotError) -> Tuple[Dict[str, Any], int]:
    """Tell the page in words for a person, and the log in full."""
    log_failure(error)
    return chat_page.told(error), 502


@app.after_request
def secured(response: flask.Response) -> flask.Response:
    """Have the browser run nothing but the script of this site."""
    response.headers.update(chat_page.SECURITY_HEADERS)
    return response
