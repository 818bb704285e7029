"""The blocks of code on the pages of the documentation, typed as a reader types them.

A block of output right behind a block of code, at the same indent, is all that the code prints, errors included. ``…``
stands for any text within a line, and a line ``…`` for any lines. ``CHANGING`` has what differs from run to run.

Readers don't see comments, and a comment says what a test can't know of the next block:

``.. not run: REASON``
    Nobody types it.
``.. not printed: REASON``
    It is not what the block before it prints.

Lessons have more of them: see ``tests/pages/lessons.py``.
"""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import copilot_sync
from copilot_sync.auth.stored_logins import StoredLogin, store_login
from copilot_sync.emulator import Emulator
from copilot_sync.profiles import DEFAULT_PROFILE
from copilot_sync.secret import Secret

#: The folder in which the package is, for programs that run in another one.
_HOME = str(Path(copilot_sync.__file__).parents[1])
DOCS = Path(__file__).parents[1] / "docs"

#: What differs from run to run, by what stands in its place when the page is compared with the output.
CHANGING = {
    "HOST": r"\b(?:github\.com|api\.individual\.githubcopilot\.com|proxy\.example:\d+|127\.0\.0\.1:\d+)(?![\w.])",
    "SCHEME://": r"\bhttps?://",
    "DATE": r"\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?)?",
    "ID": r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    "SECONDS s": r"\b\d+\.\d+ s\b",
}
#: What stands for what a page leaves out.
ANY = "…"
_CODE = ("python", "sh")
_OUTPUT = ("json", "none", "text")
_ELEMENT = re.compile(r"^( *)\.\. ([a-z][a-z -]*)(?:(::|:)(?: +(.*))?)?$")


class Element(NamedTuple):
    """A directive, or a comment: ``name`` and what stands behind it. Of a block of code it has the rest, too."""

    name: str
    value: str
    #: The lines, from 1, where it begins and where the page goes on.
    line: int
    end: int
    indent: int
    is_comment: bool
    options: List[str]
    text: str


class Block(NamedTuple):
    """A block of code, and what it prints if the page shows it."""

    page: str
    line: int
    language: str
    text: str
    is_not_run: bool = False
    shown: Optional[str] = None


def name_of(block: Block) -> str:
    """What its test is called."""
    return f"{block.page}: {block.text.splitlines()[-1].strip()[:40]}"


def elements(page: Path) -> Iterator[Element]:
    """What a page has but prose, in order. What stands in a block of code is no element."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        found, number = _ELEMENT.match(lines[number]), number + 1
        if not found:
            continue
        indent, name, colons, value = found.groups()
        line, text = number, ""
        options: List[str] = []
        if name == "code-block":
            options, text, number = _body(lines, number, len(indent))
        while number < len(lines) and not lines[number]:
            number += 1
        yield Element(name, (value or "").strip(), line, number + 1, len(indent), colons != "::", options, text)


def _body(lines: List[str], number: int, indent: int) -> Tuple[List[str], str, int]:
    """The options and the text of a block, and the number of the line behind it."""
    inside = []
    while number < len(lines) and (not lines[number].strip() or lines[number].startswith(" " * (indent + 1))):
        inside.append(lines[number])
        number += 1
    end = inside.index("") if "" in inside else len(inside)
    return inside[:end], textwrap.dedent("\n".join(inside[end:])).strip("\n"), number


def blocks_of(page: Path, *languages: str) -> List[Block]:
    """The blocks of a page, in order: those in these languages, or all if none is named."""
    found: List[Block] = []
    marks: List[str] = []
    #: Language and indent of the block before, and the line behind it and its comments.
    before = ("", 0, 0)
    for each in elements(page):
        if each.is_comment:
            marks.append(each.name)
            if each.line == before[2]:
                before = (*before[:2], each.end)
        elif each.name == "code-block":
            if before == (before[0], each.indent, each.line) and _prints(before[0], each.value, marks):
                found[-1] = found[-1]._replace(shown=each.text)
            found.append(Block(page.stem, each.line, each.value, each.text, "not run" in marks))
            before = (each.value, each.indent, each.end)
            marks = []
    return [block for block in found if not languages or block.language in languages]


def _prints(code: str, output: str, marks: List[str]) -> bool:
    return code in _CODE and output in _OUTPUT and "not printed" not in marks


def texts_of(page: Path, *languages: str) -> List[str]:
    """The texts of these blocks."""
    return [block.text for block in blocks_of(page, *languages)]


def text_with(word: str, page: Path, *languages: str) -> str:
    """The text of the one block among these that has a word in it."""
    (found,) = [text for text in texts_of(page, *languages) if word in text]
    return found


def shows(shown: List[str], output: str, *, so_far: bool = False) -> bool:
    """Whether a reader who compares the output with the lines of the page finds them equal."""
    pattern = ""
    for line in shown:
        if line.strip() == ANY:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(map(re.escape, line.rstrip().split(ANY))) + r"[ \t]*\n"
    lines = "".join(f"{line}\n" for line in output.strip("\n").splitlines())
    return not shown or bool(re.match(pattern if so_far else rf"{pattern}\Z", lines))


def type_block(block: Block, folder: Path) -> str:
    """Type a block in a folder, with nothing but the environment set, and return what it prints.

    Raises:
        AssertionError: it did not end well, or printed something else than the page shows.
    """
    command = [sys.executable, "-W", "error", "-c"] if block.language == "python" else ["/bin/sh", "-e", "-c"]
    printed = _run([*command, block.text], folder, f"{block.page}.rst, line {block.line}")
    if block.shown is not None and not shows(_unchanging(block.shown).splitlines(), _unchanging(printed)):
        raise AssertionError(
            f"{block.page}.rst, line {block.line}: the page shows\n\n{block.shown}\n\nand this came:\n\n{printed}"
        )
    return printed


def run_tests(texts: List[str], folder: Path) -> str:
    """Let pytest run modules of tests in a folder, with no other settings, and return what it prints."""
    for number, text in enumerate(texts):
        (folder / f"test_page_{number}.py").write_text(f"{text}\n", encoding="utf-8")
    plugins = ["-p", "no:cacheprovider", "-p", "no:langsmith_plugin"]  # which LangChain brings: see tox.ini
    return run_module(folder, "pytest", "-q", *plugins, "--rootdir", str(folder))


def run_module(folder: Path, *command: str) -> str:
    """Run a module of Python in a folder, which has to end well, and return what it prints."""
    return _run([sys.executable, "-W", "error", "-m", *command], folder, command[0])


def _run(command: List[str], folder: Path, name: str) -> str:
    programs = folder / "bin"
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(filter(None, [_HOME, os.environ.get("PYTHONPATH")])),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    printed = done.stdout.decode()
    if done.returncode:
        raise AssertionError(f"{name}: the status is {done.returncode}\n\n{printed}")
    return printed


def _unchanging(text: str) -> str:
    for name, pattern in CHANGING.items():
        text = re.sub(pattern, name, text)
    return text


def prepare(folder: Path, served: Emulator) -> None:
    """Put there the programs and files that pages name, and store the logins of a reader."""
    for profile in (DEFAULT_PROFILE, "work"):
        store_login(profile, StoredLogin(Secret(dict(served.cookies)), served.github_url))
    python = f"exec {shlex.quote(sys.executable)}"
    write_programs(folder / "bin", {"copilot-sync": f"{python} -W error -m copilot_sync", "python": python})
    (folder / "app.py").write_text("x = 1\n")
    (folder / "prompts.jsonl").write_text('{"id": "one", "prompt": "Hello"}\n')
    cookies = [f".github.com\tTRUE\t/\tTRUE\t0\t{name}\t{value}\n" for name, value in served.cookies.items()]
    (folder / "cookies.txt").write_text("".join(cookies))


def write_programs(folder: Path, commands: Dict[str, str]) -> None:
    """Write a program for each command, by its name. It hands its arguments on."""
    folder.mkdir()
    for name, command in commands.items():
        (folder / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
        (folder / name).chmod(0o755)
