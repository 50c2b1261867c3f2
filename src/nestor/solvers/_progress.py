"""When to give up: accepted moves in a row that gain nothing, shared by all methods that accept or reject."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nestor.solvers._contract import Info

_IDLE = 10  # accepted moves in a row that lower neither the merit nor the optimality: rounding, give up


class Progress(NamedTuple):
    """What the turns so far have gained."""

    idle: jax.Array  # accepted moves in a row without progress
    lowest: jax.Array  # merit of all accepted points
    least_optimality: jax.Array
    first_optimality: jax.Array


def begin(zero: jax.Array) -> Progress:
    """The progress before the first turn; `zero` has the dtype of the optimality."""
    return Progress(idle=jnp.int32(0), lowest=zero, least_optimality=zero + jnp.inf, first_optimality=zero)


def advance(
    before: Progress, info: Info, *, merit: jax.Array, first: jax.Array, against: jax.Array | None = None
) -> Progress:
    """The progress after a turn.

    Args:
        before: that after the turn before.
        info: what this turn found; a rejected point is no move.
        merit: what is to come down.
        first: whether this was the start, which counts as a gain.
        against: the merit that a gain is below; None for the lowest so far, for methods that hardly ever go up: two
            points in turns, one rounding apart, are no progress.
    """
    lower = merit < (before.lowest if against is None else against)
    gains = first | lower | (info.optimality < before.least_optimality)
    lowest = jnp.where(first, merit, jnp.minimum(merit, before.lowest))
    return Progress(
        idle=jnp.where(info.accepted, jnp.where(gains, 0, before.idle + 1), before.idle),
        lowest=jnp.where(info.accepted, lowest, before.lowest),
        least_optimality=jnp.minimum(before.least_optimality, info.optimality),
        first_optimality=jnp.where(first, info.optimality, before.first_optimality),
    )


def exhausted(progress: Progress, moved: jax.Array) -> jax.Array:
    """Whether an accepted move was one too many without a gain."""
    return moved & (progress.idle >= _IDLE)
