"""A page that streams an answer, as a WSGI server runs it: ``gunicorn benchmarks.pages_app:application``.

``BENCH_PAGES`` says in JSON what is streamed: the client, the server, and the checkout that the client's package comes
from, if it is not this one. ``/page`` asks for what the query says, ``/usage`` tells the CPU that the process has used,
and its threads.
"""

import json
import os
import resource
import sys
import threading
from typing import Any, Callable, Dict, Iterable, Iterator
from urllib.parse import unquote

from benchmarks.peers import PEERS, Client, Ours, Target
from benchmarks.plans import Plan

_told: Dict[str, Any] = json.loads(os.environ["BENCH_PAGES"])
sys.path[:0] = _told["checkout"]
_client: Any = PEERS[_told["client"]](Target(**_told["target"]))


def application(environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stream an answer, or tell what the process has used."""
    if environ["PATH_INFO"] == "/usage":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(_usage()).encode()]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return _page(Plan.of(unquote(environ["QUERY_STRING"]).encode()))


def _page(plan: Plan) -> Iterable[bytes]:
    if isinstance(_client, Ours):
        from copilot_sync.contrib.sse import EventStream

        return EventStream(_client.stream(plan, True), heartbeat=60.0)
    return _events(_client, plan)


def _events(client: Client, plan: Plan) -> Iterator[bytes]:
    for piece in client.pieces(plan, True):
        yield b"data: %b\n\n" % json.dumps({"type": "content", "text": piece}).encode()


def _usage() -> Dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu": usage.ru_utime + usage.ru_stime, "threads": threading.active_count()}
