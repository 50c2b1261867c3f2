"""The runs of a host solve, and the verdict after each.

The first run is SciPy's own, with its defaults, so it visits the points that SciPy visits; but L-BFGS-B does not end
on a small decrease of the objective where the condition of a solution does not hold. Where SciPy stops at a point that
is no solution, although there is budget left, it is run once more from the best point with its stopping rules
tightened, and ends as soon as the condition of a solution holds. Where it ends at a point that does not meet the
constraints, one that does is looked for: if there is none, the problem is infeasible there, else it goes on from it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nestor.minimize._methods import Method
from nestor.minimize._restoration import nearest_feasible
from nestor.minimize._scipy import call_scipy
from nestor.minimize._stop import Stop
from nestor.minimize._verdict import Verdict, judge
from nestor.minimize._watch import Rule, Seen, Watch
from nestor.solution import Status

Vector = np.ndarray

_BOTTOM = -(2.0**78)  # below it an objective has no minimum: eps^(-3/2) in float64
_DECREASE, _SLOPE = 1e7 * 2.0**-52, 1e-5  # SciPy's ftol and gtol for L-BFGS-B
_STOPS = ("ftol", "xtol", "xatol", "fatol", "tol", "xrtol", "final_tr_radius", "barrier_tol", "f_target")


class End(NamedTuple):
    """How a solve ended.

    Attributes:
        at: the answer.
        verdict: what holds there; None where the gradient is not known and may not be computed.
        target: what the gradient was held against.
    """

    status: Status
    at: Seen
    verdict: Verdict | None
    target: float


def run(
    watch: Watch,
    method: Method,
    options: dict[str, Any],
    start: Vector,
    tol: float,
    given_tol: float | None,
    second: bool,
) -> End:
    """Solve.

    Args:
        watch: the objective, the bounds and the constraints.
        method, options: SciPy's.
        start: in the bounds.
        tol: of the verdict.
        given_tol: the user's, which SciPy is told too; None if there is none.
        second: whether SciPy is given second derivatives.
    """
    court = _Court(watch, method, tol)
    status = Status.STALLED
    try:
        first = watch.at(start)
        if not np.isfinite(first.value):
            return End(Status.NOT_FINITE, first, None, tol)
        if watch.budget.steps == 0:
            raise Stop(Status.OUT_OF_STEPS)
        own_rules = any(name in options for name in _STOPS)  # the user says when to stop
        if method.name == "L-BFGS-B" and not own_rules:
            court.hear(_with_our_rule(watch, method, options, start, given_tol, court.known_target()))
        else:
            court.hear(_once(watch, method, options, start, given_tol, second))
        if not court.best.verdict.converged and not own_rules:
            court.hear(_again(watch, method, options, court, second))
        if not court.best.verdict.feasible:
            met = nearest_feasible(watch, court.best.at.x)
            court.infeasible = met is None
            if met is not None and not own_rules:
                court.hear(
                    _once(watch, method, options | method.tightened(court.target() / 2), met, None, second)
                )
    except Stop as stop:
        status = stop.status
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
        if watch.best is None:
            raise
    return court.sentence(status)


class _Heard(NamedTuple):
    """A point and the verdict on it."""

    at: Seen
    verdict: Verdict


class _Court:
    """Judges points, and knows the best of those that it judged.

    Attributes:
        infeasible: whether no point that meets the constraints was found near the best, although one was looked for.
    """

    def __init__(self, watch: Watch, method: Method, tol: float):
        self.watch, self.method, self.tol = watch, method, tol
        self._best: _Heard | None = None
        self._target: float | None = None
        self.infeasible = False

    @property
    def best(self) -> _Heard:
        assert self._best is not None
        return self._best

    def target(self) -> float:
        """What the gradient is held against; asks for the gradient at the start if it is not known."""
        if self._target is None:
            first = self.watch.first
            assert first is not None
            slope = self.watch.box.projected(first.x, self.watch.gradient_at(first))
            size = float(np.max(np.abs(slope)))
            self._target = self.tol * (max(1.0, size) if np.isfinite(size) else 1.0)
        return self._target

    def hear(self, ended: Seen | None) -> None:
        """Judge where a run ended, and the best point that it met."""
        best = self.watch.best
        assert best is not None
        for seen in (ended, best):
            if seen is None or (self._best is not None and seen is self._best.at):
                continue
            heard = _Heard(seen, self._judge(seen, self.watch.gradient_at(seen)))
            if self._best is None or self._better(heard, self._best):
                self._best = heard

    def sentence(self, status: Status) -> End:
        """The end; a solve that was cut short is judged by what is known, or by one more gradient at most."""
        cut_short = status != Status.STALLED
        best = self.watch.best
        assert best is not None
        if cut_short and (self._best is None or best is not self._best.at):
            grad = self._at_hand(best, status)
            if grad is None or self.watch.constraints is not None:
                self._consider(best)
            else:
                self._target = self._target or self.known_target()
                heard = _Heard(best, self._judge(best, grad))
                if self._best is None or self._better(heard, self._best):
                    self._best = heard
        if self._best is None:
            return End(self._why(status, best, None), best, None, self.tol)
        at, verdict = self._best
        status = Status.CONVERGED if verdict.converged else self._why(status, at, verdict)
        return End(status, at, verdict, self._target or self.tol)

    def _at_hand(self, best: Seen, status: Status) -> Vector | None:
        """The gradient there if it is known, or if one evaluation, which may be made, gives it exactly."""
        may = status in (Status.OUT_OF_TIME, Status.OUT_OF_STEPS, Status.STOPPED)
        dear = self.watch.constraints is not None or not self.watch.objective.exact
        if best.grad is not None or not may or dear:
            return best.grad
        self.watch.objective.until = None
        try:
            return self.watch.gradient_at(best)
        except Stop:  # there are no evaluations left
            return None

    def _consider(self, best: Seen) -> None:
        """A better point whose verdict is not known is the answer, unless a solution is."""
        open_case = self._best is not None and not self._best.verdict.converged
        if open_case and best.better_than(self.best.at, self.watch.slack):
            self._best = None

    def known_target(self) -> float:
        """The same without another evaluation; `tol` if the gradient at the start is not known."""
        first = self.watch.first
        if first is None or first.grad is None:
            return self.tol
        size = float(np.max(np.abs(self.watch.box.projected(first.x, first.grad))))
        return self.tol * (max(1.0, size) if np.isfinite(size) else 1.0)

    def _better(self, one: _Heard, other: _Heard) -> bool:
        if one.verdict.converged != other.verdict.converged:
            return one.verdict.converged
        return one.at.better_than(other.at, self.watch.slack)

    def _judge(self, seen: Seen, grad: Vector) -> Verdict:
        watch = self.watch
        jacobian = None if watch.constraints is None else watch.constraint_jacobian(seen.x)
        layout = watch.objective.layout
        judged = judge(
            layout, seen.x, grad, watch.box, watch.constraints, seen.values, jacobian, self.tol, self.tol
        )
        if not np.isfinite(seen.value):
            return judged._replace(converged=False)
        if judged.converged:  # without the gradient at the start, which may be dear
            self._target = self._target or self.tol
            return judged
        return judge(
            layout, seen.x, grad, watch.box, watch.constraints, seen.values, jacobian, self.tol, self.target()
        )

    def _why(self, status: Status, at: Seen, verdict: Verdict | None) -> Status:
        """Why there is no solution."""
        if at.value < _BOTTOM:
            return Status.UNBOUNDED
        if status != Status.STALLED:
            return status
        if not np.isfinite(at.value) or (verdict is not None and not np.isfinite(verdict.optimality)):
            return Status.NOT_FINITE
        if verdict is not None and not verdict.feasible:
            return Status.INFEASIBLE if self.infeasible else Status.STALLED
        return Status.STALLED


def _once(
    watch: Watch,
    method: Method,
    options: dict[str, Any],
    x: Vector,
    tol: float | None,
    second: bool,
) -> Seen | None:
    """One run of SciPy's in the unknowns that are free; the point where it ended, if it is one."""
    free = watch.box.lower < watch.box.upper
    if not free.any():
        return watch.best
    limits = {name: limit for name, limit in method.limits if name not in options}
    ended = call_scipy(watch, method, limits | options, x, free, tol, second)
    return None if ended is None or not np.isfinite(ended).all() else watch.at(ended)


def _with_our_rule(
    watch: Watch, method: Method, options: dict[str, Any], x: Vector, tol: float | None, target: float
) -> Seen | None:
    """A run of L-BFGS-B that goes on where its rule on decreases would end it at a point that is no solution."""
    watch.rule = Rule(_DECREASE if tol is None else tol, target)
    rules = {"ftol": 0.0, "gtol": options.get("gtol", _SLOPE if tol is None else tol)}
    try:
        return _once(watch, method, options | rules, x, None, False)
    except Stop as stop:
        if stop.status == Status.CONVERGED:
            return watch.stood
        raise
    finally:
        watch.rule = watch.target = None


def _again(watch: Watch, method: Method, options: dict[str, Any], court: _Court, second: bool) -> Seen | None:
    """A second run, from the best point, until the condition of a solution holds."""
    target = court.target()
    if watch.constraints is None and method.gradient:
        watch.target, watch.objective.central = target, True
        watch.forget()
    try:
        return _once(watch, method, options | method.tightened(target / 2), court.best.at.x, None, second)
    except Stop as stop:
        if stop.status == Status.CONVERGED:
            return watch.best
        raise
    finally:
        watch.target = None
