"""What must not be shared with a forked child.

A child inherits locks that may be held by threads it does not have, and sockets that are its parent's. Objects that
hold either register here, and their ``after_fork_in_child`` is called in the child.

This runs inside ``os.fork``, before anything else in the child, so it must not wait for anything. It takes no lock,
closes nothing and logs nothing. What it lets go of is kept in ``abandoned``, because a destructor of some library
may take a lock that was held at the moment of the fork. If one thing fails, the others are still told.

Threads: to register is atomic, because it adds to a set. The set is only read in a child, in its only thread.
"""

import os
import weakref
from typing import List, Protocol


class ForkAware(Protocol):
    """Something that a forked child must make anew."""

    def after_fork_in_child(self) -> None:
        """Drop inherited locks and sockets. Called in the child, before anything else runs there."""


_registered: "weakref.WeakSet[ForkAware]" = weakref.WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Call ``after_fork_in_child`` of an object in every child that is forked from here on, as long as it lives."""
    _registered.add(thing)


#: What belongs to the parents of this process. It is never freed here.
abandoned: List[object] = []


def _reset_all() -> None:
    for thing in list(_registered):
        try:
            thing.after_fork_in_child()
        except Exception as error:  # noqa: BLE001 - an exception out of here is only printed, and the rest would be left out
            abandoned.append(error)


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_reset_all)
