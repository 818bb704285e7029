"""The prompts that come into a batch: checked for duplicate ids, and without those that have a result already."""

import contextlib
import inspect
import itertools
from typing import Callable, Generator, Iterator, Optional, Union

from copilot_sync.batch.disk_dict import DiskDict
from copilot_sync.batch.journal import AnyJournal
from copilot_sync.batch.prompts import BadLine, Id, Prompt, PromptSource, read_prompt
from copilot_sync.batch.results import result_of_bad_line
from copilot_sync.batch.work_items import FinishedItem, PromptDefaults, WorkItem
from copilot_sync.models import Conversation


@contextlib.contextmanager
def reading(prompts: PromptSource) -> Iterator[Iterator[Union[Prompt, BadLine]]]:
    """Read prompts one by one. At the end of the block, a file that is read for it is closed, also half-way.

    An iterator that the caller made stays open: its next item may be wanted elsewhere.
    """
    values = iter(prompts)
    try:
        yield (read_prompt(value, number) for number, value in enumerate(values))
    finally:
        if values is not prompts and inspect.isgenerator(values):
            values.close()


class Intake:
    """Reads prompts one by one, as they are needed. For one thread.

    Args:
        prompts: The prompts.
        defaults: What counts for prompts that don't say otherwise.

    Attributes:
        total: How many prompts there are; ``None`` before ``check_ids``, and if they can be iterated only once.
        skipped: How many of those read so far have a result already.
        skipped_failures: How many of the ``skipped`` have failed.
    """

    def __init__(self, prompts: PromptSource, defaults: PromptDefaults) -> None:
        self.total: Optional[int] = None
        self.skipped = 0
        self.skipped_failures = 0
        self._prompts = prompts
        self._defaults = defaults
        self._seen_ids: Optional[DiskDict] = None  # kept if ids are checked while the prompts are read

    def check_ids(self, ids: DiskDict, check_stopped: Callable[[], None]) -> None:
        """Check that no two prompts have the same id.

        Prompts that can be iterated only once are checked while ``items`` reads them.

        Args:
            ids: An empty dictionary. It stays open as long as prompts are read.
            check_stopped: Called for each prompt. Raises if the batch was closed.

        Raises:
            ValueError: Two prompts have the same id.
        """
        if isinstance(self._prompts, Iterator):
            self._seen_ids = ids
            return
        with reading(self._prompts) as prompts:
            for prompt in prompts:
                check_stopped()
                _add_id(ids, prompt)
        self.total = len(ids)

    @property
    def is_reiterable(self) -> bool:
        """Whether the prompts can be iterated more than once. Known after ``check_ids``."""
        return self._seen_ids is None

    def ids(self) -> Generator[Id, None, None]:
        """Iterate the prompts once more, for their ids. Close it when done."""
        with reading(self._prompts) as prompts:
            for prompt in prompts:
                yield prompt.id

    def items(self, journal: AnyJournal) -> Generator[Union[WorkItem, FinishedItem], None, None]:
        """Read the prompts that have no result yet. A line that is no prompt is finished at once. Close it when done.

        Args:
            journal: Knows the results of earlier runs, and what those runs were about to send.
        """
        index = itertools.count()
        with reading(self._prompts) as prompts:
            for prompt in prompts:
                if self._seen_ids is not None:
                    _add_id(self._seen_ids, prompt)
                failed_before = journal.failed(prompt.id)
                if failed_before is not None:
                    self.skipped += 1
                    self.skipped_failures += failed_before
                elif isinstance(prompt, BadLine):
                    yield FinishedItem(next(index), result_of_bad_line(prompt))
                else:
                    yield self._item(next(index), prompt, journal)

    def _item(self, index: int, prompt: Prompt, journal: AnyJournal) -> WorkItem:
        item = WorkItem(index, prompt, self._defaults.task_for(prompt), self._defaults.expectation_of(prompt))
        intent = journal.intent(prompt.id)
        if intent is not None and intent.digest == item.digest():
            item.resume(intent)
        elif item.given_conversation_id is not None:
            given = prompt.conversation
            item.target(item.given_conversation_id, given.message_id if isinstance(given, Conversation) else None)
        return item


def _add_id(ids: DiskDict, prompt: Union[Prompt, BadLine]) -> None:
    if not ids.add(str(prompt.id)):
        raise ValueError(f"two prompts have the id {prompt.id!r}: their results could not be told apart")
