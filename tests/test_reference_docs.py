"""The reference is a promise: each public name is on one page of it, and its tables have what the code has."""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import stat
import warnings
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple, Type

import click
import pytest

import copilot_sync
from copilot_sync import Ledger, events, settings, user_config
from copilot_sync.answer_folder import MAX_BYTES, MAX_FILES
from copilot_sync.auth.stored_logins import StoredLogin, store_login
from copilot_sync.cli import backend, batch, chat, last_conversation, line_input, program, serve
from copilot_sync.client import Client
from copilot_sync.contrib.openai_gateway import guard
from copilot_sync.delivery import answer_builder
from copilot_sync.emulator import Emulator
from copilot_sync.errors import CopilotError
from copilot_sync.pacing.limiter import BY_HOST
from copilot_sync.protocol.requests import MessageOptions
from copilot_sync.secret import Secret
from copilot_sync.transport import proxies
from copilot_sync.user_folders import cache_folder, config_folder, state_folder

HOME = Path(__file__).parents[1]
PACKAGE = HOME / "copilot_sync"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((HOME / "docs").glob("*.rst"))}
#: Public names of modules that offer others to the package alone, so that they have no ``__all__``.
OTHERS = {
    "copilot_sync.contrib.django.ledger.DjangoLedger",
    "copilot_sync.emulator.pytest_plugin.copilot_emulator",
    "copilot_sync.message_tree.newest_branch",
    "copilot_sync.naming.ThreadNaming",
    "copilot_sync.protocol.requests.MessageOptions",
}
_DIRECTIVE = re.compile(r"^\.\. (?:(currentmodule|py:module)|(auto\w+|py:\w+)):: +([\w.]+)", re.MULTILINE)


def _public_names() -> Dict[str, str]:
    """Each public name by the name of what it is: the path by which users import it."""
    names = {f"copilot_sync.{name}" for name in copilot_sync.__all__ if not name.startswith("__")}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(HOME).with_suffix("").parts)
        module = module[: -len(".__init__")] if path.name == "__init__.py" else module
        if module != "copilot_sync._public":
            names.update(f"{module}.{name}" for name in _offered(path))
    return {_home_of(name): name for name in sorted(names | OTHERS, key=len, reverse=True)}


def _offered(path: Path) -> List[str]:
    """Return the ``__all__`` of a module, without what it needs to be imported."""
    values = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = node.value
    value = values.get("__all__")
    if isinstance(value, ast.Call):  # ``list(_HOMES)``
        value = values["_HOMES"]
    return [] if value is None else list(ast.literal_eval(value))


def _home_of(name: str) -> str:
    """Return where a name is defined, so that one thing with two paths is one; the name itself if nothing tells."""
    module, _, attribute = name.rpartition(".")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what langsmith calls, on Python 3.14
            value = getattr(importlib.import_module(module), attribute)
    except ImportError:  # what an extra would bring is not here, or Django has no settings
        return name
    home = getattr(value, "__module__", None)
    return f"{home}.{attribute}" if isinstance(home, str) and home.startswith("copilot_sync") else name


def _directives() -> List[Tuple[str, str, str]]:
    """Each directive that describes something: its page, its own name and what it describes."""
    found = []
    for page, text in PAGES.items():
        module = ""
        for current, kind, name in _DIRECTIVE.findall(text):
            if current:
                module = name
            else:
                found.append((page, kind, name if name.startswith("copilot_sync.") else f"{module}.{name}"))
    return found


def test_each_public_name_is_on_one_page() -> None:
    """Under the path by which users import it; neither on none nor on two."""
    places: Dict[str, List[str]] = {}
    for page, _, name in _directives():
        places.setdefault(_home_of(name), []).append(f"{page}: {name}")
    public = _public_names()
    assert {home: found for home, found in places.items() if len(found) > 1} == {}
    assert sorted(public[home] for home in set(public) - set(places)) == []
    assert sorted(found[0] for home, found in places.items() if home not in public) == []


def test_no_page_describes_a_name_that_is_gone() -> None:
    """A directive with its own words, or one for a module of an extra that is not installed, would not notice."""
    kinds = {kind for _, kind, _ in _directives()}
    assert kinds <= {"autoclass", "autodata", "autoexception", "autofunction"}
    names = set(_public_names().values())
    assert [name for _, _, name in _directives() if name not in names] == []


def test_the_overview_links_each_page() -> None:
    """A page that has directives is in the table of the first one."""
    linked = set(re.findall(r":doc:`(\w+)`  ", PAGES["api"]))
    assert {page for page, _, _ in _directives()} == linked


@pytest.mark.parametrize("page", sorted(page for page in PAGES if page.startswith("api_")))
def test_the_overview_has_the_page_in_its_contents(page: str) -> None:
    """Once, so that a reader can go from one to the next."""
    assert PAGES["api"].count(f"\n   {page}\n") == 1


def _first_cells(text: str) -> List[str]:
    """Return the names in the first column of the tables of a text."""
    return re.findall(r"``(\w+)``", "\n".join(re.findall(r"^(``\w+``(?:, ``\w+``)*)  ", text, re.MULTILINE)))


def test_the_table_has_each_option_of_a_question() -> None:
    """With its default, and with those that take it."""
    _, _, table = PAGES["api_client"].partition("Options of a question\n")
    rows = re.findall(r"^``(\w+)`` +((?:ask|stream|, )+)  +(\S+(?: \S+)*)  ", table, re.MULTILINE)
    ask, stream = (inspect.signature(method).parameters for method in (Client.ask, Client.stream))
    fields = inspect.signature(MessageOptions).parameters
    for name, takers, default in rows:
        of_each = {"ask": {**ask, **stream}, "stream": stream}  # ``ask`` hands on what it does not know
        assert takers == ", ".join(who for who, names in of_each.items() if name in names or name in fields)
        value = {**ask, **stream, **fields}[name].default
        if default not in ("none", "the client's", "a new one", "any text", "the last message"):
            assert default == f"``{value}``"
        else:
            assert not value or name in ("retry", "extra")  # the client's, and a new mapping each time
    options = [name for name in {**ask, **stream, **fields} if name not in ("self", "prompt", "options")]
    assert sorted(name for name, _, _ in rows) == sorted(options)


def test_the_settings_are_those_that_are_read() -> None:
    """The table of variables names exactly those that exist, with their defaults."""
    page = PAGES["settings"]
    known = {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")} | {guard.KEY_VARIABLE}
    assert set(re.findall(r"^``(COPILOT_SYNC_\w+)``", page, re.MULTILINE)) == known
    for default in (settings.GITHUB_URL, settings.API_URL, settings.MODEL):
        assert f"default ``{default}``" in page


def test_each_variable_of_other_programs_is_in_the_page() -> None:
    """Every name that the package looks up in the environment by itself, and those that decide the proxy."""
    found = set(proxies._VARIABLES) - {"REQUEST_METHOD"}  # which a server sets for CGI programs
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found.update(re.findall(r'os\.environ(?:\.get\(|\[)"(\w+)"', text))
        found.update(re.findall(r'"(XDG_\w+|LOCALAPPDATA|OTEL_\w+)"', text))
    named = set(_first_cells(PAGES["settings"]))
    assert {name.upper() for name in found} - named == set()


def test_the_keys_of_the_config_file_are_those_that_it_may_have() -> None:
    """In the order in which ``config`` shows them, with the types that are checked."""
    _, _, section = PAGES["settings"].partition(".. _config-file:\n")
    rows = re.findall(r"^``(\w+)`` +(string|integer)  ", section, re.MULTILINE)
    assert [name for name, _ in rows] == list(user_config.NAMES)
    assert [name for name, kind in rows if kind == "integer"] == list(user_config.NUMBERS)


def _event_classes() -> List[type]:
    return [value for value in vars(events).values() if isinstance(value, type) and issubclass(value, events.Event)]


def test_the_table_has_each_event_with_its_fields() -> None:
    """Those that it has besides ``type`` and ``data``."""
    _, _, table = PAGES["events"].partition("The classes\n")
    table, _, _ = table.partition("- A reply that ends")
    rows = re.findall(r"^``(\w+)``  (.{36})(.*\n(?: {22}.*\n)*)", table, re.MULTILINE)
    documented = {name: re.findall(r"``(\w+)``", first + _second_column(rest)) for name, first, rest in rows}
    base = {field.name for field in dataclasses.fields(events.Event)}
    assert documented == {
        kind.__name__: [field.name for field in dataclasses.fields(kind) if field.name not in base]
        for kind in _event_classes()
        if kind is not events.Event
    }


def _second_column(rest: str) -> str:
    return "".join(line[22:56] for line in rest.splitlines()[1:])


def test_the_events_are_as_many_as_an_answer_keeps() -> None:
    """By number and by size."""
    assert f"holds {answer_builder.MAX_EVENTS:,} of them and 1 MiB at most" in PAGES["events"].replace("\n  ", " ")
    assert answer_builder.MAX_EVENT_BYTES == 1024 * 1024


def _error_classes(kind: Type[CopilotError] = CopilotError) -> Iterator[Type[CopilotError]]:
    """Yield a class of errors of the package, then those below it; not those of tests."""
    yield kind
    for below in [each for each in kind.__subclasses__() if each.__module__.startswith("copilot_sync.")]:
        yield from _error_classes(below)


def test_the_tree_is_that_of_the_classes() -> None:
    """Each class stands below the one that it comes from."""
    tree = re.findall(r"^ {4}([│ ├└─]*)(\w+Error)$", PAGES["error_classes"], re.MULTILINE)
    parents, above = {}, [""] * 9
    for indent, name in tree:
        depth = len(indent) // 4
        above[depth] = name
        parents[name] = above[depth - 1] if depth else ""
    found = {kind.__name__: kind.__mro__[1].__name__ for kind in _error_classes()}
    assert parents == {**found, "CopilotError": ""}


def test_the_tables_have_each_error() -> None:
    """And every attribute that one has besides those of the class that it comes from; nothing else."""
    classes, _, attributes = PAGES["error_classes"].partition("Attributes\n----------\n")
    listed = re.findall(r"^``(\w+Error)``  ", classes, re.MULTILINE)
    assert sorted(["CopilotError", *listed]) == sorted(kind.__name__ for kind in _error_classes())
    rows = re.findall(r"^``(\w+)``  +``(\w+Error)``(?:,  .*\n {24}``(\w+Error)``)?(?:  |\n)", attributes, re.MULTILINE)
    documented = {(owner, name) for name, *owners in rows for owner in owners if owner}
    assert documented == {(kind.__name__, name) for kind in _error_classes() for name in _own_attributes(kind)}


def _own_attributes(kind: Type[CopilotError]) -> Set[str]:
    """Return the public attributes that an error of a class has, and one of the class above has not.

    A ``RequestTimeoutError`` is an ``OSError`` too, whose attributes say nothing here.
    """
    inherited = [] if kind is CopilotError else dir(kind.__mro__[1]("words"))
    return {name for name in set(dir(kind("words"))) - {*inherited, *dir(OSError)} if not name.startswith("_")}


@pytest.mark.parametrize("kind", list(_error_classes()), ids=lambda kind: kind.__name__)
def test_each_error_ends_the_program_with_the_status_of_the_page(
    kind: Type[CopilotError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure; the class is not named."""
    statuses = dict(re.findall(r"^``(\d+)``  +(.*)", PAGES["error_classes"], re.MULTILINE))

    def fail(**options: object) -> None:
        raise kind("nothing came")

    monkeypatch.setattr(program.program, "main", fail)
    status = program.run(["models"])
    assert statuses[str(status)].startswith("every ``CopilotError``")
    assert "nothing came" in capsys.readouterr().err


def test_the_exit_statuses_are_those_of_the_program() -> None:
    """Success, those that the modules name, and click's for wrong usage."""
    listed = re.findall(r"^``(\d+)``  +\S", PAGES["error_classes"], re.MULTILINE)
    known = [0, program.FAILED, click.UsageError.exit_code, batch.SOME_FAILED, program.INTERRUPTED]
    assert [int(status) for status in listed] == known
    assert batch.FAILED == program.FAILED
    assert re.findall(r"^(\d+)  +\S", PAGES["cli"].partition("Exit statuses\n")[2], re.MULTILINE) == listed


FOLDERS = {"config": config_folder, "cache": cache_folder, "state": state_folder}


@pytest.fixture
def _every_file(served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands and clients leave behind, in the places that the command line chooses."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"id": "one", "prompt": "Hello"}\n', encoding="utf-8")
    urls = {"github_url": served.github_url, "api_url": served.api_url}
    store_login("work", StoredLogin(Secret(dict(served.cookies)), served.github_url))
    commands = ["config set model auto", "ask Hello", "batch prompts.jsonl -o out.jsonl --cache"]
    assert [program.run(command.split()) for command in commands] == [0, 0, 0]
    limits = backend._limits(settings.Urls(settings.GITHUB_URL, settings.API_URL), (None, BY_HOST))
    with Client(cookies=served.cookies, ledger=True, **limits, **urls) as client:
        client.ask("Hello")
    guard.key_of_user()
    line_input.History(os.path.join(state_folder(), "chat-history")).add("Hello")


@pytest.mark.skipif(os.name != "posix", reason="the modes are those of POSIX")
@pytest.mark.usefixtures("_every_file")
def test_the_table_has_each_file_of_the_users_folders() -> None:
    """Each is its owner's alone, and so is its folder."""
    section = PAGES["files"].partition("Files of the command line\n")[2]
    rows = re.findall(r"^(config|cache|state) +``([\w./-]+)``  ", section, re.MULTILINE)
    found = set()
    for name, folder in FOLDERS.items():
        for path in filter(Path.is_file, Path(folder()).rglob("*")):
            assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
            found.add((name, _pattern_of(path.relative_to(folder()).as_posix())))
    assert found == {row for row in rows if row[1] != "gateway-batches/"}  # which a server makes
    assert "gateway-batches" in inspect.getsource(serve)
    assert "chat-history" in inspect.getsource(chat)


def _pattern_of(path: str) -> str:
    """Return a path as the page writes it."""
    path = re.sub(r"^credentials/\w+", "credentials/PROFILE", path)
    path = re.sub(r"^(answers/answer|limits/limits)-\w+", r"\1-*", path).replace("answer-*", "answer-KEY")
    return re.sub(r"-(wal|shm)$", "", path.replace("limits-*", "limits-ACCOUNT"))


def test_the_numbers_about_files_are_those_of_the_code() -> None:
    """How much is kept, and for how long."""
    page = " ".join(PAGES["files"].split())
    assert line_input.HISTORY_LIMIT == 1000
    assert "1,000 are recalled" in page
    assert f"{MAX_FILES:,} files" in page
    assert f"{MAX_BYTES >> 20} MiB at most" in page
    assert last_conversation._LIFETIME == 365 * 86400
    assert inspect.signature(Ledger).parameters["keep_days"].default == 400


@pytest.mark.parametrize("platform, column", [("linux", 0), ("darwin", 1)])
def test_the_folders_are_those_of_each_system(platform: str, column: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variables of XDG."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "/~"))
    rows = re.findall(r"^(config|cache|state) +``(~[^`]+)`` +``(~[^`]+)``$", PAGES["files"], re.MULTILINE)
    shown = {name: columns[column] for name, *columns in rows}
    assert shown == {name: folder(platform, {})[1:] for name, folder in FOLDERS.items()}


def test_the_folders_are_those_of_windows() -> None:
    """Without the variables of XDG."""
    found = {name: folder("win32", {"LOCALAPPDATA": "/local"}) for name, folder in FOLDERS.items()}
    above = "/local/copilot-sync"
    assert found == {"config": above, "state": above, "cache": f"{above}/Cache"}
    assert "config and state are ``%LOCALAPPDATA%\\copilot-sync``" in PAGES["files"]
    assert "``%LOCALAPPDATA%\\copilot-sync\\Cache``" in PAGES["files"]
