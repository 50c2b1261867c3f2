"""Projections and proximal operators where numbers are odd: huge, tiny, of lower rank, empty, or not allowed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import proximal

RNG = np.random.default_rng(1)
BIG32, TINY32 = jnp.array([3e25, 4e25], jnp.float32), jnp.array([3e-25, 4e-25], jnp.float32)


@pytest.mark.parametrize("x", [BIG32, jnp.array([3e200, 4e200])], ids=["float32", "float64"])
def test_lengths_whose_squares_overflow(x):
    unit = np.array([0.6, 0.8])
    np.testing.assert_allclose(proximal.L2Ball(1.0).project(x), unit, rtol=1e-6)
    np.testing.assert_allclose(proximal.L2Sphere(1.0).project(x), unit, rtol=1e-6)
    np.testing.assert_allclose(proximal.GroupLasso(1.0).prox(x), x, rtol=1e-6)
    np.testing.assert_allclose(proximal.Logarithm(1.0).prox(x), x, rtol=1e-6)
    with_top = jnp.concatenate([jnp.zeros(1, x.dtype), x])
    found = proximal.SecondOrderCone().project(with_top) / x[0] * 3
    np.testing.assert_allclose(found, [2.5, 1.5, 2.0], rtol=1e-6)


def test_lengths_whose_squares_vanish():
    np.testing.assert_allclose(proximal.L2Sphere(1.0).project(TINY32), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(proximal.L2Ball(1.0).lowest(TINY32), [-0.6, -0.8], rtol=1e-6)
    np.testing.assert_array_equal(proximal.GroupLasso(0.0).prox(TINY32), TINY32)
    slope = jax.jacfwd(proximal.L2Sphere(1.0).project)(TINY32)  # (1 - u u') / |x|
    np.testing.assert_allclose(slope * 5e-25, [[0.64, -0.48], [-0.48, 0.36]], rtol=1e-5)


@pytest.mark.parametrize("x", [[1e20, 1e20], [-1e20, -1e20]])
def test_a_section_of_a_box_far_away(x):
    found = jax.jit(proximal.BoxSection(0.0, jnp.inf, 1.0, 1.0).project)(jnp.array(x))
    np.testing.assert_allclose(found, [0.5, 0.5])


def test_a_section_of_a_box_by_brute_force():
    """Among all guesses of which entries are at a bound, the feasible one that is nearest."""
    n, project = 4, jax.jit(lambda x, *s: proximal.BoxSection(*s).project(x))
    places = np.stack(np.meshgrid(*[[-1, 0, 1]] * n, indexing="ij"), -1).reshape(-1, n)
    for _ in range(20):
        low = np.round(RNG.normal(size=n))
        high = low + RNG.integers(0, 3, size=n)  # some are fixed
        normal, x = RNG.integers(-2, 3, size=n).astype(float), np.round(2 * RNG.normal(size=n))  # ties, zeros
        total = normal @ RNG.uniform(low, high)
        best, found = np.inf, None
        for place in places:
            free = place == 0
            z = np.where(place < 0, low, np.where(place > 0, high, x))
            weight = np.sum(normal[free] ** 2)
            if weight:
                z = z - np.where(free, (normal @ z - total) / weight * normal, 0)
            good = abs(normal @ z - total) < 1e-9 and (z >= low - 1e-12).all() and (z <= high + 1e-12).all()
            if good and np.sum((z - x) ** 2) < best:
                best, found = np.sum((z - x) ** 2), z
        np.testing.assert_allclose(project(jnp.asarray(x), low, high, normal, total), found, atol=1e-9)


def test_sets_that_are_empty_are_not_projected_on():
    x = jnp.array([0.3, 0.7])
    assert np.isnan(jax.jit(proximal.BoxSection(0.0, 1.0, 1.0, 3.0).project)(x)).all()
    assert np.isnan(proximal.Halfspace(jnp.zeros(2), -1.0).project(x)).any()
    for kind in (proximal.L1Ball, proximal.L2Ball, proximal.LInfBall, proximal.Simplex):
        with pytest.raises(nestor.BadArgument, match=">= 0"):
            kind(-1.0).project(x)
        traced = jax.jit(lambda r, kind=kind: kind(r).project(x))
        assert np.isnan(traced(-1.0)).all()
        np.testing.assert_array_equal(traced(0.0), 0)
    np.testing.assert_array_equal(proximal.Halfspace(jnp.zeros(2), 1.0).project(x), x)


def test_bad_settings_are_named():
    for wrong in (
        lambda: proximal.Lasso(-1.0).prox(jnp.ones(2)),
        lambda: proximal.GroupLasso(-1.0).prox(jnp.ones(2)),
        lambda: proximal.Huber(1.0, knee=-1.0).prox(jnp.ones(2)),
        lambda: proximal.Quantile(1.5).prox(jnp.ones(2)),
        lambda: proximal.Box(1.0, 0.0).project(jnp.ones(2)),
        lambda: jax.jit(proximal.Box(1.0, 0.0).project)(jnp.ones(2)),
        lambda: proximal.SparseSimplex(0).project(jnp.ones(2)),
        lambda: proximal.Affine(jnp.ones((1, 3)), jnp.ones(1)).project(jnp.ones(2)),
        lambda: proximal.PositiveSemidefinite().project(jnp.ones((2, 3))),
        lambda: proximal.NuclearNorm().prox(jnp.ones(3)),
        lambda: proximal.Birkhoff().project(jnp.ones((2, 3))),
        lambda: proximal.Transport(jnp.ones(2), jnp.ones(2)).project(jnp.ones((3, 2))),
    ):
        with pytest.raises(nestor.BadArgument):
            wrong()


def test_the_nuclear_ball_at_low_rank():
    """Inside the ball nothing changes, so the derivative is the identity, whatever the rank."""
    low_rank, change = jnp.diag(jnp.array([1.0, 0.0])), jnp.ones((2, 2))
    push = jax.jit(lambda radius: jax.jvp(proximal.NuclearBall(radius).project, (low_rank,), (change,)))
    np.testing.assert_allclose(push(5.0)[1], change, atol=1e-14)
    np.testing.assert_array_equal(push(0.0), 0)


def test_nothing_to_project():
    for term in (proximal.Monotone(), proximal.BoxSection(0.0, 1.0, 1.0, 0.0), proximal.L2Ball()):
        assert term.project(jnp.zeros(0)).shape == (0,)


@pytest.mark.parametrize("size", [1e-8, 1e4, 1e6])
def test_planes_and_plans_of_any_size(size):
    normal = jnp.array([1.0, 1.0]) * size**20
    np.testing.assert_allclose(proximal.Hyperplane(normal, size**20).project(jnp.zeros(2)), [0.5, 0.5])
    project = jax.jit(lambda x, a, b: proximal.Transport(a, b).project(x))
    x, a, b = RNG.normal(size=(2, 3)), np.array([1.0, 1.0]), np.array([0.5, 0.5, 1.0])
    small, large = project(x, a, b), project(size * x, size * a, size * b)
    np.testing.assert_allclose(large / size, small, atol=1e-10)
    far = np.asarray(project(size * x, a, b))
    np.testing.assert_allclose(far.sum(axis=1), a, atol=1e-8)
    np.testing.assert_allclose(far.sum(axis=0), b, atol=1e-8)
    others = np.asarray(jax.vmap(project, (0, None, None))(3 * RNG.normal(size=(20, 2, 3)), a, b))
    rise = np.sum((size * x - far) * (others - far), axis=(1, 2))
    assert rise.max() <= 1e-8 * max(size, 1)
