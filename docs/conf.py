"""How the site is built: ``tox -e docs``, which runs ``.ci/docs``, and ``.readthedocs.yaml`` after a release.

Its pictures are in ``images``: ``favicon.svg`` was drawn by hand, programs make all others (see CONTRIBUTING).
"""

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

# The card is a picture of its own. Cards for each page would need matplotlib.
ogp_site_name = "copilot_sync"
ogp_site_url = html_baseurl
ogp_image = "_static/social_card.png"
ogp_image_alt = "copilot_sync: GitHub Copilot Chat as a blocking Python library"
ogp_social_cards = {"enable": False}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False

# The examples of docstrings name things as those who import them do.
doctest_global_setup = """
import copilot_sync
from copilot_sync import *
from copilot_sync.emulator import *
"""
