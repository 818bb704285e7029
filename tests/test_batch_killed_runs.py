"""What a killed run leaves: the next run looks for the answers before it asks again."""

import contextlib
import uuid
from pathlib import Path
from typing import Any, Iterator

import pytest
from batches import AT_ONCE, ids, sent
from support import Worker, stages

from copilot_sync import AuthenticationError, Client, CopilotError, RateLimitError, batch
from copilot_sync.batch import sender, work_items
from copilot_sync.batch.journal import Intent, Journal
from copilot_sync.batch.prompts import Prompt
from copilot_sync.delivery import recovery
from copilot_sync.delivery.message import MessageHandle
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing.limiter import RateLimiter
from copilot_sync.prompts import PromptText

pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=AT_ONCE) as opened:
        yield opened


class Left:
    """What a run that was killed has left: an intent for one prompt, and perhaps its message."""

    def __init__(self, output: Path, client: Client) -> None:
        self._output = output
        self._client = client
        self.handle = MessageHandle(client.create_thread().conversation_id, str(uuid.uuid4()), "root")

    def intend(self, prompt: str = "one", model: str = "") -> "Left":
        item = work_items.WorkItem(0, Prompt(0, prompt), sender.Task(PromptText(prompt), model or None))
        with Journal(str(self._output)) as journal:
            journal.record_intents([Intent(0, self.handle, item.digest(), created_thread=True)])
        return self

    def send(self) -> "Left":
        with self._client.stream("one", handle=self.handle) as stream:
            with contextlib.suppress(CopilotError):
                next(stream)
        return self


@pytest.fixture
def left(output: Path, client: Client) -> Left:
    return Left(output, client)


def test_an_answer_of_a_killed_run_is_not_asked_for_again(emulator: Emulator, output: Path, left: Left) -> None:
    """It is where the journal says."""
    left.intend().send()
    (result,) = batch.run(["one"], output=output)
    assert (result.text, result.attempts, result.conversation_id) == ("one", 0, left.handle.conversation_id)
    assert len(sent(emulator)) == 1


def test_a_message_that_a_killed_run_did_not_send_is_sent(emulator: Emulator, output: Path, left: Left) -> None:
    """Into the conversation that was begun for it."""
    left.intend()
    (result,) = batch.run(["one"], output=output)
    assert (result.text, result.attempts, result.conversation_id) == ("one", 1, left.handle.conversation_id)
    assert len(emulator.threads) == 1


def test_a_message_of_a_killed_run_is_given_time_to_arrive(
    emulator: Emulator, output: Path, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still be on its way when the next run begins: what is not there at first is looked for again."""
    monkeypatch.setattr(recovery, "RECOVERY_DELAY", 1.0)
    left.intend()

    def arrive() -> None:
        assert emulator.wait_until(lambda: "messages" in stages(emulator))
        left.send()

    arriving = Worker(arrive)
    (result,) = batch.run(["one"], output=output)
    arriving.result()
    assert (result.text, result.attempts, len(sent(emulator))) == ("one", 0, 1)


@pytest.mark.parametrize(("prompt", "model"), [("another", ""), ("one", "o1-mini")])
def test_a_prompt_that_was_changed_is_asked(
    emulator: Emulator, output: Path, left: Left, prompt: str, model: str
) -> None:
    """What had been sent under its id was something else."""
    left.intend().send()
    (result,) = batch.run([prompt], output=output, model=model or None)
    assert (result.text, result.attempts) == (prompt, 1)


def test_an_answer_that_a_killed_run_lost_is_a_failure(
    emulator: Emulator, output: Path, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service may have given it up; only when that is said, the prompt is asked in another conversation."""
    monkeypatch.setattr(recovery, "RECOVERY_TIMEOUT", 0.5)
    emulator.options.finish_when_disconnected = False
    emulator.script(Reply(["one ", "two"], pace=0.05))
    left.intend().send()
    assert emulator.wait_until(lambda: not emulator.idle_connections or emulator.disconnects)
    (result,) = batch.run(["one"], output=output)
    assert result.error is not None
    assert result.error["type"] == "StreamInterruptedError"
    assert "was taken, but its answer did not appear" in result.error["message"]
    assert len(sent(emulator)) == 1
    (result,) = batch.run(["one"], output=output, retry_failed=True, delete_threads=True)
    assert (result.text, result.error) == ("one", None)
    assert len(sent(emulator)) == 2
    assert len(emulator.threads) == 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault.status(403), AuthenticationError), (Fault.status(429, retry_after=4000), RateLimitError)],
)
def test_what_keeps_everybody_from_looking_ends_a_batch(
    emulator: Emulator, client: Client, output: Path, left: Left, fault: Fault, kind: Any
) -> None:
    """The prompt has no result, and the next run looks again."""
    left.intend().send()
    emulator.fail("messages", fault)
    with pytest.raises(kind):
        list(batch.run(["one"], client=client, output=output))
    assert ids(output) == []
    (result,) = batch.run(["one"], output=output)
    assert (result.attempts, len(sent(emulator))) == (0, 1)


def test_an_outage_while_looking_is_waited_out(
    emulator: Emulator, output: Path, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then it looks again, instead of sending."""
    left.intend().send()
    emulator.fail("messages", Fault.drop(), Fault.drop())
    rate_limiter = RateLimiter(4)
    monkeypatch.setattr(rate_limiter, "penalize", lambda seconds=None: 0.0)
    with Client(retry=None) as client:
        (result,) = batch.run(["one"], client=client, output=output, rate_limiter=rate_limiter)
    assert (result.text, result.attempts, len(sent(emulator))) == ("one", 0, 1)


def test_a_look_that_fails_for_one_conversation_alone_is_a_failure(
    emulator: Emulator, client: Client, output: Path, left: Left
) -> None:
    """Somebody may have deleted it; asked again, the prompt begins another one."""
    left.intend()
    emulator.threads.clear()
    (result,) = batch.run(["one"], client=client, output=output)
    assert result.error is not None
    assert "unknown whether the message was taken" in result.error["message"]
    (result,) = batch.run(["one"], client=client, output=output, retry_failed=True)
    assert (result.text, result.attempts) == ("one", 1)
