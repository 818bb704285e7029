"""How the documentation is built: `tox -e docs`."""

import re
from typing import Any, List

import copilot_sync

project = "copilot_sync"
author = "The copilot_sync authors"
project_copyright = f"2026, {author}"
release = version = copilot_sync.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_build"]
html_theme = "furo"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False

# The examples of docstrings name things as those who import them do.
doctest_global_setup = """
import copilot_sync
from copilot_sync import *
from copilot_sync.emulator import *
"""


def link_pages(app: Any, path: object, document: str, content: List[str]) -> None:
    """Turn the links in README, which point to files, into links to pages, and find its pictures."""
    content[0] = content[0].replace(".. image:: docs/", ".. image:: ")
    content[0] = re.sub(
        r"`([^`<]+?)\s+<(?:docs/)?(\w+)\.rst>`_", lambda link: f":doc:`{link[1]} <{link[2].lower()}>`", content[0]
    )


def setup(app: Any) -> None:
    """Register what this configuration adds to Sphinx."""
    app.connect("include-read", link_pages)
