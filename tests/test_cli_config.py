"""``copilot-sync config`` and ``--profile``: what counts, where it comes from, and how it is changed."""

import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from command_line import Keys
from terminals import Terminal, run_in_terminal

from copilot_sync.auth.stored_logins import StoredLogin, load_login, login_file, store_login
from copilot_sync.cli import backend
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.pacing.limiter import BY_HOST
from copilot_sync.secret import Secret
from copilot_sync.user_config import config_file

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _nothing_but_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """No browser is read, and nobody types."""
    monkeypatch.setattr("copilot_sync.auth.cookies.browser_cookies", lambda *_: iter(()))
    monkeypatch.setattr(sys, "stdin", Keys())


@pytest.fixture
def place() -> Path:
    """The config file, whose folder is there."""
    path = Path(config_file())
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def work(emulator: Emulator) -> str:
    """A profile with a login."""
    store_login("work", StoredLogin(Secret(emulator.cookies), emulator.github_url, emulator.api_url))
    return "work"


def shown(capsys: Capture, *arguments: str) -> Dict[str, Any]:
    """What ``config`` shows, by name."""
    capsys.readouterr()
    assert run(["config", "--json", *arguments]) == 0
    return {line["name"]: (line["value"], line["from"]) for line in json.loads(capsys.readouterr().out)}


def test_without_a_file_there_are_the_defaults(capsys: Capture) -> None:
    """Each with its value."""
    assert shown(capsys) == {
        "profile": ("default", "default"),
        "model": ("auto", "default"),
        "github_url": ("https://github.com", "default"),
        "api_url": ("https://api.individual.githubcopilot.com", "default"),
        "proxy": (None, "default"),
        "per_minute": (20, "default"),
        "concurrency": (2, "default"),
    }


def test_each_setting_says_where_it_comes_from(
    place: Path, work: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """And shows no password."""
    place.write_text(
        'per_minute = 5\nproxy = "http://me:planted@proxy.example:8080"\n[profiles.work]\nconcurrency = 1\n'
    )
    monkeypatch.setenv("COPILOT_SYNC_MODEL", "o3")
    assert shown(capsys, "--profile", "work") == {
        "profile": ("work", "--profile"),
        "model": ("o3", "COPILOT_SYNC_MODEL"),
        "github_url": (emulator.github_url, "login"),
        "api_url": (emulator.api_url, "login"),
        "proxy": ("http://***@proxy.example:8080", str(place)),
        "per_minute": (5, str(place)),
        "concurrency": (1, f"[profiles.work] of {place}"),
    }
    monkeypatch.setenv("COPILOT_SYNC_PROFILE", "home")
    assert shown(capsys)["profile"] == ("home", "COPILOT_SYNC_PROFILE")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:planted@other.example:3128")
    assert shown(capsys)["proxy"] == ("http://***@other.example:3128", "HTTPS_PROXY")
    monkeypatch.setenv("NO_PROXY", "*")
    assert shown(capsys)["proxy"] == (None, "NO_PROXY")


def test_a_program_gets_tabs_and_a_person_a_table(capsys: Capture) -> None:
    """As everywhere."""
    assert run(["config"]) == 0
    assert "model\tauto\tdefault\n" in capsys.readouterr().out
    lines = run_in_terminal(["config"], columns=120)
    assert lines[0].split() == ["NAME", "VALUE", "FROM"]
    assert lines[2].split() == ["model", "auto", "default"]


def test_settings_are_written_and_removed(place: Path, capsys: Capture) -> None:
    """Comments, order and line ends of the file stay."""
    place.write_bytes(b'# mine\r\nmodel = "o3"  # good\r\n\r\n[profiles.work]\r\n# hosts\r\napi_url = "auto"\r\n')
    place.chmod(0o640)
    assert run(["config", "set", "model", "o4"]) == 0
    assert run(["config", "set", "per_minute", "7"]) == 0
    assert run(["--profile", "work", "config", "set", "concurrency", "3"]) == 0
    assert run(["config", "set", "model", "o1", "--profile", "home"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"changed for all profiles, in {place}",
        f"changed for all profiles, in {place}",
        f"changed for the profile work, in {place}",
        f"changed for the profile home, in {place}",
    ]
    content = place.read_bytes().decode()
    assert content.startswith('# mine\r\nmodel = "o4"  # good\r\nper_minute = 7\r\n')
    assert '[profiles.work]\r\n# hosts\r\napi_url = "auto"\r\nconcurrency = 3' in content
    assert shown(capsys)["model"][0] == "o4"
    assert shown(capsys, "--profile", "home")["model"][0] == "o1"
    assert place.stat().st_mode & 0o777 == 0o640
    assert run(["config", "unset", "model"]) == 0
    assert run(["config", "unset", "api_url", "--profile", "work"]) == 0
    assert shown(capsys)["model"] == ("auto", "default")
    assert "# hosts" in place.read_text()


def test_a_new_file_is_its_owners_alone(place: Path, capsys: Capture) -> None:
    """A proxy's URL may have a password in it. A link to nowhere leads to the new file."""
    target = place.with_name("dotfiles") / "config.toml"
    place.symlink_to(target)
    assert run(["config", "set", "proxy", "http://me:planted@localhost:3128"]) == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert place.is_symlink()
    assert run(["config", "get", "proxy"]) == 0
    assert capsys.readouterr().out == "http://me:planted@localhost:3128\n"


def test_get_prints_what_counts(work: str, emulator: Emulator, capsys: Capture) -> None:
    """Wherever it comes from; it fails if there is nothing."""
    assert run(["config", "get", "model"]) == 0
    assert run(["config", "get", "api_url", "--profile", "work"]) == 0
    assert capsys.readouterr().out == f"auto\n{emulator.api_url}\n"
    assert run(["config", "get", "proxy"]) == 1
    assert capsys.readouterr().err == "Error: there is no proxy; set one with: copilot-sync config set proxy VALUE\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["set", "modle", "x"], 2, "modle is no setting; did you mean model?"),
        (["get", "xyzzy"], 2, "xyzzy is no setting; there are model, github_url"),
        (["unset", "modle"], 2, "did you mean model?"),
        (["set", "per_minute", "many"], 2, "per_minute must be a whole number"),
        (["set", "per_minute", "0"], 2, "per_minute must be at least 1"),
        (["set", "per_minute", "9" * 5000], 2, "integer string"),
        (["set", "api_url", "ftp://x"], 2, "api_url must begin with https://"),
        (["set", "model"], 2, "Missing argument 'VALUE'"),
        (["unset", "model"], 1, "model is not set there; see: copilot-sync config"),
    ],
)
def test_what_cannot_be_done_is_told(arguments: List[str], status: int, words: str, capsys: Capture) -> None:
    """And leaves no file behind."""
    assert run(["config", *arguments]) == status
    assert words in capsys.readouterr().err
    assert not os.path.exists(config_file())


@pytest.mark.parametrize(
    ("before", "arguments", "after"),
    [
        ('profiles.other.model = "a"\nper_minute = 9\n', ["set", "model", "x"], None),
        ('profiles.work.model = "a"\nper_minute = 9\n', ["unset", "model"], "per_minute = 9\n"),
        ('profiles = {other = {model = "a"}}\n', ["unset", "model"], None),
    ],
)
def test_a_change_changes_nothing_else(
    before: str, arguments: List[str], after: Optional[str], place: Path, capsys: Capture
) -> None:
    """A file in which that can't be done is left as it is, and what to type is told."""
    place.write_text(before)
    assert run(["config", *arguments, "--profile", "work"]) == (1 if after is None else 0)
    assert place.read_text() == (before if after is None else after)
    assert "copilot-sync config" in capsys.readouterr().err or after is not None


@pytest.mark.parametrize("arguments", [[], ["get", "model"], ["set", "model", "x"], ["unset", "model"]])
def test_a_variable_that_names_no_profile_is_told(
    arguments: List[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """It is the variable that is wrong, and not the file."""
    monkeypatch.setenv("COPILOT_SYNC_PROFILE", "../work")
    assert run(["config", *arguments]) == 2
    assert "Error: COPILOT_SYNC_PROFILE: the name of a profile has 1 to 64" in capsys.readouterr().err
    assert not os.path.exists(config_file())


def test_a_broken_file_stops_every_command(
    served: Emulator, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """With its line and what to type, and before anything is sent. ``doctor`` goes on; an emulator needs none."""
    place.write_text('\nmodle = "x"\n')
    expected = f"{place}, line 2: modle is no setting; did you mean model?; correct it with: copilot-sync config edit"
    for arguments in (["ask", "hi"], ["models"], ["config"], ["config", "set", "model", "x"], ["login", "--stdin"]):
        assert run(arguments) == 1
        assert capsys.readouterr().err == f"Error: {expected}\n"
    assert served.requests == []
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"NO config file: {expected}\n" in out or f"✗ config file: {expected}\n" in out
    assert "models: not tried: the config file can't be used" in out
    assert run(["ask", "--emulator", "hi"]) == 0


def test_a_file_that_cannot_be_written_is_told(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """With the reason; and so is a change that would break the file."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("copilot_sync.safe_files.os.fsync", refused)
    assert run(["config", "set", "model", "x"]) == 1
    assert capsys.readouterr().err == (
        f"Error: {place} can't be written: No space left on device; see: ls -l {place}\n"
    )
    assert os.listdir(place.parent) == []
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place.parents[1]))
    monkeypatch.setattr("copilot_sync.cli.config.check_setting", lambda *_: None)
    assert run(["config", "set", "per_minute", "none"]) == 1
    assert "can't be changed without damage" in capsys.readouterr().err
    assert not place.exists()


def test_the_path_is_printed(place: Path, capsys: Capture) -> None:
    """Whether there is a file or not."""
    assert run(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{place}\n"


def test_the_file_is_edited_in_ones_own_editor(place: Path, tmp_path: Path) -> None:
    """A new one has comments alone. What is wrong with it afterwards is told."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ngrep -q "^# model" "$1" && printf "\\nmodle = 1\\n" >> "$1"\n')
    editor.chmod(0o755)
    with Terminal("config", "edit", environment={"EDITOR": str(editor), "VISUAL": ""}, columns=300) as terminal:
        assert terminal.status() == 1
        assert f"Error: {place}, line 10: modle is no setting; did you mean model?" in terminal.lines()[-1]
    editor.write_text('#!/bin/sh\nsed -i "s/^modle = 1/model = \\"o3\\"/" "$1"\n')
    with Terminal("config", "edit", environment={"EDITOR": str(editor), "VISUAL": ""}) as terminal:
        assert terminal.status() == 0
    assert place.read_text().endswith('model = "o3"\n')


def test_what_was_edited_is_read(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """Also without a terminal, by an editor that needs none."""
    monkeypatch.setenv("VISUAL", "cat")
    assert run(["config", "edit"]) == 0
    assert '# model = "gpt-5-mini"' in capfd.readouterr().out
    place.write_text("model = 1")
    assert run(["config", "edit"]) == 1
    assert "line 1: model must be a string" in capfd.readouterr().err


def test_commands_go_by_the_file(served: Emulator, place: Path, capsys: Capture) -> None:
    """The model of the file is asked, unless an option or a variable names another."""
    place.write_text('model = "gpt-4o"\n')
    assert run(["ask", "--json", "hi"]) == 0
    assert run(["ask", "--json", "--model", "o1-mini", "hi"]) == 0
    models = [json.loads(line)["model"] for line in capsys.readouterr().out.splitlines()]
    assert models == ["gpt-4o", "o1-mini"]


def test_a_chat_says_which_model_it_asks(served: Emulator, place: Path) -> None:
    """That of the file."""
    place.write_text('model = "gpt-4o"\n')
    with Terminal("chat", environment={}) as terminal:
        terminal.expect("gpt-4o: ask, or type /help")
        terminal.line("/quit")
        assert terminal.status() == 0


def test_the_proxy_of_the_file_is_used(
    served: Emulator, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """By questions, by ``login`` and by ``doctor``, which shows no password of it. An option goes before it."""
    place.write_text('proxy = "http://me:planted@127.0.0.1:1"\n')
    assert run(["models"]) == 1
    assert "proxy 127.0.0.1:1" in capsys.readouterr().err
    assert run(["ask", "--proxy", "http://127.0.0.1:2", "hi"]) == 1
    assert "proxy 127.0.0.1:2" in capsys.readouterr().err
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "http://***@127.0.0.1:1" in out
    assert "planted" not in out
    monkeypatch.delenv("COPILOT_SYNC_COOKIES")
    cookies = place.with_name("cookies.json")
    cookies.write_text(json.dumps(served.cookies))
    assert run(["login", "--file", str(cookies)]) == 1
    assert "proxy 127.0.0.1:1" in capsys.readouterr().err
    assert run(["login", "--file", str(cookies), "--no-check"]) == 0
    assert run(["login", "--status", "--check"]) == 1
    assert "proxy 127.0.0.1:1" in capsys.readouterr().err


def test_the_pace_of_the_file_is_kept(
    served: Emulator, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By each command, unless its options say otherwise."""
    paces: List[Any] = []
    monkeypatch.setattr(backend, "_limits", lambda urls, pace: paces.append(pace) or {})
    (tmp_path / "in.txt").write_text("hi\n")
    batch = ["batch", str(tmp_path / "in.txt"), "-o"]
    place.write_text("per_minute = 600\n")
    assert run(["ask", "hi"]) == 0
    assert run([*batch, str(tmp_path / "1.jsonl"), "--workers", "3"]) == 0
    place.write_text("concurrency = 5\n")
    assert run([*batch, str(tmp_path / "2.jsonl"), "--rate", "900"]) == 0
    assert run(["models"]) == 0
    assert paces == [(None, 600), (3, 600), (5, 900.0), (5, BY_HOST)]


def test_login_stores_the_hosts_of_the_file(served: Emulator, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the profile."""
    cookies = place.with_name("cookies.json")
    cookies.write_text(json.dumps(served.cookies))
    for name in ("COOKIES", "GITHUB_URL", "API_URL"):
        monkeypatch.delenv(f"COPILOT_SYNC_{name}")
    place.write_text(f'[profiles.work]\ngithub_url = "{served.github_url}"\napi_url = "{served.api_url}"\n')
    assert run(["login", "--file", str(cookies), "--profile", "work"]) == 0
    found = load_login("work")
    assert found is not None
    assert (found.github_url, found.api_url) == (served.github_url, served.api_url)


@pytest.mark.parametrize(
    "arguments", [["--profile", "work", "threads", "list"], ["threads", "list", "--profile", "work"]]
)
def test_a_profile_is_chosen_at_either_end(
    arguments: List[str], work: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes before the variable."""
    monkeypatch.setenv("COPILOT_SYNC_PROFILE", "home")
    assert run(arguments) == 0
    assert emulator.tokens_issued == 1


def test_a_profile_that_is_typed_goes_before_exported_credentials(
    work: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Else the question would go to another account. One that was exported itself does not."""
    monkeypatch.setenv("COPILOT_SYNC_API_KEY", "another-account")
    monkeypatch.setenv("COPILOT_SYNC_API_URL", emulator.api_url)
    assert run(["models", "--profile", "work"]) == 0
    assert run(["doctor", "--profile", "work"]) == 0
    assert "token: received\n" in capsys.readouterr().out
    monkeypatch.setenv("COPILOT_SYNC_PROFILE", "work")
    assert run(["models"]) == 1


def test_a_profile_that_is_not_there_is_told(work: str, capsys: Capture) -> None:
    """With what to type. A name that can't be one is wrong usage."""
    assert run(["models", "--profile", "home"]) == 1
    assert "the profile home has no login: copilot-sync login --profile home" in capsys.readouterr().err
    assert run(["models", "--profile", "default"]) == 1
    assert "the profile default has no login: copilot-sync login;" in capsys.readouterr().err
    assert run(["--profile", "../x", "models"]) == 2
    assert "the name of a profile has" in capsys.readouterr().err
    assert run(["logout", "--profile", "work"]) == 0
    assert not os.path.exists(login_file("work"))


def test_a_login_that_is_refused_names_its_profile(work: str, emulator: Emulator, capsys: Capture) -> None:
    """So that the right one is renewed."""
    emulator.fail("token", Fault.status(401))
    assert run(["models", "--profile", "work"]) == 1
    assert capsys.readouterr().err.endswith(
        "; log in with: copilot-sync login --profile work; check with: copilot-sync doctor --profile work\n"
    )
