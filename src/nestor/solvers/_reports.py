"""Callbacks and progress from inside a compiled loop: one host function, registered by number.

The compiled program holds the number, not the function, as an input; so another callback, or none of the same
kind, never compiles anything again.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.solvers._contract import Info

Tree = Any


@dataclasses.dataclass(frozen=True)
class Report:
    """What a callback is shown after every evaluation.

    Attributes:
        step: number of the evaluation, from 0 (the start).
        fun: the objective there.
        optimality: the residual of the condition there.
        accepted: whether the point was kept.
        x: the point, a tree like x0 of JAX arrays.

    >>> import nestor
    >>> seen = []
    >>> _ = nestor.minimize(lambda x: x**2, 1.0, callback=lambda report: seen.append(report.fun))
    >>> float(seen[0])
    1.0
    """

    step: int
    fun: float
    optimality: float
    accepted: bool
    x: Tree


class Watcher:
    """A user's callback and a progress bar, and the first exception that one of them raised."""

    def __init__(self, callback: Callable[[Report], Any] | None, progress: Any):
        self.callback = callback
        self.progress = progress
        self.error: BaseException | None = None

    def see(self, report: Report) -> bool:
        """Pass a report on; True asks the solve to stop."""
        if self.error is not None:
            return True
        try:
            if self.progress is not None:
                self.progress(report)
            return bool(self.callback(report)) if self.callback is not None else False
        except StopIteration:
            return True
        except BaseException as error:
            self.error = error
            return True


_watchers: dict[int, Watcher] = {}
_numbers = itertools.count(1)
_lock = threading.Lock()


def register(watcher: Watcher) -> int:
    """Give a watcher a number that a compiled solve can carry."""
    with _lock:
        number = next(_numbers)
        _watchers[number] = watcher
    return number


@contextmanager
def registered(watcher: Watcher | None) -> Iterator[int]:
    """The number of a watcher for the length of one solve; 0 for none."""
    if watcher is None:
        yield 0
        return
    number = register(watcher)
    try:
        yield number
    finally:
        with _lock:
            _watchers.pop(number, None)


def show(number: jax.Array, running: jax.Array, turn: jax.Array, info: Info, x: Tree) -> jax.Array:
    """Inside a trace: show a turn to the watcher of that number; true if it asks to stop."""
    args = jax.lax.stop_gradient((info.value, info.optimality, info.accepted, x))
    return jax.pure_callback(
        _on_host,
        jax.ShapeDtypeStruct((), jnp.bool_),
        number,
        running,
        turn,
        *args,
        vmap_method="sequential",
    )


def _on_host(number: Any, running: Any, turn: Any, value: Any, optimality: Any, accepted: Any, x: Any) -> Any:
    watcher = _watchers.get(int(number))
    if watcher is None or not bool(running):
        return np.bool_(False)
    report = Report(int(turn), float(value), float(optimality), bool(accepted), x)
    return np.bool_(watcher.see(report))


def progress_bar(name: str, max_steps: int) -> Any:
    """A progress line on stderr, by tqdm: evaluations, objective, optimality."""
    from tqdm import tqdm

    bar = tqdm(total=max_steps + 1, desc=name, unit="eval", leave=True, mininterval=0.1)

    def update(report: Report) -> None:
        bar.set_postfix_str(f"f={report.fun:.6g} optimality={report.optimality:.2e}", refresh=False)
        bar.update(1)

    update.close = bar.close  # type: ignore[attr-defined]
    return update
