"""The edges of the front ends: odd values, odd trees, budgets that end in the middle, data that changed."""

import collections
import dataclasses
import os
import signal
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.optimize as so

import nestor
from nestor import Status

rosen, der = so.rosen, so.rosen_der
START = np.array([-1.2, 1.0])
HESSIANS = ("Newton-CG", "trust-ncg", "trust-exact", "trust-krylov", "dogleg")
PLAIN = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
METHODS = ("L-BFGS-B", "BFGS", "CG", "TNC", "SLSQP", "trust-constr", *HESSIANS, *PLAIN)


def run(*args, **options):
    return nestor.minimize(*args, raise_on_failure=False, **options)


def square(x):
    return ((x - 2.0) ** 2).sum()


# --- values that are not finite, and other ends of a solve -------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_a_solution(method, value):
    """Many of SciPy's methods end at one, or walk in circles."""
    calls = []

    def fun(x):
        calls.append(1)
        return value if len(calls) >= 4 else rosen(x)

    gradient = {} if method in PLAIN else {"jac": der}
    hessian = {"hess": so.rosen_hess} if method in HESSIANS else {}
    solution = run(fun, START, method=method, **gradient, **hessian)
    assert not solution.success
    assert (solution.status == Status.UNBOUNDED) == (value == -np.inf)
    assert np.isfinite(solution.fun) or value == -np.inf
    assert len(calls) < 8000


def test_a_plateau_of_infinity_is_no_solution():
    with np.errstate(invalid="ignore"):
        cliff = run(lambda x: (np.nan if x[0] else 1.0, np.array([0.0 if x[0] else -1.0])), np.zeros(1))
    assert cliff.fun == 1.0
    assert not cliff.success


@pytest.mark.parametrize("most", [1, 2, 3])
def test_evaluations_that_end_within_a_difference(most):
    for constraint in ({}, {"constraints": {"type": "ineq", "fun": lambda x: 3.0 - x}}):
        solution = run(rosen, START, max_evaluations=most, **constraint)
        assert solution.status == Status.OUT_OF_EVALUATIONS
        assert int(solution.stats.evaluations) == most
        assert solution.fun == rosen(START)


def test_time_is_looked_at_within_a_difference():
    calls = []
    solution = run(lambda x: calls.append(1) or square(x), np.zeros(500), max_seconds=1e-9)
    assert solution.status == Status.OUT_OF_TIME
    assert len(calls) == 1


def test_no_steps_and_bad_counts():
    solution = run(rosen, START, jac=der, max_steps=0)
    assert solution.status == Status.OUT_OF_STEPS
    np.testing.assert_array_equal(solution.x, START)
    assert int(solution.stats.evaluations) == 1
    assert run(rosen, START, jac=der, options={"maxiter": None}).success
    assert int(run(rosen, START, method="L-BFGS-B", jac=der, options={"maxfun": 0}).stats.evaluations) == 1
    for bad in ("abc", -1, 2.5, True):
        with pytest.raises(nestor.BadArgument, match="max_steps"):
            run(rosen, START, max_steps=bad)
    for options in ({"maxiter": "abc"}, {"maxiter": -1}, {"gtol": "abc"}, {"maxiter": float("nan")}):
        with pytest.raises(nestor.BadArgument, match="options"):
            run(rosen, START, method="BFGS", options=options)


def test_a_callback_of_dict_minimize_may_raise_and_stop():
    from nestor.minimize.numpy_api import minimize

    both = lambda p: (rosen(p["x"]), {"x": der(p["x"])})  # noqa: E731
    calls = []

    def fails(p):
        raise ValueError("mine")

    def stops(p):
        calls.append(p)
        raise StopIteration

    with pytest.raises(ValueError, match=r"^mine$"):
        minimize(both, {"x": START}, callback=fails)
    with pytest.warns(UserWarning, match="STOPPED"):
        minimize(both, {"x": START}, callback=stops)
    assert len(calls) == 1


def test_ctrl_c_in_a_solve_inside_an_objective_ends_the_outer_one():
    calls, inner = [], []

    def within(y):
        inner.append(1)
        if len(inner) == 60:
            os.kill(os.getpid(), signal.SIGINT)
        return np.sum(y**2)

    def fun(x):
        calls.append(1)
        return float(nestor.minimize(lambda y: within(y - x) + np.sum((y - 3) ** 2), np.zeros(2)).fun)

    solution = nestor.minimize(fun, np.zeros(2), method="Nelder-Mead")
    assert solution.status == Status.INTERRUPTED
    assert len(calls) < 10
    assert nestor.minimize(square, np.zeros(2)).success


# --- trees -------------------------------------------------------------------------------------------


def test_numpy_scalars_alone_stay_numpys():
    solution = nestor.minimize(lambda x: np.cos(x), np.float64(3.0))
    assert type(solution.x) is np.float64
    np.testing.assert_allclose(solution.x, np.pi, atol=1e-5)
    tree = nestor.minimize(lambda p: np.exp(p["b"]) - p["b"] + p["a"] ** 2, {"a": np.float32(1), "b": 1.0}).x
    assert (type(tree["a"]), type(tree["b"])) == (np.float32, float)


class Named(dict):
    pass


@dataclasses.dataclass
class Pair:
    w: Any
    b: Any


def test_trees_that_jax_does_not_know_are_compiled():
    fun = lambda p: jnp.sum((p["w"] - 1.0) ** 2)  # noqa: E731
    assert type(nestor.minimize(fun, Named(w=jnp.zeros(2))).x) is Named
    mixed = {"w": jnp.zeros(2), 1: jnp.ones(())}
    assert list(nestor.minimize(lambda p: fun(p) + p[1] ** 2, mixed).x) == ["w", 1]
    mixed = collections.defaultdict(list, {"w": np.zeros(2), 1: np.float64(2)})
    x = nestor.minimize(lambda p: np.sum((p["w"] - 1.0) ** 2) + p[1] ** 2, mixed).x
    assert type(x) is collections.defaultdict


def test_a_dataclass_with_constraints_bounds_and_a_penalty_is_compiled():
    fun = lambda m: jnp.sum((m.w - 1.0) ** 2) + m.b**2  # noqa: E731
    start = Pair(jnp.zeros(2), jnp.ones(()))
    for rule in (
        nestor.Constraint(lambda m: m.b, lower=0.5),
        {"type": "ineq", "fun": lambda m: m.b - 0.5},
        so.NonlinearConstraint(lambda m: m.b, 0.5, np.inf),
    ):
        np.testing.assert_allclose(nestor.minimize(fun, start, constraints=rule).x.b, 0.5, atol=1e-6)
    bounded = nestor.minimize(fun, start, bounds=(Pair(None, 0.5), None))
    np.testing.assert_allclose(bounded.kkt.lower.b, 1.0, atol=1e-5)
    sparse = nestor.minimize(fun, start, prox=Pair(nestor.proximal.Lasso(4.0), nestor.proximal.Free()))
    np.testing.assert_allclose(sparse.x.w, 0.0, atol=1e-6)


def test_scipys_bounds_on_trees():
    fun = lambda p: square(p["a"]) + square(p["b"])  # noqa: E731
    for make in (np.array, jnp.array):
        start = {"a": make([0.0, 0.0]), "b": make(0.0)}
        one = nestor.minimize(fun, start, bounds=so.Bounds(0.0, 1.0)).x
        each = nestor.minimize(fun, start, bounds=so.Bounds(np.zeros(3), np.array([1.0, 1.5, 0.5]))).x
        np.testing.assert_allclose([*one["a"], one["b"]], 1.0)
        np.testing.assert_allclose([*each["a"], each["b"]], [1.0, 1.5, 0.5])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ">f4", ">f8"])
def test_short_and_turned_numbers_stay_in_the_box(dtype):
    seen = []
    fun = lambda x: seen.append(x.astype(float).max()) or square(x.astype(float))  # noqa: E731
    solution = nestor.minimize(fun, np.zeros(2, dtype), bounds=(-0.1, 0.1))
    assert solution.x.dtype == np.dtype(dtype)
    assert max(seen) <= 0.1
    assert solution.x.astype(float).min() > 0.099


@pytest.mark.parametrize(
    "x0",
    [np.ones(2, np.longdouble), np.zeros(2, "V8"), np.zeros(2, object), np.ma.array([1.0, 2.0], mask=[0, 1])],
)
def test_arrays_that_cannot_be_moved_are_refused(x0):
    with pytest.raises(nestor.BadArgument, match="real and floating-point, of at most 64 bits"):
        nestor.minimize(square, x0)


# --- derivatives -------------------------------------------------------------------------------------


def test_a_value_in_an_array_of_one_entry():
    for method in ("BFGS", "trust-exact"):
        solution = nestor.minimize(lambda x: jnp.sum((x - 1.0) ** 2)[None], jnp.full(2, 5.0), method=method)
        np.testing.assert_allclose(solution.x, 1.0, atol=1e-6)
        assert int(solution.stats.evaluations) < 6


def test_differences_are_taken_where_they_are_asked_for():
    calls = []
    for jac, least in (("2-point", 8), ("3-point", 14)):
        calls.clear()
        solution = nestor.minimize(
            lambda x: jnp.sum((x - 1.0) ** 2), jnp.zeros(3), jac=jac, callback=lambda report: calls.append(1)
        )
        np.testing.assert_allclose(solution.x, 1.0, atol=1e-6)
        assert int(solution.stats.evaluations) >= least
        with pytest.raises(nestor.BadArgument, match="'jac'"):
            nestor.minimize(rosen, START, method="Powell", jac=jac)
        with pytest.raises(nestor.BadArgument, match="2 things"):
            nestor.minimize(lambda x: (rosen(x), der(x)), START, jac=jac)
        with pytest.raises(nestor.BadArgument, match="second derivatives"):
            nestor.minimize(square, jnp.zeros(2), method="trust-exact", jac=jac)


def test_a_hessian_without_a_gradient_is_enough():
    solution = nestor.minimize(rosen, START, method="trust-exact", hess=so.rosen_hess)
    np.testing.assert_allclose(solution.x, 1.0, atol=1e-4)


def test_a_hessian_may_be_an_operator_and_must_have_its_size():
    import scipy.sparse.linalg as sl

    options = {"jac": lambda x: 2 * (x - 2.0), "method": "trust-ncg"}
    twice = sl.aslinearoperator(2 * np.eye(3))
    np.testing.assert_allclose(nestor.minimize(square, np.zeros(3), hess=lambda x: twice, **options).x, 2.0)
    for wrong in (np.eye(2), [1, 2, 3], "no"):
        with pytest.raises(nestor.BadArgument, match="hess"):
            nestor.minimize(square, np.zeros(3), hess=lambda x, wrong=wrong: wrong, **options)


def test_differences_of_gradients_along_a_direction_stay_inside():
    from nestor.minimize._box import HostBox
    from nestor.minimize._differences import along

    matrix = np.array([[3.0, 1.0, 0.5], [1.0, 2.0, 0.2], [0.5, 0.2, 1.0]])
    box, seen = HostBox(np.zeros(3), np.ones(3)), []

    def slope(x):
        seen.append(x)
        return matrix @ x

    for x in (np.array([1.0, 0.0, 0.5]), np.array([1 - 1e-12, 1e-12, 1.0]), np.ones(3)):
        for p in (np.array([1.0, -1.0, 1.0]), np.array([1.0, 1.0, 0.0]), np.array([-1.0, 2.0, 3.0])):
            np.testing.assert_allclose(along(slope, x, p, box, 1e-8), matrix @ p, atol=1e-6)
    assert (np.array(seen) >= 0).all()
    assert (np.array(seen) <= 1).all()


def test_a_function_that_jax_cannot_trace_may_be_called():
    fun = lambda x: float(np.sum((np.asarray(x) - 2.0) ** 2))  # noqa: E731
    for options in ({"method": "Nelder-Mead"}, {"jac": lambda x: 2 * (x - 2.0)}, {"jac": "3-point"}):
        np.testing.assert_allclose(nestor.minimize(fun, jnp.zeros(2), **options).x, 2.0, atol=1e-3)
    with pytest.raises(nestor.BadArgument, match="traceable"):
        nestor.minimize(fun, jnp.zeros(2), method="BFGS")


def bad_gradients():
    return {
        "complex": lambda x: 2 * x + 1j,
        "None": lambda x: None,
        "text": lambda x: ["a", "b"],
        "another length": lambda x: np.ones(3),
    }


@pytest.mark.parametrize("kind", bad_gradients())
@pytest.mark.parametrize("x0", [np.ones(2), [np.float64(1), np.float64(2)]], ids=["array", "list"])
def test_a_gradient_of_the_wrong_kind_is_refused(kind, x0):
    grad = bad_gradients()[kind]
    with pytest.raises(nestor.BadArgument, match="jac"):
        nestor.minimize(lambda x: float(np.sum(np.asarray(x) ** 2)), x0, jac=lambda x: grad(np.asarray(x)))


@pytest.mark.parametrize("value", ["1.5", b"1.5", None, 1j, np.ones(2)])
def test_a_value_of_the_wrong_kind_is_refused(value):
    with pytest.raises(nestor.BadArgument, match="'fun'"):
        nestor.minimize(lambda x: value, np.ones(1))


def test_bounds_are_numbers():
    for bounds in (("0", 1.0), (0.0, 1j), [("a", 1), (0, 1)], [(0, 1), (None, [1, 2])]):
        with pytest.raises(nestor.BadArgument, match="bounds"):
            nestor.minimize(square, np.zeros(2), bounds=bounds)


# --- constraints -------------------------------------------------------------------------------------


def test_constraints_that_promise_more_than_is_kept_are_refused():
    total = lambda x: np.sum(x)  # noqa: E731
    hess = lambda x, v: np.zeros((2, 2))  # noqa: E731
    for rule, word in (
        (so.NonlinearConstraint(total, 0, 1, keep_feasible=True), "keep_feasible"),
        (so.LinearConstraint(np.ones((1, 2)), 0, 1, keep_feasible=True), "keep_feasible"),
        (so.NonlinearConstraint(total, 0, 1, hess=hess), "hess"),
        (so.NonlinearConstraint(total, 0, 1, finite_diff_rel_step=0.1), "finite_diff_rel_step"),
        ({"type": "eq", "fun": total, "jac": True}, "jac"),
        (so.LinearConstraint(np.ones((1, 3)), 0, 1), "a column for every entry"),
        ({"type": "ineq", "fun": lambda x: x[x <= 0.5] + 5}, "same shapes everywhere"),
        ({"type": "ineq", "fun": lambda x: x * 1j}, "real numbers"),
    ):
        with pytest.raises(nestor.BadArgument, match=word):
            nestor.minimize(square, np.zeros(2), constraints=rule)


def test_arguments_and_types_of_scipys_dictionaries():
    rule = {"type": "EQ", "fun": lambda x, a, b: x.sum() - a - b, "args": [1.0, 2.0]}
    for start in (np.zeros(3), jnp.zeros(3)):
        x = nestor.minimize(square, start, constraints=rule).x
        np.testing.assert_allclose(x, 1.0, atol=1e-5)


# --- checkpoints -------------------------------------------------------------------------------------


def test_a_checkpoint_of_a_numpy_start_for_a_function_of_jax(tmp_path):
    fun, path = lambda x: jnp.sum((x - 1.0) ** 4), tmp_path / "run"
    for method in ("BFGS", None):
        file = f"{path}{method}"
        short = run(fun, np.zeros(2), method=method, checkpoint=file, max_seconds=1e-9)
        assert isinstance(short.x, jax.Array)
        whole = run(fun, np.zeros(2), method=method, checkpoint=file)
        np.testing.assert_array_equal(whole.x, run(fun, np.zeros(2), method=method).x)


def test_a_resumed_solve_counts_as_one_that_was_not_killed(tmp_path):
    options: dict[str, Any] = {"jac": der, "max_evaluations": 15}
    run(rosen, START, checkpoint=tmp_path / "run", **(options | {"max_evaluations": 7}))
    resumed = run(rosen, START, checkpoint=tmp_path / "run", **options)
    plain = run(rosen, START, **options)
    np.testing.assert_array_equal(resumed.x, plain.x)
    assert int(resumed.stats.evaluations) == int(plain.stats.evaluations)


def test_data_that_changed_are_noticed_later_than_at_the_start(tmp_path):
    def logistic(scale):
        return lambda x: np.sum(np.log1p(np.exp(-scale * x)))

    options: dict[str, Any] = {"method": "Nelder-Mead", "checkpoint": tmp_path / "run"}
    run(logistic(1.0), np.zeros(2), max_evaluations=20, **options)  # log 2 at the start, whatever the scale
    with pytest.raises(nestor.BadArgument, match="cannot be resumed"):
        run(logistic(3.0), np.zeros(2), max_evaluations=30, **options)
    rule = lambda n: {"type": "ineq", "fun": lambda x: 3.0 - x[:n]}  # noqa: E731
    run(rosen, START, constraints=rule(2), max_evaluations=20, checkpoint=tmp_path / "other")
    with pytest.raises(nestor.BadArgument, match="cannot be resumed"):
        run(rosen, START, constraints=rule(1), checkpoint=tmp_path / "other")


def test_files_that_cannot_be_checkpoints(tmp_path):
    for bad in (tmp_path, 3, ""):
        with pytest.raises(nestor.BadArgument, match="checkpoint"):
            run(rosen, START, checkpoint=bad)


# --- where SciPy's methods stop too early ------------------------------------------------------------


def test_trust_constr_starts_at_a_bound_and_goes_on_past_its_barrier():
    """From a bound it does not get away; and it stops where the gradient of a barrier function is small."""
    method = {"method": "trust-constr", "jac": der}
    at_bound = run(rosen, START, bounds=(-2.0, 0.8), **method)  # the start is moved to the bound
    assert at_bound.success
    np.testing.assert_allclose(at_bound.x, [0.8, 0.64], atol=1e-4)
    disc = run(rosen, START, constraints={"type": "ineq", "fun": lambda x: 1.5 - x @ x}, **method)
    assert disc.success
    np.testing.assert_allclose(disc.x, [0.907234, 0.822755], atol=1e-5)


def test_infeasible_is_said_where_nothing_feasible_is_near():
    """SLSQP ends at once where equalities repeat each other, or at a point without slopes."""
    distance = lambda x: ((x - 2.0) ** 2).sum()  # noqa: E731
    again = [{"type": "eq", "fun": lambda x, k=k: k * (x[0] + x[1] - 1)} for k in (1, 2)]
    for rules, answer in ((again, 0.5), ({"type": "eq", "fun": lambda x: x @ x - 2}, 1.0)):
        for start in (np.zeros(2), jnp.zeros(2)):
            solution = run(distance, start, method="SLSQP", constraints=rules)
            assert solution.success
            np.testing.assert_allclose(solution.x, answer, atol=1e-3)
    for rules, bounds in (
        ({"type": "eq", "fun": lambda x: x @ x + 1}, None),
        ({"type": "ineq", "fun": lambda x: x[0] - 5}, (-1, 3)),
    ):
        solution = run(distance, np.ones(2), method="SLSQP", constraints=rules, bounds=bounds)
        assert solution.status == Status.INFEASIBLE
        assert solution.kkt.feasibility > 0.9
