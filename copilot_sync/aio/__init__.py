"""The asynchronous face: the blocking core in steps, driven by an asyncio event loop."""

from copilot_sync.aio.reader import AsyncReader, iterate_stream

__all__ = ["AsyncReader", "iterate_stream"]
