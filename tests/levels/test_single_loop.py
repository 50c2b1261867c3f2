"""The stochastic methods on two levels against closed forms, dense Jacobians and each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from nestor import schedules
from nestor.errors import BadArgument
from nestor.levels import F2SA, MRBO, SABA, SOBA, SRBA, TTSA, VRBO, AmIGO, Graph, Level, StocBiO
from nestor.levels._oracles import (
    Point,
    TwoLevels,
    directions,
    everything,
    hessian_product,
    hypergradient,
    inner_gradient,
    inner_products,
    outer_gradients,
    series,
)
from nestor.levels._stochastic import State
from tests.compiles import compilations
from tests.levels.stochastic import run

ROWS, INNER, OUTER, RHO = 64, 5, 4, 0.5
KEY = jax.random.key(1)
Y0, X0 = jnp.zeros(INNER), jnp.zeros(OUTER)


def quadratic_data() -> tuple[jax.Array, jax.Array, jax.Array]:
    """A_i, B_i, c_i of 64 examples, with noise about as large as their means."""
    random = np.random.default_rng(0)
    a = random.normal(size=(ROWS, INNER))
    hessians = 0.5 * a[:, :, None] * a[:, None, :] + 0.5 * np.eye(INNER)
    cross = 0.5 * random.normal(size=(INNER, OUTER)) + 0.3 * random.normal(size=(ROWS, INNER, OUTER))
    targets = random.normal(size=INNER) + 0.5 * random.normal(size=(ROWS, INNER))
    return jnp.asarray(hessians), jnp.asarray(cross), jnp.asarray(targets)


def chosen(array: jax.Array, rows: jax.Array | None) -> jax.Array:
    return array if rows is None else array[rows]


def quadratic_inner(data, y, x, rows, key):
    hessians, cross = chosen(data[0], rows), chosen(data[1], rows)
    curved = jnp.einsum("i,nij,j->n", y, hessians, y) / 2
    return jnp.mean(curved - jnp.einsum("i,nij,j->n", y, cross, x))


def quadratic_outer(data, y, x, rows, key):
    away = y[None, :] - chosen(data[2], rows)
    return jnp.mean(jnp.sum(away**2, axis=1)) / 2 + RHO / 2 * jnp.sum(x**2)


DATA = quadratic_data()
STOCHASTIC = TwoLevels(quadratic_inner, quadratic_outer, ROWS, ROWS, 4, 4)
WHOLE = TwoLevels(quadratic_inner, quadratic_outer)


def response() -> tuple[jax.Array, jax.Array]:
    """M and c, where y*(x) = M x and the outer function is |M x - c|²/2 + rho |x|²/2 + a constant."""
    hessian, cross, target = (jnp.mean(part, axis=0) for part in DATA)
    return jnp.linalg.solve(hessian, cross), target


def exact_hypergradient(x: jax.Array) -> jax.Array:
    matrix, target = response()
    return matrix.T @ (matrix @ x - target) + RHO * x


def solution() -> jax.Array:
    matrix, target = response()
    return jnp.linalg.solve(matrix.T @ matrix + RHO * jnp.eye(OUTER), matrix.T @ target)


def error(x: jax.Array) -> float:
    return float(jnp.linalg.norm(x - solution()) / jnp.linalg.norm(solution()))


CONVERGES = {  # method, steps, relative error of x
    "SOBA": (SOBA(0.5, 0.3), 4000, 0.01),
    "SABA": (SABA(0.2, 0.05), 1500, 1e-7),
    "SRBA": (SRBA(0.2, 0.1), 1000, 1e-12),
    "TTSA": (TTSA(0.3, 0.3, terms=20), 4000, 0.08),
    "StocBiO": (StocBiO(0.3, 0.3, inner_decay=0.5, outer_decay=0.5, terms=20), 1500, 0.06),
    "AmIGO": (AmIGO(0.3, 0.3, inner_decay=0.5, outer_decay=0.5), 1500, 0.06),
    "MRBO": (MRBO(0.3, 0.3, terms=20), 1500, 0.05),
    "VRBO": (VRBO(0.1, 0.1, 0.5, terms=20), 600, 1e-4),
    "F2SA": (F2SA(0.5, 0.5), 2000, 0.04),
}
EVERY = {name: method for name, (method, _, _) in CONVERGES.items()}


@pytest.mark.parametrize("name", CONVERGES)
def test_a_finite_sum_with_a_known_solution(name: str):
    method, steps, tolerance = CONVERGES[name]
    state, kept = run(STOCHASTIC, DATA, method, Y0, X0, steps, KEY, every=steps // 2)
    assert error(state.x) < tolerance
    assert kept.shape == (2, OUTER)
    np.testing.assert_array_equal(kept[-1], state.x)
    matrix, _ = response()
    np.testing.assert_allclose(state.y, matrix @ state.x, atol=max(4 * tolerance, 1e-8))


def test_the_direction_of_soba_at_its_fixed_point_is_the_hypergradient():
    x = jnp.asarray([0.3, -1.0, 2.0, 0.5])
    still = SOBA(0.5, 1e-30, inner_decay=0.0)
    state, _ = run(WHOLE, DATA, still, Y0, x, 200, KEY)
    along = directions(WHOLE, DATA, state.point, everything(KEY), everything(KEY))
    np.testing.assert_allclose(along.x, exact_hypergradient(x), atol=1e-8)
    np.testing.assert_allclose(along.y, 0.0, atol=1e-8)


# --- oracles -------------------------------------------------------------------------------------------


def curved_inner(data, y, x, rows, key):
    features, labels = (chosen(part, rows) for part in data)
    hidden = jnp.tanh(features @ y["w"]) * jnp.exp(x[0]["scale"]) + y["b"]
    return jnp.mean((hidden - labels) ** 2) + jnp.sum(jnp.exp(x[1]) * y["w"] ** 2)


def curved_outer(data, y, x, rows, key):
    return curved_inner(data, y, x, rows, key) * jnp.cos(y["b"]) + jnp.sum(x[1] ** 3)


@pytest.fixture
def curved():
    """A problem on trees that is no quadratic, a point, and its dense derivatives as (f, g)(flat y, flat x)."""
    random = np.random.default_rng(3)
    data = jnp.asarray(random.normal(size=(12, 3))), jnp.asarray(random.normal(size=12))
    y = {"w": jnp.asarray(random.normal(size=3)), "b": jnp.asarray(0.2)}
    v = {"w": jnp.asarray(random.normal(size=3)), "b": jnp.asarray(-0.7)}
    x = ({"scale": jnp.asarray(0.1)}, jnp.asarray(random.normal(size=3)))
    problem = TwoLevels(curved_inner, curved_outer, 12, 12, 4, 6)
    keys = jax.random.split(KEY, 3)
    draws = problem.draw_inner(keys, jnp.int32(5)), problem.draw_outer(keys, jnp.int32(5))
    flat_y, back_y = ravel_pytree(y)
    flat_x, back_x = ravel_pytree(x)
    g = lambda p, q: curved_inner(data, back_y(p), back_x(q), *draws[0])  # noqa: E731
    f = lambda p, q: curved_outer(data, back_y(p), back_x(q), *draws[1])  # noqa: E731
    return problem, data, Point(y, v, x), draws, f, g, (flat_y, flat_x)


def flat(tree):
    return ravel_pytree(tree)[0]


@pytest.fixture
def dense(curved):
    """The dense derivatives of the two levels: d²g/dy², d²g/dy dx, dg/dy, df/dy, df/dx."""
    *_, f, g, (p, q) = curved

    @jax.jit
    def of(p, q):
        slope = jax.grad(g)
        return (
            jax.jacobian(slope)(p, q),
            jax.jacobian(slope, 1)(p, q),
            slope(p, q),
            *jax.grad(f, (0, 1))(p, q),
        )

    return of(p, q)


NEAR = {"rtol": 1e-10, "atol": 1e-10}


def test_oracles_are_products_with_dense_jacobians(curved, dense):
    problem, data, at, (inner, outer), *_ = curved
    hessian, mixed, slope, of_y, of_x = dense
    v = flat(at.v)

    @jax.jit
    def oracles(at):
        place = problem, data, at.y, at.x
        products = inner_products(*place, at.v, inner), hessian_product(*place, at.v, inner)
        gradients = inner_gradient(*place, inner), outer_gradients(*place, outer)
        return jax.tree.map(jnp.asarray, (*products, *gradients, directions(problem, data, at, inner, outer)))

    (gradient, product, cross), alone, simple, above, along = oracles(at)
    for got, want in [
        (gradient, slope),
        (simple, slope),
        (product, hessian @ v),
        (alone, hessian @ v),
        (cross, mixed.T @ v),
        (above[0], of_y),
        (above[1], of_x),
        (along.y, slope),
        (along.v, hessian @ v + of_y),
        (along.x, mixed.T @ v + of_x),
    ]:
        np.testing.assert_allclose(flat(got), want, **NEAR)


def test_the_series_is_that_of_dense_matrices(curved, dense):
    problem, data, at, (inner, outer), *_ = curved
    hessian, mixed, slope, of_y, of_x = dense
    rate, terms = 0.05, 7
    factor, total = jnp.eye(4), jnp.zeros((4, 4))
    for _ in range(terms):
        total, factor = total + rate * factor, factor @ (jnp.eye(4) - rate * hessian)

    @jax.jit
    def estimates(at):
        solve = lambda b, draw: series(problem, data, at.y, at.x, b, rate, terms, draw)  # noqa: E731
        once, anew = solve(at.v, inner), solve(at.v, lambda j: inner)
        return once, anew, hypergradient(problem, data, at.y, at.x, inner, outer, lambda b: solve(b, inner))

    once, anew, along = estimates(at)
    np.testing.assert_allclose(flat(once), total @ flat(at.v), **NEAR)
    np.testing.assert_allclose(flat(anew), total @ flat(at.v), **NEAR)
    np.testing.assert_allclose(flat(along.y), slope, **NEAR)
    np.testing.assert_allclose(flat(along.x), of_x - mixed.T @ (total @ of_y), **NEAR)


def test_batches_of_a_pass_are_all_rows_once():
    keys = jax.random.split(KEY, 3)
    rows = lambda draw, epoch: np.concatenate(  # noqa: E731
        [draw(keys, jnp.int32(epoch * 16 + i)).rows for i in range(16)]
    )
    for draw in (STOCHASTIC.draw_inner, STOCHASTIC.draw_outer):
        np.testing.assert_array_equal(np.sort(rows(draw, 0)), np.arange(ROWS))
        assert (rows(draw, 0) != rows(draw, 1)).any()
    assert (rows(STOCHASTIC.draw_inner, 0) != rows(STOCHASTIC.draw_outer, 0)).any()
    assert WHOLE.draw_inner(keys, jnp.int32(3)).rows is None


# --- what methods are without noise, and in the mean --------------------------------------------------------


@pytest.mark.parametrize("method", [SABA(0.2, 0.1), SRBA(0.2, 0.1, period=50)])
def test_variance_reduction_without_variance_is_soba(method):
    state, _ = run(WHOLE, DATA, method, Y0, X0, 120, KEY)
    want, _ = run(WHOLE, DATA, SOBA(0.2, 0.1, None, 0.0, 0.0), Y0, X0, 120, KEY)
    np.testing.assert_allclose(state.x, want.x, atol=1e-12)
    np.testing.assert_allclose(state.v, want.v, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "other"),
    [(MRBO(renewal=0.2), MRBO(renewal=1.0)), (VRBO(period=40), VRBO(period=1))],
)
def test_recursive_estimates_without_noise_are_exact(method, other):
    state, _ = run(WHOLE, DATA, method, Y0, X0, 30, KEY)
    want, _ = run(WHOLE, DATA, other, Y0, X0, 30, KEY)
    np.testing.assert_allclose(state.x, want.x, atol=1e-12)


def test_a_direction_of_saba_is_right_in_the_mean():
    method = SABA(1.0, 1.0)
    state, _ = run(STOCHASTIC, DATA, SABA(0.1, 0.05), Y0, X0, 7, KEY)  # some of the tables are of old points
    batches = jnp.arange(STOCHASTIC.inner_batches, dtype=jnp.int32)

    def visit(i: jax.Array) -> Point:
        ready = [t._replace(old=jax.tree.map(lambda leaf: leaf[i], t.entries)) for t in state.memory]
        there = state._replace(memory=tuple(ready))
        return method.visit(STOCHASTIC, DATA, there, jnp.int32(7), (i, i), (i, i)).point

    after = jax.jit(jax.vmap(visit))(batches)
    along = directions(STOCHASTIC, DATA, state.point, everything(KEY), everything(KEY))
    for moved, before, direction in zip(after, state.point, along, strict=True):
        np.testing.assert_allclose(before - jnp.mean(moved, axis=0), direction, atol=1e-12)
        assert jnp.max(jnp.std(moved, axis=0)) > 1e-3


def test_the_random_product_of_ttsa_is_the_series_in_the_mean():
    x = jnp.ones(OUTER)
    keys = jax.random.split(KEY, 4000)
    of = lambda method, key: run(WHOLE, DATA, method, Y0, x, 1, key)[0].x - x  # noqa: E731
    products = jax.vmap(lambda key: of(TTSA(0.3, 1.0, terms=6), key))(keys)
    series_ = of(StocBiO(0.3, 1.0, inner_steps=1, terms=6), KEY)
    np.testing.assert_allclose(jnp.mean(products, axis=0), series_, atol=0.02)
    assert len(np.unique(np.round(products[:, 0], 12))) == 6


# --- first order only --------------------------------------------------------------------------------------


@jax.custom_jvp
def _no_derivative(z):
    return z


@_no_derivative.defjvp
def _refuse(primals, tangents):
    raise AssertionError("a second derivative")


@jax.custom_vjp
def half_square(z):
    return jnp.sum(z**2) / 2


half_square.defvjp(
    lambda z: (half_square(z), z), lambda z, weight: (_no_derivative(weight) * _no_derivative(z),)
)


def test_f2sa_needs_no_second_derivative():
    once = TwoLevels(
        lambda data, y, x, rows, key: half_square(y - x), lambda d, y, x, r, k: half_square(y - 1)
    )
    with pytest.raises(AssertionError, match="a second derivative"):
        run(once, (), SOBA(), jnp.zeros(3), jnp.zeros(3), 1, KEY)
    state, _ = run(once, (), F2SA(0.5, 0.5), jnp.zeros(3), jnp.zeros(3), 2000, KEY)
    np.testing.assert_allclose(state.x, jnp.ones(3), atol=1e-3)


# --- every method ------------------------------------------------------------------------------------------


@functools.cache
def batched(name: str) -> State:
    """12 steps for two outer rates and two keys at once; the second is that of `EVERY`, with `KEY`."""
    method = EVERY[name]

    def rated(rate, key):
        return run(STOCHASTIC, DATA, dataclasses.replace(method, outer_rate=rate), Y0, X0, 12, key)[0]

    rates = jnp.asarray([0.01, method.outer_rate])
    return jax.vmap(rated)(rates, jnp.stack([jax.random.key(0), KEY]))


DAILY = ("SOBA", "F2SA")
SOME = [pytest.param(name, marks=() if name in DAILY else pytest.mark.slow) for name in EVERY]


@pytest.mark.parametrize("name", SOME)
def test_a_run_can_be_batched_and_taken_up_again(name: str):
    both, method = batched(name), EVERY[name]

    @jax.jit
    def stretch(state, times):
        return jax.lax.scan(lambda s, t: (method.step(STOCHASTIC, DATA, s, t), None), state, times)[0]

    state = jax.jit(lambda: method.init(STOCHASTIC, DATA, Y0, X0, KEY))()
    for first in (0, 4, 8):
        state = stretch(state, first + jnp.arange(4, dtype=jnp.int32))
    np.testing.assert_allclose(both.x[1], state.x, rtol=1e-10)
    np.testing.assert_allclose(both.y[1], state.y, rtol=1e-10)
    assert jnp.max(jnp.abs(both.x[0] - both.x[1])) > 1e-6


@pytest.mark.parametrize("name", SOME)
def test_float32_stays_float32(name: str):
    data, y, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (DATA, Y0, X0))
    state, _ = run(STOCHASTIC, data, EVERY[name], y, x, 12, KEY)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state._replace(keys=None)))
    np.testing.assert_allclose(state.x, batched(name).x[1], atol=1e-5)


@pytest.mark.parametrize("name", ["SOBA", "VRBO"])
def test_trees_and_fresh_rates(name: str, curved):
    problem, data, at, *_ = curved
    method = EVERY[name]
    state, kept = run(problem, data, method, at.y, at.x, 7, KEY, every=3)
    assert jax.tree.structure((state.y, state.x)) == jax.tree.structure((at.y, at.x))
    assert kept[1].shape == (2, 3)
    with compilations() as count:
        run(problem, data, dataclasses.replace(method, outer_rate=0.007), at.y, at.x, 7, KEY, every=3)
    assert count.number == 0


def test_rates_may_be_schedules():
    want, _ = run(STOCHASTIC, DATA, SOBA(0.3, 0.1, inner_decay=0.5, outer_decay=1.0), Y0, X0, 30, KEY)
    falling = SOBA(lambda t: 0.3 / jnp.sqrt(1.0 + t.astype(float)), schedules.InverseTime(0.1, 1.0))
    state, _ = run(STOCHASTIC, DATA, falling, Y0, X0, 30, KEY)
    np.testing.assert_allclose(state.x, want.x, rtol=1e-10)
    apart = dataclasses.replace(falling, outer_rate=schedules.Grouped({"a": 0.1, "b": 0.0}))
    grouped = TwoLevels(
        lambda d, y, x, rows, key: jnp.sum((y - x["a"] - x["b"]) ** 2),
        lambda d, y, x, rows, key: jnp.sum((y - 1) ** 2),
    )
    state, _ = run(grouped, (), apart, X0, {"a": X0, "b": X0}, 10, KEY)
    assert jnp.all(state.x["b"] == 0)
    assert jnp.all(state.x["a"] > 0)


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "method"),
    [
        ("inner_rate", SOBA(-0.1)),
        ("outer_rate", SABA(outer_rate="fast")),
        ("linear_rate", VRBO(linear_rate=float("nan"))),
        ("outer_rate", SOBA(outer_rate=jnp.ones(4))),
        ("outer_decay", SOBA(outer_decay=-1.0)),
        ("period", SRBA(period=0)),
        ("terms", TTSA(terms=2.5)),
        ("inner_steps", AmIGO(inner_steps=True)),
        ("renewal", MRBO(renewal=0.0)),
        ("penalty", F2SA(penalty=0.0)),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(argument: str, method):
    graph = Graph(
        {"y": Level(lambda p, _: (p["y"] - p["x"]) ** 2, 0.0), "x": Level(lambda p, _: p["y"], 0.0)}
    )
    with pytest.raises(BadArgument) as caught:
        graph.run(3, method=method)
    assert caught.value.argument == argument
    assert f"Do this: write nestor.levels.{type(method).__name__}({argument}=" in str(caught.value)
