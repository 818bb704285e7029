"""What the model writes, on the chat page: the same while it comes and later, harmless, and drawn in bounded time."""

import copy
import hashlib
import json
import random
import re
import uuid
from pathlib import Path
from typing import Any, Dict, List

from chat_pages import PACKAGES, Page
from installed import made

from copilot_sync.contrib.chat.page import STATIC
from copilot_sync.emulator import Emulator, Reply

#: Milliseconds in which the page may not be able to react: a hundred on a machine with nothing else to do.
LONGEST_TASK = 1_000

DOCUMENTS = [
    "# Title\n\nOne\ntwo\n\n- a\n- b\n\n  more\n- c\n\n```python\nx = 1\n\ny\n```\nafter\n\n|a|b|\n|---|:-:|\n|1|2|\n",
    "para\n#x\npara\n***bold*** text\n---\npara\n-\n- item\n",
    "a\n- b\n- c\n\n\n- d\n\n\n    code\n\npara\n> quoted\nlazy\n> more\n\n***\n",
    "text\n```a`b\nmore\n\n~~~\nan open fence\n\n# no heading\n",
    "1. a\n\n   ```js\n   let x = 1;\n\n   y\n   ```\n2. b\n   - c\n     - d\n\nend",
    "a|b\n-|-\n1|2\n# h\n#x\n\nTitle\n===\n\nOther\n---\n\nabc\n=x\n",
    "|no table\nx\n\n|a|b|\n|-|-|\n|1|2|\n\n5. five\n6. six\n",
    "line  \nbreak\\\nend http://example.org/a_b_c <b>hi</b> <https://example.org> &amp; ![i](http://example.org/i.png)\n",
    "- a\n```\ncode\n```\n- b\n\n> - q\n>   r\n> \n> ```\n> code\n> ```\n\nx\r\ny\r\n\r\nz",
]
PIECES = [
    *"#>-=|*_`~[]()!\n ",
    "\n\n",
    "- ",
    "1. ",
    "```\n",
    "***",
    "|a|b|\n|-|-|\n",
    "    ",
    "word",
    "**b**",
    "`c`",
    "[l](http://e.org)",
]

#: Draws each text at once, and again as it comes in small pieces, and gives those that differ.
DRAW_TWICE = """
const { Drawing } = await import("/chat/assets/drawing.js");
const blocks = (body) => [...body.querySelectorAll(".part > *")].map((each) => each.outerHTML).join("");
async function drawn(pieces, isStreamed) {
    const body = document.createElement("div");
    document.body.append(body);
    const drawing = new Drawing(body);
    for (const piece of pieces) {
        drawing.add(piece);
        if (isStreamed) drawing.draw(() => true);
    }
    await drawing.end();
    body.remove();
    return blocks(body);
}
const differ = [];
for (const [text, pieces] of arguments[0]) {
    const [stored, streamed] = [await drawn([text], false), await drawn(pieces, true)];
    if (stored !== streamed || (text.trim() && !stored)) differ.push([text, stored, streamed]);
}
return differ;
"""

#: Draws a text, and gives the longest task meanwhile and what is drawn.
DRAW = """
const { Drawing } = await import("/chat/assets/drawing.js");
const article = document.createElement("article");
article.className = "assistant";
const body = document.createElement("div");
body.className = "body";
article.append(body);
document.getElementById("turns").append(article);
let longest = 0;
const observer = new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
});
observer.observe({ type: "longtask" });
const drawing = new Drawing(body);
const [text, pieces] = arguments;
const size = Math.ceil(text.length / pieces);
for (let start = 0; start < text.length; start += size) {
    drawing.add(text.slice(start, start + size));
    if (pieces > 1) await new Promise((resolve) => setTimeout(resolve, 2));
}
await drawing.end();
await new Promise((resolve) => setTimeout(resolve, 60));
const elements = body.querySelectorAll("*").length;
const found = { longest, size: body.innerHTML.length, elements, text: body.textContent };
article.remove();
return found;
"""

HOSTILE = """\
<script>window.hacked = 1</script>

<img src="assets/none" onerror="window.hacked = 2"> <b onclick="window.hacked = 3">bold</b>
<style>* { display: none }</style>

[one](javascript:window.hacked=4) [two](https://example.org/?a=1&b=2) [three](/delete) ![four](/assets/none)
[five](http:/delete) [six](data:text/html,x) ![seven](https://example.org/7.png) [eight](vbscript:x "t") [![nine](https://example.org/9.png)](https://example.org/9)
[ten](JaVaScRiPt:x) [eleven](&#106;avascript:x) [twelve](mailto:a@example.org) [thirteen](//example.org/13)
<javascript:x> https://example.org/14

<iframe srcdoc="<script>parent.hacked = 5</script>"></iframe>
<math><mi//xlink:href="data:x,<script>window.hacked = 6</script>">

<form action="delete"><input name="body" id="settings"></form> <a id="turns" name="turns">clobber</a>

```html" onmouseover="window.hacked = 7
<script>window.hacked = 8</script></code></pre><img src=x onerror="window.hacked = 9">
```

```<img src=x onerror=window.hacked=10>
code
```

| <img src=x onerror="window.hacked = 11"> | b |
|-|-|
| <svg onload="window.hacked = 12"> | `</td><script>window.hacked = 13</script>` |

1. <details open ontoggle="window.hacked = 14">

> &lt;script&gt;window.hacked = 15&lt;/script&gt;

- a list
"""
LINKS = [
    "https://example.org/?a=1&b=2",
    "https://example.org/7.png",
    "https://example.org/9",
    "mailto:a@example.org",
    "https://example.org/14",
]
LARGE = {
    "references": "[a]: http://example.org/" + "a" * 10_000 + "\n\n" + "[a] " * 1000,
    "table": "|a" * 1000 + "|\n" + "|-" * 1000 + "|\n" + "|\n" * 1000,
    "many cells": "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 10_000,
    "narrow rows": "|a" * 50 + "|\n" + "|-" * 50 + "|\n" + "|\n" * 40_000,
    "very many brackets": "[" * 1_000_000,
    "brackets": "[" * 99_000,
    "images": "![[" * 33_000,
    "paragraphs": ("[" * 100 + "\n\n") * 900,
    "links": "[[[a](b)" * 12_000,
    "addresses": "http://a.b/c " * 7_000,
    "stars": "*a **b " * 15_000,
    "backticks": " ".join("`" * each for each in range(1, 400)),
    "quotations": ">" * 50_000,
    "deep list": "".join(" " * each + "- a\n" for each in range(300)),
    "long list": "- item with some `text`\n" * 4_000,
    "entities": "&amp;" * 20_000,
    "one line of code": "```js\n" + "/((" * 33_000 + "\n```",
    "code": "```python\n" + "x = foo(1, 'a')  # why\n" * 4_500 + "```\n",
    "markup as code": "```xml\n" + ("<a " * 600 + "\n") * 10 + "\n```",
    "brackets as Markdown code": "```markdown\n" + ("[" * 1_900 + "\n") * 10 + "```",
    "nothing": "\n" * 99_000,
    "setext": "a\n" * 30_000 + "===",
    "one paragraph": "piece " * 16_000,
}


def test_a_streamed_answer_is_drawn_as_a_stored_one(page: Page) -> None:
    """However it is cut, and whatever Markdown it is."""
    chance = random.Random(19)
    texts = DOCUMENTS + ["".join(chance.choices(PIECES, k=chance.randint(3, 40))) for _ in range(150)]

    def cut(text: str) -> List[str]:
        places = sorted(chance.sample(range(len(text)), min(len(text) - 1, len(text) // 3)))
        return [text[start:end] for start, end in zip([0, *places], [*places, len(text)])]

    assert page.run_async(DRAW_TWICE, [[text, cut(text)] for text in texts]) == []


def test_the_text_on_the_page_is_the_services(emulator: Emulator, page: Page) -> None:
    """In whatever pieces it comes, with all that is no Markdown."""
    words = "Ünïcödé, кириллица, 日本語 and 🎈🎈 "
    emulator.reply = Reply(list(words * 40))
    page.hear("Say much")
    page.wait(lambda: page.answers == [(words * 40).strip()])
    page.reload()
    assert page.answers == [(words * 40).strip()]


def test_what_may_turn_out_otherwise_is_held_back(page: Page) -> None:
    """A line of marks alone would flash as a heading, a table as bars, a link as its address, and stars as stars."""
    shown = """
        const { Drawing } = await import("/chat/assets/drawing.js");
        return arguments[0].map((text) => {
            const body = document.createElement("div");
            const drawing = new Drawing(body);
            drawing.add(text);
            drawing.draw(() => true);
            return body.innerHTML.replaceAll(/<div class="part">|<.div>$/g, "").trim();
        });"""
    found = page.run_async(
        shown,
        [
            "a\n-",
            "a\n==",
            "a\n\n#",
            "a\n\n| b",
            "a\n\n| b |\n|--",
            "a\n\n1.",
            "a\n\n``",
            "a [b](http://e",
            "a **b",
            "a `b",
            "a\n- b\n- ",
        ],
    )
    assert found == [
        *["<p>a</p>"] * 7,
        "<p>a b</p>",
        "<p>a <strong>b</strong></p>",
        "<p>a <code>b</code></p>",
        "<p>a</p><ul><li>b</li></ul>",
    ]


def test_code_grows_with_its_colours_and_can_be_copied(emulator: Emulator, page: Page) -> None:
    """It is code while it comes; its language stands above it."""
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    emulator.script(
        "Look:\n\n```python title=x\ndef one():\n    return 1\n```\n\n- in a list\n\n  ```\n  plain\n  ```\n"
    )
    page.hear("Code, please")
    assert page.texts(".code .language") == ["python", "Code"]
    assert page.texts(".code pre") == ["def one():\n    return 1\n", "plain\n"]
    assert page.texts(".hljs-keyword") == ["def", "return"]
    page.run("document.querySelector('.code button').click()")
    page.wait(lambda: page.run("return window.copied") == "def one():\n    return 1\n")
    page.wait(lambda: page.run("return document.querySelector('.code button').title") == "Copied")
    grown = page.run_async("""
        const { Drawing } = await import("/chat/assets/drawing.js");
        const body = document.createElement("div");
        const drawing = new Drawing(body);
        drawing.add("```js\\nlet x = 1;\\n" + "y\\n".repeat(15_000));
        drawing.draw(() => true);
        const text = body.querySelector("code").lastChild;
        drawing.add("let z");
        drawing.draw(() => true);
        const code = body.querySelector("code");
        const all = body.querySelectorAll(".code").length;
        return [code.lastChild === text, code.textContent.endsWith("y\\nlet z"), all];""")
    assert grown == [True, True, 1]


def test_nothing_of_the_models_html_gets_through(emulator: Emulator, page: Page) -> None:
    """It is text when it is complete, and after a reload; so is what was asked. Nothing is loaded for it."""
    emulator.script(HOSTILE)
    page.hear("<img src=/ onerror=hacked()>")
    for _ in range(2):
        page.wait(lambda: page.texts(".body li")[-1:] == ["a list"])
        assert page.run("return window.hacked") is None
        kinds = "script, style, img, svg, math, iframe, form, input, b, details, [id], [name], [style], [onclick]"
        found = f"return [...document.querySelectorAll('.body :is({kinds})')].map((each) => each.outerHTML)"
        assert [each for each in page.run(found) if 'class="icon"' not in each] == []
        links = page.run("return [...document.querySelectorAll('.body a')].map(a => [a.href, a.rel, a.target])")
        assert links == [[link, "noopener noreferrer nofollow", "_blank"] for link in LINKS]
        assert "<script>window.hacked = 1</script>" in page.answers[0]
        assert "[one](javascript:window.hacked=4)" in page.answers[0]
        assert page.questions == ["<img src=/ onerror=hacked()>"]
        loaded = page.run("return performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)")
        assert [each for each in loaded if not each.startswith("/chat/")] == []
        page.reload()
    assert page.titles == page.texts("h1") == ["<img src=/ onerror=hacked()>"]


#: What gets through although it should not: HTML, a script and a module of another place, an image, a style.
BROKEN_IN = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.effectiveDirective));
try { document.body.innerHTML += "<b>"; } catch {}
try { document.createElement("script").textContent = "window.hacked = 1"; } catch {}
import("http://127.0.0.2/module.js").catch(() => {});
document.createElement("img").src = "http://127.0.0.2/";
document.body.setAttribute("style", "color: red");
fetch("http://127.0.0.2/").catch(() => {});
"""


def test_the_policy_stops_what_should_get_through_nevertheless(page: Page) -> None:
    """The browser refuses all of it."""
    page.run(BROKEN_IN)
    refused = {"connect-src", "img-src", "require-trusted-types-for", "script-src-elem", "style-src-attr"}
    page.wait(lambda: refused == set(page.run("return window.refused")))
    assert page.run("return window.hacked") is None
    page.pardon("Content Security Policy", "This document requires")


def test_a_little_markdown_does_not_become_very_much_html(page: Page) -> None:
    """Nor takes it long; what is too large is shown as it came, and all of it is there."""
    for name, text in LARGE.items():
        found = page.run_async(DRAW, text, 1)
        check_size(name, text, found)


def check_size(name: str, text: str, found: Dict[str, Any]) -> None:
    assert found["longest"] < LONGEST_TASK, name
    assert found["size"] < 12 * len(text) + 10_000, name
    assert found["elements"] < 30_000, name
    if not re.search(r"[|`*=&[-]", text):  # marks that Markdown does not show
        assert re.sub(r"\s", "", found["text"]) == re.sub(r"\s", "", text), name


def test_a_long_answer_does_not_keep_the_page_busy(page: Page) -> None:
    """A hundred kilobytes of all kinds, in a thousand pieces."""
    block = "## A heading\n\nSome **bold** text with `code`.\n\n- a\n- b\n\n"
    block += "```python\ndef f(x):\n    return x\n```\n\n|a|b|\n|-|-|\n|1|2|\n\n"
    found = page.run_async(DRAW, block * (100_000 // len(block)), 1_000)
    print(f"the longest task took {found['longest']} ms")
    assert found["longest"] < LONGEST_TASK


def test_an_answer_in_many_pieces_arrives_in_time(emulator: Emulator, page: Page) -> None:
    """What a piece costs does not grow with the answer, so that Stop and all else can be used meanwhile."""
    emulator.reply = lambda prompt: ("piece " for _ in range(10_000))
    page.hear("Much, please")
    assert page.answers == [("piece " * 10_000).strip()]


def test_a_long_conversation_is_shown_in_slices(emulator: Emulator, page: Page) -> None:
    """Two hundred messages: the newest are there first, and the page can be used meanwhile."""
    emulator.script("# One\n\nSome **text** with `code`.\n\n```python\nx = 1\n```\n\n- a\n- b\n")
    page.hear("first")
    (thread,) = emulator.threads.values()
    question, answer = thread.messages
    parent = answer["id"]
    for number in range(99):
        asked: Dict[str, Any] = {**copy.deepcopy(question), "id": str(uuid.uuid4()), "parentMessageID": parent}
        asked["content"] = f"question {number}"
        said = {**copy.deepcopy(answer), "id": str(uuid.uuid4()), "parentMessageID": asked["id"]}
        thread.messages += [asked, said]
        parent = said["id"]
    page.reload()
    page.wait(lambda: len(page.texts(".body h3")) == 100)
    assert len(page.questions) == 100
    assert page.questions[-1] == "question 98"
    longest = page.run_async("""
        let longest = 0;
        new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => {
            longest = Math.max(longest, duration);
        })).observe({ type: "longtask", buffered: true });
        await new Promise((resolve) => setTimeout(resolve, 500));
        return longest;""")
    print(f"the longest task took {longest} ms")
    assert longest < LONGEST_TASK
    gap = "const box = document.getElementById('scroll'); return box.scrollHeight - box.scrollTop - box.clientHeight"
    page.wait(lambda: page.run(gap) < 2)


def test_a_column_is_aligned_as_the_model_wants_it(emulator: Emulator, page: Page) -> None:
    """Without a style in the HTML, which the policy would refuse and the browser complain of."""
    emulator.script("|a|b|c|\n|-|:-:|-:|\n|1|2|3|\n")
    page.hear("A table, please")
    aligned = "return [...document.querySelectorAll('.body td')].map((each) => getComputedStyle(each).textAlign)"
    page.wait(lambda: page.run(aligned) == ["left", "center", "right"])


def test_the_libraries_are_those_of_npm() -> None:
    """With their licences, in the release that the table names; only the address of a file for debuggers is gone."""
    vendor = STATIC / "vendor"
    libraries = json.loads((vendor / "libraries.json").read_text(encoding="utf-8"))
    assert sorted(libraries) == sorted(each.name for each in vendor.glob("*.js"))
    pinned = json.loads(PACKAGES.read_text(encoding="utf-8"))["dependencies"]
    modules = made(PACKAGES, "chat_page") / "node_modules"
    for name, library in libraries.items():
        content = (vendor / name).read_bytes()
        original = modules.joinpath(library["package"], library["path"]).read_bytes()
        assert content == re.sub(rb"//# sourceMappingURL=\S+\s*\Z", b"", original)
        assert hashlib.sha256(content).hexdigest() == library["sha256"]
        assert pinned[library["package"]] == library["version"]
    brought = ["entities", "linkify-it", "mdurl", "punycode.js", "uc.micro"]
    licences = {
        "highlight.js": "@highlightjs/cdn-assets",
        **{each: each for each in ["dompurify", "markdown-it", *brought]},
    }
    assert sorted(licences) == sorted(each.name[: -len(".txt")] for each in vendor.joinpath("licences").iterdir())
    for name, package in licences.items():
        (licence,) = [each for each in Path(modules, package).glob("LICENSE*") if "MPL" not in each.name]
        assert vendor.joinpath("licences", f"{name}.txt").read_bytes() == licence.read_bytes()
