"""Solvers that keep bounds: answers, statuses, conditions, derivatives, against closed forms and SciPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nestor
from nestor import Status

SOLVERS = {
    "LBFGS": nestor.LBFGS(),
    "Newton": nestor.Newton(),
    "NewtonCG": nestor.NewtonCG(),
    "GradientDescent": nestor.GradientDescent(),
}
RNG = np.random.default_rng(0)
N = 6
_Q = RNG.normal(size=(N, N))
Q = jnp.asarray(_Q @ _Q.T / N + np.eye(N))
C = jnp.asarray(3 * RNG.normal(size=N))
DATA = {"c": C, "low": jnp.full(N, -0.5), "high": jnp.full(N, 0.6)}


def quadratic(x, c=C):
    return 0.5 * x @ Q @ x - c @ x


def answer_of_the_quadratic():
    """By all 3^n guesses of which bound holds: the independent answer."""
    q, c = np.asarray(Q), np.asarray(C)
    best = (np.inf, None)
    for code in np.ndindex(*(3,) * N):
        code = np.asarray(code)
        x = np.where(code == 1, -0.5, np.where(code == 2, 0.6, 0.0))
        free = code == 0
        x[free] = np.linalg.solve(q[np.ix_(free, free)], c[free] - q[np.ix_(free, ~free)] @ x[~free])
        if np.all((x >= -0.5) & (x <= 0.6)):
            best = min(best, (0.5 * x @ q @ x - c @ x, tuple(x)))
    return np.asarray(best[1])


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_finds_the_answer_and_no_point_leaves_the_box(name):
    outside = []

    def watch(report):
        x = np.asarray(report.x)
        outside.append(bool(np.any((x < -0.5) | (x > 0.6))))

    start = jnp.full(N, 7.0)  # outside
    solution = nestor.minimize(
        quadratic, start, bounds=(-0.5, 0.6), solver=SOLVERS[name], tol=1e-9, callback=watch
    )
    assert solution.status is Status.CONVERGED
    np.testing.assert_allclose(solution.x, answer_of_the_quadratic(), atol=1e-8)
    assert len(outside) == int(solution.stats.evaluations)
    assert not any(outside)
    x, grad = np.asarray(solution.x), np.asarray(jax.grad(quadratic)(solution.x))
    assert set(x[np.abs(grad) > 1e-6]) <= {-0.5, 0.6}  # exactly
    np.testing.assert_allclose(solution.kkt.lower, np.where(x == -0.5, grad, 0), atol=1e-9)
    np.testing.assert_allclose(solution.kkt.upper, np.where(x == 0.6, -grad, 0), atol=1e-9)
    assert float(solution.kkt.stationarity) <= 1e-9
    assert int(solution.kkt.weakly_active) == 0


def differences(f, data, h=1e-5):
    """Central differences of f in every entry of a dictionary of vectors."""
    columns = {}
    for name, v in data.items():
        steps = [h * np.eye(v.size)[k] for k in range(v.size)]
        columns[name] = np.stack(
            [(f({**data, name: v + e}) - f({**data, name: v - e})) / (2 * h) for e in steps], -1
        )
    return columns


def test_derivatives_cross_an_active_box_in_every_mode():
    def solve(data):
        return nestor.argmin(
            lambda x: quadratic(x, data["c"]),
            jnp.zeros(N),
            bounds=(data["low"], data["high"]),
            tol=1e-10,
            on_failure="keep",
        )

    numeric = differences(jax.jit(solve), DATA)
    for jacobian in (jax.jacfwd, jax.jacrev):
        exact = jax.jit(jacobian(solve))(DATA)
        for name, columns in numeric.items():
            np.testing.assert_allclose(exact[name], columns, atol=1e-8)


def test_the_least_value_moves_with_the_bounds_by_their_multipliers():
    def least(low):
        return nestor.minimum(quadratic, jnp.zeros(N), bounds=(low, 0.6), tol=1e-10, on_failure="keep")

    solution = nestor.minimize(quadratic, jnp.zeros(N), bounds=(-0.5, 0.6), tol=1e-10)
    slope = jax.jit(jax.grad(least))(DATA["low"])
    np.testing.assert_allclose(slope, solution.kkt.lower, atol=1e-8)


def test_statuses():
    one = jnp.ones(2)
    fixed = nestor.minimize(lambda x: jnp.sum(x**3), one, bounds=(2.0, 2.0))
    assert fixed.status is Status.CONVERGED
    assert fixed.x.tolist() == [2.0, 2.0]
    assert int(fixed.stats.evaluations) == 1
    below = nestor.minimize(lambda x: -jnp.sum(x), one, bounds=(0.0, None), raise_on_failure=False)
    assert below.status is Status.UNBOUNDED


@pytest.mark.parametrize("name", ["Newton", "NewtonCG"])
def test_a_saddle_among_the_free_unknowns_is_left(name):
    def saddle(x):  # x[0] is pushed to its bound; a saddle in the others
        return x[0] + x[1] ** 2 + (x[2] ** 2 - 1) ** 2

    solution = nestor.minimize(saddle, jnp.zeros(3), bounds=(-1.0, 3.0), solver=SOLVERS[name])
    np.testing.assert_allclose(np.abs(solution.x), [1, 0, 1], atol=1e-6)


def test_a_weakly_active_bound_is_reported():
    solution = nestor.minimize(
        lambda x: jnp.sum((x - jnp.array([0.0, 2.0])) ** 2), jnp.ones(2), bounds=(0, 1)
    )
    assert int(solution.kkt.weakly_active) == 1
    np.testing.assert_allclose(solution.kkt.upper, [0, 2], atol=1e-6)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((1.0, 0.0), "lower <= upper"),
        ((np.nan, 1.0), "lower <= upper"),
        ((np.zeros(3), None), "broadcasts to the shape"),
        (0.0, "a pair"),
        (({"a": 0.0}, None), "a tree like x0"),
    ],
)
def test_bounds_that_cannot_be_used(bounds, text):
    with pytest.raises(nestor.BadArgument, match=text):
        nestor.minimize(quadratic, jnp.zeros(N), bounds=bounds)


def test_a_solver_that_keeps_no_bounds_is_refused():
    with pytest.raises(nestor.BadArgument, match="keeps bounds"):
        nestor.minimize(quadratic, jnp.zeros(N), bounds=(0.0, None), solver=nestor.BFGS())


# --- many problems, slow -----------------------------------------------------------------------------


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def squares(m, n, seed, uniform=False):
    rng = np.random.default_rng(seed)
    a = rng.uniform(size=(m, n)) if uniform else rng.normal(size=(m, n))
    b = jnp.asarray(a @ np.maximum(rng.normal(size=n), 0) + 0.1 * rng.normal(size=m))
    a = jnp.asarray(a)
    return lambda x: 0.5 * jnp.sum((a @ x - b) ** 2)


def membrane(x):
    y = jnp.pad(x, 1)
    return 0.5 * jnp.sum((y[1:] - y[:-1]) ** 2) * 101 + jnp.sum(x) * 8 / 101


def powell(x):
    quartic = (x[1] - 2 * x[2]) ** 4 + 10 * (x[0] - x[3]) ** 4
    return (x[0] + 10 * x[1]) ** 2 + 5 * (x[2] - x[3]) ** 2 + quartic


PROBLEMS = {
    "rosenbrock, every other": (
        rosenbrock,
        np.full(25, 3.0),
        np.where(np.arange(25) % 2 == 0, 1.0, -100.0),
        100.0,
    ),
    "rosenbrock, mixed": (
        rosenbrock,
        np.tile([-1.2, 1.0], 50),
        np.where(np.arange(100) % 3 == 0, -0.5, -np.inf),
        np.where(np.arange(100) % 5 == 0, 0.7, np.inf),
    ),
    "non-negative squares": (squares(200, 50, 0), np.zeros(50), 0.0, np.inf),
    "non-negative squares, uniform": (squares(200, 50, 1, uniform=True), np.zeros(50), 0.0, np.inf),
    "membrane": (membrane, np.zeros(100), -0.5, np.inf),
    "powell": (powell, np.array([3.0, -1.0, 0.0, 1.0]), np.array([0.1, -10.0, -10.0, 0.0]), 10.0),
    "product": (lambda x: 2 - jnp.prod(x) / 120, np.full(5, 0.5), 0.0, np.arange(1.0, 6.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LBFGS", "Newton", "NewtonCG"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_answers_of_scipy(problem, name):
    fun, start, low, high = PROBLEMS[problem]
    low, high = np.broadcast_to(low, start.shape), np.broadcast_to(high, start.shape)
    value_and_grad = jax.jit(jax.value_and_grad(fun))
    theirs = scipy.optimize.minimize(
        lambda x: jax.tree.map(np.asarray, value_and_grad(jnp.asarray(x))),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
        options={"maxiter": 5000, "maxfun": 10000, "ftol": 0, "gtol": 1e-7},
    )
    ours = nestor.minimize(fun, jnp.asarray(start), bounds=(low, high), solver=SOLVERS[name], tol=1e-6)
    x = np.asarray(ours.x)
    assert np.all((x >= low) & (x <= high))
    assert float(ours.fun) <= theirs.fun + 1e-8 * (1 + abs(theirs.fun))
    # 1.5 times and some: the counts of such methods are as chance has it
    assert int(ours.stats.evaluations) <= 1.5 * theirs.nfev + 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LBFGS", "Newton", "NewtonCG"])
def test_lanes_in_float32(name):
    starts = jnp.asarray(np.random.default_rng(1).uniform(-2, 2, (50, 4)), jnp.float32)

    def solve(start):
        return nestor.minimize(
            rosenbrock, start, bounds=(-1.5, 0.8), solver=SOLVERS[name], raise_on_failure=False
        )

    solutions = jax.jit(jax.vmap(solve))(starts)
    assert bool(jnp.all(solutions.success))
    assert bool(jnp.all((solutions.x >= -1.5) & (solutions.x <= 0.8)))
    assert bool(jnp.all(solutions.kkt.stationarity <= 2e-3))


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", [nestor.Unroll(), nestor.Checkpoint()], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("name", SOLVERS)
def test_steps_are_differentiated(name, adjoint):
    def solve(c, adjoint):
        return nestor.argmin(
            lambda x: quadratic(x, c),
            jnp.zeros(N),
            bounds=(-0.5, 0.6),
            solver=SOLVERS[name],
            adjoint=adjoint,
            tol=1e-9,
            max_steps=80,
            on_failure="keep",
        )

    ours = jax.jit(jax.jacrev(lambda c: solve(c, adjoint)))(C)
    np.testing.assert_allclose(ours, jax.jacfwd(lambda c: solve(c, None))(C), atol=1e-5)


@pytest.mark.slow
def test_second_derivatives_and_nestings():
    w = jnp.asarray(np.random.default_rng(2).normal(size=N))

    def outer(a):
        x = nestor.argmin(
            lambda x: quadratic(x, a * C) + 0.05 * jnp.sum(x**4),
            jnp.zeros(N),
            bounds=(-0.5 * a, 0.6),
            tol=1e-11,
            on_failure="keep",
        )
        return jnp.sum(w * x**2)

    slope = jax.jit(jax.grad(outer))
    first = (outer(1 + 1e-5) - outer(1 - 1e-5)) / 2e-5
    second = (slope(1 + 1e-5) - slope(1 - 1e-5)) / 2e-5
    lanes = jnp.array([1.0, 1.02])
    firsts = {
        "grad": slope(1.0),
        "jacfwd": jax.jacfwd(outer)(1.0),
        "jit grad vmap": jax.jit(jax.grad(lambda a: jnp.sum(jax.vmap(outer)(a))))(lanes)[0],
        "vmap grad": jax.vmap(jax.grad(outer))(lanes)[0],
    }
    seconds = {
        "hessian": jax.hessian(outer)(1.0),
        "jacfwd grad": jax.jacfwd(jax.grad(outer))(1.0),
        "grad jacfwd": jax.grad(jax.jacfwd(outer))(1.0),
        "grad grad": jax.grad(jax.grad(outer))(1.0),
        "vmap hessian": jax.vmap(jax.hessian(outer))(lanes)[0],
    }
    for name, value in firsts.items():
        np.testing.assert_allclose(value, first, rtol=1e-8, err_msg=name)
    for name, value in seconds.items():
        np.testing.assert_allclose(value, second, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(value, seconds["hessian"], rtol=1e-8, err_msg=name)


@pytest.mark.slow
def test_many_unknowns_without_a_dense_hessian():
    n = 100_000
    target = jnp.asarray(np.random.default_rng(3).normal(size=n))

    def solve(t):
        def fun(x):
            return 0.5 * jnp.sum((x - t * target) ** 2) + 0.05 * jnp.sum((x[1:] - x[:-1]) ** 2)

        return nestor.argmin(fun, jnp.zeros(n), bounds=(0.0, 1.0), tol=1e-9, on_failure="keep")

    slope = jax.jvp(solve, (jnp.asarray(1.0),), (jnp.asarray(1.0),))[1]
    gradient = jax.grad(lambda t: jnp.sum(solve(t)))(jnp.asarray(1.0))
    h = 1e-6
    numeric = (solve(jnp.asarray(1 + h)) - solve(jnp.asarray(1 - h))) / (2 * h)
    same = np.abs(np.asarray(slope - numeric)) <= 1e-4
    assert same.mean() > 0.9999  # but where a bound becomes active between the two
    np.testing.assert_allclose(jnp.sum(slope), gradient, rtol=1e-8)


def test_multipliers_are_those_of_the_point_they_come_with():
    """At the start nothing is at a bound yet, however far a gradient step would go."""
    options = {"bounds": (-1.0, 3.0), "max_steps": 0, "raise_on_failure": False}
    solution = nestor.minimize(lambda x: jnp.sum((x - 2.0) ** 2), jnp.zeros(2), **options)
    assert solution.status == Status.OUT_OF_STEPS
    np.testing.assert_array_equal(solution.kkt.upper, 0.0)
