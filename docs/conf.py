"""How the documentation is built: `tox -e docs`."""

import re
from pathlib import Path
from typing import Any, Dict, List

from docutils import nodes
from sphinx.locale import _

import copilot_sync

project = "copilot_sync"
author = "The copilot_sync authors"
project_copyright = f"2026, {author}"
release = version = copilot_sync.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_build"]
html_theme = "furo"

# One catalogue for each page, without numbers of lines, which each edit changes. "tox -e translations" updates them.
locale_dirs = [str(Path(__file__).with_name("locale"))]
gettext_compact = False
gettext_uuid = False
gettext_location = False
# What the theme lacks: a link to the other language, and words that it does not translate.
templates_path = ["_templates"]

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
    content[0] = content[0].replace("`По-русски <README.ru.rst>`_\n\n", "")  # a page has a link of its own
    content[0] = re.sub(
        r"`([^`<]+?)\s+<(?:docs/)?(\w+)\.rst>`_", lambda link: f":doc:`{link[1]} <{link[2].lower()}>`", content[0]
    )


def place_language(app: Any, config: Any) -> None:
    """Have the Russian pages name their own addresses."""
    for name in ("html_baseurl", "ogp_site_url"):
        if config.language == "ru" and getattr(config, name, ""):
            setattr(config, name, f"{getattr(config, name)}ru/")


def link_languages(app: Any, page: str, template: str, context: Dict[str, Any], document: object) -> None:
    """Let a page link to itself in the other language: the Russian site is the folder ``ru`` of the English one."""
    up = "../" * page.count("/")
    context["other_language"] = f"{up}../{page}.html" if app.config.language == "ru" else f"{up}ru/{page}.html"


def translate_types(app: Any, domain: str, kind: str, content: nodes.Element) -> None:
    """Translate the label in front of an attribute's type, which Sphinx leaves as napoleon wrote it."""
    for name in content.findall(nodes.field_name):
        if name.astext() == "type":
            name[:] = [nodes.Text(_("Type"))]


def setup(app: Any) -> None:
    """Register what this configuration adds to Sphinx."""
    app.connect("config-inited", place_language)
    app.connect("html-page-context", link_languages)
    app.connect("object-description-transform", translate_types)
    app.connect("include-read", link_pages)
