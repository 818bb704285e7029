"""What a message carries besides its text, on every way in: what the service gets in the end."""

import asyncio
import base64
import concurrent.futures
import gc
import json
import multiprocessing
import sys
import uuid
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Type

import pytest
from support import stages

from copilot_sync import Client, GithubCopilot, QuotaExceededError, batch, provider
from copilot_sync.batch.journal import Intent, Journal
from copilot_sync.batch.work_items import PromptDefaults, WorkItem
from copilot_sync.cli.program import run as run_program
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.inline_files import inline_files, read_files
from copilot_sync.message_parts import Attachments

APP = {"type": "thread-scoped-file", "name": "app.py", "text": "x = 1\n", "language": "py"}
NOTE = {"type": "thread-scoped-file", "name": "note.txt", "text": "é", "language": "txt"}
INLINE = {"type": "thread-scoped-file", "name": "inline.js", "text": "1;", "language": "js"}
README = {"type": "file", "path": "README.md", "repo": "octocat/Hello-World"}
CAT = {"mediaType": "image/png", "name": "cat.png", "url": "https://a.example/cat.png"}
#: A message with an image and a text file, as chat programs keep it.
PARTS = [
    {"type": "text", "text": "Look"},
    {"type": "image_url", "image_url": {"url": "https://a.example/cat.png"}},
    {
        "type": "file",
        "file": {"filename": "inline.js", "file_data": f"data:text/plain;base64,{base64.b64encode(b'1;').decode()}"},
    },
]
MESSAGES = [{"role": "user", "content": PARTS}]
FILES = ["app.py", ("note.txt", "é")]
EXTRA = {"skills": ["web-search"], "skillOptions": {"deepCodeSearch": True}}
SYSTEM = "System: Be brief\nUser: Look\nAssistant:"


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("x = 1\n")
    yield tmp_path
    provider._clients.close()


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client() as made:
        yield made


def bodies(emulator: Emulator) -> List[Any]:
    return [request.json for request in emulator.requests if request.stage == "message"]


def ask(prompt: Any, **options: Any) -> None:
    with Client() as client:
        client.ask(prompt, **options)


def stream(prompt: Any, **options: Any) -> None:
    with Client() as client:
        list(client.stream(prompt, **options))


def chat(prompt: Any, **options: Any) -> None:
    with Client() as client:
        client.chat(**options).ask(prompt)


def complete(prompt: Any, **options: Any) -> None:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    GithubCopilot.create_completion("gpt-4o", messages, **options)


def generate(prompt: Any, **options: Any) -> None:
    async def read() -> None:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        async for _ in GithubCopilot.create_async_generator("gpt-4o", messages, return_conversation=True, **options):
            pass

    asyncio.run(read())


def run_batch(prompt: Any, **options: Any) -> None:
    (result,) = batch.run([batch.Prompt(1, prompt)], **options)
    assert result.error is None


def run_elsewhere(prompt: Any, **options: Any) -> None:
    """A batch whose prompts are sent to other processes, pickled."""
    # The pools of PyPy's own library know no other way than fork.
    context = multiprocessing.get_context("spawn" if sys.implementation.name == "cpython" else "fork")
    with concurrent.futures.ProcessPoolExecutor(1, context) as executor:
        run_batch(prompt, executor=executor, **options)


each_way = pytest.mark.parametrize(
    "way", [ask, stream, chat, complete, generate, run_batch, run_elsewhere], ids=lambda way: way.__name__
)
Way = Callable[..., None]


@each_way
def test_every_way_in_sends_the_same(emulator: Emulator, way: Way) -> None:
    """Instructions, files, further fields, and the parts of a message, the caller's own files first."""
    way(MESSAGES, system="Be brief", files=FILES, extra=EXTRA)
    (body,) = bodies(emulator)
    assert body["content"] == SYSTEM
    assert sorted(body["references"], key=str) == sorted([APP, NOTE, INLINE], key=str)
    assert body["mediaContent"] == [CAT]
    assert {name: body[name] for name in EXTRA} == EXTRA


@each_way
def test_every_way_in_sends_nothing_that_was_not_asked_for(emulator: Emulator, way: Way) -> None:
    """A text alone is a text alone, and ``None`` is as good as nothing."""
    way("Look", system=None, files=None, extra=None)
    (body,) = bodies(emulator)
    assert (body["content"], body["references"], body["mediaContent"]) == ("Look", [], [])
    assert (body["skillOptions"], "skills" in body) == ({"deepCodeSearch": False}, False)


@each_way
@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"extra": {"model": "o1-mini"}}, TypeError, "extra can't hold model.*: use model= instead"),
        ({"extra": [1]}, TypeError, "extra must be a dictionary"),
        ({"files": "app.py"}, TypeError, "files must be a list, not str"),
        ({"files": ["missing.py"]}, FileNotFoundError, "missing.py"),
        ({"files": ["logo.png"]}, ValueError, "logo.png: it is not UTF-8 text"),
        ({"system": 5}, TypeError, "system must be a string, not int"),
    ],
    ids=ascii,
)
def test_every_way_in_refuses_the_same_before_anything_is_sent(
    emulator: Emulator, folder: Path, way: Way, options: Dict[str, Any], kind: Type[Exception], words: str
) -> None:
    """With an error that names the argument or the file."""
    (folder / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(kind, match=words):
        way("Look", **options)
    assert emulator.requests == []


@pytest.mark.parametrize("way", [ask, stream, complete], ids=lambda way: way.__name__)
def test_parts_that_can_not_be_sent_are_refused(emulator: Emulator, way: Way) -> None:
    """Rather than left out."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}
    with pytest.raises(ValueError, match="message 0 has an image, which can't be sent .*its address begins with data:"):
        way([{"role": "user", "content": ["Look", part]}])
    assert emulator.requests == []


def test_own_references_come_first(emulator: Emulator, client: Client) -> None:
    """Then files, then the parts of the prompt; so do own images."""
    dog = {"mediaType": "image/gif", "name": "dog.gif", "url": "https://a.example/dog"}
    client.ask(MESSAGES, references=[README], files=FILES, media=[dog])
    (body,) = bodies(emulator)
    assert body["references"] == [README, APP, NOTE, INLINE]
    assert body["mediaContent"] == [dog, CAT]


def test_a_known_conversation_gets_the_last_parts(emulator: Emulator, client: Client) -> None:
    """As with the text: what was said before the last answer is not sent again."""
    earlier = [*MESSAGES, {"role": "assistant", "content": "A cat"}, {"role": "user", "content": "Why?"}]
    client.ask(earlier, conversation=client.create_thread(), system="Be brief")
    client.ask(earlier)
    known, new = bodies(emulator)
    assert (known["content"], known["references"], known["mediaContent"]) == ("Be brief\n\nWhy?", [], [])
    assert (new["references"], new["mediaContent"]) == ([INLINE], [CAT])


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize("last_turn", [False, True], ids=["transcript", "last turn"])
def test_the_provider_places_instructions_as_it_places_messages(
    emulator: Emulator, client: Client, known: bool, last_turn: bool
) -> None:
    """A role message in front of a transcript or a beginning, a paragraph in front of what goes on."""
    conversation = client.create_thread() if known else None
    GithubCopilot.create_completion(
        "gpt-4o", MESSAGES, conversation=conversation, return_conversation=last_turn, system="Be brief"
    )
    (body,) = bodies(emulator)
    assert body["content"] == ("Be brief\n\nLook" if known and last_turn else SYSTEM)
    assert body["mediaContent"] == [CAT]


def test_files_are_read_when_a_stream_is_made(emulator: Emulator, client: Client, folder: Path) -> None:
    """What becomes of them later does not matter, and nothing is sent yet."""
    answering = client.stream("Look", files=FILES)
    (folder / "app.py").write_text("other")
    assert emulator.requests == []
    answering.read()
    assert bodies(emulator)[0]["references"] == [APP, NOTE]


def test_a_chat_is_opened_once(emulator: Emulator, client: Client, folder: Path) -> None:
    """Its instructions and files go with the first question, its further fields with each."""
    opened = client.chat(system="Be brief", files=FILES, extra=EXTRA)
    (folder / "app.py").unlink()
    opened.ask("one")
    list(opened.stream("two", extra={"skills": [], "customCopilotID": "c"}))
    opened.ask("three", system="Be long", files=[("b", "")])
    first, second, third = bodies(emulator)
    assert first["content"] == SYSTEM.replace("Look", "one")
    assert (second["content"], third["content"]) == ("two", "Be long\n\nthree")
    assert [len(each["references"]) for each in (first, second, third)] == [2, 0, 1]
    assert {**EXTRA, "skills": [], "customCopilotID": "c"}.items() <= second.items()
    assert first["skills"] == third["skills"] == EXTRA["skills"]
    assert len(emulator.threads) == 1


def test_a_chat_goes_on_with_a_paragraph(emulator: Emulator, client: Client) -> None:
    """Where its conversation exists before it."""
    client.chat(client.create_thread(), system="Be brief").ask("one")
    assert bodies(emulator)[0]["content"] == "Be brief\n\none"


def test_a_chat_opens_again_if_no_answer_began(emulator: Emulator, client: Client) -> None:
    """A question that was refused told the service nothing; the opening of a call of its own is added to it."""
    emulator.fail("message", Fault.status(402))
    opened = client.chat(system="Be brief", files=FILES)
    with pytest.raises(QuotaExceededError):
        opened.ask("one")
    opened.stream("never sent")
    opened.ask("two", system="Be nice", files=[("b", "")])
    opened.ask("three")
    _, second, third = bodies(emulator)
    assert second["content"] == "System: Be brief\n\nBe nice\nUser: two\nAssistant:"
    assert [each["name"] for each in second["references"]] == ["app.py", "note.txt", "b"]
    assert (third["content"], third["references"]) == ("three", [])


@pytest.mark.parametrize("pieces", [["one ", "two"], []], ids=["stopped", "empty"])
def test_an_answer_that_began_is_enough(emulator: Emulator, client: Client, pieces: List[str]) -> None:
    """Also one that was stopped, or had no text."""
    emulator.script(Reply(pieces))
    opened = client.chat(system="Be brief")
    with opened.stream("one") as answering:
        next(iter(answering), None)
    opened.ask("two")
    assert "Be brief" not in bodies(emulator)[-1]["content"]


def test_a_chat_keeps_no_stream_alive(emulator: Emulator, client: Client) -> None:
    """A stream that nobody holds any more is closed."""
    opened = client.chat(system="Be brief")
    dropped = weakref.ref(opened.stream("one"))
    gc.collect()
    assert dropped() is None


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"system": 5}, TypeError),
        ({"system": "\ud800"}, ValueError),
        ({"files": "app.py"}, TypeError),
        ({"files": ["missing.py"]}, FileNotFoundError),
        ({"files": [("", "x")]}, ValueError),
        ({"extra": {"model": "x"}}, TypeError),
    ],
    ids=ascii,
)
def test_a_chat_is_told_at_once_what_it_can_not_send(client: Client, options: Any, kind: Type[Exception]) -> None:
    """Not with its first question."""
    with pytest.raises(kind):
        client.chat(**options)


def test_a_prompt_of_a_batch_has_its_own_parts_and_files(emulator: Emulator, output: Path) -> None:
    """Out of a file as well; the files of the batch follow."""
    rows = [
        {"id": "m", "messages": MESSAGES},
        {"id": "f", "prompt": "Look", "files": [["inline.js", "1;"]]},
        {"id": "n", "prompt": "Look", "files": []},
    ]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with batch.read("in.jsonl") as prompts:
        results = list(batch.run(prompts, workers=1, ordered=True, files=["app.py"], extra=EXTRA, output=output))
    assert [result.error for result in results] == [None] * 3
    assert [body["references"] for body in bodies(emulator)] == [[INLINE, APP], [INLINE, APP], [APP]]
    assert [body["mediaContent"] for body in bodies(emulator)] == [[CAT], [], []]
    assert [body["skills"] for body in bodies(emulator)] == [["web-search"]] * 3


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["app.py"], "a file must be a pair of its name and its text here: no path is opened"),
        ("app.py", "files must be a list, not str"),
        ([["app.py"]], "must be a pair of two strings"),
        ([["app.py", None]], "must be a pair of two strings"),
        ({"app.py": "x"}, "files must be a list, not dict"),
        (5, "files must be a list, not int"),
        ([["a", "\0"]], "a: it has NUL characters"),
    ],
    ids=ascii,
)
def test_a_file_of_prompts_opens_no_other_file(emulator: Emulator, files: Any, words: str) -> None:
    """Whoever wrote it must not choose what is read on this machine: such a line fails, and the others do not."""
    rows = [{"id": "bad", "prompt": "Look", "files": files}, {"id": "good", "prompt": "Look"}]
    bad, good = batch.run(rows, ordered=True)
    assert bad.error is not None
    assert words in bad.error["message"]
    assert good.error is None
    assert [body["references"] for body in bodies(emulator)] == [[]]


def test_a_column_of_files_opens_none_either(emulator: Emulator) -> None:
    """A CSV can't hold a list."""
    Path("in.csv").write_text("prompt,files\nLook,app.py\nLook,\n")
    with batch.read("in.csv") as prompts:
        bad, good = batch.run(prompts, ordered=True)
    assert bad.error is not None
    assert "files must be a list, not str" in bad.error["message"]
    assert good.error is None


def test_a_part_that_can_not_be_sent_fails_its_line_alone(emulator: Emulator) -> None:
    """With the words of the reader."""
    rows: List[Any] = [{"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "Look"]
    bad, good = batch.run(rows, ordered=True)
    assert bad.error is not None
    assert "message 0 has a part of type 'input_audio', which can't be sent" in bad.error["message"]
    assert good.error is None


def leave(client: Client, output: Path, prompt: batch.Prompt, defaults: PromptDefaults) -> None:
    """Leave what a batch leaves that was killed when its one prompt had just been answered."""
    handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), "root")
    task = defaults.task_for(prompt)
    digest = WorkItem(0, prompt, task).digest()
    with Journal(str(output)) as journal:
        journal.record_intents([Intent(prompt.id, handle, digest, created_thread=True)])
    client.stream(task.content, handle=handle, extra=task.extra).read()


@pytest.mark.usefixtures("quick_batches", "quick_looks")
@pytest.mark.parametrize(
    ("after", "is_same"),
    [
        ({"files": FILES, "extra": EXTRA}, True),
        ({"files": FILES, "extra": dict(reversed(list(EXTRA.items())))}, True),
        ({"files": FILES[:1], "extra": EXTRA}, False),
        ({"files": FILES}, False),
        ({"extra": EXTRA}, False),
        ({}, False),
    ],
    ids=["same", "same in another order", "a file less", "no extra", "no files", "neither"],
)
def test_another_attachment_makes_another_prompt(
    emulator: Emulator, client: Client, output: Path, after: Dict[str, Any], is_same: bool
) -> None:
    """A batch that was killed looks for the answer to its own question, not to one with other files."""
    prompt = batch.Prompt(1, MESSAGES)
    leave(client, output, prompt, PromptDefaults(None, None, None, Attachments(inline_files(read_files(FILES))), EXTRA))
    (result,) = batch.run([prompt], client=client, output=output, **after)
    assert result.error is None
    assert len(bodies(emulator)) == (1 if is_same else 2)
    assert ("messages" in stages(emulator)) is is_same


def test_the_command_line_attaches_files_to_a_batch(
    emulator: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To every prompt; one that can't be read is wrong usage before anything is sent."""
    (folder / "in.txt").write_text("one\ntwo\n")
    assert run_program(["batch", "in.txt", "-o", "-", "--file", "app.py", "-s", "Be brief"]) == 0
    assert [body["references"] for body in bodies(emulator)] == [[APP]] * 2
    (folder / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    count = len(emulator.requests)
    assert run_program(["batch", "in.txt", "-o", "-", "-f", "logo.png"]) == 2
    assert "--file logo.png: it is not UTF-8 text" in capsys.readouterr().err
    assert len(emulator.requests) == count
