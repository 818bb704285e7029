"""The output of a batch, and the journal with which a batch that was killed continues where it stopped.

There are two files. The output has a line of JSON for each prompt that has a result. The journal lies beside it, with
``.journal`` at the end of its name. Before a message is sent, a line of the journal says where it goes and which id its
answer will have. After a kill, the next run looks for the answer in that conversation instead of asking again.

Each line of the journal begins with its checksum. The journal has the checksums of the results as well: the owner of
the output may change a result, which is reported in a warning, and not refused.

Rules: a prompt that has a result in the output is done. Both files are locked as long as a batch writes to them. The
journal is removed when nothing is left to do.
"""

import contextlib
import json
import logging
import os
import zlib
from dataclasses import dataclass
from typing import IO, Any, Dict, Iterable, Iterator, List, Optional, Union

from copilot_sync.batch.disk_dict import DiskDict
from copilot_sync.batch.durable_file import JournalError, check_is_file
from copilot_sync.batch.line_files import LineFile
from copilot_sync.batch.line_formats import JOURNAL
from copilot_sync.batch.output_forms import DONE, FAILED, OWN, UNCERTAIN, OutputForm
from copilot_sync.batch.prompts import Id
from copilot_sync.batch.results import Result
from copilot_sync.delivery.message import MessageHandle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intent:
    """A message that is about to be sent.

    Attributes:
        id: The id of its prompt.
        handle: What finds it again.
        digest: A checksum of its prompt. That of another prompt with the same id differs.
        created_thread: Whether the conversation was begun for it.
        may_restart: Whether its prompt had failed, so that it may be asked in a new conversation if this one has no
            answer.
        misfits: How many answers to its prompt did not fit the schema before.
        content: The text of the message, if it asks for another answer; ``None`` if it is the prompt itself.
    """

    id: Id
    handle: MessageHandle
    digest: str
    created_thread: bool
    may_restart: bool = False
    misfits: int = 0
    content: Optional[str] = None

    def to_dict(self) -> Dict[str, Any]:
        """Return the fields of a journal line."""
        return {
            "id": self.id,
            "conversation": self.handle.conversation_id,
            "parent": self.handle.parent_id,
            "answer": self.handle.answer_id,
            "digest": self.digest,
            "made": self.created_thread,
            "again": self.may_restart,
            **({"misfits": self.misfits, "content": self.content} if self.misfits else {}),
        }

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "Intent":
        """Read the fields that ``to_dict`` returns."""
        handle = MessageHandle(data["conversation"], data["answer"], data["parent"])
        repair = data.get("misfits", 0), data.get("content")
        return cls(data["id"], handle, data["digest"], data["made"], data["again"], *repair)


class NullJournal:
    """The journal of a batch that has no output. It keeps nothing."""

    def failed(self, id: Id) -> Optional[bool]:
        """Return ``None``: no prompt has a result."""

    def intent(self, id: Id) -> Optional[Intent]:
        """Return ``None``: there is none."""

    def record_intents(self, intents: List[Intent]) -> None:
        """Do nothing."""

    def write(self, results: List[Result]) -> None:
        """Do nothing."""

    def record_deletion(self, conversation_id: str) -> None:
        """Do nothing."""

    def leftovers(self) -> List[str]:
        """Return an empty list."""
        return []

    def put_in_order(self, ids: Iterable[Id]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class Journal:
    """The output of a batch and the journal beside it, open for writing. For one thread at a time.

    Args:
        path: The output.
        retry_failed: Remove the failures from the output, so that their prompts are asked again.
        form: What the lines of the output are like.

    Raises:
        JournalError: Another batch writes to the output, a file can't be read or written, or it is not a batch's.
    """

    def __init__(self, path: str, *, retry_failed: bool = False, form: OutputForm = OWN) -> None:
        check_is_file(path)
        self._form = form
        self.path = os.path.realpath(path)
        with contextlib.ExitStack() as stack:
            self._outcomes = stack.enter_context(DiskDict())  # id of a prompt: DONE, FAILED or UNCERTAIN
            self._intents = stack.enter_context(DiskDict())  # id of a prompt: the fields of its last intent, as JSON
            self._created = stack.enter_context(DiskDict())  # id of a conversation: id of the prompt it was begun for
            self._output = stack.enter_context(LineFile(self.path, form.lines, self.path))
            self._notes = stack.enter_context(LineFile(f"{self.path}.journal", JOURNAL, self.path))
            self._failures = 0  # prompts that have failed
            self._read()
            if retry_failed and self._failures:
                self._forget_failures()
            self._files = stack.pop_all()

    def _read(self) -> None:
        """Read both files. Mend them only after both have been read."""
        changed: List[int] = []
        with DiskDict() as checksums:  # id of a prompt: the checksum of its result

            def take_note(number: int, note: Dict[str, Any], line: bytes) -> None:
                if "result" in note:
                    checksums.set(str(note["result"]), str(note["sum"]))
                else:
                    self._apply(note)

            def take_result(number: int, fields: Dict[str, Any], line: bytes) -> None:
                if checksums.get(self._id_in(fields)) not in (None, str(zlib.crc32(line))):
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
        """Return whether a prompt has failed; ``None`` if it has no result."""
        outcome = self._outcomes.get(str(id))
        return None if outcome is None else outcome != DONE

    def intent(self, id: Id) -> Optional[Intent]:
        """Return what an earlier run was about to send for a prompt; ``None`` if there is nothing."""
        kept = self._intents.get(str(id))
        return None if kept is None else Intent.from_dict(json.loads(kept))

    def record_intents(self, intents: List[Intent]) -> None:
        """Note what is about to be sent. The notes are on the disk when this returns.

        Raises:
            JournalError: They can't be written.
        """
        notes = [intent.to_dict() for intent in intents]
        self._notes.append(notes, sync=True)
        for note in notes:
            self._apply(note)

    def write(self, results: List[Result]) -> None:
        """Add results to the output. They are on the disk when this returns.

        Raises:
            JournalError: They can't be written.
        """
        fields = [self._form.fields_of(result) for result in results]
        lines = self._output.append(fields, sync=True)
        for each in fields:
            self._count(each)
        checksums = [{"result": each[self._form.id_key], "sum": zlib.crc32(line)} for each, line in zip(fields, lines)]
        with contextlib.suppress(JournalError):  # the results are safe; the next call that needs the journal raises
            self._notes.append(checksums, sync=False)

    def record_deletion(self, conversation_id: str) -> None:
        """Note that a conversation that the batch began was deleted. Losing the note does no harm."""
        self._notes.append([{"deleted": conversation_id}], sync=False)
        self._created.remove(conversation_id)

    def leftovers(self) -> List[str]:
        """Return the conversations that the batch began, in this run or an earlier one, and that are not needed."""
        return [conversation for conversation, id in self._created.items() if self._is_spare(conversation, id)]

    def put_in_order(self, ids: Iterable[Id]) -> None:
        """Write the output anew, with its results in the order of these ids, and all other lines behind them.

        Raises:
            JournalError: That fails. The output is as it was.
        """
        with DiskDict() as spans, self._output.reading() as file:  # id of a prompt: start and length of each line
            start = 0
            for line in file:
                fields = self._form.lines.parse(line.strip())
                # A prompt may have two results. Blank lines share one key. No line is lost.
                key = "" if fields is None else f"id {self._id_in(fields)}"
                spans.set(key, f"{spans.get(key) or ''} {start} {len(line)}")
                start += len(line)
            self._output.replace(_spans_in_order(file, spans, (f"id {id}" for id in ids)))

    def finish(self) -> None:
        """Remove the journal if no prompt has failed."""
        if not self._failures:
            self._notes.remove()

    def close(self) -> None:
        """Close the files and release their locks. May be called more than once."""
        with self._files:
            if self._notes.is_empty:
                self._notes.remove()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _apply(self, note: Dict[str, Any]) -> None:
        """Take over what a line of the journal says."""
        if "deleted" in note:
            self._created.remove(note["deleted"])
        elif "dropped" in note:
            self._intents.remove(str(note["dropped"]))
        else:
            intent = Intent.from_dict(note)
            self._intents.set(str(intent.id), json.dumps(note))
            if intent.created_thread:
                self._created.set(intent.handle.conversation_id, str(intent.id))

    def _count(self, line: Dict[str, Any]) -> None:
        """Take over a line of the output. If a prompt has two, an answer counts more than a failure."""
        id = self._id_in(line)
        before = self._outcomes.get(id)
        if before == DONE:
            return
        outcome = self._form.outcome_of(line)
        self._outcomes.set(id, outcome)
        self._failures += (outcome != DONE) - (before is not None)

    def _is_spare(self, conversation_id: str, id: str) -> bool:
        if self._outcomes.get(id) in (DONE, FAILED):
            return True
        kept = self._intents.get(id)
        return kept is not None and Intent.from_dict(json.loads(kept)).handle.conversation_id != conversation_id

    def _forget_failures(self) -> None:
        """Remove the failures from the output. Note first whether their conversations may have the answer."""
        notes: List[Dict[str, Any]] = []
        failed = [(id, outcome) for id, outcome in self._outcomes.items() if outcome != DONE]
        for id, outcome in failed:
            kept = self._intents.get(id)
            if kept is not None:
                note = json.loads(kept)
                notes.append({**note, "again": True} if outcome == UNCERTAIN else {"dropped": note["id"]})
        self._notes.append(notes, sync=True)
        for note in notes:
            self._apply(note)
        with self._output.reading() as file:
            self._output.replace(line for line in file if not self._is_failure(line))
        for id, _ in failed:
            self._outcomes.remove(id)
        self._failures = 0

    def _is_failure(self, line: bytes) -> bool:
        fields = self._form.lines.parse(line.strip())
        return fields is not None and self._form.outcome_of(fields) != DONE

    def _id_in(self, fields: Dict[str, Any]) -> str:
        return str(fields[self._form.id_key])


AnyJournal = Union[Journal, NullJournal]


def _spans_in_order(file: IO[bytes], spans: DiskDict, keys: Iterable[str]) -> Iterator[bytes]:
    """Yield the lines of a file: those of the keys first, then the rest."""
    for key in keys:
        found = spans.get(key)
        if found is not None:
            spans.remove(key)
            yield from _lines_at(file, found)
    for _, found in spans.items():
        yield from _lines_at(file, found)


def _lines_at(file: IO[bytes], spans: str) -> Iterator[bytes]:
    numbers = iter(map(int, spans.split()))
    for start, length in zip(numbers, numbers):
        file.seek(start)
        yield file.read(length)
