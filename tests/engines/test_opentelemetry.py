"""OpenTelemetry's own SDK: one span for each call, under the right parent, ended when the answer is."""

import asyncio
import concurrent.futures
import gc
import json
import re
import subprocess
import sys
import time
import urllib.request
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

import pytest
from blocks import DOCS, text_with
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from servers import BECOME, path_of
from support import PATIENCE, reserved_port, wait_until

from copilot_sync import AsyncClient, Client, CopilotError, RetryPolicy, Stream, batch, hooks
from copilot_sync.contrib import opentelemetry as module
from copilot_sync.contrib.opentelemetry import CopilotInstrumentor
from copilot_sync.emulator import Emulator, Fault, Reply

PROMPT = "one two three"
#: An answer of about a second.
PACED = Reply("a " * 20, pace=0.05)


class Telemetry:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer = self.traces.get_tracer(__name__)

    @property
    def calls(self) -> List[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith("chat")]

    @property
    def metrics(self) -> Dict[str, List[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        found = [metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    CopilotInstrumentor().instrument(tracer_provider=made.traces, meter_provider=made.meters)
    yield made
    CopilotInstrumentor().uninstrument()


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    with client_of(emulator) as made:
        yield made


def client_of(emulator: Emulator, **options: Any) -> Client:
    return Client(emulator.api_key, api_url=emulator.api_url, retry=RetryPolicy(base=0, cap=0), **options)


def seconds_of(span: Any) -> float:
    return float(span.end_time - span.start_time) / 1e9


def test_a_call_is_one_span(emulator: Emulator, client: Client, telemetry: Telemetry) -> None:
    """With the names of the conventions, and nothing of what was said."""
    answer = client.ask(PROMPT)
    (span,) = telemetry.exporter.get_finished_spans()
    attributes = dict(span.attributes)
    first = attributes.pop("gen_ai.response.time_to_first_chunk")
    assert answer.usage is not None
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "github",
        "gen_ai.request.model": "auto",
        "gen_ai.response.model": answer.model,
        "gen_ai.conversation.id": answer.conversation.conversation_id,
        "gen_ai.usage.input_tokens": answer.usage.input_tokens,
        "gen_ai.usage.output_tokens": answer.usage.output_tokens,
        "server.address": "127.0.0.1",
        "server.port": int(emulator.api_url.rpartition(":")[2]),
    }
    assert (span.name, span.kind, span.status.status_code) == ("chat auto", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.parent is None and span.events == ()
    assert 0 < first <= seconds_of(span)
    assert span.instrumentation_scope.schema_url == module.SCHEMA_URL
    assert PROMPT not in span.to_json() and emulator.api_key not in span.to_json()


def test_the_names_are_those_of_the_conventions() -> None:
    """As ``opentelemetry-util-genai`` takes them; the day they move there, this says so."""
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes
    from opentelemetry.util.genai import _instruments

    known = {
        value
        for each in (gen_ai_attributes, error_attributes, http_attributes, server_attributes)
        for value in vars(each).values()
        if isinstance(value, str)
    }
    ours = {value for name, value in vars(module).items() if name.startswith("_") and isinstance(value, str)}
    ours = {value for value in ours if value.startswith(("gen_ai.", "error.", "http.", "server."))}
    assert len(ours) > 10 and ours <= known

    made: Dict[str, Any] = {}

    class Meter:
        def create_histogram(self, name: str, unit: str, description: str, **options: Any) -> None:
            made[name] = unit, options["explicit_bucket_boundaries_advisory"]

    _instruments._Instruments(Meter())  # type: ignore[arg-type]
    for (name, unit, _), buckets in [
        (module._DURATION, module._SECONDS_BUCKETS),
        (module._TOKENS, module._TOKEN_BUCKETS),
        (module._TIME_TO_FIRST_CHUNK, module._SECONDS_BUCKETS),
    ]:
        assert made[name] == (unit, pytest.approx(buckets))


def test_metrics_count_seconds_and_tokens(emulator: Emulator, client: Client, telemetry: Telemetry) -> None:
    """One of each kind for each call; an error by its kind."""
    answer = client.ask(PROMPT)
    emulator.fail("message", Fault.status(422))
    with pytest.raises(CopilotError):
        client.ask(PROMPT)
    metrics = telemetry.metrics
    (well, ill) = sorted(
        metrics["gen_ai.client.operation.duration"], key=lambda point: "error.type" in point.attributes
    )
    assert well.attributes["gen_ai.response.model"] == answer.model
    assert (well.count, ill.count, ill.attributes["error.type"]) == (1, 1, "InvalidRequestError")
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metrics["gen_ai.client.token.usage"]}
    assert answer.usage is not None
    assert tokens == {"input": answer.usage.input_tokens, "output": answer.usage.output_tokens}
    (first,) = metrics["gen_ai.client.operation.time_to_first_chunk"]
    assert first.count == 1 and 0 < first.sum <= well.sum


def test_tokens_that_nobody_counted_are_left_out(emulator: Emulator, client: Client, telemetry: Telemetry) -> None:
    """All of them, or one kind."""
    emulator.reply = Reply("Hi", usage={})
    client.ask(PROMPT)
    assert "gen_ai.client.token.usage" not in telemetry.metrics
    emulator.reply = Reply("Hi", usage={"outputTokens": 3})
    client.ask(PROMPT)
    (point,) = telemetry.metrics["gen_ai.client.token.usage"]
    assert (point.sum, point.attributes["gen_ai.token.type"]) == (3, "output")
    known = [[name for name in span.attributes if name.startswith("gen_ai.usage")] for span in telemetry.calls]
    assert known == [[], ["gen_ai.usage.output_tokens"]]


@pytest.mark.parametrize("face", ["sync", "poll", "async"])
def test_a_span_lasts_as_long_as_its_answer(face: str, emulator: Emulator, telemetry: Telemetry) -> None:
    """Within a twentieth: HTTP spans end with the head of the reply."""
    emulator.reply = PACED

    async def read() -> None:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url) as client:
            async for _ in client.stream(PROMPT):
                pass

    began = time.perf_counter()
    if face == "async":
        asyncio.run(read())
    else:
        with client_of(emulator) as client, client.stream(PROMPT) as stream:
            for _ in stream if face == "sync" else iter(lambda: stream.poll(0.01), ""):
                pass
    seconds = time.perf_counter() - began
    (span,) = telemetry.calls
    assert seconds > 0.9
    # What making and closing a client takes is no part of the call.
    assert seconds_of(span) == pytest.approx(seconds, rel=0.05)
    assert span.attributes["gen_ai.response.time_to_first_chunk"] < 0.5 * seconds_of(span)


def broken_off(client: Client) -> None:
    for _ in client.stream(PROMPT):
        break
    gc.collect()


def closed(client: Client) -> None:
    with client.stream(PROMPT) as stream:
        next(stream)


@pytest.mark.parametrize("leave", [broken_off, closed])
def test_a_call_that_is_left_is_no_error(leave: Callable[[Client], None], client: Client, telemetry: Telemetry) -> None:
    """Its span ends, and its seconds count."""
    leave(client)
    wait_until(lambda: bool(telemetry.calls))
    (span,) = telemetry.calls
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in span.attributes
    assert telemetry.metrics["gen_ai.client.operation.duration"][0].count == 1


def test_a_task_that_is_cancelled_is_no_error(emulator: Emulator, telemetry: Telemetry) -> None:
    """Its span ends at once."""
    emulator.fail("message", Fault.stall(("after_events", 1)))

    async def main() -> None:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.ask(PROMPT), 0.5)

    asyncio.run(main())
    (span,) = telemetry.calls
    assert span.status.status_code is StatusCode.UNSET
    assert seconds_of(span) < PATIENCE


def test_a_failure_is_an_error_without_words(emulator: Emulator, client: Client, telemetry: Telemetry) -> None:
    """Its kind and its status; what a server said is none of a trace's business."""
    emulator.fail("message", Fault.status(422, message="planted-words"))
    with pytest.raises(CopilotError, match="planted-words"):
        client.ask(PROMPT)
    (span,) = telemetry.calls
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    attributes = span.attributes
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("InvalidRequestError", 422)
    assert "planted-words" not in span.to_json()


@pytest.fixture
def instrumented(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Telemetry]]:
    """Starts to trace, with the value of the variable that decides about text."""

    def start(value: str) -> Telemetry:
        made = Telemetry()
        monkeypatch.setenv(module.CAPTURE, value)
        CopilotInstrumentor().instrument(tracer_provider=made.traces, meter_provider=made.meters)
        return made

    yield start
    CopilotInstrumentor().uninstrument()


@pytest.mark.parametrize("value", ["SPAN_ONLY", "span_and_event "])
def test_text_is_in_spans_if_the_environment_says_so(
    value: str, emulator: Emulator, client: Client, instrumented: Callable[[str], Telemetry]
) -> None:
    """As ``opentelemetry-util-genai`` writes it: what was sent, without attached files, and what came back."""
    from opentelemetry.util.genai import environment_variables, types, utils

    telemetry = instrumented(value)
    emulator.script("An answer \ud83d.")
    client.ask(PROMPT, system="Be brief.", files=[("a.txt", "planted-file")])
    emulator.fail("message", Fault.cut(2), *[Fault.status(500)] * 9)
    emulator.fail("messages", *[Fault.status(500)] * 9)
    with pytest.raises(CopilotError) as caught:
        client.ask(PROMPT)
    emulator.fail("message", Fault.status(400))
    with pytest.raises(CopilotError):
        client.ask(PROMPT)
    whole, cut, refused = [dict(span.attributes) for span in telemetry.calls]

    def question(text: str) -> str:
        return utils.gen_ai_json_dumps([types.InputMessage("user", [types.TextPart(text)])])

    def answer(text: str) -> str:
        return utils.gen_ai_json_dumps([types.OutputMessage("assistant", [types.TextPart(text)])])

    sent = f"System: Be brief.\nUser: {PROMPT}\nAssistant:"
    names = ("gen_ai.input.messages", "gen_ai.output.messages")
    assert module.CAPTURE == environment_variables.OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT
    assert [whole[name] for name in names] == [question(sent), answer("An answer \ufffd.")]
    assert [cut[name] for name in names] == [question(PROMPT), answer(getattr(caught.value, "partial", ""))]
    assert (refused[names[0]], names[1] in refused) == (question(PROMPT), False)
    assert "planted-file" not in str(whole)


@pytest.mark.parametrize("value", ["", " ", "NO_CONTENT", "EVENT_ONLY", "true", "1"])
def test_no_text_is_in_spans_otherwise(
    value: str,
    client: Client,
    instrumented: Callable[[str], Telemetry],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor is any taken. What is no value of the variable is told, as others do."""
    from opentelemetry.util.genai import types

    telemetry = instrumented(value)
    assert hooks.text_hooks() == ()
    client.ask(PROMPT)
    (span,) = telemetry.calls
    assert PROMPT not in span.to_json()
    assert ("NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT" in caplog.text) == (value in ("true", "1"))
    assert list(module._CAPTURE_MODES) == [mode.name for mode in types.ContentCapturingMode]


def test_text_is_taken_of_traced_calls_alone(client: Client, instrumented: Callable[[str], Telemetry]) -> None:
    """Of none that a program suppresses, or that is not sampled; and of none after the instrumentation has ended."""
    telemetry = instrumented("SPAN_ONLY")
    with suppress_instrumentation():
        client.ask(PROMPT)
    CopilotInstrumentor().uninstrument()
    assert hooks.text_hooks() == ()
    CopilotInstrumentor().instrument(tracer_provider=TracerProvider(sampler=sampling.ALWAYS_OFF))
    client.ask(PROMPT)
    assert telemetry.calls == []


def test_retries_are_events_of_the_one_span(emulator: Emulator, client: Client, telemetry: Telemetry) -> None:
    """With why, and how long the call waited; so is an answer that was resumed."""
    emulator.fail("message", Fault.status(503, retry_after=0))
    emulator.fail("message", Fault.cut(2))
    assert client.ask(PROMPT).text == PROMPT
    (span,) = telemetry.calls
    retrying, resumed = span.events
    assert (retrying.name, resumed.name) == ("copilot_sync.retrying", "copilot_sync.resumed")
    assert dict(retrying.attributes) == {
        "copilot_sync.stage": "message",
        "copilot_sync.attempts": 1,
        "copilot_sync.wait": 0.0,
        "error.type": "ServerError",
        "http.response.status_code": 503,
    }


def parents(telemetry: Telemetry) -> Mapping[str, Optional[str]]:
    """The name of the parent of each call, by its conversation."""
    names = {span.context.span_id: span.name for span in telemetry.exporter.get_finished_spans()}
    return {
        span.attributes["gen_ai.conversation.id"]: names.get(span.parent.span_id) if span.parent else None
        for span in telemetry.calls
    }


def test_the_parent_is_the_span_of_whoever_asks(client: Client, telemetry: Telemetry) -> None:
    """In threads that ask at once over one client, and not that of whoever made the stream."""

    def ask(number: int, stream: Stream) -> str:
        with telemetry.tracer.start_as_current_span(f"span {number}"):
            return stream.read().conversation.conversation_id

    with telemetry.tracer.start_as_current_span("made here"):
        streams = [client.stream(f"question {number}") for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        conversations = list(executor.map(ask, range(8), streams))
    assert parents(telemetry) == {id_: f"span {number}" for number, id_ in enumerate(conversations)}


def test_the_parent_is_the_span_of_the_task(emulator: Emulator, telemetry: Telemetry) -> None:
    """Though threads help its loop, and other tasks run in between."""

    async def ask(client: AsyncClient, number: int) -> str:
        with telemetry.tracer.start_as_current_span(f"span {number}"):
            return (await client.ask(f"question {number}")).conversation.conversation_id

    async def main() -> List[str]:
        async with AsyncClient(emulator.api_key, api_url=emulator.api_url) as client:
            return list(await asyncio.gather(*(ask(client, number) for number in range(8))))

    conversations = asyncio.run(main())
    assert parents(telemetry) == {id_: f"span {number}" for number, id_ in enumerate(conversations)}


def test_the_parent_is_the_span_of_whoever_polls(client: Client, telemetry: Telemetry) -> None:
    """A thread sends the question."""
    with telemetry.tracer.start_as_current_span("span 1"), client.stream(PROMPT) as stream:
        while stream.poll(0.01) != "":
            pass
    assert list(parents(telemetry).values()) == ["span 1"]


def test_the_parent_is_the_span_of_a_batch(client: Client, telemetry: Telemetry) -> None:
    """Whose prompts are asked by threads of its own. Each is one span."""
    with telemetry.tracer.start_as_current_span("nightly"):
        assert len(list(batch.run(["a", "b", "c"], client=client))) == 3
    assert list(parents(telemetry).values()) == ["nightly"] * 3


def test_whoever_is_instrumented_twice_has_one_span(client: Client, telemetry: Telemetry) -> None:
    """The second time does nothing, but that it says so."""
    CopilotInstrumentor().instrument(tracer_provider=telemetry.traces)
    client.ask(PROMPT)
    assert len(telemetry.calls) == 1


def test_what_is_uninstrumented_is_traced_no_more(emulator: Emulator, client: Client, telemetry: Telemetry) -> None:
    """A call under way ends its span. Afterwards it can be instrumented again."""
    with client.stream(PROMPT) as stream:
        next(stream)
        CopilotInstrumentor().uninstrument()
        client.ask(PROMPT)
    wait_until(lambda: bool(telemetry.calls))
    CopilotInstrumentor().instrument(tracer_provider=telemetry.traces, meter_provider=telemetry.meters)
    client.ask(PROMPT)
    assert len(telemetry.calls) == 2


def test_a_program_may_suppress_it(client: Client, telemetry: Telemetry) -> None:
    """As it does for every other instrumentation."""
    with suppress_instrumentation():
        client.ask(PROMPT)
    assert telemetry.calls == []


GEVENT = """
from gevent import monkey
monkey.patch_all()
import contextvars, json
import gevent
from traced_program import client, exporter, span_of, told

def ask(number):
    with span_of(f"span {number}"):
        client.ask(f"question {number}")

with client:
    gevent.joinall([gevent.spawn(ask, number) for number in range(8)], raise_error=True)
    with span_of("spawned here"):
        context = contextvars.copy_context()
        gevent.spawn(context.run, client.ask, "Hi").get()
print(json.dumps(told(exporter.get_finished_spans())))
"""


def test_greenlets_have_the_parents_of_their_own(emulator: Emulator, start: Callable[..., Any]) -> None:
    """One starts without a context: whoever wants its own in there runs it in a copy."""
    program = start(["-W", "error", "-c", GEVENT], stdout=subprocess.PIPE)
    spans = json.loads(program.communicate(timeout=3 * PATIENCE)[0])
    found = sorted(span["parent"] for span in spans if span["name"].startswith("chat"))
    assert found == [*(f"span {number}" for number in range(8)), "spawned here"]


SCRIPT = """
from copilot_sync import Client
with Client() as client:
    print(client.ask("Hi").text)
"""


def test_a_script_is_traced_by_the_command(emulator: Emulator, start: Callable[..., Any], tmp_path: Any) -> None:
    """``opentelemetry-instrument`` finds the instrumentation by itself."""
    (tmp_path / "script.py").write_text(SCRIPT)
    options = ["--traces_exporter", "console", "--metrics_exporter", "none", "--logs_exporter", "none"]
    command = [path_of("opentelemetry-instrument"), *options, sys.executable, str(tmp_path / "script.py")]
    program = start(["-c", BECOME, *command], stdout=subprocess.PIPE)
    printed, _, spans = program.communicate(timeout=3 * PATIENCE)[0].partition("\n")
    assert printed == "Hi"
    (span,) = [span for span in objects_in(spans) if span["name"].startswith("chat")]
    assert span["attributes"]["gen_ai.provider.name"] == "github"
    assert span["resource"]["attributes"]["telemetry.auto.version"]


def objects_in(text: str) -> List[Dict[str, Any]]:
    """JSON objects that stand behind each other."""
    found, decoder = [], json.JSONDecoder()
    while text.strip():
        value, end = decoder.raw_decode(text.lstrip())
        found.append(value)
        text = text.lstrip()[end:]
    return found


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_requests_of_a_site_are_the_parents(kind: str, emulator: Emulator, start: Callable[..., Any]) -> None:
    """In a worker of gunicorn's, whose threads or greenlets ask at once."""
    emulator.reply = lambda prompt: Reply(prompt, pace=0.02)
    with reserved_port() as port:
        pass
    command = ["-m", "gunicorn", "traced_program:application", "-k", kind, "-b", f"127.0.0.1:{port}"]
    start([*command, "--threads", "4", "--log-level", "error"])
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: is_up(f"{url}/spans"))
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        texts = list(executor.map(lambda number: got(f"{url}/{number}"), range(4)))
    assert texts == [f"question /{number}" for number in range(4)]
    spans = json.loads(got(f"{url}/spans"))
    calls = [span for span in spans if span["name"].startswith("chat")]
    assert sorted(span["parent"] for span in calls) == [f"/{number}" for number in range(4)]
    assert {span["status"] for span in calls} == {"UNSET"}


def got(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as reply:
        return str(reply.read().decode())


def is_up(url: str) -> bool:
    try:
        return bool(got(url))
    except OSError:
        return False


CELERY = """
import json, sys
from celery import Celery
from celery.contrib.testing.worker import start_worker
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from traced_program import client, exporter, provider, told

CeleryInstrumentor().instrument(tracer_provider=provider)
app = Celery(broker="memory://", backend="cache+memory://")

@app.task(name="ask")
def ask(prompt):
    return client.ask(prompt).text

with start_worker(app, pool="solo", perform_ping_check=False):
    assert ask.delay("Hi").get(timeout=10) == "Hi"
client.close()
print(json.dumps(told(exporter.get_finished_spans())))
"""


def test_a_task_of_celery_is_the_parent(emulator: Emulator, start: Callable[..., Any]) -> None:
    """As its own instrumentation makes it."""
    program = start(["-c", CELERY], stdout=subprocess.PIPE)
    spans = json.loads(program.communicate(timeout=3 * PATIENCE)[0])
    (call,) = [span for span in spans if span["name"].startswith("chat")]
    assert call["parent"] == "run/ask"


@pytest.mark.parametrize("library", ["opentelemetry", "prometheus"])
def test_the_program_of_the_page_runs(library: str, emulator: Emulator, start: Callable[..., Any]) -> None:
    """As it stands in docs/observability.rst."""
    block = text_with(library, DOCS / "observability.rst", "python")
    program = start(["-W", "error", "-c", block], stdout=subprocess.PIPE)
    printed = program.communicate(timeout=3 * PATIENCE)[0]
    assert program.returncode == 0
    if library == "prometheus":
        assert re.search(r'^copilot_calls_total\{model="[\w.-]+",outcome="finished"\} 1\.0$', printed, re.MULTILINE)
