"""An HTTP gateway for programs that speak OpenAI's API: a WSGI application over one ``Client``.

``application`` is configured by the environment and serves with any WSGI server; ``Gateway`` takes a client and its
settings. ``copilot-sync serve`` runs it. It is for the user's own programs: each request carries the gateway's key.

Threads: a gateway may be called by any number of threads.
"""

from copilot_sync.contrib.openai_gateway.gateway import Gateway

#: The gateway of this process. It makes its client, and reads its key, with the first request.
application = Gateway()

__all__ = ["Gateway", "application"]
