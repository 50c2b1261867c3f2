"""Counts what JAX compiles."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_compiled = [0]


def _listen(event: str, duration: float, **_: object) -> None:
    if event == _EVENT:
        _compiled[0] += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


class Count:
    """How many programs were compiled inside a `with compilations()`."""

    def __init__(self) -> None:
        self.start = _compiled[0]

    @property
    def number(self) -> int:
        return _compiled[0] - self.start


@contextmanager
def compilations() -> Iterator[Count]:
    """``with compilations() as count: ...; count.number``."""
    yield Count()
