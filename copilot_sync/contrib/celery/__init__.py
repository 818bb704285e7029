"""Copilot Chat in Celery: a task that asks, and many prompts at once over all workers.

    from copilot_sync import batch
    from copilot_sync.contrib.celery import ask, fan_out

    ask.delay("Explain WSGI").get()["text"]
    for result in fan_out(batch.read("prompts.jsonl")):
        print(result.id, result.text or result.error)

Workers use credentials of their own; none is ever in a task. The client and the limiter decide what is sent again.
Celery's own retry only serves to wait: a task that has to wait for long goes back to the broker, so that no delivery
lasts longer than the broker allows. Before a message is sent, its handle is kept in the result backend; another worker
that gets the task looks there first. ``app.conf`` has these settings:

``copilot_sync_client``
    A function that returns a client, or its dotted name. Default: ``copilot_sync.Client``, from the environment.
``copilot_sync_cache``
    The cache through which all workers share the pause and the pace: an object with ``get``, ``set`` and ``add`` such
    as Django's cache, or its dotted name. Default: the result backend if it is Redis, else each process's memory.
``copilot_sync_rate`` and ``copilot_sync_concurrency``
    How many prompts start in a minute, in all workers (``None``: no limit), and how many run at once in a process.
    Default: 20 and 2; if the API is on this machine, as an emulator's is, no limit and 8.
"""

try:
    import celery as _celery  # noqa: F401 - one clear message if it is missing
except ImportError as error:  # pragma: no cover - the environments of the tests have it
    raise ImportError(f'this package needs {error.name}: pip install "copilot-sync[celery]"', name=error.name) from None

from copilot_sync.contrib.celery.fanning_out import FannedOut, fan_out
from copilot_sync.contrib.celery.tasks import ask
from copilot_sync.pacing.caches import RedisCache

__all__ = ["FannedOut", "RedisCache", "ask", "fan_out"]
