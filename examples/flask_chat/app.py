"""A chat in Flask. The credentials of Copilot come from the environment.

python -m examples.flask_chat --emulator            for development
gunicorn --threads 100 examples.flask_chat.app:app  in production, with SECRET_KEY set
"""

import os

import flask
import redis

from copilot_sync.contrib.flask import CopilotSync
from copilot_sync.contrib.flask_chat import blueprint
from examples.development import CHAT_BACKGROUND, REDIS_URL, RETRY, secret_key

app = flask.Flask(__name__)
app.config.update(
    SECRET_KEY=secret_key(),
    SESSION_COOKIE_SAMESITE="Lax",
    SESSION_COOKIE_SECURE=bool(os.environ.get("HTTPS_ONLY")),
    COPILOT_SYNC_RETRY=RETRY,
    COPILOT_SYNC_CHAT_BACKGROUND=CHAT_BACKGROUND,
)
if REDIS_URL:  # where several processes share the answers under way
    app.config["COPILOT_SYNC_CHAT_CACHE"] = redis.Redis.from_url(REDIS_URL, socket_timeout=2.0)
CopilotSync(app)
app.register_blueprint(blueprint)
