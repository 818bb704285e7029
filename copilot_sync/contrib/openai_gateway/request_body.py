"""The body that a request brings, read from a WSGI server: a JSON object, or pieces of something else.

A body without a length is read to its end if the server says where that is (``wsgi.input_terminated``); else the
server may hand out nothing, or wait for ever, so it is refused (411).
"""

import json
import math
from typing import Any, Dict, Iterator, Mapping

from copilot_sync.openai_api.failures import ApiError
from copilot_sync.safe_text import loads

#: The most that a body may have, in bytes: a transcript with files of 1 MiB each.
LIMIT = 16 * 1024 * 1024
_PIECE = 65536


def _finite(text: str) -> float:
    """Read a number. JSON has neither NaN nor infinities, so what is repeated to the client must have none."""
    value = float(text)
    if not math.isfinite(value):
        raise ApiError(400, "the body has a number that is not finite", code="invalid_json")
    return value


_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode


def read_json(environ: Mapping[str, Any]) -> Dict[str, Any]:
    """Read the JSON object of a request.

    Raises:
        ApiError: There is none, a number in it is not finite (400), or it is too large (413).
    """
    data = b"".join(pieces_of(environ))
    try:
        value = loads(data.decode(json.detect_encoding(data)), _decode)
    except ValueError:
        raise ApiError(400, "the body is not JSON", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return value


def pieces_of(environ: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the body of a request piece by piece.

    Raises:
        ApiError: It has no length, is too large (413), or ends early.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    if length:
        if not (length.isascii() and length.isdigit()):
            raise ApiError(400, "the length of the body makes no sense", code="invalid_length")
        left = int(length[:20])
        _check_size(left)
        for piece in _pieces(environ, left):
            left -= len(piece)
            yield piece
        if left:
            raise ApiError(400, "the body ended early", code="incomplete_body")
    elif environ.get("wsgi.input_terminated"):
        size = 0
        for piece in _pieces(environ, LIMIT + 1):
            size += len(piece)
            _check_size(size)
            yield piece
    else:
        raise ApiError(411, "the body needs a Content-Length", code="length_required")


def _check_size(size: int) -> None:
    if size > LIMIT:
        raise ApiError(413, f"the body is larger than {LIMIT} bytes", code="body_too_large")


def _pieces(environ: Mapping[str, Any], size: int) -> Iterator[bytes]:
    source = environ["wsgi.input"]
    while size:
        try:
            piece = source.read(min(size, _PIECE))
        except OSError:  # the client has left
            return
        if not piece:
            return
        size -= len(piece)
        yield piece
