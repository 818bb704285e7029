"""A response as WSGI has it, and those that are JSON."""

from typing import Any, Dict, Iterable, Mapping, NamedTuple

from copilot_sync.openai_api.answer_writer import json_body
from copilot_sync.openai_api.failures import ApiError

JSON: Mapping[str, str] = {"Content-Type": "application/json"}


class WsgiResponse(NamedTuple):
    """What a request is answered with.

    Attributes:
        status: The HTTP status.
        headers: The header fields.
        body: The pieces of the body. If it has ``close``, that is called in the end.
    """

    status: int
    headers: Mapping[str, str]
    body: Iterable[bytes]


def json_response(value: Dict[str, Any], headers: Mapping[str, str] = {}, status: int = 200) -> WsgiResponse:
    """Return a response whose body is a JSON object."""
    body = json_body(value)
    return WsgiResponse(status, {**JSON, **headers, "Content-Length": str(len(body))}, [body])


def unknown_url(path: str) -> ApiError:
    """The error for a path under which there is nothing."""
    hint = "" if path.startswith("/v1") else ": a base URL ends in /v1"
    return ApiError(404, f"there is nothing under this path{hint}", code="unknown_url")


def check_method(method: str, *allowed: str) -> None:
    """Refuse a method that a path does not have.

    Raises:
        ApiError: It is none of those that are allowed (405).
    """
    if method not in allowed:
        raise ApiError(
            405,
            f"{method[:20]} is not for this path",
            code="method_not_allowed",
            headers=(("Allow", ", ".join(allowed)),),
        )
