"""Everything that touches a socket or a clock.

``call.py`` is one call of a user's: its deadline and its stop. ``connection.py`` makes the connections
of ``urllib3`` obey it. ``session.py`` sends requests through ``requests``, ``body.py`` hands out a
reply's bytes as they arrive, ``sse.py`` makes events of them, ``retry.py`` says when to try again.
``boundary.py`` turns foreign errors into ours, and ``fork.py`` keeps a forked child away from its
parent's connections.
"""
