"""The leaves of a tree that have derivatives: floating-point ones, not integers, booleans or random keys."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def is_float(leaf: Any) -> bool:
    """Whether a leaf is a real or complex floating-point array, or a float."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def as_array(leaf: Any) -> jax.Array:
    """A leaf as an array of JAX's, with a copy of what NumPy may still change.

    `jax.numpy.asarray` compiles a program for every new shape of a NumPy array, at about 10 ms and 1.5 MB each; a
    transfer compiles nothing.
    """
    if isinstance(leaf, (np.ndarray, np.generic)):
        return jax.device_put(np.array(leaf))  # a transfer alone may share the memory
    return jnp.asarray(leaf)


def floats(tree: Tree) -> list[Any]:
    """The floating-point leaves, in order."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_float(leaf)]


def with_floats(tree: Tree, new: list[Any]) -> Tree:
    """The tree with other floating-point leaves."""
    supply = iter(new)
    return jax.tree.map(lambda leaf: next(supply) if is_float(leaf) else leaf, tree)


def tangent_like(tree: Tree, new: list[Any]) -> Tree:
    """A tangent or a cotangent of a tree of arrays, given for its floating-point leaves: float0 for others."""
    supply = iter(new)
    return jax.tree.map(lambda leaf: next(supply) if is_float(leaf) else no_tangent(leaf), tree)


def no_tangent(leaf: Any) -> np.ndarray[Any, Any]:
    """The tangent of an array that is not floating-point."""
    return np.zeros(leaf.shape, jax.dtypes.float0)
