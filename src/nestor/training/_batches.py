"""The batches of a training run: which rows of the data each step sees.

A batch is a function of the step number and the key alone, so that a run can be read backwards, resumed and
repeated. Shuffling therefore computes where a position goes instead of sorting: a keyed permutation of
0 ... n-1, evaluated at the positions of one batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any

_FEW = 64  # rows up to which a permutation is found by sorting: the network is too regular there
_GOLDEN = 0x9E3779B9
_ROUNDS = 6  # of the Feistel network; Luby and Rackoff 1988 prove 4 for ideal round functions


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
        chosen = shuffled(key, epoch, positions, self.rows)
        return jax.tree.map(lambda leaf: leaf[chosen], data)

    def example(self, data: Tree, key: Any) -> Tree:
        """A tree of the shapes of a batch, to trace with: nothing is computed, and so nothing compiled."""
        shapes = jax.eval_shape(self.draw, data, key, jnp.int32(0))
        if any(jnp.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in jax.tree.leaves(shapes)):
            return self.draw(data, key, jnp.int32(0))  # random keys have no zero
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def shuffled(key: jax.Array, epoch: jax.Array, positions: jax.Array, n: int) -> jax.Array:
    """Where the positions go under a random permutation of 0 ... n-1 drawn by key and epoch.

    A balanced Feistel network on the next even number of bits, walked along its cycles until it is below n
    (fewer than four walks on average). Cost: a few integer operations for each position, whatever n.
    Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 4.

    Args:
        key: a random key.
        epoch: int32 scalar; each has a permutation of its own.
        positions: int32 array of positions, each below n.
        n: the length of the permutation, a Python int.
    """
    seed = _seed(key, epoch)
    if n <= _FEW:
        return _ranks(seed, positions, n)
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask = jnp.uint32(2**half - 1)
    keys = [_mixed(seed + jnp.uint32(_GOLDEN * (r + 1) % 2**32)) for r in range(_ROUNDS)]

    def network(value: jax.Array) -> jax.Array:
        left, right = value >> half, value & mask
        for own in keys:
            left, right = right, left ^ (_mixed(right ^ own) & mask)
        return (left << half) | right

    def walk(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        value, outside = state
        value = jnp.where(outside, network(value), value)
        return value, value >= n

    start = positions.astype(jnp.uint32), jnp.ones(positions.shape, bool)
    value, _ = jax.lax.while_loop(lambda state: jnp.any(state[1]), walk, start)
    return value.astype(jnp.int32)


def _seed(key: jax.Array, epoch: jax.Array) -> jax.Array:
    """A hash of the key and the epoch, uint32."""
    seed = _mixed(epoch.astype(jnp.uint32) + jnp.uint32(_GOLDEN))
    for word in jax.random.key_data(key).reshape(-1):
        seed = _mixed(seed ^ word) + word
    return seed


def _ranks(seed: jax.Array, positions: jax.Array, n: int) -> jax.Array:
    """The permutation that sorts n random numbers, at these positions: few enough to compare each with each."""
    drawn = lambda place: _mixed(seed ^ _mixed(place + jnp.uint32(_GOLDEN)))  # noqa: E731
    place = jnp.arange(n, dtype=jnp.uint32).reshape((1,) * positions.ndim + (n,))
    own = positions.astype(jnp.uint32)[..., None]
    other, one = drawn(place), drawn(own)  # of these positions alone: all n would be hashed n times over
    before = (other < one) | ((other == one) & (place < own))
    return jnp.sum(before, axis=-1, dtype=jnp.int32)


def _mixed(x: jax.Array) -> jax.Array:
    """A hash of 32 bits: the finalizer of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
