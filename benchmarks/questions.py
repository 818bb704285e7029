"""The questions. Each has the clients take turns at one thing, and gives what a reader wants to know as tables."""

import os
import statistics
import subprocess
import time
from typing import Any, Callable, Dict, List, Sequence, Tuple

from benchmarks.bench import Bench, Scale
from benchmarks.measure import (
    Column,
    Process,
    Pythons,
    Rounds,
    client_of,
    failure_of,
    interleaved,
    markdown,
    middle,
    python_of,
    quantile,
    ratio,
    spread,
    table,
    to_first_python,
)
from benchmarks.pages import measured_pages
from benchmarks.peers import (
    AIOHTTP,
    BEFORE,
    FLOOR,
    G4F_BLOCKING,
    OPENAI,
    OURS,
    OURS_ASYNC,
    READS,
    TIMED_FLOOR,
    Target,
)
from benchmarks.plans import Plan

#: A title, a sentence, and a table.
Section = Tuple[str, str, str]
#: The clients that are asked over TLS as well.
_OVER_TLS = (OURS, OURS_ASYNC, FLOOR, TIMED_FLOOR, AIOHTTP)


def _cpu_per(count: float, unit: str) -> List[Column]:
    def cpu(result: Dict[str, Any]) -> float:
        return 1e6 * float(result["cpu"]) / count

    return [
        spread(f"CPU µs {unit}", cpu),
        ratio("÷ floor", cpu, to=FLOOR),
        ratio("copilot_sync ÷ it", cpu, of=OURS),
        ratio("asyncio ÷ it", cpu, of=OURS_ASYNC),
    ]


def events(bench: Bench) -> List[Section]:
    """What an event costs."""
    return _events(bench, bench.names, bench.waiting)


def _events(bench: Bench, names: List[str], waiting: List[str], tls: bool = False) -> List[Section]:
    scale = bench.scale
    plans = [
        ("An event a packet", Plan(events=scale.events), names),
        ("20 events a packet", Plan(events=scale.events, batch=20), names),
        ("1 ms apart", Plan(events=scale.paced, gap=1000), waiting),
    ]
    return [
        (
            f"CPU per event: {title.lower()}{_over(tls)}",
            f"{plan.events} events in an answer, each a chunk; median of {scale.rounds} rounds (smallest–largest).",
            table(bench.run("calls", plan, scale.rounds, who, tls=tls, count=1), _cpu_per(plan.events, "an event")),
        )
        for title, plan, who in plans
    ]


def _over(tls: bool) -> str:
    return ", over TLS" if tls else ""


def call(bench: Bench) -> List[Section]:
    """What a whole call costs."""
    return _call(bench, bench.names)


def _call(bench: Bench, names: List[str], tls: bool = False) -> List[Section]:
    scale = bench.scale
    rounds = bench.run("calls", Plan(), scale.rounds, names, tls=tls, count=scale.calls)
    return [
        (
            f"CPU of a whole call{_over(tls)}",
            "A known conversation, an answer of one event, connections kept by those who keep them.",
            table(rounds, _cpu_per(scale.calls, "a call")),
        )
    ]


def trips(bench: Bench) -> List[Section]:
    """How many round trips the first text takes."""
    names = bench.without(READS, OPENAI, G4F_BLOCKING)
    proxies = [Process("proxy", str(bench.scale.round_trip), str(bench.port)) for _ in range(2)]
    try:
        target = bench.distant([proxy.heard()[0] for proxy in proxies])
        found = {
            title: _first_texts(bench, names, target, known, fresh)
            for title, known, fresh in [("cold", False, True), ("new", False, False), ("known", True, False)]
        }
    finally:
        for proxy in proxies:
            proxy.close()
    tls = "TLS, " if target.authority else "no TLS (trustme is not installed), "
    columns = ["cold", "new", "known"]
    lines = [["client", "cold, new conversation", "warm, new conversation", "warm, known conversation"]]
    lines += [[name, *(_trips(found[column][name], bench.scale.round_trip) for column in columns)] for name in names]
    return [
        (
            "First text, in round trips",
            f"{tls}a round trip of {bench.scale.round_trip} ms; in brackets, new connections and calls for a token.",
            markdown(lines),
        )
    ]


def _first_texts(bench: Bench, names: Sequence[str], target: Target, known: bool, fresh: bool) -> Rounds:
    def measure(name: str) -> Dict[str, Any]:
        bench.counts()
        result = bench.workers.measure(name, "first_text", target, Plan(), known=known, fresh=fresh)
        return {**result, **bench.counts()}

    return interleaved(names, bench.scale.trips, measure)


def _trips(results: List[Dict[str, Any]], round_trip: int) -> str:
    failure = failure_of(results)
    if failure is not None:
        return failure
    first = statistics.median(result["first"] for result in results) * 1000 / round_trip
    return f"{first:.2f} ({results[-1]['connections']}, {results[-1]['tokens']})"


def delays(bench: Bench) -> List[Section]:
    """How long a piece is on its way, in each framing."""
    scale = bench.scale
    framings = {
        "chunked": "a chunk each",
        "halves": "two chunks each",
        "whole": "one chunk for all",
        "length": "a length",
        "close": "ended by the connection",
        "gzip": "gzip",
    }
    rounds = 3 if scale.rounds > 3 else 1
    found = {
        framing: bench.run("delays", Plan(framing=framing, events=scale.delays, gap=3000), rounds)
        for framing in framings
    }
    lines = [["client", *framings.values()]]
    lines += [[name, *(_delays(found[framing][name]) for framing in framings)] for name in bench.names]
    return [
        (
            "Delay from sending to yielding, in ms: p50 / p99",
            "An event every 3 ms, in each framing; median of the rounds.",
            markdown(lines),
        )
    ]


def _delays(results: List[Dict[str, Any]]) -> str:
    failure = failure_of(results)
    if failure is not None:
        return failure
    return " / ".join(
        f"{statistics.median(quantile(share)(result) for result in results):.2f}" for share in (0.5, 0.99)
    )


def threads(bench: Bench) -> List[Section]:
    """What threads gain from a second core: each interpreter beside the first one."""
    scale, pythons = bench.scale, bench.workers.pythons
    names = [name for name in bench.names if client_of(name) in (OURS, OURS + BEFORE, FLOOR)]
    count = scale.threads
    sections = []
    for title, sentence, job, calls in [
        (
            f"{count} threads of whole calls on one client",
            "A known conversation, an answer of one event. Each thread has made some calls before.",
            "calls_in_threads",
            count * scale.calls,
        ),
        (
            f"A batch with {count} workers",
            "A new conversation for each prompt, so two requests, and no output. The floor has a pool of threads.",
            "batch",
            scale.prompts,
        ),
    ]:
        rounds = bench.run(job, Plan(), scale.rounds, names, count=calls, threads=count)
        sections.append((title, sentence, table(rounds, _rate_columns(calls, pythons))))
    rounds = bench.run("streams", _paced(scale), scale.stream_rounds, names, count=scale.streams)
    columns = [
        spread("CPU s", _cpu, "{:.2f}"),
        *to_first_python("CPU ÷", _cpu, pythons),
        middle("KB a stream", _kilobytes, "{:.0f}"),
        *to_first_python("KB ÷", _kilobytes, pythons),
    ]
    sentence = f"50 events a second each, for {scale.seconds:g} s."
    return [*sections, (f"{scale.streams} streams, each read by a thread", sentence, table(rounds, columns))]


def _rate_columns(calls: int, pythons: Pythons) -> List[Column]:
    def rate(result: Dict[str, Any]) -> float:
        return calls / float(result["wall"])

    def cpu(result: Dict[str, Any]) -> float:
        return 1e6 * _cpu(result) / calls

    return [
        spread("calls a second", rate, "{:.0f}"),
        *to_first_python("÷", rate, pythons),
        spread("CPU µs a call", cpu, "{:.0f}"),
        *to_first_python("CPU ÷", cpu, pythons),
    ]


def _cpu(result: Dict[str, Any]) -> float:
    return float(result["cpu"])


def _kilobytes(result: Dict[str, Any]) -> float:
    return float(result["memory"]) / 1024


def _paced(scale: Scale) -> Plan:
    """The answer of each of many streams."""
    return Plan(events=max(1, int(scale.seconds * 50)), gap=20_000)


def streams(bench: Bench) -> List[Section]:
    """How many streams a process holds."""
    return _streams(bench, bench.waiting)


def _streams(bench: Bench, names: List[str], tls: bool = False) -> List[Section]:
    scale = bench.scale
    rounds = bench.run("streams", _paced(scale), scale.stream_rounds, names, tls=tls, count=scale.streams)
    columns = [
        spread("CPU s", _cpu, "{:.2f}"),
        ratio("÷ floor", _cpu, to=FLOOR),
        ratio("copilot_sync ÷ it", _cpu, of=OURS),
        ratio("asyncio ÷ it", _cpu, of=OURS_ASYNC),
        middle("wall s", lambda result: float(result["wall"]), "{:.2f}"),
        middle("delay ms p50", quantile(0.5)),
        middle("p99", quantile(0.99)),
        middle("most", quantile(1.0)),
        middle("KB a stream", _kilobytes, "{:.0f}"),
    ]
    return [
        (
            f"{scale.streams} streams at once, 50 events a second each, for {scale.seconds:g} s{_over(tls)}",
            "In threads, or in one event loop; memory is what the process has grown by at most until halfway.",
            table(rounds, columns),
        )
    ]


def tls(bench: Bench) -> List[Section]:
    """What events, calls and streams cost over TLS."""
    if not bench.speaks_tls:
        return [("Over TLS", "trustme is not installed, so nothing is measured.", "")]
    names = bench.among(*_OVER_TLS)
    return [*_events(bench, names, names, tls=True), *_call(bench, names, tls=True), *_streams(bench, names, tls=True)]


def crowd(bench: Bench) -> List[Section]:
    """How many streams one event loop holds."""
    scale = bench.scale
    plan = Plan(events=max(2, int(scale.seconds * 10)), gap=100_000)
    sections = []
    for is_secure in (False, True) if bench.speaks_tls else (False,):
        names = bench.among(OURS_ASYNC, AIOHTTP)
        rounds = bench.run("streams", plan, scale.stream_rounds, names, tls=is_secure, count=scale.crowd)
        sections.append(
            (
                f"{scale.crowd:,} streams in one loop, 10 events a second each, for {scale.seconds:g} s"
                + _over(is_secure),
                "Delays in ms of the second half, when all connections are made. Threads are those of the client "
                "halfway.",
                table(rounds, _settled_columns("threads", "{:.0f}", AIOHTTP)),
            )
        )
    return sections


def pages(bench: Bench) -> List[Section]:
    """What it costs a server to stream answers to pages."""
    scale = bench.scale
    sections = []
    for is_secure in (False, True) if bench.speaks_tls else (False,):
        rounds = measured_pages(bench, bench.among(OURS, FLOOR), _paced(scale), is_secure)
        sections.append(
            (
                f"{scale.pages} pages at once, 50 events a second each, for {scale.seconds:g} s{_over(is_secure)}",
                "One process of gunicorn, with a thread for each response; what it takes from first to last. Delays "
                "are from our server to the page, in ms, of the second half.",
                table(rounds, _settled_columns("threads a page", "{:.1f}", OURS + BEFORE)),
            )
        )
    return sections


def _settled_columns(threads: str, form: str, other: str) -> List[Column]:
    return [
        spread("CPU s", _cpu, "{:.2f}"),
        ratio(f"÷ {other}", _cpu, to=other),
        middle("wall s", lambda result: float(result["wall"]), "{:.2f}"),
        middle("delay p50", quantile(0.5, "settled")),
        middle("p99", quantile(0.99, "settled")),
        ratio(f"p99 ÷ {other}", quantile(0.99, "settled"), to=other),
        middle("most", quantile(1.0, "settled")),
        middle("most at all", quantile(1.0)),
        middle(threads, lambda result: float(result["threads"]), form),
    ]


def large(bench: Bench) -> List[Section]:
    """What one large event costs."""
    size = bench.scale.megabytes * 1024 * 1024
    names = [name for name in bench.names if not name.startswith("requests")]
    bench.workers.after_fork_in_child()
    rounds = bench.run("volume", Plan(events=1, size=size), bench.scale.large_rounds, names)
    return [
        (
            f"{bench.scale.megabytes} MB in one event",
            "Bounds raised. Memory is the most that the process has grown by, in multiples of the event. "
            "Both ways of requests take time with the square of the event, many minutes here, and are left out.",
            table(rounds, _volume_columns(lambda result: float(result["memory"]) / size, "memory ÷ event", "{:.1f}")),
        )
    ]


def many(bench: Bench) -> List[Section]:
    """What a great many events cost."""
    scale = bench.scale
    names = bench.without(READS, OPENAI, G4F_BLOCKING)
    sections = []
    for count in (scale.volume // 10, scale.volume):
        bench.workers.after_fork_in_child()
        rounds = bench.run("volume", Plan(events=count, batch=20), 1, names)
        sections.append(
            (
                f"{count:,} small events",
                "20 a packet, once; the clients keep what they keep, the harness nothing. openai and gpt4free's "
                "blocking client take minutes and are left out.",
                table(rounds, _volume_columns(lambda result: float(result["memory"]) / 2**20, "memory MB", "{:.1f}")),
            )
        )
    return sections


def _volume_columns(memory: Callable[[Dict[str, Any]], float], title: str, form: str) -> List[Column]:
    def wall(result: Dict[str, Any]) -> float:
        return float(result["wall"])

    return [
        spread("wall s", wall, "{:.3f}"),
        ratio("÷ floor", wall, to=FLOOR),
        ratio("copilot_sync ÷ it", wall, of=OURS),
        middle("CPU s", lambda result: float(result["cpu"]), "{:.3f}"),
        # The most, because later rounds find what the first took and gave back.
        Column(title, lambda name, rounds: form.format(max(memory(result) for result in rounds[name]))),
    ]


#: It is measured until its first byte.
_ASK = "copilot-sync ask --emulator"


def imports(bench: Bench) -> List[Section]:
    """How long it takes to start."""
    programs = {
        "nothing": ["-c", "pass"],
        "import requests": ["-c", "import requests"],
        "import copilot_sync": ["-c", "import copilot_sync"],
        "from copilot_sync import Client": ["-c", "from copilot_sync import Client"],
        "copilot-sync --help": ["-m", "copilot_sync", "--help"],
        _ASK: ["-m", "copilot_sync", "ask", "--emulator", "hi"],
        "import httpx, httpx_sse": ["-c", "import httpx, httpx_sse"],
        "import aiohttp": ["-c", "import aiohttp"],
        "import openai": ["-c", "import openai"],
        "import g4f.client": ["-c", "import g4f.client"],
    }
    commands = {
        name + suffix: [*python, *arguments]
        for name, arguments in programs.items()
        for suffix, python in bench.workers.pythons.items()
    }

    def run(name: str) -> Dict[str, Any]:
        return (_answered if name.startswith(_ASK) else _started)(commands[name])

    for name in commands:
        run(name)  # from here on, all is compiled
    rounds = interleaved(list(commands), bench.scale.imports, run)
    base = "import requests"

    def wall(result: Dict[str, Any]) -> float:
        return 1000 * float(result["wall"])

    columns = [
        spread("wall ms", wall),
        ratio("÷ import requests", wall, to=base),
        Column("the smallest ÷ its", lambda name, rounds: _smallest_ratio(rounds, name, base + python_of(name))),
        middle("CPU ms", lambda result: 1000 * float(result["cpu"])),
    ]
    about = "A Python process, from its start to its end, or to the first byte of an answer."
    return [("Starting", about, table(rounds, columns))]


def _smallest_ratio(rounds: Rounds, name: str, base: str) -> str:
    smallest = [min(float(result["wall"]) for result in rounds[one]) for one in (name, base)]
    return f"{smallest[0] / smallest[1]:.2f}"


def _started(command: Sequence[str]) -> Dict[str, Any]:
    """Run a command, and tell what that took."""
    started = time.monotonic()
    process = _spawned(command, subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = status
    if status:
        return {"failure": "is not installed"}
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}


def _answered(command: Sequence[str]) -> Dict[str, Any]:
    """Run a command until it prints something, and tell what that took."""
    started = time.monotonic()
    process = _spawned(command, subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        came = output.read(1)
        wall = time.monotonic() - started
        process.kill()
    _, process.returncode, usage = os.wait4(process.pid, 0)
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime} if came else {"failure": "is not installed"}


def _spawned(command: Sequence[str], stdout: int) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nothing, stdout=stdout, stderr=nothing, env=environment)


#: The questions by name, in the order in which they are asked.
QUESTIONS: Dict[str, Callable[[Bench], List[Section]]] = {
    question.__name__: question
    for question in (events, call, threads, trips, delays, streams, tls, crowd, pages, large, many, imports)
}
