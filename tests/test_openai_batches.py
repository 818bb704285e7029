"""``/v1/batches`` of the gateway: from a file of requests to files of results, and what ends a batch early."""

import io
import json
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from batches import Blocked, fail_on, sent
from gateway import batch_in, batch_line, begin_batch, call, gateway_of, lines_of, question, texts_of, upload
from support import Worker, nothing_left_open, wait_until

from copilot_sync.batch.output_forms import openai_line
from copilot_sync.contrib.openai_gateway import Gateway, batch_records, batch_runner, file_store
from copilot_sync.contrib.openai_gateway.batch_records import BatchRecords
from copilot_sync.contrib.openai_gateway.batch_results import answers_in, failures_in
from copilot_sync.contrib.openai_gateway.file_store import FileStore
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.openai_api.failures import ApiError

pytest.importorskip("multipart")
pytestmark = pytest.mark.usefixtures("quick_batches")

CHAT = "/v1/chat/completions"


@pytest.fixture
def emulator(copilot_emulator: Emulator) -> Emulator:
    return copilot_emulator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where batches are kept. It is not there yet."""
    return tmp_path / "kept"


@pytest.fixture(autouse=True)
def quick_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the thread look often, and note each result."""
    monkeypatch.setattr(batch_runner, "_LOOK", 0.02)
    monkeypatch.setattr(batch_runner, "_WATCH", 0.01)
    monkeypatch.setattr(batch_runner, "_NOTE", 0.0)


@pytest.fixture
def gateway(folder: Path, emulator: Emulator) -> Iterator[Gateway]:
    with nothing_left_open():
        with gateway_of(emulator, batches=folder) as made:
            yield made
            made.close()


def codes(lines: Dict[str, Any]) -> Dict[str, str]:
    """Why each request was not answered."""
    return {key: (line["error"] or line["response"]["body"]["error"])["code"] for key, line in lines.items()}


def test_a_file_of_requests_becomes_files_of_results(emulator: Emulator, gateway: Gateway, folder: Path) -> None:
    """One of answers and one of failures; and the batch says when it came to what, and how many there are of each."""
    fail_on(emulator, "two", Fault.status(400))
    texts = {"a": "one", "b": "two", "c": "three"}
    made = begin_batch(gateway, *(batch_line(*pair) for pair in texts.items()), "", metadata={"for": "test"})
    assert (made.status, made.json["status"]) == (200, "validating")
    assert made.json["id"].startswith("batch_")
    batch = batch_in(gateway, made.json["id"], "completed")
    assert (batch["object"], batch["endpoint"], batch["completion_window"]) == ("batch", CHAT, "24h")
    assert (batch["errors"], batch["metadata"]) == (None, {"for": "test"})
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert batch["expires_at"] == batch["created_at"] + 24 * 3600
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]
    assert (batch["failed_at"], batch["expired_at"], batch["cancelled_at"]) == (None, None, None)
    assert texts_of(gateway, batch) == {"a": "one", "c": "three"}
    assert codes(lines_of(gateway, batch["error_file_id"])) == {"b": "invalid_request"}
    output = call(gateway, f"/v1/files/{batch['output_file_id']}").json
    assert (output["purpose"], output["filename"]) == ("batch_output", f"{batch['id']}_output.jsonl")
    # Two are locks.
    wait_until(lambda: sorted(path.suffix for path in (folder / "batches").iterdir()) == ["", "", ".json"])


def test_what_there_is_nothing_of_has_no_file(emulator: Emulator, gateway: Gateway) -> None:
    """Answers or failures."""
    batch = batch_in(gateway, begin_batch(gateway, batch_line("a")).json["id"], "completed")
    assert batch["error_file_id"] is None
    emulator.reply = Reply([])
    batch = batch_in(gateway, begin_batch(gateway, batch_line("a")).json["id"], "completed")
    assert batch["output_file_id"] is None
    assert codes(lines_of(gateway, batch["error_file_id"])) == {"a": "empty_answer"}


def test_lines_that_are_no_requests_fail_the_whole_batch(emulator: Emulator, gateway: Gateway) -> None:
    """With what is wrong with each, and nothing is asked."""
    made = begin_batch(gateway, batch_line("a"), "{", batch_line("a"), batch_line("b").replace("POST", "GET"))
    batch = batch_in(gateway, made.json["id"], "failed")
    assert batch["errors"]["object"] == "list"
    found = [(error["code"], error["param"], error["line"]) for error in batch["errors"]["data"]]
    assert found == [
        ("invalid_json_line", None, 2),
        ("duplicate_custom_id", "custom_id", 3),
        ("invalid_method", "method", 4),
    ]
    assert all(error["message"] for error in batch["errors"]["data"])
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    assert batch["failed_at"] is not None
    assert sent(emulator) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "empty_file"), (b"\0\0\0\0", "invalid_file"), (b"{}\n" * 3, "too_many_requests")],
    ids=["empty", "no text", "too many"],
)
def test_a_file_that_can_not_be_asked_fails_the_batch(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, data: bytes, code: str
) -> None:
    """As a whole."""
    monkeypatch.setattr(batch_runner, "MOST_REQUESTS", 2)
    body = {"input_file_id": upload(gateway, data).json["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = batch_in(gateway, call(gateway, "/v1/batches", body).json["id"], "failed")
    assert [(error["code"], error["line"]) for error in batch["errors"]["data"]] == [(code, None)]


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "1h"}, 400, "completion_window"),
        ({"input_file_id": None}, 400, "input_file_id"),
        ({"input_file_id": 1}, 400, "input_file_id"),
        ({"input_file_id": "file-x"}, 404, "id"),
        ({"metadata": []}, 400, "metadata"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"metadata": {"a" * 65: ""}}, 400, "metadata"),
        ({"metadata": {"a": "b" * 513}}, 400, "metadata"),
        ({"metadata": dict.fromkeys(map(str, range(17)), "")}, 400, "metadata"),
        ({"output_expires_after": 1}, 400, "output_expires_after"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": True}}, 400, "expires_after"),
        ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, 400, "expires_after"),
    ],
)
def test_what_can_not_be_met_is_refused(gateway: Gateway, changes: Any, status: int, param: str) -> None:
    """Before there is a batch."""
    response = begin_batch(gateway, batch_line("a"), **changes)
    assert (response.status, response.error["param"]) == (status, param)
    assert call(gateway, "/v1/batches").json["data"] == []


def test_the_id_of_a_file_is_no_path(gateway: Gateway) -> None:
    """Though a JSON body may have any text in its place."""
    id = upload(gateway, b"{}").json["id"]
    refused = begin_batch(gateway, batch_line("a"), input_file_id=f"../files/{id}")
    assert (refused.status, refused.error["code"]) == (404, "not_found")


def test_results_are_kept_as_long_as_is_said(gateway: Gateway) -> None:
    """And they are no file to begin another batch with."""
    kept = {"anchor": "created_at", "seconds": 3600}
    made = begin_batch(gateway, batch_line("a"), output_expires_after=kept)
    batch = batch_in(gateway, made.json["id"], "completed")
    file = call(gateway, f"/v1/files/{batch['output_file_id']}").json
    assert file["expires_at"] - file["created_at"] == 3600
    refused = begin_batch(gateway, batch_line("a"), input_file_id=file["id"])
    assert (refused.status, refused.error["param"]) == (400, "input_file_id")


def test_batches_are_listed_in_pages(gateway: Gateway) -> None:
    """The newest first."""
    ids = [begin_batch(gateway, batch_line("a")).json["id"] for _ in range(3)]
    assert [batch["id"] for batch in call(gateway, "/v1/batches").json["data"]] == ids[::-1]
    page = call(gateway, "/v1/batches", QUERY_STRING=f"limit=1&after={ids[2]}").json
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == ([ids[1]], True)
    assert call(gateway, "/v1/batches", QUERY_STRING="limit=101").status == 400


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/batches/batch_x", "GET", 404),
        ("/v1/batches/../x", "GET", 404),
        (f"/v1/batches/batch_{'0' * 32}", "GET", 404),
        (f"/v1/batches/batch_{'0' * 32}/cancel", "POST", 404),
        ("/v1/batches/x/y", "GET", 404),
        ("/v1/batches/x", "DELETE", 405),
        ("/v1/batches/x/cancel", "GET", 405),
        ("/v1/batches", "PUT", 405),
    ],
)
def test_what_is_not_there_is_not_found(gateway: Gateway, path: str, method: str, status: int) -> None:
    """Nor is it for another method."""
    assert call(gateway, path, method=method).status == status


def test_a_batch_is_cancelled(emulator: Emulator, gateway: Gateway) -> None:
    """What was answered by then stays; each of the others says why it was not asked. Its file may go then."""
    blocked = Blocked(emulator, "slow")
    lines = [batch_line("a", "one"), *(batch_line(f"s{number}", "slow") for number in range(9))]
    made = begin_batch(gateway, *lines).json
    wait_until(lambda: call(gateway, f"/v1/batches/{made['id']}").json["request_counts"]["completed"] == 1)
    in_use = call(gateway, f"/v1/files/{made['input_file_id']}", method="DELETE")
    assert (in_use.status, in_use.error["code"]) == (409, "file_in_use")
    told = call(gateway, f"/v1/batches/{made['id']}/cancel", method="POST").json
    assert told["status"] in ("cancelling", "cancelled")
    batch = batch_in(gateway, made["id"], "cancelled")
    blocked.release()
    assert batch["cancelling_at"] <= batch["cancelled_at"]
    assert texts_of(gateway, batch) == {"a": "one"}
    assert codes(lines_of(gateway, batch["error_file_id"])) == {f"s{n}": "batch_cancelled" for n in range(9)}
    again = call(gateway, f"/v1/batches/{made['id']}/cancel", method="POST")
    assert (again.status, again.error["code"]) == (400, "invalid_status")
    assert call(gateway, f"/v1/files/{made['input_file_id']}", method="DELETE").status == 200


def test_one_that_waits_is_cancelled_at_once(emulator: Emulator, gateway: Gateway) -> None:
    """It need not wait for the end of the one before it, which goes on. To cancel twice is to cancel once."""
    blocked = Blocked(emulator)
    first = begin_batch(gateway, batch_line("a", "one")).json["id"]
    emulator.wait_until(lambda: blocked.waiting)
    second = begin_batch(gateway, batch_line("b", "two")).json["id"]
    records = BatchRecords(gateway._batches._records._folder)  # type: ignore[union-attr]
    assert {records.cancel(second).status, records.cancel(second).status} <= {"cancelling"}
    batch = batch_in(gateway, second, "cancelled")
    assert codes(lines_of(gateway, batch["error_file_id"])) == {"b": "batch_cancelled"}
    assert call(gateway, f"/v1/batches/{first}").json["status"] == "in_progress"
    blocked.release()
    assert texts_of(gateway, batch_in(gateway, first, "completed")) == {"a": "one"}
    assert sent(emulator) == ["one"]


def test_a_batch_ends_when_its_time_is_over(emulator: Emulator, gateway: Gateway) -> None:
    """With what was answered by then."""
    now = [1e9]
    runner = gateway._batches._runner  # type: ignore[union-attr]
    runner._clock = runner._records._clock = lambda: now[0]
    blocked = Blocked(emulator, "slow")
    made = begin_batch(gateway, batch_line("a", "one"), batch_line("b", "slow")).json
    wait_until(lambda: call(gateway, f"/v1/batches/{made['id']}").json["request_counts"]["completed"] == 1)
    now[0] += 24 * 3600
    batch = batch_in(gateway, made["id"], "expired")
    blocked.release()
    assert batch["expired_at"] == batch["expires_at"]
    assert texts_of(gateway, batch) == {"a": "one"}
    assert codes(lines_of(gateway, batch["error_file_id"])) == {"b": "batch_expired"}


def test_questions_go_first(emulator: Emulator, folder: Path) -> None:
    """A batch leaves a slot, so a question is answered while the batch has far to go."""
    blocked = Blocked(emulator, "slow")
    with gateway_of(emulator, batches=folder, concurrency=3, patience=0) as gateway:
        made = begin_batch(gateway, *(batch_line(str(number), "slow") for number in range(8))).json
        emulator.wait_until(lambda: len(blocked.waiting) == 2)
        assert call(gateway, CHAT, question("now")).status == 200
        assert blocked.most == 2
        blocked.release()
        batch_in(gateway, made["id"], "completed")
        gateway.close()


def test_a_batch_that_can_not_go_on_says_why_and_is_tried_again(emulator: Emulator, gateway: Gateway) -> None:
    """Until its time is over. What has an answer is not asked again."""
    fail_on(emulator, "two", Fault.status(402))
    made = begin_batch(gateway, batch_line("a", "one"), batch_line("b", "two")).json
    wait_until(lambda: call(gateway, f"/v1/batches/{made['id']}").json["errors"] is not None)
    batch = call(gateway, f"/v1/batches/{made['id']}").json
    assert batch["status"] == "in_progress"
    assert [error["code"] for error in batch["errors"]["data"]] == ["insufficient_quota"]
    gateway._batches._runner._later.clear()  # type: ignore[union-attr]
    batch = batch_in(gateway, made["id"], "completed")
    assert batch["errors"] is None
    assert texts_of(gateway, batch) == {"a": "one", "b": "two"}
    assert sent(emulator).count("one") == 1


def test_one_that_waits_for_better_times_can_be_cancelled(emulator: Emulator, gateway: Gateway) -> None:
    """Though nothing is asked now."""
    fail_on(emulator, "one", Fault.status(402))
    made = begin_batch(gateway, batch_line("a", "one")).json
    wait_until(lambda: call(gateway, f"/v1/batches/{made['id']}").json["errors"] is not None)
    call(gateway, f"/v1/batches/{made['id']}/cancel", method="POST")
    assert batch_in(gateway, made["id"], "cancelled")["errors"] is None
    assert len(sent(emulator)) == 1


def test_a_client_that_is_closed_by_others_loses_nothing(emulator: Emulator, gateway: Gateway) -> None:
    """The batch says so, and goes on later."""
    blocked = Blocked(emulator)
    made = begin_batch(gateway, batch_line("a", "one")).json
    emulator.wait_until(lambda: blocked.waiting)
    gateway._client.get().close()
    wait_until(lambda: call(gateway, f"/v1/batches/{made['id']}").json["errors"] is not None)
    batch = call(gateway, f"/v1/batches/{made['id']}").json
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("in_progress", "stopped")
    blocked.release()


def test_without_room_a_batch_waits(emulator: Emulator, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until files were deleted. What was answered is kept."""
    made = begin_batch(gateway, batch_line("a", "one"), batch_line("b", "two"))
    batch_in(gateway, made.json["id"], "completed")
    monkeypatch.setattr(file_store, "MOST_BYTES", 3000)
    made = begin_batch(gateway, *(batch_line(str(number), "x" * 300) for number in range(3)))
    wait_until(lambda: call(gateway, f"/v1/batches/{made.json['id']}").json["errors"] is not None)
    batch = call(gateway, f"/v1/batches/{made.json['id']}").json
    assert batch["errors"]["data"][0]["code"] == "storage_full"
    monkeypatch.undo()
    gateway._batches._runner._later.clear()  # type: ignore[union-attr]
    assert len(texts_of(gateway, batch_in(gateway, made.json["id"], "completed"))) == 3
    assert sent(emulator).count("x" * 300) == 3


def test_requests_that_somebody_has_removed_fail_the_batch(emulator: Emulator, gateway: Gateway, folder: Path) -> None:
    """Before it begins, or when it goes on."""
    fail_on(emulator, "one", Fault.status(402))
    running = begin_batch(gateway, batch_line("a", "one")).json
    wait_until(lambda: call(gateway, f"/v1/batches/{running['id']}").json["errors"] is not None)
    waiting = begin_batch(gateway, batch_line("b", "two")).json
    FileStore(str(folder / "files")).delete(running["input_file_id"])
    FileStore(str(folder / "files")).delete(waiting["input_file_id"])
    gateway._batches._runner._later.clear()  # type: ignore[union-attr]
    for made in (running, waiting):
        batch = batch_in(gateway, made["id"], "failed")
        assert [error["code"] for error in batch["errors"]["data"]] == ["not_found"]
    made = begin_batch(gateway, batch_line("a", "three")).json
    assert texts_of(gateway, batch_in(gateway, made["id"], "completed")) == {"a": "three"}


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_one_without_its_requests_ends_all_the_same(gateway: Gateway, status: str) -> None:
    """With no files: nobody knows what would have been in them."""
    runner = gateway._batches._runner  # type: ignore[union-attr]
    runner._records.make_folder()
    record = runner._records.create(CHAT, "file-x", None)
    runner._finish(record, status)
    batch = call(gateway, f"/v1/batches/{record.id}").json
    assert (batch["status"], batch["output_file_id"], batch["error_file_id"]) == (status, None, None)


@pytest.mark.parametrize("place", ["directory", "foreign"])
def test_results_that_can_not_be_written_are_told(
    emulator: Emulator, gateway: Gateway, folder: Path, place: str
) -> None:
    """And the batch goes on when they can. Others need not wait for that."""
    fail_on(emulator, "one", Fault.status(402))
    made = begin_batch(gateway, batch_line("a", "one")).json
    wait_until(lambda: call(gateway, f"/v1/batches/{made['id']}").json["errors"] is not None)
    results = folder / "batches" / f"{made['id']}.results"
    results.unlink()
    results.mkdir() if place == "directory" else results.write_text("mine\n")
    expected = "internal_error" if place == "directory" else "storage_failed"
    runner = gateway._batches._runner  # type: ignore[union-attr]
    runner._later.clear()
    wait_until(lambda: call(gateway, f"/v1/batches/{made['id']}").json["errors"]["data"][0]["code"] == expected)
    other = begin_batch(gateway, batch_line("b", "two")).json
    assert texts_of(gateway, batch_in(gateway, other["id"], "completed")) == {"b": "two"}
    results.rmdir() if place == "directory" else results.unlink()
    runner._later.clear()
    assert texts_of(gateway, batch_in(gateway, made["id"], "completed")) == {"a": "one"}


def test_there_are_so_many_batches(emulator: Emulator, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that have ended, the oldest are forgotten by the next process; of the others there are no more."""
    for number in range(3):
        batch_in(gateway, begin_batch(gateway, batch_line(str(number))).json["id"], "completed")
    ids = [batch["id"] for batch in call(gateway, "/v1/batches").json["data"]]
    monkeypatch.setattr(batch_records, "MOST_KEPT", 1)
    gateway.close()
    gateway.begin_batches()
    wait_until(lambda: len(call(gateway, "/v1/batches").json["data"]) == 1)
    assert [batch["id"] for batch in call(gateway, "/v1/batches").json["data"]] == ids[:1]
    monkeypatch.setattr(batch_records, "MOST_UNFINISHED", 1)
    blocked = Blocked(emulator)
    made = begin_batch(gateway, batch_line("a")).json
    refused = begin_batch(gateway, batch_line("b"))
    assert (refused.status, refused.error["code"]) == (429, "too_many_batches")
    assert refused.headers["x-should-retry"] == "false"
    blocked.release()
    batch_in(gateway, made["id"], "completed")


def test_what_is_no_record_is_no_batch(gateway: Gateway, folder: Path) -> None:
    """A disk may have lost it."""
    made = begin_batch(gateway, batch_line("a")).json
    batch_in(gateway, made["id"], "completed")
    for text in ("", "[]", json.dumps({"id": made["id"]})):
        (folder / "batches" / f"{made['id']}.json").write_text(text)
        assert call(gateway, f"/v1/batches/{made['id']}").status == 404


def test_a_question_that_waits_is_not_overtaken(emulator: Emulator, folder: Path) -> None:
    """As soon as a slot is free, it is the question's."""
    blocked = Blocked(emulator, "slow")
    with gateway_of(emulator, batches=folder, concurrency=1) as gateway:
        made = begin_batch(gateway, *(batch_line(str(number), "slow") for number in range(3))).json
        emulator.wait_until(lambda: blocked.waiting)
        asking = Worker(lambda: call(gateway, CHAT, question("now")))
        wait_until(lambda: gateway._known_background()._waiting == 1)
        blocked.release()
        assert asking.result().status == 200
        batch_in(gateway, made["id"], "completed")
        assert sent(emulator).index("now") == 1
        gateway.close()


def test_what_is_over_is_not_noted(gateway: Gateway, folder: Path) -> None:
    """How far a batch is, and what keeps it from going on, says nothing once a client has cancelled it."""
    runner = gateway._batches._runner  # type: ignore[union-attr]
    runner._records.make_folder()
    record = runner._records.create(CHAT, "file-x", None)
    runner._records.cancel(record.id)
    before = (folder / "batches" / f"{record.id}.json").read_bytes()
    runner._note(record, 1, 1)
    runner._wait(record, ApiError(500, "no"), record.id)
    assert (folder / "batches" / f"{record.id}.json").read_bytes() == before


def test_what_was_done_before_a_restart_still_counts(gateway: Gateway) -> None:
    """Also while the next run has not come to it yet."""
    runner = gateway._batches._runner  # type: ignore[union-attr]
    runner._records.make_folder()
    record = runner._records.create(CHAT, "file-x", None).moved("in_progress", 1.0, completed=5, failed=3)
    runner._records.save(record)
    for counts, expected in (((1, 1), (5, 3)), ((6, 2), (6, 3))):
        runner._note(record, *counts)
        noted = runner._records.get(record.id)
        assert (noted.completed, noted.failed) == expected


def test_how_far_it_is_is_not_written_for_each_result(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """That would be more than the results themselves."""
    monkeypatch.setattr(batch_runner, "_NOTE", 3600.0)
    notes: List[int] = []
    runner = gateway._batches._runner  # type: ignore[union-attr]
    note = runner._note

    def noted(record: Any, completed: int, failed: int) -> None:
        notes.append(completed)
        note(record, completed, failed)

    monkeypatch.setattr(runner, "_note", noted)
    made = begin_batch(gateway, *(batch_line(str(number)) for number in range(5))).json
    assert batch_in(gateway, made["id"], "completed")["request_counts"]["completed"] == 5
    assert notes == [1]
    runner.begin()
    assert [thread.name for thread in threading.enumerate()].count("copilot-sync-batches") == 1


def test_a_torn_line_is_no_result() -> None:
    """A kill leaves one; its request was not answered, then."""
    whole = json.dumps(openai_line("a", response={"status_code": 200, "body": {}})).encode() + b"\n"
    results = io.BytesIO(whole + whole[:50])
    assert list(answers_in(results)) == [whole]
    requests = io.BytesIO("\n".join([batch_line("a"), batch_line("b")]).encode())
    [line] = failures_in(results, requests, "expired")
    assert json.loads(line)["custom_id"] == "b"


def test_a_folder_that_is_not_there_has_no_batches(folder: Path) -> None:
    """To look makes none."""
    assert BatchRecords(str(folder)).all() == []
    assert not folder.exists()
