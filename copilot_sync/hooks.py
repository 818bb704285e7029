"""What a program is told of its calls while they are made: one ``CallEvent`` for each step, to plain functions.

``Client(hooks=…)`` takes functions of your own. What watches a whole process, such as a tracer, adds one for all
clients, those that exist and those that come. An event says how a call goes and never what was said: there is no text
in it, no secret, and no message of an error. What was said goes to text hooks, which are no part of what users call:
``contrib.opentelemetry`` has one if its user's environment asks for text.

A hook is a convenience and never a reason to fail: what it raises is logged and passed over.

Threads: the hooks of the process are lists, and what was logged is a set; their operations are atomic.
"""

import logging
from dataclasses import dataclass
from typing import Any, Callable, Iterable, List, Optional, Set, Tuple, Union

from copilot_sync.pacing.caches import is_interruption
from copilot_sync.settings import check_plain
from copilot_sync.usage import Usage

__all__ = ["CallEvent", "Hook", "add_global_hook", "remove_global_hook"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallEvent:
    """One step of a call that asks a question.

    Attributes:
        kind: ``started`` comes first, before anything is sent. ``first_piece`` is the first text of the answer,
            ``retrying`` a request that failed and is sent again after ``wait`` seconds, or an answer that does not fit
            its schema and is asked for again; ``resumed`` an answer, or the rest of one, that was taken from its
            conversation. One of three comes last: ``finished`` with an answer,
            ``failed``, or ``closed``, if the call was left on purpose.
        call_id: Tells the calls of this process apart. All events of a call have the same.
        seconds: Since the call started.
        stage: ``retrying`` and ``failed``: the step that failed, as ``CopilotError.stage`` has it. Else ``stream``, or
            ``None`` before there is any text.
        attempts: How often the message was sent; ``retrying`` and ``failed``: how many requests that stage took.
        model: The model that is asked. ``finished``: the one that answered.
        conversation_id: The conversation; ``None`` as long as it is not known, and if it was discarded.
        usage: The tokens, once the service has counted them; those of all answers so far if one did not fit its schema.
        error_type: The name of the class of the error. ``None`` if there is none.
        status: The HTTP status that it came with, if any.
        wait: ``retrying``: seconds until the request is sent again.
        host: The host of the API; ``""`` as long as ``api_url="auto"`` has not found it.
        port: Its port.
    """

    kind: str
    call_id: int
    seconds: float
    stage: Optional[str]
    attempts: int
    model: str
    conversation_id: Optional[str] = None
    usage: Optional[Usage] = None
    error_type: Optional[str] = None
    status: Optional[int] = None
    wait: Optional[float] = None
    host: str = ""
    port: Optional[int] = None


@dataclass(frozen=True)
class CallText:
    """What was said in a call.

    Attributes:
        call_id: That of the events of the call.
        question: The text that was sent: instructions and all, but no attached file.
        answer: The answer, or as much of it as had come.
        kind: What a log calls it.
    """

    call_id: int
    question: str
    answer: str
    kind: str = "text"


#: Called with each event of a call, by whoever reads the answer. What it returns is ignored.
Hook = Callable[[CallEvent], object]

#: Called with what was said, just before the last event of a call.
TextHook = Callable[[CallText], object]

_global_hooks: List[Hook] = []
_text_hooks: List[TextHook] = []
_logged: Set[Tuple[str, str]] = set()


def add_global_hook(hook: Hook) -> None:
    """Have a function called with the events of all clients of this process. One that was added is not added twice.

    Raises:
        TypeError: It can't be called, or it is a coroutine function.
    """
    _check(hook)
    if hook not in _global_hooks:
        _global_hooks.append(hook)


def remove_global_hook(hook: Hook) -> None:
    """Undo ``add_global_hook``. Calls that have started tell it how they end."""
    if hook in _global_hooks:
        _global_hooks.remove(hook)


def add_text_hook(hook: TextHook) -> None:
    """Have a function called with what was said in the calls of all clients of this process that have hooks."""
    _text_hooks.append(hook)


def remove_text_hook(hook: TextHook) -> None:
    """Undo ``add_text_hook``."""
    if hook in _text_hooks:
        _text_hooks.remove(hook)


def text_hooks() -> Tuple[TextHook, ...]:
    """Return the functions that are called with what was said. There are none unless somebody has asked for it."""
    return tuple(_text_hooks)


def with_global_hooks(hooks: Tuple[Hook, ...]) -> Tuple[Hook, ...]:
    """Return the hooks of a client and those of the process."""
    return (*hooks, *_global_hooks) if _global_hooks else hooks


def hooks_of(value: Union[None, Hook, Iterable[Hook]]) -> Tuple[Hook, ...]:
    """Read what callers give: a function, several, or nothing.

    Raises:
        TypeError: It is something else, or one is a coroutine function.
    """
    if value is None:
        return ()
    hooks: Tuple[Any, ...] = (value,) if callable(value) or not isinstance(value, Iterable) else tuple(value)
    for hook in hooks:
        _check(hook)
    return hooks


def _check(hook: Any) -> None:
    if not callable(hook):
        raise TypeError(f"a hook must be a function that takes an event, not {type(hook).__name__}")
    check_plain("a hook", hook)


def tell(hooks: Iterable[Callable[[Any], object]], event: Union[CallEvent, CallText]) -> None:
    """Call hooks with an event, or with what was said.

    What one raises is logged once for each kind of error, unless a signal raised it.
    """
    for hook in hooks:
        try:
            hook(event)
        except Exception as error:  # a hook may be anything, and what it raises has no common root
            if is_interruption(error):
                raise
            kind = (event.kind, type(error).__name__)
            if kind not in _logged:
                _logged.add(kind)
                logger.warning("a hook failed when a call was %r, and is passed over", event.kind, exc_info=error)
