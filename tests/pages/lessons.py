"""Lessons of the documentation, read from their pages and typed as a reader types them.

A page is typed from the first line to the last, in one folder and one shell. What stands there:

``.. code-block:: LANGUAGE`` with ``:caption: path/to/file``
    A whole file, which is written. It is written again if it comes again.
``.. code-block:: console``
    ``$ command`` lines, run one after the other; a line that ends with a backslash, and one that begins with ``>``, go
    on with a command. Below a command stands what its reader sees, all of it. ``…`` stands for any text within a line,
    and a line ``…`` for any lines. If nothing stands there, anything may come.
``.. code-block:: text``
    Is not typed.
``.. not run: REASON``
    The next block is not typed.
``.. needs: MODULE``
    The next block is typed if Python has this module. ``tests/engines`` has all of them.
``.. server: 8000 [8001 …]``
    The last command of the next block is a server. The next line is typed when it listens to all of these ports and
    has printed what stands below it. Free ports take the place of these everywhere: in commands, files and output.
``.. stop`` and ``.. stop: 8000``
    Press Ctrl-C in the terminal of the newest server, or of the one with this port.
``.. ctrl-c: TEXT``
    Press Ctrl-C in the last command of the next block as soon as it has printed ``TEXT``.
``.. fails: STATUS``
    The last command of the next block ends with this status. All others end with 0, unless ``echo $?`` comes next.
``.. sees: PATH: TEXT`` and ``.. sees: 8000/PATH: TEXT``
    A browser that opens this address, of the newest server or of the one with this port, gets a page with ``TEXT``,
    and no error.
``.. figure:: PATH``
    What the reader sees now. ``Lesson.figure`` is called with the path, so that another test can look and draw.

Servers load a changed file late. So ``curl`` and ``sees`` are repeated until they show what they should. A ``…`` in a
command stands for what a server has printed behind the same beginning of the word, because a reader copies it.
"""

import http.client
import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple, Type

from blocks import ANY, Element, elements, shows, write_programs

#: Seconds after which a wait has failed: for a command to end, a server to listen, a page to show what it should.
PATIENCE = 120.0
#: Seconds between two looks.
_LOOK = 0.1
#: Seconds after which files are saved again: a server that was starting may have read one before it was written, and
#: have looked for changes only afterwards.
SAVE_AGAIN = 10.0

_CAPTION = re.compile(r"^ *:caption: *(.+)$")


class LessonError(AssertionError):
    """A reader of the lesson would have seen something else."""


class Step(NamedTuple):
    """What a reader does next: ``kind`` is ``file``, ``console``, ``figure``, ``stop`` or ``sees``."""

    kind: str
    line: int
    text: str
    #: The path of a file or figure; the argument of a mark.
    name: str = ""
    #: Marks ahead of a block, such as ``server``.
    marks: Tuple[Tuple[str, str], ...] = ()


class Command(NamedTuple):
    """A line to type, and what stands below it."""

    text: str
    shown: List[str]


def read_steps(page: Path) -> List[Step]:
    """What the page has its reader do, in order."""
    steps: List[Step] = []
    marks: Dict[str, str] = {}
    for each in elements(page):
        if each.name in ("stop", "sees", "figure"):
            steps.append(Step(each.name, each.line, "", each.value))
        elif each.is_comment:
            marks[each.name] = each.value
        elif each.name == "code-block":
            if "not run" not in marks and each.value != "text":
                steps.append(_step(each, marks))
            marks = {}
    return steps


def _step(block: Element, marks: Dict[str, str]) -> Step:
    of_block = tuple(marks.items())
    captions = [found[1] for found in map(_CAPTION.match, block.options) if found]
    if block.value == "console":
        return Step("console", block.line, block.text, marks=of_block)
    if not captions:
        raise LessonError(f"line {block.line}: nobody knows where to type a block of {block.value} without a caption")
    return Step("file", block.line, f"{block.text}\n", captions[0], of_block)


def read_commands(block: str) -> List[Command]:
    """The commands of a block of type ``console``."""
    commands: List[Command] = []
    goes_on = False
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:], []))
        elif not commands:
            raise LessonError(f"a command begins with $, other than {line!r}")
        elif goes_on or (line.startswith("> ") and not commands[-1].shown):
            commands[-1] = Command(f"{commands[-1].text}\n{line[2:] if line.startswith('> ') else line}", [])
        else:
            commands[-1].shown.append(line)
        goes_on = not commands[-1].shown and line.endswith("\\")
    return commands


class Server:
    """A command that stays, in a group of processes of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", command: str, log: Path, ports: List[str]) -> None:
        self.process = process
        self.command = command
        self.log = log
        #: As the page has them.
        self.ports = ports

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return _read(self.log)

    def stop(self) -> None:
        """Press Ctrl-C, and see to it that nothing stays."""
        _end(self.process, signal.SIGINT)


class Lesson:
    """A reader at work in ``folder``, an empty one, with nothing but ``environment``; use it in ``with``."""

    def __init__(self, page: Path, folder: Path, environment: Dict[str, str]) -> None:
        self.page = page
        self.steps = read_steps(page)
        self.folder = folder / "lesson"
        self._notes = folder / "notes"
        self.ports = _free_ports(self.steps)
        self.servers: List[Server] = []
        self.transcript: List[str] = []
        self._written: Set[Path] = set()
        self.figure: Callable[[str], None] = lambda path: None
        self._counter = 0
        self._status = 0
        for each in (self.folder, self._notes):
            each.mkdir()
        exported = "".join(
            f"export {name}={shlex.quote(value)}\n"
            for name, value in _environment(folder, environment).items()
            if name.isidentifier() and name not in ("PWD", "OLDPWD")
        )
        (self._notes / "state").write_text(exported, encoding="utf-8")

    def __enter__(self) -> "Lesson":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        with ExitStack() as stack:
            for server in self.servers:
                stack.callback(server.stop)

    def address(self, port: str) -> str:
        """Where the server is that the page has at ``port``."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def type_all(self) -> None:
        """Do what the page says.

        Raises:
            LessonError: what its reader saw was something else; with all that came before.
        """
        for step in self.steps:
            needed = dict(step.marks).get("needs")
            if needed is None or importlib.util.find_spec(needed):
                self.type(step)

    def type(self, step: Step) -> None:
        """Do one thing."""
        doing: Dict[str, Callable[[Step], None]] = {
            "file": self._write,
            "console": self._run_block,
            "figure": lambda step: self.figure(step.name),
            "stop": self._stop,
            "sees": self._look,
        }
        try:
            doing[step.kind](step)
        except LessonError as error:
            logs = "".join(f"\n--- {server.command}\n{server.output}" for server in self.servers)
            place = f"{self.page.name}, line {step.line}"
            raise LessonError(f"{place}: {error}\n\n{''.join(self.transcript)}{logs}") from None

    def _moved(self, text: str) -> str:
        """The text with the ports of this machine."""
        for port, free in self.ports.items():
            text = re.sub(rf"(?<!\d){port}(?!\d)", free, text)
        return text

    def _write(self, step: Step) -> None:
        path = self.folder / step.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._moved(step.text), encoding="utf-8")
        self._written.add(path)
        self.transcript.append(f"[{step.name} is written]\n")

    def _until(self, is_right: Callable[[], bool], end: float) -> bool:
        """Look until it is right, or the time is over, and save the files again now and then."""
        save_at = time.monotonic() + SAVE_AGAIN
        while not is_right():
            if time.monotonic() > end:
                return False
            if time.monotonic() > save_at:
                for path in filter(Path.exists, self._written):
                    os.utime(path)
                save_at = time.monotonic() + SAVE_AGAIN
            time.sleep(_LOOK)
        return True

    def _run_block(self, step: Step) -> None:
        marks = dict(step.marks)
        *first, last = read_commands(self._moved(step.text))
        for command, following in zip(first, [*first[1:], last]):
            self._run(command, None if following.text == "echo $?" else 0)
        if "server" in marks:
            self._serve(last, marks["server"].split())
        else:
            self._run(last, int(marks.get("fails", 0)), marks.get("ctrl-c"))

    def _run(self, command: Command, status: Optional[int], press_at: Optional[str] = None) -> None:
        end = time.monotonic() + PATIENCE
        output = ""

        def is_right() -> bool:
            nonlocal output
            output = self._run_once(command, end, press_at)
            return shows(command.shown, output) and status in (None, self._status)

        # The server may not have loaded a file that was just written.
        right = self._until(is_right, end if command.text.startswith("curl ") else 0.0)
        self.transcript.append(f"$ {command.text}\n{output}")
        if not right:
            expected = "\n".join(command.shown) or "anything"
            raise LessonError(
                f"the status is {self._status}, not {status}, or the output is not:\n{expected}\nbut:\n{output}"
            )

    def _run_once(self, command: Command, end: float, press_at: Optional[str]) -> str:
        log, process = self._start(self._completed(command.text))
        try:
            if press_at is not None:
                if not _wait(lambda: press_at in _read(log), end, process):
                    raise LessonError(f"{command.text} has not printed {press_at!r} but:\n{_read(log)}")
                os.killpg(process.pid, signal.SIGINT)
            _wait(lambda: process.poll() is not None, end)
        finally:
            _end(process, signal.SIGKILL)
        self._status = process.returncode
        if process.returncode < 0:
            raise LessonError(f"{command.text} did not end\n{_read(log)}")
        return _read(log)

    def _start(self, command: str, *, is_server: bool = False) -> "Tuple[Path, subprocess.Popen[bytes]]":
        """Type a command in the one shell: what is exported and what is not, and where it was, is as before."""
        self._counter += 1
        log, state = self._notes / f"{self._counter}.log", shlex.quote(str(self._notes / "state"))
        # A shell of which one types goes on after a Ctrl-C.
        script = f". {state}\n{'' if is_server else 'trap : INT'}\n(exit {self._status})\n{command}\n"
        if not is_server:
            script += f"ended=$?\n{{ export -p; echo \"cd '$PWD'\"; }} > {state}\nexit $ended\n"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=self.folder,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return log, process

    def _completed(self, command: str) -> str:
        """The command with what a server printed in place of ``…``, behind the same beginning of the word."""
        for begun in re.findall(rf"""([^\s"']+){ANY}""", command):
            printed = (re.search(re.escape(begun) + r"(\S+)", server.output) for server in reversed(self.servers))
            found = next(filter(None, printed), None)
            if found is None:
                raise LessonError(f"no server has printed {begun}{ANY}")
            command = command.replace(begun + ANY, found[0])
        return command

    def _serve(self, command: Command, ports: List[str]) -> None:
        log, process = self._start(command.text, is_server=True)
        server = Server(process, command.text, log, ports)
        self.servers.append(server)
        end = time.monotonic() + PATIENCE
        for port in ports:
            _wait(lambda port=port: _listens(self.ports[port]), end, process)  # type: ignore[misc]
        if not _wait(lambda: shows(command.shown, server.output, so_far=True), end, process):
            expected = "\n".join(command.shown)
            raise LessonError(f"{command.text} has not printed:\n{expected}\nbut:\n{server.output}")
        self.transcript.append(f"$ {command.text} &\n{server.output}")

    def _stop(self, step: Step) -> None:
        server = self._server(step.name)
        server.stop()
        self.servers.remove(server)
        self.transcript.append(f"[Ctrl-C] {server.command}\n{server.output}")

    def _server(self, port: str) -> Server:
        running = [server for server in self.servers if not port or port in server.ports]
        if not running:
            raise LessonError(f"no server has been started at port {port or 'whatever'}")
        return running[-1]

    def _look(self, step: Step) -> None:
        port, path, text = re.fullmatch(r"(\d*)(/\S*): (.+)", step.name).groups()  # type: ignore[union-attr]
        url = self.address(self._server(port).ports[0]) + path
        got = ""

        def is_right() -> bool:
            nonlocal got
            got = _page(url)
            return self._moved(text) in got

        if not self._until(is_right, time.monotonic() + PATIENCE):
            raise LessonError(f"{url} does not show {text!r} but:\n{got}")
        self.transcript.append(f"[{url} shows {text!r}]\n")


def _environment(folder: Path, environment: Dict[str, str]) -> Dict[str, str]:
    """The environment of a reader who has installed the package, with a home of its own."""
    programs, home = folder / "bin", folder / "reader"
    home.mkdir()
    python = shlex.quote(sys.executable)
    commands = {
        "copilot-sync": f"exec {python} -m copilot_sync",
        "python": f"exec {python}",
        "python3": f"exec {python}",
        "curl": "command -p curl -sS",  # on a terminal, curl shows no progress of a page
    }
    write_programs(programs, commands)
    path = [str(programs), str(Path(sys.executable).parent), environment["PATH"]]
    kept = {name: value for name, value in environment.items() if not name.startswith(("PYTEST_", "COV_", "TOX_"))}
    # Python takes a file for unchanged that has its length and its second.
    fresh = {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PATH": os.pathsep.join(path)}
    return {**kept, **fresh}


def _free_ports(steps: List[Step]) -> Dict[str, str]:
    """A free port for each that the servers of a page have."""
    named = [port for step in steps for port in dict(step.marks).get("server", "").split()]
    with ExitStack() as stack:
        free = {}
        for port in named:
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            free[port] = str(sock.getsockname()[1])
        return free


def _listens(port: str) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", int(port))) == 0


def _page(url: str) -> str:
    """What a browser gets there, or why it gets nothing."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PATIENCE) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return f"the status {error.code}"
    except (OSError, http.client.HTTPException) as error:
        return f"nothing: {error}"


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def _wait(condition: Callable[[], bool], end: float, process: "Optional[subprocess.Popen[bytes]]" = None) -> bool:
    """Wait until it is so; false if the process ends first, or the patience."""
    while not condition():
        if time.monotonic() > end or (process is not None and process.poll() is not None):
            return condition()
        time.sleep(_LOOK)
    return True


def _end(process: "subprocess.Popen[bytes]", sent: int) -> None:
    """End a process and its group, gently first if it still runs; nothing of it is left."""
    if process.poll() is None:
        os.killpg(process.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE / 6)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
