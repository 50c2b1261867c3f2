"""Solves inside solves inside solves: against finite differences, scipy nested by force, and closed forms."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import nestor
from examples import game_of_two, nested_minimum
from examples.three_level_nest import AT, STARTS, by_argmin, by_minimum

LEVELS = [by_minimum, by_argmin]
NAMES = list(AT)
STARTS_HERE = jax.tree.map(jnp.asarray, STARTS)


def at(**changes):
    return jax.tree.map(jnp.asarray, {**AT, **changes})


def listed(tree):
    """A tree of scalars by name, as a vector in the order of the parameters."""
    return np.array([float(tree[name]) for name in NAMES])


@functools.cache
def compiled(levels):
    """(p, starts) -> the value, and its gradient in both; compiled once for all that is asked about it."""
    return jax.jit(jax.value_and_grad(levels, argnums=(0, 1)))


def richardson(fun, h=0.02):
    """The gradient of fun(p) by central differences, extrapolated twice: error of order h^6."""

    def central(name, h):
        p = at()
        return (fun({**p, name: p[name] + h}) - fun({**p, name: p[name] - h})) / (2 * h)

    def extrapolated(name):
        rows = [float(central(name, h / 2**k)) for k in range(3)]
        first = [(4 * fine - coarse) / 3 for coarse, fine in itertools.pairwise(rows)]
        return (16 * first[1] - first[0]) / 15

    return np.array([extrapolated(name) for name in NAMES])


def by_force(p):
    """The same nest by scipy: every evaluation of one level is a bounded search of the next."""

    def least(fun):
        return minimize_scalar(fun, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).fun

    def lowest(x):
        return least(lambda y: (y - np.sin(x)) ** 2 + p["weight"] * y**4)

    def middle(z):
        return least(lambda x: (x - z) ** 2 + (x - p["target"]) ** 2 + lowest(x))

    return least(lambda z: np.cos(z + p["shift"]) + middle(z))


# --- the three-level nest ----------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("changes", [{}, {"shift": 0.4, "target": 0.6, "weight": 0.5}])
def test_nest_against_scipy(levels, changes):
    found, _ = compiled(levels)(at(**changes), STARTS_HERE)
    assert float(found) == pytest.approx(by_force({**AT, **changes}), abs=1e-9)


@pytest.mark.parametrize("levels", LEVELS)
def test_nest_gradient(levels):
    _, (slope, _) = compiled(levels)(at(), STARTS_HERE)
    difference = richardson(lambda p: compiled(levels)(p, STARTS_HERE)[0])
    np.testing.assert_allclose(listed(slope), difference, atol=1e-6)


@pytest.mark.parametrize("levels", LEVELS)
def test_nest_does_not_depend_on_where_it_starts(levels):
    """Neither its value nor its gradient, and the derivative in the starts is zero, exactly."""
    elsewhere = {"z": jnp.asarray(1.5), "x": jnp.asarray(-0.5), "y": jnp.asarray(0.7)}
    value, (slope, in_starts) = compiled(levels)(at(), elsewhere)
    value_here, (slope_here, _) = compiled(levels)(at(), STARTS_HERE)
    assert float(value) == pytest.approx(float(value_here), abs=1e-9)
    np.testing.assert_allclose(listed(slope), listed(slope_here), atol=1e-6)
    assert all(float(d) == 0.0 for d in in_starts.values())


@pytest.mark.slow
def test_nest_hessian():
    """Against differences of the gradient, which are as noisy as the tolerance over the step: hence tol."""
    exact = functools.partial(by_minimum, starts=STARTS, tol=1e-11)
    both = jax.jit(lambda p: (jax.grad(exact)(p), jax.hessian(exact)(p)))
    rows = [richardson(lambda p, name=name: both(p)[0][name]) for name in NAMES]
    curvature = both(at())[1]
    found = np.array([listed(curvature[name]) for name in NAMES])
    np.testing.assert_allclose(found, rows, atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-9)


@pytest.mark.slow
def test_nest_in_a_batch():
    shifts = np.linspace(-0.3, 0.5, 4)
    lanes = jax.tree.map(lambda leaf: jnp.full(4, leaf), at()) | {"shift": jnp.asarray(shifts)}
    both = jax.value_and_grad(by_minimum)
    values, slopes = jax.jit(jax.vmap(lambda p: both(p, STARTS)))(lanes)
    for i, shift in enumerate(shifts):
        value, (slope, _) = compiled(by_minimum)(at(shift=shift), STARTS_HERE)
        assert float(values[i]) == pytest.approx(float(value), abs=1e-9)
        np.testing.assert_allclose([slopes[name][i] for name in NAMES], listed(slope), atol=1e-7)


def test_nest_starts_that_follow_the_level_above():
    """A warm start from the variable outside is a start like any other: it has no derivative."""

    def nest(p, follow):
        def middle(z):
            cost = lambda x: (x - z) ** 2 + (x - p["target"]) ** 2 + jnp.cosh(x)  # noqa: E731
            return nestor.minimum(cost, follow * z)

        return nestor.minimum(lambda z: jnp.cos(z + p["shift"]) + middle(z), follow * p["shift"])

    slope = jax.jit(jax.grad(nest))
    np.testing.assert_allclose(listed(slope(at(), 1.0)), listed(slope(at(), 0.0)), atol=1e-7)


@pytest.mark.slow
def test_nest_through_every_step():
    """Two levels unrolled: Newton's steps inside Newton's steps, in agreement with the envelope theorem."""
    unrolled = {"solver": nestor.Newton(), "adjoint": nestor.Unroll(), "max_steps": 12}

    def nest(p, **options):
        inner = lambda z: nestor.minimum(lambda x: (x - z) ** 2 + p["weight"] * x**4, 1.0, **options)  # noqa: E731
        return nestor.minimum(lambda z: jnp.cosh(z - p["target"]) + inner(z), 0.0, **options)

    by_steps = listed(jax.jit(jax.grad(functools.partial(nest, **unrolled)))(at()))
    np.testing.assert_allclose(by_steps, listed(jax.jit(jax.grad(nest))(at())), atol=1e-7)


# --- a minimum of a maximum --------------------------------------------------------------------------


@pytest.mark.slow
def test_minimum_of_a_maximum():
    p = nested_minimum.P
    x, y, v, slope, curvature = nested_minimum.closed_form(p)
    found_x, found_y = nested_minimum.saddle(p)
    np.testing.assert_allclose(found_x, x, atol=1e-7)
    np.testing.assert_allclose(found_y, y, atol=1e-7)
    value = nested_minimum.value
    assert float(value(p)) == pytest.approx(float(v), abs=1e-12)
    found_slope, found_curvature = jax.jit(lambda p: (jax.grad(value)(p), jax.hessian(value)(p)))(p)
    np.testing.assert_allclose(found_slope, slope, atol=1e-7)
    np.testing.assert_allclose(found_curvature, curvature, atol=1e-7)


# --- games -------------------------------------------------------------------------------------------

MARKET = jax.tree.map(jnp.asarray, game_of_two.MARKET)


def test_nash_and_its_sensitivities():
    np.testing.assert_allclose(game_of_two.nash(MARKET), [10 / 3, 7 / 3], atol=1e-7)
    truth = {"demand": (1 / 3, 1 / 3), "cost1": (-2 / 3, 1 / 3), "cost2": (1 / 3, -2 / 3)}
    for derivative in (jax.jacfwd, jax.jacrev):
        found = jax.jit(derivative(game_of_two.nash))(MARKET)
        for i in range(2):
            for name in MARKET:
                assert float(found[i][name]) == pytest.approx(truth[name][i], abs=1e-7)


def test_the_leader_gains_and_the_follower_loses():
    lead = game_of_two.stackelberg(MARKET)
    np.testing.assert_allclose(lead, [5.0, 1.5], atol=1e-7)
    nash = game_of_two.nash(MARKET)
    profit = lambda firm, q: -game_of_two.loss(MARKET, firm, q[firm - 1], q[2 - firm])  # noqa: E731
    assert profit(1, lead) > profit(1, nash)
    assert profit(2, lead) < profit(2, nash)
    slopes = jax.jit(jax.jacrev(game_of_two.stackelberg))(MARKET)
    np.testing.assert_allclose([float(slopes[0][name]) for name in MARKET], [-1.0, 0.5, 0.5], atol=1e-7)
    np.testing.assert_allclose([float(slopes[1][name]) for name in MARKET], [0.5, -0.75, 0.25], atol=1e-7)


def test_thoughts_about_thoughts():
    """k levels of modelling each other are k best responses, and lead to Nash's equilibrium by halves."""
    gaps = [float(game_of_two.thinks(MARKET, 1, k)) - 10 / 3 for k in range(1, 6)]
    np.testing.assert_allclose(np.divide(gaps[2:], gaps[:-2]), 1 / 4, atol=1e-6)


@pytest.mark.slow
def test_a_tax_on_a_game_of_minimizers():
    """A minimizer over a fixed point over minimizers, and the gradient of all three."""
    assert float(game_of_two.best_tax(MARKET)) == pytest.approx(2.5, abs=1e-6)
    slope = jax.jit(jax.grad(game_of_two.best_tax))(MARKET)
    found = [float(slope[name]) for name in ("demand", "cost1", "cost2")]
    np.testing.assert_allclose(found, [1 / 4, -1 / 2, 1 / 4], atol=1e-6)


def test_players_with_vectors():
    """Quadratic costs in several variables: the equilibrium solves one linear system."""
    rng = np.random.default_rng(0)
    own1, own2 = (m @ m.T / 3 + 2 * np.eye(3) for m in rng.normal(size=(2, 3, 3)))
    cross1, cross2 = rng.normal(size=(2, 3, 3)) / 3
    pull1, pull2 = rng.normal(size=(2, 3))

    def equilibrium(pulls):
        def best(own, cross, pull, other, start):
            return nestor.argmin(lambda a: a @ own @ a / 2 + a @ cross @ other + pull @ a, start)

        def answers(q):
            return {
                "one": best(own1, cross1, pulls["one"], q["two"], q["one"]),
                "two": best(own2, cross2, pulls["two"], q["one"], q["two"]),
            }

        return nestor.fixed_point(answers, {"one": jnp.zeros(3), "two": jnp.zeros(3)}).x

    system = np.block([[own1, cross1], [cross2, own2]])
    pulls = {"one": jnp.asarray(pull1), "two": jnp.asarray(pull2)}
    found = equilibrium(pulls)
    truth = np.linalg.solve(system, -np.concatenate([pull1, pull2]))
    np.testing.assert_allclose(np.concatenate([found["one"], found["two"]]), truth, atol=1e-6)
    slopes = jax.jit(jax.jacrev(equilibrium))(pulls)
    rows = [np.concatenate([slopes[a]["one"], slopes[a]["two"]], axis=1) for a in ("one", "two")]
    np.testing.assert_allclose(np.concatenate(rows), -np.linalg.inv(system), atol=1e-6)


def test_a_parameter_of_one_player_only():
    """The other player's equation does not hold it: the right-hand side of that leaf is a constant zero."""

    def first(c):
        return nestor.fixed_point(lambda q: (c - q[1] / 2, 1 - q[0] / 2), (0.0, 0.0)).x[0]

    assert float(jax.grad(first)(1.0)) == pytest.approx(4 / 3, abs=1e-7)


@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
def test_second_derivatives_of_players_whose_curvature_is_constant(outer):
    """The inner linear solve has a constant map and a constant right-hand side; q = (c - q) / 2 is c / 3."""

    def answer(c):
        best = lambda q: nestor.argmin(lambda a: a**2 + (q - c) * a, 1.0)  # noqa: E731
        return c * nestor.find_root(lambda q: q - best(q), 0.0).x

    assert float(outer(jax.grad(answer))(1.0)) == pytest.approx(2 / 3, abs=1e-7)


# --- objectives that contain derivatives -------------------------------------------------------------


@pytest.mark.slow
def test_fit_with_a_gradient_penalty():
    """The weight of a penalty on the slopes of a model, by the error on other data: a hypergradient."""
    x = jnp.linspace(-1.0, 1.0, 12)
    targets = jnp.sin(3 * x) + 0.3 * jnp.cos(20 * x)

    def model(w, x):
        return jnp.dot(w["out"], jnp.tanh(w["in"] * x + w["bias"]))

    start = {"in": jnp.array([1.0, 2.0]), "bias": jnp.array([0.5, -0.5]), "out": jnp.array([0.5, 0.5])}

    def validation(log_weight):
        def cost(w):
            misfit = jax.vmap(lambda x: model(w, x))(x) - targets
            slopes = jax.vmap(jax.grad(model, argnums=1), in_axes=(None, 0))(w, x)
            ridge = sum(jnp.sum(leaf**2) for leaf in w.values())
            return jnp.mean(misfit**2) + jnp.exp(log_weight) * jnp.mean(slopes**2) + 1e-2 * ridge

        w = nestor.argmin(cost, start, tol=1e-10)
        return jnp.mean((jax.vmap(lambda x: model(w, x))(x + 0.05) - jnp.sin(3 * (x + 0.05))) ** 2)

    assert nestor.check_derivatives(validation, -3.0, directions=1)


def test_a_design_that_hardly_listens_to_its_input():
    """The objective holds the derivative of a minimizer: y(u) = d u / (1 + d^2), of slope d / (1 + d^2)."""

    def sensitivity(d, u):
        return jax.grad(lambda u: nestor.argmin(lambda y: (d * y - u) ** 2 + y**2, 0.0))(u)

    def design(wanted):
        return nestor.argmin(lambda d: (sensitivity(d, 0.7) - wanted) ** 2, 0.5, tol=1e-10)

    assert float(sensitivity(0.5, 0.7)) == pytest.approx(0.4, abs=1e-8)
    found, slope = jax.jit(jax.value_and_grad(design))(0.3)
    d = (1 - np.sqrt(1 - 4 * 0.3**2)) / (2 * 0.3)
    assert float(found) == pytest.approx(d, abs=1e-6)
    assert float(slope) == pytest.approx((1 + d**2) ** 2 / (1 - d**2), rel=1e-6)


def test_adaptive_control():
    """A controller that plans with its model, in a simulation of the plant: the tracking error as a function of
    the model has its minimum, and no gradient, where the model is the plant."""
    wanted = jnp.sin(jnp.arange(8.0))
    plant = {"pole": jnp.asarray(0.9), "gain": jnp.asarray(0.5)}

    def next_state(model, state, u):
        return model["pole"] * jnp.tanh(state) + model["gain"] * u

    def tracking(model):
        def tick(state, goal):
            u = nestor.argmin(lambda u: (next_state(model, state, u) - goal) ** 2, 0.0)
            state = next_state(plant, state, u)
            return state, (state - goal) ** 2

        return jnp.sum(jax.lax.scan(tick, jnp.asarray(0.3), wanted)[1])

    both = jax.jit(jax.value_and_grad(tracking))
    value, slope = both(plant)
    assert float(value) < 1e-12
    assert all(abs(float(leaf)) < 1e-6 for leaf in slope.values())
    guess = {"pole": jnp.asarray(0.5), "gain": jnp.asarray(0.8)}
    _, slope = both(guess)
    for name, h in (("pole", 1e-3), ("gain", 1e-3)):
        near, far = (
            float(
                both({**guess, name: guess[name] + k * h})[0] - both({**guess, name: guess[name] - k * h})[0]
            )
            for k in (1, 2)
        )
        assert float(slope[name]) == pytest.approx((8 * near - far) / (12 * h), rel=1e-6)
    learned = nestor.minimize(tracking, guess)
    assert float(learned.fun) < 1e-12
    assert float(learned.x["gain"]) == pytest.approx(0.5, abs=1e-5)
    assert float(learned.x["pole"]) == pytest.approx(0.9, abs=1e-5)
