"""Requests and results of OpenAI's batches, in files."""

import io
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from batches import AT_ONCE, fail_on, sent
from command_line import environment, spawn
from journals import LINE, journal_of, refused
from support import PATIENCE

from copilot_sync import Client, batch
from copilot_sync.batch.durable_file import JournalError
from copilot_sync.batch.journal import Journal
from copilot_sync.batch.openai_lines import check_requests, faults_of, read_requests
from copilot_sync.batch.output_forms import OPENAI, openai_line
from copilot_sync.batch.prompt_files import PromptFile
from copilot_sync.batch.prompts import BadLine, Prompt
from copilot_sync.batch.results import BAD_LINE, Result
from copilot_sync.cli.program import run
from copilot_sync.emulator import Emulator, Fault, Reply
from copilot_sync.openai_api.failures import from_record

pytestmark = pytest.mark.usefixtures("quick_batches")


def request(custom_id: Any, text: str = "hi", **changes: Any) -> str:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **changes.pop("body", {})}
    fields = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def lines_in(path: Path) -> Dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def content_of(line: Any) -> Optional[str]:
    content: Optional[str] = line["response"]["body"]["choices"][0]["message"]["content"]
    return content


def code_of(line: Any) -> Any:
    return line["response"]["status_code"], line["response"]["body"]["error"]["code"]


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of two requests in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join([request("a", "one"), "", request("b", "two"), ""]))
    return path


COMMAND = ["batch", "in.jsonl", "-o", "out.jsonl", "--format", "openai"]


def test_requests_become_results_as_openai_writes_them(served: Emulator, requests: Path) -> None:
    """Each with an id, its custom id, and a whole completion."""
    assert run(COMMAND) == 0
    lines = lines_in(requests.with_name("out.jsonl"))
    assert {custom_id: content_of(line) for custom_id, line in lines.items()} == {"a": "one", "b": "two"}
    assert len({line["id"] for line in lines.values()}) == 2
    for line in lines.values():
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert (line["response"]["status_code"], line["response"]["request_id"][:4]) == (200, "req_")
        assert line["response"]["body"]["object"] == "chat.completion"
        assert line["response"]["body"]["usage"]["total_tokens"] > 0
    assert not journal_of(requests.with_name("out.jsonl")).exists()


def test_they_go_to_stdout_as_well(served: Emulator, requests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the same form."""
    assert run(["batch", "in.jsonl", "-o", "-", "--format", "openai"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted((line["custom_id"], content_of(line)) for line in lines) == [("a", "one"), ("b", "two")]


def test_the_same_command_goes_on_and_asks_failed_requests_again(served: Emulator, requests: Path) -> None:
    """Nothing that was answered is asked again; only --retry-failed asks for what has failed."""
    out = requests.with_name("out.jsonl")
    fail_on(served, "two", Fault.status(400))
    assert run(COMMAND) == 3
    assert code_of(lines_in(out)["b"]) == (400, "invalid_request")
    assert run(COMMAND) == 3
    assert sorted(sent(served)) == ["one", "two"]
    assert run([*COMMAND, "--retry-failed", "--ordered"]) == 0
    assert {name: content_of(line) for name, line in lines_in(out).items()} == {"a": "one", "b": "two"}
    assert list(lines_in(out)) == ["a", "b"]
    assert sorted(sent(served)) == ["one", "two", "two"]


def test_an_answer_that_may_be_in_its_conversation_is_looked_for(served: Emulator, requests: Path) -> None:
    """A line says of a broken connection no more than its status; that is enough to ask nothing twice."""
    requests.write_text(request("a", "one"))
    lost = {"message": [Fault.cut(1)], "messages": [Fault.status(500)] * 9}

    def choose(stage: str, _: Any) -> Optional[Fault]:
        return lost[stage].pop() if lost.get(stage) else None

    served.choose_fault = choose
    out = requests.with_name("out.jsonl")
    with Client(retry=None) as client:
        list(batch.run(batch.read("in.jsonl", "openai"), client=client, output=out, output_format="openai"))
    assert lines_in(out)["a"]["response"]["status_code"] in (502, 504)
    served.choose_fault = None
    assert run([*COMMAND, "--retry-failed"]) == 0
    assert content_of(lines_in(out)["a"]) == "one"
    assert sent(served) == ["one"]


def test_an_empty_answer_is_a_failure(served: Emulator, requests: Path) -> None:
    """As in the gateway: clients would take it for a whole one. It is asked again in a new conversation."""
    served.reply = Reply([])
    assert run(COMMAND) == 1
    assert {code_of(line) for line in lines_in(requests.with_name("out.jsonl")).values()} == {(502, "empty_answer")}
    served.reply = Reply(["words"])
    assert run([*COMMAND, "--retry-failed"]) == 0
    assert len(sent(served)) == 4


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"stream": True}, "unsupported_parameter", "stream"),
        ({"messages": []}, "invalid_type", "messages"),
        ({"messages": [{"role": "user"}]}, "invalid_value", "messages"),
        ({"model": 1}, "invalid_type", "model"),
    ],
)
def test_a_body_that_can_not_be_met_fails_alone(
    served: Emulator, requests: Path, body: Dict[str, Any], code: str, param: str
) -> None:
    """With the error that the gateway would answer with."""
    requests.write_text(f"{request('a', 'one')}\n{request('b', body=body)}\n")
    assert run(COMMAND) == 3
    failed = lines_in(requests.with_name("out.jsonl"))["b"]
    assert code_of(failed) == (400, code)
    assert failed["response"]["body"]["error"]["param"] == param
    assert sent(served) == ["one"]


FAULTS = [
    ("{", "invalid_json_line", None),
    ("[]", "invalid_json_line", None),
    ("\udcff", "invalid_json_line", None),
    (request(None), "missing_required_parameter", "custom_id"),
    (request(""), "missing_required_parameter", "custom_id"),
    (request(7), "missing_required_parameter", "custom_id"),
    (request("\ud800"), "invalid_custom_id", "custom_id"),
    (request("b", method="GET"), "invalid_method", "method"),
    (request("b", url="/v1/embeddings"), "invalid_url", "url"),
    (request("a"), "duplicate_custom_id", "custom_id"),
    (json.dumps({"custom_id": "b", "method": "POST", "url": "/v1/chat/completions", "body": []}),
     "missing_required_parameter", "body"),
    (request("x" * (17 << 20)), "invalid_json_line", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "param"), FAULTS, ids=[str(number) for number in range(len(FAULTS))])
def test_a_line_that_is_no_request_refuses_the_whole_file(line: str, code: str, param: Optional[str]) -> None:
    """With its number, what is wrong with it, and the code that OpenAI has for it."""
    file = io.BytesIO(f"{request('a')}\n\n{line}\n".encode("utf-8", "surrogateescape"))
    [fault] = faults_of(io.BytesIO(file.getvalue()))
    assert (fault.code, fault.param, fault.line) == (code, param, 3)
    with pytest.raises(ValueError, match=r"^line 3: "):
        check_requests(file)


def test_only_the_first_faults_are_named(served: Emulator, requests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked, and it is wrong usage."""
    requests.write_text("{}\n" * 5)
    assert run(COMMAND) == 2
    err = capsys.readouterr().err
    assert "in.jsonl: line 1: custom_id must be a string" in err
    assert "line 3" in err
    assert "line 4" not in err
    assert "; and 2 more" in err
    requests.write_text("\n")
    assert run(COMMAND) == 2
    assert "there is no request in the file" in capsys.readouterr().err
    assert served.requests == []


def test_what_was_changed_meanwhile_is_a_failure() -> None:
    """A file is checked, then read; a line that has become another has a result all the same."""
    good, bad = read_requests(io.BytesIO(f"{request('a')}\n{{}}\n".encode()))
    assert isinstance(good, Prompt)
    assert isinstance(bad, BadLine)
    assert (bad.id, bad.code) == (2, "missing_required_parameter")


def test_an_output_in_another_form_is_refused(tmp_path: Path) -> None:
    """Also one that was downloaded from OpenAI."""
    output = tmp_path / "out.jsonl"
    with Journal(str(output), form=OPENAI) as journal:
        journal.write([Result("a", "one")])
    refused(output, "was not written by a batch")
    output.unlink()
    theirs = {"id": "batch_req_123", "custom_id": "a", "response": {"status_code": 200, "body": {}}, "error": None}
    for line in (LINE, json.dumps(theirs).encode() + b"\n"):
        output.write_bytes(line)
        with pytest.raises(JournalError, match="was not written by a batch"):
            Journal(str(output), form=OPENAI)
        assert output.read_bytes() == line


@pytest.mark.parametrize(
    "changes",
    [
        {"custom_id": 1},
        {"response": None},
        {"response": {"status_code": 200}},
        {"response": []},
        {"response": {"status_code": 400, "body": {}}},
        {"response": {"status_code": 400, "body": {"error": {}}}},
    ],
)
def test_a_line_that_lacks_something_is_no_result(tmp_path: Path, changes: Dict[str, Any]) -> None:
    """Whoever reads it would stumble."""
    output = tmp_path / "out.jsonl"
    output.write_text(json.dumps({**openai_line("a", response={"status_code": 200, "body": {}}), **changes}) + "\n")
    with pytest.raises(JournalError, match="was not written by a batch"):
        Journal(str(output), form=OPENAI)


def test_a_request_that_was_not_asked_has_failed(tmp_path: Path) -> None:
    """Such lines have an error in the place of a response."""
    output = tmp_path / "out.jsonl"
    output.write_text(json.dumps(openai_line("a", error={"code": "batch_expired", "message": "too late"})) + "\n")
    with Journal(str(output), form=OPENAI) as journal:
        assert journal.failed("a") is True
        assert journal.failed("b") is None


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"type": "StreamInterruptedError", "message": "cut"}, (502, "failed", None)),
        ({"type": "ModelNotAvailableError", "message": "none"}, (404, "model_not_found", "model")),
        ({"type": "RequestTimeoutError", "message": "late"}, (504, "timeout", None)),
        ({"type": "ValueError", "message": "no id"}, (400, "invalid_request", None)),
        ({"type": BAD_LINE, "message": "bad", "code": "x", "param": "y"}, (400, "x", "y")),
    ],
)
def test_an_error_that_was_kept_has_the_form_of_the_one_that_was_raised(record: Any, expected: Any) -> None:
    """By the name of its class."""
    error = from_record(record)
    assert (error.status, error.code, error.param) == expected
    assert str(error) == record["message"]


def test_prompts_from_elsewhere_have_results_in_this_form_too(served: Emulator, tmp_path: Path) -> None:
    """A number that is an id becomes a text. Only known forms are taken."""
    output = tmp_path / "out.jsonl"
    with Client(retry=AT_ONCE) as client:
        list(batch.run(["one", "two"], client=client, output=output, output_format="openai"))
        list(batch.run(["one", "two"], client=client, output=output, output_format="openai"))
        with pytest.raises(ValueError, match="an output_format is one of jsonl, openai, not 'csv'"):
            batch.run(["one"], client=client, output=output, output_format="csv")
    assert {name: content_of(line) for name, line in lines_in(output).items()} == {"0": "one", "1": "two"}
    assert sorted(sent(served)) == ["one", "two"]


def test_a_file_says_its_format(requests: Path) -> None:
    """It is never told by a suffix: plain JSON Lines have the same."""
    found: List[PromptFile] = [batch.read("in.jsonl"), batch.read("in.jsonl", "openai")]
    assert [file.format for file in found] == ["jsonl", "openai"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_batch_that_was_killed_goes_on(served: Emulator, requests: Path) -> None:
    """With ``kill -9``, in the middle of answers: nothing is asked twice, and each request has one line."""
    texts = {f"request {number}": f"text {number}" for number in range(20)}
    requests.write_text("\n".join(request(*pair) for pair in texts.items()))
    served.reply = lambda prompt: Reply([prompt], first_delay=0.05)
    arguments = [*COMMAND, "--workers", "2"]
    with spawn(*arguments, environment=environment()) as process:
        assert served.wait_until(lambda: len(sent(served)) >= 6, PATIENCE)
        process.kill()
    assert run(arguments) == 0
    lines = lines_in(requests.with_name("out.jsonl"))
    assert {name: content_of(line) for name, line in lines.items()} == texts
    assert sorted(sent(served)) == sorted(texts.values())
