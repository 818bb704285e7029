"""The output of a batch, and what lets a batch that was killed go on where it stopped.

Two files. The output has a line of JSON for each prompt that is done. Beside it lies the journal, named after it with
``.journal`` at its end: before a message is sent, a line there says where it goes and what its answer will be called,
so that whoever comes after a kill can look the answer up in its conversation instead of asking again.

Each line of the journal begins with its checksum. It has the checksums of the results as well: lines of the output have
fixed keys, and their owner may change them, which is told and not refused.

Rules: whatever stands in the output is done. Both files are locked as long as a batch writes, and the journal is
removed when nothing is left to do. How lines get to the disk is in ``line_files``.
"""

import contextlib
import json
import logging
import os
import re
import zlib
from dataclasses import dataclass
from typing import IO, Any, Dict, Iterable, Iterator, List, Optional, Union

from copilot_sync.batch.disk_dict import DiskDict
from copilot_sync.batch.line_files import JournalError, LineFile, LineFormat, check_is_file, json_line
from copilot_sync.batch.prompts import Id
from copilot_sync.batch.results import Result, is_result, may_have_answer
from copilot_sync.models import MessageHandle
from copilot_sync.protocol import loads

logger = logging.getLogger(__name__)

_DONE = "done"
_FAILED = "failed"
_UNCERTAIN = "uncertain"  # failed, and its conversation may have the answer all the same


@dataclass(frozen=True)
class Intent:
    """A message that is about to be sent.

    Attributes:
        id: The id of its prompt.
        handle: What finds it again.
        digest: Tells its prompt from another one that has the same id.
        created_thread: Whether the conversation was begun for it.
        may_restart: Whether its prompt had failed, so that it may be asked in a new conversation if this one has no
            answer.
    """

    id: Id
    handle: MessageHandle
    digest: str
    created_thread: bool
    may_restart: bool = False

    def to_dict(self) -> Dict[str, Any]:
        """Give what stands in the journal."""
        return {
            "id": self.id,
            "conversation": self.handle.conversation_id,
            "parent": self.handle.parent_id,
            "answer": self.handle.answer_id,
            "digest": self.digest,
            "made": self.created_thread,
            "again": self.may_restart,
        }

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "Intent":
        """Read what ``to_dict`` gave."""
        handle = MessageHandle(data["conversation"], data["answer"], data["parent"])
        return cls(data["id"], handle, data["digest"], data["made"], data["again"])


class NullJournal:
    """Stands for a journal where nothing is kept."""

    def failed(self, id: Id) -> Optional[bool]:
        """Nothing is done."""

    def intent(self, id: Id) -> Optional[Intent]:
        """There is none."""

    def record_intents(self, intents: List[Intent]) -> None:
        """Forget them."""

    def write(self, results: List[Result]) -> None:
        """Forget them."""

    def record_deletion(self, conversation_id: str) -> None:
        """Forget it."""

    def leftovers(self) -> List[str]:
        """There are none."""
        return []

    def put_in_order(self, ids: Iterable[Id]) -> None:
        """There is nothing to put in order."""

    def finish(self) -> None:
        """There is nothing to remove."""


class Journal:
    """The output of one batch and the journal beside it, open for writing. For one thread at a time.

    Args:
        path: The output.
        retry_failed: Remove the failed results from the output, so that their prompts are asked again.

    Raises:
        JournalError: Another batch writes to the output, a file can't be read or written, or holds something else.
    """

    def __init__(self, path: str, *, retry_failed: bool = False) -> None:
        check_is_file(path)
        self.path = os.path.realpath(path)
        with contextlib.ExitStack() as stack:
            self._states = stack.enter_context(DiskDict())  # by prompt: _DONE, _FAILED or _UNCERTAIN
            self._intents = stack.enter_context(DiskDict())  # by prompt
            self._made = stack.enter_context(DiskDict())  # by conversation: the prompt that it was begun for
            self._output = stack.enter_context(LineFile(self.path, _OUTPUT, self.path))
            self._notes = stack.enter_context(LineFile(f"{self.path}.journal", _JOURNAL, self.path))
            self._failures = 0
            self._read()
            if retry_failed and self._failures:
                self._forget_failures()
            self._files = stack.pop_all()

    def _read(self) -> None:
        """Take note of all that stands in the files; then, and not before, bring them in order."""
        changed: List[int] = []
        with DiskDict() as sums:  # by prompt: the checksum of its result

            def take_note(number: int, note: Dict[str, Any], line: bytes) -> None:
                if "result" in note:
                    sums.set(str(note["result"]), str(note["sum"]))
                else:
                    self._recall(note)

            def take_result(number: int, fields: Dict[str, Any], line: bytes) -> None:
                if sums.get(str(fields["id"])) not in (None, str(zlib.crc32(line))):
                    changed.append(number)
                self._count(fields)

            self._notes.read(take_note)
            self._output.read(take_result, has_journal=self._notes.is_proven)
        self._notes.mend()
        self._output.mend()
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            logger.warning(
                "line %d%s of %s was changed since a batch wrote it; what stands there now counts",
                *(changed[0], more, self.path),
            )

    def failed(self, id: Id) -> Optional[bool]:
        """Whether a prompt has failed; ``None`` where the output has no result of it."""
        state = self._states.get(str(id))
        return None if state is None else state != _DONE

    def intent(self, id: Id) -> Optional[Intent]:
        """What an earlier run was about to send for a prompt that is not done."""
        kept = self._intents.get(str(id))
        return None if kept is None else Intent.from_dict(json.loads(kept))

    def record_intents(self, intents: List[Intent]) -> None:
        """Keep what is about to be sent. It is on the disk when this returns.

        Raises:
            JournalError: It can't be written.
        """
        notes = [intent.to_dict() for intent in intents]
        self._notes.append(notes, sync=True)
        for note in notes:
            self._recall(note)

    def write(self, results: List[Result]) -> None:
        """Add results to the output. They are on the disk when this returns.

        Raises:
            JournalError: They can't be written.
        """
        fields = [result.to_dict() for result in results]
        lines = self._output.append(fields, sync=True)
        for line in fields:
            self._count(line)
        sums = [{"result": each["id"], "sum": zlib.crc32(line)} for each, line in zip(fields, lines)]
        with contextlib.suppress(JournalError):  # the results are safe; what needs the journal next will tell
            self._notes.append(sums, sync=False)

    def record_deletion(self, conversation_id: str) -> None:
        """Note that a conversation that the batch made was deleted. A lost note does no harm."""
        self._notes.append([{"deleted": conversation_id}], sync=False)
        self._made.remove(conversation_id)

    def leftovers(self) -> List[str]:
        """The conversations that the batch made, in this run or an earlier one, and that nobody needs any more."""
        return [conversation for conversation, id in self._made.items() if self._is_over(conversation, id)]

    def put_in_order(self, ids: Iterable[Id]) -> None:
        """Write the output anew, with its results in a given order, and any others behind them.

        Raises:
            JournalError: There is no room for it; then the output is as it was.
        """
        with DiskDict() as spans, self._output.reading() as file:
            place = 0
            for line in file:
                fields = _OUTPUT.whole(line.strip())
                # Of two results of one prompt, and of blank lines, none is lost.
                key = "" if fields is None else f"id {fields['id']}"
                spans.set(key, f"{spans.get(key) or ''} {place} {len(line)}")
                place += len(line)
            self._output.replace(_spans_in_order(file, spans, (f"id {id}" for id in ids)))

    def finish(self) -> None:
        """Remove the journal, where no prompt failed."""
        if not self._failures:
            self._notes.remove()

    def close(self) -> None:
        """Close the files and let others write. May be called more than once."""
        with self._files:
            if self._notes.is_empty:
                self._notes.remove()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _recall(self, note: Dict[str, Any]) -> None:
        if "deleted" in note:
            self._made.remove(note["deleted"])
        elif "dropped" in note:
            self._intents.remove(str(note["dropped"]))
        else:
            intent = Intent.from_dict(note)
            self._intents.set(str(intent.id), json.dumps(note))
            if intent.created_thread:
                self._made.set(intent.handle.conversation_id, str(intent.id))

    def _count(self, line: Dict[str, Any]) -> None:
        """Take note of a line of the output. Where a prompt has two, as in outputs put together, an answer counts."""
        id, error = str(line["id"]), line.get("error")
        before = self._states.get(id)
        if before == _DONE:
            return
        state = _DONE if error is None else _UNCERTAIN if may_have_answer(error) else _FAILED
        self._states.set(id, state)
        self._failures += (state != _DONE) - (before is not None)

    def _is_over(self, conversation_id: str, id: str) -> bool:
        if self._states.get(id) in (_DONE, _FAILED):
            return True
        kept = self._intents.get(id)
        return kept is not None and Intent.from_dict(json.loads(kept)).handle.conversation_id != conversation_id

    def _forget_failures(self) -> None:
        """Take the failed results out of the output, first noting what their conversations are good for."""
        notes: List[Dict[str, Any]] = []
        failed = [(id, state) for id, state in self._states.items() if state != _DONE]
        for id, state in failed:
            kept = self._intents.get(id)
            if kept is not None:
                note = json.loads(kept)
                notes.append({**note, "again": True} if state == _UNCERTAIN else {"dropped": note["id"]})
        self._notes.append(notes, sync=True)
        for note in notes:
            self._recall(note)
        with self._output.reading() as file:
            self._output.replace(line for line in file if not _is_failure(line))
        for id, _ in failed:
            self._states.remove(id)
        self._failures = 0


AnyJournal = Union[Journal, NullJournal]


def _is_failure(line: bytes) -> bool:
    fields = _OUTPUT.whole(line.strip())
    return fields is not None and fields.get("error") is not None


def _spans_in_order(file: IO[bytes], spans: DiskDict, keys: Iterable[str]) -> Iterator[bytes]:
    """The lines of a file: first those of the keys, then the rest."""
    for key in keys:
        places = spans.get(key)
        if places is not None:
            spans.remove(key)
            yield from _lines_at(file, places)
    for _, places in spans.items():
        yield from _lines_at(file, places)


def _lines_at(file: IO[bytes], places: str) -> Iterator[bytes]:
    numbers = iter(map(int, places.split()))
    for place, length in zip(numbers, numbers):
        file.seek(place)
        yield file.read(length)


# What lines look like


def _read_result(line: bytes) -> Dict[str, Any]:
    fields: Dict[str, Any] = loads(line.decode("utf-8"))
    if not is_result(fields):
        raise ValueError("it is no result")
    return fields


#: How each line that was written here begins, as far as it goes.
_RESULT_BEGINS = re.compile(rb'\{"id": ["\d-].*', re.DOTALL)
_NOTE_BEGINS = re.compile(rb"[0-9a-f]{0,8}|[0-9a-f]{8} .*", re.DOTALL)


def _may_begin_result(head: bytes) -> bool:
    begins = b'{"id": '.startswith(head) or _RESULT_BEGINS.fullmatch(head) is not None
    return begins and not _is_json(head)


def _may_begin_note(head: bytes) -> bool:
    return _NOTE_BEGINS.fullmatch(head) is not None and not _is_json(head[9:])


def _is_json(text: bytes) -> bool:
    try:
        loads(text.decode("utf-8"))
    except ValueError:
        return False
    return True


def _note_line(note: Dict[str, Any]) -> bytes:
    line = json_line(note)
    return b"%08x %s" % (zlib.crc32(line), line)


def _read_note(line: bytes) -> Dict[str, Any]:
    told, _, text = line.partition(b" ")
    if told != b"%08x" % zlib.crc32(text):
        raise ValueError("its checksum is wrong")
    note: Dict[str, Any] = json.loads(text.decode("utf-8"))
    return note


_OUTPUT = LineFormat(json_line, _read_result, _may_begin_result)
_JOURNAL = LineFormat(_note_line, _read_note, _may_begin_note, _note_line({"journal": "copilot-sync batch"}) + b"\n")
