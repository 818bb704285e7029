"""README.rst and docs/usage.rst are promises: their Python runs, their settings exist, their commands work."""

import html
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import List

import pytest
from terminals import Terminal

from copilot_sync.auth.stored_logins import StoredLogin, store_login
from copilot_sync.emulator import Emulator
from copilot_sync.profiles import DEFAULT_PROFILE
from copilot_sync.secret import Secret

HOME = Path(__file__).parents[1]
README = HOME.joinpath("README.rst").read_text(encoding="utf-8")
USAGE = HOME.joinpath("docs", "usage.rst").read_text(encoding="utf-8")


def _blocks(language: str, page: str = README) -> List[str]:
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:(?: {{4}}.*)?\n)+)", page, re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in found]


PROGRAMS = [block for block in [*_blocks("python"), *_blocks("python", USAGE)] if "def test_" not in block]


@pytest.fixture
def _logged_in(served: Emulator) -> None:
    """The logins that the pages name."""
    for profile in (DEFAULT_PROFILE, "work"):
        store_login(profile, StoredLogin(Secret(dict(served.cookies)), served.github_url))


@pytest.mark.usefixtures("_logged_in")
@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.splitlines()[-1][:40])
def test_each_python_block_runs(block: str) -> None:
    """What the pages show can be typed as it stands, with nothing but the environment set."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout.decode() if done.returncode else "") == (0, "")


def test_the_test_in_the_page_passes(tmp_path: Path) -> None:
    """pytest finds the fixture by itself: the test needs no import and no conftest."""
    (block,) = [block for block in _blocks("python", USAGE) if "def test_" in block]
    (tmp_path / "test_page.py").write_text(block)
    plugins = ["-p", "no:cacheprovider", "-p", "no:langsmith_plugin"]  # which LangChain brings: see tox.ini
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", *plugins, "--rootdir", str(tmp_path)],
        check=False,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout.decode() if done.returncode else "") == (0, "")
    assert b"1 passed" in done.stdout


def test_the_first_command_is_the_one_that_shows_an_answer() -> None:
    """The first command asks the emulator, the last runs the tests; another test runs what they start."""
    first, *_, last = _blocks("sh")
    assert first == 'python -m pip install ".[cli]" && copilot-sync ask --emulator "Explain WSGI in one line"'
    assert last == "python -m pip install tox && python -m tox"


def test_the_picture_of_the_terminal_is_what_the_first_command_shows(tmp_path: Path) -> None:
    """Drawn by this test; ``PICTURES`` names the folder for the one that is kept."""
    question = "Explain WSGI in one line"
    with Terminal("ask", "--emulator", question, environment={"COLORTERM": ""}, rows=30, columns=84) as terminal:
        assert terminal.status() == 0
        image = terminal.picture()
    file = Path(os.environ.get("PICTURES", tmp_path)) / "terminal.svg"
    file.write_text(image, encoding="utf-8")
    kept = _words(HOME.joinpath("docs", "images", "terminal.svg").read_text(encoding="utf-8"))
    assert _words(image) == kept
    assert "Thisisademo." in kept
    assert len(image) < 50_000
    assert re.findall(r"https?://[^\s\"]*", image) == ["http://www.w3.org/2000/svg"]


def _words(image: str) -> str:
    """Return the text of a picture, without blanks and lines, which releases of rich draw in other ways."""
    text = html.unescape("".join(re.findall(r"<text[^>]*>([^<]*)</text>", image)))
    return re.sub(r"[\s\u2500-\u257f]+", "", text)


def test_the_first_page_is_short() -> None:
    """And each page that it links to exists."""
    assert len(README.splitlines()) <= 150
    links = re.findall(r"<([\w/.]+)>`_", README)
    assert "docs/usage.rst" in links
    assert [link for link in links if not (HOME / link).exists()] == []


def test_the_commands_run(served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What README types can be typed, one line after the other, in a folder with the files that it names."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in (("copilot-sync", "-W error -m copilot_sync "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "app.py").write_text("x = 1\n")
    (tmp_path / "prompts.jsonl").write_text('{"id": "one", "prompt": "Hello"}\n')
    lines = [line for block in _blocks("sh")[1:] for line in block.splitlines() if "copilot-sync" in line]
    done = subprocess.run(
        ["/bin/sh", "-e", "-x", "-c", "\n".join(lines)],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout.decode() if done.returncode else "") == (0, "")
    assert len(lines) == 7
    assert len(served.threads) == 4
