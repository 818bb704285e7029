"""Environments with pinned packages of PyPI or npm, inside the one of the tests. Each is made once."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest
from servers import path_of

#: Where the environments are. They go with the one that the tests run in.
_KEPT = Path(sys.prefix) / "installed_for_tests"
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


def made(pinned: Path, name: str) -> Path:
    """Return the folder with the packages of a file: a ``package.json``, or requirements of pip."""
    digest = hashlib.sha256(pinned.read_bytes()).hexdigest()[:16]
    place = _KEPT / f"{name}-{digest}"
    if name in _failures:
        _give_up(pinned, name)
    whole = place / "whole"
    if not whole.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            _install(pinned, place)
        except (OSError, subprocess.SubprocessError) as error:
            _failures[name] = f"{error}: {getattr(error, 'stderr', '')}"
            _give_up(pinned, name)
        whole.touch()
    return place


def _give_up(pinned: Path, name: str) -> None:
    """End a test whose packages can't be installed: npm may have no way to its registry, and pip's index is needed."""
    if pinned.suffix == ".json":
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
