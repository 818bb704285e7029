"""Many prompts through one account: from a list, a file or a stream, by threads or by an executor's workers.

>>> from copilot_sync import batch
>>> for result in batch.run(batch.read("prompts.jsonl"), output="results.jsonl"):  # doctest: +SKIP
...     print(result.id, result.text or result.error)

``run`` iterates results. What a batch must never do is decided here and nowhere else: ask faster than the gate lets it,
ask again what has an answer, take a prompt for done whose result is not on the disk.
"""

from copilot_sync.batch.durable_file import JournalError
from copilot_sync.batch.prompts import BadLine, Prompt, PromptFile, read
from copilot_sync.batch.results import Result
from copilot_sync.batch.runs import Run, run
from copilot_sync.batch.scheduler import TooManyFailuresError
from copilot_sync.pacing.caches import LimiterCache, MemoryCache
from copilot_sync.pacing.limiter import RateLimiter

__all__ = [
    "BadLine",
    "JournalError",
    "LimiterCache",
    "MemoryCache",
    "Prompt",
    "PromptFile",
    "RateLimiter",
    "Result",
    "Run",
    "TooManyFailuresError",
    "read",
    "run",
]
