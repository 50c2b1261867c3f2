"""What a forked process must make anew: locks that another thread may have held, connections, threads."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What is told that this process is a copy of the one that made it."""

    def forked(self) -> None:
        """Make anew what cannot be shared with the parent."""
        ...


_known: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_when_forked(thing: Forked) -> None:
    """Call ``thing.forked()`` first of all in every process that is forked from this one, while the thing lives."""
    _known.add(thing)


def _tell() -> None:
    for thing in list(_known):
        thing.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
