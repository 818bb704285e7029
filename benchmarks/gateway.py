"""``openai`` through ``copilot-sync serve``, beside the same client asking an OpenAI server directly, in one run.

``python benchmarks/gateway.py [--calls 300] [--streams 100] [--memory 10000] [--litellm PROGRAM]`` prints how long the
first piece takes, and what CPU time a call costs the client and the gateway; how late the events of many streams at
once are; and by how much the gateway grows over many calls. It needs ``openai``, and the extras ``cli`` and ``serve``.

With ``--litellm``, litellm's proxy takes part, in front of the OpenAI server. It needs an environment of its own, whose
``bin/litellm`` is the program: ``pip install "litellm[proxy]==1.106.12"``. What the proxies of 1.109.3 and 1.110.2 need
is not on PyPI (November 2026).
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.plans import Plan  # noqa: E402 - found by the line before

KEY = "sk-benchmark"
FIELDS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
STAMP = re.compile(rb'"(\d{19})"')


#: Seconds until a proxy serves.
PATIENCE = 120.0


class Proxy(NamedTuple):
    """A program between the client and the service."""

    pid: int
    port: int


@contextlib.contextmanager
def started(*command: str, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """Run a program until the block ends."""
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
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


def first_line(process: "subprocess.Popen[str]") -> str:
    """What a program says first."""
    assert process.stdout is not None
    return process.stdout.readline()


@contextlib.contextmanager
def gateway(api: int) -> Iterator[Proxy]:
    """``copilot-sync serve`` in front of the service."""
    serve = ("-m", "copilot_sync", "serve", "--port", "0", "--key", KEY, "--concurrency", "200")
    service = {"COPILOT_SYNC_API_URL": f"http://127.0.0.1:{api}", "COPILOT_SYNC_API_KEY": KEY}
    with started(sys.executable, *serve, **service) as process:
        yield Proxy(process.pid, int(first_line(process).rpartition(":")[2].partition("/")[0]))


@contextlib.contextmanager
def litellm(program: str, api: int) -> Iterator[Proxy]:
    """The proxy of litellm in front of the OpenAI server, without a database."""
    model = {"model": "openai/auto", "api_base": f"http://127.0.0.1:{api}/v1", "api_key": KEY}
    settings = {
        "model_list": [{"model_name": "auto", "litellm_params": model}],
        "general_settings": {"master_key": KEY},
    }
    # What it would fetch from the network, it has.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONPATH": ""}
    with tempfile.TemporaryDirectory() as folder, socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        config = Path(folder, "config.yaml")
        config.write_text(json.dumps(settings))  # JSON is YAML
        command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        with started(*command, **environment) as process:
            wait_for(process, port)
            yield Proxy(process.pid, port)


def wait_for(process: "subprocess.Popen[str]", port: int) -> None:
    """Wait until a program listens."""
    end = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{process.args!r} does not serve")
        time.sleep(0.2)


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


def compare(api: int, proxies: Dict[str, Proxy], calls: int) -> None:
    """Take turns, a call each."""
    import openai

    ports = {"direct": api, **{name: proxy.port for name, proxy in proxies.items()}}
    clients = {name: openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY) for name, port in ports.items()}
    for client in clients.values():
        for _ in range(10):
            ask(client)
    firsts: Dict[str, List[float]] = {name: [] for name in clients}
    cpu = dict.fromkeys(clients, 0.0)
    before = {name: cpu_of(proxy.pid) for name, proxy in proxies.items()}
    for _ in range(calls):
        for name, client in clients.items():
            begun = time.process_time()
            firsts[name].append(ask(client))
            cpu[name] += time.process_time() - begun
    served = {name: (cpu_of(proxy.pid) - before[name]) / calls for name, proxy in proxies.items()}
    for name in clients:
        print(f"{name:8} first piece {1e3 * statistics.median(firsts[name]):6.2f} ms   "
              f"CPU of the client {1e3 * cpu[name] / calls:5.2f} ms a call")  # fmt: skip
    for name in proxies:
        added = statistics.median(firsts[name]) - statistics.median(firsts["direct"])
        print(f"{name} adds {1e3 * added:.2f} ms, and takes {1e3 * served[name]:.2f} ms of CPU a call: "
              f"{served[name] / (cpu['direct'] / calls):.2f} of the client's")  # fmt: skip


def question(plan: Plan) -> bytes:
    """The body of a request for a stream."""
    messages = [{"role": "user", "content": plan.prompt()}]
    return json.dumps({"model": "auto", "messages": messages, "stream": True}).encode()


async def stream(port: int, plan: Plan) -> List[float]:
    """Read a stream; return how long its events were on their way, in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = question(plan)
    fields = {**FIELDS, "Host": "127.0.0.1", "Connection": "close", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + body)
    delays = []
    async for line in reader:
        found = STAMP.search(line)
        if found is not None:
            delays.append((time.monotonic_ns() - int(found[1])) / 1e9)
    writer.close()
    return delays


async def streams(name: str, port: int, count: int) -> None:
    """Read many streams at once."""
    plan = Plan(events=100, gap=20_000)
    found = await asyncio.gather(*(stream(port, plan) for _ in range(count)))
    came = sum(map(len, found))
    late = sorted(delay for one in found for delay in one[len(one) // 2 :])
    print(f"{name}: {count} streams at once: {came} of {count * plan.events} events; delays of the second half: "
          f"median {1e3 * statistics.median(late):.1f} ms, p99 {1e3 * late[int(0.99 * len(late))]:.1f} ms")  # fmt: skip


def growth(name: str, proxy: Proxy, calls: int) -> None:
    """Ask many times over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
    at = {calls // 10: 0.0, calls: 0.0}
    for number in range(1, calls + 1):
        connection.request("POST", "/v1/chat/completions", question(Plan()), FIELDS)
        connection.getresponse().read()
        if number in at:
            at[number] = memory_of(proxy.pid)
    grown = "   ".join(f"{memory:.1f} MB after {number} calls" for number, memory in at.items())
    print(f"{name}: memory {grown}")


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--memory", type=int, default=10_000)
    parser.add_argument("--litellm", metavar="PROGRAM", help="litellm, which is installed with its proxy")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        api = json.loads(first_line(stack.enter_context(started(sys.executable, "-m", "benchmarks.server"))))[0]
        proxies = {"gateway": stack.enter_context(gateway(api))}
        if given.litellm is not None:
            proxies["litellm"] = stack.enter_context(litellm(given.litellm, api))
        compare(api, proxies, given.calls)
        for name, proxy in proxies.items():
            asyncio.run(streams(name, proxy.port, given.streams))
            growth(name, proxy, given.memory)


if __name__ == "__main__":
    main()
