"""What the tests with real engines stand on: a Copilot, a Redis, and programs that have ended when a test has.

These tests need programs that are no part of the usual environments, so a plain ``pytest`` leaves them out:
``tox -e engines`` runs them.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set

import pytest
from chat_pages import Page, running_chromium, serving
from servers import BECOME, path_of, wait_for_port
from support import PATIENCE, collect_garbage, reserved_port

from copilot_sync.emulator import Emulator

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
#: Where the files of the deployment page are, which commands name.
_FILES = _ROOT / "docs" / "deployment"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A Copilot in the test's own process, which sees what all others do."""
    with Emulator() as served:
        yield served


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(emulator: Emulator) -> Iterator[Start]:
    """Start Python programs that use the emulator; they and their children are ended with the test."""
    with ExitStack() as stack:

        def begin(arguments: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
            environment = {**os.environ, **emulator.environment, **options.pop("env", {})}
            environment["PYTHONPATH"] = os.pathsep.join([str(_HERE), str(_ROOT), *sys.path])
            return stack.enter_context(_running([sys.executable, *arguments], env=environment, **options))

        yield begin


@contextmanager
def _running(command: List[str], **options: Any) -> "Iterator[subprocess.Popen[str]]":
    """A process in a group of its own, told to end when the block ends."""
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            _kill_group(process.pid)
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                pipe.close()


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.fixture
def serve(start: Start) -> Iterator[Callable[..., int]]:
    """Run a command as the documentation has it, on a port of this test's own, which is given."""
    with ExitStack() as stack:

        def begin(command: str, *more: str, **options: Any) -> int:
            program, *arguments = command.split()
            options.setdefault("cwd", _FILES)
            if program in ("gunicorn", "hypercorn", "uvicorn"):
                listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
                port, descriptor = listener.getsockname()[1], listener.fileno()
                place = ["--fd", str(descriptor)] if program == "uvicorn" else ["--bind", f"fd://{descriptor}"]
                start(["-m", program, *arguments, *place, *more], pass_fds=[descriptor], **options)
                return int(port)
            port = stack.enter_context(reserved_port())
            if program == "python":
                named = arguments if arguments[0] == "-m" else [str(_HERE / arguments[0]), *arguments[1:]]
                start([*named, f"127.0.0.1:{port}", "--noreload", *more], **options)
            elif program == "flask":
                start(["-m", program, *arguments, "--port", str(port), *more], **options)
            else:
                moved = [argument.replace(":8000", f":{port}") for argument in arguments]
                start(["-c", BECOME, path_of(program), *moved, *more], **options)
            wait_for_port(port)
            return port

        yield begin


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """An empty Redis on a free port of this machine, which keeps nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with reserved_port() as port:
        place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
        command = [program, *place, "--save", "", "--appendonly", "no"]
        with _running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
            assert server.stdout is not None
            if not any("eady to accept connections" in line for line in server.stdout):
                pytest.fail("redis-server does not start")
            yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def celery_workers(redis_url: str, start: Start) -> Iterator[Callable[..., Any]]:
    """Start the workers of a Celery application among these files, and give one that sends them tasks."""
    celery = pytest.importorskip("celery")
    with ExitStack() as stack:

        def begin(program: str, *, processes: int = 2) -> Any:
            pool = ["--pool", "prefork", "--concurrency", str(processes), "--without-gossip", "--without-mingle"]
            start(
                ["-m", "celery", "-A", program, "worker", "--loglevel", "WARNING", *pool], env={"REDIS_URL": redis_url}
            )
            app = stack.enter_context(celery.Celery("test", broker=redis_url, backend=redis_url))
            app.set_current()
            return app

        yield begin
        collect_garbage()  # a result that goes later would look for the Redis that has gone by then


@pytest.fixture
def users_of_connections(emulator: Emulator) -> Callable[[], Dict[int, Set[str]]]:
    """Give who used each connection that the emulator saw: the first word of each message names its process."""

    def look() -> Dict[int, Set[str]]:
        users: Dict[int, Set[str]] = defaultdict(set)
        for request in emulator.requests:
            name = _first_word(emulator, request.thread_id)
            if name is not None:
                users[request.connection].add(name)
        return dict(users)

    return look


def _first_word(emulator: Emulator, thread_id: Optional[str]) -> Optional[str]:
    thread = emulator.threads.get(thread_id or "")
    return str(thread.user_messages[0]["content"]).split()[0] if thread and thread.user_messages else None


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser for the tests of a module."""
    with running_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(emulator: Emulator, chromium: Any) -> Iterator[Page]:
    """The chat page on a server of this process, for a visitor who was never there. The browser may not complain."""
    with serving(emulator) as url:
        opened = Page(chromium, url)
        opened.load()
        yield opened
        complaints = opened.complaints()
        opened.forget_all()
        assert complaints == []
