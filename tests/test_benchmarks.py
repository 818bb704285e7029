"""The benchmarks still run: what they compare is imported where it is installed, and named as missing where not."""

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

ROOT = Path(__file__).parents[1]
CLIENTS = ["copilot_sync", "http.client + read1"]
LOOP = "copilot_sync, asyncio"

pytest.importorskip("resource")  # how CPU is measured; Windows has none


ONLY = [argument for name in CLIENTS for argument in ("--only", name)]


def printed(*arguments: str, status: int = 0) -> str:
    """What the benchmarks print."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--tiny", *arguments],
        cwd=ROOT,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == status, done.stdout.decode()
    return done.stdout.decode()


def rows(output: str) -> List[List[str]]:
    """The cells of all tables, without their heads."""
    lines = re.findall(r"^\| (.*) \|$", output, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines if not line.startswith("client ")]


def test_each_question_gets_its_table() -> None:
    """Of numbers, for ours and for the floor; which they are is for no test to say."""
    output = printed("events", "call", "threads", "trips", "delays", "streams", "large", *ONLY)
    assert output.count("\n## ") == 3 + 1 + 3 + 1 + 1 + 1 + 1
    found = rows(output)
    assert [row[0] for row in found] == CLIENTS * 11
    for row in found:
        assert all(re.match(r"\d|$", cell) for cell in row[1:]), row


def test_the_questions_of_tls_and_of_one_loop_get_their_tables() -> None:
    """Events, calls and streams over TLS, and a crowd in one loop, without it and with it."""
    output = printed("tls", "crowd", *ONLY, "--only", LOOP)
    found = rows(output)
    everywhere = [*[*CLIENTS, LOOP] * 5, LOOP, LOOP]
    assert [row[0] for row in found] == ([LOOP] if "trustme is not installed" in output else everywhere)
    for row in found:
        assert all(re.match(r"-?\d|$", cell) for cell in row[1:]), row


def test_pages_are_served_by_gunicorn_or_it_is_named_as_missing() -> None:
    """Each page has a thread of its server, and all of it comes."""
    for row in rows(printed("pages", *ONLY)):
        assert row[1] == "gunicorn is not installed" or row[-1] == "1.0", row


def test_another_checkout_takes_part_in_each_round() -> None:
    """What the package was before is measured beside what it is, and has to be somewhere."""
    before = [f"{name}, before" for name in (CLIENTS[0], LOOP)]
    named = [argument for name in (CLIENTS[0], LOOP, *before) for argument in ("--only", name)]
    found = rows(printed("call", "--against", str(ROOT), *named))
    assert [row[0] for row in found] == [CLIENTS[0], LOOP, *before]
    for row in found:
        assert all(re.match(r"\d|$", cell) for cell in row[1:]), row
    assert "--against has to say" in printed("call", "--only", before[0], status=2)


def test_interpreters_take_turns_and_are_compared(tmp_path: Path) -> None:
    """Each client is measured on each of them, beside the first; options of an interpreter are part of it."""
    other = tmp_path / "another"
    # As another release would, it names itself otherwise.
    script = f"""#!/bin/sh
case "$*" in *python_version*) echo 9.9.9t ;; *) exec "{sys.executable}" "$@" ;; esac
"""
    other.write_text(script)
    other.chmod(0o755)
    output = printed("threads", "--python", f"'{sys.executable}' -B", "--python", str(other), *ONLY)
    found = rows(output)
    name = found[0][0].partition(" on ")[2]
    assert name.startswith(platform.python_version() if sys.implementation.name == "cpython" else "PyPy")
    assert [row[0] for row in found] == [f"{client} on {on}" for client in CLIENTS for on in (name, "9.9.9t")] * 3
    assert f" | ÷ {name} " in output
    for row in found:
        assert len(row) == 5
        assert all(re.match(r"-?\d", cell) for cell in row[1:]), row  # a process can also shrink
    assert {row[2] for row in found[::2]} == {"1.00"}
    assert {row[2] for row in found[1::2]} != {"1.00"}


def test_interpreters_that_can_not_be_told_apart_are_refused() -> None:
    """Nor is one taken that does not start. Nothing is measured."""
    twice = printed("call", "--python", sys.executable, "--python", sys.executable, status=2)
    assert "could not be told apart" in twice
    assert "/nowhere/python starts no Python" in printed("call", "--python", "/nowhere/python", status=2)


def test_a_failure_in_a_thread_ends_all_of_them() -> None:
    """The others don't wait for the one that failed, and its error is what is shown."""
    script = "\n".join(
        [
            "from benchmarks import peers, worker",
            "class Failing(peers.Client):",
            "    asked = 0",
            "    def pieces(self, plan, known):",
            "        self.asked += 1",
            "        if self.asked == 3: raise OSError('no luck')",
            "        yield 'x' * plan.characters",
            "peers.PEERS['failing'] = Failing",
            "target = {'github': 'http://127.0.0.1:9', 'api': 'http://127.0.0.1:9'}",
            "job = {'job': 'calls_in_threads', 'target': target, 'plan': {}, 'count': 8, 'threads': 2}",
            "print(worker.Worker('failing').done(job))",
        ]
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=50
    ).stdout
    assert output.decode().splitlines() == ["{'failure': 'OSError: no luck'}"]


def test_a_client_that_can_not_be_measured_is_named() -> None:
    """Be it missing or failing: the others are measured all the same."""
    script = "\n".join(
        [
            "import sys",
            "from benchmarks import peers, worker",
            "def missing(target): raise ImportError('no', name='nothing')",
            "class Failing(peers.Client):",
            "    def pieces(self, plan, known): raise OSError('no luck')",
            "peers.PEERS.update({'missing': missing, 'failing': Failing})",
            "target = {'github': 'http://127.0.0.1:9', 'api': 'http://127.0.0.1:9'}",
            "for name in ('missing', 'failing'):",
            "    print(worker.Worker(name).done({'job': 'calls', 'target': target, 'plan': {}, 'count': 1}))",
        ]
    )
    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    assert output.decode().splitlines() == [
        "{'failure': 'nothing is not installed'}",
        "{'failure': 'OSError: no luck'}",
    ]
