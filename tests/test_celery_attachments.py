"""Files, parts and further fields of messages that Celery's workers send."""

import json
import uuid
import warnings
from pathlib import Path
from typing import Any, Iterator, List, Type

import pytest

from copilot_sync.batch import Prompt
from copilot_sync.emulator import Emulator

with warnings.catch_warnings():
    # A library below warns, when it is imported, on each Python that it is going to leave behind.
    warnings.simplefilter("ignore")
    import celery

    from copilot_sync.contrib.celery import fan_out
    from copilot_sync.contrib.celery import tasks as adapter


@pytest.fixture
def emulator(served: Emulator) -> Emulator:
    return served


@pytest.fixture
def app() -> Iterator[Any]:
    """An application whose broker and results are this process's memory; the task belongs to it."""
    before = celery.current_app._get_current_object()
    with celery.Celery("test", broker="memory://", backend="cache+memory://") as made:
        made.set_current()
        yield made
        task = made.tasks["copilot_sync.ask"]
        if "worker" in vars(task):
            task.worker._client.close()
        before.set_current()


def run(task: Any, *arguments: Any, **options: Any) -> None:
    """Run the task as a worker does, without the worker: what it raises comes out."""
    task.push_request(id=str(uuid.uuid4()))
    try:
        task.run(*arguments, **options)
    finally:
        task.pop_request()


IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/cat.png"}}
WITH_PARTS = [{"role": "user", "content": [{"type": "text", "text": "Look"}, IMAGE]}]


def inline(*names: str) -> List[Any]:
    return [{"type": "thread-scoped-file", "name": name, "text": "x", "language": "py"} for name in names]


def test_files_parts_and_extra_fields_travel_as_json(
    emulator: Emulator, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender reads the files; a worker gets their texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text("x")
    tasks: List[Any] = []

    def keep(_: Any, *arguments: Any, **options: Any) -> Any:
        tasks.append(arguments)
        return app.AsyncResult(str(len(tasks)))

    prompts = [Prompt("own", WITH_PARTS, files=[("b.py", "x")]), "none"]
    with monkeypatch.context() as patch:
        patch.setattr(adapter._Ask, "apply_async", keep)
        fan_out(prompts, files=["a.py"], extra={"skills": ["web-search"]})
    (tmp_path / "a.py").unlink()
    for arguments, options in json.loads(json.dumps(tasks)):
        run(app.tasks["copilot_sync.ask"], *arguments, **options)
    own, none = [request.json for request in emulator.requests if request.stage == "message"]
    assert (own["content"], own["references"]) == ("Look", inline("b.py", "a.py"))
    assert own["mediaContent"] == [{"mediaType": "image/png", "name": "cat.png", "url": "https://a.example/cat.png"}]
    assert (none["content"], none["references"], none["mediaContent"]) == ("none", inline("a.py"), [])
    assert own["skills"] == none["skills"] == ["web-search"]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"files": ["a.py"]}, TypeError, "no path is opened"),
        ({"files": "a.py"}, TypeError, "files must be a list"),
        ({"files": [["a.py", 5]]}, TypeError, "a pair of two strings"),
        ({"extra": {"model": "x"}}, TypeError, "extra can't hold model"),
        ({"extra": [1]}, TypeError, "extra must be a dictionary"),
    ],
    ids=ascii,
)
def test_a_worker_opens_no_file_that_a_task_names(
    emulator: Emulator, app: Any, options: Any, kind: Type[Exception], words: str
) -> None:
    """And sends nothing of a task that is wrong."""
    with pytest.raises(kind, match=words):
        run(app.tasks["copilot_sync.ask"], "Hello", **options)
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"files": ["missing.py"]}, FileNotFoundError),
        ({"files": [("a", "\0")]}, ValueError),
        ({"extra": {"model": "x"}}, TypeError),
    ],
    ids=ascii,
)
def test_what_can_not_be_sent_with_any_prompt_is_told_at_once(
    emulator: Emulator, app: Any, options: Any, kind: Type[Exception]
) -> None:
    """Before the first task is sent."""
    with pytest.raises(kind):
        fan_out(["one"], **options)
    assert emulator.requests == []
