"""The matrix: every solver on every problem of its kind, in float32 and float64, judged in float64.

A solve may fail, and must then say so; it must never call a point a solution that is none. What a method
cannot know from what it is allowed to see is listed in `KNOWN_LIMITS`, with the reason.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import nestor
from nestor import Status
from tests import problems
from tests.solvers import harness
from tests.solvers.harness import Outcome

FIRST_ORDER: dict[str, Any] = {
    "BFGS": nestor.BFGS(),
    "LBFGS": nestor.LBFGS(),
    "CG polak-ribiere+": nestor.NonlinearCG("polak-ribiere+"),
    "CG hestenes-stiefel": nestor.NonlinearCG("hestenes-stiefel"),
    "CG fletcher-reeves": nestor.NonlinearCG("fletcher-reeves"),
    "CG dai-yuan": nestor.NonlinearCG("dai-yuan"),
    "CG conjugate-descent": nestor.NonlinearCG("conjugate-descent"),
    "CG daniel": nestor.NonlinearCG("daniel"),
    "Descent backtracking": nestor.GradientDescent(nestor.Backtracking()),
    "Descent strong-wolfe": nestor.GradientDescent(nestor.StrongWolfe()),
    "Descent fixed": nestor.GradientDescent(nestor.FixedStep(1e-3)),
    "Descent scheduled": nestor.GradientDescent(nestor.ScheduledStep(nestor.schedules.Cosine(1e-3, 1000))),
    "Descent adagrad": nestor.GradientDescent(nestor.AdaGradStep(0.5)),
    "Descent rmsprop": nestor.GradientDescent(nestor.RMSPropStep(1e-2)),
    "adam": optax.adam(1e-2),
    "sgd momentum": optax.sgd(1e-3, momentum=0.9),
}
SECOND_ORDER: dict[str, Any] = {
    "Newton": nestor.Newton(),
    "NewtonCG": nestor.NewtonCG(),
    "LineSearchNewton": nestor.LineSearchNewton(),
    "LineSearchNewtonCG": nestor.LineSearchNewtonCG(),
}
ROOT_FINDERS: dict[str, Any] = {
    "NewtonRoot": nestor.NewtonRoot(),
    "Broyden": nestor.Broyden(),
    "Broyden identity": nestor.Broyden(jacobian="identity"),
}
FIXED_POINT_FINDERS: dict[str, Any] = {
    "Anderson": nestor.Anderson(),
    "Picard": nestor.Picard(),
    "Picard damped": nestor.Picard(damping=0.5),
}
SQUARES: dict[str, Any] = {
    "LevenbergMarquardt": nestor.LevenbergMarquardt(),
    "GaussNewton": nestor.GaussNewton(),
    "Dogleg": nestor.Dogleg(),
}
# Of the minimizers these run every day, in float64; the others, and all in float32, are slow tests, which CI runs.
DAILY = ("BFGS", "LBFGS", "CG polak-ribiere+", "Descent backtracking", "adam", "Newton")
STRONG = ("BFGS", "LBFGS", "Newton", "NewtonCG", "NewtonRoot", "Anderson", "LevenbergMarquardt")
GIVEN_STEPS = (
    *(f"Descent {how}" for how in ("fixed", "scheduled", "adagrad", "rmsprop")),
    "adam",
    "sgd momentum",
)
LINE_SEARCHING = tuple(name for name in FIRST_ORDER if name not in GIVEN_STEPS)


class Limit(NamedTuple):
    """A point that a family of solvers calls converged though it is no solution, and why it cannot know."""

    families: tuple[str, ...]
    dtypes: tuple[str, ...]
    reason: str


BOTH, SINGLE = ("float32", "float64"), ("float32",)
KNOWN_LIMITS: dict[str, Limit] = {
    "saddle_exact": Limit(("first order",), BOTH, "the gradient at the start is zero; curvature is not seen"),
    "saddle_manifold": Limit(("first order",), BOTH, "every gradient from there on leads into the saddle"),
    "saddle_near": Limit(("first order",), SINGLE, "passes the saddle with a gradient of 2e-4, below tol"),
    "plateau_faint": Limit(("first order",), SINGLE, "the gradient at the start is 7e-6, below tol"),
    "plateau_dead": Limit(
        ("first order", "second order"), BOTH, "value, gradient and Hessian at the start are constants"
    ),
    "unbounded_concave_top": Limit(("first order",), BOTH, "the gradient at the start, a maximum, is zero"),
    "unbounded_cubic": Limit(
        ("first order", "second order"), BOTH, "x = 0 is stationary with a Hessian that is not negative"
    ),
}

# Strong solvers that need not solve a solvable problem in float64, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("LBFGS", "quadratic_1e8"): "condition 1e8 costs a method of ten memories thousands of steps",
}

# At least this part of the solvable problems, in float32, with the status CONVERGED.
FRACTION_IN_FLOAT32 = {
    "BFGS": 0.95,
    "LBFGS": 0.9,
    "Newton": 0.9,
    "NewtonCG": 0.9,
    "NewtonRoot": 0.9,
    "Anderson": 1.0,
    "LevenbergMarquardt": 0.9,
}

_BY_NAME = {problem.name: problem for problem in problems.EVERYTHING}


def _size(problem: Any) -> int:
    return int(ravel_pytree(problem.x0(jnp.float64))[0].size)


def _first_order(dtype: Any, solvers: dict[str, Any]) -> dict[tuple[str, str], Outcome]:
    pieces = [harness.minimization(p, dtype, 100) for p in problems.MINIMIZATIONS]
    return harness.solve_all(nestor.minimize, solvers, pieces, max_steps=1000)


def _second_order(dtype: Any, solvers: dict[str, Any]) -> dict[tuple[str, str], Outcome]:
    found = {}
    single = dtype == jnp.float32  # the largest and the smallest sizes cost more to compile than they tell
    for sizes in ((2,), (3, 4, 5), (10,)) if single else ((1,), (2,), (3, 4, 5), (10,), (15, 30), (100,)):
        group = [p for p in problems.MINIMIZATIONS if _size(p) in sizes]
        pieces = [harness.minimization_in_a_bowl(p, dtype, max(sizes)) for p in group]
        found |= harness.solve_all(nestor.minimize, solvers, pieces, max_steps=1000, curvature=True)
    return found


def _roots(dtype: Any, solvers: dict[str, Any]) -> dict[tuple[str, str], Outcome]:
    pieces = [harness.root(p, dtype, 30) for p in problems.ROOTS]
    return harness.solve_all(nestor.find_root, solvers, pieces, max_steps=300)


def _fixed_points(dtype: Any, solvers: dict[str, Any]) -> dict[tuple[str, str], Outcome]:
    pieces = [harness.map_(p, dtype, 6) for p in problems.FIXED_POINTS]
    return harness.solve_all(nestor.fixed_point, solvers, pieces, max_steps=3000)


def _squares(dtype: Any, solvers: dict[str, Any]) -> dict[tuple[str, str], Outcome]:
    found = {}
    for size in (2, 3, 4, 5):
        group = [p for p in problems.LEAST_SQUARES if _size(p) == size]
        count = max(p.residual(p.x0(dtype)).shape[0] for p in group)
        pieces = [harness.residuals(p, dtype, size, count) for p in group]
        found |= harness.solve_all(nestor.least_squares, solvers, pieces, max_steps=1000)
    return found


class Family(NamedTuple):
    """Solvers of a kind, what they solve, and how all of it is run."""

    solvers: dict[str, Any]
    problems: tuple[Any, ...]
    run: Callable[[Any, dict[str, Any]], dict[tuple[str, str], Outcome]]


FAMILIES = {
    "first order": Family(FIRST_ORDER, problems.MINIMIZATIONS, _first_order),
    "second order": Family(SECOND_ORDER, problems.MINIMIZATIONS, _second_order),
    "roots": Family(ROOT_FINDERS, problems.ROOTS, _roots),
    "fixed points": Family(FIXED_POINT_FINDERS, problems.FIXED_POINTS, _fixed_points),
    "squares": Family(SQUARES, problems.LEAST_SQUARES, _squares),
}


@functools.cache
def outcomes(family: str, dtype: str, daily: bool) -> dict[tuple[str, str], Outcome]:
    """Everything that part of a family does in a dtype; one run for all tests of a process."""
    solvers = {name: it for name, it in FAMILIES[family].solvers.items() if _is_daily(family, name) == daily}
    return FAMILIES[family].run(jnp.dtype(dtype), solvers)


def _is_daily(family: str, solver: str) -> bool:
    return solver in DAILY or family not in ("first order", "second order")


def _outcomes_of(family: str, dtype: str, solver: str) -> dict[tuple[str, str], Outcome]:
    return outcomes(family, dtype, _is_daily(family, solver))


def _marks(family: str, solver: str, dtype: str) -> list[Any]:
    """Programs of many minimizers take minutes to compile: slow tests."""
    minimizes = family in ("first order", "second order")
    return [pytest.mark.slow] if minimizes and (dtype == "float32" or solver not in DAILY) else []


def _cases(names: Iterable[str] | None = None, dtypes: tuple[str, ...] = BOTH) -> list[Any]:
    """(family, solver, dtype); all tests of this file share one process, and so what a family and dtype cost."""
    return [
        pytest.param(family, solver, dtype, id=f"{solver}-{dtype}", marks=_marks(family, solver, dtype))
        for dtype in dtypes
        for family, (solvers, _, _) in FAMILIES.items()
        for solver in solvers
        if names is None or solver in names
    ]


def _met(family: str, solver: str, dtype: str) -> list[tuple[Any, Outcome]]:
    found = _outcomes_of(family, dtype, solver)
    return [(_BY_NAME[problem], out) for (name, problem), out in found.items() if name == solver]


@functools.cache
def _compiled(name: str) -> problems.Minimization:
    """A minimization or least-squares problem that is compiled once, for the thousand times it is judged."""
    problem = _BY_NAME[name]
    plain = problem.minimization if isinstance(problem, problems.LeastSquares) else problem
    return dataclasses.replace(plain, fun=jax.jit(plain.fun))


class Judged(NamedTuple):
    """What an answer is worth, recomputed in float64, and the numbers behind the verdict."""

    solved: bool
    stationary: bool
    numbers: str


@functools.cache
def _judged(family: str, dtype: str, solver: str, name: str) -> Judged:
    problem, x = _BY_NAME[name], _outcomes_of(family, dtype, solver)[solver, name].x
    if isinstance(problem, (problems.Minimization, problems.LeastSquares)):
        verdict = problems.judge(_compiled(name), x)
        numbers = f"gap {verdict.gap:.2e}, gradient {verdict.gradient_norm:.2e}"
        return Judged(verdict.solved, verdict.looks_stationary, numbers)
    loose = 1e-6 if dtype == "float64" else 1e-3
    residual, error = problem.residual_norm(x), problem.error(x)
    near = error <= 1e-5 or dtype == "float32"  # where the Jacobian is nearly singular they differ by much
    numbers = f"residual {residual:.2e}, error {error:.2e}"
    return Judged(residual <= loose and near, residual <= loose, numbers)


def _line(problem: Any, out: Outcome, numbers: str, complaint: str) -> str:
    return (
        f"{problem.name}: {out.status.name} after {out.evaluations} evaluations, optimality "
        f"{out.optimality:.2e}, {numbers}: {complaint}"
    )


def _fail_on(complaints: list[str]) -> None:
    assert not complaints, "\n".join(["", *complaints])


@pytest.mark.parametrize(("family", "solver", "dtype"), _cases())
def test_converged_is_never_said_of_a_point_that_is_no_solution(family, solver, dtype):
    complaints = []
    for problem, out in _met(family, solver, dtype):
        solved, stationary, numbers = _judged(family, dtype, solver, problem.name)
        limit = KNOWN_LIMITS.get(problem.name)
        known = limit is not None and family in limit.families and dtype in limit.dtypes
        if out.status.success and not out.optimality <= max(out.tol, _precision(problem, dtype, stuck=True)):
            complaints.append(_line(problem, out, numbers, "its own optimality is not that of a solution"))
        elif out.status.success and known and not solved:
            if not stationary:
                complaints.append(_line(problem, out, numbers, "a known limit, but not even stationary"))
        elif out.status.success and not solved:
            complaints.append(_line(problem, out, numbers, "no solution"))
    _fail_on(complaints)


def _precision(problem: Any, dtype: str, *, stuck: bool = False) -> float:
    """The optimality that a solve may call converged when its steps are at an end, or it is stuck at rounding."""
    start = None
    if isinstance(problem, (problems.Minimization, problems.LeastSquares)):
        start = _compiled(problem.name).start_gradient_norm
    start = problem.residual_norm(problem.start) if start is None else start
    eps = float(jnp.finfo(dtype).eps)
    double = isinstance(problem, problems.Minimization) and dtype == "float64"
    part = 10.1 * eps ** (2 / 3) if double else 101 * eps
    if stuck and double:
        part = max(part, min(10.1 * eps**0.5, 1e-6))
    return part * max(1.0, start if math.isfinite(start) else 1.0)


@pytest.mark.parametrize(("family", "solver", "dtype"), _cases())
def test_the_report_is_true_and_the_point_is_the_best_seen(family, solver, dtype):
    complaints = []
    for problem, out in _met(family, solver, dtype):
        start = problem.x0(jnp.dtype(dtype))
        wrong = []
        if out.status in (Status.RUNNING, Status.STOPPED):
            wrong.append("not a status to end with")
        if not out.evaluations == out.steps + 1 >= 1 or not 0 <= out.accepted <= out.steps:
            wrong.append(f"counts do not add up: {out.steps} steps, {out.accepted} accepted")
        if jax.tree.structure(out.x) != jax.tree.structure(start):
            wrong.append("x is not a tree like x0")
        if any(leaf.dtype != dtype for leaf in jax.tree.leaves(out.x)):
            wrong.append("x has another dtype")
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out.x)):
            wrong.append("x is not finite")
        lost = math.isnan(out.again) and math.isnan(out.fun)
        if not (abs(out.again - out.fun) <= out.rounding or lost):
            wrong.append(f"fun is {out.fun!r}, the function at x {out.again!r}")
        if math.isfinite(out.start) and not out.fun <= out.start + out.rounding:
            wrong.append(f"fun {out.fun!r} is above {out.start!r} of the start")
        complaints += [_line(problem, out, "", text) for text in wrong]
    _fail_on(complaints)


@pytest.mark.parametrize(("family", "solver", "dtype"), _cases(STRONG, ("float64",)))
def test_the_strong_methods_solve_every_solvable_problem_in_float64(family, solver, dtype):
    complaints = []
    for problem, out in _met(family, solver, dtype):
        if not _solvable(problem) or (solver, problem.name) in EXCEPTIONS:
            continue
        solved, _, numbers = _judged(family, dtype, solver, problem.name)
        if not (out.status.success and solved):
            complaints.append(_line(problem, out, numbers, "not solved"))
    _fail_on(complaints)


@pytest.mark.parametrize(("family", "solver", "dtype"), _cases(STRONG, ("float32",)))
def test_the_strong_methods_solve_nearly_all_in_float32(family, solver, dtype):
    solvable = [(p, out) for p, out in _met(family, solver, dtype) if _solvable(p)]
    lost = [
        _line(p, out, judged.numbers, "not solved")
        for p, out in solvable
        for judged in [_judged(family, dtype, solver, p.name)]
        if not (out.status.success and judged.solved)
    ]
    fraction = 1 - len(lost) / len(solvable)
    assert fraction >= FRACTION_IN_FLOAT32[solver], "\n".join(["", f"only {fraction:.0%}:", *lost])


def _solvable(problem: Any) -> bool:
    return getattr(problem, "kind", "solvable") == "solvable"


@pytest.mark.parametrize(("family", "solver", "dtype"), _cases([*LINE_SEARCHING, *SECOND_ORDER]))
def test_a_problem_without_a_solution_gets_the_status_that_says_why(family, solver, dtype):
    expected = {
        "unbounded_linear": {Status.UNBOUNDED},
        "unbounded_concave": {Status.UNBOUNDED},
        "nan_at_start": {Status.NOT_FINITE},
        "nan_gradient_at_start": {Status.NOT_FINITE},
        "nan_island": {Status.NOT_FINITE, Status.LINE_SEARCH_FAILED, Status.STALLED},
    }
    if family == "second order":
        expected["unbounded_concave_top"] = {Status.UNBOUNDED, Status.SADDLE}
    found = {problem.name: out for problem, out in _met(family, solver, dtype)}
    complaints = [
        _line(_BY_NAME[name], found[name], "", f"not {' or '.join(s.name for s in statuses)}")
        for name, statuses in expected.items()
        if name in found and found[name].status not in statuses
    ]
    _fail_on(complaints)


@pytest.mark.parametrize(("family", "solver", "dtype"), _cases(SECOND_ORDER))
def test_methods_with_curvature_leave_saddles_and_plateaus(family, solver, dtype):
    found = {problem.name: out for problem, out in _met(family, solver, dtype)}
    names = ("saddle_exact", "saddle_manifold", "saddle_near", "plateau_faint")
    _fail_on(
        [
            _line(_BY_NAME[name], found[name], judged.numbers, "not left")
            for name in names
            for judged in [_judged(family, dtype, solver, name)]
            if not (judged.solved and found[name].status.success) and found[name].status is not Status.SADDLE
        ]
    )


@pytest.mark.parametrize(("family", "solver", "dtype"), _cases([*LINE_SEARCHING, *SECOND_ORDER]))
def test_a_solve_that_can_go_no_further_does_not_use_up_its_steps(family, solver, dtype):
    """Ending as OUT_OF_STEPS on a solution to within rounding is a waste of every evaluation but a few."""
    complaints = []
    for problem, out in _met(family, solver, dtype):
        stuck = out.status is Status.OUT_OF_STEPS and out.optimality <= _precision(problem, dtype)
        idle = out.accepted < out.steps / 4
        if stuck and idle and _judged(family, dtype, solver, problem.name).solved:
            complaints.append(_line(problem, out, "", "solved to within rounding, and went on"))
    _fail_on(complaints)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_every_known_limit_and_exception_is_still_one(dtype):
    """A limit that nobody meets any more leaves the table."""
    for name, limit in KNOWN_LIMITS.items():
        if dtype in limit.dtypes:
            false = [
                solver
                for family in limit.families
                for (solver, problem), out in outcomes(family, dtype, True).items()
                if problem == name and out.status.success and not _judged(family, dtype, solver, name).solved
            ]
            assert false, f"{name} in {dtype}: no solver is deceived"
    if dtype == "float64":
        for solver, name in EXCEPTIONS:
            family = next(f for f, (solvers, _, _) in FAMILIES.items() if solver in solvers)
            out = _outcomes_of(family, dtype, solver)[solver, name]
            solved = out.status.success and _judged(family, dtype, solver, name).solved
            assert not solved, f"{solver} solves {name}"


NATIVE = {
    "BFGS": (nestor.minimize, "pytree_quartic"),
    "LBFGS": (nestor.minimize, "pytree_quartic"),
    "CG polak-ribiere+": (nestor.minimize, "pytree_quartic"),
    "Descent backtracking": (nestor.minimize, "pytree_quartic"),
    "adam": (nestor.minimize, "pytree_quartic"),
    "Newton": (nestor.minimize, "pytree_quartic"),
    "NewtonCG": (nestor.minimize, "pytree_quartic"),
    "LineSearchNewton": (nestor.minimize, "pytree_quartic"),
    "LineSearchNewtonCG": (nestor.minimize, "pytree_quartic"),
    "CG daniel": (nestor.minimize, "pytree_quartic"),
    "NewtonRoot": (nestor.find_root, "root_pytree"),
    "Broyden": (nestor.find_root, "root_pytree"),
    "Anderson": (nestor.fixed_point, "fixed_pytree"),
    "Picard": (nestor.fixed_point, "fixed_pytree"),
    "LevenbergMarquardt": (nestor.least_squares, "ls_pytree"),
    "Dogleg": (nestor.least_squares, "ls_pytree"),
}
_STEPS = {nestor.minimize: 1000, nestor.find_root: 300, nestor.fixed_point: 3000, nestor.least_squares: 1000}


@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(solver, marks=_marks(family, solver, "float64"))
        for solver in NATIVE
        for family, (solvers, _, _) in FAMILIES.items()
        if solver in solvers
    ],
)
def test_the_matrix_ran_what_a_user_runs(solver):
    """The same solve through the plain front door, on the tree itself: the same numbers come out."""
    front, name = NATIVE[solver]
    problem = _BY_NAME[name]
    family = next(f for f, (solvers, _, _) in FAMILIES.items() if solver in solvers)
    fun = problem.residual if front is nestor.least_squares else problem.fun
    solution = front(
        fun,
        problem.x0(jnp.float64),
        solver=FAMILIES[family].solvers[solver],
        max_steps=_STEPS[front],
        raise_on_failure=False,
    )
    plain = harness.outcome(solution, solution.x)
    packed = _outcomes_of(family, "float64", solver)[solver, name]
    assert plain.status is packed.status
    assert abs(plain.evaluations - packed.evaluations) <= max(2, packed.evaluations // 10)
    if plain.status.success:
        assert problems.distance(plain.x, packed.x) <= 1e-5
