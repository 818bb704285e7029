"""One message on its way.

``exchange`` sends it, as often as that is safe, and yields what comes back. ``answer`` reads the reply and ``recovery``
decides what became of a message whose answer was lost; both are pure. ``lookup`` asks the thread for ``recovery``.
``message`` holds the values: what to ask, and what a message is found by.
"""
