"""The one place where derivatives cross a linear solve."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from nestor.linear._direct import Auto
from nestor.linear._operators import LinearSolver, Operator

Tree = Any


def solve(operator: Operator, b: Tree, solver: LinearSolver | None = None) -> Tree:
    """Solve A x = b, differentiable to any order, forward and reverse, in b and in whatever A closes over.

    Args:
        operator: the map A with its facts.
        b: the right-hand side, a tree like ``operator.like``.
        solver: a `LinearSolver`; None takes `Auto()`: dense for at most 256 unknowns, else CG or GMRES.

    Returns:
        x, a tree like b; NaN where the solver failed.

    Derivatives come from A dx = db - dA x and from the transposed system, each one more solve by the same
    solver; nothing is differentiated through a factorisation or an iteration.

    >>> import jax, jax.numpy as jnp
    >>> from nestor import linear
    >>> x = lambda a: linear.solve(linear.Operator(lambda v: a * v, jnp.zeros(())), jnp.float32(3.0))
    >>> float(jax.grad(x)(jnp.float32(2.0)))  # d(3/a)/da
    -0.75
    """
    method = Auto() if solver is None else solver

    def forward(matvec: Callable[[Tree], Tree], rhs: Tree) -> Tree:
        return method.run(dataclasses.replace(operator, matvec=matvec), rhs)

    return jax.lax.custom_linear_solve(
        operator.matvec, b, forward, transpose_solve=forward, symmetric=operator.symmetric
    )
