"""What arguments may hold, checked at one place: whole numbers, exceptions to catch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nestor.errors import BadArgument


def whole(where: str, name: str, value: Any, *, least: int = 1, example: int = 4) -> int:
    """A whole number as a Python integer: 4, 4.0 and those of NumPy and JAX are, True, 4.5 and "4" are not.

    Args:
        where: the public function or class, for the message.
        name: its argument.
        value: what was passed.
        least: the least that may be.
        example: one that may, for the message.
    """
    found = integer(value)
    if found is None or found < least:
        raise BadArgument(
            where, name, got=value, want=f"a whole number >= {least}", do=f"pass {name}={example}"
        )
    return found


def whole_or_none(where: str, name: str, value: Any, *, least: int = 1, example: int = 4) -> int | None:
    """None, or the same."""
    return None if value is None else whole(where, name, value, least=least, example=example)


def catchable(where: str, catch: Any) -> tuple[type[Exception], ...]:
    """The exceptions to catch, one class or several, as a tuple of classes."""
    kinds = tuple(catch) if isinstance(catch, Iterable) else (catch,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        want = "an exception class, or several of those"
        raise BadArgument(where, "catch", got=catch, want=want, do="pass catch=MemoryError")
    return kinds


def integer(value: Any) -> int | None:
    """A value as a Python integer; None where it is no whole number."""
    if type(value) is int:
        return value
    if isinstance(value, bool | np.bool_ | str) or np.ndim(value):
        return None
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):  # None, NaN, infinity
        return None
    return found if found == value else None
