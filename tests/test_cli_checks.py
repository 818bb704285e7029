"""What ``doctor`` finds: each check by itself."""

import os
import socket
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
from support import Server, answering, authority_file, server_context

from copilot_sync.auth.cookies import FoundCookies
from copilot_sync.cli import checks
from copilot_sync.cli.checks import CHECK_TIMEOUT, Check, State
from copilot_sync.client import Client
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.errors import MissingCredentialsError
from copilot_sync.settings import Environment

OK, FAIL, SKIPPED = State.OK, State.FAIL, State.SKIPPED
SECRET = "s3cr3t-value"


def environment(**variables: str) -> Environment:
    return Environment.read({f"COPILOT_SYNC_{name}": value for name, value in variables.items()})


@pytest.mark.parametrize(
    "version, state",
    [((3, 8, 0), OK), ((3, 13, 1), OK), ((4, 0, 0), OK), ((3, 7, 17), FAIL), ((2, 7, 18), FAIL)],
)
def test_an_old_python_is_told(version: Tuple[int, ...], state: State) -> None:
    """With the one that it takes."""
    finding = checks.check_python(version, "CPython")
    assert (finding.state, finding.detail) == (state, "CPython " + ".".join(map(str, version)))
    assert ("3.8" in finding.advice) is (state is FAIL)


@pytest.mark.parametrize(
    "has_gil, words",
    [(None, ""), (False, ", free-threaded, with the GIL off"), (True, ", free-threaded, with the GIL on")],
)
def test_a_free_threaded_build_is_told(has_gil: Optional[bool], words: str) -> None:
    """With whether a module has turned the GIL on: nothing else shows that."""
    assert checks.check_python((3, 15, 1), "CPython", has_gil).detail == f"CPython 3.15.1{words}"


@pytest.mark.parametrize(
    "version, lowest, state",
    [
        ("2.32.4", "2.32.4", OK),
        ("2.33", "2.32.4", OK),
        ("10.0", "9.9", OK),
        ("3.0.0rc1", "2.32.4", OK),
        ("anything", "", OK),
        ("2.32.3", "2.32.4", FAIL),
        (None, "2.32.4", FAIL),
        (None, "", FAIL),
    ],
)
def test_a_library_that_is_missing_or_too_old_is_told(version: Optional[str], lowest: str, state: State) -> None:
    """With the command that installs a better one."""
    finding = checks.check_library("requests", version, lowest)
    assert (finding.name, finding.state) == ("requests", state)
    wanted = f"requests>={lowest}" if lowest else "requests"
    assert finding.advice == (f'pip install --upgrade "{wanted}"' if state is FAIL else "")


@pytest.mark.parametrize("version, state", [("1.26.20", OK), ("2.8.0", OK), ("1.25.11", FAIL), (None, FAIL)])
def test_urllib3_may_be_old_but_not_too_old(version: Optional[str], state: State) -> None:
    """1.26 will do; the TLS library that it uses is named."""
    finding = checks.check_urllib3(version)
    assert finding.state is state
    assert ("SSL" in finding.detail) is (state is OK)
    assert ("urllib3>=1.26" in finding.advice) is (state is FAIL)


def test_the_lower_bounds_are_those_that_the_package_declares() -> None:
    """As its metadata has them, extras included; the first bound of a name counts."""
    requirements = [
        "requests>=2.32.4",
        "tenacity!=8.4.0,>=8.2.0",
        'click>=8.1.0; extra == "cli"',
        'pytest; python_version >= "3.9"',
        'requests[socks]>=2.40; extra == "socks"',
        "???",
    ]
    assert checks.lowest_versions(requirements) == {"requests": "2.32.4", "tenacity": "8.2.0", "click": "8.1.0"}


def test_the_urls_are_shown_or_what_is_wrong_with_them() -> None:
    """With the variables to correct."""
    finding, urls = checks.check_settings(environment(API_URL="https://api.example/", MODEL="o9"))
    assert finding == Check("settings", OK, "https://github.com and https://api.example, model o9")
    assert urls is not None
    finding, urls = checks.check_settings(environment(GITHUB_URL="ftp://x"))
    assert (finding.state, urls) == (FAIL, None)
    assert "github_url" in finding.detail
    assert "COPILOT_SYNC_GITHUB_URL" in finding.advice


@pytest.mark.parametrize(
    "proxy, has_socks, state, words",
    [
        (None, False, OK, "none"),
        ("http://proxy.example:3128", False, OK, "http://proxy.example:3128"),
        ("proxy.example", False, OK, "http://proxy.example"),
        (f"http://me:{SECRET}@proxy.example:3128", False, OK, "http://***@proxy.example:3128"),
        ("socks5h://proxy.example:1080", True, OK, "socks5h://proxy.example:1080"),
        ("socks5h://proxy.example:1080", False, FAIL, "socks5h://proxy.example:1080 needs an extra"),
        ("http://", False, FAIL, "is set to what is no URL"),
        ("http://proxy.example:port", False, FAIL, "is set to what is no URL"),
    ],
)
def test_the_proxy_is_shown_without_its_password(
    proxy: Optional[str], has_socks: bool, state: State, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the environment has it for that host; one that can't be used is told."""
    if proxy is not None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    finding = checks.check_proxy("https://github.com", has_socks)
    assert (finding.name, finding.state, finding.detail) == ("proxy for github.com", state, words)
    assert bool(finding.advice) is (state is FAIL)
    monkeypatch.setenv("NO_PROXY", "github.com")
    assert checks.check_proxy("https://github.com", has_socks).detail == "none"


@pytest.mark.parametrize(
    "content, state, words",
    [
        ("authority", OK, "{path} (REQUESTS_CA_BUNDLE)"),
        (None, FAIL, "{path} (REQUESTS_CA_BUNDLE) is not there"),
        ("text", FAIL, "{path} (REQUESTS_CA_BUNDLE) can't be read, or holds no certificates"),
        ("folder", OK, "{path} (REQUESTS_CA_BUNDLE)"),
    ],
)
def test_the_certificates_are_tried(content: Optional[str], state: State, words: str, tmp_path: Path) -> None:
    """A company's bundle that is missing or holds none is told, with the variable."""
    path = tmp_path / "bundle.pem"
    if content == "authority":
        path = Path(authority_file(tmp_path))
    elif content == "folder":
        path.mkdir()
    elif content:
        path.write_text(content)
    finding = checks.check_certificates({"REQUESTS_CA_BUNDLE": str(path), "CURL_CA_BUNDLE": "/missing"})
    assert finding.state is state
    assert finding.detail == words.format(path=path)
    assert ("REQUESTS_CA_BUNDLE" in finding.advice) is (state is FAIL)


def test_the_usual_certificates_will_do() -> None:
    """Those that requests brings along; the second variable counts where the first is not set."""
    assert checks.check_certificates({}).state is OK
    assert "CURL_CA_BUNDLE" in checks.check_certificates({"CURL_CA_BUNDLE": "/missing"}).advice


@pytest.mark.parametrize(
    "content, state, words",
    [
        (None, OK, "none"),
        (f"machine example.org login me password {SECRET}\n", OK, "no entry for our hosts"),
        (f"machine github.com login me password {SECRET}\n", OK, "an entry for github.com; it would interfere"),
        (f"default login me password {SECRET}\n", OK, "an entry for github.com and api.example"),
        (f"machine github.com {SECRET}\n", SKIPPED, "can't be read"),
        ("\udcff", SKIPPED, "can't be read"),
    ],
    ids=["none", "other", "ours", "default", "malformed", "bytes"],
)
def test_a_netrc_that_would_interfere_is_told(content: Optional[str], state: State, words: str, tmp_path: Path) -> None:
    """It does not here, so nothing is wrong; no word of what it holds is shown."""
    path = tmp_path / ".netrc"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        path.chmod(0o600)
    finding = checks.check_netrc(str(path) if content else None, ["github.com", "api.example"])
    assert finding.state is state
    assert words in finding.detail
    assert SECRET not in repr(finding)


def found(cookies: Dict[str, str]) -> FoundCookies:
    return FoundCookies("a place", cookies)


def missing() -> FoundCookies:
    raise MissingCredentialsError("there are none: set one", stage="credentials")


@pytest.mark.parametrize(
    "variables, find, state, words",
    [
        ({"API_KEY": SECRET}, missing, OK, "a token from COPILOT_SYNC_API_KEY"),
        ({"API_KEY": f"{SECRET}é"}, missing, FAIL, "COPILOT_SYNC_API_KEY holds characters"),
        ({"API_KEY": SECRET, "API_URL": "auto"}, missing, FAIL, 'api_url="auto" needs cookies'),
        (
            {"API_KEY": f'{{"value": "{SECRET}", "expiration": "2999-06-27T13:15:06.000Z"}}'},
            missing,
            OK,
            "a token from COPILOT_SYNC_API_KEY, which expires on 2999-06-27 13:15 UTC",
        ),
        (
            {"API_KEY": f'{{"value": "{SECRET}", "expiration": "2026-06-27T13:15:06.000Z"}}'},
            missing,
            FAIL,
            "COPILOT_SYNC_API_KEY expired on 2026-06-27 13:15 UTC: copy a new one",
        ),
        ({}, lambda: found({"user_session": SECRET, "a": SECRET}), OK, "2 cookies from a place"),
        ({}, lambda: found({"a": SECRET}), FAIL, "1 cookie from a place, but no user_session"),
        ({}, missing, FAIL, "there are none: set one"),
    ],
    ids=["key", "bad key", "key alone", "key with an end", "key that expired", "cookies", "no session", "none"],
)
def test_where_credentials_come_from_is_told_and_never_what_they_are(
    variables: Dict[str, str], find: Any, state: State, words: str
) -> None:
    """The variable, the file or the browser."""
    finding = checks.check_credentials(environment(**variables), find)
    assert (finding.name, finding.state) == ("credentials", state)
    assert words in finding.detail
    assert SECRET not in repr(finding)


def test_where_tokens_are_kept_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or that none is, by wish or because the place takes no files. That costs time and is nothing wrong."""
    usual = str(tmp_path / "new" / "folders" / "tokens.json")
    assert checks.check_token_cache(environment(), usual) == Check("token cache", OK, usual)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_bytes(b"")
    for place in (str(tmp_path / "file" / "tokens.json"), "/proc/tokens.json"):
        monkeypatch.setattr(os, "access", lambda path, how: path != "/proc")
        finding = checks.check_token_cache(environment(TOKEN_CACHE=place), None)
        assert (finding.state, finding.detail) == (SKIPPED, f"{place} can't be written: each command fetches a token")
    finding = checks.check_token_cache(environment(TOKEN_CACHE="off"), None)
    assert (finding.state, finding.detail[:3]) == (SKIPPED, "off")


def test_a_host_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not found may mean that there is no network. Behind a proxy, the proxy does it."""
    assert checks.check_dns("http://127.0.0.1:1") == Check("DNS of 127.0.0.1", OK, "127.0.0.1")
    assert checks.check_dns(f"https://{'a' * 64}.example").detail.startswith("not found (no valid name)")

    def offline(*arguments: Any, **options: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    finding = checks.check_dns("https://github.com")
    assert (finding.state, finding.detail) == (
        FAIL,
        "not found (Name or service not known); there may be no network",
    )
    assert "HTTPS_PROXY" in finding.advice
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    assert checks.check_dns("https://github.com").state is SKIPPED


def test_tls_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate whose CA is unknown is wrong, with the way to make it known; without TLS that is said."""
    reply = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n"
    with Server(answering(reply), tls=True) as server:
        finding = checks.check_tls(server.url)
        assert finding.state is FAIL
        assert "certificate is not trusted" in finding.detail
        assert "REQUESTS_CA_BUNDLE" in finding.advice
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority_file(tmp_path))
        name = f"TLS to 127.0.0.1:{server.port}"
        assert checks.check_tls(server.url) == Check(name, OK, "connected, the certificate is trusted")
    assert b"HEAD / HTTP/1.1" in server.received[0]
    assert checks.check_tls(server.url).detail.startswith("nothing listens there")
    assert checks.check_tls("http://127.0.0.1:1").state is SKIPPED


def account(emulator: Emulator, variables: Optional[Dict[str, str]] = None, **options: Any) -> List[Check]:
    urls = {"github_url": emulator.github_url, "api_url": emulator.api_url}
    with Client(**{"cookies": emulator.cookies, "timeout": CHECK_TIMEOUT, "retry": None, **urls, **options}) as client:
        return checks.check_account(client, environment(**(variables or {})))


def test_the_account_is_tried(copilot_emulator: Emulator) -> None:
    """A token is fetched, and the models are listed."""
    copilot_emulator.options.models = ["gpt-4o", "gpt-5-mini"]
    token, models, _ = account(copilot_emulator)
    assert token == Check("token", OK, "received")
    assert models == Check("models", OK, "2 available")


HIDDEN = {"id": "gpt-4o", "model_picker_enabled": False}
EMBEDS = {"id": "gpt-4o", "capabilities": {"type": "embeddings"}}


@pytest.mark.parametrize(
    "listed, model, state, detail",
    [
        (["o9", "gpt-4o"], "gpt-4o", OK, "2 available"),
        (["o9"], "auto", OK, "1 available"),
        (["o9"], None, OK, "1 available"),
        ([], "auto", OK, "none but auto available"),
        ([HIDDEN], "o9", FAIL, "none but auto available, but o9 is not among them"),
        (["o9"], "gpt-4o", FAIL, "1 available, but gpt-4o is not among them"),
        (["o9"], "O9", FAIL, "1 available, but O9 is not among them"),
        (["o9", HIDDEN], "gpt-4o", SKIPPED, "1 available; gpt-4o is not enabled, and may be refused"),
        (["o9", EMBEDS], "gpt-4o", FAIL, "1 available, but gpt-4o is for embeddings"),
    ],
)
def test_a_model_that_does_not_exist_is_a_cross(
    copilot_emulator: Emulator, listed: Any, model: Optional[str], state: State, detail: str
) -> None:
    """The one of the variable, or the default; ``auto`` is always fine."""
    copilot_emulator.options.models = listed
    variables = {} if model is None else {"MODEL": model}
    found = account(copilot_emulator, variables)[1]
    assert (found.state, found.detail) == (state, detail)
    assert ("COPILOT_SYNC_MODEL=auto" in found.advice) is (state is FAIL)


def test_cookies_that_are_refused_are_told(copilot_emulator: Emulator) -> None:
    """With what to do; models and quota are not asked for."""
    token, models, quota = account(copilot_emulator, cookies={"user_session": SECRET})
    assert (token.state, models.state, quota.state) == (FAIL, SKIPPED, SKIPPED)
    assert "sign in" in token.advice
    assert SECRET not in repr(token)


def test_a_service_that_fails_is_told(copilot_emulator: Emulator) -> None:
    """The token is there, but nothing can be done with it."""
    copilot_emulator.fail("models", Fault.status(500, message="oops"))
    token, models, _ = account(copilot_emulator)
    assert (token.state, models.state) == (OK, FAIL)
    assert "oops" in models.detail


def test_a_host_of_another_plan_is_told(copilot_emulator: Emulator) -> None:
    """With what to set, if the page of the account could be asked. The quota is not of that host."""
    copilot_emulator.options.plan = "business"
    token, host, models, quota = account(copilot_emulator)
    assert (token.state, host.name, host.state, models.state) == (OK, "API host", FAIL, SKIPPED)
    assert (quota.state, quota.detail[:13]) == (OK, "plan business")
    assert host.advice == f"export COPILOT_SYNC_API_URL={copilot_emulator.plan_api_url}"
    _, host, *_ = account(copilot_emulator, api_key=copilot_emulator.api_key, cookies=None)
    assert (host.state, host.advice) == (FAIL, "")
    assert "https://api.business.githubcopilot.com" in host.detail


def test_the_host_that_the_page_names_is_told(copilot_emulator: Emulator) -> None:
    """It is good, or it refuses the token all the same, or there is none."""
    automatic = environment(API_URL="auto")
    copilot_emulator.options.plan = "business"
    with Client(cookies=copilot_emulator.cookies, github_url=copilot_emulator.github_url, api_url="auto") as client:
        copilot_emulator.fail("page", Fault.garbage("<html>"))
        _, host, *_ = checks.check_account(client, automatic)
        assert (host.state, host.advice) == (FAIL, "")
        assert "names no API host" in host.detail
        _, host, *_ = checks.check_account(client, automatic)
        detail = f"{copilot_emulator.plan_api_url}, which the account's page names"
        assert host == Check("API host", OK, detail)
        copilot_emulator.fail("models", Fault.status(421))
        _, host, *_ = checks.check_account(client, automatic)
        assert (host.state, host.advice) == (FAIL, "")
    settings, urls = checks.check_settings(automatic)
    assert urls is not None
    assert (settings.state, urls.hosts) == (OK, ("https://github.com",))
    assert "the API host that its page names (auto)" in settings.detail


def test_a_token_that_was_given_is_used_as_it_is(copilot_emulator: Emulator) -> None:
    """There is nothing to fetch; whether it is good, the models tell. The quota needs cookies, and that is no fault."""
    urls = {"github_url": copilot_emulator.github_url, "api_url": copilot_emulator.api_url}
    with Client(copilot_emulator.api_key, **urls) as client:
        token, models, quota = checks.check_account(client, environment(API_KEY="x"))
    assert token == Check("token", OK, "COPILOT_SYNC_API_KEY is used as it is")
    assert models.state is OK
    assert quota.state is SKIPPED
    assert "asked for with the github.com cookies" in quota.detail


@pytest.mark.parametrize(
    "reply, state, detail",
    [
        (
            b'200 OK|{"plan":"free","quotas":{"limits":{"chat":50},"remaining":{"chat":0},"resetDate":"2026-12-01"}}',
            OK,
            "plan free, chat 0 left of 50, resets 2026-12-01",
        ),
        (b"200 OK|{}", OK, "github.com said nothing of it that is known here"),
        (b"404 Not Found|", SKIPPED, "github.com knows no quota"),
        (b"403 Forbidden|", SKIPPED, "github.com refused the cookies"),
        (b"500 Error|", SKIPPED, "the service failed"),
    ],
    ids=["quota", "unknown", "404", "403", "500"],
)
def test_the_quota_is_shown_and_never_a_cross(
    copilot_emulator: Emulator, reply: bytes, state: State, detail: str
) -> None:
    """An answer does not need it, and GitHub may take the address away."""
    status, _, body = reply.partition(b"|")
    raw = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    with Server(answering(raw)) as github:
        client = Client(
            copilot_emulator.api_key,
            cookies=copilot_emulator.cookies,
            api_url=copilot_emulator.api_url,
            github_url=github.url,
            retry=None,
        )
        with client:
            found = checks.check_account(client, environment(API_KEY="x"))[2]
    assert (found.name, found.state) == ("quota", state)
    assert found.detail.startswith(detail)


def test_an_emulator_with_tls_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very requests that follow take the same way."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority_file(tmp_path))
    with Emulator(ssl_context=server_context()) as emulator:
        assert checks.check_tls(emulator.api_url).state is OK
        assert [finding.state for finding in account(emulator)[:2]] == [OK, OK]


def test_what_makes_no_sense_to_try_is_said() -> None:
    """With the reason."""
    assert [finding.detail for finding in checks.untried_account("no reason")] == ["not tried: no reason"] * 3
    assert sys.version_info >= checks._OLDEST_PYTHON
