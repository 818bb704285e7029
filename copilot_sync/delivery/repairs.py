"""A question whose answer has to fit a schema: it is asked, and asked again with what is wrong, in one thread.

All messages are one call to whoever waits, and to hooks: they share its time limits and its stop. To what a call passes
(limits, budgets, the ledger) each message is a call of its own. The one generator serves threads and event loops alike.
"""

import contextlib
import logging
from dataclasses import replace
from typing import Any, Generator, List, Optional, Sequence, Tuple

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.delivery.exchange import Item, drive
from copilot_sync.delivery.guards import Passage
from copilot_sync.delivery.message import CallOptions, PendingMessage, new_id
from copilot_sync.delivery.reporter import reporters_of
from copilot_sync.errors import InvalidAnswerError, StreamInterruptedError
from copilot_sync.models import Answer, Conversation
from copilot_sync.stepping import Pause
from copilot_sync.structured import MisfitError, repair_text
from copilot_sync.transport.call import CallContext
from copilot_sync.usage import Usage

logger = logging.getLogger(__name__)


class JudgedBuilder(AnswerBuilder):
    """What is known of an answer that is judged before the stream ends with it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: What the answers have cost that did not fit and were asked for again.
        self.earlier_usages: List[Optional[Usage]] = []

    @property
    def usage(self) -> Optional[Usage]:
        """The tokens that all answers have cost so far."""
        usages = [*self.earlier_usages, *([self.complete.usage] if self.complete else [])]
        return total_usage(usages) if usages else None

    def conclude(self, answer: Answer) -> None:
        """Note an answer, but not yet as the end of the stream."""
        self.written = answer

    def begin_again(self, usage: Optional[Usage]) -> None:
        """Forget an answer that does not fit, but not what it has cost, because it is asked for again."""
        self.earlier_usages.append(usage)
        self.forget_text()
        self.routed_model, self.annotations, self.complete, self.written = "", {}, None, None
        self.answer_id = new_id()

    @property
    def has_begun_once(self) -> bool:
        """Whether an answer has begun, be it one that did not fit."""
        return bool(self.earlier_usages) or self.begun


def drive_to_fit(
    session: ApiSession,
    message: PendingMessage,
    options: CallOptions,
    call: CallContext,
    builder: JudgedBuilder,
    *,
    tells_begun: bool = False,
) -> Generator[Item, None, None]:
    """Go through a whole call, as ``drive`` does, until its answer is what the message expects.

    Yields:
        The conversation, and the events of the answer that fits.

    Raises:
        InvalidAnswerError: No answer fits.
        StreamInterruptedError: An answer may not be whole.
        CopilotError: A message failed.
    """
    call.begin()
    passage = Passage(message, call, builder, options.retry)
    try:  # hooks are told of one call
        yield from passage.entering(reporters_of(options, session, call, builder))
        yield from _fitting(session, message, options, call, builder, tells_begun=tells_begun)
    except Exception as error:
        passage.leave(error)
        raise
    finally:
        passage.leave()


def _fitting(
    session: ApiSession,
    message: PendingMessage,
    options: CallOptions,
    call: CallContext,
    builder: JudgedBuilder,
    *,
    tells_begun: bool,
) -> Generator[Item, None, None]:
    """Do what ``drive_to_fit`` does, without telling hooks."""
    expected = message.expected
    assert expected is not None  # noqa: S101 - else ``drive`` does
    message = replace(message, buffered=True)
    while True:
        items: List[Item] = []
        with contextlib.closing(drive(session, message, options, call, builder, tells_begun=tells_begun)) as steps:
            for item in steps:
                if isinstance(item, (Conversation, Pause)):
                    if type(item) is Pause or not builder.earlier_usages:
                        yield item
                else:
                    items.append(item)
        answer = builder.written
        assert answer is not None  # noqa: S101 - ``drive`` has ended without an error
        check_complete(answer)
        usages = [*builder.earlier_usages, answer.usage]
        answer = replace(answer, usage=total_usage(usages))
        try:
            fitted = expected.schema.fitted(answer)
        except MisfitError as misfit:
            problems = misfit.problems
        else:
            builder.note_end(fitted)  # unless the stream was closed meanwhile, which its reader will find
            yield from items
            return
        error = invalid_answer(answer, problems, len(usages))
        if len(usages) > expected.repairs:
            raise error
        if call.reporter is not None:
            call.reporter.retrying(error, 0.0)
        log_misfit(len(usages))
        message = _repair(message, builder, repair_text(problems))
        builder.begin_again(usages[-1])
        call.attempts["message"] = 0  # each message has its own


def invalid_answer(answer: Answer, problems: Tuple[str, ...], count: int) -> InvalidAnswerError:
    """Return the error for the last of so many answers, none of which fits."""
    words = "the answer does not fit" if count == 1 else f"none of {count} answers fits"
    return InvalidAnswerError(
        f"{words} the schema: {'; '.join(problems)}",
        problems=problems,
        answer=answer,
        stage="stream",
        attempts=count,
        partial=answer.text,
    )


def log_misfit(count: int) -> None:
    """Log that another answer is asked for. What is wrong with the one of this number may quote it: no word of that."""
    logger.info("message: asking again: answer %d does not fit the schema", count)


def check_complete(answer: Answer) -> None:
    """Raise if some of an answer may be missing: that is no fault of the model's, which it could mend.

    Raises:
        StreamInterruptedError: It may be.
    """
    if not answer.complete:
        raise StreamInterruptedError(
            "some of the answer may be missing, so it is not read as data",
            stage="stream",
            partial=answer.text,
            conversation=answer.conversation,
        )


def _repair(message: PendingMessage, builder: AnswerBuilder, text: str) -> PendingMessage:
    """Return the message that asks again. What came with the question is in the thread, and is not sent again."""
    return replace(
        message,
        content=text,
        model=builder.model,
        options=replace(message.options, references=(), media=(), parent_message_id=None),
        conversation=builder.conversation,
        handle=None,
        fallback_model="",
    )


def total_usage(usages: Sequence[Optional[Usage]]) -> Optional[Usage]:
    """Return what several answers cost together; ``None`` for what is not known of each."""
    known = [usage for usage in usages if usage is not None]
    if len(known) < len(usages):
        return None
    return Usage(
        _total([usage.input_tokens for usage in known]),
        _total([usage.output_tokens for usage in known]),
    )


def _total(counts: List[Optional[int]]) -> Optional[int]:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
