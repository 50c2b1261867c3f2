"""Schedules that are a list of values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nestor.errors import BadArgument
from nestor.schedules._record import numbers, schedule


@schedule
class PiecewiseLinear:
    """Straight lines between given values at given steps; constant before the first and after the last.

    Args:
        steps: (k,), increasing.
        values: (k,).

    Differentiable in the values, and in the steps.

    >>> import nestor
    >>> rate = nestor.schedules.PiecewiseLinear([0, 10, 20], [0.0, 1.0, 0.5])
    >>> [float(rate(t)) for t in (5, 10, 15, 99)]
    [0.5, 1.0, 0.75, 0.5]
    """

    steps: Any
    values: Any

    def __call__(self, step: Any) -> jax.Array:
        """The value at a step."""
        t, steps, values = numbers(self, step)
        if steps.ndim != 1 or steps.shape != values.shape or steps.size == 0:
            raise BadArgument(
                "PiecewiseLinear",
                "values",
                got=f"of shape {values.shape}, for steps of shape {steps.shape}",
                want="one value for each step, both of shape (k,)",
                do="write PiecewiseLinear([0, 100], [0.1, 0.01])",
            )
        return jnp.interp(t, steps, values)


@schedule
class PerStep:
    """One value for every step; after the last, the last stays.

    Args:
        values: (T, ...), T >= 1.

    >>> import nestor
    >>> [float(nestor.schedules.PerStep([3.0, 2.0, 1.0])(t)) for t in (0, 1, 9)]
    [3.0, 2.0, 1.0]
    """

    values: Any

    def __call__(self, step: Any) -> jax.Array:
        """The value at a step."""
        t, values = numbers(self, step)
        _check_table("PerStep", values)
        return _at(values, t)


@schedule
class PerBlock:
    """One value for every `length` steps; after the last, the last stays.

    Args:
        values: (T, ...), T >= 1.
        length: the steps for which a value holds.

    >>> import nestor
    >>> [float(nestor.schedules.PerBlock([1.0, 0.5], 100)(t)) for t in (0, 99, 100, 999)]
    [1.0, 1.0, 0.5, 0.5]
    """

    values: Any
    length: Any

    def __call__(self, step: Any) -> jax.Array:
        """The value at a step."""
        t, values, length = numbers(self, step)
        _check_table("PerBlock", values)
        return _at(values, t / length)


def _check_table(where: str, values: jax.Array) -> None:
    if values.ndim == 0 or len(values) == 0:
        raise BadArgument(
            where,
            "values",
            got=f"of shape {values.shape}",
            want="a list with at least one value",
            do=f"write {where}([0.1, 0.01]{', 100' if where == 'PerBlock' else ''})",
        )


def _at(values: jax.Array, place: jax.Array) -> jax.Array:
    """The entry at a place that is rounded down and kept inside."""
    index = jnp.clip(jnp.floor(jax.lax.stop_gradient(place)), 0, len(values) - 1)
    return jax.lax.dynamic_index_in_dim(values, index.astype(jnp.int32), keepdims=False)
