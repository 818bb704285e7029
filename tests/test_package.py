"""The package as a whole: its public names, what they say of themselves, and what importing it costs."""

import dataclasses
import inspect
import re
import subprocess
import sys
from typing import Any, Iterator, List, Tuple

import pytest

import copilot_sync
from copilot_sync import _public

CONTRACT = """
    Client Chat Stream Answer Conversation GithubCopilot RetryPolicy Timeout get_cookies Thread Message Model Usage
    Event ContentEvent CompleteEvent RoutedModelEvent AnnotationsEvent ErrorEvent UnknownEvent
    CopilotError MissingCredentialsError AuthenticationError InvalidRequestError NotFoundError WrongHostError
    RateLimitError QuotaExceededError ServerError NetworkError RequestTimeoutError ProtocolError ResponseTooLargeError
    StreamInterruptedError StreamClosedError
    AsyncClient AsyncChat AsyncStream
    BaseConversation AsyncGeneratorProvider ProviderModelMixin Messages Cookies AsyncResult
"""
PUBLIC = [(name, getattr(copilot_sync, name)) for name in copilot_sync.__all__]
CLASSES = [(name, value) for name, value in PUBLIC if inspect.isclass(value)]


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("name", CONTRACT.split())
def test_a_name_of_the_contract_is_at_top_level(name: str) -> None:
    """It can be imported from the package itself, by name and by ``*``."""
    assert hasattr(copilot_sync, name)
    assert name in copilot_sync.__all__


def test_all_is_sorted_and_whole() -> None:
    """Nothing is exported that is not listed, and nothing listed twice; modules are not part of it."""
    # pytest rewrites the modules of its plugins' distributions, and puts in what no program could name.
    exported = {name for name in vars(_public) if name.isidentifier() and not name.startswith("_")}
    assert copilot_sync.__all__ == sorted({*exported, *copilot_sync._ASYNC, "__version__"})


def test_names_can_be_completed() -> None:
    """What is not loaded yet is listed as well, for interactive shells."""
    fresh = run("-c", "import copilot_sync; print(*dir(copilot_sync))").split()
    assert set(fresh) & set(dir(copilot_sync)) >= {*copilot_sync.__all__, "__name__"}


def test_the_emulator_and_the_async_face_are_reached_from_the_package() -> None:
    """``copilot_sync.emulator.Emulator()`` works after ``import copilot_sync`` alone; other names are not there."""
    code = "import copilot_sync; copilot_sync.emulator.Emulator; copilot_sync.aio.iterate_stream"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    assert copilot_sync.__getattr__("emulator") is sys.modules["copilot_sync.emulator"]
    with pytest.raises(AttributeError, match="'copilot_sync' has no attribute 'nonsense'"):
        getattr(copilot_sync, "nonsense")  # noqa: B009 - mypy knows that it is not there


def members() -> Iterator[Tuple[str, Any]]:
    for name, value in CLASSES:
        for member in vars(value):
            found = inspect.getattr_static(value, member)
            if not member.startswith("_") and (inspect.isroutine(found) or isinstance(found, property)):
                yield f"{name}.{member}", getattr(value, member)


@pytest.mark.parametrize(
    "name, value",
    [*CLASSES, *((name, value) for name, value in PUBLIC if inspect.isfunction(value)), *members()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_public_explains_itself(name: str, value: Any) -> None:
    """``help`` says something of every class, function, method and property, and more than its signature."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert text
    assert not text.startswith(f"{name}(")  # what dataclass makes up


@pytest.fixture(scope="module")
def loaded() -> List[str]:
    """The modules that an interpreter holds after importing the client and nothing else."""
    return run("-c", "from copilot_sync import Client; import sys; print(*sys.modules)").split()


@pytest.mark.parametrize(
    "module",
    [
        "asyncio",
        "click",
        "rich",
        "sqlite3",
        "tenacity",
        "concurrent.futures",
        "copilot_sync.emulator",
        "copilot_sync.aio",
    ],
)
def test_importing_the_package_does_not_load_what_is_not_needed_yet(module: str, loaded: List[str]) -> None:
    """It stays quick to import, works where extras are missing, and the blocking face never meets asyncio."""
    assert "copilot_sync.client" in loaded
    assert module not in loaded


@pytest.mark.parametrize("module", ["copilot_sync", "copilot_sync.emulator.pytest_plugin"])
def test_what_is_not_asked_for_is_not_loaded(module: str) -> None:
    """Whoever only passes through the package, as each run of pytest does, doesn't wait for requests."""
    modules = run("-c", f"import sys; before = {{*sys.modules}}; import {module}; print(*{{*sys.modules}} - before)")
    assert not {"requests", "urllib3", "copilot_sync.client"} & set(modules.split())


def test_importing_everything_by_star_is_clean() -> None:
    """No warning, no output, no thread is left by an import."""
    assert (
        run("-X", "dev", "-c", "from copilot_sync import *; import threading; print(threading.active_count())") == "1\n"
    )


def test_the_version_is_one_of_a_release() -> None:
    """It is told in one place, and is a string of numbers."""
    numbers: List[str] = copilot_sync.__version__.split(".")
    assert len(numbers) == 3
    assert all(number.isdecimal() for number in numbers[:2])


def test_values_have_the_documented_order_of_fields() -> None:
    """They can be made by position, so that the order is part of the promise."""
    fields = {
        value.__name__: " ".join(field.name for field in dataclasses.fields(value))
        for value in (
            copilot_sync.Thread,
            copilot_sync.Message,
            copilot_sync.Model,
            copilot_sync.Quota,
            copilot_sync.Usage,
            copilot_sync.Timeout,
        )
    }
    assert fields == {
        "Thread": "id name created_at updated_at shared_at manually_named data",
        "Message": "id role content parent_id created_at interrupted model usage references data",
        "Model": "id name vendor preview kind enabled picker_category vision premium_multiplier data",
        "Quota": "plan license_type limits remaining resets_at overages_enabled data",
        "Usage": "input_tokens output_tokens",
        "Timeout": "connect read stall total",
    }


@pytest.mark.parametrize(
    ("library", "extra"),
    [("django", "django"), ("flask", "flask"), ("langchain_core", "langchain"), ("llm", "llm")],
)
def test_a_missing_extra_is_named(library: str, extra: str) -> None:
    """Instead of a traceback out of the middle of things that nobody knows."""
    code = f"import sys; sys.modules[{library!r}] = None; import copilot_sync.contrib.{extra}"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    last = done.stdout.decode().splitlines()[-1]
    kind = "package" if library == "django" else "module"
    assert re.fullmatch(rf'ImportError: this {kind} needs {library}[.\w]*: pip install "copilot-sync\[{extra}\]"', last)
