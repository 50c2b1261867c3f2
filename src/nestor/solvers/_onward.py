"""The default goes on: where its first method ends without an answer, Newton's begins at the best point.

Only where the status is known when the first method ends: a call outside `jit` and `vmap`. There a second
method costs nothing until it is needed; inside a trace both would be compiled, and run in every lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.adjoints import Answer
from nestor.programs import in_trace
from nestor.solution import History, Status
from nestor.solvers import _drive
from nestor.solvers._contract import Minimization
from nestor.solvers._newton import Newton
from nestor.solvers._newton_cg import NewtonCG

Tree = Any

_DENSE_HESSIAN_UP_TO = 200
_SHARED_FROM = 100  # steps below which the first method gets them all
MENDED = (  # what another method may mend
    Status.LINE_SEARCH_FAILED,
    Status.NOT_DESCENT,
    Status.NOT_FINITE,
    Status.OUT_OF_STEPS,  # of its share
    Status.SINGULAR,
    Status.STALLED,
)


class Following(NamedTuple):
    """A second solve: what `_drive.solution_map` wants of it."""

    plan: _drive.Plan
    inputs: _drive.Inputs


def solved(
    plan: _drive.Plan, inputs: _drive.Inputs, solve: Callable[..., Answer], *, goes_on: bool
) -> Answer:
    """The answer of a solve and, where it may and must go on, of the one that does.

    Args:
        plan, inputs: of the first solve.
        solve: (plan, inputs, turns made before) -> the answer; one without its point is that of the start.
        goes_on: whether another method may follow.
    """
    if not goes_on:
        return solve(plan, inputs, 0)
    inputs = share(plan, inputs)
    first = solve(plan, inputs, 0)
    best = inputs.x0 if first.x is None else first.x
    following = _following(plan, inputs, best, first.record)
    if following is None:
        return first
    return _joined(first, solve(following.plan, following.inputs, int(first.record.turns)))


def share(plan: _drive.Plan, inputs: _drive.Inputs) -> _drive.Inputs:
    """The inputs of a first solve that leaves half of the steps to Newton's method, where that one is dense."""
    solver = follower(plan, inputs)
    if plan.max_steps < _SHARED_FROM or not isinstance(solver, Newton) or in_trace(inputs):
        return inputs
    return inputs._replace(onward=_drive.Onward(jnp.int32(plan.max_steps // 2 + 1), None))


def _following(plan: _drive.Plan, inputs: _drive.Inputs, x: Tree, record: _drive.Record) -> Following | None:
    """The solve that goes on from x after `record`, with the steps that are left; None where there is none.

    There is none where the first solve is over, or where its status is not known yet.
    """
    code = record.code
    if isinstance(code, jax.core.Tracer) or jnp.ndim(code) > 0:
        return None
    left = plan.max_steps + 1 - int(record.turns)
    solver = follower(plan, inputs)
    if left < 2 or solver is None or not _may_be_mended(plan, inputs, record):
        return None
    arrays, rest = trees.split(solver)
    onward = _drive.Onward(jnp.int32(left), record.first)
    return Following(plan._replace(solver=rest), inputs._replace(x0=x, solver=arrays, onward=onward))


def _may_be_mended(plan: _drive.Plan, inputs: _drive.Inputs, record: _drive.Record) -> bool:
    """Whether there is something left to do: no answer, or one that holds only by the scale of the gradient."""
    if Status(int(record.code)) is Status.CONVERGED:
        eps = float(jnp.finfo(trees.float_dtype(inputs.x0)).eps)
        return bool(record.optimality > 2 * max(plan.tol, eps**0.5))
    return Status(int(record.code)) in MENDED


def follower(plan: _drive.Plan, inputs: _drive.Inputs) -> Newton | NewtonCG | None:
    """The method that goes on; None where it could not."""
    if plan.kind.problem is not Minimization:
        return None
    solver = Newton() if trees.size(inputs.x0) <= _DENSE_HESSIAN_UP_TO else NewtonCG()
    return solver if inputs.box is None or getattr(solver, "bounds", False) else None


def _joined(first: Answer, second: Answer) -> Answer:
    """One answer of two solves, the second of which began where the first ended: counts are sums.

    The second is better, unless only the first one is an answer at all.
    """
    one, two = first.record, second.record
    history = None
    if one.history is not None and two.history is not None:
        columns = (cut(one.history, one.turns), cut(two.history, two.turns))
        history = jax.tree.map(lambda *parts: np.concatenate(parts), *columns)
    better = second if Status(int(two.code)).success or not Status(int(one.code)).success else first
    record = better.record._replace(
        turns=one.turns + two.turns,
        accepted=one.accepted + two.accepted - 1,  # a start counts as accepted
        history=history,
        first=one.first,
    )
    return better._replace(record=record)


def cut(history: History, turns: Any) -> History:
    """The rows of the evaluations that were made."""
    return jax.tree.map(lambda column: np.asarray(column)[: int(turns)], history)


def shifted(report: Callable[..., Any], by: int) -> Callable[..., Any]:
    """A maker of reports whose evaluations are counted from `by` on."""
    return lambda turn, *values: report(turn + by, *values)
