"""Credentials: where cookies come from, how they become tokens, and requests that carry them.

``cookies.py`` and ``credentials.py`` find them, ``tokens.py`` exchanges and keeps tokens, ``caches.py`` stores
them between processes, ``access.py`` sends what needs a token.
"""
