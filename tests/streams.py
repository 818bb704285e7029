"""What tests of streams share: events as bytes, bodies in pieces, and a client that never waits."""

import io
from typing import Any, Iterable

from copilot_sync import Client, RetryPolicy
from copilot_sync.emulator import Emulator

ONE = b'data: {"type":"content","body":"one"}\n\n'
TWO = b'data: {"type":"content","body":"two"}\n\n'
COMPLETE = b'data: {"type":"complete","id":"m-1"}\n\n'
DONE = b"data: [DONE]\n\n"
AT_ONCE = RetryPolicy(base=0.0, cap=0.0)
#: Where a mock is asked.
URL = "https://api.example/github/chat/threads/t-1/messages"


def in_pieces(pieces: Iterable[bytes]) -> io.BufferedReader:
    """A body that gives one piece for each read."""
    parts = iter(pieces)

    class Reads(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece = next(parts, b"")
            buffer[: len(piece)] = piece
            return len(piece)

    return io.BufferedReader(Reads())


def client_of(emulator: Emulator, **options: Any) -> Client:
    return Client(
        emulator.api_key, github_url=emulator.github_url, api_url=emulator.api_url, **{"retry": AT_ONCE, **options}
    )
