"""Simplices: by sorting to find the support, by a mean over the support for the threshold and its derivative."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.proximal._contract import Set, along, not_negative
from nestor.settings import check_setting, count

Tree = Any


def project_simplex(x: jax.Array, total: jax.Array) -> jax.Array:
    """The nearest point with non-negative entries that sum to total, along the last axis.

    max(x - t, 0) with t = (sum of x over the support - total) / size of the support.
    """
    fixed = jax.lax.stop_gradient(x)
    order = -jnp.sort(-fixed, axis=-1)
    top = order[..., :1]
    excess = jnp.cumsum(jnp.where(jnp.isfinite(order), order - top, 0), axis=-1)  # -inf: never in the support
    counts = jnp.broadcast_to(jnp.arange(1, x.shape[-1] + 1).astype(x.dtype), x.shape)
    inside = (order - top) * counts > excess - jax.lax.stop_gradient(total)
    last = jnp.maximum(jnp.sum(inside, axis=-1, keepdims=True), 1)
    edge = jnp.take_along_axis(order, last - 1, axis=-1)
    support = fixed >= edge
    shift = jax.lax.stop_gradient(top)  # the mean is taken of small numbers
    size = jnp.sum(support, axis=-1, keepdims=True).astype(x.dtype)
    threshold = (jnp.sum(jnp.where(support, x - shift, 0), axis=-1, keepdims=True) - total) / size
    moved = x - shift - threshold
    kept = jax.lax.stop_gradient(support & (moved > 0))
    return jnp.where(kept, moved, 0)


@trees.record
class Simplex(Set):
    """Non-negative entries that sum to `total`.

    The nearest point is max(x - t, 0) with the t that makes the sum right.

    Args:
        total: a number > 0.
        axis: None, the whole tree is one distribution; or the axis of every leaf along which there is one each.

    Cost: a sort, n log n. Source: Held, Wolfe, Crowder 1974; Duchi et al. 2008, figure 1.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Simplex().project(jnp.array([0.5, 1.0, -1.0])).tolist()
    [0.25, 0.75, 0.0]
    """

    total: Any = 1.0
    axis: int | None = dataclasses.field(default=None, metadata={"static": True})

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        return along(lambda v: project_simplex(v, not_negative(self, "total", v.dtype)), x, self.axis)

    def lowest(self, slope: Tree) -> Tree:
        """The vertex where <slope, .> is least: all of `total` on the least entry."""

        def vertex(v: jax.Array) -> jax.Array:
            hot = jax.nn.one_hot(jnp.argmin(v, axis=-1), v.shape[-1], dtype=v.dtype)
            return not_negative(self, "total", v.dtype) * hot

        return along(vertex, slope, self.axis)

    def project_kl(self, logarithm: Tree) -> Tree:
        """The nearest point to exp(logarithm) in relative entropy: total softmax(logarithm)."""
        return along(
            lambda v: not_negative(self, "total", v.dtype) * jax.nn.softmax(v, axis=-1), logarithm, self.axis
        )


@trees.record
class SparseSimplex(Set):
    """Points of the simplex with at most `count` entries that are not zero; not convex.

    The nearest point is that of the simplex for the `count` largest entries.

    Args:
        count: how many.
        total: a number > 0.
        axis: as of `Simplex`.

    Cost: a sort. Source: Kyrillidis et al. 2013, algorithm 1.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.SparseSimplex(1).project(jnp.array([0.5, 1.0, -1.0])).tolist()
    [0.0, 1.0, 0.0]
    """

    count: int = dataclasses.field(metadata={"static": True})
    total: Any = 1.0
    axis: int | None = dataclasses.field(default=None, metadata={"static": True})

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        check_setting("SparseSimplex", "count", self.count, count(10))

        def sparse(v: jax.Array) -> jax.Array:
            _, places = jax.lax.top_k(jax.lax.stop_gradient(v), min(self.count, v.shape[-1]))
            kept = jnp.sum(jax.nn.one_hot(places, v.shape[-1], dtype=v.dtype), axis=-2) > 0
            return project_simplex(jnp.where(kept, v, -jnp.inf), not_negative(self, "total", v.dtype))

        return along(sparse, x, self.axis)
