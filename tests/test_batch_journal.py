"""The output and the journal beside it: whole lines, on the disk, whatever ends the batch."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from journals import FAILURE, LINE, failure, ids, intent, journal_of, names, opened, refused, write
from support import collect_garbage, nothing_left_open

from copilot_sync import Usage
from copilot_sync.batch.durable_file import JournalError
from copilot_sync.batch.results import Result


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    with nothing_left_open():
        yield
        collect_garbage()


#: As results were written before they had the same keys in every line.
EARLIER = (
    b'{"id": "e", "text": "one", "model": "", "usage": null, "conversation_id": "t", "seconds": 1, "attempts": 1}\n'
)
EARLIER_FAILURE = b'{"id": "f", "error": {"type": "ServerError", "message": "boom", "stage": null, "status": 500}}\n'
UNKNOWN = {"type": "StreamInterruptedError", "message": "cut", "stage": "stream", "status": None}


def test_a_result_is_a_line(output: Path) -> None:
    """In the order of writing, with the same keys in every line and ``null`` where there is nothing."""
    answer = Result("a", "é", "gpt-4o", Usage(3, None), "t-1", 1.23456, 2)
    write(output, answer, Result(7), failure("b"), Result("c", "half", conversation_id="t-2", error=FAILURE))
    keys = ["id", "text", "parsed", "model", "usage", "conversation_id", "complete", "seconds", "attempts", "error"]
    assert [list(json.loads(line)) for line in output.read_bytes().splitlines()] == [keys] * 4
    assert [list(json.loads(line).values()) for line in output.read_bytes().splitlines()] == [
        ["a", "é", None, "gpt-4o", {"input_tokens": 3, "output_tokens": None}, "t-1", True, 1.235, 2, None],
        [7, "", None, None, None, None, True, 0.0, 0, None],
        ["b", None, None, None, None, None, False, 0.0, 0, FAILURE],
        ["c", "half", None, None, None, "t-2", False, 0.0, 0, FAILURE],
    ]
    assert "é".encode() in output.read_bytes()


def test_half_of_a_surrogate_pair_is_escaped(output: Path) -> None:
    """A service may send one, and no line can hold it otherwise."""
    write(output, Result("a", "\ud800"))
    assert json.loads(output.read_bytes())["text"] == "\ud800"
    with opened(output) as journal:
        assert journal.failed("a") is False


def test_what_is_done_is_known_when_it_is_opened_again(output: Path) -> None:
    """Also within the same run; an id that is a number is the same as its digits."""
    with opened(output) as journal:
        assert journal.failed("a") is None
        journal.write([Result("a", "one"), failure("b"), Result(7, "x")])
        assert (journal.failed("a"), journal.failed("b")) == (False, True)
    with opened(output) as journal:
        assert [journal.failed(id) for id in ("a", "b", 7, "7", "c")] == [False, True, False, False, None]


def test_what_is_written_is_on_the_disk(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write of results or intents ends with a sync; a deletion need not, because it may be done twice."""
    synced: List[str] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}")))
        fsync(file)

    with opened(output) as journal:
        monkeypatch.setattr(os, "fsync", noted)
        journal.record_intents([intent("a"), intent("b")])
        journal.write([Result("a"), Result("b")])
        journal.record_deletion("t")
        journal.write([])
        journal.record_intents([])
    assert synced == ["out.jsonl.journal", "out.jsonl"]


TORN = [
    *[LINE.replace(b'"a"', b'"b"')[:length] for length in (1, 5, 10, len(LINE) - 2)],
    *[b"\0" * 50, LINE.replace(b'"a"', b'"b"')[:20] + b"\0" * 5000],
]


@pytest.mark.parametrize("torn", TORN, ids=lambda torn: f"{len(torn)} bytes")
def test_a_torn_last_line_is_cut_off_and_kept(output: Path, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """However much of it was written, and with the zeros that a power cut leaves; the next line stands in its place."""
    output.write_bytes(LINE + torn)
    output.chmod(0o640)
    write(output, Result("b", "two"), finish=True)
    assert ids(output) == ["a", "b"]
    kept = output.with_name("out.jsonl.damaged")
    assert kept.read_bytes() == torn
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert f"the torn end of {output} ({len(torn)} bytes) was cut off and is in {kept}" in caplog.text


def test_what_was_cut_off_before_stays(output: Path) -> None:
    """Whatever has the name: a file of somebody else, or a link that leads nowhere."""
    output.with_name("out.jsonl.damaged").write_bytes(b"mine")
    output.with_name("out.jsonl.damaged.2").symlink_to("nowhere")
    output.write_bytes(LINE + b'{"id": "b')
    opened(output).close()
    assert names(output) == ["out.jsonl", "out.jsonl.damaged", "out.jsonl.damaged.2", "out.jsonl.damaged.3"]
    assert output.with_name("out.jsonl.damaged").read_bytes() == b"mine"
    assert output.with_name("out.jsonl.damaged.3").read_bytes() == b'{"id": "b'


def test_a_last_line_without_its_end_is_whole(output: Path) -> None:
    """Editors strip it: the result counts, and the next one gets a line of its own."""
    output.write_bytes(LINE[:-1])
    with opened(output) as journal:
        assert journal.failed("a") is False
        journal.write([Result("b", "two")])
    assert output.read_bytes().startswith(LINE)
    assert ids(output) == ["a", "b"]
    with opened(output) as journal:
        journal.record_intents([intent("c")])
    journal_of(output).write_bytes(journal_of(output).read_bytes()[:-1])
    with opened(output) as journal:
        assert journal.intent("c") == intent("c")
        journal.record_intents([intent("d")])
    with opened(output) as journal:
        assert (journal.intent("c"), journal.intent("d")) == (intent("c"), intent("d"))


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"), 3),
        (lambda content: content.replace(b"\n", b"\n\n") + b"\n", 3),
        (lambda content: content + content.replace(b'"a"', b'"x"'), 5),
        (lambda content: content.replace(b'{"id"', b'{"score": 3, "id"'), 3),
        (
            lambda content: b"".join(
                json.dumps(json.loads(x), separators=(",", ":")).encode() + b"\n" for x in content.splitlines()
            ),
            3,
        ),
        (lambda content: b"".join(reversed(content.splitlines(keepends=True))), 3),
    ],
    ids=["BOM and CRLF", "blank lines", "put together", "another key", "compact", "sorted"],
)
def test_what_people_do_to_their_results_is_no_damage(
    output: Path, change: Callable[[bytes], bytes], count: int
) -> None:
    """As long as each line is a result, it counts; the rest of the batch is added to it, and failures come out."""
    output.write_bytes(change(LINE + EARLIER + EARLIER_FAILURE))
    changed = output.read_bytes()
    with opened(output) as journal:
        assert [journal.failed(id) for id in "aef"] == [False, False, True]
        journal.write([Result("b", "two")])
    assert output.read_bytes().startswith(changed)
    opened(output, retry_failed=True).close()
    with opened(output) as journal:
        assert [journal.failed(id) for id in "aefb"] == [False, False, None, False]
        journal.put_in_order("bea")
    lines = [line for line in output.read_bytes().replace(b"\xef\xbb\xbf", b"").splitlines() if line]
    found = [json.loads(line)["id"] for line in lines]
    assert [id for id in found if id in "bea"][:3] in (["b", "e", "a"], ["b", "e", "e"])
    assert len(found) == count


def test_an_answer_counts_beside_a_failure_of_the_same_prompt(output: Path) -> None:
    """Whichever comes first, as in outputs that were put together."""
    both = [EARLIER.replace(b'"e"', b'"f"'), EARLIER_FAILURE]
    for lines in (both, both[::-1]):
        output.write_bytes(b"".join(lines))
        with opened(output) as journal:
            assert journal.failed("f") is False
            journal.put_in_order("f")
            journal.finish()
        assert output.read_bytes() == b"".join(lines)
        assert names(output) == ["out.jsonl"]


def test_a_result_that_was_changed_is_told(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By its checksum, as long as there is a journal: it may be its owner's will, or a broken disk."""
    write(output, Result("a", "one"), Result("b", "two"), Result("c", "three"))
    opened(output).close()
    assert caplog.text == ""
    output.write_bytes(output.read_bytes().replace(b'"one"', b'"0ne"').replace(b"three", b"thr33"))
    opened(output).close()
    assert (
        f"line 1 and 1 more of {output} was changed since a batch wrote it; what stands there now counts" in caplog.text
    )


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (LINE + b"\0" * 50 + b'": 0}\n' + LINE, 2),
        (LINE + b"\0" * 50 + LINE, 2),
        (LINE + LINE[:20] + b"\n" + LINE, 2),
        (LINE + LINE[:20] + b"\n", 2),
        (LINE.replace(b"one", b"o\0e") + LINE, 1),
        (LINE + LINE.replace(b"one", b"o\0e"), 2),
        (LINE * 3 + LINE[:-1] + LINE, 4),
    ],
)
def test_damage_that_is_not_at_the_end_is_a_reason_to_refuse(output: Path, content: bytes, number: int) -> None:
    """Nothing behind it may be lost; nor a result that was on the disk and had its end."""
    output.write_bytes(content)
    if number == 1:
        refused(output, "line 1 of .*out.jsonl was not written by a batch: name another")
        return
    refused(output, f"line {number} of .*out.jsonl is damaged, and a kill damages the last line alone, .* restore")


def test_what_a_power_cut_left_between_zeros_is_cut_off(output: Path) -> None:
    """While a journal says that the batch has not ended: then it did not count. A whole result is not cut even then."""
    with opened(output) as journal:
        journal.record_intents([intent("a"), intent("b")])
        journal.write([Result("a", "one")])
    whole = output.read_bytes()
    output.write_bytes(whole + b"\0" * 50 + b'": 0}\n' + b"torn\n")
    with opened(output) as journal:
        assert journal.intent("b") == intent("b")
    assert output.read_bytes() == whole
    assert output.with_name("out.jsonl.damaged").read_bytes() == b"\0" * 50 + b'": 0}\ntorn\n'
    output.write_bytes(whole + b"\0" * 50 + b'": 0}\n' + LINE)
    refused(output, "line 2 of .* is damaged")


def test_the_first_line_may_be_torn_if_there_is_a_journal(output: Path) -> None:
    """Without one nobody knows whose file it is."""
    output.write_bytes(LINE[:30])
    refused(output, "line 1 of .* was not written by a batch")
    output.unlink()
    with opened(output) as journal:
        journal.record_intents([intent("a")])
    output.write_bytes(LINE[:30])
    opened(output).close()
    assert output.read_bytes() == b""


def test_a_torn_line_of_the_journal_is_removed(output: Path) -> None:
    """The message that it was about was not sent: it is sent when the line counts."""
    with opened(output) as journal:
        journal.record_intents([intent("a")])
        journal.record_intents([intent("b")])
    whole = journal_of(output).read_bytes()
    for torn in (whole[:-10], whole[:-10] + b"\0" * 10):
        journal_of(output).write_bytes(torn)
        with opened(output) as journal:
            assert (journal.intent("a"), journal.intent("b")) == (intent("a"), None)


@pytest.mark.parametrize("length", [0, 1, 20, "zeros"])
def test_a_journal_that_had_just_begun_is_empty(output: Path, length: Any) -> None:
    """Whatever of its header a kill or a power cut left."""
    with opened(output) as journal:
        header = journal_of(output).read_bytes()
        journal.record_intents([intent("a")])
    journal_of(output).write_bytes(b"\0" * 9 if length == "zeros" else header[:length])
    with opened(output) as journal:
        assert journal_of(output).read_bytes() == header
        assert journal.intent("a") is None
    assert names(output) == ["out.jsonl"]


def test_one_wrong_byte_in_the_journal_is_noticed(output: Path) -> None:
    """By the line's checksum: another conversation's answer is never taken."""
    with opened(output) as journal:
        journal.record_intents([intent("a", "t-1"), intent("b", "t-2")])
    journal_of(output).write_bytes(journal_of(output).read_bytes().replace(b"t-1", b"t-7"))
    refused(output, "line 1 of .*out.jsonl.journal (is damaged|was not written)")


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (b"dear diary", 1),
        (b"dear diary\n", 1),
        (b"\n \n", 1),
        (b"\0" * 5000, 1),
        (b"SQLite format 3\0" + bytes(range(256)) * 700, 1),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1),
        (LINE.decode().encode("utf-16"), 1),
        (LINE + b"\xff\xfe\n", 2),
        (LINE + b"[1]\n", 2),
        (LINE + b"torn by hand\n" + LINE, 2),
        (LINE + b"more of mine", 2),
        (LINE + b'{"id": "a", "prompt": "without an end"}', 2),
        (b'{"id": "a", "prompt": "hi"}\n', 1),
        (b'{"id": "a", "text": "of a data set"}\n', 1),
        (b'{"id": "a", "text": 5}\n', 1),
        (b'{"id": "a", "error": "boom"}\n', 1),
        (b'{"id": "a", "error": {"type": "x"}}\n', 1),
        (b'{"id": "a", "error": null}\n', 1),
        (LINE.replace(b'"text": "one"', b'"text": null'), 1),
        (LINE.replace(b'"id": "a"', b'"id": true'), 1),
        (b'{"text": "one"}\n', 1),
        (b"{" * 100_000, 1),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_of_something_else_is_left_alone(output: Path, content: bytes, number: int) -> None:
    """It may be the prompts, or anything that was named by mistake. Behind a result it may be one that was damaged."""
    output.write_bytes(content)
    otherwise = ", or take that line out of it" if number > 1 else "$"
    refused(output, f"line {number} of .*out.jsonl was not written by a batch: name another file{otherwise}")


def test_a_large_file_of_something_else_is_not_read(output: Path) -> None:
    """A disk's image is one line of many gigabytes: its beginning says enough."""
    with output.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(JournalError, match="line 1 of .* was not written by a batch"):
        opened(output)
    assert output.stat().st_size == 1 << 40


@pytest.mark.parametrize("content", [b'{"id": "a"}\n', b"\0" * 500, LINE, b"mine"])
def test_a_journal_of_something_else_is_left_alone(output: Path, content: bytes) -> None:
    """Beside an output that is all right too, or one that would be new."""
    journal_of(output).write_bytes(content)
    refused(output, "line 1 of .*out.jsonl.journal was not written by a batch")
    output.write_bytes(LINE)
    refused(output, "line 1 of .*out.jsonl.journal was not written by a batch")


def test_a_journal_is_no_output(output: Path) -> None:
    """Not another batch's, nor one's own."""
    with opened(output) as journal:
        journal.record_intents([intent("a")])
    refused(journal_of(output), "line 1 of .*out.jsonl.journal was not written by a batch")


def test_what_is_no_file_can_not_be_an_output(tmp_path: Path) -> None:
    """A device or a folder keeps nothing that could be gone on with; none of them is opened."""
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("null", "pipe", "folder"):
        with pytest.raises(JournalError, match=f"{name} is a folder, a pipe or a device, and not a file"):
            opened(tmp_path / name)
    with pytest.raises(JournalError, match="can't be opened: No such file or directory"):
        opened(tmp_path / "missing" / "out.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "null", "pipe"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Writing the output anew writes what the link names."""
    real = tmp_path / "real.jsonl"
    real.touch()
    link = tmp_path / "link.jsonl"
    link.symlink_to(real)
    write(link, Result("a", "one"), failure("b"))
    opened(link, retry_failed=True).close()
    assert link.is_symlink()
    assert ids(real) == ["a"]


def test_an_intent_is_known_when_it_is_opened_again(output: Path) -> None:
    """With all that finds its message; the last one for a prompt counts."""
    with opened(output) as journal:
        journal.record_intents([intent("a"), intent("b", created_thread=False)])
        journal.record_intents([intent("a", "t-2")])
    with opened(output) as journal:
        assert journal.intent("a") == intent("a", "t-2")
        journal.write([Result("a"), failure("b")])
        assert journal.intent("b") == intent("b", created_thread=False)
        assert journal.intent("c") is None


def test_an_empty_journal_does_not_stay(output: Path) -> None:
    """Nor is one removed that somebody else has put in its place."""
    opened(output).close()
    assert names(output) == ["out.jsonl"]
    with opened(output) as journal:
        journal.finish()
        with pytest.raises(JournalError, match="another batch"):
            opened(output)
    with opened(output) as journal:
        journal_of(output).unlink()
        journal_of(output).write_bytes(b"mine")
        journal.finish()
    assert journal_of(output).read_bytes() == b"mine"


def test_the_journal_is_removed_when_nothing_is_left_to_do(output: Path) -> None:
    """With a failed prompt there is: what is known of its message may be needed."""
    write(output, Result("a"), finish=True)
    with opened(output) as journal:
        journal.record_intents([intent("b")])
        journal.write([failure("b")])
        journal.finish()
    assert journal_of(output).exists()
    opened(output, retry_failed=True).close()
    write(output, Result("b"), finish=True)
    assert not journal_of(output).exists()


def test_a_failure_is_taken_out_to_be_asked_again(output: Path) -> None:
    """Where an answer may still come, what finds it is kept; a sure failure is asked in another conversation."""
    output.touch(mode=0o640)
    with opened(output) as journal:
        journal.record_intents([intent(id, f"t-{id}") for id in "abcd"])
        journal.write([Result("a"), failure("b"), failure("c", UNKNOWN), failure("e")])
    with opened(output, retry_failed=True) as journal:
        assert [journal.failed(id) for id in "abcde"] == [False, None, None, None, None]
        assert journal.intent("b") is None
        kept = journal.intent("c")
        assert kept is not None
        assert (kept.handle, kept.may_restart) == (intent("c", "t-c").handle, True)
        assert journal.intent("d") == intent("d", "t-d")
        journal.write([Result("c")])
    assert ids(output) == ["a", "c"]
    assert stat.S_IMODE(output.stat().st_mode) == 0o640
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.jsonl", "out.jsonl.journal"]
    with opened(output) as journal:
        assert journal.intent("b") is None
        kept = journal.intent("c")
        assert kept is not None
        assert kept.may_restart


def test_without_failures_the_output_is_left_as_it_is(output: Path) -> None:
    """It may be large."""
    write(output, Result("a"))
    before = output.stat().st_ino
    opened(output, retry_failed=True).close()
    assert output.stat().st_ino == before


def test_conversations_are_left_over_until_they_are_deleted(output: Path) -> None:
    """Those that the batch made, of prompts that are done; not where an answer may still come, or is to be had."""
    with opened(output) as journal:
        journal.record_intents([intent(id, f"t-{id}") for id in "abcd"])
        journal.record_intents([intent("mine", "t-mine", created_thread=False)])
        journal.write([Result("a"), failure("b"), failure("c", UNKNOWN), Result("mine")])
        assert sorted(journal.leftovers()) == ["t-a", "t-b"]
        journal.record_deletion("t-a")
        assert journal.leftovers() == ["t-b"]
    with opened(output) as journal:
        assert journal.leftovers() == ["t-b"]
        journal.record_intents([intent("d", "t-other")])
        assert sorted(journal.leftovers()) == ["t-b", "t-d"]


def test_results_are_put_in_order(output: Path) -> None:
    """Those of other prompts stand behind them, and prompts without a result are left out."""
    write(output, *(Result(id, f"text of {id}") for id in "dxbac"))
    with opened(output) as journal:
        journal.put_in_order(iter("abcde"))
        journal.write([Result("e")])
        assert journal.failed("a") is False
    assert ids(output) == ["a", "b", "c", "d", "x", "e"]
    assert json.loads(output.read_bytes().splitlines()[1])["text"] == "text of b"


FILL = """
import resource, sys
from copilot_sync.batch.journal import Journal, JournalError
from copilot_sync.batch.results import Result
with Journal(sys.argv[1]) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    try:
        for number in range(1000):
            journal.write([Result(number, "text " * 20)])
    except JournalError as error:
        print(number, error)
"""


def test_a_full_disk_stops_with_a_clear_error_and_can_go_on(output: Path) -> None:
    """The file ends after the last whole line, and the next run begins behind it."""
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(output)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    number, _, words = done.stdout.decode().partition(" ")
    assert words == f"{output} can't be written: File too large; make room and start the same batch again\n"
    assert ids(output) == list(range(int(number)))
    assert output.read_bytes().endswith(b"}\n")
    write(output, Result(int(number)))
    assert ids(output) == list(range(int(number) + 1))


class Disk:
    """Fails as a disk does, where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def fail(self, name: str, number: int) -> None:
        """Let a function of the system fail from now on."""

        def failing(*arguments: Any) -> Any:
            raise OSError(number, os.strerror(number))

        self._patch.setattr(os, name, failing)

    def recover(self) -> None:
        self._patch.undo()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize(
    ("call", "number", "words"),
    [
        ("write", errno.ENOSPC, "No space left on device; make room and start the same batch again"),
        ("fsync", errno.ENOSPC, "No space left on device; make room"),
        ("fsync", errno.EDQUOT, "make room"),
        ("fsync", errno.EIO, "Input/output error$"),
    ],
)
def test_what_could_not_be_synced_is_not_there(output: Path, disk: Disk, call: str, number: int, words: str) -> None:
    """Neither in the file nor in what the journal knows; the system's error is the cause."""
    with opened(output) as journal:
        journal.write([Result("a", "one")])
        before = output.read_bytes()
        disk.fail(call, number)
        with pytest.raises(JournalError, match=f"out.jsonl can't be written: .*{words}") as caught:
            journal.write([Result("b", "two")])
        disk.recover()
        assert isinstance(caught.value.__cause__, OSError)
        assert output.read_bytes() == before
        assert journal.failed("b") is None
        with pytest.raises(JournalError, match="could not be written before: start the same batch again"):
            journal.write([Result("b", "two")])
    write(output, Result("b", "two"))
    assert ids(output) == ["a", "b"]


def test_what_somebody_else_adds_while_a_write_fails_is_not_cut_off(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was written here is taken back."""

    def failing(file: int, data: Any) -> int:
        output.write_bytes(output.read_bytes() + b"mine\n" * 1000)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(output) as journal:
        monkeypatch.setattr(os, "write", failing)
        with pytest.raises(JournalError, match="make room"):
            journal.write([Result("b", "two")])
        monkeypatch.undo()
    assert output.read_bytes() == b"mine\n" * 1000


def test_a_write_that_is_cut_short_goes_on(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take less than it was given."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:7]))
    write(output, Result("a", "one" * 100))
    monkeypatch.undo()
    assert ids(output) == ["a"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_no_room_to_write_it_anew_leaves_the_output_as_it_is(output: Path, disk: Disk, call: str) -> None:
    """And nothing beside it; the failures are taken out by the next run that has room."""
    write(output, Result("a"), failure("b"))
    before, names_before = output.read_bytes(), names(output)
    disk.fail(call, errno.ENOSPC)
    with pytest.raises(JournalError, match="make room"):
        opened(output, retry_failed=True)
    disk.recover()
    assert output.read_bytes() == before
    assert names(output) == names_before
    opened(output, retry_failed=True).close()
    assert ids(output) == ["a"]


def test_an_error_without_a_remedy_has_none(tmp_path: Path, output: Path, disk: Disk) -> None:
    """A file that can't be read is told as that."""
    disk.fail("open", errno.EACCES)
    with pytest.raises(JournalError, match="out.jsonl can't be opened: Permission denied$"):
        opened(output)
    disk.recover()


def test_a_million_results_are_not_held_in_memory(output: Path) -> None:
    """What is known of them lies on the disk: 10,000 take less than half a megabyte."""
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy has none")
    with output.open("wb") as file:
        for number in range(10_000):
            file.write(LINE.replace(b'"a"', b"%d" % number))
    tracemalloc.start()
    try:
        with opened(output) as journal:
            for number in range(10_000):
                assert journal.failed(number) is False
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_a_journal_is_closed_once(output: Path) -> None:
    """Closing it again does no harm."""
    journal = opened(output)
    journal.close()
    journal.close()
