"""Callbacks and progress from inside a compiled loop: one host function, registered by number.

The compiled program holds the number, not the function, as an input; so another callback, or none of the same
kind, never compiles anything again.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.programs._interrupts import Interrupts


class Watcher:
    """A user's callback and a progress bar, and the first exception that one of them raised.

    Args:
        report: makes what the callback is shown from the values of the compiled loop (NumPy arrays).
        callback: is shown every report and may ask to stop, by returning a true value or raising
            `StopIteration`.
        progress: is shown every report first.
        interrupts: asks the loop to stop once Ctrl-C was pressed; None asks nothing.
    """

    def __init__(
        self,
        report: Callable[..., Any],
        callback: Callable[[Any], Any] | None,
        progress: Callable[[Any], Any] | None,
        interrupts: Interrupts | None = None,
    ):
        self.report = report
        self.callback = callback
        self.progress = progress
        self.interrupts = interrupts
        self.error: BaseException | None = None

    def see(self, *values: Any) -> bool:
        """Pass a report on; True asks the loop to stop."""
        if self.error is not None:
            return True
        try:
            report = self.report(*values)
            if self.progress is not None:
                self.progress(report)
            stop = bool(self.callback(report)) if self.callback is not None else False
            return stop or (self.interrupts is not None and self.interrupts.came())
        except StopIteration:
            return True
        except BaseException as error:
            self.error = error
            return True


_watchers: dict[int, Watcher] = {}
_numbers = itertools.count(1)
_lock = threading.Lock()


def register(watcher: Watcher) -> int:
    """Give a watcher a number that a compiled loop can carry."""
    with _lock:
        number = next(_numbers)
        _watchers[number] = watcher
    return number


@contextmanager
def registered(watcher: Watcher | None) -> Iterator[int]:
    """The number of a watcher for the length of one call; 0 for none."""
    if watcher is None:
        yield 0
        return
    number = register(watcher)
    try:
        yield number
    finally:
        with _lock:
            _watchers.pop(number, None)


def show(number: jax.Array, wanted: jax.Array, *values: Any) -> jax.Array:
    """Inside a trace: show the values to the watcher of that number; true if it asks to stop.

    Args:
        number: int32 scalar.
        wanted: bool scalar; nothing is shown where it is false.
        *values: trees of arrays, constants for every derivative.
    """
    return jax.pure_callback(
        _on_host,
        jax.ShapeDtypeStruct((), jnp.bool_),
        number,
        wanted,
        *jax.lax.stop_gradient(values),
        vmap_method="sequential",
    )


def _on_host(number: Any, wanted: Any, *values: Any) -> Any:
    watcher = _watchers.get(int(number))
    if watcher is None or not bool(wanted):
        return np.bool_(False)
    return np.bool_(watcher.see(*values))
