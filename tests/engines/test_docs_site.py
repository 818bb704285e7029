"""The site of the documentation in a real browser, on a phone and on a desk, in light and dark colours.

``PICTURES`` names a folder for a picture of each page that is looked at, and for the card that other sites show.
"""

import base64
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Tuple

import pytest
from chat_pages import Page

for module in ("furo", "sphinx_copybutton", "sphinx_design", "sphinxext.opengraph"):
    pytest.importorskip(module)

# The first test builds the site.
pytestmark = pytest.mark.timeout(300)

DOCS = Path(__file__).parents[2] / "docs"
#: A landing page, one that is typed, one of signatures and one of long lines in tables.
PAGES = ["index", "lesson_django", "api", "cli"]
WINDOWS = {"phone": (390, 844), "desk": (1280, 900)}
CARD = (1200, 630)

#: Texts that the window cuts off: beyond its edge, and in no box that scrolls.
CUT_OFF = """
const scrolls = (box) => ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
const found = [], article = document.querySelector("article");
const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
    const text = texts.currentNode, range = document.createRange();
    if (!text.data.trim() || !text.parentElement.checkVisibility({visibilityProperty: true})) continue;
    let box = text.parentElement;
    while (box !== article && !scrolls(box)) box = box.parentElement;
    if (box !== article) continue;
    range.selectNodeContents(text);
    if ([...range.getClientRects()].some(({left, right}) => left < 0 || right > innerWidth)) found.push(text.data);
}
return found;
"""

#: Texts whose colour is too near to what is behind them, for WCAG's level AA.
PALE = """
const numbers = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
};
const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
const background = (box) => {
    const behind = box.parentElement ? background(box.parentElement) : [255, 255, 255];
    return over(numbers(getComputedStyle(box).backgroundColor), behind);
};
const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = new Map();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
    const text = texts.currentNode, box = text.parentElement;
    const style = getComputedStyle(box);
    if (!text.data.trim() || !box.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    const behind = background(box);
    const pair = [luminance(over(numbers(style.color), behind)), luminance(behind)].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5)) {
        found.set([style.color, behind, box.className || box.localName].join(" "), [text.data, contrast]);
    }
}
return [...found];
"""

#: The card: what it is in two lines, and how little it takes.
CARD_PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; width: 1200px; height: 630px; box-sizing: border-box; padding: 76px 84px; color: #fff;
       background: linear-gradient(135deg, #1e1b4b, #4338ca); font: 40px/1.35 sans-serif; }}
h1 {{ display: flex; align-items: center; gap: 28px; margin: 0 0 20px; font-size: 76px; line-height: 1.1; }}
img {{ width: 96px; padding: 14px; border-radius: 24px; background: #fff; }}
p {{ margin: 0 0 40px; color: #e0e7ff; }}
pre {{ margin: 0; padding: 30px 36px; border-radius: 18px; background: #0f0e26; font: 32px/1.5 monospace; }}
b {{ color: #a5b4fc; font-weight: normal; }} i {{ color: #86efac; font-style: normal; }}
</style><h1><img src="data:image/svg+xml;base64,{mark}" alt="">copilot_sync</h1>
<p>GitHub Copilot Chat as a blocking Python library.<br>No asyncio. Django, Flask, Celery, scripts.</p>
<pre><b>with</b> copilot_sync.Client() <b>as</b> client:
    <b>for</b> piece <b>in</b> client.stream(<i>"Explain WSGI"</i>):
        print(piece, end=<i>""</i>)</pre>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site: the one that ``SITE`` names, or one that is built for these tests."""
    if "SITE" in os.environ:
        return Path(os.environ["SITE"])
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS), str(folder)], check=True)
    return folder


def picture(page: Page, name: str, folder: Path) -> Path:
    """Keep what the window shows, in ``PICTURES`` or in another folder."""
    file = Path(os.environ.get("PICTURES", folder)) / f"{name}.png"
    file.write_bytes(base64.b64decode(page.driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]))
    return file


def size(image: Path) -> Tuple[int, int]:
    """The width and height in the head of a PNG."""
    width, height = struct.unpack(">II", image.read_bytes()[16:24])
    return width, height


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_line_is_cut_off_and_each_can_be_read(
    chromium: Any, site: Path, scheme: str, window: str, tmp_path: Path
) -> None:
    """Long lines of code and tables scroll in a box of their own, the page does not. All texts have enough contrast."""
    page = Page(chromium, f"{site.as_uri()}/")
    width, height = WINDOWS[window]
    page.show_as(scheme, width=width, height=height)
    faults: List[Tuple[str, Any]] = []
    for name in PAGES:
        chromium.get(f"{page.url}{name}.html")
        picture(page, f"site_{name}_{window}_{scheme}", tmp_path)
        found = [
            page.run("return document.scrollingElement.scrollWidth > innerWidth"),
            page.run(CUT_OFF),
            page.run(PALE),
        ]
        if found != [False, [], []]:
            faults.append((name, found))
    assert faults == []


def test_the_search_finds_a_page(chromium: Any, site: Path) -> None:
    """Without a server of its own."""
    page = Page(chromium, f"{site.as_uri()}/")
    chromium.get(f"{page.url}search.html?q=heartbeat")
    page.wait(lambda: page.texts("#search-results li a"))
    assert "Web applications" in " ".join(page.texts("#search-results li a"))


def test_what_is_copied_has_no_prompts(chromium: Any, site: Path) -> None:
    """A block of commands with ``$`` is copied as the commands alone, and without what they print."""
    page = Page(chromium, f"{site.as_uri()}/")
    chromium.get(f"{page.url}index.html")
    page.wait(lambda: page.texts("button.copybtn"))
    page.run("document.querySelector('pre').textContent = arguments[0]", "$ echo one\none\n$ echo two\ntwo\n")
    page.run("document.execCommand = () => { window.copied = document.activeElement.value; return true; }")
    page.run("document.querySelector('button.copybtn').click()")
    assert page.run("return copied") == "echo one\necho two"


def test_the_card_for_other_sites_is_drawn(chromium: Any, site: Path, tmp_path: Path) -> None:
    """It has the size that they ask for, all of its text is on it, and each page names it."""
    mark = base64.b64encode((DOCS / "images" / "favicon.svg").read_bytes()).decode()
    (tmp_path / "card.html").write_text(CARD_PAGE.format(mark=mark), encoding="utf-8")
    page = Page(chromium, f"{tmp_path.as_uri()}/")
    page.show_as("light", width=CARD[0], height=CARD[1])
    chromium.get(f"{page.url}card.html")
    overflow = page.run(
        "const {scrollWidth, scrollHeight} = document.scrollingElement; return [scrollWidth, scrollHeight]"
    )
    assert tuple(overflow) == CARD
    assert size(picture(page, "social_card", tmp_path)) == CARD
    assert size(site / "_static" / "social_card.png") == CARD
    chromium.get(f"{site.as_uri()}/api.html")
    named = page.run("return document.querySelector('meta[property=\"og:image\"]').content")
    assert named.startswith("https://")
    assert named.endswith("/_static/social_card.png")
