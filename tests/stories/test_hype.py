"""Published figures of nested automatic differentiation, to the digits that were printed."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from examples import beale_rmsprop, perturbation_confusion
from examples.charged_particle import landing, loss_above, loss_crossing, newton

BOUND = 450  # the longest flight of all that are flown here has 416 steps

run_newton = jax.jit(newton, static_argnums=(0, 2, 3))


def loss_on_the_chord(w):
    """The other reading of a crossing by interpolation: between the last two points."""
    after, _, before = landing(w, kick_first=False)
    share = before[1] / (before[1] - after[1])
    return (before[0] + share * (after[0] - before[0])) ** 2


# --- the charged particle ----------------------------------------------------------------------------


def test_particle_last_point_above_the_axis():
    seen = run_newton(loss_above, jnp.float32(0), 10)
    assert seen.dtype == jnp.float32
    assert abs(float(seen[-1]) - 0.1821662) < 1e-6


@pytest.mark.parametrize("loss", [loss_crossing, loss_on_the_chord])
def test_particle_at_the_crossing(loss):
    seen = run_newton(loss, jnp.float64(0), 5)
    assert abs(float(seen[-1]) + 0.2665235) < 1e-6
    assert float(loss(seen[-1])) < 1e-12


def test_particle_crossing_to_the_last_printed_digit():
    seen = run_newton(loss_crossing, jnp.float64(0), 10)
    assert f"{float(seen[5]):.7f}" == f"{float(seen[10]):.7f}" == "-0.2665235"


@pytest.mark.parametrize("loss", [loss_above, loss_crossing])
def test_particle_reverse_mode_flies_the_same_way(loss):
    """The bounded flight is reverse over reverse over reverse; the unbounded one is forward alone."""
    bounded = functools.partial(loss, bound=BOUND)
    backwards = run_newton(bounded, jnp.float64(0), 6, jax.jacrev)
    forwards = run_newton(loss, jnp.float64(0), 6)
    np.testing.assert_allclose(backwards, forwards, rtol=0, atol=1e-10)
    assert all(landing(w, kick_first=loss is loss_above, bound=BOUND)[0][1] <= 0 for w in forwards)


def test_particle_minimized_in_float32():
    """The trust region keeps Newton's method to the published aim, also with numbers this noisy."""
    loss = functools.partial(loss_above, bound=BOUND)
    best = nestor.minimize(loss, jnp.float32(0), solver=nestor.Newton())
    assert best.success
    assert abs(float(best.x) - 0.1821662) < 1e-6


def aim(v0):
    """The w that hits the origin, as a function of the speed at the start."""
    loss = lambda w: loss_crossing(w, v0=v0, bound=BOUND)  # noqa: E731
    return nestor.find_root(jax.grad(loss), -0.25).x


def test_particle_aim_is_a_function_of_the_speed():
    """A root of a derivative of a simulation that takes derivatives, differentiated: fourth order."""
    both = jax.jit(jax.value_and_grad(aim))
    value, slope = both(0.75)
    assert abs(float(value) + 0.2665235) < 1e-7
    h = 1e-4
    difference = float(both(0.75 + h)[0] - both(0.75 - h)[0]) / (2 * h)
    assert float(slope) == pytest.approx(difference, rel=1e-6)


def test_particle_has_another_aim():
    """From 0 a method that must go down finds the other side: a zero of the loss all the same."""
    loss = functools.partial(loss_crossing, bound=BOUND)
    best = nestor.minimize(loss, 0.0, solver=nestor.Newton())
    assert best.success
    assert best.fun < 1e-12
    assert best.x > 0.2


# --- Beale's function by RMSProp ---------------------------------------------------------------------


def beale_by_hand(dtype, steps):
    """Every value and every point of RMSProp in NumPy, with the gradient written out."""
    x, y = np.array(beale_rmsprop.START, dtype)
    r = np.zeros(2, dtype)
    values = []
    for _ in range(steps + 1):
        a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
        values.append(a * a + b * b + c * c)
        g = np.array(
            [
                2 * (a * (y - 1) + b * (y**2 - 1) + c * (y**3 - 1)),
                2 * (a * x + 2 * b * x * y + 3 * c * x * y**2),
            ]
        )
        r = 0.9 * r + 0.1 * g * g
        x, y = np.array([x, y]) - 0.01 * g / np.sqrt(r + 1e-6)
    return np.array(values)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_beale_published_values(dtype):
    run = beale_rmsprop.descend(tuple(dtype(s) for s in beale_rmsprop.START))
    values = np.asarray(run.history.value)
    assert values.shape == (3001,)
    assert values.dtype == dtype
    assert f"{values[10]:.4f}" == "26.5588"  # the eleventh point
    assert abs(values.min() - 8.95e-4) < 1e-5
    assert run.fun == values.min()
    assert run.status is nestor.Status.OUT_OF_STEPS


def test_beale_by_hand():
    """Not for longer: where the steps begin to circle the valley, rounding errors grow with each of them."""
    run = beale_rmsprop.descend(tuple(map(jnp.asarray, beale_rmsprop.START)), steps=200)
    np.testing.assert_allclose(run.history.value, beale_by_hand(np.float64, 200), rtol=1e-10)


def test_beale_learning_rate_has_a_derivative():
    """A hypergradient: 50 steps of an optimizer from optax, differentiated in its learning rate."""
    assert nestor.check_derivatives(beale_rmsprop.best_in(50), 0.01, step=1e-5)


# --- perturbation confusion --------------------------------------------------------------------------


@pytest.mark.parametrize("story", perturbation_confusion.STORIES, ids=lambda story: story.__name__)
def test_no_perturbation_is_confused(story):
    truth = perturbation_confusion.STORIES[story]
    modes = perturbation_confusion.MODES.values()
    for inner, outer in itertools.product(modes, modes):
        assert float(story(inner, outer)) == pytest.approx(truth, abs=1e-7)


def test_no_perturbation_is_confused_in_a_batch():
    """The same, with `jit` and `vmap` between the two derivatives: x^3 has slope 3 x^2."""

    def least(x, y):
        return nestor.minimum(lambda z: (z - x * y) ** 2 / 2 + x * z, 0.0)

    def product(x):
        inner = jax.vmap(jax.jit(jax.grad(least, argnums=1)), in_axes=(None, 0))
        return x * jnp.mean(inner(x, jnp.array([0.5, 2.0])))

    xs = jnp.array([-1.0, 0.5, 1.0])
    np.testing.assert_allclose(jax.vmap(jax.grad(product))(xs), 3 * xs**2, rtol=1e-7)
