"""``copilot-sync login`` in a terminal of its own, by each of its ways but the paste of a cookie."""

import json
import os
from pathlib import Path
from typing import Dict

import pytest
from terminals import Terminal

from copilot_sync.auth.stored_logins import load_login
from copilot_sync.emulator import Emulator

_BROWSERS = """
from http.cookiejar import Cookie

def firefox(domain_name):
    rest = (None, False, "github.com", False, False, "/", True, True, None, False, None, None, {})
    return [Cookie(0, "user_session", COOKIE, *rest)]

all_browsers = [firefox]
"""


@pytest.fixture
def environment(emulator: Emulator) -> Dict[str, str]:
    return {"COPILOT_SYNC_GITHUB_URL": emulator.github_url, "COPILOT_SYNC_API_URL": emulator.api_url}


def cookie() -> str:
    """The stored one."""
    login = load_login("default")
    assert login is not None
    return str(login.options()["cookies"].reveal()["user_session"])


@pytest.mark.parametrize("variables", [{}, {"TERM": "dumb"}, {"LC_ALL": "POSIX"}], ids=["xterm", "dumb", "POSIX"])
def test_a_login_by_a_file(
    variables: Dict[str, str], emulator: Emulator, environment: Dict[str, str], tmp_path: Path
) -> None:
    """Whose name is asked for, on a narrow terminal too; it may have any letters."""
    path = tmp_path / "мои cookies.json"
    path.write_text(json.dumps(emulator.cookies))
    with Terminal("login", environment={**environment, **variables}, columns=20) as terminal:
        terminal.expect("Which [1]: ")
        terminal.line("2")
        terminal.expect(": ")
        terminal.line(str(path))
        assert terminal.status() == 0
    assert cookie() == emulator.cookies["user_session"]


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_login_from_a_browser(answer: str, emulator: Emulator, environment: Dict[str, str], tmp_path: Path) -> None:
    """It is named, and read after a yes."""
    text = _BROWSERS.replace("COOKIE", repr(emulator.cookies["user_session"]))
    (tmp_path / "browser_cookie3.py").write_text(text)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with Terminal("login", environment={**environment, "PYTHONPATH": path}) as terminal:
        terminal.expect("Which [1]: ")
        terminal.line("3")
        terminal.expect("from firefox?")
        terminal.line(answer)
        assert terminal.status() == (0 if answer == "y" else 130)
    if answer == "y":
        assert cookie() == emulator.cookies["user_session"]
    else:
        assert load_login("default") is None


def test_a_login_by_the_token_of_the_page(emulator: Emulator, environment: Dict[str, str]) -> None:
    """Its JSON is pasted, in several lines; nothing of it is seen."""
    token = emulator.api_key
    with Terminal("login", environment=environment) as terminal:
        terminal.expect("Which [1]: ")
        terminal.line("1")
        terminal.expect("\x1b[?2004h")
        text = json.dumps({"value": token, "expiration": "2100-01-01T00:00:00Z"}, indent=2)
        terminal.line(f"\x1b[200~{text}\x1b[201~")
        assert terminal.status() == 0
    assert token.encode() not in terminal.seen
    login = load_login("default")
    assert login is not None
    assert token in str(login.options()["api_key"].reveal())
