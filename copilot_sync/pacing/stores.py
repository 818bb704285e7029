"""The choice of where the state of an account's limits is kept."""

import os
from typing import Any

from copilot_sync.pacing.redis_state import RedisStore
from copilot_sync.pacing.shared_state import CacheStore, FolderStore, Store, in_memory


def store_of(shared: Any) -> Store:
    """Choose the store: memory, a folder, a Redis, or a cache.

    Raises:
        TypeError: It is none of them.
        ValueError: It is a cache that excludes nobody, or a path that can't be.
    """
    if shared is None:
        return in_memory
    if isinstance(shared, (str, os.PathLike)):
        return FolderStore(shared)
    if callable(getattr(shared, "apply", None)):
        return shared  # type: ignore[no-any-return]
    if callable(getattr(shared, "evalsha", None)):
        return RedisStore(shared)
    if all(callable(getattr(shared, name, None)) for name in ("get", "set", "add", "delete")):
        return CacheStore(shared)
    kinds = "a folder, a Redis client, or a cache with get, set, add and delete"
    raise TypeError(f"shared must be {kinds}, not {type(shared).__name__}")
