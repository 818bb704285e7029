"""For tests of programs that use the library, with tools that record requests and replay them.

>>> from copilot_sync.testing import vcr_config
>>> with vcr.use_cassette("answer.yaml", **vcr_config()):  # doctest: +SKIP
...     client.ask("Explain WSGI")

What a tool writes to its file must not hold an account's secrets: cookies, the token, and the reply that brings the
token. The filters here take them out, and the file can be replayed without them. To test without any record, use
``copilot_sync.emulator``.
"""

import base64
import zlib
from typing import TYPE_CHECKING, Any, Dict, List, MutableMapping, Optional, Union

import requests

from copilot_sync.client import Client
from copilot_sync.protocol.page import without_account
from copilot_sync.protocol.untrusted import decoded, without_leading
from copilot_sync.provider import close_shared_clients
from copilot_sync.safe_text import loads

if TYPE_CHECKING:
    from copilot_sync.aio.client import AsyncClient

__all__ = ["filter_betamax_cassette", "forget_tokens", "session_of", "vcr_config"]

#: Headers of requests and of replies that hold secrets.
_SECRET_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization", "Set-Cookie")
#: Headers that no longer hold when a body is replaced.
_BODY_HEADERS = ("Content-Encoding", "Content-Length", "Transfer-Encoding")
#: The reply with a token as it is recorded. Without an ``expiration``, a client uses the token for as long as usual.
_TOKEN_REPLY = b'{"token": "recorded"}'

_Headers = MutableMapping[str, List[str]]


def vcr_config() -> Dict[str, Any]:
    """Return options for ``vcr.use_cassette`` that keep secrets out of the cassette.

    It takes the headers ``Cookie``, ``Set-Cookie``, ``Authorization`` and ``Proxy-Authorization`` out, and puts a reply
    with the token ``recorded`` in the place of the one with the account's. With pytest-recording, return it from the
    fixture ``vcr_config``.
    """
    return {"filter_headers": list(_SECRET_HEADERS), "before_record_response": _filter_vcr_response}


def _filter_vcr_response(response: Dict[str, Any]) -> Dict[str, Any]:
    _remove(response["headers"], *_SECRET_HEADERS)
    body = _replacement(response["headers"], response["body"]["string"])
    if body is not None:
        response["body"]["string"] = body
    return response


def filter_betamax_cassette(cassette: Any) -> None:
    """Take the same out of a cassette of betamax as ``vcr_config`` does of one of vcrpy, before it is written.

    >>> with betamax.Betamax.configure() as config:  # doctest: +SKIP
    ...     config.before_stop(callback=filter_betamax_cassette)
    """
    for interaction in cassette.interactions:
        request, response = interaction.data["request"], interaction.data["response"]
        for headers in (request["headers"], response["headers"]):
            _remove(headers, *_SECRET_HEADERS)
        recorded = response["body"]
        packed = recorded.get("base64_string")
        content = recorded["string"].encode("utf-8") if packed is None else base64.b64decode(packed)
        body = _replacement(response["headers"], content)
        if body is not None:
            response["body"] = {"encoding": "utf-8", "string": body.decode("utf-8")}


def _remove(headers: _Headers, *names: str) -> None:
    """Remove headers, however their names are written."""
    unwanted = {name.lower() for name in names}
    for name in [name for name in headers if name.lower() in unwanted]:
        del headers[name]


def _replacement(headers: _Headers, body: bytes) -> Optional[bytes]:
    """Return what is recorded in the place of a reply's body; ``None`` if that stays as it is."""
    replacement = _safe_reply(_unpacked(body))
    if replacement is not None:
        _remove(headers, *_BODY_HEADERS)
    return replacement


def _unpacked(body: bytes) -> bytes:
    """Return a body as it was before it was packed, if it is. Its header may say so of one that a tool has unpacked."""
    try:
        return zlib.decompress(body, 32 + zlib.MAX_WBITS)
    except zlib.error:
        return body


def _safe_reply(body: bytes) -> Optional[bytes]:
    """Return a reply without its secrets; ``None`` if there are none in it."""
    start = without_leading(body)[:1]
    if start == b"<":
        return without_account(body)
    try:
        data = loads(decoded(body)) if start == b"{" else None
    except ValueError:
        return None
    return _TOKEN_REPLY if isinstance(data, dict) and data.get("token") else None


def forget_tokens(*clients: "Union[Client, AsyncClient]") -> None:
    """Make clients that several tests share ask for a token again, so that each record begins with that request.

    Otherwise a test that is recorded after another one has no token in its cassette, and can't be replayed alone.

    Args:
        clients: Those that forget their tokens. The clients behind ``GithubCopilot`` are closed, whichever these are.
    """
    close_shared_clients()
    for client in clients:
        _blocking(client)._session.forget_token()


def session_of(client: "Union[Client, AsyncClient]") -> requests.Session:
    """Return the session of ``requests`` that a client sends with, for tools that want one, such as betamax.

    It is for tests alone, and it is another one after a fork, or after ``close()``.
    """
    return _blocking(client)._session.transport._opened()


def _blocking(client: Any) -> Client:
    blocking: Client = getattr(client, "_client", client)
    return blocking
