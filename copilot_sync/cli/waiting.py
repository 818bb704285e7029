"""What a person is told while a command waits for an answer that it shows only when it is whole."""

from copilot_sync.cli.language import _
from copilot_sync.errors import InvalidAnswerError
from copilot_sync.hooks import CallEvent


class AwaitedAnswer:
    """Knows which answer is awaited. ``note`` is a hook for the client that asks."""

    def __init__(self) -> None:
        self._words = _("waiting for the answer")

    def note(self, event: CallEvent) -> None:
        """Note that an answer does not fit its schema, and is asked for again."""
        if event.kind == "retrying" and event.error_type == InvalidAnswerError.__name__:
            words = _("answer {number} does not fit the schema: waiting for another one")
            self._words = words.format(number=event.attempts)

    def words(self) -> str:
        """Say what is awaited."""
        return self._words
