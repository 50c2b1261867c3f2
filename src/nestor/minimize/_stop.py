"""How a solve is ended from inside the objective."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from nestor.solution import Status

_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("nestor_minimize_inside", default=False)


@contextlib.contextmanager
def inside() -> Iterator[None]:
    """While a solve on the host runs: another one in there is in its objective."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def is_inside() -> bool:
    """Whether a solve on the host runs around this call."""
    return _inside.get()


class Stop(BaseException):  # no Exception: a solver must not take it for a failed evaluation
    """Ends a solve with that status.

    Attributes:
        value: the objective at the point in question, where it is known and its differences are not.
    """

    def __init__(self, status: Status):
        self.status = status
        self.value: float | None = None
        super().__init__(status.name)
