"""Environments with clients of OpenAI's API, and the programs of ``openai_clients`` that drive them.

Releases of ``openai`` exclude each other, so each has an environment of its own inside the one of the tests, with what
the file of its name pins. It is made once.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping

import pytest
from servers import path_of

CLIENTS = Path(__file__).parent / "openai_clients"
#: Where the environments are. They go with the one that the tests run in.
_KEPT = Path(sys.prefix) / "openai_clients"
#: As they are where the tests are started: each test is without proxies and certificates of the machine's own.
_VARIABLES = dict(os.environ)
#: Node.js trusts no file of the machine's by itself, as the installers of Python's packages do.
if "SSL_CERT_FILE" in _VARIABLES:
    _VARIABLES.setdefault("NODE_EXTRA_CA_CERTS", _VARIABLES["SSL_CERT_FILE"])
#: Seconds for an installation from an index.
_INSTALLING = 170
_NPM = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=20000"]
#: What went wrong with an installation, so that nobody tries it again.
_failures: Dict[str, str] = {}


def python_command(program: str, requirements: str) -> List[str]:
    """Return the command of a program in the environment with these requirements."""
    pinned = CLIENTS / f"{requirements}.txt"
    place = _made(pinned, requirements)
    return [str(place / "bin" / "python"), str(CLIENTS / f"{program}.py")]


def node_command() -> List[str]:
    """Return the command of the program for Node.js."""
    node, _ = path_of("node"), path_of("npm")
    return [node, str(CLIENTS / "openai_node.mjs"), str(_made(CLIENTS / "package.json", "node"))]


def _made(pinned: Path, name: str) -> Path:
    digest = hashlib.sha256(pinned.read_bytes()).hexdigest()[:16]
    place = _KEPT / f"{name}-{digest}"
    if name in _failures:
        _give_up(name)
    whole = place / "whole"
    if not whole.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            _install(pinned, place)
        except (OSError, subprocess.SubprocessError) as error:
            _failures[name] = f"{error}: {getattr(error, 'stderr', '')}"
            _give_up(name)
        whole.touch()
    return place


def _give_up(name: str) -> None:
    """End a test whose clients can't be installed: npm may have no way to its registry, and pip's index is needed."""
    if name == "node":
        pytest.skip(f"npm can't install: {_failures[name]}")
    pytest.fail(_failures[name])


def _install(pinned: Path, place: Path) -> None:
    if pinned.suffix == ".json":
        shutil.copy(pinned, place)
        _run([path_of("npm"), "install", *_NPM, "--prefix", str(place)])
        return
    uv = path_of("uv")
    _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)])
    _run([uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), "-r", str(pinned)])


def _run(command: List[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, timeout=_INSTALLING, env=_VARIABLES, check=True)


class Driver:
    """One of the programs, which makes the calls that it is told to make.

    Args:
        command: As above.
        environment: Where the server is.
    """

    def __init__(self, command: List[str], environment: Mapping[str, str]) -> None:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self._process = subprocess.Popen(command, text=True, bufsize=1, env={**inherited, **environment}, **pipes)

    def call(self, name: str, *, retries: int = 0) -> Dict[str, Any]:
        """Have a call made, and return what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": name, "retries": retries}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the program has ended"
        found: Dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        with self._process:
            pass
