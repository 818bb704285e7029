"""Free-threaded builds of Python: nothing that is imported brings the GIL back."""

import json
import subprocess
import sys
import sysconfig

import pytest

IMPORTS = """
import importlib, json, pkgutil, sys
import copilot_sync

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


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this build has a GIL")
def test_no_import_brings_the_gil_back() -> None:  # pragma: some versions
    """Neither a module of the package nor what it depends on, with warnings as errors."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    imported, brought_it_back = json.loads(done.stdout)
    assert brought_it_back == []
    assert {"copilot_sync.client", "copilot_sync.aio", "copilot_sync.cli.program", "urllib3"} <= set(imported)
