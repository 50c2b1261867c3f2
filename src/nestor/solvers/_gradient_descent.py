"""Steepest descent."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers import _descent
from nestor.solvers._bounds import Box, held
from nestor.solvers._contract import Minimization, Problem
from nestor.solvers._rates import Rate
from nestor.solvers._searches import Backtracking, Search

Tree = Any


class _Steepest:
    def empty(self, x: Tree) -> tuple[()]:
        return ()

    def is_empty(self, memory: tuple[()]) -> jax.Array:
        return jnp.ones((), bool)

    def forget(self, memory: tuple[()], when: jax.Array) -> tuple[()]:
        return ()

    def remember(self, memory: tuple[()], move: _descent.Move, when: jax.Array) -> tuple[()]:
        return ()

    def direction(self, memory: tuple[()], grad: Tree, x: Tree, box: Box | None) -> Tree:
        if box is None:
            return trees.negative(grad)
        return jax.tree.map(lambda on, g: jnp.where(on, 0, -g), held(x, grad, box), grad)

    def first_length(self, memory: tuple[()], guess: jax.Array, last: jax.Array) -> jax.Array:
        # A shortened step may grow again. A constant for derivatives: lengths made from lengths would carry a
        # derivative that grows without end.
        return jax.lax.stop_gradient(jnp.where(last > 0, 1.5 * last, guess))


_STEEPEST = _Steepest()


@trees.record
class GradientDescent:
    """Gradient descent: x <- x - a grad f(x), cut back to the bounds where there are any.

    Args:
        search: how the step length a is chosen: `FixedStep(length)`, `Backtracking()` (the default),
            `StrongWolfe()`, `ScheduledStep(schedule)`, `AdaGradStep(rate)` or `RMSPropStep(rate)`.

    Converges linearly, with the condition number; for a baseline, for unrolled inner problems, for fixed
    learning rates. For an answer, take `LBFGS` or `BFGS`. Unrolled derivatives count the first trial of every
    search as a constant, unless the search has a number for it (`first`). Cost: one gradient a step, memory of a few x.

    >>> import nestor
    >>> nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0, solver=nestor.GradientDescent()).success
    True
    """

    search: Search | Rate = dataclasses.field(default_factory=Backtracking)
    solves: ClassVar[type[Problem]] = Minimization
    bounds: ClassVar[bool] = True

    def init(self, problem: Minimization, x: Tree) -> _descent.DescentState:
        """See `Solver.init`."""
        return _descent.init(_STEEPEST, self.search, x)

    def step(
        self, problem: Minimization, x: Tree, state: _descent.DescentState
    ) -> tuple[Tree, _descent.DescentState]:
        """See `Solver.step`."""
        return _descent.step(_STEEPEST, self.search, problem, x, state)

    def status(self, problem: Minimization, x: Tree, state: _descent.DescentState) -> jax.Array:
        """See `Solver.status`."""
        return _descent.status(self.search, problem, state)
