"""Ways to close a stream that is being read."""

from support import Worker

from copilot_sync import Stream


def elsewhere(stream: Stream) -> None:
    """Close it in another thread, and wait until that has returned."""
    Worker(stream.close).result()


def here(stream: Stream) -> None:
    """Close it in the thread that reads it, as the handler of a signal does."""
    stream.close()
