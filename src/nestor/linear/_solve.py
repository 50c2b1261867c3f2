"""The one place where derivatives cross a linear solve."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.errors import BadArgument
from nestor.linear._auto import Auto
from nestor.linear._operators import LinearSolver, Operator
from nestor.settings import shown

Tree = Any


def solve(operator: Operator, b: Tree, solver: LinearSolver | None = None) -> Tree:
    """Solve A x = b, differentiable to any order, forward and reverse, in b and in whatever A closes over.

    Args:
        operator: the map A with its facts.
        b: the right-hand side, a tree like ``operator.like``.
        solver: a `LinearSolver`; None takes `Auto()`: by the facts and the size.

    Returns:
        x, a tree like b; NaN where the solver failed.

    Raises:
        BadArgument: no `Operator`, or no linear solver.

    Derivatives come from A dx = db - dA x and from the transposed system, each one more solve by the same
    solver; nothing is differentiated through a factorisation or an iteration.

    >>> import jax, jax.numpy as jnp
    >>> from nestor import linear
    >>> x = lambda a: linear.solve(linear.Operator(lambda v: a * v, jnp.zeros(())), jnp.float32(3.0))
    >>> float(jax.grad(x)(jnp.float32(2.0)))  # d(3/a)/da
    -0.75
    """
    method = Auto() if solver is None else solver
    if not isinstance(operator, Operator):
        raise BadArgument(
            "linear.solve",
            "operator",
            got=shown(operator),
            want="a nestor.linear.Operator",
            do="write nestor.linear.Operator(lambda v: A @ v, like=b), with symmetric=True and positive=True if so",
        )
    if isinstance(method, type) or not hasattr(method, "run"):
        raise BadArgument(
            "linear.solve",
            "solver",
            got=shown(method),
            want="None or a linear solver, an object",
            do="pass for example nestor.CG() or nestor.LU()",
        )
    # One vector, not a tree: JAX transposes a solve only if every leaf of b is perturbed. And a space that is
    # described by shapes alone: what is perturbed must reach the solve through A and b only.
    right, back = trees.ravel(b)
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), operator.like)

    def flat(vector: jax.Array) -> jax.Array:
        return trees.ravel(operator.matvec(back(vector)))[0]

    def run(matvec: Callable[[jax.Array], jax.Array], vector: jax.Array) -> jax.Array:
        def on_trees(tree: Tree) -> Tree:
            return back(matvec(trees.ravel(tree)[0]))

        posed = dataclasses.replace(operator, matvec=on_trees, like=like)
        return trees.ravel(method.run(posed, back(vector)))[0]

    try:
        x = jax.lax.custom_linear_solve(flat, right, run, transpose_solve=run, symmetric=operator.symmetric)
    except ValueError as error:
        if "Reverse-mode" not in str(error):
            raise
        # A holds a while loop and has no transpose; JAX says so again if reverse mode is really wanted.
        x = jax.lax.custom_linear_solve(flat, right, run)
    return back(x)
