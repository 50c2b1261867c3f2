"""Least squares with bounds and robust losses, and curve fitting, against SciPy and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nestor

RNG = np.random.default_rng(1)
T = np.linspace(0.0, 4.0, 40)
Y = 2.5 * np.exp(-1.3 * T) + 0.5 + 0.02 * RNG.normal(size=T.size)
OUTLIERS = Y.copy()
OUTLIERS[::7] += 1.5
START = np.array([1.0, 1.0, 0.0])
TIGHT = {"tol": 1e-11}


def model(t, p):
    return p[0] * jnp.exp(-p[1] * t) + p[2]


def residuals(y):
    return lambda p: model(jnp.asarray(T), p) - y


def by_scipy(y, **options):
    numpy_model = lambda p: p[0] * np.exp(-p[1] * T) + p[2] - y  # noqa: E731
    jac = lambda p: np.stack([np.exp(-p[1] * T), -p[0] * T * np.exp(-p[1] * T), np.ones_like(T)], 1)  # noqa: E731
    return scipy.optimize.least_squares(
        numpy_model, START, jac=jac, xtol=1e-15, ftol=1e-15, gtol=1e-13, **options
    )


@pytest.mark.parametrize(
    "loss",
    [
        "huber",
        pytest.param("soft_l1", marks=pytest.mark.slow),
        pytest.param("cauchy", marks=pytest.mark.slow),
        pytest.param("arctan", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("upper", [np.inf, pytest.param(2.0, marks=pytest.mark.slow)])
def test_robust_losses_against_scipy(loss, upper):
    if loss == "arctan" and upper == 2.0:
        pytest.skip("has two minima, and each finds another")
    bounds = None if upper == np.inf else (None, upper)
    ours = nestor.least_squares(
        residuals(jnp.asarray(OUTLIERS)), jnp.asarray(START), loss=loss, f_scale=0.1, bounds=bounds, tol=1e-9
    )
    theirs = by_scipy(OUTLIERS, loss=loss, f_scale=0.1, bounds=(-np.inf, upper))
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-6)
    np.testing.assert_allclose(ours.fun, theirs.cost, rtol=1e-10)


UPPER = np.array([2.0, np.inf, np.inf])


def bounded(y, upper, loss="linear", scale=0.1):
    bounds = (None, upper)
    return nestor.least_squares(
        residuals(y), jnp.asarray(START), bounds=bounds, loss=loss, f_scale=scale, **TIGHT
    ).x


def test_an_active_bound_and_its_derivatives():
    seen = []
    found = nestor.least_squares(
        residuals(jnp.asarray(Y)),
        jnp.asarray(START),
        bounds=(None, jnp.asarray(UPPER)),
        callback=lambda r: seen.append(np.asarray(r.x)),
        **TIGHT,
    )
    theirs = by_scipy(Y, bounds=(-np.inf, UPPER))
    assert found.x[0] == 2.0
    assert max(x[0] for x in seen) <= 2.0
    assert int(found.stats.evaluations) <= 1.5 * theirs.nfev  # to a tighter tolerance
    np.testing.assert_allclose(found.x, theirs.x, atol=1e-6)
    in_y, in_upper = jax.jacrev(bounded, argnums=(0, 1))(jnp.asarray(Y), jnp.asarray(UPPER))
    h = 1e-5
    for i in (0, 5):
        e = h * np.eye(T.size)[i]
        difference = (bounded(jnp.asarray(Y + e), UPPER) - bounded(jnp.asarray(Y - e), UPPER)) / (2 * h)
        np.testing.assert_allclose(in_y[:, i], difference, atol=1e-8)
    e = np.array([h, 0, 0])
    difference = (bounded(jnp.asarray(Y), UPPER + e) - bounded(jnp.asarray(Y), UPPER - e)) / (2 * h)
    np.testing.assert_allclose(in_upper[:, 0], difference, atol=1e-8)


@pytest.mark.slow
def test_the_derivative_of_a_robust_fit_in_its_scale():
    fit = lambda s: bounded(jnp.asarray(OUTLIERS), None, "cauchy", s)  # noqa: E731
    slope = jax.jacfwd(fit)(0.1)
    np.testing.assert_allclose(slope, (fit(0.1 + 1e-6) - fit(0.1 - 1e-6)) / 2e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(10))
def test_random_boxes_against_scipy(trial):
    rng = np.random.default_rng(trial)
    m, n = 30, 6
    a, b = rng.normal(size=(m, n)), rng.normal(size=m)
    low, high = -0.1 * rng.random(n), 0.1 * rng.random(n)
    fun = lambda x: jnp.asarray(a) @ (x + 0.3 * x**2) - jnp.asarray(b)  # noqa: E731
    ours = nestor.least_squares(fun, jnp.zeros(n), bounds=(low, high))
    theirs = scipy.optimize.least_squares(
        lambda x: a @ (x + 0.3 * x**2) - b,
        np.zeros(n),
        bounds=(low, high),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-12,
    )
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-6)


@pytest.mark.parametrize("absolute", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_curve_fit_against_scipy(absolute):
    sigma = 0.02 + 0.01 * T
    ours = nestor.curve_fit(
        lambda t, p: model(t, (p["a"], p["b"], p["c"])),
        T,
        Y,
        dict(zip("abc", START, strict=True)),
        sigma=sigma,
        absolute_sigma=absolute,
    )
    numpy_model = lambda t, a, b, c: a * np.exp(-b * t) + c  # noqa: E731
    params, covariance = scipy.optimize.curve_fit(
        numpy_model, T, Y, START, sigma=sigma, absolute_sigma=absolute, xtol=1e-14, ftol=1e-14
    )
    np.testing.assert_allclose([ours.params[k] for k in "abc"], params, rtol=1e-6)
    np.testing.assert_allclose(ours.covariance, covariance, rtol=1e-4)
    np.testing.assert_allclose(ours.errors["b"], np.sqrt(covariance[1, 1]), rtol=1e-4)


@pytest.mark.slow
def test_curve_fit_with_a_covariance_matrix_bounds_and_a_derivative():
    chol = np.tril(0.01 * RNG.normal(size=(T.size, T.size))) + 0.05 * np.eye(T.size)
    matrix = chol @ chol.T
    fit = lambda y: nestor.curve_fit(  # noqa: E731
        model, T, y, jnp.asarray(START), sigma=matrix, bounds=(0.0, np.array([np.inf, 1.0, np.inf])), tol=1e-9
    )
    numpy_model = lambda t, a, b, c: a * np.exp(-b * t) + c  # noqa: E731
    params, _ = scipy.optimize.curve_fit(
        numpy_model,
        T,
        Y,
        START,
        sigma=matrix,
        bounds=(0, [np.inf, 1.0, np.inf]),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-14,
    )
    np.testing.assert_allclose(fit(jnp.asarray(Y)).params, params, atol=1e-6)
    h, e = 1e-5, np.eye(T.size)[3]
    for read in (lambda f: f.params, lambda f: f.covariance):
        slope = jax.jvp(lambda y: read(fit(y)), (jnp.asarray(Y),), (jnp.asarray(e),))[1]  # noqa: B023
        difference = (read(fit(jnp.asarray(Y + h * e))) - read(fit(jnp.asarray(Y - h * e)))) / (2 * h)
        np.testing.assert_allclose(slope, difference, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "hubert"}, 'loss="huber"'),
        ({"loss": "huber", "f_scale": 0.0}, "f_scale"),
        ({"bounds": (0.0, 1.0), "solver": nestor.Dogleg()}, "LevenbergMarquardt"),
        ({"bounds": (1.0, 0.0)}, "lower <= upper"),
    ],
)
def test_refusals(options, said):
    with pytest.raises(nestor.BadArgument, match=said):
        nestor.least_squares(residuals(jnp.asarray(Y)), jnp.asarray(START), **options)
    with pytest.raises(nestor.BadArgument, match="sigma"):
        nestor.curve_fit(model, T, Y, jnp.asarray(START), sigma=np.ones(3))


@pytest.mark.parametrize("sigma", [np.zeros(4), np.array([1.0, 1.0, np.nan, 1.0]), np.ones((4, 4))])
def test_deviations_that_cannot_be_are_refused(sigma):
    t = jnp.arange(4.0)
    with pytest.raises(nestor.BadArgument, match="sigma"):
        nestor.curve_fit(lambda t, p: p * t, t, 2 * t, 1.0, sigma=sigma)
