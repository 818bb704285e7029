"""The JSON object that a request brings, read from a WSGI server.

A body without a length is read to its end if the server says where that is (``wsgi.input_terminated``); else the
server may hand out nothing, or wait for ever, so it is refused (411).
"""

import json
from typing import Any, Dict, Mapping

from copilot_sync.openai_api.failures import ApiError
from copilot_sync.safe_text import loads

#: The most that a body may have, in bytes: a transcript with files of 1 MiB each.
LIMIT = 16 * 1024 * 1024
_PIECE = 65536


def read_json(environ: Mapping[str, Any]) -> Dict[str, Any]:
    """Read the JSON object of a request.

    Raises:
        ApiError: There is none, or it is too large (413).
    """
    data = _read(environ)
    try:
        value = loads(data.decode(json.detect_encoding(data)))
    except ValueError:
        raise ApiError(400, "the body is not JSON", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return value


def _read(environ: Mapping[str, Any]) -> bytes:
    length = environ.get("CONTENT_LENGTH") or ""
    if length:
        if not (length.isascii() and length.isdigit()):
            raise ApiError(400, "the length of the body makes no sense", code="invalid_length")
        size = int(length[:20])
        _check_size(size)
        data = _pieces(environ, size)
        if len(data) < size:
            raise ApiError(400, "the body ended early", code="incomplete_body")
        return data
    if environ.get("wsgi.input_terminated"):
        data = _pieces(environ, LIMIT + 1)
        _check_size(len(data))
        return data
    raise ApiError(411, "the body needs a Content-Length", code="length_required")


def _check_size(size: int) -> None:
    if size > LIMIT:
        raise ApiError(413, f"the body is larger than {LIMIT} bytes", code="body_too_large")


def _pieces(environ: Mapping[str, Any], size: int) -> bytes:
    source, parts = environ["wsgi.input"], []
    while size:
        try:
            part = source.read(min(size, _PIECE))
        except OSError:  # the client has left
            break
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
