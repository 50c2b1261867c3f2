"""The batches of a training run: which rows of the data each step sees.

A batch is a function of the step number and the key alone, so that a run can be read backwards, resumed and
repeated. Shuffling therefore computes where a position goes instead of sorting: a keyed permutation of
0 ... n-1, evaluated at the positions of one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Tree = Any

_ROUNDS = 12  # of the Feistel network; Luby and Rackoff 1988 prove 4 for ideal round functions


class Batches(NamedTuple):
    """How batches are drawn; hashable, the arrays and the key come with each call.

    Attributes:
        rows: number of examples; 0 where the data is a function of the step, or nothing.
        size: examples in a batch; `rows` for the full batch.
        shuffle: whether the order is drawn anew for each epoch.
        function: whether the data is a program of the step number.
    """

    rows: int
    size: int
    shuffle: bool
    function: Any = None

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch; a last batch that is not full is left out of it."""
        return max(self.rows // self.size, 1) if self.rows else 1

    def draw(self, data: Tree, key: jax.Array, t: jax.Array) -> Tree:
        """The batch of step t (int32): a tree like the data with leading axes of length `size`."""
        if self.function is not None:
            return self.function(data, t)
        if not self.rows or self.size == self.rows:
            return data
        epoch, place = t // self.per_epoch, t % self.per_epoch
        first = place * self.size
        if not self.shuffle:
            cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, self.size)  # noqa: E731
            return jax.tree.map(cut, data)
        positions = first + jnp.arange(self.size, dtype=jnp.int32)
        chosen = shuffled(jax.random.fold_in(key, epoch), positions, self.rows)
        return jax.tree.map(lambda leaf: leaf[chosen], data)


def shuffled(key: jax.Array, positions: jax.Array, n: int) -> jax.Array:
    """Where the positions go under a random permutation of 0 ... n-1 drawn by the key.

    A balanced Feistel network on the next even number of bits, walked along its cycles until it is below n
    (fewer than four walks on average). Cost: a few integer operations for each position, whatever n.
    Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 4.

    Args:
        key: a random key.
        positions: int32 array of positions, each below n.
        n: the length of the permutation, a Python int.
    """
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask = jnp.uint32(2**half - 1)
    keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def network(value: jax.Array) -> jax.Array:
        left, right = value >> half, value & mask
        for r in range(_ROUNDS):
            left, right = right, left ^ (_mixed(right ^ keys[r]) & mask)
        return (left << half) | right

    def outside(value: jax.Array) -> jax.Array:
        return jnp.any(value >= n)

    def walk(value: jax.Array) -> jax.Array:
        return jnp.where(value >= n, network(value), value)

    first = network(positions.astype(jnp.uint32))
    return jax.lax.while_loop(outside, walk, first).astype(jnp.int32)


def _mixed(x: jax.Array) -> jax.Array:
    """A hash of 32 bits: the finalizer of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


Draw = Callable[[Tree, jax.Array, jax.Array], Tree]
