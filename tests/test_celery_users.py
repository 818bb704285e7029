"""For whom, and for what, Celery's tasks ask: in the ledger, and in budgets."""

import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from support import stages

from copilot_sync import Budget, BudgetExceededError, Client, Ledger
from copilot_sync.emulator import Emulator

with warnings.catch_warnings():
    # A library below warns, when it is imported, on each Python that it is going to leave behind.
    warnings.simplefilter("ignore")
    import celery

    from copilot_sync.contrib.celery import fan_out


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def application() -> Iterator[Callable[..., Any]]:
    """Makes an application of a client's options. Its tasks run where they are sent."""
    before = celery.current_app._get_current_object()
    with celery.Celery("test", broker="memory://", backend="cache+memory://") as made:

        def configured(**options: Any) -> Any:
            made.conf.task_always_eager = True
            made.conf.copilot_sync_client = lambda: Client(**options)
            made.set_current()
            return made

        yield configured
        made.tasks["copilot_sync.ask"].worker._client.close()
        before.set_current()


def run(app: Any, prompt: str, **options: Any) -> Dict[str, Any]:
    answer: Dict[str, Any] = app.tasks["copilot_sync.ask"].apply((prompt,), options).get()
    return answer


def noted(path: Path) -> List[Tuple[str, str]]:
    """Labels and users of the calls that a ledger knows."""
    return sorted((entry.label, entry.user) for entry in Ledger(path).entries())


def test_the_ledger_knows_for_what_and_for_whom_a_task_asks(
    emulator: Emulator, application: Callable[..., Any], tmp_path: Path
) -> None:
    """Of one task and of many."""
    path = tmp_path / "ledger.db"
    app = application(ledger=Ledger(path))
    run(app, "one", label="report", user="ann")
    run(app, "two")
    assert [result.text for result in fan_out(["three", "four"], label="nightly", user="bob")] == ["three", "four"]
    app.tasks["copilot_sync.ask"].worker._client.close()
    assert noted(path) == [("", ""), ("nightly", "bob"), ("nightly", "bob"), ("report", "ann")]


def test_a_user_whose_budget_is_used_up_stops_nobody_else(emulator: Emulator, application: Callable[..., Any]) -> None:
    """The task fails with its own user's error, and the others are asked."""
    app = application(budget=Budget(per_user={"requests": 1}))
    run(app, "one", user="ann")
    before = stages(emulator).count("message")
    with pytest.raises(BudgetExceededError, match="of the user 'ann'"):
        run(app, "two", user="ann")
    assert stages(emulator).count("message") == before
    assert run(app, "three", user="bob")["text"] == "three"
    assert run(app, "four")["text"] == "four"
