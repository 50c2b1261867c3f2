"""A solve on the host: what was asked for is checked, run, and said in a `Solution`."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nestor.errors import BadArgument, SolveFailed
from nestor.minimize._box import HostBox, check_bounds
from nestor.minimize._constraints import Constraints, are_given
from nestor.minimize._journal import Journal
from nestor.minimize._layout import Layout
from nestor.minimize._methods import Method, cannot, check_options, check_steps, method_called
from nestor.minimize._objective import Objective
from nestor.minimize._runs import End, run
from nestor.minimize._stop import inside
from nestor.minimize._watch import Budget, Watch
from nestor.solution import History, Solution, Stats, Status
from nestor.solvers import ProgressBar

Vector = np.ndarray
Tree = Any
WHERE = "minimize"


@dataclasses.dataclass(frozen=True)
class Request:
    """What `nestor.minimize` was asked for.

    Attributes:
        fun, ..., options: its arguments; `budget` is what may be spent.
        on_step: called with the tree after every iteration of a solver on the host.
    """

    fun: Any
    x0: Tree
    args: tuple[Any, ...]
    method: str | None
    solver: Any
    jac: Any
    hess: Any
    hessp: Any
    bounds: Any
    constraints: Any
    prox: Any
    tol: Any
    adjoint: Any
    budget: Budget
    history: bool
    callback: Any
    progress: bool
    checkpoint: Any
    raise_on_failure: bool
    options: Any
    on_step: Callable[[Any], Any] | None = None


class _Ready(NamedTuple):
    """A checked request."""

    layout: Layout
    method: Method
    options: dict[str, Any]
    watch: Watch
    tol: float
    start: Vector
    second: bool  # whether SciPy is given second derivatives


def solve(request: Request, layout: Layout) -> Solution:
    """Run the solve, judge where it ended, and say so."""
    ready = _prepare(request, layout)
    watch = ready.watch
    try:
        with inside():
            end = run(watch, ready.method, ready.options, ready.start, ready.tol, request.tol, ready.second)
    finally:
        watch.journal.close()
        if watch.bar is not None:
            watch.bar.close()
    solution = _solution(ready, end)
    if request.raise_on_failure and not solution.success and end.status != Status.INTERRUPTED:
        raise _failure(WHERE, solution, ready)
    return solution


# --- what was asked for ------------------------------------------------------------------------------


def _prepare(request: Request, layout: Layout) -> _Ready:
    box = check_bounds(WHERE, request.bounds, layout)
    start = box.clip(layout.rounded(layout.flat("x0", request.x0)))
    constrained = are_given(request.constraints)
    method = method_called(WHERE, request.method, bounds=box.given, constraints=constrained, size=layout.size)
    options = check_options(WHERE, method, request.options)
    _check_derivatives(request, layout, method, box)
    objective = Objective(WHERE, layout, request.fun, request.args, request.jac, request.hess, request.hessp)
    objective.box = box
    constraints = Constraints(WHERE, layout, request.constraints, start, box) if constrained else None
    tol, budget = _tolerance(request.tol, options, layout, objective, method), request.budget
    budget = budget._replace(steps=check_steps(WHERE, budget.steps))
    if "maxiter" in options and method.name != "COBYLA":
        budget = budget._replace(steps=_fewer(budget.steps, options, "maxiter"))
    for name in ("maxfun", "maxfev", "maxiter"):
        if name in options:
            most = _fewer(budget.evaluations, options, name)
            least = None if most is None else max(1, most)  # SciPy makes one, too
            budget = budget._replace(evaluations=least)
    sign = (
        b"" if request.checkpoint is None else _signature(method, options, request, layout, start, box, tol)
    )
    watch = Watch(
        objective,
        box,
        constraints,
        gradient=method.gradient,
        budget=budget,
        journal=Journal(WHERE, request.checkpoint, sign),
        slack=tol,
        history=request.history,
        callback=request.callback,
        bar=ProgressBar(WHERE, budget.evaluations) if request.progress else None,
        on_step=request.on_step,
    )
    differenced = isinstance(request.jac, str)
    followed = layout.framework.differentiates and not differenced
    second = request.hess is not None or request.hessp is not None or followed
    return _Ready(layout, method, options, watch, tol, start, method.second or (method.matrix and second))


def _fewer(given: int | None, options: dict[str, Any], name: str) -> int | None:
    """A budget and SciPy's option of that name, which is taken out; None and infinity are no limits."""
    option = options.pop(name)
    if option is None or math.isinf(option):
        return given
    return int(option) if given is None else min(given, int(option))


def _check_derivatives(request: Request, layout: Layout, method: Method, box: HostBox) -> None:
    """A derivative that is given is used, and one that is needed is there."""
    if (callable(request.jac) or isinstance(request.jac, str)) and not method.gradient:
        raise cannot(WHERE, method, "jac")
    for name, given in (("hess", request.hess), ("hessp", request.hessp)):
        able = method.matrix if name == "hess" else method.product or method.second
        if given is not None and not able:
            raise cannot(WHERE, method, name)
    differenced = isinstance(request.jac, str)
    followed = layout.framework.differentiates and not differenced
    known = followed or request.hess is not None or request.hessp is not None
    known = known or not (differenced or request.jac in (None, False))
    if method.second and not known and not differenced:
        leaves = layout.leaves(box.clip(layout.flat("x0", request.x0)))
        found = request.fun(layout.tree(leaves), *request.args)
        known = isinstance(found, (tuple, list))  # (value, gradient)
    without = "finite differences have" if differenced else "NumPy has"
    if method.second and not known:
        raise BadArgument(
            WHERE,
            "method",
            got=f"{method.name}, which wants second derivatives, and {without} none",
            want="one that does with values, or jac= or hess= beside it",
            do='pass jac=, or let fun return (value, gradient), or write method="BFGS"',
        )


def _tolerance(
    tol: float | None, options: dict[str, Any], layout: Layout, objective: Objective, method: Method
) -> float:
    """The tolerance of the verdict; see `nestor.minimize`."""
    if tol is not None:
        return tol
    rough = 1e-4 if not (method.gradient and objective.exact) else 1e-5
    return max(rough, 3 * layout.eps**0.5, float(options.get("gtol", 0.0)))


def _signature(
    method: Method,
    options: dict[str, Any],
    request: Request,
    layout: Layout,
    start: Vector,
    box: HostBox,
    tol: float,
) -> bytes:
    """All that decides which points a solve visits, but for the user's functions."""
    shapes = [
        (path, spec.shape, str(spec.dtype)) for path, spec in zip(layout.paths, layout.specs, strict=True)
    ]
    facts = (
        method.name,
        sorted(options),
        layout.framework.name,
        shapes,
        tol,
        request.tol,
        are_given(request.constraints),
    )
    digest = hashlib.sha256(repr(facts).encode())
    for name in sorted(options):
        digest.update(repr(options[name]).encode())
    for vector in (start, box.lower, box.upper):
        digest.update(vector.tobytes())
    return digest.digest()


# --- what came out -----------------------------------------------------------------------------------


def _solution(ready: _Ready, end: End) -> Solution:
    layout, watch, at, verdict = ready.layout, ready.watch, end.at, end.verdict
    history = None
    if watch.rows is not None:
        history = History(*(np.array(column) for column in zip(*watch.rows, strict=True)))
    stats = Stats(
        steps=np.int64(watch.steps),
        evaluations=np.int64(watch.objective.calls),
        accepted=np.int64(watch.improved),
        optimality=np.float64(at.optimality if verdict is None else verdict.optimality),
        tol=np.float64(end.target),
    )
    kkt = None if verdict is None else verdict.kkt
    return Solution(layout.answer(at.x), np.float64(at.value), np.int32(int(end.status)), stats, history, kkt)


def _failure(where: str, solution: Solution, ready: _Ready) -> SolveFailed:
    stats, kkt = solution.stats, solution.kkt
    violation = "" if not kkt or not kkt.constraints else f", violation {kkt.feasibility:.3g}"
    optimality = f"optimality {stats.optimality:.3g} against {stats.tol:.3g}{violation}"
    return SolveFailed.of(
        where, solution, f" by {ready.method.name}; best value {solution.fun:.6g}, {optimality}"
    )
