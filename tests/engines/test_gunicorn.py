"""gunicorn, its workers forked from a master whose client is warm and in use."""

import json
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Set

import pytest
from support import PATIENCE

from copilot_sync.emulator import Emulator

WORKERS = 4
ROUND = 40
ROUNDS = 50

#: gevent has to replace the standard library's parts before anything uses them, and the application is loaded early.
GEVENT = "from gevent import monkey\nmonkey.patch_all()\n"


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--worker-class", "sync"], ""),
        (["--worker-class", "gthread", "--threads", "8"], ""),
        (["--worker-class", "gevent"], GEVENT),
    ],
    ids=["sync", "gthread", "gevent"],
)
def test_workers_forked_from_a_warm_client_share_no_connection(
    emulator: Emulator,
    start: Callable[..., Any],
    users_of_connections: Callable[[], Dict[int, Set[str]]],
    tmp_path: Path,
    options: Any,
    settings: str,
) -> None:
    """Each has connections of its own, all answers are right, and the master's stream goes on meanwhile."""
    go_on = threading.Event()

    def in_two_halves() -> Iterator[str]:
        yield "one "
        assert go_on.wait(PATIENCE)
        yield "two"

    emulator.reply = lambda prompt: in_two_halves() if prompt == "master streams" else prompt
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(settings)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        place = ["--bind", f"fd://{listener.fileno()}", "--config", str(config), "--log-level", "warning"]
        start(
            ["-m", "gunicorn", "--preload", "--workers", str(WORKERS), *place, *options, "wsgi_program:application"],
            pass_fds=[listener.fileno()],
        )
        pids = ask_until_all_have_answered(listener.getsockname()[1])
        go_on.set()
        assert emulator.wait_until(lambda: times_said(emulator, "master read: one two") == 1)
    assert len(pids) == WORKERS
    users = users_of_connections()
    assert [names for names in users.values() if len(names) > 1] == []
    assert {name for names in users.values() for name in names} == {"master", *map(str, pids)}


def ask_until_all_have_answered(port: int) -> Set[int]:
    """Ask, many at once, until each worker has answered something; the kernel chooses which one does."""
    pids: Set[int] = set()

    def ask(number: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/?{number}", timeout=PATIENCE) as response:
            told = json.loads(response.read())
        assert told["right"]
        pids.add(told["pid"])

    with ThreadPoolExecutor(ROUND) as pool:
        for _ in range(ROUNDS):
            list(pool.map(ask, range(ROUND)))
            if len(pids) == WORKERS:
                break
    return pids


def times_said(emulator: Emulator, prompt: str) -> int:
    """How often a prompt has come."""
    threads = list(emulator.threads.values())
    return sum(message["content"] == prompt for thread in threads for message in thread.user_messages)
