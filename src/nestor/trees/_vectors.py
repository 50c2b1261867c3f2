"""Trees as flat vectors, and their common dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def float_dtype(tree: Tree) -> Any:
    """The widest floating dtype among the leaves (the default float dtype of JAX if there are none)."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not dtypes:
        return jnp.zeros(()).dtype
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, dtypes)


def ravel(tree: Tree) -> tuple[jax.Array, Callable[[jax.Array], Tree]]:
    """One flat vector of the widest dtype, and the function that goes back.

    Returns:
        vector: shape (n,), the leaves in order of `jax.tree.leaves`.
        back: from a vector of shape (n,) to a tree with the shapes and dtypes of `tree`.
    """
    leaves, structure = jax.tree.flatten(tree)
    dtype = float_dtype(tree)
    shapes = [leaf.shape for leaf in leaves]
    dtypes = [leaf.dtype for leaf in leaves]
    sizes = [leaf.size for leaf in leaves]
    if len(leaves) == 1:
        vector = leaves[0].reshape(-1)
    elif leaves:
        vector = jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in leaves])
    else:
        vector = jnp.zeros((0,), dtype)

    def back(flat: jax.Array) -> Tree:
        pieces = jax.lax.split(flat, sizes) if len(sizes) > 1 else [flat] * len(sizes)
        parts = [
            piece.reshape(shape).astype(kind)
            for piece, shape, kind in zip(pieces, shapes, dtypes, strict=True)
        ]
        return jax.tree.unflatten(structure, parts)

    return vector, back


def vectors_like(tree: Tree, count: int) -> Tree:
    """`count` zero trees stacked along a new leading axis (the memory of a method)."""
    return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), tree)
