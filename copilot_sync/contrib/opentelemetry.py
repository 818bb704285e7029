"""Traces and metrics of OpenTelemetry: a span for each call, from the question to the end of its answer.

    CopilotInstrumentor().instrument()

``opentelemetry-instrument`` finds it by itself. A call is one span of the kind ``CLIENT``, whatever its retries. Its
parent is the span of whoever asks for the first piece, and it ends when the answer ends, fails, or is left; a call that
was left on purpose is no error. All clients of the process are traced, those that exist and those that come.

The text of questions and answers is in the spans only if the environment variable of the conventions says so when
``instrument`` is called, ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``. Else this module is told of none: the
events of a call have no text (``copilot_sync.hooks``). The span is not the current one while the answer is read, so a
span that another instrumentation makes of an HTTP request is its sibling.

Threads: the spans under way are a dictionary, whose operations are atomic. The rest is the SDK's.
"""

import json
import logging
import os
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

from copilot_sync._version import __version__
from copilot_sync.hooks import (
    CallEvent,
    CallText,
    add_global_hook,
    add_text_hook,
    remove_global_hook,
    remove_text_hook,
)

try:
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled
    from opentelemetry.metrics import get_meter
    from opentelemetry.trace import Span, SpanKind, StatusCode, get_tracer
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    words = f'this module needs {error.name}: pip install "copilot-sync[opentelemetry]"'
    raise ImportError(words, name=error.name) from None

__all__ = ["CopilotInstrumentor"]

logger = logging.getLogger(__name__)

#: What follows are the names of the conventions for generative AI as ``opentelemetry-util-genai`` 1.3b0 has them. They
#: are still moving, and stand nowhere else. The conventions have no provider for GitHub Copilot: ``github`` is what
#: GitHub's own tools send (Copilot in VS Code and in the terminal, 2026).
SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
OPERATION, PROVIDER = "chat", "github"
_OPERATION_NAME = "gen_ai.operation.name"
_PROVIDER_NAME = "gen_ai.provider.name"
_REQUEST_MODEL = "gen_ai.request.model"
_RESPONSE_MODEL = "gen_ai.response.model"
_CONVERSATION_ID = "gen_ai.conversation.id"
_INPUT_TOKENS = "gen_ai.usage.input_tokens"
_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
_TOKEN_TYPE = "gen_ai.token.type"
_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
_ERROR_TYPE = "error.type"
_STATUS = "http.response.status_code"
_ADDRESS, _PORT = "server.address", "server.port"
#: What was said, as JSON; and the variable that decides whether it is there, with those of its values that say yes.
_INPUT_MESSAGES, _OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURE_MODES = {"NO_CONTENT": False, "SPAN_ONLY": True, "EVENT_ONLY": False, "SPAN_AND_EVENT": True}
#: The metrics: names, units, words and buckets.
_DURATION = ("gen_ai.client.operation.duration", "s", "Duration of GenAI client operation")
_TOKENS = ("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used by GenAI clients")
_TIME_TO_FIRST_CHUNK = ("gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk")
_SECONDS_BUCKETS = [0.01 * 2**power for power in range(14)]
_TOKEN_BUCKETS = [4**power for power in range(14)]
#: Ours: what happened to a span meanwhile, and the facts of it that the conventions have no name for.
_RETRYING, _RESUMED = "copilot_sync.retrying", "copilot_sync.resumed"
_STAGE, _ATTEMPTS, _WAIT = "copilot_sync.stage", "copilot_sync.attempts", "copilot_sync.wait"


class CopilotInstrumentor(BaseInstrumentor):  # type: ignore[misc,unused-ignore]
    """Traces the calls of all clients of this process, by ``instrument(tracer_provider=…, meter_provider=…)``.

    Without providers, those of the process are used. ``uninstrument`` ends it; calls under way end their spans.
    """

    _hook: "Optional[_CallTracer]" = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing but this package, in which it is."""
        return ()

    def _instrument(self, **options: Any) -> None:
        tracer = get_tracer(__name__, __version__, options.get("tracer_provider"), schema_url=SCHEMA_URL)
        meter = get_meter(__name__, __version__, options.get("meter_provider"), schema_url=SCHEMA_URL)
        self._hook = _CallTracer(tracer, meter)
        add_global_hook(self._hook)
        if _captures_text():
            add_text_hook(self._hook.note_text)

    def _uninstrument(self, **options: Any) -> None:
        if self._hook is not None:  # pragma: no branch - it is called after ``_instrument`` alone
            remove_global_hook(self._hook)
            remove_text_hook(self._hook.note_text)
        self._hook = None


class _Traced(NamedTuple):
    """A call under way: its span, and what its metrics have in common."""

    span: Span
    attributes: Dict[str, Any]


class _CallTracer:
    """The hook: makes a span and the metrics of each call."""

    def __init__(self, tracer: Any, meter: Any) -> None:
        self._tracer = tracer
        self._duration = _histogram(meter, _DURATION, _SECONDS_BUCKETS)
        self._tokens = _histogram(meter, _TOKENS, _TOKEN_BUCKETS)
        self._first_chunk = _histogram(meter, _TIME_TO_FIRST_CHUNK, _SECONDS_BUCKETS)
        self._calls: Dict[int, _Traced] = {}

    def __call__(self, event: CallEvent) -> None:
        """Take note of a step of a call."""
        if event.kind == "started":
            if is_instrumentation_enabled():
                self._start(event)
            return
        call = self._calls.get(event.call_id)
        if call is None:
            return
        if event.kind == "first_piece":
            call.span.set_attribute(_FIRST_CHUNK, event.seconds)
            self._first_chunk.record(event.seconds, call.attributes)
        elif event.kind == "retrying":
            facts = {_STAGE: event.stage, _ATTEMPTS: event.attempts, _WAIT: event.wait}
            call.span.add_event(_RETRYING, _known({**facts, **_failure(event)}))
        elif event.kind == "resumed":
            call.span.add_event(_RESUMED)
        else:
            del self._calls[event.call_id]
            self._end(event, call)

    def note_text(self, text: CallText) -> None:
        """Put what was said into the span of its call."""
        call = self._calls.get(text.call_id)
        if call is None or not call.span.is_recording():
            return
        call.span.set_attribute(_INPUT_MESSAGES, _messages("user", text.question))
        if text.answer:
            call.span.set_attribute(_OUTPUT_MESSAGES, _messages("assistant", text.answer, finish_reason=None))

    def _start(self, event: CallEvent) -> None:
        attributes = _known(
            {
                _OPERATION_NAME: OPERATION,
                _PROVIDER_NAME: PROVIDER,
                _REQUEST_MODEL: event.model,
                _ADDRESS: event.host or None,
                _PORT: event.port,
            }
        )
        # Not the current span: whoever reads the answer piece by piece does other things in between.
        span = self._tracer.start_span(f"{OPERATION} {event.model}", kind=SpanKind.CLIENT, attributes=attributes)
        self._calls[event.call_id] = _Traced(span, attributes)

    def _end(self, event: CallEvent, call: _Traced) -> None:
        usage = event.usage
        tokens = [] if usage is None else [(_INPUT_TOKENS, usage.input_tokens), (_OUTPUT_TOKENS, usage.output_tokens)]
        failure = _failure(event)
        place = {_ADDRESS: event.host or None, _PORT: event.port}  # it may have been found meanwhile
        answered = event.model if event.kind == "finished" else None
        span = call.span
        span.set_attributes(
            _known({**place, **failure, _RESPONSE_MODEL: answered, _CONVERSATION_ID: event.conversation_id})
        )
        span.set_attributes(_known(dict(tokens)))
        if event.kind == "failed":
            span.set_status(StatusCode.ERROR)
        span.end()
        attributes = _known({**call.attributes, **place, _RESPONSE_MODEL: answered})
        self._duration.record(event.seconds, _known({**attributes, _ERROR_TYPE: event.error_type}))
        for name, count in tokens:
            if count is not None:
                kind = "input" if name == _INPUT_TOKENS else "output"
                self._tokens.record(count, {**attributes, _TOKEN_TYPE: kind})


def _captures_text() -> bool:
    """Whether the environment wants text in spans. Events of the conventions, which may have it too, there are none."""
    mode = os.environ.get(CAPTURE, "").strip().upper() or "NO_CONTENT"
    if mode not in _CAPTURE_MODES:
        logger.warning("%s must be one of %s: no text is captured", CAPTURE, ", ".join(_CAPTURE_MODES))
    return _CAPTURE_MODES.get(mode, False)


def _messages(role: str, text: str, **others: Any) -> str:
    messages: List[Dict[str, Any]] = [
        {"role": role, "parts": [{"content": text, "type": "text"}], **others, "name": None}
    ]
    return json.dumps(messages, separators=(",", ":"))


def _histogram(meter: Any, about: Tuple[str, str, str], buckets: Any) -> Any:
    name, unit, words = about
    return meter.create_histogram(name, unit, words, explicit_bucket_boundaries_advisory=buckets)


def _failure(event: CallEvent) -> Dict[str, Any]:
    return {_ERROR_TYPE: event.error_type, _STATUS: event.status}


def _known(attributes: Dict[str, Any]) -> Dict[str, Any]:
    """Leave out what is not known: an attribute has a value."""
    return {name: value for name, value in attributes.items() if value is not None}
