"""Each link leads somewhere: those of the built site to a page and a place on it, those of the first pages to a file.

Nothing is fetched. Of an address elsewhere, only the form is looked at.
"""

import html.parser
import re
from functools import lru_cache
from pathlib import Path
from typing import FrozenSet, List, NamedTuple, Set, Tuple
from urllib.parse import unquote, urlsplit

import pytest

HOME = Path(__file__).parents[2]
DOCS = HOME / "docs"
#: What a forge shows beside the code, without Sphinx.
FIRST_PAGES = ["README.rst", "README.ru.rst", "CONTRIBUTING.rst", "CHANGELOG.rst", "SECURITY.rst"]
#: What examples of servers on this machine have in their addresses.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Contents(NamedTuple):
    """The links of a page, and the places that one can link to."""

    links: Tuple[str, ...]
    places: FrozenSet[str]


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: List[str] = []
        self.places: Set[str] = set()

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, "str | None"]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.places.add(value)
            elif name in ("href", "src"):
                self.links.append(value)


def read(text: str) -> Contents:
    """Read a page of HTML."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return Contents(tuple(dict.fromkeys(reader.links)), frozenset(reader.places))


@lru_cache(maxsize=None)
def contents(page: Path) -> Contents:
    """Read a page of the site, once."""
    return read(page.read_text(encoding="utf-8"))


def fault_outside(link: str) -> str:
    """Return what is wrong with an address of another site; "" if it could be one."""
    parts = urlsplit(link)
    if parts.scheme == "http" and link.startswith(tuple(f"http://{host}" for host in LOOPBACK)):
        return ""
    if parts.scheme == "mailto":
        return "" if "@" in parts.path else "no address of mail"
    if parts.scheme != "https":
        return "not https"
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc):
        return "no host"
    return "a blank in it" if re.search(r"\s", link) else ""


def fault(link: str, page: Path, site: Path) -> str:
    """Return what is wrong with a link on a page; "" if it leads somewhere."""
    parts = urlsplit(link)
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        return fault_outside(link)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if site.resolve() not in target.parents:
        return "outside of the site"
    if not target.is_file():
        return "no such page"
    place = unquote(parts.fragment)
    if place and target.suffix == ".html" and place not in contents(target).places:
        return "no such place"
    return ""


def test_each_link_of_the_site_leads_somewhere(site: Path) -> None:
    """To a page, a picture, a script or a style that was built, and to an anchor on it."""
    pages = sorted(site.resolve().rglob("*.html"))
    assert {"index.html", "api.html", "search.html"} <= {page.name for page in pages}
    faults = [
        f"{page.relative_to(site.resolve())}: {link}: {found}"
        for page in pages
        for link in contents(page).links
        for found in [fault(link, page, site)]
        if found
    ]
    assert faults == []


def test_each_page_can_be_reached(site: Path) -> None:
    """From the landing page, by its links alone."""
    start = site.resolve() / "index.html"
    reached, rest = {start}, [start]
    while rest:
        page = rest.pop()
        for link in contents(page).links:
            parts = urlsplit(link)
            target = (page.parent / unquote(parts.path)).resolve()
            if parts.scheme == parts.netloc == "" and target.suffix == ".html" and target not in reached:
                reached.add(target)
                rest.append(target)
    built = {path.stem for path in DOCS.glob("*.rst")}
    assert built - {page.stem for page in reached} == set()


@pytest.mark.parametrize("name", FIRST_PAGES)
def test_a_page_beside_the_code_links_to_files_that_are_there(name: str) -> None:
    """A forge resolves them beside the page."""
    text = (HOME / name).read_text(encoding="utf-8")
    targets = re.findall(r"<([^<>\s]+)>`_", " ".join(text.split()))
    targets += re.findall(r"^\.\. (?:image|figure):: (\S+)$", text, re.MULTILINE)
    targets += re.findall(r"^\.\. _[^:]+: (\S+)$", text, re.MULTILINE)
    for target in targets:
        if "://" in target or target.startswith("mailto:"):
            assert (target, fault_outside(target)) == (target, "")
        else:
            assert (HOME / target).is_file(), target


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("other.html", ""),
        ("other.html#there", ""),
        ("#here", ""),
        ("https://docs.python.org/3/", ""),
        ("http://127.0.0.1:8000/", ""),
        ("mailto:someone@example.com", ""),
        ("missing.html", "no such page"),
        ("other.html#gone", "no such place"),
        ("#gone", "no such place"),
        ("../other.html", "outside of the site"),
        ("http://example.com/", "not https"),
        ("https://example/", "no host"),
        ("https://example.com/a b", "a blank in it"),
        ("mailto:nobody", "no address of mail"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(link: str, found: str, tmp_path: Path) -> None:
    """Whatever is wrong with it."""
    page = tmp_path / "index.html"
    page.write_text(f'<p id="here"><a href="{link}">it</a></p>', encoding="utf-8")
    (tmp_path / "other.html").write_text('<p id="there">', encoding="utf-8")
    assert [fault(each, page, tmp_path) for each in read(page.read_text(encoding="utf-8")).links] == [found]
