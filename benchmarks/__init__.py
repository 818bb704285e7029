"""How fast ``copilot_sync`` is, next to what would be used instead: ``python -m benchmarks [QUESTION ...]``.

``questions.py`` has the questions, each of which prints Markdown tables, and ``bench.py`` what they share.
``server.py`` is a Copilot that does nothing but send bytes it has ready, in a process of its own; ``proxy.py`` puts a
distance in front of it. ``peers.py`` has the clients compared, all of which do the same work; each runs in a process of
its own, ``worker.py``, on the interpreter that was asked for, and measures itself with ``getrusage``. ``measure.py``
has them take turns, A B C A B C, so that whatever else the machine does hits all of them alike, and makes medians and
ratios of what they say. ``pages.py`` does the same with ``pages_app.py``, the same application for each client, which
gunicorn serves.

Nothing leaves the machine. A client whose library is not installed is named as missing, and left out.
"""
