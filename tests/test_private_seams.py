"""The names of other libraries that nobody has promised: all of them are where the list says, in what is installed."""

import http.client
import importlib
import inspect
import io
from pathlib import Path
from typing import Any, Callable, Dict
from unittest.mock import Mock

import pytest
import requests.adapters
import urllib3

import copilot_sync.transport
from copilot_sync.transport.private_seams import SEAMS, Seam

HOME = Path(copilot_sync.transport.__file__).parent
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"


def _read_reply() -> http.client.HTTPResponse:
    reply = http.client.HTTPResponse(Mock(makefile=lambda mode: io.BytesIO(REPLY)))
    reply.begin()
    return reply


def _unread_response() -> requests.Response:
    response = requests.Response()
    response.raw = io.BytesIO()
    return response


#: How to make one of a class.
MAKE: Dict[str, Callable[[], Any]] = {
    "http.client.HTTPResponse": _read_reply,
    "http.client.HTTPConnection": lambda: http.client.HTTPConnection("localhost"),
    "urllib3.connectionpool.HTTPConnectionPool": lambda: urllib3.HTTPConnectionPool("localhost"),
    "urllib3.connection.HTTPConnection": lambda: urllib3.connection.HTTPConnection("localhost"),
    "urllib3.PoolManager": urllib3.PoolManager,
    "urllib3.HTTPResponse": lambda: urllib3.HTTPResponse(body=io.BytesIO(), preload_content=False),
    "requests.Response": _unread_response,
    "requests.adapters.HTTPAdapter": requests.adapters.HTTPAdapter,
}


def _owner(path: str) -> Any:
    """What a dotted path leads to: the longest part of it that is a module, and attributes from there on."""
    if path.endswith("()"):
        return MAKE[path[:-2]]()
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise ImportError(path)


def _close(made: Any) -> None:
    close = getattr(made, "close", None) or made.clear  # which is what a pool manager calls it
    close()


def fault_of(seam: Seam) -> str:
    """What is wrong with a seam here; nothing if it is where it was."""
    path, _, name = seam.path.rpartition(".")
    owner = _owner(path)
    is_there = hasattr(owner, name)
    if path.endswith("()"):
        _close(owner)
    if not is_there:
        return f"{seam.path} has gone; it {seam.purpose} in {seam.module}.py and was seen in {seam.seen_in}"
    if seam.parameters is not None:
        found = [each for each in inspect.signature(getattr(owner, name)).parameters if each != "self"]
        if tuple(found[: len(seam.parameters)]) != seam.parameters:
            return f"{seam.path} takes {found}, and not {seam.parameters} as in {seam.seen_in}"
    return ""


@pytest.mark.parametrize("seam", SEAMS, ids=[seam.path for seam in SEAMS])
def test_a_seam_is_where_it_was(seam: Seam) -> None:
    """Else its name, its purpose and the releases that had it are told."""
    assert fault_of(seam) == ""


@pytest.mark.parametrize("seam", SEAMS, ids=[seam.path for seam in SEAMS])
def test_a_seam_is_used_where_the_list_says(seam: Seam) -> None:
    """A list of what is not used any more would be of no use itself."""
    name = seam.path.rpartition(".")[2]
    words = {"fp": "makefile", "_tunnel": "Tunnel connection failed"}.get(name, name)
    assert words in (HOME / f"{seam.module}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("seam", "fault"),
    [
        (Seam("http.client.HTTPResponse._gone", "reply", "reads", "3.8"), "_gone has gone; it reads in reply.py"),
        (
            Seam("http.client.HTTPResponse.close", "reply", "reads", "3.8", ("more",)),
            "takes [], and not ('more',)",
        ),
    ],
)
def test_a_seam_that_moved_is_named(seam: Seam, fault: str) -> None:
    """By its path, with what it was for."""
    assert fault in fault_of(seam)


def test_a_library_that_is_not_there_is_no_seam() -> None:
    """Nothing is taken for found that can't be imported."""
    with pytest.raises(ImportError):
        _owner("there_is_no_such_library.at_all")


def test_the_file_of_a_reply_is_what_its_socket_made() -> None:
    """``http.client`` reads the head and the body from it, and from nothing else."""
    made: Any = io.BytesIO(REPLY)
    reply = http.client.HTTPResponse(Mock(makefile=lambda mode: made))
    reply.begin()
    assert reply.fp is made
    assert reply.read() == b"x"
