"""The catalogue of test problems is itself right."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import oracles, problems
from tests.problems import (
    EVERYTHING,
    FIXED_POINTS,
    LEAST_SQUARES,
    MINIMIZATIONS,
    PARAMETRICS,
    ROOTS,
    FixedPoint,
    LeastSquares,
    Minimization,
    Parametric,
    Root,
    judge,
)

pytestmark = pytest.mark.slow  # the catalogue checks itself; run this file when the catalogue changes


@pytest.fixture(autouse=True)
def _double_precision() -> Any:
    with jax.enable_x64(True):
        yield


def _each(items: tuple[Any, ...]) -> Any:
    return pytest.mark.parametrize("problem", items, ids=lambda item: item.name)


WITH_MINIMUM = tuple(
    item
    for item in (*MINIMIZATIONS, *(problem.minimization for problem in LEAST_SQUARES))
    if item.minimum_value is not None
)


def test_counts_and_unique_names() -> None:
    names = [problem.name for problem in EVERYTHING]
    assert len(set(names)) == len(names)
    assert len(MINIMIZATIONS) >= 30
    assert len(problems.of_kind("solvable")) >= 25
    assert len(ROOTS) >= 6
    assert len(FIXED_POINTS) >= 5
    assert len(LEAST_SQUARES) >= 8
    for kind in ("minimization", "root", "fixed_point", "least_squares"):
        assert len(problems.parametric(kind)) >= 2
    for kind in ("unbounded", "nan", "saddle", "flat"):
        assert len(problems.of_kind(kind)) >= 2
    assert problems.by_name("wood").source == "MGH81 #14"


def _call(problem: Any, dtype: Any) -> tuple[Any, tuple[Any, ...]]:
    if isinstance(problem, Parametric):
        return problem.fun, (problem.x0(dtype), problem.theta0(dtype))
    fun = problem.residual if isinstance(problem, LeastSquares) else problem.fun
    return fun, (problem.x0(dtype),)


def _derivatives(problem: Any, dtype: Any) -> Any:
    """Trace all a solver may ask of a problem: value, JVP, VJP, and forward over reverse."""
    fun, args = _call(problem, dtype)
    every = tuple(range(len(args)))

    def total(*inputs: Any) -> Any:
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(fun(*inputs)))

    def run(*inputs: Any) -> Any:
        value, tangent = jax.jvp(fun, inputs, inputs)
        slopes, curvature = jax.jvp(jax.grad(total, argnums=every), inputs, inputs)
        return value, tangent, slopes, curvature

    return jax.eval_shape(run, *args)


@_each(EVERYTHING)
@pytest.mark.parametrize("dtype", ["float32", "float64", "default"])
def test_keeps_its_dtype_under_strict_promotion(problem: Any, dtype: str) -> None:
    wanted = None if dtype == "default" else jnp.dtype(dtype)
    with (
        jax.enable_x64(dtype != "default"),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        shapes = _derivatives(problem, wanted)
    kept = jnp.dtype("float32") if wanted is None else wanted
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {kept}
    value = shapes[0]
    kind = problem.kind if isinstance(problem, Parametric) else ""
    if isinstance(problem, Minimization) or kind == "minimization":
        assert value.shape == ()
    if isinstance(problem, LeastSquares) or kind == "least_squares":
        assert value.ndim == 1
    if isinstance(problem, Root | FixedPoint) or kind in {"root", "fixed_point"}:
        assert jax.tree.map(np.shape, value) == jax.tree.map(np.shape, problem.start)


@_each(EVERYTHING)
def test_single_precision_follows_double(problem: Any) -> None:
    calls = [_call(problem, dtype) for dtype in (jnp.float32, jnp.float64)]
    values = [fun(*args) for fun, args in calls]
    scale = 1.0 + max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(values[1]))
    for single, double in zip(*map(jax.tree.leaves, values), strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5 * scale)


@_each(WITH_MINIMUM)
def test_listed_minima(problem: Minimization) -> None:
    assert problem.minimizers
    listed = [(x, problem.minimum_value) for x in problem.minimizers] + list(problem.local_minima)
    for x, value in listed:
        assert value is not None
        assert jax.tree.structure(x) == jax.tree.structure(problem.start)
        assert jax.tree.map(np.shape, x) == jax.tree.map(np.shape, problem.start)
        at = problems.cast(x, jnp.float64)
        gradient, _ = oracles.ravel(jax.grad(problem.fun)(at))
        eigenvalues = np.linalg.eigvalsh(oracles.dense_hessian(problem.fun, x))
        top = max(1.0, float(eigenvalues[-1]))
        assert float(problem.fun(at)) == pytest.approx(value, rel=1e-12, abs=1e-13)
        assert np.max(np.abs(gradient)) <= 1e-11 * top
        assert eigenvalues[0] >= -1e-13 * top
        verdict = judge(problem, x)
        assert verdict.solved
        assert verdict.gap >= -1e-12 * max(1.0, abs(value))
        assert judge(problem, problems.cast(x, jnp.float32)).solved
    assert min(problem.local_values) == problem.minimum_value


def test_values_published_elsewhere() -> None:
    def value(name: str) -> float:
        problem = problems.by_name(name)
        return problem.value if isinstance(problem, LeastSquares) else problem.minimum_value

    assert 2.0 * value("ls_bard") == pytest.approx(8.21487e-3, rel=1e-6)
    assert 2.0 * value("ls_kowalik_osborne") == pytest.approx(3.07505e-4, rel=3e-6)
    assert 2.0 * value("ls_jennrich_sampson") == pytest.approx(124.362, rel=2e-6)
    assert 2.0 * value("ls_brown_dennis") == pytest.approx(85822.2, rel=1e-6)
    assert value("penalty_one_10") == pytest.approx(7.08765e-5, rel=1e-6)
    assert value("branin") == pytest.approx(0.397887, rel=1e-5)
    assert value("six_hump_camel") == pytest.approx(-1.0316, rel=1e-4)
    assert value("styblinski_tang_3") == pytest.approx(-39.16599 * 3, rel=1e-5)
    local = {p.name: p.local_values[1:] for p in MINIMIZATIONS}
    assert local["freudenstein_roth"] == pytest.approx((48.9842,), rel=1e-5)
    assert local["trigonometric_10"] == pytest.approx((2.79506e-5,), rel=1e-5)
    assert local["rosenbrock_chained_100"] == pytest.approx((3.986624,), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rosenbrock_2", 24.2),
        ("rosenbrock_extended_100", 50 * 24.2),
        ("freudenstein_roth", 400.5),
        ("beale", 14.203125),
        ("powell_singular", 215.0),
        ("wood", 19192.0),
        ("brown_badly_scaled", 999998000003.0),
        ("helical_valley", 2500.0),
        ("box_3d", 1031.15381),
        ("penalty_one_10", 148032.56535),
        ("variably_dimensioned_10", 2198551.1625),
        ("ls_bard", 41.6817),
        ("ls_jennrich_sampson", 4171.306),
        ("ls_brown_dennis", 7926693.336),
    ],
)
def test_start_values_published_elsewhere(name: str, value: float) -> None:
    """Sums of squares at the standard starts: a slip in a formula may keep the minimizer."""
    problem = problems.by_name(name)
    factor = 2.0 if isinstance(problem, LeastSquares) else 1.0
    assert factor * judge(problem, problem.start).value == pytest.approx(value, rel=2e-5)


@_each(problems.of_kind("solvable"))
def test_scipy_solves_the_solvable(problem: Minimization) -> None:
    def solved(method: str) -> bool:
        return judge(problem, oracles.scipy_minimize(problem.fun, problem.start, method)).solved

    assert any(solved(method) for method in ("trust-exact", "BFGS"))


@_each(LEAST_SQUARES)
def test_scipy_solves_the_least_squares(problem: LeastSquares) -> None:
    x = oracles.scipy_least_squares(problem.residual, problem.start)
    assert judge(problem, x).solved
    if not problem.singular and not problem.minimization.local_minima:
        assert min(problems.distance(x, known) for known in problem.minimizers) < 1e-5
    residual = oracles.jax_flat(problem.residual, problem.start)(oracles.ravel(x)[0])
    assert 0.5 * float(residual @ residual) == pytest.approx(judge(problem, x).value, rel=1e-12)


@_each(ROOTS)
def test_roots(problem: Root) -> None:
    for root in problem.roots:
        slopes = oracles.dense_jacobian(problem.fun, root)
        assert problem.residual_norm(root) <= 1e-13 * max(1.0, float(np.max(np.abs(slopes))))
        assert np.linalg.cond(slopes) < 1e12
        assert problem.error(root) == 0.0
    x = oracles.scipy_root(problem.fun, problem.start)
    assert problem.residual_norm(x) < 1e-9
    assert problem.error(x) < 1e-6


@_each(FIXED_POINTS)
def test_fixed_points(problem: FixedPoint) -> None:
    assert problem.residual_norm(problem.point) < 1e-14
    slopes = oracles.dense_jacobian(problem.fun, problem.point)
    radius = float(np.max(np.abs(np.linalg.eigvals(slopes))))
    assert (radius < 1.0) == problem.contracting
    if problem.rate is not None:
        assert radius == pytest.approx(problem.rate, abs=1e-4)
    if problem.contracting:
        x = oracles.scipy_fixed_point(problem.fun, problem.start)
        assert problem.error(x) < 1e-12


@_each(PARAMETRICS)
def test_parametric_solutions_and_jacobians(problem: Parametric) -> None:
    x = problem.solution(problem.theta)
    assert np.shape(x) == problem.start.shape
    theta = problem.theta0(jnp.float64)
    assert problems.distance(problem.optimality(jnp.asarray(x), theta), np.zeros_like(x)) < 1e-13

    answer = problem.jacobian(problem.theta)
    leaves = jax.tree.leaves(problem.theta)
    assert jax.tree.structure(answer) == jax.tree.structure(problem.theta)
    for block, leaf in zip(jax.tree.leaves(answer), leaves, strict=True):
        assert np.shape(block) == np.shape(x) + np.shape(leaf)

    differences = oracles.tree_fd_jacobian(problem.solution, problem.theta)
    for block, other in zip(jax.tree.leaves(answer), jax.tree.leaves(differences), strict=True):
        np.testing.assert_allclose(block, other, rtol=1e-8, atol=1e-9)

    dense = oracles.tree_matrix(answer, np.size(x))
    exact = oracles.implicit_jacobian(problem.optimality, x, problem.theta)
    np.testing.assert_allclose(dense, exact, rtol=1e-11, atol=1e-12)
    slow = oracles.implicit_jacobian(problem.optimality, x, problem.theta, by_differences=True)
    np.testing.assert_allclose(dense, slow, rtol=1e-8, atol=1e-9)

    if problem.kind == "minimization":
        hessian = oracles.dense_hessian(lambda z: problem.fun(z, theta), x)
        assert np.linalg.eigvalsh(hessian)[0] > 0.0


def test_nonzero_residual_curvature_matters() -> None:
    """The least-squares problem that Gauss-Newton implicit differentiation gets wrong."""
    problem = problems.by_name("exponential_targets")
    x = problem.solution(problem.theta)
    jac = oracles.dense_jacobian(lambda z: problem.fun(z, problem.theta0()), x)
    dropped = np.linalg.solve(jac.T @ jac, jac.T)
    exact = problem.jacobian(problem.theta)
    assert np.max(np.abs(dropped - exact)) > 1e-2 * np.max(np.abs(exact))


def test_hard_starts_are_what_they_say() -> None:
    def start(name: str) -> tuple[Minimization, problems.Verdict]:
        problem = problems.by_name(name)
        return problem, judge(problem, problem.start)

    for name in ("saddle_exact", "plateau_dead", "unbounded_concave_top"):
        problem, verdict = start(name)
        assert problem.start_gradient_norm == 0.0
        assert verdict.looks_stationary
        assert not verdict.is_minimum
        assert not verdict.solved
    _, verdict = start("saddle_manifold")
    assert not verdict.looks_stationary
    problem, verdict = start("plateau_faint")
    assert 1e-6 < verdict.gradient_norm < 1e-5
    assert not verdict.looks_stationary
    assert verdict.gap == pytest.approx(1.0, abs=1e-5)
    assert judge(problem, np.zeros(2)).solved
    problem, verdict = start("nan_at_start")
    assert math.isnan(verdict.value)
    assert math.isfinite(verdict.gradient_norm)
    problem, verdict = start("nan_gradient_at_start")
    assert math.isnan(verdict.value)
    assert math.isnan(verdict.gradient_norm)
    problem, verdict = start("nan_island")
    assert math.isfinite(verdict.gradient_norm)
    assert math.isnan(judge(problem, problem.start + 1e-6).value)
    for name in ("nan_log_barrier", "nan_sqrt_barrier"):
        problem, verdict = start(name)
        gradient = np.asarray(jax.grad(problem.fun)(problem.x0(jnp.float64)))
        newton = np.linalg.solve(oracles.dense_hessian(problem.fun, problem.start), gradient)
        assert math.isnan(judge(problem, problem.start - gradient).value)
        assert math.isnan(judge(problem, problem.start - newton).value)
    problem, _ = start("at_the_minimum")
    assert judge(problem, problem.start).solved


def test_judge_separates_stationary_from_minimum() -> None:
    saddle = problems.by_name("saddle_manifold")
    verdict = judge(saddle, np.zeros(2))
    assert verdict.looks_stationary
    assert not verdict.solved
    assert verdict.gap == pytest.approx(0.25)

    cubic = problems.by_name("unbounded_cubic")
    verdict = judge(cubic, np.zeros(1))
    assert verdict.looks_stationary
    assert not verdict.is_minimum
    assert math.isnan(verdict.gap)

    rosenbrock = problems.by_name("rosenbrock_2")
    assert not judge(rosenbrock, np.array([0.9, 0.81])).solved
    assert not judge(rosenbrock, np.array([np.nan, 1.0])).looks_stationary
    assert not judge(rosenbrock, np.array([np.inf, 1.0])).looks_stationary
    nearly = np.array([1.0001, 1.00025])
    assert not judge(rosenbrock, nearly).looks_stationary
    assert judge(rosenbrock, nearly.astype(np.float32)).solved
    assert judge(rosenbrock, nearly, gradient_rtol=1e-3).solved

    roth = problems.by_name("freudenstein_roth")
    local, _ = roth.local_minima[0]
    verdict = judge(roth, local)
    assert verdict.solved
    assert verdict.gap == pytest.approx(48.9842, rel=1e-5)

    with jax.enable_x64(False):
        start = rosenbrock.x0()
        assert start.dtype == jnp.float32
        assert judge(rosenbrock, jnp.ones_like(start)).solved
        assert judge(rosenbrock, jnp.ones_like(start)).value == 0.0


def test_finite_differences_are_accurate() -> None:
    x = np.array([[0.3, -1.2], [2.0, 40.0]])
    slopes = oracles.fd_jacobian(np.sin, x)
    assert slopes.shape == (2, 2, 2, 2)
    expected = np.diag(np.cos(x).ravel()).reshape(2, 2, 2, 2)
    np.testing.assert_allclose(slopes, expected, rtol=1e-9, atol=1e-11)
    gradient = oracles.fd_gradient(lambda z: np.exp(z).sum(), np.array([0.0, 1.0]))
    np.testing.assert_allclose(gradient, [1.0, math.e], rtol=1e-11)
    assert oracles.fd_jacobian(np.sin, np.array(0.4)).shape == ()
