"""What github.com has for an account: the token, the plan and quota, and the page of the chat.

``AccountPages`` answers the calls that are made with cookies, and knows which bearers are valid. It has no sockets
and never waits.

Rule: the cookies are checked alike for all of these calls, and invalid ones lead to the login.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Callable, Dict, Mapping, Optional
from urllib.parse import quote

from copilot_sync.emulator.http1 import HttpResponse, json_response
from copilot_sync.emulator.refusals import RefusalError, github_error
from copilot_sync.emulator.state import EmulatorOptions, Host, RecordedRequest
from copilot_sync.emulator.timestamps import timestamp

API_VERSION = "2025-05-01"
"""The version of the API, as the page names it and the web client sends it."""

#: Tokens that are valid at the same time; the oldest of more are forgotten.
_MAX_TOKENS = 100_000
_LOGIN_PAGE = "<!DOCTYPE html><html><title>Sign in to GitHub</title><h1>Sign in to GitHub</h1></html>"
_CHAT_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>GitHub Copilot</title></head><body>
<script type="application/json" data-target="react-app.embeddedData">%s</script>
</body></html>
"""
_NO_ACCESS_PAGE = "<!DOCTYPE html><html><title>GitHub Copilot</title><h1>Start using GitHub Copilot</h1></html>"
_NO_ACCESS = {"token": None, "error_details": {"message": "No access to GitHub Copilot found"}}
_PREMIUM_INTERACTIONS = {"free": 50, "pro": 300, "business": 300}


def home_of(plan: str) -> Host:
    """Return the host that a plan's accounts have to use."""
    return "plan_api" if plan == "business" else "api"


class AccountPages:
    """The account of one emulated Copilot; hold the emulator's lock when you call it.

    Args:
        options: how it behaves.
        cookies: the cookies that are valid.
        api_key: a bearer that is always valid.
        url_of: returns the URL of a host.
    """

    def __init__(
        self, options: EmulatorOptions, cookies: Dict[str, str], api_key: str, url_of: Callable[[Host], str]
    ) -> None:
        self.options = options
        self.cookies = cookies
        self.api_key = api_key
        self.tokens_issued = 0
        self._url_of = url_of
        self._tokens: Dict[str, float] = {}

    def issue_token(self, request: RecordedRequest) -> HttpResponse:
        """Exchange the cookies for a token; for an account without Copilot, return the reason in its place."""
        self._check_cookies(request)
        if "application/json" not in request.headers.get("accept", ""):
            raise github_error(422, "Accept: application/json is missing")
        if request.headers.get("github-verified-fetch") != "true":
            raise github_error(422, "GitHub-Verified-Fetch: true is missing")
        if request.headers.get("x-requested-with") != "XMLHttpRequest":
            raise github_error(422, "X-Requested-With: XMLHttpRequest is missing")
        if self.options.plan == "none":
            return json_response(200, _NO_ACCESS)
        token = f"emulated-{uuid.uuid4().hex}"
        lifetime = self.options.token_lifetime
        self._forget_tokens()
        self._tokens[token] = time.monotonic() + lifetime
        self.tokens_issued += 1
        reply = {"token": token, "expiration": timestamp(lifetime, self.options.expiration)}
        return json_response(200, {name: value for name, value in reply.items() if value})

    def show_login(self, request: RecordedRequest) -> HttpResponse:
        """Return the login page."""
        return _page(_LOGIN_PAGE)

    def show_chat(self, request: RecordedRequest) -> HttpResponse:
        """Return the chat's page. The JSON in it names the host of the account's plan, unless there is no plan."""
        self._check_cookies(request)
        if self.options.plan == "none":
            return _page(_NO_ACCESS_PAGE)
        data = {"payload": {"apiURL": self._url_of(home_of(self.options.plan)), "apiVersion": API_VERSION}}
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        return _page(_CHAT_PAGE % text)

    def show_quota(self, request: RecordedRequest) -> HttpResponse:
        """Return the account's plan and quota; 404 for an account without Copilot."""
        self._check_cookies(request)
        plan = self.options.plan
        if plan == "none":
            raise github_error(404, "Not Found")
        license_type = "licensed_limited" if plan == "free" else "licensed_full"
        quotas = {**_default_quotas(plan), **self.options.quota}
        return json_response(200, {"licenseType": license_type, "plan": plan, "quotas": quotas})

    def is_valid(self, bearer: str) -> bool:
        """Return whether a bearer is a token that hasn't expired, or a key that never does."""
        if bearer == self.api_key or bearer in self.options.accept_api_keys:
            return True
        return self._tokens.get(bearer, 0.0) > time.monotonic()

    def expire_tokens(self) -> None:
        """Make all tokens issued so far invalid."""
        self._tokens.clear()

    def revoke(self, token: Optional[str]) -> None:
        """Make one token invalid; ``api_key`` and the keys of the options stay valid."""
        self._tokens.pop(token or "", None)

    def _check_cookies(self, request: RecordedRequest) -> None:
        sent, valid = request.cookies, dict(self.cookies)  # a test may change them meanwhile
        if not valid or any(sent.get(name) != value for name, value in valid.items()):
            raise RefusalError(self._login_response(request.path))

    def _forget_tokens(self) -> None:
        if len(self._tokens) < _MAX_TOKENS:
            return
        now = time.monotonic()
        valid = [(token, end) for token, end in self._tokens.items() if end > now]
        self._tokens = dict(valid[-_MAX_TOKENS // 2 :])

    def _login_response(self, path: str) -> HttpResponse:
        behavior = self.options.bad_cookies
        if behavior == "html":
            return _page(_LOGIN_PAGE)
        if behavior == "unauthorized":
            return github_error(401, "Requires authentication").response
        location = f"/login?return_to={quote(path, safe='')}"
        return HttpResponse(302, b"", (("Location", location), ("Content-Type", "text/html")))


def _page(text: str) -> HttpResponse:
    return HttpResponse(200, text.encode("utf-8"), (("Content-Type", "text/html; charset=utf-8"),))


def _default_quotas(plan: str) -> Mapping[str, Any]:
    allowed = _PREMIUM_INTERACTIONS[plan]
    full = 100.0
    return {
        "limits": {"premiumInteractions": allowed},
        "remaining": {
            "premiumInteractions": allowed,
            "chatPercentage": full,
            "premiumInteractionsPercentage": full,
        },
        "resetDate": _next_month(),
        "overagesEnabled": False,
    }


def _next_month() -> str:
    now = time.gmtime()
    year, month = (now.tm_year + 1, 1) if now.tm_mon == 12 else (now.tm_year, now.tm_mon + 1)
    return f"{year:04d}-{month:02d}-01"
