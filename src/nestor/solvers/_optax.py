"""Any optax transformation as a solver, without importing optax."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax

from nestor import trees
from nestor.programs import Program, hoist_transformation, is_transformation
from nestor.solvers._contract import Info, Minimization, Problem, info_at, judge, no_info

Tree = Any


class _OptaxState(NamedTuple):
    info: Info
    inner: Tree


@trees.record
class Optax:
    """An optax `GradientTransformation` as a minimizer; made for you when one is passed as ``solver=``.

    What the transformation closes over (a traced learning rate, say) is an input of the solve like any other:
    `Unroll`, `Checkpoint` and `Forward` differentiate it. Converged when the gradient is small, as for every
    solver; the answer without convergence is the best point seen. Cost: one gradient and the update a step.

    Args:
        start: the traced ``init`` of the transformation.
        start_captured: what it closed over.
        update: the traced ``update``.
        update_captured: what it closed over.

    >>> import optax, nestor
    >>> nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0, solver=optax.sgd(0.3)).success
    True
    """

    start: Program
    start_captured: list[Any]
    update: Program
    update_captured: list[Any]
    solves: ClassVar[type[Problem]] = Minimization

    def init(self, problem: Minimization, x: Tree) -> _OptaxState:
        """See `Solver.init`."""
        return _OptaxState(no_info(x), self.start(self.start_captured, x))

    def step(self, problem: Minimization, x: Tree, state: _OptaxState) -> tuple[Tree, _OptaxState]:
        """See `Solver.step`."""
        value, grad = problem.value_and_grad(x)
        moves, inner = self.update(self.update_captured, grad, state.inner, x, value)
        x_next = jax.tree.map(lambda a, b: a + b.astype(a.dtype), x, moves)
        return x_next, _OptaxState(info_at(value, grad), inner)

    def status(self, problem: Minimization, x: Tree, state: _OptaxState) -> jax.Array:
        """See `Solver.status`."""
        return judge(problem, state.info)


def as_solver(where: str, solver: Any, x: Tree) -> Any:
    """An optax transformation wrapped for this x; anything else as it is."""
    if not is_transformation(solver):
        return solver
    own = "use nestor.LBFGS() or another of Nestor's line-search solvers instead"
    return Optax(*hoist_transformation(where, "solver", solver, x, own))
