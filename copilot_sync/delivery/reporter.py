"""Tells the hooks of a client how one call goes.

A reporter is the first guard that its call enters and the last that it leaves, so its time holds everything in between,
such as a wait for a limit. There is none if there are no hooks.

The driver is executed by one thread at a time, so the events of a call come one after the other. They come from
whoever goes on with it, in the context of whoever reads; the last one may come from whoever closes the call.

Threads: confined to whoever goes on with the call. The counter is atomic.
"""

import itertools
import os
from typing import Any, Generator, Optional, Tuple

from copilot_sync.auth.api_session import ApiSession
from copilot_sync.delivery.answer_builder import AnswerBuilder
from copilot_sync.delivery.guards import CallEnd, CallGuard, Leave
from copilot_sync.delivery.message import CallOptions, PendingMessage
from copilot_sync.errors import CopilotError
from copilot_sync.hooks import CallEvent, CallText, Hook, tell, text_hooks, with_global_hooks
from copilot_sync.settings import RetryPolicy, address_of
from copilot_sync.stepping import Pause
from copilot_sync.transport.call import CallContext

_numbers = itertools.count(1)


def reporters_of(
    options: CallOptions, session: ApiSession, call: CallContext, builder: AnswerBuilder
) -> Tuple[CallGuard, ...]:
    """Return what tells the events of a call: nothing if nobody listens, or if something tells them already."""
    hooks = with_global_hooks(options.hooks)
    if not hooks or not call.is_reported or call.reporter is not None:
        return ()
    return (CallReporter(hooks, session, call, builder),)


class CallReporter(CallGuard):
    """Tells the events of one call.

    Args:
        hooks: Who is told.
        session: Knows the host.
        call: The call.
        builder: What comes of the answer.
    """

    def __init__(self, hooks: Tuple[Hook, ...], session: ApiSession, call: CallContext, builder: AnswerBuilder) -> None:
        self._hooks = hooks
        self._session = session
        self._call = call
        self._builder = builder
        self._number = next(_numbers)
        self._began = call.clock()
        self._process = os.getpid()

    def entering(
        self, message: PendingMessage, call: CallContext, policy: Optional[RetryPolicy]
    ) -> Generator[Pause, None, Leave]:
        """Tell that the call has started. It waits for nothing."""
        # The call and the builder hold this object, which holds them, until the call ends.
        call.reporter, self._builder.on_text = self, self._first_piece
        try:
            self._tell("started", None)
        except BaseException:  # out of the handler of a signal: other hooks were told of a start
            self._end("closed", message, None)
            raise
        yield from ()
        return self._leave

    def _first_piece(self) -> None:
        self._tell("first_piece", "stream")

    def retrying(self, error: CopilotError, seconds: float) -> None:
        """Tell that a request has failed and is sent again."""
        self._tell("retrying", error.stage, error, wait=seconds)

    def resumed(self) -> None:
        """Tell that an answer, or its rest, was found in the conversation."""
        self._tell("resumed", "stream")

    def _leave(self, end: CallEnd) -> None:
        """Tell how the call has ended. A forked child has a copy of it: it is its parent's."""
        if os.getpid() != self._process:
            self._forget()
        elif self._builder.answer is not None:
            self._end("finished", end.message, "stream")
        elif end.failure is not None:
            self._end("failed", end.message, getattr(end.failure, "stage", None), end.failure)
        else:
            self._end("closed", end.message, "stream" if self._builder.begun else None)

    def _end(self, kind: str, message: PendingMessage, *args: Any) -> None:
        self._forget()
        hooks, answer = text_hooks(), self._builder.answer
        try:
            if hooks:
                text = answer.text if answer else self._builder.text
                self._call_hooks(hooks, CallText(self._number, message.content, text))
        finally:
            self._tell(kind, *args)

    def _forget(self) -> None:
        self._call.reporter = self._builder.on_text = None

    def _tell(
        self, kind: str, stage: Optional[str], error: Optional[Exception] = None, wait: Optional[float] = None
    ) -> None:
        builder, call = self._builder, self._call
        answer, conversation = builder.answer, builder.conversation
        host, port = address_of(self._session.api_url)
        event = CallEvent(
            kind=kind,
            call_id=self._number,
            seconds=call.clock() - self._began,
            stage=stage,
            attempts=getattr(error, "attempts", 0) or call.attempts["message"],
            model=answer.model if answer else builder.model,
            conversation_id=conversation.conversation_id if conversation else None,
            usage=answer.usage if answer else builder.usage,
            error_type=type(error).__name__ if error else None,
            status=getattr(error, "status", None),
            wait=wait,
            host=host,
            port=port,
        )
        self._call_hooks(self._hooks, event)

    def _call_hooks(self, *args: Any) -> None:
        """Call ``tell``, in the context in which hooks are called."""
        if self._call.hook_context is None:
            tell(*args)
        else:
            self._call.hook_context.run(tell, *args)
