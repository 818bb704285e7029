"""Environments with clients of OpenAI's API, and the programs of ``openai_clients`` that drive them.

Releases of ``openai`` exclude each other, so each has an environment of its own inside the one of the tests, with what
the file of its name pins.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Mapping

from installed import made
from servers import path_of

CLIENTS = Path(__file__).parent / "openai_clients"


def python_command(program: str, requirements: str) -> List[str]:
    """Return the command of a program in the environment with these requirements."""
    pinned = CLIENTS / f"{requirements}.txt"
    place = made(pinned, requirements)
    return [str(place / "bin" / "python"), str(CLIENTS / f"{program}.py")]


def node_command() -> List[str]:
    """Return the command of the program for Node.js."""
    node, _ = path_of("node"), path_of("npm")
    return [node, str(CLIENTS / "openai_node.mjs"), str(made(CLIENTS / "package.json", "node"))]


class Driver:
    """One of the programs, which makes the calls that it is told to make.

    Args:
        command: As above.
        environment: Where the server is.
    """

    def __init__(self, command: List[str], environment: Mapping[str, str]) -> None:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self._process = subprocess.Popen(command, text=True, bufsize=1, env={**inherited, **environment}, **pipes)

    def call(self, name: str, *, retries: int = 0) -> Dict[str, Any]:
        """Have a call made, and return what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": name, "retries": retries}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the program has ended"
        found: Dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        with self._process:
            pass
