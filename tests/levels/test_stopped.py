"""DARTS and SAMA where a loss stops its own gradient: what differences cannot know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import Graph, Level

RATE = 0.3


def losses(stopped: bool):
    """A lower loss whose weights are read off its own terms, and an upper one."""
    keep = jax.lax.stop_gradient if stopped else lambda x: x

    def lower(p, _):
        each = (p["x"] - jnp.arange(3.0)) ** 2
        return jnp.sum(jax.nn.sigmoid(p["h"] * keep(each)) * each)

    return lower, lambda p, _: jnp.sum(jnp.sin(p["x"]))


def expected(stopped: bool, rate: float):
    """-rate (d gradient / d h)' (upper gradient), after one step of the lower level."""
    lower, upper = losses(stopped)
    slope = lambda x, h: jax.grad(lambda x: lower({"x": x, "h": h}, None))(x)  # noqa: E731
    x, h = jnp.full(3, 0.5), jnp.array([0.2, -0.3, 0.5])
    x = x - RATE * slope(x, h)
    cotangent = jax.grad(lambda x: upper({"x": x}, None))(x)
    return -rate * jax.jacobian(slope, argnums=1)(x, h).T @ cotangent


def found(adjoint, stopped: bool):
    lower, upper = losses(stopped)
    model = Level(lower, jnp.full(3, 0.5), nestor.sgd(RATE), adjoint=adjoint)
    weights = Level(upper, jnp.array([0.2, -0.3, 0.5]), nestor.sgd(0.1))
    return Graph({"x": model, "h": weights}).hypergradient().gradient


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize(("method", "rate"), [(nestor.DARTS, 1.0), (nestor.SAMA, RATE)])
def test_without_differences_the_formula_is_exact(method, rate: float, stopped: bool):
    np.testing.assert_allclose(found(method(eps=None), stopped), expected(stopped, rate), rtol=1e-12)


@pytest.mark.parametrize(("method", "rate"), [(nestor.DARTS, 1.0), (nestor.SAMA, RATE)])
def test_differences_agree_where_nothing_is_stopped(method, rate: float):
    np.testing.assert_allclose(found(method(eps=1e-4), False), expected(False, rate), rtol=1e-5)


def test_differences_do_not_see_what_is_stopped():
    error = found(nestor.SAMA(eps=1e-4), True) - expected(True, RATE)
    assert np.linalg.norm(error) > 0.1 * np.linalg.norm(expected(True, RATE))
