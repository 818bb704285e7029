"""What the processes are that share an account in ``limits.py``: under gunicorn, under Celery, a job, a batch.

``python sharing.py job`` asks once and does not wait long, as a job of cron's; ``python sharing.py batch`` goes on
until it is ended.
"""

import contextlib
import itertools
import os
import sys
from typing import Any, Callable, Iterable, List

import celery

from copilot_sync import Client, CopilotError, RateLimit, Timeout
from copilot_sync.batch import run
from copilot_sync.pacing import account_state

#: Seconds that a job waits at most.
JOB = 5.0


def _client() -> Client:
    """A client with the limits that the environment names; a window may be shorter than a minute."""
    window, per_minute, concurrency = map(int, os.environ["SHARING_LIMITS"].split())
    margin = account_state.WINDOW * account_state.MARGIN
    account_state.RateRules.__new__.__defaults__ = (None, None, None, window + margin, account_state.LEASE)
    limit = RateLimit(per_minute=per_minute, concurrency=concurrency)
    return Client(rate_limit=limit, shared=os.environ["SHARING_FOLDER"])


client = _client()
app = celery.Celery("sharing", broker=os.environ.get("REDIS_URL"))
app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)


@app.task(name="ask")
def ask() -> None:
    """Ask within a task."""
    client.ask("celery")


def application(environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Ask within a request."""
    text = client.ask("gunicorn").text
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


def main(arguments: List[str]) -> None:
    """Be a job or a batch."""
    if arguments == ["job"]:
        with contextlib.suppress(CopilotError):
            client.ask("job", timeout=Timeout(total=JOB))
    else:
        with run((f"batch {number}" for number in itertools.count()), client=client, workers=3) as results:
            for _ in results:
                pass


if __name__ == "__main__":
    main(sys.argv[1:])
