"""Batches of the gateway that outlive their process: nothing is asked twice, ids stay, and one process runs them."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest
import requests
from batches import Blocked, sent
from command_line import environment, spawn
from gateway import FORM, KEY, batch_in, batch_line, begin_batch, call, form, gateway_of, lines_of, texts_of
from support import PATIENCE, fork, nothing_left_open, wait_until

from copilot_sync import Client
from copilot_sync.contrib.openai_gateway import Gateway, batch_runner
from copilot_sync.contrib.openai_gateway.batches import Batches
from copilot_sync.emulator import Emulator, Reply
from copilot_sync.pacing.background import BackgroundLimiter
from copilot_sync.pacing.limiter import RateLimiter

pytest.importorskip("multipart")
pytestmark = pytest.mark.usefixtures("quick_batches")


@pytest.fixture
def emulator(copilot_emulator: Emulator) -> Emulator:
    return copilot_emulator


@pytest.fixture(autouse=True)
def quick_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the thread look often, and note each result."""
    monkeypatch.setattr(batch_runner, "_LOOK", 0.02)
    monkeypatch.setattr(batch_runner, "_WATCH", 0.01)
    monkeypatch.setattr(batch_runner, "_NOTE", 0.0)


@pytest.fixture
def nothing_left(emulator: Emulator) -> Iterator[None]:
    """Check that no gateway of a test leaves a thread or a file open."""
    with nothing_left_open():
        yield


def is_done(gateway: Gateway, batch_id: str, count: int) -> bool:
    return bool(call(gateway, f"/v1/batches/{batch_id}").json["request_counts"]["completed"] >= count)


def test_another_gateway_goes_on_where_the_first_was_closed(
    emulator: Emulator, tmp_path: Path, nothing_left: None
) -> None:
    """The ids are the same, and what was answered is not asked again. The count never goes back."""
    blocked = Blocked(emulator, "slow")
    lines = [batch_line("a", "one"), batch_line("b", "two"), batch_line("c", "slow"), batch_line("d", "three")]
    with gateway_of(emulator, batches=tmp_path, concurrency=2) as gateway:
        made = begin_batch(gateway, *lines).json
        wait_until(lambda: is_done(gateway, made["id"], 2))
        gateway.close()
        gateway.close()
    blocked.release()
    with gateway_of(emulator, batches=tmp_path) as gateway:
        found = call(gateway, f"/v1/batches/{made['id']}").json
        assert found["request_counts"]["completed"] >= 2
        gateway.begin_batches()
        batch = batch_in(gateway, made["id"], "completed")
        assert (batch["created_at"], batch["input_file_id"]) == (made["created_at"], made["input_file_id"])
        assert texts_of(gateway, batch) == {"a": "one", "b": "two", "c": "slow", "d": "three"}
        gateway.close()
    assert sorted(sent(emulator)) == ["one", "slow", "three", "two"]


def test_a_closed_gateway_can_be_used_again(emulator: Emulator, tmp_path: Path, nothing_left: None) -> None:
    """Its batches go on with the next request."""
    with gateway_of(emulator, batches=tmp_path) as gateway:
        for name in ("a", "b"):
            made = begin_batch(gateway, batch_line(name)).json
            assert texts_of(gateway, batch_in(gateway, made["id"], "completed")) == {name: "hi"}
            gateway.close()


def test_one_gateway_at_a_time_runs_them(emulator: Emulator, tmp_path: Path, nothing_left: None) -> None:
    """The other takes files and batches and shows them, and takes over when the first has gone."""
    with gateway_of(emulator, batches=tmp_path) as first, gateway_of(emulator, batches=tmp_path) as second:
        made = begin_batch(first, batch_line("a", "one")).json
        batch_in(second, made["id"], "completed")
        blocked = Blocked(emulator, "slow")
        made = begin_batch(second, batch_line("b", "slow"), batch_line("c", "two")).json
        wait_until(lambda: is_done(second, made["id"], 1))
        assert first._batches._runner._locks  # type: ignore[union-attr]
        assert not second._batches._runner._locks  # type: ignore[union-attr]
        first.close()
        blocked.release()
        assert texts_of(second, batch_in(second, made["id"], "completed")) == {"b": "slow", "c": "two"}
        second.close()
    assert sorted(sent(emulator)) == ["one", "slow", "two"]


def test_a_file_that_was_written_before_a_kill_is_written_once(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    """A batch that was killed between its files and its end comes to it with the same files, however late."""
    with gateway_of(emulator, batches=tmp_path) as gateway:
        records = gateway._batches._records  # type: ignore[union-attr]
        save = records.save

        def killed(record: Any) -> None:
            if record.status == "completed":
                raise OSError("killed")
            save(record)

        monkeypatch.setattr(records, "save", killed)
        made = begin_batch(gateway, batch_line("a", "one"), batch_line("b", "two", tools=[{}])).json
        batch_in(gateway, made["id"], "finalizing")
        wait_until(lambda: len(list((tmp_path / "files").glob("*.json"))) == 3)
        # Too late: it is about to be complete.
        assert call(gateway, f"/v1/batches/{made['id']}/cancel", method="POST").status == 400
        (tmp_path / "batches" / f"{made['id']}.cancel").touch()
        assert call(gateway, f"/v1/batches/{made['id']}").json["status"] == "finalizing"
        gateway.close()
    with gateway_of(emulator, batches=tmp_path) as gateway:
        late = made["expires_at"] + 1.0
        gateway._batches._runner._clock = lambda: late  # type: ignore[union-attr]
        batch = batch_in(gateway, made["id"], "completed")
        assert texts_of(gateway, batch) == {"a": "one"}
        assert list(lines_of(gateway, batch["error_file_id"])) == ["b"]
        gateway.close()
    assert len(list((tmp_path / "files").glob("*.data"))) == 3
    assert sent(emulator) == ["one"]


def test_a_fault_in_the_thread_does_not_end_it(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    nothing_left: None,
) -> None:  # fmt: skip
    """It is logged, and batches go on later."""
    with gateway_of(emulator, batches=tmp_path) as gateway:
        runner = gateway._batches._runner  # type: ignore[union-attr]
        with monkeypatch.context() as broken:
            broken.setattr(runner, "_work", lambda record, stop: [][0])
            made = begin_batch(gateway, batch_line("a")).json
            wait_until(lambda: "can't run batches now" in caplog.text)
        runner._later.clear()
        assert texts_of(gateway, batch_in(gateway, made["id"], "completed")) == {"a": "hi"}
        gateway.close()


def asking(emulator: Emulator, folder: Path) -> Tuple[Client, Batches]:
    """Batches without a gateway."""
    client = Client(emulator.api_key, api_url=emulator.api_url)
    return client, Batches(folder, lambda: (client, BackgroundLimiter(RateLimiter(2))))


def test_a_stop_that_comes_before_the_first_question_ends_nothing(
    emulator: Emulator, tmp_path: Path, nothing_left: None
) -> None:
    """A batch that has not asked for everything is never complete."""
    client, batches = asking(emulator, tmp_path)
    runner = batches._runner
    with client:
        with gateway_of(emulator, batches=tmp_path) as gateway:
            monkey = gateway._batches._runner  # type: ignore[union-attr]
            monkey._later[""] = float("inf")
            made = begin_batch(gateway, batch_line("a")).json
            gateway.close()
        stop = threading.Event()
        stop.set()
        runner._work(runner._records.get(made["id"]), stop)
        runner._look(stop)
        assert runner._records.get(made["id"]).status == "in_progress"
    assert sent(emulator) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_child_runs_nothing_until_it_is_asked(emulator: Emulator, tmp_path: Path, nothing_left: None) -> None:
    """And it does not hold the lock of its parent."""
    with gateway_of(emulator, batches=tmp_path) as gateway:
        made = begin_batch(gateway, batch_line("a")).json
        batch_in(gateway, made["id"], "completed")
        runner = gateway._batches._runner  # type: ignore[union-attr]
        child = fork()
        if child == 0:  # pragma: no cover - the child ends without a report
            signal.alarm(int(PATIENCE))
            os._exit(1 if runner.has_begun or runner._locks else 0)
        assert os.waitpid(child, 0)[1] == 0
        assert runner.has_begun
        gateway.close()


def exported(process: "subprocess.Popen[bytes]") -> str:
    """The address that was printed."""
    assert process.stdout is not None
    lines = [process.stdout.readline().decode() for _ in range(2)]
    return lines[0].strip().partition("=")[2].strip("'")


class Remote:
    """A gateway in another process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {KEY}"}

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self._url}{path}", headers=self._headers, timeout=PATIENCE)

    def post(self, path: str, **body: Any) -> Dict[str, Any]:
        headers = {**self._headers, **body.pop("headers", {})}
        answer = requests.post(f"{self._url}{path}", headers=headers, timeout=PATIENCE, **body)
        assert answer.status_code == 200, answer.text
        found: Dict[str, Any] = answer.json()
        return found


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_gateway_that_was_killed_goes_on(served: Emulator, tmp_path: Path) -> None:
    """With ``kill -9``, in the middle of a batch: started again, it goes on by itself; nothing is asked twice."""
    pytest.importorskip("waitress")
    served.reply = lambda prompt: Reply([prompt], first_delay=0.05)
    arguments = ["serve", "--port", "0", "--key", KEY, "--batches", str(tmp_path), "--concurrency", "3"]
    texts = {f"request {number}": f"text {number}" for number in range(30)}
    with spawn(*arguments, environment=environment(), stdin=subprocess.DEVNULL) as process:
        remote = Remote(exported(process))
        data = "\n".join(batch_line(*pair) for pair in texts.items()).encode()
        head = {"Content-Type": FORM["CONTENT_TYPE"]}
        file = remote.post("/files", data=form(data, purpose="batch"), headers=head)
        body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made = remote.post("/batches", json=body)
        assert served.wait_until(lambda: len(sent(served)) >= 7, PATIENCE)
        process.kill()
        process.wait(PATIENCE)
    with spawn(*arguments, environment=environment(), stdin=subprocess.DEVNULL) as process:
        remote = Remote(exported(process))
        # Nobody asks for anything meanwhile.
        assert served.wait_until(lambda: len(sent(served)) == 30, 3 * PATIENCE)
        wait_until(lambda: remote.get(f"/batches/{made['id']}").json()["status"] == "completed")
        batch = remote.get(f"/batches/{made['id']}").json()
        output = remote.get(f"/files/{batch['output_file_id']}/content").text
        process.terminate()
        assert process.wait(PATIENCE) == 0
    lines = {line["custom_id"]: line["response"]["body"] for line in map(json.loads, output.splitlines())}
    assert {key: body["choices"][0]["message"]["content"] for key, body in lines.items()} == texts
    assert batch["request_counts"] == {"total": 30, "completed": 30, "failed": 0}
    assert sorted(sent(served)) == sorted(texts.values())
