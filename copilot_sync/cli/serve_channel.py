"""How ``copilot-sync serve`` sends a response that streams.

waitress 3.0.2 closes the connection behind each response without a length, chunked or not, and has a call of the system
for the head alone. A client that keeps its connections would need another one for each question.

Threads: confined to the thread that answers the request, as in waitress.
"""

from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import WSGITask


class _StreamingTask(WSGITask):  # type: ignore[misc]
    def set_close_on_finish(self) -> None:
        """Close the connection behind the response, unless it is only because of the chunks: they tell its end."""
        if not self.chunked_response or self.wrote_header:
            super().set_close_on_finish()

    def build_response_header(self) -> bytes:
        """Leave the head to the channel. ``write`` sends what is returned at once, and what it writes after it."""
        options = self.request.headers.get("CONNECTION", "").lower().split(",")
        if "close" in map(str.strip, options):  # waitress knows it only if there is no other option
            self.request.headers["CONNECTION"] = "close"
        self.channel.head = super().build_response_header()
        if self.request.command == "HEAD":
            self.chunked_response = False  # a last chunk would be taken for the reply to the next request
        return b""

    def write(self, data: bytes) -> None:
        """Send a piece of the response. That to a HEAD has none."""
        super().write(b"" if self.request.command == "HEAD" else data)

    def finish(self) -> None:
        """End the response. One without a body is a head that still waits."""
        super().finish()
        self.channel.write_soon(self.channel.taken_head())


class StreamingChannel(HTTPChannel):  # type: ignore[misc]
    """A connection that stays open behind chunks. The head of a response goes out with what follows it."""

    task_class = _StreamingTask
    #: The head of a response that waits for its first piece.
    head = b""

    def write_soon(self, data: Any) -> int:
        """Send bytes, as soon as the client takes them."""
        return int(super().write_soon(self.taken_head() + data if self.head and data else data))

    def taken_head(self) -> bytes:
        """Return the head that waits, which does so no longer."""
        head, self.head = self.head, b""
        return head
