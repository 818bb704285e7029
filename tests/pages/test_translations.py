"""The Russian site is whole: no page, text or word of the theme is left in English, which Sphinx would show in silence.

The texts are extracted afresh and compared with ``docs/locale/ru``. ``docs/locale/glossary.txt`` has the words of the
translation. ``python -m tox -e translations`` writes new and changed texts into the catalogues, for a translator.
"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Optional, Set, Tuple

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUSSIAN = DOCS / "locale" / "ru" / "LC_MESSAGES"
#: What Sphinx extracts: each page, and the words of the site's own templates.
CATALOGUES = sorted([page.stem for page in DOCS.glob("*.rst")] + ["sphinx"])
#: What is in Latin letters beside the texts of a page in Russian: names.
NAMES = {"The", "copilot_sync", "authors", "Sphinx", "Furo", "English", "pradyunsg"}

#: Whole sites are built.
pytestmark = pytest.mark.timeout(900)


def _sphinx(builder: str, into: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "sphinx", "-q", "-b", builder, *options, str(DOCS), str(into)]
    subprocess.run(command, check=True, cwd=str(ROOT))
    return into


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the texts of all pages, as they are now."""
    return _sphinx("gettext", tmp_path_factory.mktemp("gettext"))


@pytest.fixture(scope="module")
def russian_site(site: Path) -> Path:
    """The Russian site."""
    return site / "ru"


def _catalogue(path: Path) -> Catalog:
    with path.open("rb") as lines:
        return read_po(lines, locale="ru")


def _texts(catalogue: Catalog) -> Dict[str, str]:
    return {str(message.id): str(message.string) for message in catalogue if message.id}


def _glossary() -> Tuple[Dict[str, List[str]], Dict[str, str]]:
    """The beginnings that a translation has for an English word, and the beginnings that no translation has."""
    wanted: Dict[str, List[str]] = {}
    banned: Dict[str, str] = {}
    for line in (DOCS / "locale" / "glossary.txt").read_text(encoding="utf-8").splitlines():
        left, _, right = (part.strip() for part in line.partition("="))
        if line.startswith("!"):
            banned.update((beginning.replace("_", " ").strip(), right) for beginning in left[1:].split("|"))
        elif line and not line.startswith("#"):
            wanted[left] = right.split("|")
    return wanted, banned


def _code(text: str) -> Set[str]:
    """What is code in a text, and where it links to. What is ``True`` in Russian may be plainly true in English."""
    code = set(re.findall(r"``(.+?)``(?!`)", text)) | set(re.findall(r":[\w:]+:`([^`<]+)`", text))
    return code - {"True", "False", "None"}


def _prose(text: str) -> str:
    """The words of a text: without code, marks, addresses and the targets of links."""
    text = re.sub(r"``.+?``(?!`)|:[\w:]+:`[^`<]+`|<[^>]*>|:\w+:`|https?://\S+", " ", text)
    return re.sub(r"[\w.-]*[._/]\w+[\w./-]*", " ", text.replace("*", ""))


def _faults(english: str, russian: str, left_out: FrozenSet[str] = frozenset()) -> List[str]:
    """What is wrong with a translation, as far as it can be told from its letters."""
    wanted, banned = _glossary()
    words, translated = _prose(english), _prose(russian)
    lower = translated.lower().replace("\N{NO-BREAK SPACE}", " ")
    found = []
    if _code(english) != _code(russian):
        found.append(f"code differs: {sorted(_code(english) ^ _code(russian))}")
    ordinary = re.search(r"(?<![\w'’-])(?!(?:bool|bytes|float|int|str)\b)[a-z]{3,}(?![\w-])", words)
    if ordinary and not re.search("[а-яё]", lower):
        found.append("there is no Russian word")
    if re.search("[a-zA-Z][а-яёА-ЯЁ]|[а-яёА-ЯЁ][a-zA-Z]", translated):
        found.append("one word has Latin and Cyrillic letters")
    if re.search('"[^"]*[а-яё][^"]*"', translated):
        found.append('"…" should be «…»')
    if re.search(r"[а-яё)»] - [а-яё(«]", translated):
        found.append("a hyphen should be a dash")
    if re.search(r"[^.!?:…»\s]\s+(Вы|Вас|Вам|Вами|Ваш\w*)\b", translated):
        found.append("«вы» has a capital letter")
    for word, beginnings in wanted.items():
        said = re.search(rf"(?<![\w-]){word}(s|es)?(?![\w-])", words, re.IGNORECASE)
        if said and word not in left_out and not any(re.search(rf"(?<!\w){one}", lower) for one in beginnings):
            found.append(f"{word}: one of {beginnings} is expected")
    for beginning, instead in banned.items():
        if re.search(rf"(?<!\w){beginning}", lower):
            found.append(f"not {beginning!r}: {instead}")
    return found


def _left_out(comments: List[str]) -> FrozenSet[str]:
    notes = (comment.partition("glossary:")[2] for comment in comments)
    return frozenset(word.strip() for note in notes for word in note.split(",") if word.strip())


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_page_is_translated_whole(name: str, templates: Path) -> None:
    """Each text of the page as it is now has its translation, and the catalogue has nothing else."""
    path = RUSSIAN / f"{name}.po"
    assert path.exists(), f"docs/locale/ru/LC_MESSAGES/{name}.po is missing: run python -m tox -e translations"
    catalogue = _catalogue(path)
    now, then = set(_texts(_catalogue(templates / f"{name}.pot"))), _texts(catalogue)
    found = [f"missing: {text}" for text in sorted(now - set(then))]
    found += [f"the page has it no more: {text}" for text in sorted(set(then) - now)]
    found += [f"obsolete: {text}" for text in catalogue.obsolete]
    found += [f"untranslated: {text}" for text, russian in then.items() if not russian.strip()]
    found += [f"fuzzy: {message.id}" for message in catalogue if message.id and message.fuzzy]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_translation_keeps_the_code_and_the_glossary(name: str) -> None:
    """What is code in the English text is in the Russian one, and the words are those of the glossary."""
    path = RUSSIAN / f"{name}.po"
    if not path.exists():
        pytest.skip("another test says that it is missing")
    found = [
        f"{fault}\n    {message.id}\n    {message.string}"
        for message in _catalogue(path)
        if message.id and message.string
        for fault in _faults(str(message.id), str(message.string), _left_out(message.user_comments))
    ]
    assert not found, "\n".join(found)


def test_no_catalogue_is_left_of_a_page_that_is_gone() -> None:
    """Each catalogue belongs to a page."""
    assert sorted({path.stem for path in RUSSIAN.glob("*.po")} - set(CATALOGUES)) == []


@pytest.mark.parametrize(
    ("english", "russian", "fault"),
    [
        ("Call ``ask``.", "Вызовите ``stream``.", "code differs"),
        ("The page", "The page", "no Russian word"),
        ("The page", "Cтраница", "Latin and Cyrillic"),
        ("The page", '"Страница"', "«…»"),
        ("The page", "Страница - файл", "a dash"),
        ("The page", "Страница, которую Вы видите", "capital letter"),
        ("Two conversations", "Две переписки", "conversation"),
        ("The page", "Это является страницей", "является"),
    ],
)
def test_a_fault_of_a_translation_is_seen(english: str, russian: str, fault: str) -> None:
    """Each rule finds what it is for."""
    (found,) = _faults(english, russian)
    assert fault in found


@pytest.mark.parametrize(
    ("english", "russian"),
    [
        ("Two conversations of ``Chat``", "Два диалога класса ``Chat``"),
        ("See :doc:`batches <batch>`, please", "Смотрите :doc:`пакетный запуск <batch>`"),
        ("**One.** You can", "**Раз.** Вы можете"),
        ("LangChain", "LangChain"),
        ("``conversation_id``", "``conversation_id``"),
        ("Mapping[str, int] | None", "Mapping[str, int] | None"),
    ],
)
def test_a_good_translation_has_no_fault(english: str, russian: str) -> None:
    """The rules let pass what is right."""
    assert _faults(english, russian) == []


class _Surroundings(HTMLParser):
    """Collects what a page says around its text: visible words, and those for screen readers."""

    _VOID = frozenset(["br", "img", "input", "link", "meta", "hr", "path", "use", "wbr"])
    #: The text of the page, its titles in lists and links, and what no reader sees.
    _LEFT_OUT = frozenset(["article", "head", "script", "style", "svg"])
    _TITLES = frozenset(["sidebar-tree", "sidebar-brand", "brand", "title", "toc-tree"])

    def __init__(self) -> None:
        super().__init__()
        self.words: List[str] = []
        self._open: List[bool] = []

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        values = {name: value or "" for name, value in attrs}
        left_out = tag in self._LEFT_OUT or bool(self._TITLES & set(values.get("class", "").split()))
        if not any(self._open) and not left_out:
            self.words += [values[name] for name in ("aria-label", "title", "placeholder", "alt") if name in values]
        if tag not in self._VOID:
            self._open.append(left_out)

    def handle_startendtag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not any(self._open):
            self.words.append(data)


def _english(page: Path) -> Iterator[str]:
    parser = _Surroundings()
    parser.feed(page.read_text(encoding="utf-8"))
    for text in parser.words:
        if set(re.findall("[A-Za-z_]{2,}", text)) - NAMES:
            yield text.strip()


@pytest.mark.parametrize("page", ["index", "usage", "api_client", "search", "genindex"])
def test_the_theme_speaks_russian(page: str, russian_site: Path) -> None:
    """Around the text of a Russian page no word is left in English: buttons, labels, footers."""
    assert list(_english(russian_site / f"{page}.html")) == []


def test_sphinx_speaks_russian_about_an_api(russian_site: Path) -> None:
    """The labels of classes and functions, and of the links beside titles, are Russian."""
    api = "".join(page.read_text(encoding="utf-8") for page in russian_site.glob("api*.html"))
    labels = re.findall(r'<dt class="field-[^>]*>([^<]+)<', api)
    labels += re.findall(r'class="headerlink" href="[^"]*" title="([^"]+)"', api)
    assert len(set(labels)) > 4
    assert [label for label in labels if not re.search("[а-яё]", label)] == []
    assert not re.search(r"<p>\s*(Bases:|alias of)", api)


def test_scripts_speak_russian(russian_site: Path) -> None:
    """The search, and the button that copies a block of code, have Russian words for all that they say."""
    static = russian_site / "_static"
    translations = (static / "translations.js").read_text(encoding="utf-8")
    messages: Dict[str, str] = dict(re.findall(r'^\s*"(.+)": \[?\s*"(.*)"', translations, re.MULTILINE))
    said = [
        text
        for script in ("searchtools.js", "doctools.js", "sphinx_highlight.js")
        for text in re.findall(
            r'(?:\b_|gettext)\(\s*"((?:[^"\\]|\\.)*)"', (static / script).read_text(encoding="utf-8")
        )
    ]
    assert len(said) > 4
    assert [text for text in said if not re.search("[а-яё]|^, $", messages.get(text, ""))] == []
    assert "'ru': {" in (static / "copybutton.js").read_text(encoding="utf-8")


def test_a_page_leads_to_itself_in_the_other_language(site: Path, russian_site: Path) -> None:
    """Both sites link each page to the same page of the other one, by a path that works without a server as well."""
    pages = sorted(page.name for page in site.glob("*.html"))
    assert pages == sorted(page.name for page in russian_site.glob("*.html"))
    for page in pages:
        english = (site / page).read_text(encoding="utf-8")
        russian = (russian_site / page).read_text(encoding="utf-8")
        assert f'<a href="ru/{page}" hreflang="ru" lang="ru">Русский</a>' in english
        assert f'<a href="../{page}" hreflang="en" lang="en">English</a>' in russian
