"""Nonlinear conjugate gradients with the classical directions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers import _descent
from nestor.solvers._contract import Minimization, Problem
from nestor.solvers._rates import Rate
from nestor.solvers._searches import Search, StrongWolfe

Tree = Any
Direction = Literal[
    "hestenes-stiefel",
    "fletcher-reeves",
    "polak-ribiere+",
    "dai-yuan",
    "conjugate-descent",
    "daniel",
]


class _Memory(NamedTuple):
    beta: jax.Array
    direction: Tree


class _Conjugate(NamedTuple):
    """d <- -g + beta d, with beta by the named formula."""

    formula: str
    searched: bool  # whether steps come from a line search

    def empty(self, x: Tree) -> _Memory:
        return _Memory(jnp.zeros((), trees.float_dtype(x)), trees.zeros_like(x))

    def is_empty(self, memory: _Memory) -> jax.Array:
        return memory.beta == 0

    def forget(self, memory: _Memory, when: jax.Array) -> _Memory:
        return memory._replace(beta=jnp.where(when, 0, memory.beta))

    def remember(self, memory: _Memory, move: _descent.Move, when: jax.Array) -> _Memory:
        beta = _beta(self.formula, move)
        if self.searched and self.formula in ("fletcher-reeves", "dai-yuan", "conjugate-descent"):
            # Powell's restart: after a line search successive gradients should be nearly orthogonal.
            overlap = jnp.abs(trees.dot(move.grad, move.old_grad))
            stale = overlap > 0.2 * trees.squared_norm(move.grad)
            beta = jnp.where(stale, 0, beta)
        beta = jnp.where(jnp.isfinite(beta), beta, 0)
        return trees.select(when, _Memory(beta, move.direction), memory)

    def direction(self, memory: _Memory, grad: Tree, x: Tree, box: Any) -> Tree:
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
    if formula == "daniel":
        curvature = trees.dot(direction, move.seen)
        return jnp.where(curvature > 0, jnp.maximum(over(trees.dot(grad, move.seen), curvature), 0), 0)
    return over(trees.squared_norm(grad), -move.old_slope)  # conjugate descent


def _curved(problem: Minimization, x: Tree, direction: Tree) -> tuple[jax.Array, Tree, Tree]:
    """The objective, its gradient, and the Hessian times the direction that led there."""

    def transform(fun: Callable[[Tree], Any]) -> Callable[[Tree], Any]:
        def at(pair: tuple[Tree, Tree]) -> tuple[jax.Array, Tree, Tree]:
            point, along = pair
            (value, grad), (_, product) = jax.jvp(jax.value_and_grad(fun), (point,), (along,))
            return value, grad, product

        return at

    value, grad, product = problem.evaluate(transform, (x, direction))
    return value.astype(trees.float_dtype(x)), grad, product


_LOOKS = {"daniel": _descent.Look(_curved)}


@trees.record
class NonlinearCG:
    """Nonlinear conjugate gradients: d <- -g + beta d, memory of a few vectors.

    Args:
        direction: the formula of beta: "polak-ribiere+" (the default), "hestenes-stiefel" (clipped at zero as
            well), "fletcher-reeves", "dai-yuan", "conjugate-descent", or "daniel": g'Hd / d'Hd with the Hessian
            at the new point (clipped too), one product with it a step.
        search: step lengths; the default asks a tenth of the slope, as these methods need.

    Restarts with steepest descent when a direction does not descend, when a search fails, and (for the three
    formulas with g'g on top, which cannot recover by themselves) when gradients lose orthogonality although the
    step was searched for (Powell 1977).
    Cost: a gradient a step. Source: Hager and Zhang 2006, table 1.

    Raises:
        ValueError: an unknown direction, when the solve is traced.

    >>> import nestor
    >>> solver = nestor.NonlinearCG("dai-yuan")
    >>> nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0, solver=solver).success
    True
    """

    direction: Direction = "polak-ribiere+"
    search: Search | Rate = dataclasses.field(default_factory=lambda: StrongWolfe(curvature=0.1))
    solves: ClassVar[type[Problem]] = Minimization

    def init(self, problem: Minimization, x: Tree) -> _descent.DescentState:
        """See `Solver.init`."""
        return _descent.init(self._rule(), self.search, x)

    def step(
        self, problem: Minimization, x: Tree, state: _descent.DescentState
    ) -> tuple[Tree, _descent.DescentState]:
        """See `Solver.step`."""
        look = _LOOKS.get(self.direction, _descent.GRADIENT)
        return _descent.step(self._rule(), self.search, problem, x, state, look)

    def status(self, problem: Minimization, x: Tree, state: _descent.DescentState) -> jax.Array:
        """See `Solver.status`."""
        return _descent.status(self.search, problem, state)

    def _rule(self) -> _Conjugate:
        given = isinstance(self.search, Rate) or self.search.fixed_length is not None
        return _Conjugate(self.direction, not given)
