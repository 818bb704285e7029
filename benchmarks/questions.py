"""The questions. Each has the clients take turns at one thing, and gives what a reader wants to know as tables.

``Scale`` says how much is asked of the clients: the full measure, a short one, or next to nothing, for the test that
sees that everything here still works.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from benchmarks.measure import (
    Column,
    Process,
    Rounds,
    Workers,
    failure_of,
    interleaved,
    markdown,
    middle,
    quantile,
    ratio,
    spread,
    table,
)
from benchmarks.peers import FLOOR, G4F_BLOCKING, OPENAI, OURS, OURS_ASYNC, READS, Target
from benchmarks.plans import Plan


@dataclass(frozen=True)
class Scale:
    """How much is measured; ``round_trip`` is in milliseconds, where they are counted."""

    rounds: int = 9
    events: int = 20_000
    paced: int = 1_000
    calls: int = 100
    trips: int = 5
    round_trip: int = 50
    delays: int = 200
    streams: int = 200
    seconds: float = 5.0
    stream_rounds: int = 3
    imports: int = 15
    megabytes: int = 64
    large_rounds: int = 3
    volume: int = 1_000_000


FULL = Scale()
SHORT = Scale(
    rounds=3,
    events=3_000,
    paced=100,
    calls=20,
    trips=2,
    delays=40,
    streams=50,
    seconds=1.0,
    stream_rounds=1,
    imports=2,
    megabytes=16,
    large_rounds=1,
    volume=30_000,
)
TINY = Scale(
    rounds=1,
    events=40,
    paced=4,
    calls=2,
    trips=1,
    round_trip=5,
    delays=5,
    streams=3,
    seconds=0.1,
    stream_rounds=1,
    imports=1,
    megabytes=1,
    large_rounds=1,
    volume=100,
)


class Bench:
    """What the questions share: the server, the clients, and how much is asked of them.

    Args:
        names: The clients.
        scale: How much is measured.
        certificate: The files of a server's certificate with its key, and of its CA; ``None`` for no TLS.
    """

    def __init__(self, names: Sequence[str], scale: Scale, certificate: Optional[Tuple[str, str]]) -> None:
        self.scale = scale
        self.workers = Workers(names)
        self._authority = certificate[1] if certificate else None
        self._server = Process("server", *(certificate[:1] if certificate else ()))
        self._ports: List[int] = self._server.heard()

    @property
    def names(self) -> List[str]:
        """The clients."""
        return [name for name in self.waiting if name != READS]

    @property
    def waiting(self) -> List[str]:
        """The clients, and what reading costs by itself where each event is waited for."""
        return self.workers.names

    @property
    def port(self) -> int:
        """The port that speaks TLS, where one does."""
        return self._ports[-1]

    def target(self) -> Target:
        """The server itself, with a key: no tokens, no TLS."""
        url = f"http://127.0.0.1:{self._ports[0]}"
        return Target(github=url, api=url)

    def distant(self, ports: Sequence[int]) -> Target:
        """The server behind the proxies of these ports, without a key."""
        scheme = "https" if self._authority else "http"
        github, api = (f"{scheme}://localhost:{port}" for port in ports)
        return Target(github=github, api=api, api_key=None, authority=self._authority)

    def counts(self) -> Dict[str, int]:
        """How many connections and tokens were asked of the server since the last time."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[0])
        connection.request("GET", "/counts")
        counts: Dict[str, int] = json.loads(connection.getresponse().read())
        connection.close()
        return counts

    def run(self, job: str, plan: Plan, rounds: int, names: Optional[Sequence[str]] = None, **arguments: Any) -> Rounds:
        """Have the clients take turns at a job."""
        target = self.target()

        def measure(name: str) -> Dict[str, Any]:
            return self.workers.measure(name, job, target, plan, **arguments)

        return interleaved(names or self.names, rounds, measure)

    def close(self) -> None:
        """End all processes."""
        self.workers.close()
        self._server.close()


#: A title, a sentence, and a table.
Section = Tuple[str, str, str]


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
    scale = bench.scale
    plans = [
        ("An event a packet", Plan(events=scale.events), bench.names),
        ("20 events a packet", Plan(events=scale.events, batch=20), bench.names),
        ("1 ms apart", Plan(events=scale.paced, gap=1000), bench.waiting),
    ]
    return [
        (
            f"CPU per event: {title.lower()}",
            f"{plan.events} events in an answer, each a chunk; median of {scale.rounds} rounds (smallest–largest).",
            table(bench.run("calls", plan, scale.rounds, names, count=1), _cpu_per(plan.events, "an event")),
        )
        for title, plan, names in plans
    ]


def call(bench: Bench) -> List[Section]:
    """What a whole call costs."""
    scale = bench.scale
    rounds = bench.run("calls", Plan(), scale.rounds, count=scale.calls)
    return [
        (
            "CPU of a whole call",
            "A known conversation, an answer of one event, connections kept by those who keep them.",
            table(rounds, _cpu_per(scale.calls, "a call")),
        )
    ]


def trips(bench: Bench) -> List[Section]:
    """How many round trips the first text takes."""
    names = [name for name in bench.names if name not in (OPENAI, G4F_BLOCKING)]
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


def streams(bench: Bench) -> List[Section]:
    """How many streams a process holds."""
    scale = bench.scale
    plan = Plan(events=max(1, int(scale.seconds * 50)), gap=20_000)
    rounds = bench.run("streams", plan, scale.stream_rounds, bench.waiting, count=scale.streams)

    def cpu(result: Dict[str, Any]) -> float:
        return float(result["cpu"])

    columns = [
        spread("CPU s", cpu, "{:.2f}"),
        ratio("÷ floor", cpu, to=FLOOR),
        ratio("copilot_sync ÷ it", cpu, of=OURS),
        ratio("asyncio ÷ it", cpu, of=OURS_ASYNC),
        middle("wall s", lambda result: float(result["wall"]), "{:.2f}"),
        middle("delay ms p50", quantile(0.5)),
        middle("p99", quantile(0.99)),
        middle("most", quantile(1.0)),
        middle("KB a stream", lambda result: float(result["memory"]) / 1024, "{:.0f}"),
    ]
    return [
        (
            f"{scale.streams} streams at once, 50 events a second each, for {scale.seconds:g} s",
            "In threads, or in one event loop; memory is what the process has grown by halfway.",
            table(rounds, columns),
        )
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
    names = [name for name in bench.names if name not in (OPENAI, G4F_BLOCKING)]
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


def imports(bench: Bench) -> List[Section]:
    """How long it takes to start."""
    programs = {
        "nothing": ["-c", "pass"],
        "import requests": ["-c", "import requests"],
        "import copilot_sync": ["-c", "import copilot_sync"],
        "from copilot_sync import Client": ["-c", "from copilot_sync import Client"],
        "copilot-sync --help": ["-m", "copilot_sync", "--help"],
        "import httpx, httpx_sse": ["-c", "import httpx, httpx_sse"],
        "import aiohttp": ["-c", "import aiohttp"],
        "import openai": ["-c", "import openai"],
        "import g4f.client": ["-c", "import g4f.client"],
    }
    for arguments in programs.values():
        _started(arguments)  # from here on, all is compiled
    rounds = interleaved(list(programs), bench.scale.imports, lambda name: _started(programs[name]))
    base = "import requests"

    def wall(result: Dict[str, Any]) -> float:
        return 1000 * float(result["wall"])

    columns = [
        spread("wall ms", wall),
        ratio("÷ import requests", wall, to=base),
        Column("the smallest ÷ its", lambda name, rounds: _smallest_ratio(rounds, name, base)),
        middle("CPU ms", lambda result: 1000 * float(result["cpu"])),
    ]
    return [("Starting", "A Python process, from its start to its end.", table(rounds, columns))]


def _smallest_ratio(rounds: Rounds, name: str, base: str) -> str:
    smallest = [min(float(result["wall"]) for result in rounds[one]) for one in (name, base)]
    return f"{smallest[0] / smallest[1]:.2f}"


def _started(arguments: Sequence[str]) -> Dict[str, Any]:
    """Run Python with these arguments, and tell what that took."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    nothing = subprocess.DEVNULL
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=nothing, stdout=nothing, stderr=nothing, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = status
    if status:
        return {"failure": "is not installed"}
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}


#: The questions by name, in the order in which they are asked.
QUESTIONS: Dict[str, Callable[[Bench], List[Section]]] = {
    question.__name__: question for question in (events, call, trips, delays, streams, large, many, imports)
}
