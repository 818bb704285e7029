"""Copilot Chat in Django: streamed answers and conversations in the session. WSGI and ASGI, no model, no migration.

    INSTALLED_APPS = [..., "copilot_sync.contrib.django"]
    COPILOT_SYNC = {"MODEL": "auto"}

    @require_POST
    def chat(request):
        return stream_response(request, request.POST.get("prompt"), name="chat")

``COPILOT_SYNC`` takes the arguments of ``Client`` in upper case, ``HEARTBEAT`` and ``NAME_THREADS``. ``TOKEN_CACHE``
names one of ``CACHES``. The page reads ``text/event-stream``, as ``copilot_sync.contrib.sse`` describes it. This
package connects Django to the client, and knows nothing of the protocol.
"""

try:
    import django as _django  # noqa: F401 - one clear message if it is missing
except ImportError:  # pragma: no cover - the environments of the tests have it
    raise ImportError('this package needs django: pip install "copilot-sync[django]"', name="django") from None

from copilot_sync.contrib.django.client import get_client
from copilot_sync.contrib.django.responses import (
    aask_response,
    aretry_response,
    ask_response,
    astream_response,
    retry_response,
    stream_response,
)
from copilot_sync.contrib.django.sessions import conversations, forget

__all__ = [
    "aask_response",
    "aretry_response",
    "ask_response",
    "astream_response",
    "conversations",
    "forget",
    "get_client",
    "retry_response",
    "stream_response",
]
