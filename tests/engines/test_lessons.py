"""What lessons have for those who have Redis and pandas, typed from their pages. ``tests/pages`` types the rest."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from blocks import DOCS

from copilot_sync import Client, batch
from copilot_sync.emulator import Emulator

sys.path.append(str(Path(__file__).parents[1] / "pages"))
from lessons import Lesson


def test_the_workers_of_the_lesson_ask_through_redis(redis_url: str, tmp_path: Path) -> None:
    """With the settings for Redis in place of those for folders; all else is as before."""
    pytest.importorskip("celery")
    with Lesson(DOCS / "lesson_celery.rst", tmp_path, dict(os.environ)) as lesson:
        lesson.ports["6379"] = str(urlsplit(redis_url).port)
        folders, redis = [step for step in lesson.steps if step.name == "celeryconfig.py"]
        (worker,) = [step for step in lesson.steps if "celery -A tasks worker" in step.text]
        for step in lesson.steps[: lesson.steps.index(worker) + 1]:
            lesson.type(redis if step is folders else step)
        caller, call = [step for step in lesson.steps if "ask_and_look.py" in (step.name, *step.text.split())]
        lesson.type(caller)
        lesson.type(call)
        assert redis_url in lesson.servers[-1].output.replace("localhost", "127.0.0.1")
        assert not (lesson.folder / "celery_data").exists()


def test_the_results_of_the_night_are_read_with_pandas(emulator: Emulator, tmp_path: Path) -> None:
    """Those of as many prompts as the lesson has."""
    pytest.importorskip("pandas")
    emulator.reply = "Positive."
    with Lesson(DOCS / "lesson_overnight.rst", tmp_path, dict(os.environ)) as lesson:
        output = lesson.folder / "results.jsonl"
        urls = {"github_url": emulator.github_url, "api_url": emulator.api_url}
        with Client(cookies=emulator.cookies, **urls) as client:
            prompts = [{"id": f"review-{number:05}", "prompt": "Is it good?"} for number in range(200)]
            assert sum(1 for _ in batch.run(prompts, client=client, output=output)) == 200
        steps = [step for step in lesson.steps if dict(step.marks).get("needs") == "pandas"]
        assert [step.kind for step in steps] == ["file", "console"]
        for step in steps:
            lesson.type(step)
