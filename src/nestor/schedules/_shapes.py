"""Schedules with a formula."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nestor.schedules._record import Schedule, numbers, part, schedule

Tree = Any


@schedule
class Constant:
    """The same value at every step.

    Args:
        value: a number.

    >>> import nestor
    >>> nestor.schedules.Constant(0.1)
    Constant(value=0.1)
    """

    value: Any

    def __call__(self, step: Any) -> jax.Array:
        """The value."""
        _, value = numbers(self, step)
        return value


@schedule
class InverseTime:
    """start / (1 + decay t): the classical decay of stochastic approximation.

    Args:
        start: the value at t = 0.
        decay: how fast it falls; after 1 / decay steps it is half of `start`.

    Source: Robbins and Monro 1951; the "1 / t decay" of Hype.

    >>> import nestor
    >>> float(nestor.schedules.InverseTime(1.0, 0.5)(2))
    0.5
    """

    start: Any
    decay: Any

    def __call__(self, step: Any) -> jax.Array:
        """The value at a step."""
        t, start, decay = numbers(self, step)
        return start / (1 + decay * t)


@schedule
class Exponential:
    """start * rate^(t / every).

    Args:
        start: the value at t = 0.
        rate: the factor of `every` steps, positive; exp(-k) for a decay a exp(-k t).
        every: the steps in which the value changes by that factor.

    >>> import nestor
    >>> float(nestor.schedules.Exponential(1.0, 0.5, every=10)(20))
    0.25
    """

    start: Any
    rate: Any
    every: Any = 1

    def __call__(self, step: Any) -> jax.Array:
        """The value at a step."""
        t, start, rate, every = numbers(self, step)
        return start * rate ** (t / every)


@schedule
class Cosine:
    """Half a cosine from `start` to `end`, and `end` from then on.

    Args:
        start: the value at t = 0.
        steps: when the end is reached.
        end: the last value.

    Source: Loshchilov and Hutter 2017, equation 5, without restarts.

    >>> import nestor
    >>> [round(float(nestor.schedules.Cosine(1.0, 10)(t)), 3) for t in (0, 5, 10, 99)]
    [1.0, 0.5, 0.0, 0.0]
    """

    start: Any
    steps: Any
    end: Any = 0.0

    def __call__(self, step: Any) -> jax.Array:
        """The value at a step."""
        t, start, steps, end = numbers(self, step)
        return end + (start - end) * (1 + jnp.cos(jnp.pi * part(t, steps))) / 2


@schedule
class Warmup:
    """A straight line up to the first value of another schedule, which then begins.

    Args:
        schedule: what follows; its step 0 is the end of the warm-up.
        steps: the length of the warm-up.
        start: the value at t = 0.

    >>> import nestor
    >>> rate = nestor.schedules.Warmup(nestor.schedules.Cosine(1.0, 10), 4)
    >>> [round(float(rate(t)), 3) for t in (0, 2, 4, 9)]
    [0.0, 0.5, 1.0, 0.5]
    """

    schedule: Schedule
    steps: Any
    start: Any = 0.0

    def __call__(self, step: Any) -> Tree:
        """The value at a step; a tree where the schedule gives one."""

        def blend(value: jax.Array) -> jax.Array:
            t, steps, start = (jnp.asarray(n).astype(value.dtype) for n in (step, self.steps, self.start))
            return start + (value - start) * part(t, steps)

        # the other schedule may be a table, which knows whole steps only
        steps = jnp.asarray(self.steps)
        since = jnp.asarray(step).astype(steps.dtype) - steps
        return jax.tree.map(blend, self.schedule(jnp.maximum(since, 0)))
