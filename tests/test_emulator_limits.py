"""How the emulated service says that a client has to wait, and what it sends ahead of a reply."""

from __future__ import annotations

import re
import socket
import time
from typing import Any, Dict, List, Mapping
from urllib.parse import urlsplit

import pytest
from emulated import Heard, api, fetch_token, github, new_thread, post
from support import PATIENCE

from copilot_sync.emulator import Emulator, Fault


def head_of(heard: Heard) -> Dict[str, str]:
    """The fields that are about limits, in small letters."""
    fields = {name.lower(): value for name, value in heard.headers.items()}
    return {name: value for name, value in fields.items() if name == "retry-after" or name.startswith("x-ratelimit")}


@pytest.mark.parametrize(
    ("fault", "status", "fields", "code"),
    [
        (Fault.rate_limit(), 429, {}, "rate_limited"),
        (Fault.rate_limit(3), 429, {"retry-after": "3"}, "rate_limited"),
        (Fault.rate_limit(0.5), 429, {"retry-after": "0.5"}, "rate_limited"),
        (
            Fault.rate_limit(465_000, header="x-ratelimit-user-retry-after"),
            429,
            {"x-ratelimit-user-retry-after": "465000"},
            "rate_limited",
        ),
        (
            Fault.rate_limit(9, header="x-ratelimit-quota-exceeded-retry-after"),
            429,
            {"x-ratelimit-quota-exceeded-retry-after": "9"},
            "rate_limited",
        ),
        (Fault.out_of_quota(), 429, {}, "quota_exceeded"),
        (
            Fault.out_of_quota("user_weekly_rate_limited", seconds=465_000),
            429,
            {"x-ratelimit-quota-exceeded-retry-after": "465000"},
            "user_weekly_rate_limited",
        ),
        (Fault.out_of_quota(status=402), 402, {}, "quota_exceeded"),
    ],
    ids=["bare", "seconds", "fraction", "user", "quota's field", "quota", "week", "402"],
)
def test_a_limit_has_its_status_its_field_and_its_code(
    emulator: Emulator, fault: Fault, status: int, fields: Mapping[str, str], code: str
) -> None:
    """A question that is refused so is not in the thread."""
    thread_id = new_thread(emulator)
    emulator.fail("message", fault)
    refused = post(emulator, thread_id)
    assert (refused.status, head_of(refused), refused.json["error"]["code"]) == (status, fields, code)
    assert emulator.threads[thread_id].messages == []
    assert post(emulator, thread_id).status == 200


def test_a_limit_may_end_at_a_time_of_the_day(emulator: Emulator) -> None:
    """In seconds since 1970, never earlier than was asked for."""
    earliest = time.time() + 30
    emulator.fail("models", Fault.rate_limit(30, header="x-ratelimit-reset"))
    (reset,) = head_of(api(emulator, "GET", "/models")).values()
    assert earliest <= int(reset) <= time.time() + 31


@pytest.mark.parametrize(("seconds", "fields"), [(None, {}), (60, {"retry-after": "60"})])
def test_a_secondary_limit_is_a_403_with_its_words(emulator: Emulator, seconds: Any, fields: Mapping[str, str]) -> None:
    """With a field that says how long, or with the words alone."""
    emulator.fail("thread", Fault.rate_limit(seconds, status=403))
    refused = api(emulator, "POST", "/github/chat/threads")
    assert (refused.status, head_of(refused)) == (403, fields)
    assert "secondary rate limit" in refused.json["message"]


def test_a_field_that_says_nothing_of_limits_is_refused() -> None:
    """In the call that names it."""
    with pytest.raises(ValueError, match="header is one of Retry-After, .*, not 'Wait'"):
        Fault.rate_limit(1, header="Wait")


def exchange(emulator: Emulator, version: str = "HTTP/1.1") -> bytes:
    """All bytes of the reply to a list of models."""
    parts = urlsplit(emulator.api_url)
    request = f"GET /models {version}\r\nConnection: close\r\nAuthorization: GitHub-Bearer {emulator.api_key}\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as client:
        client.sendall(request.encode())
        return b"".join(iter(lambda: client.recv(65_536), b""))


def statuses(data: bytes) -> List[int]:
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d+) ", data, re.MULTILINE)]


def test_interim_replies_come_ahead_of_the_real_one(emulator: Emulator) -> None:
    """Whole heads, any number of them, each with its own fields."""
    emulator.fail("models", Fault.interim(102, 103, 103, 199))
    data = exchange(emulator)
    assert statuses(data) == [102, 103, 103, 199, 200]
    assert re.match(rb"HTTP/1\.1 102 \w+\r\n\r\nHTTP/1\.1 103 [\w ]+\r\nLink: [^\r]+\r\n\r\nHTTP/1\.1 103 ", data)


def test_an_old_client_gets_no_interim_reply(emulator: Emulator) -> None:
    """HTTP/1.0 doesn't have them."""
    emulator.fail("models", Fault.interim(103))
    assert statuses(exchange(emulator, "HTTP/1.0")) == [200]


def test_interim_replies_go_with_any_other_fault(emulator: Emulator) -> None:
    """The fault is that of the real reply."""
    emulator.fail("models", Fault.interim(103, then=Fault.status(503)), Fault.interim(102, then=Fault.drop()))
    assert statuses(exchange(emulator)) == [103, 503]
    assert statuses(exchange(emulator)) == [102]


def test_interim_replies_go_with_every_stage(emulator: Emulator) -> None:
    """A client that reads past them sees nothing of them; ``http.client`` does so with 100."""
    for stage in ("token", "page", "quota", "thread", "message", "messages", "rename", "threads", "models", "delete"):
        emulator.fail(stage, Fault.interim(100, 100))
    assert fetch_token(emulator).status == 200
    assert github(emulator, "GET", "/copilot").status == 200
    assert github(emulator, "GET", "/github-copilot/chat/entitlement").status == 200
    thread_id = new_thread(emulator)
    path = f"/github/chat/threads/{thread_id}"
    assert post(emulator, thread_id).body.count(b"data: ") == 2
    assert api(emulator, "GET", f"{path}/messages").status == 200
    assert api(emulator, "PATCH", f"{path}/name", {"name": "x"}).status == 200
    assert api(emulator, "GET", "/github/chat/threads").status == 200
    assert api(emulator, "GET", "/models").status == 200
    assert api(emulator, "DELETE", path).status == 204


@pytest.mark.parametrize("status", [99, 101, 200])
def test_only_interim_statuses_are_interim(status: int) -> None:
    """101 changes the protocol, and is no reply ahead of another."""
    with pytest.raises(ValueError, match=f"an interim status is from 100 to 199 and not 101, not {status}"):
        Fault.interim(103, status)
