"""A linear map of tangents whose two directions are computed by different programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor.trees._vectors import float_dtype, ravel

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
    It is a system of one vector, because JAX wants the right side to be linear as a whole.
    """
    given, back_given = ravel(tangents)
    nothing, back_out = ravel(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like))
    size = given.size
    dtype = float_dtype((given, nothing))

    def parts(vector: jax.Array) -> tuple[Tree, Tree]:
        if not vector.size:
            return back_given(vector), back_out(vector)
        given, out = jax.lax.split(vector, (size, vector.size - size))  # whose transpose is one concatenation
        return back_given(given), back_out(out)

    def together(given: Tree, out: Tree) -> jax.Array:
        return jnp.concatenate([ravel(given)[0].astype(dtype), ravel(out)[0].astype(dtype)])

    def matvec(vector: jax.Array) -> jax.Array:
        given, out = parts(vector)
        return together(given, jax.tree.map(jnp.subtract, out, push(given)))

    def solve(_: Any, right: jax.Array) -> jax.Array:
        given, out = parts(right)
        return together(given, jax.tree.map(jnp.add, out, push(given)))

    def transpose_solve(_: Any, right: jax.Array) -> jax.Array:
        given, out = parts(right)
        return together(jax.tree.map(jnp.add, given, pull(out)), out)

    right = jnp.concatenate([given.astype(dtype), nothing.astype(dtype)])
    return parts(jax.lax.custom_linear_solve(matvec, right, solve, transpose_solve))[1]
