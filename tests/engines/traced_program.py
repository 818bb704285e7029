"""A WSGI application that traces its requests by hand, as an instrumentation would, and shows the spans."""

import json
from typing import Any, Dict, Iterable, List

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from copilot_sync import Client
from copilot_sync.contrib.opentelemetry import CopilotInstrumentor

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
CopilotInstrumentor().instrument(tracer_provider=provider)
tracer = provider.get_tracer(__name__)
client = Client()


def told(spans: Iterable[Any]) -> List[Dict[str, Any]]:
    """What a test wants to know of spans: names, parents by name, seconds, and whether they are errors."""
    spans = list(spans)
    names = {span.context.span_id: span.name for span in spans}
    return [
        {
            "name": span.name,
            "parent": names.get(span.parent.span_id) if span.parent else None,
            "seconds": (span.end_time - span.start_time) / 1e9,
            "status": span.status.status_code.name,
            "attributes": dict(span.attributes),
            "events": [event.name for event in span.events],
        }
        for span in spans
    ]


def application(environ: Dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer ``/NUMBER`` with an answer of Copilot's, in a span of that name, and ``/spans`` with all spans."""
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/spans":
        return [json.dumps(told(exporter.get_finished_spans())).encode()]
    with tracer.start_as_current_span(path):
        return [client.ask(f"question {path}").text.encode()]


def span_of(name: str) -> Any:
    """A span of a program's own, in which it asks."""
    return trace.get_tracer(__name__, tracer_provider=provider).start_as_current_span(name)
