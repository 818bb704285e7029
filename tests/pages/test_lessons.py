"""Each lesson works, from the first line to the last, for somebody who types it in an empty folder.

``lessons`` has how a page is read. The environment points at an emulator, so a lesson needs no account. A lesson that
starts an emulator of its own has the reader set the variables again.
"""

import os
import subprocess
import time
from pathlib import Path
from typing import Dict, List

import pytest
from lessons import PATIENCE, Lesson, LessonError, read_commands

from copilot_sync.emulator import Emulator

DOCS = Path(__file__).parents[2] / "docs"
LESSONS = sorted(DOCS.glob("lesson_*.rst"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_lesson_can_be_typed(page: Path, served: Emulator, tmp_path: Path) -> None:
    """Each command ends well and prints what the page says, and each page in the browser shows what it should."""
    with Lesson(page, tmp_path, dict(os.environ)) as lesson:
        lesson.type_all()


def test_what_differs_from_the_page_is_found(tmp_path: Path) -> None:
    """With all that was typed before, and with what the servers printed."""
    page = tmp_path / "page.rst"
    page.write_text("""
.. code-block:: python
   :caption: site/page.txt

   one

.. server: 8000

.. code-block:: console

   $ cd site
   $ export NAME=anna
   $ python -u -m http.server --bind 127.0.0.1 8000
   Serving HTTP on 127.0.0.1 port 8000 …

.. sees: /page.txt: one

.. fails: 3

.. code-block:: console

   $ echo "$NAME" \\
   >     and 8000
   anna and 8000
   $ (exit 4)
   $ echo $?
   4
   $ (exit 3)

.. stop: 8000

.. not run: it would fail

.. code-block:: console

   $ false

.. code-block:: console

   $ cat page.txt
   two
""")
    with pytest.raises(LessonError, match=r"(?s)page.rst, line 38: .*not:\ntwo\nbut:\none.*GET /page.txt") as failure:
        with Lesson(page, tmp_path, dict(os.environ)) as lesson:
            lesson.type_all()
    assert "$ (exit 4)" in str(failure.value)
    assert lesson.servers == []


def test_a_command_may_take_several_lines() -> None:
    """As in a shell, which shows where its reader goes on."""
    commands: Dict[str, List[str]] = dict(read_commands("$ one \\\n    two\n1\n$ cat <<E\n> text\n> E\n> text"))
    assert commands == {"one \\\n    two": ["1"], "cat <<E\ntext\nE\ntext": []}


def test_a_variable_that_was_unset_stays_so(tmp_path: Path) -> None:
    """Also one that came from outside, as in the shell of a reader."""
    page = tmp_path / "page.rst"
    page.write_text("""
.. code-block:: console

   $ unset GIVEN
   $ echo "<$GIVEN>"
   <>
""")
    with Lesson(page, tmp_path, {**os.environ, "GIVEN": "by somebody"}) as lesson:
        lesson.type_all()


def test_a_word_of_a_server_can_be_copied_into_any_command(tmp_path: Path) -> None:
    """A reader copies it from the other terminal; behind it the command goes on."""
    page = tmp_path / "page.rst"
    page.write_text("""
.. server

.. code-block:: console

   $ echo "export WORD=key=abc" && exec sleep 600
   export WORD=key=abc

.. code-block:: console

   $ echo "key=… $HOME" | cut -d " " -f 1
   key=abc
""")
    with Lesson(page, tmp_path, dict(os.environ)) as lesson:
        lesson.type_all()


def test_a_word_that_no_server_has_printed_is_an_error(tmp_path: Path) -> None:
    """A reader would look for it in vain."""
    page = tmp_path / "page.rst"
    page.write_text("""
.. code-block:: console

   $ echo key=…
""")
    with pytest.raises(LessonError, match="no server has printed key=…"):
        with Lesson(page, tmp_path, dict(os.environ)) as lesson:
            lesson.type_all()


def test_a_command_that_is_stopped_has_a_status(tmp_path: Path) -> None:
    """The shell goes on behind it, as that of a reader does."""
    page = tmp_path / "page.rst"
    page.write_text("""
.. ctrl-c: ready

.. fails: 130

.. code-block:: console

   $ export NAME=anna
   $ python -c "import time; print('ready', flush=True); time.sleep(600)" 2> traceback.txt
   ready

.. code-block:: console

   $ tail -n 1 traceback.txt && echo $NAME
   KeyboardInterrupt
   anna
""")
    with Lesson(page, tmp_path, dict(os.environ)) as lesson:
        lesson.type_all()


def test_a_command_that_never_prints_what_is_waited_for_is_an_error(tmp_path: Path) -> None:
    """Nobody presses a key then."""
    page = tmp_path / "page.rst"
    page.write_text("""
.. ctrl-c: ready

.. code-block:: console

   $ echo steady
""")
    with pytest.raises(LessonError, match="has not printed 'ready' but:\nsteady"):
        with Lesson(page, tmp_path, dict(os.environ)) as lesson:
            lesson.type_all()


def test_nothing_outlives_a_lesson(tmp_path: Path) -> None:
    """Neither a server that the page does not stop, nor a child that refuses to go."""
    page = tmp_path / "page.rst"
    page.write_text("""
.. server

.. code-block:: console

   $ (trap "" INT TERM; sleep 600 & echo child $!; wait) & exec sleep 600
   child …
""")
    with Lesson(page, tmp_path, dict(os.environ)) as lesson:
        lesson.type_all()
        (server,) = lesson.servers
    child = int(server.output.split()[1])
    assert server.process.poll() is not None
    end = time.monotonic() + PATIENCE
    while _lives(child):
        assert time.monotonic() < end
        time.sleep(0.05)


def _lives(process: int) -> bool:
    """Whether it does; whoever adopted it may not have looked yet since it died."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], check=False, stdout=subprocess.PIPE).stdout
    return state[:1] not in (b"", b"Z")


_LATE = """\
import os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

page = Path("page.txt")
shown, seen = page.read_bytes(), None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        global shown, seen
        if page.read_bytes() != shown:
            seen = seen or page.stat().st_mtime_ns
            if page.stat().st_mtime_ns != seen:
                shown = page.read_bytes()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(shown)


HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_that_looks_for_changes_too_late_sees_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that starts slowly does: Django's sees no change between its import of a file and its first look."""
    monkeypatch.setattr("lessons.SAVE_AGAIN", 0.2)
    (tmp_path / "late.py").write_text(_LATE)
    page = tmp_path / "page.rst"
    page.write_text(f"""
.. code-block:: python
   :caption: page.txt

   one

.. server: 8000

.. code-block:: console

   $ python {tmp_path / "late.py"} 8000

.. sees: /: one

.. code-block:: python
   :caption: page.txt

   two

.. sees: /: two
""")
    with Lesson(page, tmp_path, dict(os.environ)) as lesson:
        lesson.type_all()
