"""The command line speaks Russian to those whose locale is Russian, wholly, and English to everybody else."""

import ast
import gettext
import inspect
import io
import json
import os
import re
import string
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

import click
import pytest
from command_line import ALL, command, each_command
from terminals import CTRL_D, Terminal

from copilot_sync.auth.cookies import FoundCookies
from copilot_sync.cli import config, language
from copilot_sync.cli.checks import check_credentials
from copilot_sync.cli.durations import duration
from copilot_sync.cli.output import ago
from copilot_sync.cli.program import COMMANDS, run
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.settings import Environment

CLI = Path(language.__file__).parent
CATALOG = Path(language.LOCALE, "ru", "LC_MESSAGES", "copilot-sync.po")
#: The locale of somebody who reads Russian, and nothing else.
RUSSIAN = {"LANGUAGE": "", "LC_ALL": "", "LC_MESSAGES": "", "LANG": "ru_RU.UTF-8"}
#: What the line editor sends when a line can be typed.
READY = "\x1b[?2004h"
MARKS = ("_", "ngettext", "marked")
#: What a line of examples has if it says something, and is not just typed.
SAYING = re.compile(r'"[A-Z][a-z][^"]*"')
#: Words of English sentences, which no Russian text has.
ENGLISH = re.compile(
    r"(?<![-\w./])(a|an|the|and|are|be|by|can|cannot|can't|for|from|has|have|if|is|it|its|no|not|of|one|or|so|such|that|there|this"
    r"|to|use|was|were|what|when|with|you|your|Error|Usage|Options|Commands|Try|Missing|Examples)(?![-\w/])"
)


class Entry(NamedTuple):
    """What the catalog has for a text."""

    texts: List[str]
    translations: List[str]
    comments: List[str]


def entries() -> Iterator[Entry]:
    """Read the catalog, but its head."""
    for block in CATALOG.read_text(encoding="utf-8").strip().split("\n\n")[1:]:
        lines = block.split("\n")
        values: Dict[str, List[str]] = {}
        for line in lines:
            found = re.match(r'(msg\w+)(?:\[\d\])? (".*")$|()(".*")$', line)
            if found is None:
                assert line.startswith("#")
            elif found[1]:
                key = found[1]
                values.setdefault(key, []).append(ast.literal_eval(found[2]))
            else:
                values[key][-1] += ast.literal_eval(found[4])
        yield Entry(
            [*values["msgid"], *values.get("msgid_plural", [])],
            values["msgstr"],
            [line for line in lines if line.startswith("#")],
        )


ENTRIES = list(entries())
#: Those of click, in the words of each of its releases.
OF_CLICK = [entry for entry in ENTRIES if entry.comments == ["#. click"]]
OURS = [entry for entry in ENTRIES if not entry.comments]


def modules() -> Iterator[Tuple[str, ast.Module]]:
    for path in sorted(CLI.glob("*.py")):
        yield path.name, ast.parse(path.read_text(encoding="utf-8"))


def name_of(node: ast.Call) -> str:
    """The name of what a node calls."""
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def marked_texts() -> Iterator[Tuple[str, ...]]:
    """Yield each text that the modules mark; if there are two forms, both of them."""
    for _module, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node) in MARKS:
                texts = tuple(str(each.value) for each in node.args if isinstance(each, ast.Constant))
                if texts:
                    yield texts


def help_texts() -> Iterator[Tuple[str]]:
    """Yield the help of each command and option, and the lines of examples that say something."""
    yield ("Examples:",)
    for each in ALL.values():
        yield (inspect.cleandoc(str(each.help)),)
        for line in str(each.epilog).split("\n"):
            if SAYING.search(line):
                yield (line,)
        for option in each.params:
            if isinstance(option, click.Option):
                yield (str(option.help),)
                if isinstance(option.show_default, str):
                    yield (option.show_default,)


def test_every_text_is_translated_and_no_other() -> None:
    """What is new or has changed is to be translated, and what is gone is to be removed."""
    wanted = {texts for texts in [*marked_texts(), *help_texts()] if texts[0] != "Show the version and exit."}
    had = {tuple(entry.texts) for entry in OURS}
    of_click = {tuple(entry.texts) for entry in OF_CLICK}
    assert "\n\n".join(sorted(f'msgid "{texts[0]}"' for texts in wanted - had - of_click)) == ""
    assert had - wanted == set()


def test_no_translation_is_empty_or_doubtful() -> None:
    """Each is there in as many forms as Russian has, and nobody has yet to look at one."""
    assert len({entry.texts[0] for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert entry in OURS or entry in OF_CLICK, f"{entry.comments} is no comment of this catalog"
        assert len(entry.translations) == (1 if len(entry.texts) == 1 else 3)
        assert all(entry.translations), entry


def places_of(text: str) -> Set[str]:
    return {f"{name}!{conversion}:{form}" for _, name, form, conversion in string.Formatter().parse(text) if name}


def test_a_translation_has_places_for_the_same_values() -> None:
    """But one of click's, which would show the name of a type in English."""
    for entry in ENTRIES:
        if any(
            '{"' in text or "name=value" in text for text in entry.texts
        ):  # JSON in a help text, which has no values
            continue
        known = set().union(*map(places_of, entry.texts))
        for text in entry.translations:
            places = places_of(text) | ({"number_type!None:"} & known)
            assert places == known or (len(entry.texts) == 2 and places in map(places_of, entry.texts)), text


def test_the_compiled_catalog_is_this_one() -> None:
    """``msgfmt`` was run after the last change."""
    with open(CATALOG.with_suffix(".mo"), "rb") as file:
        compiled = gettext.GNUTranslations(file)
    for entry in ENTRIES:
        if len(entry.texts) == 1:
            assert compiled.gettext(entry.texts[0]) == entry.translations[0]
        else:
            one, many = entry.texts
            assert [compiled.ngettext(one, many, count) for count in (1, 2, 5)] == entry.translations
    assert len(set(compiled._catalog)) == sum(len(entry.translations) for entry in ENTRIES) + 1


#: Calls that show their arguments to somebody.
SHOWING = ("Check", "ClickException", "UsageError", "_note", "confirm", "echo", "prompt", "show_heading")
#: Names, and what is typed: they are the same in each language.
TYPED = re.compile(r"--[\w-]+|\b(copilot-sync|pip|export)\b.*|Python|netrc|urllib3|\x1b\S*")
#: How literals of several words begin that nobody is shown, or that are translated otherwise.
NOT_SHOWN = (
    "# Settings of copilot-sync.",  # what a new config file holds
    "GitHub Copilot Chat in the terminal.",  # the help of the program, and its examples
    "\b\nExamples:",
    "No access to GitHub Copilot",  # it is looked for in an error of the library's
    "sign in again",  # so is this
    "something else was changed as well",  # it is caught
    "there is no user_session among the cookies",  # an error of the library's, as its others
)


def shown_literals(node: ast.AST) -> Iterator[str]:
    """Yield the literals in what is shown, but those that other calls have taken, such as marks."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, ast.Call):
        for child in ast.iter_child_nodes(node):
            yield from shown_literals(child)


def test_what_is_shown_is_marked() -> None:
    """A call that shows something gets no English words but those that are translated before."""
    found = [
        f"{module}:{node.lineno}: {literal}"
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name_of(node) in SHOWING
        for argument in node.args
        for literal in shown_literals(argument)
        if re.search("[A-Za-z]{2}", TYPED.sub("", literal))
    ]
    assert found == []


def unmarked(node: ast.AST) -> Iterator[Tuple[int, str]]:
    """Yield the literals that are neither marked nor docstrings nor the help of a command, which is looked up."""
    if isinstance(node, ast.Call) and name_of(node) in MARKS:
        return
    if isinstance(node, ast.keyword) and node.arg in ("help", "epilog", "show_default"):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    for child in ast.iter_child_nodes(node):
        yield from unmarked(child)


def test_every_sentence_is_marked() -> None:
    """Wherever it stands: a literal of several words is for somebody who reads."""
    found = [
        f"{module}:{line}: {text}"
        for module, tree in modules()
        for line, text in unmarked(tree)
        if re.search("[a-z]+ [a-z]+ [a-z]+", text) and not text.startswith(NOT_SHOWN)
    ]
    assert found == []


#: Runs the commands that are given as JSON, in the user's language, and divides what they print.
PROGRAMS = """
import json, sys
from copilot_sync.cli.language import speaking
with speaking():
    from copilot_sync.cli.program import run
    for arguments in json.loads(sys.argv[1]):
        print(f"status {run(arguments)}", flush=True)
        print("\\x1e", end="", flush=True)
"""


def printed(*calls: List[str], **variables: str) -> List[str]:
    """What each of several calls prints, to stdout and stderr, with its status as the last line."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS, json.dumps(calls)],
        env={**os.environ, "COLUMNS": "80", **RUSSIAN, **variables},
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout.decode().split("\x1e")[:-1]


@pytest.fixture(scope="module")
def helped() -> Dict[Tuple[str, ...], str]:
    """The Russian help of each command."""
    return dict(zip(ALL, printed(*([*path, "--help"] for path in ALL))))


@each_command
def test_no_help_has_english_left(path: Tuple[str, ...], helped: Dict[Tuple[str, ...], str]) -> None:
    """The words of click are Russian too. Names, and what is typed, are as they are."""
    shown = helped[path]
    assert shown.startswith("Использование: copilot-sync")
    assert shown.endswith("\nstatus 0\n")
    for words in ("Параметры:", "Показать эту справку и выйти.", "Примеры:"):
        assert words in shown
    assert [line for line in shown.partition("Примеры:")[0].split("\n") if ENGLISH.search(line)] == []
    assert max(map(len, shown.split("\n"))) <= 80


def test_the_commands_are_listed_in_russian(helped: Dict[Tuple[str, ...], str]) -> None:
    """Each has a summary of its own."""
    listed = helped[()].partition("Команды:\n")[2].partition("\n\n")[0].split("\n")
    assert len(set(listed)) == len(COMMANDS)
    assert all(re.search("[а-яё]{4}", line) for line in listed)


@pytest.mark.parametrize("variables", [{"LANG": "en_US.UTF-8"}, {"LANG": ""}], ids=["en", "unset"])
def test_english_help_is_what_it_was(variables: Dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Word for word, and a program that was Russian before has left nothing of that."""
    assert run(["threads", "--help"]) == 0
    english = capsys.readouterr().out
    assert printed(["threads", "--help"], COLUMNS="", **variables) == [f"{english}status 0\n"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in RUSSIAN.items():
            patch.setenv(name, value)
        with language.speaking():
            assert run(["threads", "--help"]) == 0
            assert "Диалоги" in capsys.readouterr().out.title()
    assert run(["threads", "--help"]) == 0
    assert capsys.readouterr().out == english


WRONG = {
    "--nope": "Нет параметра",
    "askk": "Нет команды 'askk'. Возможно, вы имели в виду ask?",
    "zzz": "Нет команды 'zzz'.",
    "batch": "Не указан аргумент 'IN'.",
    "batch nowhere -o x": "Файл 'nowhere' не существует.",
    "batch . -o x": "Файл '.' — это каталог.",
    "batch -": "Не указан параметр '-o' / '--output'.",
    "ask --repairs x hi": "'x' — не число.",
    "ask --timeout 0 hi": "0.0 вне диапазона x>0.",
    "ask --timeot 1 hi": "Возможно, вы имели в виду",
    "ask --image": "Параметру '--image' нужно значение.",
    "ask --raw=1 hi": "У параметра '--raw' не бывает значения.",
    "config get a b": "Лишний аргумент: b",
    "config get a b c": "Лишние аргументы: b c",
    "usage --by week": "'week' — не из списка: 'day', 'model', 'label', 'user'.",
    "ask": "не о чем спрашивать",
    "login --file . --stdin": "--file и --stdin исключают друг друга: укажите что-то одно",
    "threads show": "укажите один диалог",
}


def test_wrong_usage_is_explained_in_russian() -> None:
    """By click, in the words of whatever release of it is installed, and by the commands."""
    for words, shown in zip(WRONG.values(), printed(*(line.split() for line in WRONG))):
        assert f"Ошибка: {words}" in shown or words in shown.partition("Ошибка: ")[2]
        assert shown.endswith("status 2\n")
        assert ENGLISH.search(shown) is None


def test_an_error_of_the_library_stays_english_and_its_advice_is_russian(served: Emulator) -> None:
    """Its words can be searched for, and what to type next is in the user's language."""
    served.fail("models", Fault.status(503, message="overloaded"), Fault.status(500))
    served.fail("threads", Fault.status(429, retry_after=0))
    served.fail("message", Fault.status(429, retry_after=61))
    shown = printed(["models", "--profile", "nobody"], ["threads", "show", "0b0fa5b2-93c5-4a0d-9b5f-5a3e0e0c7e0d"])
    assert "Ошибка: the profile nobody has no login: copilot-sync login --profile nobody" in shown[0]
    assert "; проверьте: copilot-sync doctor --profile nobody\nstatus 1" in shown[0]
    assert "; список диалогов: copilot-sync threads list\nstatus 1" in shown[1]


def test_a_program_gets_english(served: Emulator) -> None:
    """Lines with tabs, JSON and the log are the same in each language, and stdout of a pipe has no heading."""
    quota, listed, settings, logged = printed(["quota"], ["models"], ["config"], ["models", "--verbose"])
    assert "plan\tpro\n" in quota
    assert "\tdefault\n" in settings
    assert not re.search("[а-яё]", quota + listed + settings + logged)
    assert "copilot-sync: " in logged


def test_a_terminal_gets_tables_in_russian(served: Emulator) -> None:
    """With headings and names for a person."""
    for arguments, words in (
        (["quota"], r"^тариф +pro$"),
        (["models"], "^ID +"),
        (["config"], "^НАЗВАНИЕ +ЗНАЧЕНИЕ +ИСТОЧНИК\nprofile +default +по умолчанию$"),
        (["threads", "list"], "^ID +ИЗМЕНЁН +НАЗВАНИЕ$"),
    ):
        with Terminal(*arguments, environment=RUSSIAN) as terminal:
            assert terminal.status() == 0
            assert re.search(words, "\n".join(terminal.lines()), re.MULTILINE)


def test_a_question_in_a_terminal() -> None:
    """The answer is the emulator's, and what stands around it is Russian."""
    with Terminal("ask", "--emulator", "--raw", "Привет", environment=RUSSIAN) as terminal:
        terminal.expect("copilot-sync: это эмулятор: ответы заготовлены, модель не участвует")
        assert terminal.status() == 0


def test_a_batch_in_a_terminal(tmp_path: Path) -> None:
    """Its summary has all its lines, and each is Russian."""
    Path(tmp_path, "prompts.txt").write_text("one\ntwo\n", encoding="utf-8")
    output = str(Path(tmp_path, "out.jsonl"))
    arguments = ("batch", "--emulator", str(Path(tmp_path, "prompts.txt")), "-o", output)
    with Terminal(*arguments, environment=RUSSIAN, columns=300) as terminal:
        terminal.expect("copilot-sync: это эмулятор: он повторяет ваш вопрос, модель не участвует")
        terminal.expect("ответов: 2, неудач: 0, за ")
        terminal.expect("секунд на ответ: p50 ")
        terminal.expect("токенов: 2 на входе, 2 на выходе")
        terminal.expect(f"результаты: {output}")
        assert terminal.status() == 0


def test_a_doctor_in_a_terminal(served: Emulator) -> None:
    """Each check has a Russian name, unless that is a name, and so has what was found."""
    with Terminal("doctor", environment=RUSSIAN, columns=200) as terminal:
        assert terminal.status() == 0
        shown = terminal.lines()
    for words in ("файл настроек: в ", "сертификаты: ", "учётные данные: ", "токен: получен", "модели: доступно: "):
        assert any(words in line for line in shown), words
    assert [line for line in shown if ENGLISH.search(line) and "OpenSSL" not in line] == []


def test_a_chat_in_a_terminal() -> None:
    """Its commands answer in Russian, and ``/help`` has all of them."""
    with Terminal("chat", "--emulator", "--raw", environment=RUSSIAN, rows=60) as terminal:
        terminal.expect("auto: задайте вопрос или введите /help; Ctrl-D — выход")
        for line, words in (
            ("/help", "завершить чат, как Ctrl-D"),
            ("/model", "модель: auto"),
            ("/nope", "нет команды /nope; все команды покажет /help"),
            ("/file", "для /file нужно имя файла"),
            ("/system Отвечай кратко", "начат новый диалог"),
            ("/system", "инструкции: Отвечай кратко"),
            ("/copy", "ответа, который можно скопировать, ещё нет"),
        ):
            terminal.expect(READY)
            terminal.line(line)
            terminal.expect(words)
        terminal.expect(READY)
        terminal.send(CTRL_D)
        assert terminal.status() == 0


@pytest.mark.parametrize(
    "variables, russian",
    [
        ({}, False),
        ({"LANG": "ru_RU.UTF-8"}, True),
        ({"LANG": "ru"}, True),
        ({"LANG": "russian"}, True),
        ({"LANG": "ru_RU.KOI8-R"}, True),
        ({"LANG": "ru_UA@euro"}, True),
        ({"LANG": "rue_UA.UTF-8"}, False),
        ({"LANG": "de_DE.UTF-8"}, False),
        ({"LANG": "C"}, False),
        ({"LANG": "C.UTF-8"}, False),
        ({"LANG": "ru_RU.UTF-8", "LC_MESSAGES": "en_GB.UTF-8"}, False),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "ru_RU.UTF-8"}, True),
        ({"LC_MESSAGES": "ru_RU.UTF-8", "LC_ALL": "C"}, False),
        ({"LC_ALL": "POSIX", "LANG": "ru_RU.UTF-8"}, False),
        ({"LANGUAGE": "en", "LC_ALL": "ru_RU.UTF-8"}, False),
        ({"LANGUAGE": "ru:en", "LANG": "C"}, True),
        ({"LANGUAGE": "en:ru", "LANG": "ru_RU.UTF-8"}, False),
        ({"LANGUAGE": "de:ru", "LANG": "en_US.UTF-8"}, True),
        ({"LANGUAGE": "", "LANG": "ru_RU.UTF-8"}, True),
    ],
    ids=str,
)
def test_the_locale_chooses_the_language(
    variables: Dict[str, str], russian: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``gettext`` does, except that English, which has no catalog, counts in a list of languages."""
    for name in language.VARIABLES:
        monkeypatch.setenv(name, variables.get(name, ""))
    with language.speaking():
        assert language.is_translated() is russian
        assert language._("nothing was deleted") == ("ничего не удалено" if russian else "nothing was deleted")
    assert not language.is_translated()


@pytest.fixture
def in_russian(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in RUSSIAN.items():
        monkeypatch.setenv(name, value)
    with language.speaking():
        yield


def test_numbers_have_the_forms_that_russian_has(in_russian: None) -> None:
    """One, few and many."""
    assert [language.ngettext("{count} day ago", "{count} days ago", n).format(count=n) for n in (1, 3, 5, 11, 21)] == [
        "1 день назад", "3 дня назад", "5 дней назад", "11 дней назад", "21 день назад",
    ]  # fmt: skip
    assert duration(3700) == "1 ч 1 мин"
    assert ago("") == ""


@pytest.mark.parametrize(
    "encoding, first", [("ascii", "Usage: "), ("latin-1", "Usage: "), ("koi8-r", "Использование: ")]
)
def test_a_terminal_without_cyrillic_gets_english(encoding: str, first: str) -> None:
    """Question marks say nothing. KOI8-R has the letters and lacks quotes and dashes, which become plain ones."""
    done = subprocess.run(
        command("batch", "--help"),
        env={**os.environ, **RUSSIAN, "PYTHONIOENCODING": encoding},
        check=True,
        capture_output=True,
    )
    shown = done.stdout.decode(encoding)
    assert shown.startswith(first)
    assert "?" not in shown
    assert encoding != "koi8-r" or 'промпт; "-" - это stdin' in " ".join(shown.split())


def test_a_stream_without_cyrillic_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two is enough: what is told to somebody goes to both."""
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    for name, value in RUSSIAN.items():
        monkeypatch.setenv(name, value)
    with language.speaking():
        assert not language.is_translated()


def test_a_command_itself_stays_as_it_is(in_russian: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy is translated, for a command is made once in a process. What stands for a default is so, too."""
    assert run(["serve", "--help"]) == 0
    assert "[по умолчанию: (папка состояния" in capsys.readouterr().out
    (option,) = [each for each in ALL[("serve",)].params if each.name == "batches"]
    assert (
        isinstance(option, click.Option)
        and option.help == "Where batches are kept."
        and option.show_default == "user's state folder"
    )


def test_where_a_setting_comes_from_is_said_in_russian(in_russian: None) -> None:
    """A file and a table of it keep their names."""
    origins = [
        "[profiles.work] of /a of b/config.toml",
        "/a of b/config.toml",
        "COPILOT_SYNC_MODEL",
        "login",
        "default",
    ]
    assert list(map(config._origin_for_person, origins)) == [
        "[profiles.work] в /a of b/config.toml", "/a of b/config.toml", "COPILOT_SYNC_MODEL", "вход", "по умолчанию",
    ]  # fmt: skip


@pytest.mark.parametrize("place, words", [("a browser of this machine", "браузера этой машины"), ("/x.txt", "/x.txt")])
def test_where_cookies_come_from_is_said_in_russian(place: str, words: str, in_russian: None) -> None:
    """A file keeps its name."""
    check = check_credentials(Environment.read({}), lambda: FoundCookies(place, {"user_session": "x"}))
    assert (check.name, check.detail) == ("учётные данные", f"1 cookie из {words}")


def test_what_no_terminal_of_this_kind_has_is_a_question_mark(in_russian: None) -> None:
    """As in English."""
    assert "«ё» — 🙂".encode("koi8-r", language.PLAIN) == '"ё" - ?'.encode("koi8-r")


def test_closed_streams_are_no_obstacle(in_russian: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was closed when the program started has no encoding."""
    monkeypatch.setattr(sys, "stdout", None)
    with language.speaking():
        assert language.is_translated()


#: Prints the catalogs that are opened, the domain and what was imported for that.
WATCHED = """
import gettext, sys
opened = []
sys.addaudithook(lambda name, args: opened.append(args[0]) if name == "open" and str(args[0]).endswith(".mo") else None)
import copilot_sync, copilot_sync.cli, copilot_sync.cli.program
assert gettext.textdomain() == "messages"
sys.argv = ["copilot-sync", "--help"]
try:
    copilot_sync.cli.main()
except SystemExit:
    print(len(opened), gettext.textdomain(), file=sys.stderr)
"""


@pytest.mark.parametrize("variables, opened", [({"LANG": "en_US.UTF-8"}, 0), ({}, 1)], ids=["en", "ru"])
def test_only_a_program_that_speaks_russian_opens_a_catalog(variables: Dict[str, str], opened: int) -> None:
    """Importing changes nothing in a process, and neither does a program that has ended."""
    environ = {**os.environ, **RUSSIAN, **variables}
    done: Any = subprocess.run([sys.executable, "-c", WATCHED], env=environ, check=True, capture_output=True)
    assert done.stderr.decode().split() == [str(opened), "messages"]


def test_a_missing_library_is_named_in_russian() -> None:
    """Before click is there, too."""
    code = "import sys; sys.modules['click'] = None; from copilot_sync.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **RUSSIAN}, check=False, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("copilot-sync: командной строке нужен пакет click: pip install")
