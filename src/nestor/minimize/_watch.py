"""What goes on between a host solver and the objective: counts, budgets, the best point, history, reports."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nestor.minimize._box import HostBox
from nestor.minimize._constraints import Constraints
from nestor.minimize._journal import Journal
from nestor.minimize._objective import Objective
from nestor.minimize._stop import Stop
from nestor.solution import Status
from nestor.solvers import Report

Vector = np.ndarray


# So many values in a row that are not finite (20 n with many unknowns), or iterations and questions without a new
# point, and a solver is lost: some of SciPy's walk in circles where NaN is compared with something.
_LOST, _CIRCLES = 1000, 100


class Seen(NamedTuple):
    """A point that was evaluated."""

    x: Vector
    value: float
    grad: Vector | None
    values: Vector | None  # of the constraints
    violation: float
    optimality: float

    def better_than(self, other: Seen, slack: float) -> bool:
        """Less violated; or, where both are feasible to within `slack`, lower."""
        mine, theirs = (v if v > slack else 0.0 for v in (self.violation, other.violation))
        if mine != theirs:
            return mine < theirs
        return self.value < other.value or (np.isnan(other.value) and not np.isnan(self.value))


class Rule(NamedTuple):
    """SciPy's rule on decreases of the objective, obeyed only where the condition of a solution holds.

    Attributes:
        decrease: a relative decrease in an iteration that is so small that SciPy would stop.
        target: the gradient that is wanted there; without it the solve goes on until it is met.
    """

    decrease: float
    target: float


class Budget(NamedTuple):
    """What a solve may cost."""

    steps: int | None = None
    evaluations: int | None = None
    seconds: float | None = None


class Watch:
    """The objective of a solve, watched.

    Attributes:
        best, first: the best point so far, and the start.
        improved: how often there was a new best point.
        around: makes the context in which the user's functions run.
        steps: iterations of the solver.
        error: an exception of the user's function, so that it is not taken for the solver's.
        rule, stood: when a solve may end, if not when SciPy says so; and where it was an iteration ago.
        target: once set, the solve ends at the first point as good as the best whose gradient is this small.
    """

    def __init__(
        self,
        objective: Objective,
        box: HostBox,
        constraints: Constraints | None,
        *,
        gradient: bool,
        budget: Budget,
        journal: Journal,
        slack: float,
        history: bool,
        callback: Callable[[Report], Any] | None,
        bar: Any,
        on_step: Callable[[Any], Any] | None = None,
    ):
        self.objective, self.box, self.constraints, self.gradient = objective, box, constraints, gradient
        self.budget, self.journal, self.slack = budget, journal, slack
        self.callback, self.bar, self.on_step = callback, bar, on_step
        objective.most = budget.evaluations
        self.rows: list[tuple[float, float, bool]] | None = [] if history else None
        self.best: Seen | None = None
        self.first: Seen | None = None
        self.improved = 0
        self.around: Callable[[], Any] | None = None
        self.recent: deque[Seen] = deque(maxlen=4)
        self.steps = self.points = 0
        self.error: BaseException | None = None
        self.target: float | None = None
        self.rule: Rule | None = None
        self.stood: Seen | None = None
        objective.until = None if budget.seconds is None else time.monotonic() + budget.seconds
        self._odd = self._again = 0  # values in a row that were not finite, and what came without a new point
        self._jacobian: tuple[bytes, np.ndarray] | None = None

    def at(self, x: Vector) -> Seen:
        """The objective at x, evaluated unless it is one of the last few points."""
        x = self.box.clip(np.asarray(x, np.float64))
        for seen in reversed(self.recent):
            if seen.x[0] == x[0] and seen.x[-1] == x[-1] and np.array_equal(seen.x, x):
                self._count_known()
                return seen
        self._again = 0
        self.objective.spend(0)
        try:
            seen = self._evaluate(x.copy())
        except Stop as stop:
            if stop.value is not None:  # nothing is left for the differences
                self._note(self._without_gradient(x.copy(), stop.value))
            raise
        better = self._note(seen)
        self._check_value(seen, better)
        if self.target is not None and better and seen.optimality <= self.target:
            raise Stop(Status.CONVERGED)
        return seen

    def _count_known(self) -> None:
        self._again += 1
        if self._again > _CIRCLES:
            raise Stop(Status.STALLED)

    def _note(self, seen: Seen) -> bool:
        """Whether the point is the best so far."""
        better = self.best is None or seen.better_than(self.best, self.slack)
        if better:
            self.best = seen
            self.improved += 1
        self.first = self.first or seen
        self.recent.append(seen)
        self._tell(seen, better)
        return better

    def _check_value(self, seen: Seen, better: bool) -> None:
        """End a solve that has fallen without bound, or has been lost where there are no values."""
        if better and seen.value == -np.inf and seen.violation <= self.slack:
            raise Stop(Status.UNBOUNDED)
        self._odd = 0 if np.isfinite(seen.value) else self._odd + 1
        if self._odd > max(_LOST, 20 * seen.x.size):
            raise Stop(Status.NOT_FINITE)

    def forget(self) -> None:
        """Evaluate anew where it is asked again: gradients are made in another way from here on."""
        if not self.objective.exact:
            self.recent.clear()

    def constraint_jacobian(self, x: Vector) -> np.ndarray:
        """The derivatives of all constraints at x; the last are kept."""
        assert self.constraints is not None
        x = self.box.clip(np.asarray(x, np.float64))
        key = x.tobytes()
        if self._jacobian is None or self._jacobian[0] != key:
            constraints = self.constraints
            found = self.asked("J", x, lambda: constraints.jacobian(x).reshape(-1))
            self._jacobian = key, found.reshape(-1, x.size)
        return self._jacobian[1]

    def constraint_values(self, x: Vector) -> Vector:
        """The values of all constraints at x, where the objective is not wanted."""
        assert self.constraints is not None
        constraints, x = self.constraints, self.box.clip(np.asarray(x, np.float64))
        return self.asked("c", x, lambda: constraints.values(x))

    def hessian(self, x: Vector) -> np.ndarray:
        """The Hessian of the objective at x."""
        x = self.box.clip(np.asarray(x, np.float64))
        return self.asked("H", x, lambda: self.objective.hessian(x).reshape(-1)).reshape(x.size, x.size)

    def product(self, x: Vector, p: Vector) -> Vector:
        """The Hessian at x times p."""
        x = self.box.clip(np.asarray(x, np.float64))
        p = np.asarray(p, np.float64)
        return self.asked("P", np.concatenate([x, p]), lambda: self.objective.product(x, p))

    def step(self, x: Vector, *_: Any) -> None:
        """One more iteration of the solver."""
        self.steps += 1
        self._count_known()
        if self.rule is not None:
            self._obey(self.rule, self.at(x))
        if self.on_step is not None:
            on_step, tree = self.on_step, self.objective.layout.answer(np.asarray(x, np.float64))
            self._called(lambda: on_step(tree) is None)
        if self.budget.steps is not None and self.steps >= self.budget.steps:
            raise Stop(Status.OUT_OF_STEPS)

    def gradient_at(self, seen: Seen) -> Vector:
        """The gradient at a point as well as it can be known, for the verdict."""
        objective = self.objective
        if seen.grad is not None and objective.exact:
            return seen.grad
        return self.asked("g", seen.x, lambda: objective.exact_gradient(seen.x, seen.value))

    def _obey(self, rule: Rule, seen: Seen) -> None:
        before, self.stood = self.stood or self.first, seen
        assert before is not None
        size = max(abs(before.value), abs(seen.value), 1.0)
        if before.value - seen.value > rule.decrease * size:
            return
        if seen.optimality <= rule.target:
            raise Stop(Status.CONVERGED)
        self.target = rule.target

    def asked(self, what: str, x: Vector, compute: Callable[[], Vector]) -> Vector:
        """An answer of the user's functions: from the journal, or computed and written down."""
        before = self.objective.calls

        def counted() -> Vector:
            with contextlib.nullcontext() if self.around is None else self.around():
                numbers = compute()
            return np.concatenate([[float(self.objective.calls - before)], numbers])

        try:
            found, replayed = self.journal.asked(what, x, counted)
        except Exception as error:
            self.error = error
            raise
        if replayed:
            self.objective.calls = before + int(found[0])
        return found[1:]

    def _evaluate(self, x: Vector) -> Seen:
        def compute() -> Vector:
            value, grad, values = self._computed(x)
            parts = [np.array([value, float(grad is not None)])]
            return np.concatenate([*parts, *(part for part in (grad, values) if part is not None)])

        if self.journal.path is None:  # the same without gluing and cutting
            return self._plain(x)
        found = self.asked("f", x, compute)
        value, has_grad = float(found[0]), bool(found[1])
        grad = found[2 : 2 + x.size] if has_grad else None
        return self._seen(
            x, value, grad, None if self.constraints is None else found[2 + has_grad * x.size :]
        )

    def _computed(self, x: Vector) -> tuple[float, Vector | None, Vector | None]:
        value, grad = self.objective.value_and_grad(x) if self.gradient else self.objective.value(x)
        return value, grad, None if self.constraints is None else self.constraints.values(x)

    def _without_gradient(self, x: Vector, value: float) -> Seen:
        return self._seen(x, value, None, None if self.constraints is None else self.constraints.values(x))

    def _plain(self, x: Vector) -> Seen:
        try:
            with contextlib.nullcontext() if self.around is None else self.around():
                value, grad, values = self._computed(x)
            return self._seen(x, value, grad, values)
        except Exception as error:
            self.error = error
            raise

    def _seen(self, x: Vector, value: float, grad: Vector | None, values: Vector | None) -> Seen:
        optimality = np.nan
        if grad is not None and self.constraints is None:
            optimality = float(np.max(np.abs(self.box.projected(x, grad))))
        violation = 0.0
        if values is not None:
            assert self.constraints is not None
            violation = self.constraints.violation(values)
        return Seen(x, value, grad, values, violation, optimality)

    def _tell(self, seen: Seen, better: bool) -> None:
        """History, progress, callback."""
        number, self.points = self.points, self.points + 1
        if self.rows is not None:
            self.rows.append((seen.value, seen.optimality, better))
        if self.callback is None and self.bar is None:
            return
        shown = None if self.callback is None else self.objective.layout.answer(seen.x)
        report = Report(number, seen.value, seen.optimality, better, shown)
        if self.bar is not None:
            self.bar(report)
        callback = self.callback
        if callback is not None and self._called(lambda: bool(callback(report))):
            raise Stop(Status.STOPPED)

    def _called(self, asks: Callable[[], bool]) -> bool:
        """What a function of the user's says; one that raises StopIteration ends the solve."""
        try:
            return asks()
        except StopIteration:
            raise Stop(Status.STOPPED) from None
        except Exception as error:
            self.error = error
            raise
