"""What the emulated service refuses, and the reply that says so.

The two hosts refuse in different words: ``github_error`` and ``api_error`` are their forms of an error.
``check_message`` is what the real service is known to check of a message (public captures of April and
September 2026); the first thing that is wrong is the one that is named.

Pure functions: no state of the service, no socket, no clock.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Mapping

from copilot_sync.emulator.http1 import HttpRequest, HttpResponse, json_response

_REQUIRED = {
    "content": str,
    "intent": str,
    "references": list,
    "context": list,
    "currentURL": str,
    "streaming": bool,
    "confirmations": list,
    "customInstructions": list,
    "model": str,
    "mode": str,
}
_OPTIONAL = {
    "responseMessageID": str,
    "parentMessageID": str,
    "mediaContent": list,
    "skillOptions": dict,
    "skills": list,
    "customCopilotID": str,
    "requestTrace": bool,
}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)


class RefusalError(Exception):
    """The service refuses a request.

    Attributes:
        response: the reply that says so.
    """

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status)
        self.response = response


def github_error(status: int, message: str) -> RefusalError:
    """Return a refusal in the form that github.com uses."""
    url = "https://docs.github.com/rest"
    payload = {"message": message, "documentation_url": url, "status": str(status)}
    return RefusalError(json_response(status, payload))


def api_error(status: int, message: str) -> RefusalError:
    """Return a refusal in the form that the api uses; ``status`` is 400, 404 or 422."""
    codes = {400: "bad_request", 404: "not_found", 422: "unprocessable_entity"}
    error = {"message": message, "code": codes[status]}
    return RefusalError(json_response(status, {"error": error}))


def model_not_supported(model: str) -> RefusalError:
    """Return the refusal of a model: the words and the code are a guess, and so is that they name the model."""
    error = {"message": f"The requested model is not supported: {model}", "code": "model_not_supported"}
    return RefusalError(json_response(400, {"error": error}))


def unauthorized(message: str) -> HttpResponse:
    """Return the api's reply to a bearer that isn't valid."""
    return json_response(401, {"error": {"message": message, "code": "unauthorized"}})


def read_json_object(request: HttpRequest) -> Dict[str, Any]:
    """Return the body of a request; raise ``RefusalError`` if it isn't a JSON object."""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        raise api_error(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise api_error(400, "the body is not a JSON object")
    return body


def check_message(body: Mapping[str, Any]) -> None:
    """Raise ``RefusalError`` if a field of a message is missing or has a wrong value."""
    for name, kind in _REQUIRED.items():
        if name not in body:
            raise api_error(422, f"{name} is missing")
        _check_kind(name, body[name], kind)
    for name, kind in _OPTIONAL.items():
        if body.get(name) is not None:
            _check_kind(name, body[name], kind)
    if not body["content"].strip():
        raise api_error(422, "content is empty")
    _check_intent(body)
    if not all(isinstance(text, str) for text in body["customInstructions"]):
        raise api_error(422, "customInstructions: not a list of strings")
    _check_skills(body)
    response_id = body.get("responseMessageID")
    if response_id is not None and not _UUID.match(response_id):
        raise api_error(422, "responseMessageID is not a UUID")


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise api_error(422, f"{name}: {kind.__name__} wanted, {type(value).__name__} given")


def _check_skills(body: Mapping[str, Any]) -> None:
    """Only the names of these fields and a value or two were seen, so the kinds of their values are a guess."""
    if not all(isinstance(skill, str) for skill in body.get("skills") or ()):
        raise api_error(422, "skills: not a list of strings")
    if not all(isinstance(value, bool) for value in (body.get("skillOptions") or {}).values()):
        raise api_error(422, "skillOptions: not an object of booleans")


def _check_intent(body: Mapping[str, Any]) -> None:
    if body["intent"] not in ("conversation", "explain"):
        raise api_error(422, f"intent: {body['intent']!r} is unknown")
    references = body["references"]
    if not all(isinstance(each, dict) and isinstance(each.get("type"), str) for each in references):
        raise api_error(422, "references: an object with a type wanted")
    if body["intent"] == "explain" and not references:
        raise api_error(422, "intent 'explain' wants at least one reference")
