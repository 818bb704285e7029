"""The types of options are those of the methods, for whoever checks types and for whoever looks at run time.

Type checkers read this module too. Here every comment that ignores an error has to be needed, so a misspelt option that
mypy takes is an error of mypy. ``tox -e lint`` asks the newest one, ``tox -e types38`` the one for Python 3.8.
"""

import asyncio
import inspect
import pydoc
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Set

import pytest
from streams import AT_ONCE

import copilot_sync
from copilot_sync import (
    AsyncChat,
    AsyncClient,
    Chat,
    Client,
    Conversation,
    CopilotError,
    MessageHandle,
    Options,
    RetryPolicy,
    StreamOptions,
    batch,
    options,
)
from copilot_sync.contrib import flask
from copilot_sync.contrib.django import responses
from copilot_sync.contrib.openai_gateway import Gateway
from copilot_sync.emulator import Emulator
from copilot_sync.protocol.requests import MessageOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

USAGE = Path(__file__).parents[1] / "docs" / "usage.rst"


def ask_briefly(client: copilot_sync.Client, prompt: str, **options: "Unpack[copilot_sync.Options]") -> str:
    options.setdefault("system", "Answer in one sentence.")
    return client.ask(prompt, **options).text


def ask_all(client: Client, chat: Chat, **given: "Unpack[Options]") -> List[str]:
    return [str(client.ask("hi", **given)), str(chat.ask("hi", **given))]


def stream_all(client: Client, chat: Chat, **given: "Unpack[StreamOptions]") -> List[str]:
    return ["".join(client.stream("hi", **given)), "".join(chat.stream("hi", **given))]


async def await_all(client: AsyncClient, chat: AsyncChat, **given: "Unpack[Options]") -> List[str]:
    return [str(await client.ask("hi", **given)), str(await chat.ask("hi", **given))]


async def collect_all(client: AsyncClient, chat: AsyncChat, **given: "Unpack[StreamOptions]") -> List[str]:
    one = [piece async for piece in client.stream("hi", **given)]
    return ["".join(one), "".join([piece async for piece in chat.stream("hi", **given)])]


def client_of(emulator: Emulator) -> Client:
    return Client(cookies=emulator.cookies, github_url=emulator.github_url, api_url=emulator.api_url, retry=AT_ONCE)


def test_a_wrapper_hands_its_options_on(emulator: Emulator) -> None:
    """To each face that asks, and to one wrapper through another."""

    async def main() -> List[str]:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url, retry=AT_ONCE) as client:
            answers = await await_all(client, client.chat(), schema={"type": "string"}, model="auto")
            return [*answers, *await collect_all(client, client.chat(), label="mine", timeout=30)]

    emulator.script(*['"one"'] * 4, *["two"] * 4, "three")
    with client_of(emulator) as client:
        given: Options = {"schema": {"type": "string"}, "repairs": 0, "references": []}
        assert ask_all(client, client.chat(), **given) == ['"one"'] * 2
        assert asyncio.run(main()) == ['"one"'] * 2 + ["two"] * 2
        assert stream_all(client, client.chat(), buffered=True, retry=None) == ["two"] * 2
        assert ask_briefly(client, "Explain WSGI", timeout=30) == "three"


def test_a_misspelt_option_is_an_error_for_type_checkers_and_at_run_time(emulator: Emulator) -> None:
    """Whoever checks types is told before anything runs; whoever does not, before anything is sent."""
    with client_of(emulator) as client:
        chat = client.chat()
        misspelt: List[Callable[[], object]] = [
            lambda: ask_briefly(client, "hi", modle="auto"),  # type: ignore[call-arg]
            lambda: client.ask("hi", modle="auto"),  # type: ignore[call-arg]
            lambda: client.stream("hi", modle="auto"),  # type: ignore[call-arg]
            lambda: chat.ask("hi", modle="auto"),  # type: ignore[call-arg]
            lambda: chat.stream("hi", modle="auto"),  # type: ignore[call-arg]
        ]
        wrong: List[Callable[[], object]] = [
            lambda: ask_briefly(client, "hi", model=3),  # type: ignore[arg-type]
            lambda: client.ask("hi", references=3),  # type: ignore[arg-type]
            lambda: chat.stream("hi", timeout="3"),  # type: ignore[arg-type]
            lambda: client.stream("hi", schema=str),  # type: ignore[call-arg]
            lambda: chat.stream("hi", repairs=1),  # type: ignore[call-arg]
        ]
        for call in misspelt:
            with pytest.raises(TypeError, match="modle is no option of a message; there are model, "):
                call()
        for call in wrong:
            with pytest.raises(TypeError):
                call()
        chat.ask("Who?")
        kept: List[Callable[[], object]] = [
            lambda: chat.retry(system="Briefly."),  # type: ignore[call-arg]
            lambda: chat.retry(conversation="1"),  # type: ignore[call-arg]
            lambda: chat.stream_retry(parent_message_id="1"),  # type: ignore[call-arg]
            lambda: chat.stream_retry(schema=str),  # type: ignore[call-arg]
            lambda: chat.edit("Where?", conversation="1"),  # type: ignore[call-arg]
            lambda: chat.stream_edit("Where?", repairs=1),  # type: ignore[call-arg]
        ]
        for call in kept:
            with pytest.raises(TypeError):
                call()
    assert [request.stage for request in emulator.requests].count("message") == 1


def test_the_asynchronous_faces_report_what_the_others_do(emulator: Emulator) -> None:
    """Their signatures are those of their twins, for type checkers as well."""

    async def main() -> None:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url, retry=AT_ONCE) as client:
            chat = client.chat()
            await chat.ask("Who?")
            with pytest.raises(TypeError, match="modle is no option"):
                await client.ask("hi", modle="auto")  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="schema is an option of ask"):
                client.stream("hi", schema=str)  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="modle is no option"):
                await chat.ask("hi", modle="auto")  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="schema is an option of ask"):
                chat.stream("hi", schema=str)  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="instructions of a question"):
                await chat.retry(system="Briefly.")  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="schema is an option of ask"):
                await chat.stream_retry(schema=str)  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="conversation is that of the last question"):
                await chat.edit("Where?", conversation="1")  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="repairs is an option of ask"):
                await chat.stream_edit("Where?", repairs=1)  # type: ignore[call-arg]

    asyncio.run(main())


PLACE = {"conversation", "parent_message_id"}
#: Each method that takes options, whose options they are, and which of them it does not take.
TAKERS = [
    (Client.ask, Options, set()),
    (Client.stream, StreamOptions, set()),
    (AsyncClient.ask, Options, set()),
    (AsyncClient.stream, StreamOptions, set()),
    *(
        taker
        for chat in (Chat, AsyncChat)
        for taker in [
            (chat.ask, Options, set()),
            (chat.stream, StreamOptions, set()),
            (chat.retry, Options, {*PLACE, "system"}),
            (chat.stream_retry, StreamOptions, {*PLACE, "system"}),
            (chat.edit, Options, PLACE),
            (chat.stream_edit, StreamOptions, PLACE),
        ]
    ),
    *(
        taker
        for helpers in (flask.CopilotSync, responses)
        for taker in [
            (helpers.stream_response, StreamOptions, set()),
            (helpers.ask_response, Options, set()),
            (helpers.retry_response, StreamOptions, {"parent_message_id", "system"}),
        ]
    ),
    (responses.astream_response, StreamOptions, set()),
    (responses.aask_response, Options, set()),
    (responses.aretry_response, StreamOptions, {"parent_message_id", "system"}),
]
#: What those take besides.
_OTHERS = {"self", "prompt", "text", "request", "name", "options"}


@pytest.mark.parametrize(
    "taker, all_of_them, left_out",
    TAKERS,
    ids=[f"{getattr(taker, '__module__', '')}.{taker.__qualname__}" for taker, _, _ in TAKERS],
)
def test_the_types_have_the_names_and_types_of_each_method(taker: Any, all_of_them: Any, left_out: Set[str]) -> None:
    """What it names, and what its further options are, which it does not name once more."""
    parameters = inspect.signature(taker).parameters
    named = {name: each.annotation for name, each in parameters.items() if name not in _OTHERS}
    further = vars(options)[parameters["options"].annotation[len("Unpack[") : -len("]")]].__annotations__
    assert set(named) & set(further) == set()
    wanted = {name: kind for name, kind in all_of_them.__annotations__.items() if name not in left_out}
    assert {**named, **further} == wanted


def test_the_fields_of_the_request_are_those_of_a_message() -> None:
    """By name and type, so that all that can be sent is an option."""
    parameters = inspect.signature(MessageOptions.coerce).parameters
    assert options.StreamFields.__annotations__ == {name: each.annotation for name, each in parameters.items()}


def test_every_option_is_taken(emulator: Emulator) -> None:
    """By the client at run time: none of the types is of something that is gone."""
    taken: Dict[str, Any] = {
        "conversation": Conversation("1"),
        "handle": MessageHandle("1", "2"),
        "timeout": 3,
        "retry": RetryPolicy(),
        "resume": False,
        "on_start": print,
        "on_discard": print,
        "answer_cache": False,
        "buffered": True,
        "references": [{}],
        "context": [{}],
        "media": [{}],
        "files": [("a.py", "1")],
        "extra": {"more": 1},
    }
    emulator.script('"one"')
    with client_of(emulator) as client:
        for name in StreamOptions.__annotations__:
            given: Any = {name: taken.get(name, "words")}
            client.stream("hi", **given)
        assert client.ask("hi", schema={"type": "string"}, repairs=0).parsed == "one"


def test_all_options_are_optional() -> None:
    """A wrapper may be called without any, and ``Options`` are those of a stream and two more."""
    assert not Options.__total__ and not StreamOptions.__total__
    assert set(Options.__annotations__) - set(StreamOptions.__annotations__) == {"schema", "repairs"}
    assert Options(model="auto") == {"model": "auto"}


def _public_functions() -> List[Any]:
    """Functions and methods that users call, but for errors, which users do not make."""
    found: List[Any] = [Options, StreamOptions, Gateway.__init__, *(taker for taker, _, _ in TAKERS)]
    for module in (copilot_sync, batch):
        for value in [getattr(module, name) for name in module.__all__ if not name.startswith("__")]:
            if inspect.isfunction(value):
                found.append(value)
            elif inspect.isclass(value) and not issubclass(value, CopilotError):
                found += [each for name, each in vars(value).items() if inspect.isfunction(each) and name[0] != "_"]
                found += [value.__init__] if inspect.isfunction(value.__init__) else []
    return found


def test_annotations_can_be_read_at_run_time() -> None:
    """Also by an old Python, and with no typing_extensions: for those who make tools or checks out of signatures."""
    for function in _public_functions():
        assert typing.get_type_hints(function) is not None, function
    assert typing.get_type_hints(Chat.ask)["options"] is Any
    assert typing.get_type_hints(Options)["model"] == typing.Optional[str]


def test_typing_extensions_is_not_needed() -> None:
    """Only type checkers ask for it, and they know it by themselves."""
    program = """if True:
        import sys
        sys.modules["typing_extensions"] = None
        import copilot_sync, typing
        print(typing.get_type_hints(copilot_sync.Chat.ask)["options"], sorted(copilot_sync.Options.__annotations__)[0])
    """
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, encoding="utf-8")
    assert done.stdout == "typing.Any answer_cache\n"


@pytest.mark.parametrize(
    "method",
    [Client.ask, Client.stream, AsyncClient.ask, AsyncClient.stream],
    ids=["ask", "stream", "asynchronous ask", "asynchronous stream"],
)
def test_help_shows_the_options_with_their_defaults(method: Any) -> None:
    """The client names those that are used most, and the text below says what the others are."""
    shown = pydoc.render_doc(method, renderer=pydoc.plaintext)
    for name, default in {"model": "None", "timeout": "None", "retry": "<the client's>", "label": "None"}.items():
        assert re.search(rf"\b{name}: [^=]+ = {default},\s", shown)
    assert "**options: " in shown


def test_the_page_has_the_wrapper_that_is_checked_here() -> None:
    """Its block runs in another test."""
    indented = "".join(f"    {line}" for line in inspect.getsource(ask_briefly).splitlines(keepends=True))
    assert indented in USAGE.read_text(encoding="utf-8")
