"""Any optax transformation as a solver, without importing optax."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.errors import BadArgument
from nestor.programs import Program, hoist, safe_roots
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
    solver; the answer without convergence is the best point seen.

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


def as_solver(solver: Any, x: Tree) -> Any:
    """An optax transformation wrapped for this x; anything else as it is."""
    if not (isinstance(solver, tuple) and hasattr(solver, "init") and hasattr(solver, "update")):
        return solver
    first, follow = getattr(solver, "init"), getattr(solver, "update")  # noqa: B009 (a NamedTuple of optax)
    wants_more = type(solver).__name__.endswith("ExtraArgs")

    def start(x: Tree) -> Tree:
        # optax starts counters as Python-typed scalars; the loop needs fixed dtypes
        return jax.tree.map(jnp.asarray, first(x))

    def update(grad: Tree, inner: Tree, x: Tree, value: jax.Array) -> tuple[Tree, Tree]:
        extra = {"value": value, "grad": grad} if wants_more else {}
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counters with floats
            moves, after = follow(grad, inner, x, **extra)
        return moves, jax.tree.map(lambda new, old: new.astype(old.dtype), after, inner)

    start_program, start_captured = hoist(start, x)
    inner = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), start_program.out_shape)
    value = jnp.zeros((), trees.float_dtype(x))
    try:
        update_program, update_captured = hoist(update, x, inner, x, value)
    except TypeError as error:
        raise BadArgument(
            "minimize",
            "solver",
            got=f"an optax transformation whose update cannot be traced ({error})",
            want="an optax transformation that needs gradients, parameters and the value only",
            do="use nestor.LBFGS() or another of Nestor's line-search solvers instead",
        ) from error
    return Optax(start_program, start_captured, safe_roots(update_program), update_captured)
