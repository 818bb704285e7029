"""What must not be shared with a forked child.

A child inherits locks that may be held by threads it does not have, and sockets that are its parent's. Objects
that hold either name themselves here and are told, in the child, to begin anew.
"""

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Something that a forked child must make anew."""

    def renew(self) -> None:
        """Drop inherited locks and sockets. Called in the child, before anything else runs there."""


_registered: "weakref.WeakSet[Renewable]" = weakref.WeakSet()


def renew_in_child(thing: Renewable) -> None:
    """Have a thing renewed in every child that is forked from here on, as long as it lives."""
    _registered.add(thing)


def _renew_all() -> None:
    for thing in list(_registered):
        thing.renew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_renew_all)
