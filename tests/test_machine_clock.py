"""What a folder keeps outlives the boots of its machine, by a clock that nobody sets."""

import json
from pathlib import Path
from typing import Any, List

import pytest

from copilot_sync.pacing import machine_clock
from copilot_sync.pacing.account_state import HOUR, RateRules
from copilot_sync.pacing.machine_clock import MachineClock
from copilot_sync.pacing.shared_state import FolderStore

DAY = 24 * HOUR
FIFTY = RateRules(per_day=50)


class Machine:
    """A machine whose clocks a test sets.

    Attributes:
        boot: The name of the boot; ``""`` for a system that gives it none.
        uptime: Seconds since the boot.
        wall: What its wall clock says.
    """

    def __init__(self, folder: Path, *, is_named: bool = True) -> None:
        self.folder = folder
        self.boot = "boot 0" if is_named else ""
        self.uptime = 5000.0
        self.wall = 1_800_000_000.0

    def runs(self, seconds: float) -> None:
        """Let time go by."""
        self.uptime += seconds
        self.wall += seconds

    def is_off(self, seconds: float) -> None:
        """Turn it off and on again."""
        self.boot = self.boot and f"boot {self.wall}"
        self.uptime = 20.0
        self.wall += seconds

    def apply(self, name: str, number: float = 1.0) -> float:
        """Do an operation, in a process of its own."""
        clock = MachineClock(lambda: self.boot, lambda: self.uptime, lambda: self.wall)
        return FolderStore(self.folder, clock=clock).apply("x", name, FIFTY, number=number)

    def spend(self, number: int) -> int:
        """Spend up to so many of the fifty of a day, and return how many there were."""
        return sum(self.apply("spend") == 0 for _ in range(number))


@pytest.fixture(params=[True, False], ids=["boots have names", "they have none"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, is_named=request.param)


def test_a_machine_that_is_off_at_night_has_a_budget_each_day(machine: Machine) -> None:
    """Each boot began the day of all that was spent again, so once it was used up it was so for ever."""
    days: List[int] = []
    for _ in range(4):
        spent = 0
        for _ in range(8):
            spent += machine.spend(10)
            machine.runs(HOUR)
        days.append(spent)
        machine.is_off(16 * HOUR)
    assert days == [50, 50, 50, 50]


def test_what_was_spent_before_a_boot_counts_for_a_day(machine: Machine) -> None:
    """Not less, and no more than the hour by which it is counted."""
    assert machine.spend(60) == 50
    machine.is_off(HOUR)
    assert (machine.spend(1), machine.apply("spent")) == (0, 50)
    left = machine.apply("spend")
    assert 22 * HOUR <= left <= 23 * HOUR
    machine.runs(left - 1)
    assert machine.spend(1) == 0
    machine.runs(1)
    assert machine.spend(60) == 50


def test_a_pause_goes_on_after_a_boot(machine: Machine) -> None:
    """Until its end: neither from its beginning, nor not at all."""
    machine.apply("pause", 1000)
    machine.is_off(300)
    assert machine.apply("look") == pytest.approx(700)


@pytest.mark.parametrize("jump", [-400 * DAY, -DAY, DAY, 400 * DAY])
def test_a_wall_clock_that_is_set_changes_nothing(jump: float, machine: Machine) -> None:
    """While the machine runs nobody looks at it."""
    assert machine.spend(60) == 50
    left = machine.apply("spend")
    machine.wall += jump
    assert machine.apply("spend") == pytest.approx(left)
    machine.runs(left + 1)
    assert machine.spend(60) == 50


def test_a_wall_clock_that_begins_anew_opens_nothing(machine: Machine) -> None:
    """As that of a machine without a battery does with each boot. The uptime counts then."""
    assert machine.spend(60) == 50
    machine.is_off(-machine.wall)
    assert machine.spend(1) == 0
    machine.runs(machine.apply("spend") + 1)
    assert machine.spend(60) == 50


def test_a_pause_ends_though_the_wall_clock_is_behind(machine: Machine) -> None:
    """Also if nobody does more than to look."""
    machine.apply("pause", 1000)
    machine.is_off(-machine.wall)
    assert machine.apply("look") == pytest.approx(1000)
    machine.runs(600)
    assert machine.apply("look") == pytest.approx(400)


def test_what_an_older_version_kept_counts_from_now_on(machine: Machine) -> None:
    """It went by the uptime, and nobody knows of which boot."""
    kept: Any = {"at": 90_000.0, "hours": {"24": 30, "25": 12}, "starts": [], "slots": {}, "until": 90_060.0}
    (machine.folder / "limits-x.json").write_text(json.dumps(kept), encoding="utf-8")
    assert machine.apply("look") == pytest.approx(60)
    machine.runs(61)
    assert machine.apply("look") == -1.0
    assert machine.spend(60) == 8
    machine.runs(DAY)
    assert machine.spend(60) == 50


def test_a_system_that_names_no_boot_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A boot is noticed otherwise there."""
    monkeypatch.setattr(machine_clock, "_BOOT_ID", str(tmp_path / "missing"))
    machine_clock._boot_of_linux.cache_clear()
    assert machine_clock._boot_of_linux() == ""
    monkeypatch.undo()
    machine_clock._boot_of_linux.cache_clear()


def test_processes_of_one_machine_have_one_time(tmp_path: Path) -> None:
    """By the real clocks."""
    assert FolderStore(tmp_path).apply("x", "pause", FIFTY, number=500) == 0
    assert 450 < FolderStore(tmp_path).apply("x", "look", FIFTY) <= 500
