"""Which request is for what: the methods and paths of the hosts, each with the name of its stage.

A pure table and its lookup. Tests use the names of the stages when they script a fault. The paths are those
of public captures of April and September 2026. The hosts of all plans have the same paths.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Tuple
from urllib.parse import unquote

from copilot_sync.emulator.state import Host


class _Endpoint(NamedTuple):
    stage: str
    host: Host
    method: str
    template: Tuple[str, ...]


_THREADS = ("github", "chat", "threads")
_ID = "{id}"
_ENDPOINTS = (
    _Endpoint("token", "github", "POST", ("github-copilot", "chat", "token")),
    _Endpoint("login", "github", "GET", ("login",)),
    _Endpoint("page", "github", "GET", ("copilot",)),
    _Endpoint("quota", "github", "GET", ("github-copilot", "chat", "entitlement")),
    _Endpoint("thread", "api", "POST", _THREADS),
    _Endpoint("threads", "api", "GET", _THREADS),
    _Endpoint("message", "api", "POST", (*_THREADS, _ID, "messages")),
    _Endpoint("messages", "api", "GET", (*_THREADS, _ID, "messages")),
    _Endpoint("rename", "api", "PATCH", (*_THREADS, _ID, "name")),
    _Endpoint("delete", "api", "DELETE", (*_THREADS, _ID)),
    _Endpoint("models", "api", "GET", ("models",)),
    _Endpoint("models", "api", "GET", ("github", "chat", "models")),
)
STAGES = (*dict.fromkeys(endpoint.stage for endpoint in _ENDPOINTS), "unknown")
"""The names of what a request can ask for; ``"unknown"`` is everything that the protocol doesn't have."""


class RouteMatch(NamedTuple):
    """What a method and a path ask for.

    Attributes:
        stage: one of ``STAGES``.
        thread_id: the thread that the path names, or ``None``.
        methods: the methods that the path has; empty if the host has no such path.
    """

    stage: str
    thread_id: Optional[str]
    methods: Tuple[str, ...]


def match_route(host: Host, method: str, path: str) -> RouteMatch:
    """Return what a request is for. Its stage is ``"unknown"`` if the host has no such method and path."""
    parts = tuple(unquote(part) for part in path.split("/")[1:])
    kind = "github" if host == "github" else "api"
    matching = [each for each in _ENDPOINTS if each.host == kind and _matches(each.template, parts)]
    methods = tuple(each.method for each in matching)
    stage = matching[methods.index(method)].stage if method in methods else "unknown"
    thread_id = parts[3] if len(parts) > 3 and parts[:3] == _THREADS else None
    return RouteMatch(stage, thread_id, methods)


def _matches(template: Sequence[str], parts: Sequence[str]) -> bool:
    if len(template) != len(parts):
        return False
    pairs = zip(template, parts)
    return all(part != "" if want == _ID else part == want for want, part in pairs)
