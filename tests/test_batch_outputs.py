"""What a batch leaves: its output, its order, and conversations that are deleted."""

import logging
import os
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from batches import AT_ONCE, by_id, fail_on, ids, sent, texts
from support import nothing_left_open

from copilot_sync import Client, QuotaExceededError, batch
from copilot_sync.batch.prompts import Prompt
from copilot_sync.emulator import Emulator, Fault, Reply

pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=AT_ONCE) as opened:
        yield opened


def test_conversations_may_be_deleted(emulator: Emulator, output: Path) -> None:
    """Those that the batch made, failed prompts' included; not those that were there."""
    with Client() as client:
        known = client.create_thread()
        fail_on(emulator, "bad", Fault.status(400))
        prompts = ["one", "bad", Prompt("c", "more", conversation=known.conversation_id)]
        assert len(list(batch.run(prompts, client=client, delete_threads=True))) == 3
        assert list(emulator.threads) == [known.conversation_id]
        prompts[1] = "two"
        assert len(list(batch.run(prompts, client=client, delete_threads=True, output=output))) == 3
    assert list(emulator.threads) == [known.conversation_id]
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_a_conversation_in_which_the_answer_may_come_is_kept(emulator: Emulator, output: Path) -> None:
    """Until the prompt is asked again: then the answer is found there, and the conversation deleted."""
    emulator.script(Reply(["half"], complete=False))
    emulator.fail("messages", Fault.status(503))
    (result,) = batch.run(["one"], delete_threads=True, output=output)
    assert result.error is not None
    assert list(emulator.threads) == [result.conversation_id]
    (result,) = batch.run(["one"], delete_threads=True, output=output, retry_failed=True)
    assert (result.text, result.attempts, result.error) == ("half", 0, None)
    assert (len(sent(emulator)), len(emulator.threads)) == (1, 0)
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_what_could_not_be_deleted_is_told_and_tried_again(
    emulator: Emulator, client: Client, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once more at the end, and by the next run, as long as there is an output that remembers it."""
    emulator.fail("delete", Fault.status(403), Fault.status(403))
    with caplog.at_level(logging.WARNING):
        assert texts(batch.run(["one"], client=client, delete_threads=True, output=output)) == {0: "one"}
    assert "a conversation of the batch was not deleted" in caplog.text
    assert len(emulator.threads) == 1
    assert list(batch.run(["one"], client=client, delete_threads=True, output=output)) == []
    assert len(emulator.threads) == 0
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_a_conversation_that_is_gone_is_deleted(emulator: Emulator, client: Client, output: Path) -> None:
    """Whoever did it."""
    emulator.fail("delete", Fault.status(404))
    assert texts(batch.run(["one"], client=client, delete_threads=True, output=output)) == {0: "one"}
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_results_are_in_the_output_when_they_are_handed_out(emulator: Emulator, output: Path) -> None:
    """And the next run goes on behind them."""
    results = batch.run(map(str, range(20)), output=output, workers=2)
    seen = [next(results).id for _ in range(5)]
    assert set(seen) <= set(ids(output))
    results.close()
    done = ids(output)
    rest = batch.run([str(number) for number in range(20)], output=str(output))
    assert rest.total is None
    others = [result.id for result in rest]
    assert (rest.total, rest.skipped, rest.skipped_failures) == (20, len(done), 0)  # type: ignore[comparison-overlap]
    assert sorted(done + others) == sorted(ids(output)) == list(range(20))
    assert len(set(sent(emulator))) == len(sent(emulator)) == 20
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_failed_prompts_are_asked_again_when_it_is_said_so(emulator: Emulator, output: Path) -> None:
    """Else they count as done; each has one result, whichever way."""
    fail_on(emulator, "one", Fault.status(400), Fault.status(400))
    prompts = ["zero", "one", ""]
    assert len(list(batch.run(prompts, output=output))) == 3
    again = batch.run(prompts, output=output)
    assert list(again) == []
    assert (again.skipped, again.skipped_failures) == (3, 2)
    failed = by_id(batch.run(prompts, output=output, retry_failed=True))
    assert sorted(failed) == [1, 2]
    assert sorted(ids(output)) == [0, 1, 2]
    assert texts(batch.run(["zero", "one", "two"], output=output, retry_failed=True)) == {1: "one", 2: "two"}
    assert sorted(ids(output)) == [0, 1, 2]
    assert sent(emulator).count("zero") == 1
    assert not output.with_name("out.jsonl.journal").exists()


def test_an_ordered_output_stays_in_order(emulator: Emulator, output: Path) -> None:
    """Also where failed prompts are asked again, and where an earlier run was not ordered."""
    fail_on(emulator, "1", Fault.status(400))
    prompts = [str(number) for number in range(6)]
    assert [result.id for result in batch.run(prompts, output=output, ordered=True)] == list(range(6))
    assert [result.id for result in batch.run(prompts, output=output, ordered=True, retry_failed=True)] == [1]
    assert ids(output) == list(range(6))
    assert list(batch.run(reversed(prompts), output=output, ordered=True)) == []


def test_an_ordered_run_that_stops_writes_nothing_out_of_order(
    emulator: Emulator, client: Client, output: Path
) -> None:
    """What it had is found again in the conversations."""
    prompts = ["0", "stop", *map(str, range(2, 8))]
    fail_on(emulator, "stop", Fault.status(402))
    with pytest.raises(QuotaExceededError):
        list(batch.run(prompts, client=client, output=output, ordered=True, workers=8))
    assert ids(output) in ([], [0])
    assert len(list(batch.run(prompts, client=client, output=output, ordered=True))) >= 7
    assert ids(output) == list(range(8))
    assert sent(emulator).count("stop") == 2
    assert {sent(emulator).count(prompt) for prompt in prompts if prompt != "stop"} == {1}


def test_two_batches_on_one_output_refuse_each_other(emulator: Emulator, output: Path) -> None:
    """When the second one begins; the first one goes on."""
    with batch.run(map(str, range(9)), output=output) as results:
        next(results)
        with pytest.raises(batch.JournalError, match="another batch is writing"):
            next(batch.run(["x"], output=output))
        assert len(list(results)) == 8


def test_a_full_disk_ends_a_batch_that_goes_on_later(
    emulator: Emulator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that were had and not written are found again in their conversations."""
    results = batch.run([str(number) for number in range(20)], output=output, workers=2)
    next(results)
    real = os.write

    def full(file: int, data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", full)
    with nothing_left_open(), pytest.raises(batch.JournalError, match="No space left on device; make room"):
        list(results)
    monkeypatch.setattr(os, "write", real)
    list(batch.run([str(number) for number in range(20)], output=output))
    assert sorted(ids(output)) == list(range(20))
    assert len(set(sent(emulator))) == len(sent(emulator)) == 20


def test_nothing_secret_is_written(emulator: Emulator, output: Path) -> None:
    """Neither the cookies nor a token, also where the service repeats them."""
    cookie = emulator.cookies["user_session"]

    def choose(stage: str, request: Any) -> Optional[Fault]:
        return Fault.status(400, message=f"no: {request.bearer}") if stage == "message" else None

    emulator.choose_fault = choose
    list(batch.run(["one", "two"], output=output))
    written = output.read_text() + output.with_name("out.jsonl.journal").read_text()
    assert written.count("no: ***") == 2
    assert "emulated-" not in written
    assert cookie not in written
