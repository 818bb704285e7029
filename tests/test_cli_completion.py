"""``copilot-sync completion``: the script for a shell, on stdout or where the shell looks for it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import command

from copilot_sync.cli.program import run

FILES = {
    "bash": "data/bash-completion/completions/copilot-sync",
    "fish": "config/fish/completions/copilot-sync.fish",
    "zsh": ".zfunc/_copilot-sync",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder; and a bash that is new enough, wherever this runs."""
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda *_: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SHELL", raising=False)
    return tmp_path


@pytest.mark.parametrize("shell", FILES)
def test_the_script_is_printed_or_installed(shell: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same one. It may be installed again, over itself."""
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_COPILOT_SYNC_COMPLETE" in script
    for _ in range(2):
        assert run(["completion", shell, "--install"]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert str(home / FILES[shell]) in err
        assert ("fpath" in err) == (shell == "zsh")
    assert (home / FILES[shell]).read_text().rstrip("\n") == script.rstrip("\n")


def test_the_shell_is_that_of_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If it is one that can complete; else it has to be named."""
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run(["completion", "--install"]) == 0
    assert (home / FILES["fish"]).exists()
    monkeypatch.setenv("SHELL", "/bin/dash")
    assert run(["completion"]) == 2
    assert "bash, fish, zsh" in capsys.readouterr().err
    assert run(["completion", "dash"]) == 2


def test_a_file_of_somebody_else_is_left(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what can't be written is said."""
    path = home / FILES["fish"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"# mine \xff\n")
    assert run(["completion", "fish", "--install"]) == 1
    assert "left as it is" in capsys.readouterr().err
    assert path.read_bytes() == b"# mine \xff\n"
    (home / "data").write_text("")
    assert run(["completion", "bash", "--install"]) == 1
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_with_it(home: Path) -> None:
    """The script as it stands defines the completion of the command."""
    script = subprocess.run(command("completion", "bash"), check=True, stdout=subprocess.PIPE).stdout
    done = subprocess.run(
        ["bash", "--norc", "-c", 'eval "$(cat)"; complete -p copilot-sync'],
        input=script,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, b"_copilot_sync_completion" in done.stdout) == (0, True), done.stdout
