"""``python -m examples.flask_chat``: Flask's own server, for development."""

import argparse

from examples.development import prepare

parser = argparse.ArgumentParser(prog="python -m examples.flask_chat", description="A chat in Flask.")
parser.add_argument("--emulator", action="store_true", help="talk to an emulator in this process")
parser.add_argument("--port", type=int, default=8000, help="the port to listen at; default: 8000")
arguments = parser.parse_args()

prepare(emulated=arguments.emulator)

from examples.flask_chat.app import app  # noqa: E402 - it reads the environment

app.run(port=arguments.port)
