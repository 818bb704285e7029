"""A chat in Flask. The credentials of Copilot come from the environment.

python -m examples.flask_chat --emulator            for development
gunicorn --threads 100 examples.flask_chat.app:app  in production, with SECRET_KEY set
"""

import os

import flask

from copilot_sync.contrib.flask import CopilotSync
from copilot_sync.contrib.flask_chat import blueprint
from examples.development import RETRY, secret_key

app = flask.Flask(__name__)
app.config.update(
    SECRET_KEY=secret_key(),
    SESSION_COOKIE_SAMESITE="Lax",
    SESSION_COOKIE_SECURE=bool(os.environ.get("HTTPS_ONLY")),
    COPILOT_SYNC_RETRY=RETRY,
)
CopilotSync(app)
app.register_blueprint(blueprint)
