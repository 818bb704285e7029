"""Processes that take turns, and what is made of their measurements: medians, ratios, Markdown."""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

from benchmarks.peers import BEFORE, Target
from benchmarks.plans import Plan

#: The checkout that the benchmarks are in.
ROOT = Path(__file__).resolve().parents[1]
#: Stands between a client and its interpreter in the name of what takes turns.
_ON = " on "
#: Prints the release, "t" behind it for a free-threaded build, and whether such a build runs with the GIL all the same.
_DESCRIBE = """
import platform, sys, sysconfig
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
kind = "" if platform.python_implementation() == "CPython" else platform.python_implementation() + " "
print(kind + platform.python_version() + "t" * free + ", with GIL" * (free and sys._is_gil_enabled()))
"""

#: Commands that start an interpreter, by what stands behind a client's name in a table.
Pythons = Mapping[str, Sequence[str]]
#: What each client measured, round by round.
Rounds = Dict[str, List[Dict[str, Any]]]
#: Picks a number out of what was measured.
Figure = Callable[[Dict[str, Any]], float]


def described(commands: Sequence[Sequence[str]]) -> Pythons:
    """Name interpreters by what they are; the only one needs no name.

    Raises:
        ValueError: One does not start, or two are the same.
    """
    found: Dict[str, Sequence[str]] = {}
    for command in commands:
        try:
            done = subprocess.run([*command, "-c", _DESCRIBE], check=True, stdout=subprocess.PIPE, encoding="utf-8")
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"{' '.join(command)} starts no Python: {error}") from error
        name = _ON + done.stdout.strip()
        if name in found:
            raise ValueError(f"two interpreters are {done.stdout.strip()}, and could not be told apart")
        found[name] = command
    return found if len(found) > 1 else {"": commands[0]}


def client_of(name: str) -> str:
    """The client, without its interpreter."""
    return name.partition(_ON)[0]


def checkout_of(name: str, against: Optional[str]) -> List[str]:
    """The folder that the client's package comes from, if it is not this one."""
    return [against] if against is not None and client_of(name).endswith(BEFORE) else []


def python_of(name: str) -> str:
    """What stands behind the client's name: nothing if there is one interpreter only."""
    return "".join(name.partition(_ON)[1:])


class Process:
    """A module of this package, run in a process of its own that speaks JSON, a line at a time."""

    def __init__(self, module: str, *arguments: str, python: Sequence[str] = (sys.executable,)) -> None:
        # Another interpreter has the dependencies, but maybe not the package: that is ours.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [*python, "-m", f"benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )

    def heard(self) -> Any:
        """What it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmarks has died")
        return json.loads(line)

    def asked(self, question: Dict[str, Any]) -> Any:
        """What it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.heard()

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.terminate()


class Workers:
    """The clients on each interpreter, each in its process, which is started when it is first needed."""

    def __init__(self, clients: Iterable[str], pythons: Pythons, against: Optional[str] = None) -> None:
        self.pythons = pythons
        self.against = against
        self.names = [client + python for client in clients for python in pythons]
        self._processes: Dict[str, Process] = {}

    def measure(self, name: str, job: str, target: Target, plan: Plan, **arguments: Any) -> Dict[str, Any]:
        """Have one client do a job."""
        if name not in self._processes:
            python = self.pythons[python_of(name)]
            self._processes[name] = Process("worker", client_of(name), *checkout_of(name, self.against), python=python)
        question = {"job": job, "target": asdict(target), "plan": asdict(plan), **arguments}
        result: Dict[str, Any] = self._processes[name].asked(question)
        return result

    def after_fork_in_child(self) -> None:
        """Begin with new processes, whose memory holds nothing of earlier jobs."""
        self.close()

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.close()
        self._processes.clear()


def interleaved(names: Sequence[str], rounds: int, measure: Callable[[str], Dict[str, Any]]) -> Rounds:
    """Have the clients take turns, for so many rounds, each begun by another one. One that fails is not asked again."""
    found: Rounds = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in [*names[start:], *names[:start]]:
            if any("failure" in result for result in found[name]):
                continue
            found[name].append(measure(name))
    return found


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, its text for a client, given the rounds of all."""

    title: str
    text: Callable[[str, Rounds], str]


def spread(title: str, figure: Figure, form: str = "{:.1f}") -> Column:
    """The median, and in brackets the smallest and the largest."""

    def text(name: str, rounds: Rounds) -> str:
        values = [figure(result) for result in rounds[name]]
        middle, low, high = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
        return f"{middle} ({low}–{high})"

    return Column(title, text)


def middle(title: str, figure: Figure, form: str = "{:.1f}") -> Column:
    """The median alone."""
    return Column(title, lambda name, rounds: form.format(statistics.median(figure(result) for result in rounds[name])))


def ratio(title: str, figure: Figure, *, to: Optional[str] = None, of: Optional[str] = None) -> Column:
    """A client's figure divided by that of one on the same interpreter, or that of one divided by the client's.

    It is the median of the ratios of each round: what slows all of a round down is no part of it.
    """

    def text(name: str, rounds: Rounds) -> str:
        other = (to or of or client_of(name)) + python_of(name)
        return _ratio(name, other, rounds, figure, is_inverse=of is not None)

    return Column(title, text)


def to_first_python(title: str, figure: Figure, pythons: Pythons) -> List[Column]:
    """A client's figure divided by its own on the first interpreter; no column if there is no other."""
    first = next(iter(pythons))

    def text(name: str, rounds: Rounds) -> str:
        return _ratio(name, client_of(name) + first, rounds, figure)

    return [Column(title + first.replace(_ON, " "), text)] if len(pythons) > 1 else []


def _ratio(name: str, other: str, rounds: Rounds, figure: Figure, is_inverse: bool = False) -> str:
    if other not in rounds or failure_of(rounds[other]) is not None:
        return ""
    pairs = zip(rounds[name], rounds[other])
    ratios = [figure(mine) / (figure(others) or 1e-9) for mine, others in pairs]
    if is_inverse:
        ratios = [1 / (value or 1e-9) for value in ratios]
    return f"{statistics.median(ratios):.2f}"


def failure_of(results: List[Dict[str, Any]]) -> Optional[str]:
    """Why a client could not do it, where it could not."""
    return next((str(result["failure"]) for result in results if "failure" in result), None)


def sampled(values: List[float]) -> List[float]:
    """A thousand of the values, in order, evenly chosen: all of them would be much to hand over."""
    ordered = sorted(values)
    return [ordered[len(ordered) * place // 1000] for place in range(1000)]


def quantile(share: float, of: str = "delays") -> Figure:
    """Picks a quantile of the delays, in milliseconds."""

    def figure(result: Dict[str, Any]) -> float:
        ordered = sorted(result[of])
        return 1000.0 * float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])

    return figure


def table(rounds: Rounds, columns: Sequence[Column]) -> str:
    """A Markdown table with a line for each client."""
    lines = [["client", *(column.title for column in columns)]]
    for name, results in rounds.items():
        failure = failure_of(results)
        if failure is not None:
            lines.append([name, failure, *[""] * (len(columns) - 1)])
        else:
            lines.append([name, *(column.text(name, rounds) for column in columns)])
    return markdown(lines)


def markdown(lines: List[List[str]]) -> str:
    """Lines of cells as a Markdown table, the first being its head."""
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    rows = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])
