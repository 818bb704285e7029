"""The end of a batch that is not read to its end: by whom it may be closed, and what is left then."""

import contextlib
import itertools
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from batches import AT_ONCE, Blocked, Waiting, sent, texts
from support import Worker, collect_garbage, nothing_left_open, stages

from copilot_sync import Client, QuotaExceededError, StreamClosedError, batch
from copilot_sync.batch import workers
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.pacing.limiter import RateLimiter

pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with Client(retry=AT_ONCE) as opened:
        yield opened


def test_leaving_early_leaves_nothing(emulator: Emulator) -> None:
    """Answers that are being written are given up, no further prompt is sent, and no thread or connection is left."""
    blocked = Blocked(emulator)
    with nothing_left_open():
        results = batch.run(itertools.chain(["first"], map(str, itertools.count())), workers=4)
        taking = Worker(lambda: next(results))
        assert emulator.wait_until(lambda: len(blocked.waiting) == 4)
        blocked.release()
        taking.result()
        results.close()
        results.close()
    count = len(sent(emulator))
    assert list(results) == []
    assert len(sent(emulator)) == count


def test_closing_gives_up_answers_that_are_being_written(emulator: Emulator) -> None:
    """It does not wait for them."""
    slow = [f"slow {number}" for number in range(3)]
    blocked = Blocked(emulator, *slow)

    def pieces(prompt: str) -> Iterator[str]:
        if prompt == "quick":
            emulator.wait_until(lambda: len(blocked.waiting) == 3)
        yield from blocked.pieces(prompt)

    emulator.reply = Reply(pieces)
    with batch.run(["quick", *slow], workers=4) as results:
        assert next(results).text == "quick"
        assert len(blocked.waiting) == 3
    assert len(blocked.waiting) == 3
    blocked.release()
    assert emulator.wait_until(lambda: not emulator.open_connections)


def test_an_iterator_that_is_dropped_is_closed(emulator: Emulator) -> None:
    """As one is that a ``break`` leaves behind."""
    with nothing_left_open():
        results = batch.run(map(str, itertools.count()), workers=2)
        next(results)
        del results
        collect_garbage()


class Held:
    """A run whose thread is in the middle of something, and how long it takes to be closed from elsewhere."""

    def __init__(self, results: batch.Run) -> None:
        self.results = results
        self.iterating = Worker(lambda: list(results))

    def close(self) -> None:
        began = time.monotonic()
        self.results.close()
        self.results.close()
        assert time.monotonic() - began < 1
        assert self.iterating.ended_within(1)
        with pytest.raises(StreamClosedError, match="closed by another thread"):
            self.iterating.result()
        with pytest.raises(StopIteration):
            next(self.results)


@pytest.mark.parametrize("stage", ["token", "thread", "message", "answer"])
def test_another_thread_may_close_a_run_at_any_step(emulator: Emulator, output: Path, stage: str) -> None:
    """What is under way ends at once, the files are closed, and no thread is left."""
    blocked = Blocked(emulator)
    if stage != "answer":
        emulator.fail(stage, Fault.stall())
    prompts = ["one", "two", "three"]
    with nothing_left_open():
        held = Held(batch.run(prompts, output=output))
        assert emulator.wait_until(lambda: emulator.stalled or len(blocked.waiting) == 3)
        held.close()
        blocked.release()
        emulator.release()
        emulator.wait_until(lambda: not emulator.open_connections)
    assert len(list(batch.run(prompts, output=output))) == 3


@pytest.mark.parametrize("at_the_end", [False, True], ids=["meanwhile", "at the end"])
def test_a_run_may_be_closed_while_a_conversation_is_deleted(
    emulator: Emulator, output: Path, at_the_end: bool
) -> None:
    """Today it may take minutes; the next run deletes it."""
    emulator.fail("delete", *[Fault.status(500)] * at_the_end, Fault.stall())
    with nothing_left_open():
        client = Client(retry=None)
        held = Held(batch.run(["one"], client=client, delete_threads=True, output=output))
        assert emulator.wait_until(lambda: emulator.stalled)
        held.close()
        emulator.release()
        client.close()
        emulator.wait_until(lambda: not emulator.open_connections)
    assert list(batch.run(["one"], delete_threads=True, output=output)) == []
    assert len(emulator.threads) == 0


def test_a_run_may_be_closed_while_it_waits(emulator: Emulator) -> None:
    """At a gate that others have filled, and in a pause."""
    rate_limiter = RateLimiter(1)
    rate_limiter.penalize(1000)
    held = Held(batch.run(["one"], rate_limiter=rate_limiter))
    held.close()
    assert stages(emulator) == []
    full = RateLimiter(1)
    full.acquire()
    held = Held(batch.run(["one"], rate_limiter=full))
    held.close()
    full.release()
    assert full.try_acquire() == 0


def test_a_run_may_be_closed_while_its_prompts_are_read(emulator: Emulator) -> None:
    """They are taken no further."""
    closed = threading.Event()

    def prompts(*, endless: bool) -> Iterator[str]:
        for number in itertools.count():  # pragma: no branch - it has no end
            if number == 20:
                runs[-1].close() if endless else None
                closed.set()
            yield str(number)

    class Again:
        def __iter__(self) -> Iterator[str]:
            return prompts(endless=True)

    runs = [batch.run(Again())]  # type: ignore[arg-type]
    assert list(runs[-1]) == []
    assert closed.is_set()
    assert stages(emulator) == []
    runs.append(batch.run(prompts(endless=True), workers=30))
    assert list(runs[-1]) == []


def test_a_signals_handler_may_close_the_run_that_it_interrupts(emulator: Emulator) -> None:
    """The loop just ends."""
    blocked = Blocked(emulator)
    with nothing_left_open():
        results = batch.run(["one", "two"])
        before = signal.signal(signal.SIGALRM, lambda *_: results.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            assert list(results) == []
        finally:
            signal.signal(signal.SIGALRM, before)
        blocked.release()
        emulator.wait_until(lambda: not emulator.open_connections)


def test_a_run_may_be_closed_between_two_results(emulator: Emulator) -> None:
    """By its own thread or another one; closing frees everything."""
    for way in (lambda close: close(), lambda close: Worker(close).result()):
        with nothing_left_open():
            results = batch.run(map(str, range(20)), workers=2)
            next(results)
            way(results.close)
            emulator.wait_until(lambda: not emulator.open_connections)
        if results._closed_by == threading.get_ident():
            assert list(results) == []
        else:
            with pytest.raises(StreamClosedError):
                next(results)


def test_a_run_that_has_ended_may_be_closed_by_anybody(emulator: Emulator) -> None:
    """It had its end."""
    results = batch.run(["one"])
    assert len(list(results)) == 1
    Worker(results.close).result()
    assert list(results) == []


def test_a_client_that_is_made_too_late_is_stopped(emulator: Emulator) -> None:
    """Closing may come while a run makes its client."""

    def make() -> Client:
        results.close()
        return Client()

    results = batch.run(["one"], client=make)
    assert list(results) == []
    assert stages(emulator) == []


def test_a_run_over_an_executor_may_be_closed(emulator: Emulator) -> None:
    """What its workers do can't be ended from here, and is not waited for."""
    engine = Waiting()
    held = Held(batch.run(["one", "two"], executor=engine))
    assert emulator.wait_until(lambda: len(engine.futures) >= 2)
    held.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_the_prompts_raise_gets_through(emulator: Emulator, error: Any) -> None:
    """Nothing of it is swallowed, nothing stays behind, and no result is lost that was there before."""
    seen: List[str] = []

    def prompts() -> Iterator[str]:
        yield "one"
        emulator.wait_until(lambda: [thread.assistant_messages for thread in emulator.threads.values()])
        yield "two"
        raise error

    with nothing_left_open(), pytest.raises(error):
        seen.extend(result.text for result in batch.run(prompts(), workers=1))
    assert seen == ["one"]


def test_a_client_is_closed_by_whoever_made_it(emulator: Emulator, client: Client) -> None:
    """One that was given goes on; one that the batch made is closed."""
    made: List[Client] = []

    def make() -> Client:
        made.append(Client())
        return made[0]

    assert texts(batch.run(["one"], client=make)) == {0: "one"}
    assert emulator.wait_until(lambda: not emulator.open_connections)
    assert texts(batch.run(["one"], client=client)) == {0: "one"}
    assert emulator.open_connections > 0


def test_workers_that_never_started_leave_in_peace(client: Client) -> None:
    """A run may be closed before it comes to that."""
    with nothing_left_open(), workers.make_workers(client, None, False):
        pass


def is_open(path: Path) -> bool:
    """Whether this process has a file open."""
    descriptors = [int(name) for name in os.listdir("/dev/fd")]
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # the one that listed them
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return True
    return False


def leave(results: batch.Run) -> None:
    next(results)
    results.close()


def refuse(results: batch.Run) -> None:
    next(results)
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("last_id", "quota", "use", "error"),
    [
        (300, 100, leave, None),
        (300, 100, refuse, ZeroDivisionError),
        (3, 100, list, ValueError),
        (300, 2, list, QuotaExceededError),
    ],
    ids=["closed", "left by an error", "two prompts with one id", "a used-up quota"],
)
def test_a_file_of_prompts_is_closed_with_its_batch(
    emulator: Emulator, tmp_path: Path, last_id: int, quota: int, use: Any, error: Any
) -> None:
    """Also if it was not read to its end, and while somebody still looks at the error and its traceback."""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"id": {id}, "prompt": "x"}}\n' for id in [*range(300), last_id]))
    answers = iter(range(quota))
    refused = Fault.status(402)
    emulator.choose_fault = lambda stage, _: refused if stage == "message" and next(answers, None) is None else None
    prompts = batch.read(path)
    with batch.run(prompts, workers=2) as results, pytest.raises(
        error
    ) if error else contextlib.nullcontext() as caught:
        use(results)
    assert not is_open(path)
    assert (caught is None) is (error is None)
    with path.open():
        assert is_open(path)


def test_an_iterator_of_the_caller_stays_open(emulator: Emulator) -> None:
    """What the batch did not take of it may be wanted elsewhere."""
    prompts = (str(number) for number in range(100))
    with batch.run(prompts, workers=1) as results:
        assert next(results).text == "0"
    assert int(next(prompts)) < 10
