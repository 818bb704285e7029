"""A WSGI application with one client, which is made and warm before the server forks its workers.

In mid-flight at that moment is a stream of the master's own. What it has read when it has ended it tells as a prompt.
"""

import json
import os
import threading
from typing import Any, Callable, Dict, Iterable

import copilot_sync

client = copilot_sync.Client()
client.ask("master is warm")
stream = client.stream("master streams")
begun = next(stream)


def read_on() -> None:
    try:
        text = begun + "".join(stream)
    except copilot_sync.StreamClosedError:
        return  # under gevent, a forked worker has a copy of this very thread
    client.ask(f"master read: {text}")


reader = threading.Thread(target=read_on, daemon=True)
reader.start()


def application(environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Ask what the query says, the worker's process id in front of it."""
    prompt = f"{os.getpid()} {environ['QUERY_STRING']}"
    answer = client.ask(prompt)
    listed = client.messages(answer.conversation)
    start_response("200 OK", [("Content-Type", "application/json")])
    right = answer.text == prompt and [message.content for message in listed] == [prompt, prompt]
    return [json.dumps({"pid": os.getpid(), "right": right}).encode()]
