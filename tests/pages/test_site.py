"""What builds the site, and the little of it that neither the pages nor a browser show."""

import re
import shutil
import signal
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import requests

HOME = Path(__file__).parents[2]


def test_serve_serves_the_site_until_ctrl_c(site: Path, tmp_path: Path) -> None:
    """On this machine alone, at the address that it prints. Ctrl-C is no failure. What was built is not built again."""
    shutil.copytree(site, tmp_path / "html")
    command = [sys.executable, str(HOME / ".ci" / "docs.py"), str(tmp_path), "serve", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            found = (re.match(r"(http://127\.0\.0\.1:\d+/) ", line) for line in server.stdout)
            address = next(match[1] for match in found if match)
            page = requests.get(address, timeout=60)
            server.send_signal(signal.SIGINT)
            assert server.wait() == 0
            assert "Traceback" not in server.stderr.read()
        finally:
            server.kill()
    assert "<title>copilot_sync</title>" in page.text


def test_all_name_the_same_addresses(site: Path) -> None:
    """The metadata of the package, the configuration of Sphinx, and the pages."""
    metadata = ConfigParser()
    metadata.read(HOME / "setup.cfg", encoding="utf-8")
    urls = dict(line.split(" = ") for line in metadata["metadata"]["project_urls"].split("\n") if line)
    page = (site / "index.html").read_text(encoding="utf-8")
    (canonical,) = re.findall(r'<link rel="canonical" href="([^"]+)"', page)
    assert canonical.startswith(f"{urls['Documentation']}/")
    assert urls["Changelog"] == canonical.replace("index.html", "changelog.html")
    assert f'href="{urls["Source"]}/edit/main/docs/index.rst"' in page


def test_read_the_docs_installs_what_tox_does() -> None:
    """The extras whose classes the reference shows, and one list of what builds it."""
    hosted = (HOME / ".readthedocs.yaml").read_text(encoding="utf-8")
    tox = ConfigParser(interpolation=None)
    tox.read(HOME / "tox.ini", encoding="utf-8")
    (extras,) = re.findall(r"extra_requirements: \[(.+)\]", hosted)
    assert {*extras.split(", "), "test"} == set(tox["testenv:docs"]["extras"].split(", "))
    (listed,) = re.findall(r"requirements: (\S+)", hosted.split("extra_requirements")[0])
    assert tox["testenv:docs"]["deps"] == f"-r {listed}"
