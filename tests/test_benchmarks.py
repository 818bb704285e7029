"""The benchmarks still run: what they compare is imported where it is installed, and named as missing where not."""

import re
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

ROOT = Path(__file__).parents[1]
CLIENTS = ["copilot_sync", "http.client + read1"]

pytest.importorskip("resource")  # how CPU is measured; Windows has none


def printed(*arguments: str) -> str:
    """What the benchmarks print."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--tiny", *arguments],
        cwd=ROOT,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


def rows(output: str) -> List[List[str]]:
    """The cells of all tables, without their heads."""
    lines = re.findall(r"^\| (.*) \|$", output, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines if not line.startswith("client ")]


def test_each_question_gets_its_table() -> None:
    """Of numbers, for ours and for the floor; which they are is for no test to say."""
    only = [argument for name in CLIENTS for argument in ("--only", name)]
    output = printed("events", "call", "trips", "delays", "streams", "large", *only)
    assert output.count("\n## ") == 3 + 1 + 1 + 1 + 1 + 1
    found = rows(output)
    assert [row[0] for row in found] == CLIENTS * 8
    for row in found:
        assert all(re.match(r"\d|$", cell) for cell in row[1:]), row


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
