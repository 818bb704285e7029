"""Ask many prompts with one account: from a list, a file or a stream, in threads or with an executor.

>>> from copilot_sync import batch
>>> for result in batch.run(batch.read("prompts.jsonl"), output="results.jsonl"):  # doctest: +SKIP
...     print(result.id, result.text or result.error)

A batch never asks faster than its rate limiter allows, never asks a prompt again that has an answer, and never treats a
prompt as done before its result is on the disk.
"""

from copilot_sync.batch.dataframes import to_dataframe
from copilot_sync.batch.durable_file import JournalError
from copilot_sync.batch.prompt_files import PromptFile, read
from copilot_sync.batch.prompts import BadLine, Prompt
from copilot_sync.batch.results import Result
from copilot_sync.batch.runs import Run, run
from copilot_sync.batch.scheduler import TooManyFailuresError
from copilot_sync.batch.workers import ExecutorError
from copilot_sync.pacing.caches import LimiterCache, MemoryCache
from copilot_sync.pacing.limiter import RateLimiter

__all__ = [
    "BadLine",
    "ExecutorError",
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
    "to_dataframe",
]
