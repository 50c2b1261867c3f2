"""Nonlinear conjugate gradients with the classical directions."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers import _descent
from nestor.solvers._contract import Minimization, Problem
from nestor.solvers._searches import Search, StrongWolfe

Tree = Any
Direction = Literal[
    "hestenes-stiefel",
    "fletcher-reeves",
    "polak-ribiere+",
    "dai-yuan",
    "conjugate-descent",
]


class _Memory(NamedTuple):
    beta: jax.Array
    direction: Tree


class _Conjugate(NamedTuple):
    """d <- -g + beta d, with beta by the named formula; restarted every n moves."""

    formula: str

    def empty(self, x: Tree) -> _Memory:
        return _Memory(jnp.zeros((), trees.float_dtype(x)), trees.zeros_like(x))

    def is_empty(self, memory: _Memory) -> jax.Array:
        return memory.beta == 0

    def forget(self, memory: _Memory, when: jax.Array) -> _Memory:
        return memory._replace(beta=jnp.where(when, 0, memory.beta))

    def remember(self, memory: _Memory, move: _descent.Move, when: jax.Array) -> _Memory:
        beta = _beta(self.formula, move)
        # Powell's restart: successive gradients should be nearly orthogonal.
        overlap = jnp.abs(trees.dot(move.grad, move.old_grad))
        stale = overlap > 0.2 * trees.squared_norm(move.grad)
        restarts = stale if self.formula in ("fletcher-reeves", "dai-yuan", "conjugate-descent") else False
        beta = jnp.where(jnp.isfinite(beta) & ~jnp.asarray(restarts), beta, 0)
        return trees.select(when, _Memory(beta, move.direction), memory)

    def direction(self, memory: _Memory, grad: Tree) -> Tree:
        return trees.add_scaled(trees.negative(grad), memory.beta, memory.direction)

    def first_length(self, memory: _Memory, guess: jax.Array, last: jax.Array) -> jax.Array:
        return guess


def _beta(formula: str, move: _descent.Move) -> jax.Array:
    grad, old, change, direction = move.grad, move.old_grad, move.change, move.direction

    def over(top: jax.Array, bottom: jax.Array) -> jax.Array:
        fine = bottom != 0
        return jnp.where(fine, top / jnp.where(fine, bottom, 1), 0)

    if formula == "hestenes-stiefel":
        return jnp.maximum(over(trees.dot(grad, change), trees.dot(direction, change)), 0)
    if formula == "fletcher-reeves":
        return over(trees.squared_norm(grad), trees.squared_norm(old))
    if formula == "polak-ribiere+":
        return jnp.maximum(over(trees.dot(grad, change), trees.squared_norm(old)), 0)
    if formula == "dai-yuan":
        return over(trees.squared_norm(grad), trees.dot(direction, change))
    return over(trees.squared_norm(grad), -move.old_slope)  # conjugate descent


@trees.record
class NonlinearCG:
    """Nonlinear conjugate gradients: d <- -g + beta d, memory of a few vectors.

    Args:
        direction: the formula of beta: "polak-ribiere+" (the default), "hestenes-stiefel" (clipped at zero as
            well), "fletcher-reeves", "dai-yuan" or "conjugate-descent".
        search: step lengths; the default asks a tenth of the slope, as these methods need.

    Restarts with steepest descent when a direction does not descend, when a search fails, and (for the last
    three formulas, which cannot recover by themselves) when gradients lose orthogonality (Powell 1977).
    Cost: a gradient a step. Source: Hager and Zhang 2006, table 1.

    Raises:
        ValueError: an unknown direction, when the solve is traced.

    >>> import nestor
    >>> solver = nestor.NonlinearCG("dai-yuan")
    >>> nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0, solver=solver).success
    True
    """

    direction: Direction = "polak-ribiere+"
    search: Search = dataclasses.field(default_factory=lambda: StrongWolfe(curvature=0.1))
    solves: ClassVar[type[Problem]] = Minimization

    def init(self, problem: Minimization, x: Tree) -> _descent.DescentState:
        """See `Solver.init`."""
        return _descent.init(_Conjugate(self.direction), x)

    def step(
        self, problem: Minimization, x: Tree, state: _descent.DescentState
    ) -> tuple[Tree, _descent.DescentState]:
        """See `Solver.step`."""
        return _descent.step(_Conjugate(self.direction), self.search, problem, x, state)

    def status(self, problem: Minimization, x: Tree, state: _descent.DescentState) -> jax.Array:
        """See `Solver.status`."""
        return _descent.status(self.search, problem, state)
