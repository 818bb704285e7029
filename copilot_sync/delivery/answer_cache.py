"""Whole answers that are kept, so that the same question need not be sent again.

What decides an answer is its key: the API, the model, the text and all that goes with it. The account is no part of
it. Only the first message of a conversation has a key, because what was said before decides the others.

A hit sends nothing, and neither fetches a token nor begins a thread. The thread of the answer that was kept may be
gone, or another account's, so an answer from the cache has none: its conversation is ``CACHED_ID``, which ``check_id``
refuses. Whoever wants a conversation is therefore never answered from the cache.

The cache is a convenience and never a reason to fail: see ``auth.caches``. If two calls ask the same at once, both are
sent.

Threads: what was logged is a set, whose operations are atomic. The rest is the cache's.
"""

import dataclasses
import hashlib
import json
import logging
import os
from typing import Any, Callable, Dict, Generator, Optional, Set, Union

from copilot_sync.answer_folder import AnswerFolder
from copilot_sync.auth.caches import TokenCache
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.delivery.message import PendingMessage
from copilot_sync.events import CompleteEvent, ContentEvent
from copilot_sync.models import Answer, Conversation
from copilot_sync.pacing.caches import is_interruption
from copilot_sync.protocol.requests import ROOT
from copilot_sync.safe_text import CACHED_ID, loads
from copilot_sync.settings import Urls
from copilot_sync.structured import Expectation, MisfitError
from copilot_sync.transport.call import CallContext
from copilot_sync.usage import Usage

logger = logging.getLogger(__name__)

#: Seconds for which an answer is kept: 30 days.
LIFETIME = 30 * 24 * 60 * 60
#: The version of the key and of the value. Another one makes what is kept unknown.
_SHAPE = 1


class AnswerCache:
    """Keeps answers, as long as its cache works.

    Args:
        cache: Keeps texts.
    """

    def __init__(self, cache: TokenCache) -> None:
        self._cache = cache
        self._logged: Set[str] = set()

    @classmethod
    def from_value(cls, value: "Union[None, str, os.PathLike[str], TokenCache]") -> "Optional[AnswerCache]":
        """Read what callers give: a folder, a cache, or nothing (``None`` or ``""``).

        Raises:
            TypeError: It is something else.
            ValueError: It is a text that no path can be.
        """
        if value is None or value == "":
            return None
        if isinstance(value, (str, os.PathLike)):
            return cls(AnswerFolder(value))
        if callable(getattr(value, "get", None)) and callable(getattr(value, "set", None)):
            return cls(value)
        raise TypeError(f"answer_cache must be a folder or have get and set, and {type(value).__name__} is neither")

    def look_up(self, key: str) -> Optional[Answer]:
        """Return the answer that is kept for a key; ``None`` if there is none that can be read."""
        return _answer_of(self._tolerating(lambda: self._cache.get(key)))

    def keep(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        value = json.dumps(
            {
                "text": answer.text,
                "model": answer.model,
                "usage": answer.usage and dataclasses.asdict(answer.usage),
                "annotations": answer.annotations,
                "references": answer.references,
            }
        )
        self._tolerating(lambda: self._cache.set(key, value, LIFETIME))

    def _tolerating(self, use: Callable[[], Any]) -> Any:
        try:
            return use()
        except Exception as error:  # a foreign cache may be anything, and what it raises has no common root
            if is_interruption(error):
                raise
            kind = type(error).__name__
            if kind not in self._logged:
                self._logged.add(kind)
                logger.warning("the answer cache failed and is done without: %s", kind)
            return None


class CachedQuestion:
    """One message, and what the cache has for it.

    Args:
        cache: The cache.
        key: The key of the message.
        may_recall: Whether an answer from the cache will do.
        expected: What the answer has to be; ``None`` for any text.
    """

    def __init__(
        self, cache: AnswerCache, key: str, *, may_recall: bool, expected: Optional[Expectation] = None
    ) -> None:
        self._cache = cache
        self._key = key
        self._may_recall = may_recall
        self._expected = expected

    @classmethod
    def from_message(
        cls, cache: Optional[AnswerCache], urls: Urls, message: PendingMessage, *, wants_conversation: bool
    ) -> "Optional[CachedQuestion]":
        """Return what a cache is asked about a message; ``None`` if there is no cache, or it is not a first message.

        Args:
            cache: The cache, if there is one.
            urls: Where the message goes.
            message: The message.
            wants_conversation: Whether somebody is told of its conversation.
        """
        handle = message.handle
        if handle is not None:
            is_first = handle.parent_id == ROOT
        else:
            is_first = message.conversation is None and message.options.parent_message_id is None
        if cache is None or not is_first:
            return None
        may_recall = handle is None and not wants_conversation
        return cls(cache, key_of(urls, message), may_recall=may_recall, expected=message.expected)

    def recall(self) -> Optional[Answer]:
        """Return the answer from the cache; ``None`` if there is none, or it will not do. It may block."""
        answer = self._cache.look_up(self._key) if self._may_recall else None
        if answer is None or self._expected is None:
            return answer
        try:
            return self._expected.schema.fitted(answer)
        except MisfitError:  # there is no thread in which to ask for another one
            return None

    def driving(
        self, driver: Generator[Any, None, None], call: CallContext, builder: AnswerBuilder, limit: int
    ) -> Generator[Any, None, None]:
        """Yield what the driver of a call yields, and keep a whole answer; or yield what the cache has in its place.

        Args:
            driver: The driver.
            call: Its context.
            builder: What comes of the answer.
            limit: How many bytes of text an answer may have.
        """
        call.begin()
        if self._may_recall and not builder.is_kept:
            yield from call.until_may_block()
            answer = self.recall()
            if answer is not None:
                yield from _replayed(answer, builder, limit)
                return
        yield from driver
        answer = builder.answer
        if answer is not None and answer.complete and answer.text:  # one without a text would help nobody
            yield from call.until_may_block()
            self._cache.keep(self._key, answer)


def _replayed(answer: Answer, builder: AnswerBuilder, limit: int) -> Generator[Any, None, None]:
    """Yield the conversation and the events of an answer that is there.

    Raises:
        ResponseTooLargeError: Its text is longer than ``limit`` bytes.
    """
    builder.add(answer.text, limit)
    builder.conversation = answer.conversation
    yield answer.conversation
    yield ContentEvent("content", {"type": "content", "body": answer.text}, answer.text)
    builder.note_end(answer)  # unless the stream was closed meanwhile, which its reader will find
    yield CompleteEvent("complete", {}, None, answer.model, answer.usage, answer.annotations, answer.references)


def key_of(urls: Urls, message: PendingMessage) -> str:
    """Return a text that differs if anything differs that decides the answer to a first message."""
    options = {field.name: getattr(message.options, field.name) for field in dataclasses.fields(message.options)}
    # The host that the page names is not known yet: the account's page stands for it.
    service = [urls.api, urls.github if urls.is_auto else ""]
    parts = [_SHAPE, service, message.model, message.fallback_model, message.content, options]
    parts = json.loads(json.dumps(parts))  # so that all names are strings, which can be sorted
    return f"copilot-sync-answer-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode('ascii')).hexdigest()}"


def _answer_of(value: Any) -> Optional[Answer]:
    """Read what a cache has returned; ``None`` if it is nothing that ``keep`` has written."""
    try:
        fields: Dict[str, Any] = loads(value.decode("utf-8") if isinstance(value, bytes) else value)
        usage = fields["usage"]
        answer = Answer(
            text=fields["text"],
            conversation=Conversation(CACHED_ID),
            model=fields["model"],
            usage=None if usage is None else Usage(usage["input_tokens"], usage["output_tokens"]),
            annotations=fields["annotations"],
            references=tuple(fields["references"]),
            cached=True,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return answer if _is_sound(answer) else None


def _is_sound(answer: Answer) -> bool:
    usage = answer.usage or Usage()
    return (
        isinstance(answer.text, str)
        and bool(answer.text)
        and isinstance(answer.model, str)
        and isinstance(answer.annotations, dict)
        and all(isinstance(reference, dict) for reference in answer.references)
        and all(isinstance(count, (int, type(None))) for count in (usage.input_tokens, usage.output_tokens))
    )
