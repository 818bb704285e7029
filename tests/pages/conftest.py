"""What is typed from the pages of the documentation. It needs what their examples need: ``tox -e docs`` runs it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Leave a test the time to build the site, if it is the first that asks for it."""
    for item in items:
        if "site" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site: the one that ``SITE`` names, or a new one."""
    if "SITE" in os.environ:
        return Path(os.environ["SITE"])
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS)]
    subprocess.run([*build, str(folder)], check=True)
    subprocess.run([*build, "-D", "language=ru", str(folder / "ru")], check=True)
    return folder
