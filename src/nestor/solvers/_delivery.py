"""From a problem that can be run to what a user gets: the solution, an error, or what a policy says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from nestor.adjoints import Answer
from nestor.errors import MissingExtra, SolveFailed
from nestor.programs import Interrupts, Watcher, in_trace, register, registered
from nestor.solution import KKT, Solution, Stats, Status
from nestor.solvers import _drive, _kkt, _onward, _reports, _untraced
from nestor.solvers._constraints import Rows
from nestor.solvers._posing import Options, Posed

Tree = Any


def run(posed: Posed, options: Options) -> Solution:
    """Solve, and go on where the default does; see `_onward`."""
    plan, inputs, rows = posed
    bar = _reports.ProgressBar(options.where, plan.max_steps + 1) if options.progress else None

    def solve(plan: _drive.Plan, inputs: _drive.Inputs, turns: int) -> Answer:
        return _answer(plan, inputs, options.callback, bar, turns)

    answer = _onward.solved(plan, inputs, solve, goes_on=options.solver is None)
    if bar is not None and not in_trace(inputs):
        bar.close()
    return deliver(plan, answer, rows, options)


def _answer(plan: _drive.Plan, inputs: _drive.Inputs, callback: Any, bar: Any, turns: int) -> Answer:
    """Run a plan, with whoever watches it registered; `turns` were made before."""
    if not plan.watch:
        return solved(plan, inputs)
    report = _reports.report if turns == 0 else _onward.shifted(_reports.report, turns)
    interrupts = Interrupts()
    watcher = Watcher(report, callback, bar, interrupts)
    if in_trace(inputs):  # the program outlives this call, so the registration must too
        number = register(watcher)
        return solved(plan, inputs._replace(watcher=jnp.int32(number)))
    with registered(watcher) as number, interrupts:
        answer = jax.block_until_ready(solved(plan, inputs._replace(watcher=jnp.int32(number))))
    if watcher.error is not None:
        if bar is not None:
            bar.close()
        raise watcher.error
    if interrupts.came() and int(answer.record.code) == Status.STOPPED:
        answer = answer._replace(record=answer.record._replace(code=jnp.int32(int(Status.INTERRUPTED))))
    return answer


def solved(
    plan: _drive.Plan,
    inputs: _drive.Inputs,
    mapped: Callable[[_drive.Plan], Callable[[_drive.Inputs], Answer]] = _drive.solution_map,
) -> Answer:
    """The answer of a plan; inside a trace by a map that can be differentiated."""
    return mapped(plan)(inputs) if in_trace(inputs) else _untraced.solve(plan, inputs)


def solution_of(plan: _drive.Plan, answer: Any, rows: Rows | None = None) -> Solution:
    """The answer of the driver as a `Solution`."""
    record, x, kkt = answer.record, answer.x, None
    if record.kkt is not None:
        found: _kkt.Report = record.kkt
        kkt = KKT(
            found.residuals.stationarity,
            found.residuals.feasibility,
            found.residuals.complementarity,
            found.lower,
            found.upper,
            () if rows is None else rows.multipliers(x.equal, x.inequal),
            found.weakly_active,
            found.curvature,
        )
    if rows is not None:
        x = x.x
    stats = _stats(record.turns, record.accepted, record.optimality, plan.tol)
    return Solution(x, answer.value, record.code, stats, record.history, kkt)


@jax.jit  # five operations, each of which would be a program and a call of its own
def _stats(turns: jax.Array, accepted: jax.Array, optimality: jax.Array, tol: float) -> Stats:
    return Stats(
        steps=jnp.maximum(turns - 1, 0),
        evaluations=turns,
        accepted=jnp.maximum(accepted - 1, 0),
        optimality=optimality,
        tol=jnp.broadcast_to(jnp.asarray(tol, optimality.dtype), optimality.shape),
    )


def deliver(plan: _drive.Plan, answer: Any, rows: Rows | None, options: Options) -> Solution:
    """The solution that a user gets, or the error."""
    solution = solution_of(plan, answer, rows)
    if isinstance(solution.code, jax.core.Tracer):
        return solution
    if solution.history is not None:
        history = _onward.cut(solution.history, solution.stats.evaluations)
        solution = dataclasses.replace(solution, history=history)
    if options.raise_on_failure and not solution.success and solution.status != Status.INTERRUPTED:
        raise _failure(options.where, solution, plan)
    return solution


def _failure(where: str, solution: Solution, plan: _drive.Plan) -> SolveFailed:
    value = jax.lax.stop_gradient(solution.fun)  # under a plain grad the value is traced, the status is not
    shown = "traced" if isinstance(value, jax.core.Tracer) else f"{float(value):.6g}"
    optimality = float(solution.stats.optimality)
    facts = f"best value {shown}, optimality {optimality:.3g} against tol {plan.tol:.3g}"
    return SolveFailed.of(where, solution, f" (max_steps={plan.max_steps}); {facts}")


def apply_policy(
    where: str, plan: _drive.Plan, x: Tree, value: Any, record: Any, result: Tree, on_failure: str | None
) -> Tree:
    """The result of `argmin` or `minimum`, by what is wanted of one that has not converged."""
    unknown = isinstance(record.code, jax.core.Tracer)
    if not unknown and int(record.code) == Status.INTERRUPTED:  # a point alone would look like an answer
        raise KeyboardInterrupt(f"{where} was interrupted; nestor.minimize gives the best point so far")
    policy = on_failure or ("nan" if unknown else "raise")
    if policy == "keep":
        return result
    bad = record.code != int(Status.CONVERGED)
    if policy == "nan":
        return jax.tree.map(lambda leaf: leaf * jnp.where(bad, jnp.nan, 1.0).astype(leaf.dtype), result)
    if unknown:
        return _raise_at_run_time(where, result, bad)
    if bool(bad):
        answer = Answer(result if x is None else x, value, record)
        raise _failure(where, solution_of(plan, answer), plan)
    return result


def _raise_at_run_time(where: str, result: Tree, bad: jax.Array) -> Tree:
    try:
        import equinox
    except ImportError as error:
        raise MissingExtra("equinox", "test", 'on_failure="raise" inside a trace') from error
    return equinox.error_if(
        result, bad, f"{where}: a solve inside a compiled function did not converge (on_failure='raise')."
    )
