"""What arguments may hold, checked at one place: whole numbers, real ones, what JSON holds, exceptions to catch."""

from __future__ import annotations

import json
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


def plain(where: str, name: str, value: Any) -> Any:
    """A copy of a value as JSON holds it, so that it is the same in memory, in a file and in a database.

    Tuples become lists, and names of dictionaries strings; numbers and arrays of NumPy, JAX and PyTorch become numbers
    and lists.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    try:
        return json.loads(json.dumps(value, default=lambda other: other.tolist()))
    except (AttributeError, TypeError, ValueError) as error:
        want = "what JSON can hold: numbers, strings, None, lists and dictionaries of those"
        raise BadArgument(
            where, name, got=value, want=want, do="keep its path, its name or its str()"
        ) from error


def reals(where: str, name: str, *values: Any) -> list[float]:
    """Real numbers as floats; NaN and infinities too, text not."""
    found = []
    for value in values:
        try:
            found.append(float(value if not isinstance(value, str) else "text"))
        except (TypeError, ValueError) as error:
            got = f"{value!r}" if isinstance(value, str) else value
            raise BadArgument(where, name, got=got, want="a real number", do="pass a float") from error
    return found


def seconds(where: str, name: str, value: Any) -> float:
    """A length of time that is not zero."""
    found = reals(where, name, value)[0]
    if not found > 0:
        raise BadArgument(where, name, got=value, want="positive seconds", do=f"pass {name}=60.0")
    return found


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
