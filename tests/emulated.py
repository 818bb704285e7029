"""Requests as a client of the emulated service makes them, over real HTTP."""

from __future__ import annotations

import http.client
import inspect
import json
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional
from urllib.parse import urlsplit

from support import MESSAGE

from copilot_sync.emulator import Emulator, Fault

#: The class methods of ``Fault``. On PyPy a class has two more, which every class inherits.
FAULTS = [name for name, _ in inspect.getmembers(Fault, inspect.ismethod) if not name.startswith("_")]

#: A reference is gone. The service has begun to answer, so it knows the conversation.
MISSING_REFERENCE = Fault.garbage(
    b'data: {"type": "error", "code": "repository_not_found", "message": "no such repository"}\n\n',
    content_type="text/event-stream",
)
NANOSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z\Z")
VERIFIED = {
    "Accept": "application/json",
    "GitHub-Verified-Fetch": "true",
    "X-Requested-With": "XMLHttpRequest",
}


class Heard(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str,
    method: str,
    path: str,
    body: object = None,
    headers: Optional[Mapping[str, str]] = None,
) -> Heard:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        data = json.dumps(body) if isinstance(body, (dict, list)) else body
        connection.request(method, path, data, dict(headers or {}))  # type: ignore[arg-type]
        reply = connection.getresponse()
        return Heard(reply.status, dict(reply.getheaders()), reply.read())
    finally:
        connection.close()


def api(emulator: Emulator, method: str, path: str, body: object = None) -> Heard:
    headers = {"Authorization": f"GitHub-Bearer {emulator.api_key}"}
    return ask(emulator.api_url, method, path, body, headers)


def fetch_token(emulator: Emulator, **changes: Optional[str]) -> Heard:
    return github(emulator, "POST", "/github-copilot/chat/token", **{**VERIFIED, **changes})


def github(emulator: Emulator, method: str, path: str, **changes: Optional[str]) -> Heard:
    """Ask github.com with valid cookies; a header that is ``None`` is left out."""
    cookie = "; ".join(f"{name}={value}" for name, value in emulator.cookies.items())
    headers = {"Cookie": f"_octo=GH1; {cookie}", **changes}
    sent = {name: value for name, value in headers.items() if value is not None}
    return ask(emulator.github_url, method, path, None, sent)


def new_thread(emulator: Emulator) -> str:
    thread_id: str = api(emulator, "POST", "/github/chat/threads").json["thread_id"]
    return thread_id


def post(emulator: Emulator, thread_id: str, **fields: object) -> Heard:
    path = f"/github/chat/threads/{thread_id}/messages"
    return api(emulator, "POST", path, {**MESSAGE, **fields})


def events_of(heard: Heard) -> List[Dict[str, Any]]:
    """The events of a stream whose lines end with a line feed."""
    return [json.loads(line[6:]) for line in heard.body.decode().split("\n\n")[:-1]]


def messages_of(emulator: Emulator, thread_id: str) -> Any:
    return api(emulator, "GET", f"/github/chat/threads/{thread_id}/messages").json["messages"]
