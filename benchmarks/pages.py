"""Pages: many responses at once on one gunicorn process, each of which streams an answer to a browser."""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict
from typing import Any, Dict, Iterator, List, Tuple

from benchmarks.bench import Bench
from benchmarks.measure import ROOT, checkout_of, client_of, interleaved, python_of, sampled
from benchmarks.peers import Target
from benchmarks.plans import Plan

#: Seconds that a server may take to start.
_PATIENCE = 30.0
_STAMP = re.compile(rb'"(\d{19})"')


def measured_pages(bench: Bench, names: List[str], plan: Plan, tls: bool) -> Dict[str, List[Dict[str, Any]]]:
    """Have the clients take turns at serving pages."""
    target = bench.target(tls)

    def measure(name: str) -> Dict[str, Any]:
        if importlib.util.find_spec("gunicorn") is None:
            return {"failure": "gunicorn is not installed"}
        python = list(bench.workers.pythons[python_of(name)])
        with _served(python, _told(name, target, bench), bench.scale.pages + 2) as port:
            return _visited(port, plan, bench.scale.pages)

    return interleaved(names, bench.scale.stream_rounds, measure)


def _told(name: str, target: Target, bench: Bench) -> str:
    checkout = checkout_of(name, bench.workers.against)
    return json.dumps({"client": client_of(name), "target": asdict(target), "checkout": checkout})


@contextlib.contextmanager
def _served(python: List[str], told: str, threads: int) -> Iterator[int]:
    """Run the application, in one process with so many threads, and yield its port."""
    environment = {
        **os.environ,
        "BENCH_PAGES": told,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        options = ["--worker-class", "gthread", "--threads", str(threads), "--log-level", "error"]
        place = ["--bind", f"fd://{listener.fileno()}", "benchmarks.pages_app:application"]
        process = subprocess.Popen(
            [*python, "-m", "gunicorn", *options, *place],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env=environment,
            pass_fds=[listener.fileno()],
        )
        try:
            yield int(listener.getsockname()[1])
        finally:
            process.terminate()
            process.wait()


def _visited(port: int, plan: Plan, count: int) -> Dict[str, Any]:
    """Load so many pages at once, and tell what that took the server."""
    try:  # so that what is done once is done
        asyncio.run(asyncio.wait_for(_load(port, Plan(events=2, gap=1000)), _PATIENCE))
    except asyncio.TimeoutError:
        return {"failure": "the server does not start"}
    before = _usage(port)
    found, halfway, wall = asyncio.run(_load_all(port, plan, count))
    after = _usage(port)
    if sum(map(len, found)) != plan.events * count:
        return {"failure": f"{sum(map(len, found))} of {plan.events * count} came"}
    return {
        "cpu": after["cpu"] - before["cpu"],
        "wall": wall,
        "threads": (halfway["threads"] - before["threads"]) / count,
        "delays": sampled([delay for one in found for delay in one]),
        "settled": sampled([delay for one in found for delay in one[len(one) // 2 :]]),
    }


def _usage(port: int) -> Dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/usage", timeout=_PATIENCE) as response:
        told: Dict[str, float] = json.loads(response.read())
    return told


async def _load_all(port: int, plan: Plan, count: int) -> Tuple[List[List[float]], Dict[str, float], float]:
    started = time.monotonic()
    pages = [asyncio.ensure_future(_load(port, plan)) for _ in range(count)]
    await asyncio.sleep(plan.events * plan.gap / 1e6 / 2)
    halfway = await asyncio.get_running_loop().run_in_executor(None, _usage, port)
    return list(await asyncio.gather(*pages)), halfway, time.monotonic() - started


async def _load(port: int, plan: Plan) -> List[float]:
    """Load a page, and return how long its events were on their way, in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /page?{plan.prompt()} HTTP/1.0\r\n\r\n".encode())
    delays = []
    async for line in reader:
        found = _STAMP.search(line)
        if found is not None:
            delays.append((time.monotonic_ns() - int(found[1])) / 1e9)
    writer.close()
    return delays
