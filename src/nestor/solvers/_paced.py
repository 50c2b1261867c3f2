"""A compiled minimization that the host paces: between two stretches it can look at the clock, save, or stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor.errors import BadArgument
from nestor.programs import Watcher, in_trace, registered
from nestor.solution import Solution, Status
from nestor.solvers import _drive, _reports
from nestor.solvers._delivery import deliver
from nestor.solvers._posing import Options, pose_minimization

Tree = Any


class Pacer(NamedTuple):
    """A solve in the hands of the host.

    Attributes:
        made: what is made before the first turn: (turns, carry, record), a tree of arrays.
        onward: (made, until) -> what is made after `until` turns in all, or at the end if that is earlier.
        running: made -> whether another turn is wanted.
        resumed: made, as it was saved -> the same; a solve that its callback had stopped runs again.
        facts: what a saved `made` must agree with, besides `turn` and `inputs`; its `repr` counts.
        turn: inputs -> the first turn, which stands for the program.
        inputs: all arrays that the solve depends on.
    """

    made: Any
    onward: Callable[[Any, int], Any]
    running: Callable[[Any], bool]
    resumed: Callable[[Any], Any]
    facts: Any
    turn: Callable[[Any], Any]
    inputs: Any


def minimize_paced(
    fun: Callable[[Tree], Any], x0: Tree, pace: Callable[[Pacer], tuple[Any, Status | None]], **options: Any
) -> Solution:
    """`minimize` with the loop in stretches; the same numbers, without derivatives, and nothing is raised.

    Args:
        fun, x0, options: as of `minimize`.
        pace: runs the solve; what is made at its end, and the status if the solve was cut short by the host.

    Raises:
        BadArgument: as `minimize`; inside a trace.
    """
    settings: dict[str, Any] = {"solver": None, "adjoint": None} | options
    asked = Options(where="minimize", **settings)
    plan, inputs, rows = pose_minimization(fun, x0, asked)
    if in_trace(inputs):
        raise BadArgument(
            "minimize",
            "checkpoint",
            got="a solve inside a traced function that is to be saved, timed or interrupted",
            want="left out inside jit, grad and vmap, and so must max_seconds",
            do="leave both out, or call minimize outside the traced function",
        )
    begin, go_on, read, _ = _drive.stretches(plan)
    bar = _reports.ProgressBar("minimize", plan.max_steps + 1) if asked.progress else None
    watcher = Watcher(_reports.report, asked.callback, bar) if plan.watch else None
    with registered(watcher) as number:
        watched = inputs._replace(watcher=jnp.int32(number))
        made, status = pace(
            Pacer(
                made=begin(watched),
                onward=lambda made, until: jax.block_until_ready(go_on(watched, made, jnp.int32(until))),
                running=lambda made: int(made[1].status) == Status.RUNNING and int(made[0]) <= plan.max_steps,
                resumed=_going_on,
                facts=(plan.tol, plan.max_steps, plan.history, repr(asked.solver)),
                turn=_drive.stretches(plan._replace(watch="", history=False)).turn,
                inputs=inputs,
            )
        )
        answer = read(watched, made)
    if bar is not None:
        bar.close()
    if watcher is not None and watcher.error is not None:
        raise watcher.error
    if status is not None and int(made[1].status) == Status.RUNNING:
        record = answer.record._replace(code=jnp.int32(int(status)))
        answer = answer._replace(record=record)
    return deliver(plan, answer, rows, asked)


def _going_on(made: Any) -> Any:
    turns, carry, rows = made
    stopped = carry.status == int(Status.STOPPED)
    return (
        turns,
        carry._replace(status=jnp.where(stopped, jnp.int32(int(Status.RUNNING)), carry.status)),
        rows,
    )
