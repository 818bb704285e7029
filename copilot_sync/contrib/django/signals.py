"""The signal that the site's client sends for each step of a call.

    @receiver(call_event)
    def note(event, **kwargs):
        if event.kind == "failed":
            statsd.incr(f"copilot.{event.error_type}")

``event`` is a ``copilot_sync.CallEvent``. Receivers are called by whoever reads the answer. What one raises keeps no
other from being called, and no answer from its reader.
"""

from django.dispatch import Signal

from copilot_sync.client import Client
from copilot_sync.hooks import CallEvent
from copilot_sync.pacing.caches import is_interruption

__all__ = ["call_event"]

#: Sent with ``event``, by the class ``Client``.
call_event = Signal()


def send_call_event(event: CallEvent) -> None:
    """Send the signal: a hook of the site's client.

    Raises:
        Exception: What a receiver raised, for the hooks' own log: what a signal's handler raised, if there is any.
    """
    answers = call_event.send_robust(sender=Client, event=event)
    errors = [answer for _, answer in answers if isinstance(answer, Exception)]
    if errors:
        raise next(filter(is_interruption, errors), errors[0])
