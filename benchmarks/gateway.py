"""``openai`` through ``copilot-sync serve``, beside the same client asking an OpenAI server directly, in one run.

``python benchmarks/gateway.py [--calls 300] [--streams 100] [--memory 10000]`` prints how long the first piece takes,
and what CPU time a call costs the client and the gateway; how late the events of many streams at once are; and by how
much the gateway grows over many calls. It needs ``openai``, and the extras ``cli`` and ``serve``.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.plans import Plan  # noqa: E402 - found by the line before

KEY = "benchmark"
STAMP = re.compile(rb'"(\d{19})"')


@contextlib.contextmanager
def started(*arguments: str, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """Run a program of this interpreter's until the block ends."""
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": python_path, **environment},
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def cpu_of(pid: int) -> float:
    """The CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> float:
    """What a process occupies, in MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def ask(client: Any) -> float:
    """Ask for a streamed answer of one event; return the seconds to its text."""
    messages = [{"role": "user", "content": Plan().prompt()}]
    begun, first = time.perf_counter(), 0.0
    for chunk in client.chat.completions.create(model="auto", messages=messages, stream=True):
        if chunk.choices and chunk.choices[0].delta.content and not first:
            first = time.perf_counter() - begun
    return first


def compare(ports: Dict[str, int], gateway: int, calls: int) -> None:
    """Take turns, a call each."""
    import openai

    clients = {name: openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY) for name, port in ports.items()}
    for client in clients.values():
        for _ in range(10):
            ask(client)
    firsts: Dict[str, List[float]] = {name: [] for name in clients}
    cpu = dict.fromkeys(clients, 0.0)
    before = cpu_of(gateway)
    for _ in range(calls):
        for name, client in clients.items():
            begun = time.process_time()
            firsts[name].append(ask(client))
            cpu[name] += time.process_time() - begun
    served = (cpu_of(gateway) - before) / calls
    for name in clients:
        print(f"{name:12} first piece {1e3 * statistics.median(firsts[name]):6.2f} ms   "
              f"CPU of the client {1e3 * cpu[name] / calls:5.2f} ms a call")  # fmt: skip
    direct, through = (statistics.median(firsts[name]) for name in ports)
    print(f"the gateway adds {1e3 * (through - direct):.2f} ms, and takes {1e3 * served:.2f} ms of CPU a call: "
          f"{served / (cpu['direct'] / calls):.2f} of the client's")  # fmt: skip


async def stream(port: int, plan: Plan) -> List[float]:
    """Read a stream; return how long its events were on their way, in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"messages": [{"role": "user", "content": plan.prompt()}], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nConnection: close"
    writer.write(head.encode() + b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    delays = []
    async for line in reader:
        found = STAMP.search(line)
        if found is not None:
            delays.append((time.monotonic_ns() - int(found[1])) / 1e9)
    writer.close()
    return delays


async def streams(port: int, count: int) -> None:
    """Read many streams at once."""
    plan = Plan(events=100, gap=20_000)
    found = await asyncio.gather(*(stream(port, plan) for _ in range(count)))
    came = sum(map(len, found))
    late = sorted(delay for one in found for delay in one[len(one) // 2 :])
    print(f"{count} streams at once: {came} of {count * plan.events} events; delays of the second half: "
          f"median {1e3 * statistics.median(late):.1f} ms, p99 {1e3 * late[int(0.99 * len(late))]:.1f} ms")  # fmt: skip


def growth(port: int, pid: int, calls: int) -> None:
    """Ask many times over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"messages": [{"role": "user", "content": Plan().prompt()}], "stream": True})
    at = {calls // 10: 0.0, calls: 0.0}
    for number in range(1, calls + 1):
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}"})
        connection.getresponse().read()
        if number in at:
            at[number] = memory_of(pid)
    grown = "   ".join(f"{memory:.1f} MB after {number} calls" for number, memory in at.items())
    print(f"memory of the gateway: {grown}")


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--memory", type=int, default=10_000)
    given = parser.parse_args()
    read: Callable[[Any], str] = lambda process: process.stdout.readline()  # noqa: E731 - twice below
    with started("-m", "benchmarks.server") as server:
        api = json.loads(read(server))[0]
        serve = ["-m", "copilot_sync", "serve", "--port", "0", "--key", KEY, "--concurrency", "200"]
        service = {"COPILOT_SYNC_API_URL": f"http://127.0.0.1:{api}", "COPILOT_SYNC_API_KEY": KEY}
        with started(*serve, **service) as gateway:
            port = int(read(gateway).rpartition(":")[2].partition("/")[0])
            compare({"direct": api, "gateway": port}, gateway.pid, given.calls)
            asyncio.run(streams(port, given.streams))
            growth(port, gateway.pid, given.memory)


if __name__ == "__main__":
    main()
