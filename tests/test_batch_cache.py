"""Batches with a cache of answers: what was answered before is answered at once, without a request or a slot."""

import concurrent.futures
import functools
import json
import signal
import uuid
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from batches import AT_ONCE, Blocked, sent
from command_line import environment, spawn
from support import stages

from copilot_sync import Client, CopilotError, batch
from copilot_sync.batch import work_items
from copilot_sync.batch.journal import Intent, Journal
from copilot_sync.batch.prompts import Prompt
from copilot_sync.batch.sender import Sender, Submission, Task, Worker
from copilot_sync.cli.program import run as command
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.emulator import Emulator, Fault
from copilot_sync.pacing.limiter import RateLimiter
from copilot_sync.prompts import PromptText

pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


def client_of(folder: Path) -> Client:
    return Client(retry=AT_ONCE, answer_cache=folder)


def lines_of(path: Path) -> Dict[Any, Any]:
    return {line["id"]: line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


@pytest.mark.parametrize("ordered", [False, True])
def test_what_was_answered_before_is_not_asked(emulator: Emulator, tmp_path: Path, output: Path, ordered: bool) -> None:
    """By a batch or by a call; its line says so, and the others are asked."""
    with client_of(tmp_path / "answers") as client:
        client.ask("a")
        first = {result.id: result for result in batch.run(["b", "c"], client=client)}
        assert {result.cached for result in first.values()} == {False}
        before = len(emulator.requests)
        prompts = ["a", "b", "c"]
        results = list(batch.run(prompts, client=client, ordered=ordered, output=output, delete_threads=True))
        assert len(emulator.requests) == before
        assert [(result.text, result.cached, result.attempts, result.seconds) for result in results] == [
            (text, True, 0, 0.0) for text in prompts
        ]
        again = list(batch.run([*prompts, "d"], client=client, ordered=ordered))
    assert [(result.text, result.cached) for result in again] == [("a", True), ("b", True), ("c", True), ("d", False)]
    assert sent(emulator)[-1] == "d"
    line = lines_of(output)[1]
    assert (line["id"], line["text"], line["conversation_id"], line["complete"]) == (1, "b", None, True)
    assert (line["seconds"], line["attempts"], line["error"], line["cached"]) == (0.0, 0, None, True)
    assert line["usage"] is not None and line["model"]
    assert list(line)[-1] == "cached"
    assert not output.with_name("out.jsonl.journal").exists()
    assert list(batch.run(prompts, output=output)) == []


def test_an_answer_from_the_cache_takes_no_slot(emulator: Emulator, tmp_path: Path) -> None:
    """A rate of one in a thousand hours would hold up the second."""
    with client_of(tmp_path) as client:
        prompts = [str(number) for number in range(100)]
        for prompt in prompts:
            client.ask(prompt)
        limiter = RateLimiter(1, rate=0.00001)
        results = list(batch.run(prompts, client=client, rate_limiter=limiter))
        assert {result.cached for result in results} == {True}
        assert limiter.try_acquire() == 0


def test_what_decides_an_answer_decides_here(emulator: Emulator, tmp_path: Path) -> None:
    """Model, instructions, files, further fields; a prompt of a conversation is always asked."""
    with client_of(tmp_path) as client:
        thread = client.ask("a", system="Be brief.").conversation.conversation_id

        def cached(prompt: Any = "a", **options: Any) -> bool:
            (result,) = batch.run([prompt], client=client, **options)
            assert result.error is None
            return result.cached

        assert cached(system="Be brief.")
        for options in ({}, {"model": "o1-mini"}, {"files": [("a.py", "x")]}, {"extra": {"other": 1}}):
            assert [cached(**options) for _ in range(2)] == [False, True]  # type: ignore[arg-type]
        assert [cached({"prompt": "a", "conversation": thread}) for _ in range(2)] == [False, False]


def test_the_same_prompt_is_answered_from_the_cache_when_its_turn_comes(emulator: Emulator, tmp_path: Path) -> None:
    """It was not there when the prompt was read."""
    with client_of(tmp_path) as client:
        results = list(batch.run(["a"] * 5, client=client, workers=1))
    assert [result.cached for result in results] == [False, True, True, True, True]
    assert sent(emulator) == ["a"]
    assert len(emulator.threads) == 1


def test_failures_are_not_kept(emulator: Emulator, tmp_path: Path, output: Path) -> None:
    """They are asked again, and a prompt that can't be sent fails as it does without a cache."""
    emulator.fail("message", Fault.status(400))
    with client_of(tmp_path) as client:
        for expected in ("InvalidRequestError", None):
            (result,) = batch.run(["a"], client=client)
            assert (result.error and result.error["type"], result.cached) == (expected, False)
        result, bad = batch.run(["a", {"prompt": "a", "model": "\ud800"}], client=client)
        assert result.cached
        assert bad.error is not None
        assert (bad.error["type"], bad.cached) == ("BadLineError", False)


def test_what_can_not_be_sent_is_no_hit(emulator: Emulator, tmp_path: Path) -> None:
    """Whoever asks is told why."""
    with client_of(tmp_path) as client:
        assert Worker(client).recall(Task(PromptText("a"), extra={"content": "b"})) is None


def make_client(folder: str) -> Client:
    return Client(retry=AT_ONCE, answer_cache=folder)


def test_the_workers_of_an_executor_have_a_cache_of_their_own(emulator: Emulator, tmp_path: Path) -> None:
    """It is their client's, and asked when a conversation would begin."""
    make = functools.partial(make_client, str(tmp_path))
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        for cached in (False, True):
            results = list(batch.run(["a", "b"], client=make, executor=executor))
            assert sorted((result.text, result.cached) for result in results) == [("a", cached), ("b", cached)]
    assert sorted(sent(emulator)) == ["a", "b"]
    assert len(emulator.threads) == 2


@pytest.mark.parametrize("delete_threads", [False, True])
def test_the_cache_is_asked_before_the_conversation_of_a_killed_run(
    emulator: Emulator, tmp_path: Path, output: Path, delete_threads: bool
) -> None:
    """That run was killed when it had kept the answer, and before it wrote the result."""
    with client_of(tmp_path / "answers") as client:
        handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), "root")
        item = work_items.WorkItem(0, Prompt(0, "a"), Task(PromptText("a")))
        with Journal(str(output)) as journal:
            journal.record_intents([Intent(0, handle, item.digest(), created_thread=True)])
        client.stream("a", handle=handle).read()
        before = len(emulator.requests)
        (result,) = batch.run(["a"], client=client, output=output, delete_threads=delete_threads)
    assert (result.text, result.cached) == ("a", True)
    assert stages(emulator)[before:] == ["delete"] * delete_threads
    assert len(emulator.threads) == 1 - delete_threads
    assert not output.with_name("out.jsonl.journal").exists()


class Plain(Sender):
    """Sends one prompt and waits for nothing."""

    def __init__(self, client: Client, prompt: str, handle: Optional[MessageHandle] = None) -> None:
        self.limiter = RateLimiter(1)
        self.notes: List[Optional[MessageHandle]] = []
        super().__init__(Worker(client), self.limiter, Submission(Task(PromptText(prompt), handle=handle)))

    def check(self) -> None:
        """Nothing speaks against asking."""

    def wait(self, seconds: float, *, for_a_slot: bool = False) -> None:
        """Nobody has to wait."""

    def entered(self) -> None:
        """Note nothing."""

    def note(self) -> None:
        self.notes.append(self._submission.handle)

    def stop_others(self, error: CopilotError) -> None:
        """There are no others."""


def test_a_sender_asks_the_cache_first(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a task of Celery's does: before it waits for the limiter, and when a conversation would begin."""
    with client_of(tmp_path) as client:
        assert [Plain(client, "a").send().cached for _ in range(2)] == [False, True]
        handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), "root")
        assert not Plain(client, "a", handle).send().cached
        sender = Plain(client, "a")
        monkeypatch.setattr(Worker, "recall", lambda self, task: None)  # another process was faster
        assert sender.send().cached
        assert (sender.notes, sender.limiter.try_acquire()) == ([], 0)
    assert sent(emulator) == ["a", "a"]


def prompts_in(folder: Path, *texts: str) -> None:
    lines = [json.dumps({"id": text, "prompt": text}) for text in texts]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")


def run(*arguments: str) -> int:
    return command(["batch", *arguments])


@pytest.mark.parametrize("folder", [None, "answers"])
def test_a_command_answers_from_the_cache(
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Optional[str],
) -> None:
    """In the user's cache folder, unless another is named; the summary says how many."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    option = ["--cache"] if folder is None else ["--cache", folder]
    prompts_in(tmp_path, "one", "two")
    assert run("in.jsonl", "-o", "first.jsonl", *option) == 0
    assert capsys.readouterr().err.startswith("answered: 2, failed: 0, in ")
    answers = tmp_path / "cache" / "copilot-sync" / "answers" if folder is None else tmp_path / "answers"
    assert len(list(answers.iterdir())) == 2
    before = len(emulator.requests)
    assert run("in.jsonl", "-o", "second.jsonl", *option) == 0
    assert len(emulator.requests) == before
    summary, _ = capsys.readouterr().err.splitlines()
    assert summary.startswith("answered: 2 (2 from the cache), failed: 0, in ")
    prompts_in(tmp_path, "one", "two", "three")
    assert run("in.jsonl", "-o", "third.jsonl", *option) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("answered: 3 (2 from the cache), failed: 0, in ")
    assert [line.split()[0] for line in lines[1:]] == ["seconds", "tokens:", "results:"]
    assert lines[2] == "tokens: 1 in, 1 out"
    found = {id: line.get("cached") for id, line in lines_of(tmp_path / "third.jsonl").items()}
    assert found == {"one": True, "two": True, "three": None}
    assert run("in.jsonl", "-o", "fourth.jsonl") == 0
    assert len(sent(emulator)) == 6


def test_a_command_needs_a_folder(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file of the prompts behind the option is taken for one, and refused."""
    monkeypatch.chdir(tmp_path)
    prompts_in(tmp_path, "one")
    assert run("--cache", "in.jsonl", "-o", "out.jsonl") == 2
    assert "'in.jsonl' is a file" in capsys.readouterr().err
    assert run("in.jsonl", "-o", "out.jsonl", "--cache", "answers", "--emulator") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_what_a_killed_command_was_answered_is_not_asked_again(
    emulator: Emulator, tmp_path: Path, output: Path
) -> None:
    """Not even if its output is lost: only what it had no answer to is asked."""
    prompts_in(tmp_path, "one", "two", "three")
    blocked = Blocked(emulator, "three")
    arguments = ["batch", str(tmp_path / "in.jsonl"), "--cache", str(tmp_path / "answers"), "--workers", "1"]
    with spawn(*arguments, "-o", str(output), environment=environment()) as process:
        try:
            assert emulator.wait_until(lambda: blocked.waiting)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    blocked.release()
    output.unlink()
    output.with_name("out.jsonl.journal").unlink()
    assert sent(emulator) == ["one", "two", "three"]
    assert run(*arguments[1:], "-o", str(output)) == 0
    assert sent(emulator) == ["one", "two", "three", "three"]
    found = {id: (line["text"], line.get("cached")) for id, line in lines_of(output).items()}
    assert found == {"one": ("one", True), "two": ("two", True), "three": ("three", None)}
