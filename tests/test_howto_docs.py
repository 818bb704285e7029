"""The tables of the how-to pages say what the code says. ``tests/pages`` runs their blocks."""

import importlib.util
import inspect
import re
from pathlib import Path
from typing import List, Set

import pytest

import copilot_sync
from copilot_sync import CopilotError, RetryPolicy, Timeout, errors
from copilot_sync.cli import login
from copilot_sync.transport import call_limits

_HOME = Path(__file__).parents[1]


def _page(name: str) -> str:
    return (_HOME / "docs" / f"{name}.rst").read_text(encoding="utf-8")


def _first_column(page: str, title: str) -> List[str]:
    """Return the first cells of the rows below the heading of a table that begins with a word."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{title} "))
    width = lines[start + 1].index(" ")
    rows = lines[start + 2 : next(n for n in range(start + 2, len(lines)) if lines[n].startswith("==="))]
    return [row[:width].strip() for row in rows if row[:width].strip()]


def _source() -> str:
    """Return the package's text, with what its lines split put together."""
    found = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path(copilot_sync.__path__[0]).rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", found)


def test_each_error_is_named() -> None:
    """The page of errors tells of each class."""
    kinds: Set[str] = {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, CopilotError)
    }
    assert sorted(kinds - set(re.findall(r"``(\w+Error)``", _page("errors")))) == []


def test_the_defaults_are_those_of_the_code() -> None:
    """As they stand in the text."""
    assert "``RetryPolicy(attempts=4, base=0.5, cap=8.0, max_wait=60.0)``" in _page("errors")
    assert RetryPolicy(attempts=4, base=0.5, cap=8.0, max_wait=60.0) == RetryPolicy()
    assert "``Timeout(connect=10, read=60, stall=600, total=None)``" in _page("timeouts")
    assert Timeout(connect=10, read=60, stall=600, total=None) == Timeout()


def test_each_stage_is_named() -> None:
    """Those of ``CopilotError.stage``."""
    (stages,) = re.findall(r"stage: The step that failed: (.+?);", inspect.getdoc(CopilotError) or "", re.DOTALL)
    (told,) = re.findall(r"- ``stage`` is the step that failed: (.+?)\n- ", _page("errors"), re.DOTALL)
    assert re.findall(r"``(\w+)``", told) == re.findall(r"``(\w+)``", stages)


def test_each_phase_of_a_timeout_is_named() -> None:
    """In the order in which a call goes through them."""
    phases = [cell.strip("`") for cell in _first_column(_page("timeouts"), "``phase``")]
    assert phases == list(call_limits._TIMEOUT_WORDS)


def test_the_loggers_exist() -> None:
    """Each is a module or a package."""
    names = re.findall(r"``([\w.]+)``", "\n".join(_first_column(_page("logging"), "logger")))
    assert len(names) == 10
    assert [name for name in names if importlib.util.find_spec(name) is None] == []


#: What OpenSSL says.
_OPENSSLS = ["unable to get local issuer certificate", "Hostname mismatch", "wrong version number"]


@pytest.mark.parametrize(("page", "title"), [("proxies", "the message says"), ("credentials", "``doctor`` says")])
def test_the_messages_are_those_of_the_code(page: str, title: str) -> None:
    """Whoever searches for one finds it: its words, but for what differs from one to the next."""
    source = _source()
    parts = [
        re.sub(r"^the proxy failed: ", "", part.strip())
        for words in re.findall(r"``([^`]+)``", "\n".join(_first_column(_page(page), title)))
        for part in re.split(
            r"…|'cookies.txt'|\b10 s|\b\d{3}\b|github\.com|the user_session|COPILOT_SYNC_API_KEY", words
        )
        if part.strip() not in ("", *_OPENSSLS)
    ]
    assert len(parts) > 5
    unknown = [part for part in parts if part not in source]
    assert unknown == []


def test_no_page_installs_an_extra_from_a_folder_that_readers_may_not_have() -> None:
    """The page that explains how to install names the way in a checkout, and so may the first page."""
    pages = [path for path in sorted((_HOME / "docs").glob("*.rst")) if path.stem not in ("index", "usage")]
    assert [
        path.stem for path in pages if re.search(r"""pip install .*["' ]\.\[""", path.read_text(encoding="utf-8"))
    ] == []
    assert "\n.. _installing:\n" in _page("usage")


def test_the_menu_of_login_is_the_one_in_the_page() -> None:
    """Line for line."""
    menu = login._MENU.format(host="github.com").splitlines()
    lines = [line.strip() for line in _page("credentials").splitlines()]
    assert [line.strip() for line in menu if line.strip() not in lines] == []
