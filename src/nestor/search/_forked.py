"""What a forked process must begin anew: a thread that only its parent has, and locks that one may have held."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewed(Protocol):
    """Something that a forked process has a copy of, and must not use as it is."""

    def renew(self) -> None:
        """Begin anew, in the child."""
        ...


_KNOWN: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renewed_when_forked(thing: Renewed) -> None:
    """Have ``thing.renew()`` called in every process that is forked from this one, as long as the thing is there."""
    _KNOWN.add(thing)


def _renew() -> None:
    for thing in list(_KNOWN):
        thing.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, where there is no fork
    os.register_at_fork(after_in_child=_renew)
