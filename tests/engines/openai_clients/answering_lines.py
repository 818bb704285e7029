"""What the programs beside this one have in common: a line of JSON comes in, a call is made, a line goes out.

A line names a call and how often the client may try again: ``{"call": "plain", "retries": 0}``. What comes back is
``{"whole": ...}`` with what the client took for the whole of it, or ``{"raised": ...}`` with the class of the error and
what it ``says``; and in both cases the ``pieces`` that came before.
"""

import asyncio
import inspect
import json
import sys
from typing import Any, Callable, Dict, List, Mapping

#: What each call gets: how often the client may try again, and a function that takes each piece of text.
Call = Callable[[int, Callable[[str], None]], Any]
QUESTION = "Say it"


def answer_lines(calls: Mapping[str, Call]) -> None:
    """Make the calls that are asked for, until the lines end."""
    with asyncio.Runner() if sys.version_info >= (3, 11) else _Runner() as runner:
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(_made(runner, calls[asked["call"]], asked["retries"])), flush=True)


class _Runner:
    """As Python 3.11 has it."""

    def __enter__(self) -> "_Runner":
        self._loop = asyncio.new_event_loop()
        return self

    def run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def __exit__(self, *exc_info: object) -> None:
        self._loop.close()


def _made(runner: Any, call: Call, retries: int) -> Dict[str, Any]:
    pieces: List[str] = []
    try:
        found = call(retries, pieces.append)
        return {"whole": runner.run(found) if inspect.iscoroutine(found) else found, "pieces": pieces}
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        return {"raised": type(error).__name__, "says": str(error)[:300], "pieces": pieces}
