"""Isotonic regression: the nearest sequence that never falls."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.proximal._contract import Set, along

Tree = Any


class _Stack(NamedTuple):
    """Blocks so far, each with the sum and the number of its entries; `top` counts the blocks."""

    sums: jax.Array
    counts: jax.Array
    top: jax.Array
    next: jax.Array


def _blocks(v: jax.Array) -> jax.Array:
    """For every entry of a vector, the number of the block it is pooled in."""
    n = v.size

    def pools(s: _Stack) -> jax.Array:
        below, last = jnp.maximum(s.top - 2, 0), jnp.maximum(s.top - 1, 0)
        left = s.sums[below] * s.counts[last].astype(v.dtype)
        right = s.sums[last] * s.counts[below].astype(v.dtype)
        return (s.top >= 2) & (left >= right)

    def step(s: _Stack) -> _Stack:
        below, last = jnp.maximum(s.top - 2, 0), jnp.maximum(s.top - 1, 0)
        pool = pools(s)
        place = jnp.where(pool, below, s.top)
        total = jnp.where(pool, s.sums[below] + s.sums[last], v[jnp.minimum(s.next, n - 1)])
        count = jnp.where(pool, s.counts[below] + s.counts[last], 1)
        return _Stack(
            s.sums.at[place].set(total),
            s.counts.at[place].set(count),
            jnp.where(pool, s.top - 1, s.top + 1),
            jnp.where(pool, s.next, s.next + 1),
        )

    # An entry begins a block when all that can be pooled has been; after the last one pooling goes on.
    def more(s: _Stack) -> jax.Array:
        return (s.next < n) | pools(s)

    zero = jnp.int32(0)
    start = _Stack(jnp.zeros_like(v), jnp.zeros(n, jnp.int32), zero, zero)
    end = jax.lax.while_loop(more, step, start)
    ends = jnp.cumsum(jnp.where(jnp.arange(n, dtype=jnp.int32) < end.top, end.counts, 0))
    return jnp.searchsorted(ends, jnp.arange(n, dtype=ends.dtype), side="right")


def _pooled(v: jax.Array) -> jax.Array:
    block = _blocks(jax.lax.stop_gradient(v))
    sums = jnp.zeros_like(v).at[block].add(v)
    counts = jnp.zeros_like(v).at[block].add(jnp.ones_like(v))
    return (sums / jnp.maximum(counts, 1))[block]


@trees.record
class Monotone(Set):
    """Sequences that never fall, x[0] <= x[1] <= ...: isotonic regression.

    The nearest sequence is that of the means of blocks; the derivative takes the mean over each block.

    Args:
        axis: None, the whole tree is one sequence; or the axis of every leaf.
        falling: sequences that never rise instead.

    Cost: n operations one after the other (pool adjacent violators). Source: Ayer et al. 1955; Best and
    Chakravarti 1990.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Monotone().project(jnp.array([1.0, 3.0, 2.0, 4.0])).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """

    axis: int | None = dataclasses.field(default=None, metadata={"static": True})
    falling: bool = dataclasses.field(default=False, metadata={"static": True})

    def project(self, x: Tree) -> Tree:
        """The nearest sequence."""

        def pool(v: jax.Array) -> jax.Array:
            if not v.size:
                return v
            sign = -1 if self.falling else 1
            rows = (sign * v).reshape(-1, v.shape[-1])
            return sign * jax.vmap(_pooled)(rows).reshape(v.shape)

        return along(pool, x, self.axis)
