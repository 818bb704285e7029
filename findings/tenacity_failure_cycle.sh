#!/usr/bin/env bash
# tenacity 9.2.1: when it gives up, what the last attempt had in its variables stays alive after the error was handled, until
# the garbage collector finds it. A connection that the attempt had opened keeps its socket as long. It is so for a call of
# Retrying, with reraise and without, and for the "for attempt in Retrying()" form. A loop written by hand frees all at once.
#
# The error is kept in the state of the attempt, and its traceback holds the frames in which that state is a variable.
#
# Expected: nothing of a failed attempt is alive once its error was handled, as after any function that raised. Seen: the last
# attempt's object is, in three of four ways.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/find.py" <<'PYTHON'
import gc
import weakref

import tenacity

STOP = tenacity.stop_after_attempt(3)
opened = []


class Connection:
    pass


def attempt():
    connection = Connection()
    opened.append(weakref.ref(connection))
    raise OSError("it failed")


def by_call():
    tenacity.Retrying(stop=STOP)(attempt)


def by_call_reraising():
    tenacity.Retrying(stop=STOP, reraise=True)(attempt)


def by_loop():
    for each in tenacity.Retrying(stop=STOP, reraise=True):
        with each:
            attempt()


def by_hand():
    for left in (2, 1, 0):
        try:
            attempt()
        except OSError:
            if not left:
                raise


gc.disable()
for way, expected in ((by_call, 1), (by_call_reraising, 1), (by_loop, 1), (by_hand, 0)):
    opened.clear()
    try:
        way()
    except (OSError, tenacity.RetryError):
        pass
    alive = sum(each() is not None for each in opened)
    gc.collect()
    freed = alive - sum(each() is not None for each in opened)
    print(f"{way.__name__}: {alive} of {len(opened)} alive afterwards, {freed} of them freed by the garbage collector")
    assert (alive, freed) == (expected, expected), "this has changed"
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq tenacity==9.2.1
"$folder/venv/bin/python" "$folder/find.py"
