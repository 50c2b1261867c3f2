"""Update rules as data: a list of elementary moves that floats make and integers make and unmake.

A rule moves a position x with the help of slots (velocity, second moment ...), all of one shape. Its moves are
elementwise, so that one rule serves a leaf of a tree, a flat vector of floats, and a vector of integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Coefficients = dict[str, jax.Array]
Slots = dict[str, jax.Array]
X = "x"  # the position, where it stands among the slots


class Scale(NamedTuple):
    """slot <- c[by] * slot, with 0 < c <= 1: the only move that loses bits."""

    slot: str
    by: str


class Add(NamedTuple):
    """slot <- slot + amount(c, gradient, the other slots)."""

    slot: str
    amount: Callable[[Coefficients, jax.Array, Slots], jax.Array]


class Forget(NamedTuple):
    """slot <- 0: for steps without memory."""

    slot: str


class Rule(NamedTuple):
    """One step of an optimizer.

    Attributes:
        name: what it is called in messages.
        slots: the names of its slots, which start at zero.
        kicks: moves of the slots, in order; they may use the gradient at x.
        drift: (coefficients, slots) -> what is added to x. It must not use the gradient: from where x has
            arrived, and the slots, it is known where x came from, and so the gradient there.
        shrink: the name of a coefficient that x is multiplied with before the drift (decoupled weight decay);
            empty for none.
        fractions: for each slot the bits behind the binary point in 32-bit and in 64-bit integers.
    """

    name: str
    slots: tuple[str, ...]
    kicks: tuple[Scale | Add | Forget, ...]
    drift: Callable[[Coefficients, Slots], jax.Array]
    shrink: str = ""
    fractions: tuple[tuple[int, int], ...] = ()

    @property
    def scaled(self) -> dict[str, str]:
        """What loses bits: for each slot that is multiplied, and for "x", the name of the coefficient."""
        slots = {move.slot: move.by for move in self.kicks if isinstance(move, Scale)}
        return {**slots, X: self.shrink} if self.shrink else slots


def step(
    rule: Rule,
    c: Coefficients,
    gradient: jax.Array,
    x: jax.Array,
    slots: Slots,
    left_over: float = 0.0,
    floor: float = 0.0,
) -> tuple[jax.Array, Slots]:
    """One step of a rule in floating point.

    Args:
        rule: the rule.
        c: its coefficients, scalars or arrays that broadcast against x.
        gradient, x: arrays of one shape.
        slots: an array of that shape for each slot.
        left_over: what `Forget` multiplies with.
        floor: what a rule takes a square to be at least before it takes the root, as ``c["floor"]``: the
            resolution of integers, which hold no smaller square than that.

    Returns:
        The new x and slots.
    """
    slots, c = dict(slots), {**c, "floor": jnp.asarray(floor)}
    for move in rule.kicks:
        if isinstance(move, Scale):
            slots[move.slot] = _times(c[move.by], slots[move.slot])
        elif isinstance(move, Add):
            slots[move.slot] = slots[move.slot] + move.amount(c, gradient, slots).astype(x.dtype)
        else:
            slots[move.slot] = (
                _times(jnp.asarray(left_over), slots[move.slot]) if left_over else jnp.zeros_like(x)
            )
    if rule.shrink:
        x = _times(c[rule.shrink], x)
    return x + rule.drift(c, slots).astype(x.dtype), slots


def _times(factor: jax.Array, leaf: jax.Array) -> jax.Array:
    return factor.astype(leaf.dtype) * leaf
