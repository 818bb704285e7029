"""How the site is built: ``tox -e docs``, which runs ``.ci/docs``, and ``.readthedocs.yaml`` after a release.

Its pictures are in ``images``: ``favicon.svg`` was drawn by hand, programs make all others (see CONTRIBUTING).
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from docutils import nodes
from sphinx.locale import _

import copilot_sync

project = "copilot_sync"
author = "The copilot_sync authors"
project_copyright = f"2026, {author}"
release = version = copilot_sync.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxext.opengraph",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "copilot_sync"
html_baseurl = "https://copilot-sync.readthedocs.io/en/latest/"
html_favicon = html_logo = "images/favicon.svg"
html_static_path = ["static", "images/social_card.png"]
html_css_files = ["site.css"]
html_copy_source = False
# Each of these has a contrast of 4.5 or more on what is behind it, WCAG's level AA: tests/engines/test_docs_site.py.
html_theme_options = {
    "source_repository": "https://github.com/copilot-sync/copilot-sync/",
    "source_branch": "main",
    "source_directory": "docs/",
    "light_css_variables": {
        "color-brand-primary": "#3730a3",
        "color-brand-content": "#4338ca",
        "color-brand-visited": "#6b21a8",
        "color-foreground-muted": "#5b5f6a",
    },
    "dark_css_variables": {
        "color-brand-primary": "#a5b4fc",
        "color-brand-content": "#a5b4fc",
        "color-brand-visited": "#d8b4fe",
        "color-foreground-muted": "#a3a7b0",
    },
}

# A block with prompts copies as its commands alone.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_here_doc_delimiter = "EOF"
copybutton_line_continuation_character = "\\"

# The card is a picture of its own. Cards for each page would need matplotlib.
ogp_site_name = "copilot_sync"
ogp_site_url = html_baseurl
ogp_image = "_static/social_card.png"
ogp_image_alt = "copilot_sync: GitHub Copilot Chat as a blocking Python library"
ogp_social_cards = {"enable": False}

# One catalogue for each page, without numbers of lines, which each edit changes. "tox -e translations" updates them.
locale_dirs = [str(Path(__file__).with_name("locale"))]
gettext_compact = False
gettext_uuid = False
gettext_location = False
# What the theme lacks: a link to the other language, and words that it does not translate.
templates_path = ["_templates"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
# The pages say what is in these modules without what they need.
autodoc_mock_imports = [name for name in ("IPython", "opentelemetry") if find_spec(name) is None]
#: A signature of more characters than the first is cut to the second: two lines of a page, or four on a phone.
_LONGEST_SIGNATURE, _CUT_SIGNATURE = 200, 140
napoleon_numpy_docstring = False

# The examples of docstrings name things as those who import them do.
doctest_global_setup = """
import copilot_sync
from copilot_sync import *
from copilot_sync.emulator import *
"""


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


def shorten_signature(
    app: Any, what: str, name: str, described: Any, options: Any, signature: Optional[str], returned: Optional[str]
) -> Optional[Tuple[str, Optional[str]]]:
    """Cut a long signature behind a parameter. The list of parameters below it has all of them."""
    if signature is None:
        return None
    signature = re.sub(r"=_[A-Z_]+\b", "=…", signature.replace("=_DEFAULT", "=<the client's>"))
    if len(signature) <= _LONGEST_SIGNATURE:
        return signature, returned
    depth, end = 0, 0
    for position, sign in enumerate(signature[:_CUT_SIGNATURE]):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 1:
            end = position
    return f"{signature[:end]}, …)", returned


def setup(app: Any) -> None:
    """Register what this configuration adds to Sphinx."""
    app.connect("config-inited", place_language)
    app.connect("html-page-context", link_languages)
    app.connect("object-description-transform", translate_types)
    app.connect("autodoc-process-signature", shorten_signature)
