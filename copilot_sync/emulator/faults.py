"""What goes wrong with a request: ``Fault``, made by its class methods.

A ``Fault`` is a plain value that a test passes to the emulator; ``ReplySender`` in ``connection`` acts on it.
A wrong argument is a ``ValueError`` in the call that passes it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Literal, Mapping, Optional, Tuple, Union

from copilot_sync.emulator.http1 import Body, HttpResponse, body_bytes, json_response
from copilot_sync.emulator.refusals import unauthorized

RATE_LIMIT_HEADERS = (
    "Retry-After",
    "x-ratelimit-user-retry-after",
    "x-ratelimit-quota-exceeded-retry-after",
    "x-ratelimit-reset",
)
"""The fields that say how long to wait: in seconds, but for the last one, which has the time of the day."""

When = Union[Literal["before_headers", "in_headers"], Tuple[str, int]]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with one request; made by the class methods.

    Every fault has a ``processed``: whether the service does what was asked although the client doesn't
    learn of it. A message that is processed is stored in its thread, and answered there.
    """

    where: Optional[Literal["before_headers", "in_headers", "in_body"]] = None
    action: Optional[Literal["close", "reset", "stall"]] = None
    seconds: Optional[float] = None
    after_events: int = 0
    mid_event: bool = False
    reply: Union[HttpResponse, bytes, None] = None
    processed: bool = True
    expires_token: bool = False
    interims: Tuple[int, ...] = ()

    @classmethod
    def status(
        cls,
        code: int,
        *,
        retry_after: Union[float, str, None] = None,
        headers: Optional[Mapping[str, str]] = None,
        body: Body = None,
        message: Optional[str] = None,
        processed: bool = False,
    ) -> Fault:
        """Answer with a status.

        Args:
            code: the status.
            retry_after: seconds or an HTTP date for a ``Retry-After`` field.
            headers: further fields; a ``Content-Type`` among them replaces the usual one.
            body: text, bytes, or a value to send as JSON; by default ``{"message": ...}``.
            message: the message in that default body.
            processed: see the class.
        """
        fields = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        if retry_after is not None:
            fields["Retry-After"] = str(retry_after)
        if body is None:
            body = {"message": message or f"emulated status {code}", "status": str(code)}
        response = HttpResponse(code, body_bytes(body), tuple(fields.items()))
        return cls(reply=response, processed=processed)

    @classmethod
    def garbage(
        cls,
        body: Body = "<!DOCTYPE html><title>Not what was asked for</title>",
        content_type: str = "text/html; charset=utf-8",
        *,
        status: int = 200,
        headers: Optional[Mapping[str, str]] = None,
        processed: bool = False,
    ) -> Fault:
        """Answer with something that the protocol doesn't have here."""
        fields = {"Content-Type": content_type, **(headers or {})}
        return cls.status(status, headers=fields, body=body_bytes(body), processed=processed)

    @classmethod
    def wire(cls, data: bytes, *, processed: bool = False) -> Fault:
        """Send ``data`` in place of an HTTP reply, and close the connection."""
        return cls(reply=data, processed=processed)

    @classmethod
    def redirect(cls, location: str = "/login?return_to=%2Fcopilot", *, status: int = 302) -> Fault:
        """Answer with a redirect."""
        return cls.garbage("", status=status, headers={"Location": location})

    @classmethod
    def expired_token(cls) -> Fault:
        """Answer 401, and make the token that was sent invalid from then on."""
        fault = cls(reply=unauthorized("the token has expired"), processed=False)
        return replace(fault, expires_token=True)

    @classmethod
    def rate_limit(
        cls, seconds: Optional[float] = None, *, header: str = "Retry-After", status: Literal[429, 403] = 429
    ) -> Fault:
        """Answer that the client asks too often.

        GitHub's other sign of a secondary rate limit is ``status(403, headers={"x-ratelimit-remaining": "0"})``.

        Args:
            seconds: how long it is to wait; ``None`` sends no field that says so.
            header: the field that says so, one of ``RATE_LIMIT_HEADERS``. In ``x-ratelimit-reset`` it is the time
                at which the wait is over, in whole seconds since 1970, counted from this call.
            status: 429, or 403 for the secondary rate limit of GitHub.
        """
        if header not in RATE_LIMIT_HEADERS:
            raise ValueError(f"header is one of {', '.join(RATE_LIMIT_HEADERS)}, not {header!r}")
        if status == 403:
            body: Body = {"message": "You have exceeded a secondary rate limit.", "status": "403"}
        else:
            body = {"error": {"message": "Too many requests, slow down.", "code": "rate_limited"}}
        return cls.status(status, headers=_wait_field(header, seconds), body=body)

    @classmethod
    def out_of_quota(
        cls, code: str = "quota_exceeded", *, seconds: Optional[float] = None, status: Literal[429, 402] = 429
    ) -> Fault:
        """Answer that the account has used up what its plan includes.

        Args:
            code: the code in the body, e.g. ``"user_weekly_rate_limited"``.
            seconds: how long it is to wait, in ``x-ratelimit-quota-exceeded-retry-after``; ``None`` sends no field.
            status: 429 or 402.
        """
        body = {"error": {"message": "You have used up what your plan includes.", "code": code}}
        return cls.status(status, headers=_wait_field(RATE_LIMIT_HEADERS[2], seconds), body=body)

    @classmethod
    def interim(cls, *statuses: int, then: Optional[Fault] = None) -> Fault:
        """Send interim replies ahead of the real one, as any server or proxy may.

        An HTTP/1.0 client gets none of them.

        Args:
            *statuses: their statuses, from 100 to 199, but not 101, which no interim reply has.
            then: what goes wrong with the real reply; by default nothing.
        """
        for status in statuses:
            if status == 101 or not 100 <= status <= 199:
                raise ValueError(f"an interim status is from 100 to 199 and not 101, not {status!r}")
        return replace(then or NO_FAULT, interims=statuses)

    @classmethod
    def drop(
        cls,
        when: Literal["before_headers", "in_headers"] = "before_headers",
        *,
        reset: bool = False,
        processed: bool = True,
    ) -> Fault:
        """End the connection before the reply's headers, or in the middle of them.

        Args:
            when: ``"before_headers"`` or ``"in_headers"``.
            reset: send a RST in place of a FIN.
            processed: see the class.
        """
        # A reply that breaks off in its headers needs headers, even if nothing was done for it.
        replacement = None if processed or when == "before_headers" else json_response(200, {})
        return cls(where=_place(when)[0], action=_ending(reset), reply=replacement, processed=processed)

    @classmethod
    def cut(cls, after_events: int = 0, *, reset: bool = False, mid_event: bool = False) -> Fault:
        """End the connection in the body.

        Args:
            after_events: events of a stream to send before. If it has fewer, all of them are sent, but not
                the body's end. Any other reply is cut in the middle of its body.
            reset: send a RST in place of a FIN.
            mid_event: send half of the next event as well.
        """
        _, events = _place(("after_events", after_events))
        return cls("in_body", _ending(reset), after_events=events, mid_event=mid_event)

    @classmethod
    def stall(
        cls,
        when: When = "before_headers",
        seconds: Optional[float] = None,
        *,
        mid_event: bool = False,
        processed: bool = True,
    ) -> Fault:
        """Fall silent, then continue as if nothing had happened.

        Args:
            when: ``"before_headers"``, ``"in_headers"`` or ``("after_events", n)``.
            seconds: how long; ``None`` stalls until the emulator's ``release()``.
            mid_event: send half of the next event before.
            processed: whether the service does what was asked before the silence, or after it.
        """
        where, events = _place(when)
        return cls(where, "stall", seconds, events, mid_event, processed=processed)

    @classmethod
    def delay(cls, seconds: float) -> Fault:
        """Do what was asked, and answer, ``seconds`` late."""
        return cls.stall(seconds=seconds, processed=False)


NO_FAULT = Fault()


def _wait_field(header: str, seconds: Optional[float]) -> Mapping[str, str]:
    if seconds is None:
        return {}
    if header == "x-ratelimit-reset":
        seconds = math.ceil(time.time() + seconds)
    return {header: str(seconds)}


def _ending(reset: bool) -> Literal["close", "reset"]:
    return "reset" if reset else "close"


def _place(
    when: object,
) -> Tuple[Literal["before_headers", "in_headers", "in_body"], int]:
    if when == "before_headers":
        return "before_headers", 0
    if when == "in_headers":
        return "in_headers", 0
    if isinstance(when, tuple) and len(when) == 2 and when[0] == "after_events" and when[1] >= 0:
        return "in_body", when[1]
    raise ValueError(f"when is 'before_headers', 'in_headers' or ('after_events', n), not {when!r}")
