"""What each solver promises beyond solving: line-search conditions, counts, agreement with SciPy, its form."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from jax.extend import core as jex

import nestor
from nestor.errors import BadArgument
from nestor.solvers import _newton_cg
from nestor.solvers._contract import Info, Minimization, converged_at_precision
from tests import problems

DIRECTIONS = (
    *("polak-ribiere+", "hestenes-stiefel", "fletcher-reeves", "dai-yuan", "conjugate-descent"),
    "daniel",
)
MINIMIZERS = {
    "BFGS": nestor.BFGS(),
    "LBFGS": nestor.LBFGS(),
    "Newton": nestor.Newton(),
    "NewtonCG": nestor.NewtonCG(),
    "NonlinearCG": nestor.NonlinearCG(),
    "GradientDescent": nestor.GradientDescent(),
    "LineSearchNewton": nestor.LineSearchNewton(),
    "LineSearchNewtonCG": nestor.LineSearchNewtonCG(),
}
ROOTS = {"NewtonRoot": nestor.NewtonRoot(), "Broyden": nestor.Broyden()}
FIXED_POINTS = {"Anderson": nestor.Anderson(), "Picard": nestor.Picard()}
SQUARES = {
    "LevenbergMarquardt": nestor.LevenbergMarquardt(),
    "GaussNewton": nestor.GaussNewton(),
    "Dogleg": nestor.Dogleg(),
}
KINDS = {
    nestor.minimize: MINIMIZERS,
    nestor.find_root: ROOTS,
    nestor.fixed_point: FIXED_POINTS,
    nestor.least_squares: SQUARES,
}
ALL = MINIMIZERS | ROOTS | FIXED_POINTS | SQUARES

ROSENBROCK = problems.by_name("rosenbrock_2")


# --- counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        *(("BFGS", 60), ("LBFGS", 60), ("Newton", 35), ("NewtonCG", 60)),
        *(("LineSearchNewton", 35), ("LineSearchNewtonCG", 120)),
    ],
)
def test_evaluations_on_rosenbrock_stay_within_what_is_good_practice(name, bound):
    solution = nestor.minimize(ROSENBROCK.fun, ROSENBROCK.x0(), solver=MINIMIZERS[name])
    assert problems.judge(ROSENBROCK, solution.x).solved
    assert int(solution.stats.evaluations) <= bound


@pytest.mark.parametrize(("name", "bound"), [("LevenbergMarquardt", 60), ("GaussNewton", 60), ("Dogleg", 40)])
def test_evaluations_on_rosenbrock_as_least_squares_stay_within_what_is_good_practice(name, bound):
    """MINPACK's lmder needs 21; a residual that vanishes and a Jacobian of full rank: no excuse."""
    problem = problems.by_name("ls_rosenbrock")
    solution = nestor.least_squares(problem.residual, problem.x0(), solver=SQUARES[name])
    assert problems.judge(problem, solution.x).solved
    assert int(solution.stats.evaluations) <= bound


@pytest.mark.parametrize(
    ("front", "name", "steps"),
    [
        (nestor.minimize, "Newton", 1),
        (nestor.least_squares, "GaussNewton", 1),
        (nestor.find_root, "NewtonRoot", 1),
        (nestor.find_root, "Broyden", 1),
        (nestor.fixed_point, "Anderson", 6),
    ],
)
def test_a_linear_problem_takes_the_steps_that_the_theory_says(front, name, steps):
    """Newton's methods solve it in one step from inside the trust region; Anderson is GMRES, n + 1 steps."""
    a = 3 * jnp.eye(4) + jnp.asarray(np.random.default_rng(0).normal(size=(4, 4))) / 4
    b = jnp.asarray([0.3, -0.2, 0.1, 0.4])
    fun = {
        nestor.minimize: lambda x: 0.5 * x @ (a + a.T) @ x - b @ x,
        nestor.least_squares: lambda x: a @ x - b,
        nestor.find_root: lambda x: a @ x - b,
        nestor.fixed_point: lambda x: x - (a @ x - b) / 4,
    }[front]
    solution = front(fun, jnp.zeros(4), solver=KINDS[front][name], tol=1e-10)
    assert int(solution.stats.steps) <= steps


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_conjugate_gradients_end_on_a_quadratic_after_as_many_moves_as_unknowns(direction):
    n = 6
    hessian = jnp.asarray(np.diag(np.linspace(1.0, 20.0, n)))
    solver = nestor.NonlinearCG(direction, nestor.StrongWolfe(decrease=1e-5, curvature=1e-4))
    solution = nestor.minimize(
        lambda x: 0.5 * x @ hessian @ x - jnp.sum(x), 0.1 * jnp.arange(1.0, n + 1), solver=solver, tol=1e-6
    )
    assert int(solution.stats.accepted) <= n + 2


def test_counts_history_and_reports_tell_the_same_story():
    reports: list[nestor.Report] = []
    solution = nestor.minimize(
        ROSENBROCK.fun,
        ROSENBROCK.x0(),
        solver=nestor.BFGS(),
        history=True,
        callback=lambda report: reports.append(report),
    )
    history, stats = solution.history, solution.stats
    assert history is not None
    assert len(reports) == len(history.value) == int(stats.evaluations) == int(stats.steps) + 1
    assert [r.step for r in reports] == list(range(len(reports)))
    np.testing.assert_array_equal([r.fun for r in reports], history.value)
    np.testing.assert_array_equal([r.accepted for r in reports], history.accepted)
    assert int(np.sum(history.accepted)) == int(stats.accepted) + 1  # the start counts as kept
    for report in reports[:: len(reports) // 5]:
        assert float(ROSENBROCK.fun(report.x)) == pytest.approx(report.fun, rel=1e-12)
        gradient = jax.grad(ROSENBROCK.fun)(report.x)
        assert float(jnp.max(jnp.abs(gradient))) == pytest.approx(report.optimality, rel=1e-9)


# --- line searches --------------------------------------------------------------------------------


def _kept(problem: Any, solver: Any, **options: Any) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """(x, value, gradient) at every point that was kept, recomputed."""
    points: list[Any] = []
    nestor.minimize(
        problem.fun,
        problem.x0(),
        solver=solver,
        raise_on_failure=False,
        callback=lambda report: points.append(report.x) if report.accepted else None,
        **options,
    )
    both = jax.jit(jax.value_and_grad(problem.fun))
    found = [(np.asarray(x), *both(x)) for x in points]
    return [(x, float(value), np.asarray(grad)) for x, value, grad in found]


@pytest.mark.parametrize(
    ("solver", "curvature"),
    [
        (nestor.BFGS(), 0.9),
        (nestor.LBFGS(search=nestor.StrongWolfe(curvature=0.5)), 0.5),
        (nestor.NonlinearCG("polak-ribiere+"), 0.1),
        (nestor.GradientDescent(nestor.StrongWolfe(curvature=0.3)), 0.3),
    ],
    ids=["BFGS", "LBFGS", "NonlinearCG", "GradientDescent"],
)
@pytest.mark.parametrize("problem", ["rosenbrock_2", "beale"])
def test_kept_steps_satisfy_the_strong_wolfe_conditions(solver, curvature, problem):
    kept = _kept(problems.by_name(problem), solver, max_steps=60)
    assert len(kept) > 8
    for (x, value, grad), (x_next, value_next, grad_next) in itertools.pairwise(kept):
        slope, slope_next = grad @ (x_next - x), grad_next @ (x_next - x)
        if max(value, value_next) < 1e-10:
            break  # from here on the approximate conditions may rule
        rounding = 1e-12 * max(1.0, abs(slope))
        assert slope < 0
        assert value_next <= value + 1e-4 * slope + 1e-12 * abs(value)
        assert abs(slope_next) <= curvature * abs(slope) + rounding


@pytest.mark.parametrize(
    "solver", [nestor.GradientDescent(), nestor.BFGS(nestor.Backtracking())], ids=["descent", "BFGS"]
)
def test_kept_steps_of_backtracking_satisfy_armijos_condition(solver):
    kept = _kept(ROSENBROCK, solver, max_steps=80)
    assert len(kept) > 8
    for (x, value, grad), (x_next, value_next, _) in itertools.pairwise(kept):
        assert value_next <= value + 1e-4 * (grad @ (x_next - x)) + 1e-12 * abs(value)


def test_a_fixed_step_is_the_textbook_recurrence():
    kept = _kept(problems.by_name("booth"), nestor.GradientDescent(nestor.FixedStep(0.05)), max_steps=10)
    assert len(kept) == 11
    for (x, _, grad), (x_next, _, _) in itertools.pairwise(kept):
        np.testing.assert_allclose(x_next, x - 0.05 * grad, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    "solver",
    [
        nestor.BFGS(),
        nestor.LBFGS(),
        nestor.NonlinearCG(),
        nestor.GradientDescent(nestor.StrongWolfe()),
        nestor.Newton(),
        nestor.NewtonCG(),
        nestor.LineSearchNewton(),
        nestor.LineSearchNewtonCG(),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_float32_converges_where_every_decrease_has_drowned(solver):
    """At 10^4 one unit in the last place is 10^-3, and the decrease that is left from here less: 6 * 10^-4."""
    scale = jnp.asarray([1.0, 3.0, 10.0], jnp.float32)

    def fun(x: jax.Array) -> jax.Array:
        return 1e4 + 0.5 * jnp.sum(scale * (x - 1.0) ** 2)

    solution = nestor.minimize(
        fun, jnp.asarray([1.02, 0.99, 0.995], jnp.float32), solver=solver, max_steps=200
    )
    assert float(jnp.max(jnp.abs(jax.grad(fun)(solution.x)))) <= 3.5e-4
    assert int(solution.stats.evaluations) <= 60


# --- the form of a solver -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("front", "name"),
    [(front, name) for front, own in KINDS.items() for name in ALL if name not in own],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_solver_of_the_wrong_kind_is_refused_by_name(front, name):
    with pytest.raises(BadArgument) as refusal:
        front(lambda x: x, jnp.ones(2), solver=ALL[name])
    message = str(refusal.value)
    assert front.__name__ in message
    assert name in message
    assert any(right in message for right in KINDS[front])


@pytest.mark.parametrize("front", [nestor.find_root, nestor.fixed_point, nestor.least_squares])
def test_an_optax_transformation_minimizes_and_nothing_else(front):
    with pytest.raises(BadArgument, match=front.__name__):
        front(lambda x: x, jnp.ones(2), solver=optax.sgd(0.1))


@pytest.mark.parametrize("name", ALL)
def test_a_solver_is_a_small_frozen_value(name):
    solver = ALL[name]
    fields = dataclasses.fields(solver)
    assert len(fields) <= 5
    assert hash(solver) == hash(type(solver)())
    assert solver == type(solver)()
    for field in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(solver, field.name, None)
    assert repr(solver).startswith(name)


@pytest.mark.parametrize("name", ALL)
def test_a_solver_says_what_a_step_is_and_has_no_loop(name):
    tree = ast.parse(textwrap.dedent(inspect.getsource(type(ALL[name]))))
    loops = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, (ast.For, ast.While))
        or (isinstance(node, ast.Attribute) and node.attr in ("while_loop", "fori_loop", "scan", "map"))
    ]
    assert not loops
    verbs = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
    assert {"init", "step", "status"} <= verbs


def _inner(value: Any) -> list[Any]:
    if isinstance(value, jex.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, jex.Jaxpr):
        return [value]
    return [jaxpr for v in value for jaxpr in _inner(v)] if isinstance(value, (tuple, list)) else []


def _count(jaxpr: Any, primitive: str, *, looping: bool) -> int:
    """How often a primitive stands in a program; only inside of loops if `looping`."""
    total = 0
    for eqn in jaxpr.eqns:
        total += eqn.primitive.name == primitive and not looping
        inside = looping and eqn.primitive.name not in ("while", "scan")
        total += sum(
            _count(inner, primitive, looping=inside) for v in eqn.params.values() for inner in _inner(v)
        )
    return total


@pytest.mark.parametrize(
    ("front", "name"),
    [(front, name) for front, own in KINDS.items() for name in own],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_turn_evaluates_the_objective_once(front, name):
    """`atan2` differentiates into a quotient: every one in the loop is an evaluation of the function itself."""

    def fun(x: jax.Array) -> jax.Array:
        marked = jnp.arctan2(x, 2.0 + x**2) - 0.5
        return jnp.sum(marked**2) if front is nestor.minimize else marked

    def solve(x0: jax.Array) -> jax.Array:
        return front(fun, x0, solver=KINDS[front][name], raise_on_failure=False).x

    program = jax.make_jaxpr(solve)(jnp.ones(3)).jaxpr
    sites = 2 if name == "Broyden" else 1  # its Jacobian, made anew when it is stuck, is a second one
    assert _count(program, "atan2", looping=True) == sites


# --- agreement with SciPy -------------------------------------------------------------------------


def _scipy(problem: Any) -> tuple[Any, Any]:
    both = jax.jit(jax.value_and_grad(problem.fun))
    return lambda x: float(both(x)[0]), lambda x: np.asarray(both(x)[1])


@pytest.mark.parametrize("name", ["rosenbrock_2", "wood", "log_sum_exp", "penalty_one_10"])
def test_bfgs_ends_where_scipy_does(name):
    problem = problems.by_name(name)
    fun, grad = _scipy(problem)
    theirs = scipy.optimize.minimize(fun, problem.start, jac=grad, method="BFGS", options={"gtol": 1e-7})
    ours = nestor.minimize(problem.fun, problem.x0(), solver=nestor.BFGS(), tol=1e-7)
    assert float(ours.fun) <= theirs.fun + 1e-9
    assert int(ours.stats.evaluations) <= 1.5 * theirs.nfev + 10


@pytest.mark.parametrize(
    "name",
    ["ls_bard", "ls_exponential_fit", "ls_kowalik_osborne", "ls_jennrich_sampson", "ls_powell_singular"],
)
def test_levenberg_marquardt_ends_where_scipy_does(name):
    problem = problems.by_name(name)
    residual, jacobian = jax.jit(problem.residual), jax.jit(jax.jacfwd(problem.residual))
    theirs = scipy.optimize.least_squares(
        lambda x: np.asarray(residual(x)), problem.start, jac=lambda x: np.asarray(jacobian(x)), method="lm"
    )
    ours = nestor.least_squares(
        problem.residual, problem.x0(), solver=nestor.LevenbergMarquardt(), raise_on_failure=False
    )
    assert ours.success
    assert float(ours.fun) <= theirs.cost + 1e-9 * max(1.0, theirs.cost)
    assert int(ours.stats.evaluations) <= 3 * theirs.nfev + 20


@pytest.mark.parametrize("name", ["root_helical_valley", "root_brown_almost_linear_5", "root_rotation"])
@pytest.mark.parametrize("solver", ["NewtonRoot", "Broyden"])
def test_roots_are_those_of_scipy(name, solver):
    problem = problems.by_name(name)
    fun, jacobian = jax.jit(problem.fun), jax.jit(jax.jacfwd(problem.fun))
    theirs = scipy.optimize.root(
        lambda x: np.asarray(fun(x)), problem.start, jac=lambda x: np.asarray(jacobian(x)), method="hybr"
    )
    ours = nestor.find_root(problem.fun, problem.x0(), solver=ROOTS[solver], raise_on_failure=False)
    assert theirs.success
    assert ours.success
    assert problem.error(ours.x) <= 1e-5
    if name != "root_brown_almost_linear_5":  # several roots: both found one of them
        np.testing.assert_allclose(np.asarray(ours.x), theirs.x, atol=1e-5)


# --- steps that learn from the last one, and ends at rounding ---------------------------------------


def _ill_conditioned_logistic(n: int) -> Any:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(10 * n, n)) * np.geomspace(1, 1e-4, n)
    y = np.sign(a @ rng.normal(size=n) + 0.5 * rng.normal(size=10 * n))
    signed = jnp.asarray(a * y[:, None])
    return lambda w: jnp.mean(jax.nn.softplus(-(signed @ w))) + 0.5e-8 * jnp.sum(w**2)


@pytest.mark.parametrize(("solver", "evaluations"), [(nestor.Newton(), 10), (nestor.NewtonCG(), 16)])
def test_newtons_methods_solve_an_ill_conditioned_problem_to_the_last_digits(solver, evaluations):
    """Without what conjugate gradients saw before, `NewtonCG` takes hundreds of products in the last steps."""
    solution = nestor.minimize(_ill_conditioned_logistic(60), jnp.zeros(60), solver=solver, tol=1e-12)
    assert int(solution.stats.evaluations) <= evaluations


def test_pairs_of_conjugate_gradients_invert_the_matrix_they_have_seen():
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    matrix = jnp.asarray(q @ np.diag(np.geomspace(1, 1e4, 6)) @ q.T)
    pairs = _newton_cg.no_pairs(jnp.zeros(6), 6)
    v = jnp.asarray(rng.normal(size=6))
    np.testing.assert_array_equal(pairs.inverse_times(v), v)
    for column in np.linalg.inv(np.linalg.cholesky(np.asarray(matrix))):  # rows that are conjugate
        d = jnp.asarray(column)
        pairs = pairs.with_one(d, matrix @ d, d @ matrix @ d, jnp.bool_(True))
    np.testing.assert_allclose(pairs.inverse_times(v), np.linalg.solve(matrix, v), rtol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "optimality", "stuck"), [(np.float64, 1e-7, True), (np.float32, 2e-3, False)]
)
def test_a_minimization_that_is_stuck_has_converged_at_ten_times_the_tolerance_in_float64(
    dtype, optimality, stuck
):
    tol = float(np.finfo(dtype).eps) ** 0.5
    problem = Minimization(jnp.sum, tol)
    info = Info(dtype(1.0), jnp.asarray(optimality, dtype), jnp.bool_(True))
    said = [bool(converged_at_precision(problem, info, dtype(1.0), end)) for end in (False, True)]
    assert said == [False, stuck]
