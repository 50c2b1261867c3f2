"""Vector-space operations on trees of real floating-point arrays.

Scalars (step lengths, inner products) have the widest dtype among the leaves; every leaf keeps its own.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from nestor.trees._floats import floats
from nestor.trees._vectors import float_dtype

Tree = Any


def add(a: Tree, b: Tree) -> Tree:
    """a + b, leaf by leaf."""
    return jax.tree.map(jax.lax.add, a, b)


def subtract(a: Tree, b: Tree) -> Tree:
    """a - b, leaf by leaf."""
    return jax.tree.map(jax.lax.sub, a, b)


def negative(a: Tree) -> Tree:
    """-a, leaf by leaf."""
    return jax.tree.map(jax.lax.neg, a)


def scale(factor: Any, a: Tree) -> Tree:
    """factor * a for a scalar factor; every leaf keeps its dtype."""
    return jax.tree.map(lambda leaf: _as(factor, leaf) * leaf, a)


def add_scaled(a: Tree, factor: Any, b: Tree) -> Tree:
    """a + factor * b for a scalar factor: the "axpy" of a step."""
    return jax.tree.map(lambda x, y: x + _as(factor, y) * y, a, b)


def zeros_like(a: Tree) -> Tree:
    """A tree of zeros of the same shapes and dtypes."""
    return jax.tree.map(jnp.zeros_like, a)


def dot(a: Tree, b: Tree) -> jax.Array:
    """The inner product, summed over all leaves: a scalar of the widest dtype.

    Cost: 2 n operations, no copies.
    """
    dtype = float_dtype(a)
    products = [
        jnp.vdot(x, y, precision="highest").astype(dtype)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    return sum(products[1:], products[0]) if products else jnp.zeros((), dtype)


def squared_norm(a: Tree) -> jax.Array:
    """The sum of the squares of all entries."""
    return dot(a, a)


def norm(a: Tree) -> jax.Array:
    """The Euclidean norm; its derivative at zero is zero, not NaN."""
    return root(squared_norm(a))


def root(square: jax.Array) -> jax.Array:
    """The square root, entry by entry; its derivative at zero is zero, not infinite."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, jnp.ones_like(square))), 0 * square)


def max_norm(a: Tree) -> jax.Array:
    """The largest absolute entry; NaN if any entry is NaN, zero for an empty tree."""
    dtype = float_dtype(a)
    entries = [jnp.max(jnp.abs(leaf)).astype(dtype) for leaf in jax.tree.leaves(a) if leaf.size]
    largest = jnp.zeros((), dtype)
    for entry in entries:
        largest = jnp.maximum(largest, entry)
    return largest


def select(condition: Any, a: Tree, b: Tree) -> Tree:
    """a where the scalar condition holds, else b, for whole trees (None leaves allowed)."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def all_finite(a: Tree) -> jax.Array:
    """Whether no floating-point leaf holds a NaN or an infinity."""
    # A maximum compiles in a fraction of the time that a conjunction does, and is NaN where an entry is.
    return jnp.isfinite(max_norm([jnp.asarray(leaf) for leaf in floats(a)]))


def size(a: Tree) -> int:
    """The number of entries, a Python int."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(a))


def _as(factor: Any, leaf: jax.Array) -> jax.Array:
    return jnp.asarray(factor).astype(leaf.dtype)
