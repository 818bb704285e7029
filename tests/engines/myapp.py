"""A Flask application with a chat, as the deployment page has one in mind. Credentials come from the environment."""

import flask

from copilot_sync.contrib.flask import CopilotSync

app = flask.Flask(__name__)
app.config.update(SECRET_KEY="a key for signing", COPILOT_SYNC_HEARTBEAT=1.0)
copilot = CopilotSync(app)


@app.get("/chat")
def chat() -> flask.Response:
    """Answer what the query asks."""
    return copilot.stream_response(flask.request.args.get("prompt"), name=flask.request.args.get("name"))
