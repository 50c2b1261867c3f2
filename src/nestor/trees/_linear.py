"""A linear map of tangents whose two directions are computed by different programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def linear_map(
    push: Callable[[Tree], Tree], pull: Callable[[Tree], Tree], tangents: Tree, like: Tree
) -> Tree:
    """``push(tangents)``, with `pull` as its transpose in reverse mode.

    Args:
        push: a linear function of trees, differentiable in whatever it closes over. It is only traced, not
            compiled, when reverse mode alone is asked for.
        pull: its transpose. It may be any program; what it closes over is a constant for every derivative.
        tangents: where `push` is evaluated, a tree of floating-point arrays.
        like: a tree of the shapes and dtypes of the result.

    Derivatives of any order, forward and reverse: those above the first are derivatives of `push`.

    The only place where JAX lets a program choose its own transpose and still be differentiated again is a
    linear solve, so this is one, of the unit lower triangular system [[I, 0], [-push, I]] (a, b) = (t, 0).
    JAX wants the right side to be linear as a whole, so zeros made of no entries of all tangents are added to
    each part of it.
    """
    leaves = jax.tree.leaves(tangents)
    if not leaves:
        return push(tangents)

    def nothing(leaf: jax.Array) -> jax.Array:
        empty = jnp.concatenate([t.reshape(-1)[:0].astype(leaf.dtype) for t in leaves])
        zero = jnp.zeros((), leaf.dtype)
        return jax.lax.pad(empty, zero, [(0, leaf.size, 0)]).reshape(leaf.shape)

    def matvec(pair: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        given, out = pair
        return given, jax.tree.map(jnp.subtract, out, push(given))

    def solve(_: Any, pair: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        given, out = pair
        return given, jax.tree.map(jnp.add, out, push(given))

    def transpose_solve(_: Any, pair: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        given, out = pair
        return jax.tree.map(jnp.add, given, pull(out)), out

    right = (jax.tree.map(lambda t: t + nothing(t), tangents), jax.tree.map(nothing, like))
    return jax.lax.custom_linear_solve(matvec, right, solve, transpose_solve)[1]
