"""Free-threaded builds of Python: nothing brings the GIL back, and what threads share is known."""

import ast
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import copilot_sync

IMPORTS = """
import importlib, json, pkgutil, sys
import copilot_sync
import django
from django.conf import settings

apps = ["django.contrib." + name for name in ("admin", "auth", "contenttypes", "messages", "sessions")]
settings.configure(INSTALLED_APPS=[*apps, "copilot_sync.contrib.django.ledger"])  # a model wants it
django.setup()
names = ["requests", "sseclient", "tenacity", "urllib3"]
names += [found.name for found in pkgutil.walk_packages(copilot_sync.__path__, "copilot_sync.")]
imported, brought_it_back = [], []
for name in names:
    if name.endswith(".__main__"):
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        assert str(error).startswith("this module needs "), (name, error)
        continue
    imported.append(name)
    if sys._is_gil_enabled():
        brought_it_back.append(name)
json.dump([imported, brought_it_back], sys.stdout)
"""


def test_each_module_that_shares_something_says_how() -> None:
    """Its docstring says what is atomic, what is locked and what is confined to one thread."""
    said = {}
    for path in sorted(Path(copilot_sync.__path__[0]).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if re.search(r"^(import threading|import weakref|from collections import .*deque)", source, re.MULTILINE):
            said[str(path)] = (ast.get_docstring(ast.parse(source)) or "").partition("Threads: ")[2]
    assert [name for name, words in said.items() if not re.search("atomic|locked|confined", words)] == []
    assert len(said) > 25


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this build has a GIL")
def test_no_import_brings_the_gil_back() -> None:  # pragma: some versions
    """Neither a module of the package nor what it depends on, with warnings as errors."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    imported, brought_it_back = json.loads(done.stdout)
    assert brought_it_back == []
    assert {"copilot_sync.client", "copilot_sync.aio", "copilot_sync.cli.program", "urllib3"} <= set(imported)
