"""Requests to a WSGI gateway without a server: what one sends, and what comes back."""

import contextlib
import io
import json
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from support import wait_until

from copilot_sync import Client
from copilot_sync.contrib.openai_gateway import Gateway
from copilot_sync.emulator import Emulator

KEY = "sk-test"


class Response(NamedTuple):
    """What a gateway answered."""

    status: int
    headers: Dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The JSON of the body."""
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error object."""
        return self.json["error"]

    @property
    def events(self) -> List[Any]:
        """The data of the events: objects, and the marker of the end."""
        lines = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


@contextlib.contextmanager
def gateway_of(emulator: Emulator, *, retry: Any = None, **options: Any) -> Iterator[Gateway]:
    """A gateway in front of an emulator."""
    with Client(emulator.api_key, api_url=emulator.api_url, retry=retry, timeout=5) as client:
        yield Gateway(client, key=KEY, **options)


def environ_of(path: str, body: Any = None, method: Optional[str] = None, **more: Any) -> Dict[str, Any]:
    """What a server hands to the application. A body is JSON, unless it is bytes."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return {
        "REQUEST_METHOD": method or ("GET" if body is None else "POST"),
        "PATH_INFO": path,
        "HTTP_HOST": "127.0.0.1:8765",
        "HTTP_AUTHORIZATION": f"Bearer {KEY}",
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
        "wsgi.url_scheme": "http",
        **more,
    }


def open_response(gateway: Any, environ: Dict[str, Any]) -> Any:
    """Return the status, the headers and the body, which is not read yet."""
    found: List[Any] = []
    body = gateway(environ, lambda status, headers: found.extend([status, headers]))
    return int(found[0].split()[0]), dict(found[1]), body


def call(gateway: Any, path: str, body: Any = None, method: Optional[str] = None, **more: Any) -> Response:
    """Ask a gateway, and read what it answers to the end, as a server does."""
    status, headers, parts = open_response(gateway, environ_of(path, body, method, **more))
    try:
        return Response(status, headers, b"".join(parts))
    finally:
        getattr(parts, "close", bool)()


def question(text: str = "hello there", **more: Any) -> Dict[str, Any]:
    """The body of a request for a completion."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


#: What says that a body is a form of ``form``.
FORM = {"CONTENT_TYPE": "multipart/form-data; boundary=limit"}


def form(data: bytes, name: str = "in.jsonl", **fields: str) -> bytes:
    """A form with a file, and other fields in front of it. What a name has in brackets is given with ``**``."""
    parts = [(f'name="{key}"', value.encode()) for key, value in fields.items()]
    parts.append((f'name="file"; filename="{name}"', data))
    head = "--limit\r\nContent-Disposition: form-data; {}\r\n\r\n"
    return b"".join(head.format(key).encode() + value + b"\r\n" for key, value in parts) + b"--limit--\r\n"


def upload(gateway: Any, data: bytes, **fields: str) -> Response:
    """Upload a file for batches."""
    return call(gateway, "/v1/files", form(data, **{"purpose": "batch", **fields}), **FORM)


def batch_line(custom_id: str, text: str = "hi", **body: Any) -> str:
    """A line of a file for batches."""
    fields = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps({**fields, "body": question(text, **body)})


def begin_batch(gateway: Any, *lines: str, **more: Any) -> Response:
    """Upload lines, and begin a batch of them."""
    file = upload(gateway, "\n".join(lines).encode())
    body = {"input_file_id": file.json["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return call(gateway, "/v1/batches", {**body, **more})


def batch_in(gateway: Any, batch_id: str, *statuses: str) -> Dict[str, Any]:
    """Wait until a batch has one of some statuses."""
    found: List[Dict[str, Any]] = []

    def look() -> bool:
        found.append(call(gateway, f"/v1/batches/{batch_id}").json)
        return found[-1]["status"] in statuses

    wait_until(look)
    return found[-1]


def lines_of(gateway: Any, file_id: str) -> Dict[str, Any]:
    """The lines of a file of results, by the ids of their requests."""
    body = call(gateway, f"/v1/files/{file_id}/content").body
    return {line["custom_id"]: line for line in map(json.loads, body.splitlines())}


def texts_of(gateway: Any, batch: Dict[str, Any]) -> Dict[str, str]:
    """The answers of a batch, by the ids of their requests."""
    lines = lines_of(gateway, batch["output_file_id"])
    return {key: line["response"]["body"]["choices"][0]["message"]["content"] for key, line in lines.items()}
