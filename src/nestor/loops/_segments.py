"""A run whose inputs change from one stretch of turns to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor.loops._loops import Loop, Made, begun, onward

Tree = Any


def in_segments(
    loop: Loop, inputs_at: Callable[[jax.Array], Tree], length: int
) -> tuple[Tree, Tree, jax.Array]:
    """Run until done, with other inputs for every `length` turns.

    The inputs of a segment are made when it begins, and kept for its turns; those of the first also start the
    loop. A last segment may be shorter.

    Args:
        loop: the iteration.
        inputs_at: the number of a segment, an int32 scalar -> the inputs of its turns.
        length: turns in a segment, a Python integer >= 1.

    Returns:
        The last carry; the record, as of every way to run a loop; the number of turns made, an int32 scalar.

    Cost: one carry, one record and one tree of inputs. Derivatives: forward mode only.

    >>> import jax.numpy as jnp
    >>> from nestor.loops import Loop, in_segments
    >>> loop = Loop(lambda step: 0, lambda step, x: x + step, lambda x: x < 100, bound=5, seen=lambda x: x)
    >>> in_segments(loop, lambda segment: 10**segment, 2)[1].tolist()
    [1, 2, 12, 22, 122]
    """
    made = begun(loop, inputs_at(jnp.int32(0)))

    def segment(made: Made) -> Made:
        number = made[0] // length
        limit = jnp.minimum((number + 1) * length, loop.bound)
        return onward(loop, inputs_at(number), made, limit)

    turns, carry, rows = jax.lax.while_loop(
        lambda made: loop.running(made[1]) & (made[0] < loop.bound), segment, made
    )
    return carry, rows, turns
