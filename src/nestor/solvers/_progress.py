"""When to give up: accepted moves in a row that gain nothing, shared by all methods that accept or reject."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nestor.solvers._contract import Info

_IDLE = 10  # accepted moves in a row that lower neither the merit nor the optimality: rounding, give up
_STALE = 40  # and so many that bring no new lowest of either, where a single one may still go down


class Progress(NamedTuple):
    """What the turns so far have gained."""

    idle: jax.Array  # accepted moves in a row without progress
    stale: jax.Array  # accepted moves in a row without a new lowest
    lowest: jax.Array  # merit of all accepted points
    least_optimality: jax.Array
    first_optimality: jax.Array


def begin(zero: jax.Array) -> Progress:
    """The progress before the first turn; `zero` has the dtype of the optimality."""
    none = jnp.int32(0)
    return Progress(none, none, lowest=zero, least_optimality=zero + jnp.inf, first_optimality=zero)


def advance(
    before: Progress, info: Info, *, merit: jax.Array, first: jax.Array, against: jax.Array | None = None
) -> Progress:
    """The progress after a turn.

    Args:
        before: that after the turn before.
        info: what this turn found; a rejected point is no move.
        merit: what is to come down.
        first: whether this was the start, which counts as a gain.
        against: the merit that a gain is below; None for the lowest so far: two points in turns, one rounding
            apart, are no progress.
    """
    best = first | (merit < before.lowest) | (info.optimality < before.least_optimality)
    gains = best if against is None else best | (merit < against)
    lowest = jnp.where(first, merit, jnp.minimum(merit, before.lowest))
    return Progress(
        idle=jnp.where(info.accepted, jnp.where(gains, 0, before.idle + 1), before.idle),
        stale=jnp.where(info.accepted, jnp.where(best, 0, before.stale + 1), before.stale),
        lowest=jnp.where(info.accepted, lowest, before.lowest),
        least_optimality=jnp.minimum(before.least_optimality, info.optimality),
        first_optimality=jnp.where(first, info.optimality, before.first_optimality),
    )


def exhausted(progress: Progress, moved: jax.Array, *, rises: bool = True) -> jax.Array:
    """Whether an accepted move was one too many without a gain.

    Args:
        progress: after that move.
        moved: whether it was an accepted one.
        rises: whether the method may be above its lowest merit for a while, as accelerated ones are.
    """
    over = progress.idle >= _IDLE
    return moved & (over if rises else over | (progress.stale >= _STALE))
