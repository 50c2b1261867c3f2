"""The default goes on: where its first method ends without an answer, Newton's begins at the best point.

Only where the status is known when the first method ends: a call outside `jit` and `vmap`. There a second
method costs nothing until it is needed; inside a trace both would be compiled, and run in every lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.solution import History, Status
from nestor.solvers import _drive
from nestor.solvers._newton import Newton, NewtonCG

Tree = Any

_DENSE_HESSIAN_UP_TO = 200
_MENDED = (  # what another method may mend
    Status.LINE_SEARCH_FAILED,
    Status.NOT_DESCENT,
    Status.NOT_FINITE,
    Status.SINGULAR,
    Status.STALLED,
)


class Following(NamedTuple):
    """A second solve: what `_drive.solution_map` wants of it."""

    plan: _drive.Plan
    inputs: _drive.Inputs


def following(
    asked: Any, plan: _drive.Plan, inputs: _drive.Inputs, x: Tree, record: _drive.Record
) -> Following | None:
    """The solve that goes on from x after `record`, with the steps that are left.

    None where the first solve is over, where its status is not known yet, and where the user `asked` for a
    solver: what they get is that one.
    """
    code = record.code
    if asked is not None or isinstance(code, jax.core.Tracer) or jnp.ndim(code) > 0:
        return None
    left = plan.max_steps + 1 - int(record.turns)
    if Status(int(code)) not in _MENDED or left < 2:
        return None
    solver = Newton() if trees.size(inputs.x0) <= _DENSE_HESSIAN_UP_TO else NewtonCG()
    if inputs.box is not None and not getattr(solver, "bounds", False):
        return None
    arrays, rest = trees.split(solver)
    onward = inputs._replace(x0=x, solver=arrays, budget=jnp.int32(left))
    return Following(plan._replace(solver=rest), onward)


def joined(first: _drive.Record, second: _drive.Record) -> _drive.Record:
    """One record of two solves, the second of which began where the first ended: counts are sums."""
    history = None
    if first.history is not None and second.history is not None:
        columns = (cut(first.history, first.turns), cut(second.history, second.turns))
        history = jax.tree.map(lambda *parts: np.concatenate(parts), *columns)
    return second._replace(
        turns=first.turns + second.turns,
        accepted=first.accepted + second.accepted - 1,  # a start counts as accepted
        history=history,
    )


def cut(history: History, turns: Any) -> History:
    """The rows of the evaluations that were made."""
    return jax.tree.map(lambda column: np.asarray(column)[: int(turns)], history)


def shifted(report: Callable[..., Any], by: int) -> Callable[..., Any]:
    """A maker of reports whose evaluations are counted from `by` on."""
    return lambda turn, *values: report(turn + by, *values)
