"""The Gaussian process against finite differences, and what its sampler finds with and without gradients."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from nestor import search
from nestor.search import _acquire, _process
from nestor.search._descent import next_of_descent
from tests.search.objectives import bowl
from tests.search.test_study import same


def told(kernel, slopes):
    """A process over nine points of four columns, two of which share a scale, and some slopes."""
    x = np.random.default_rng(0).random((9, 4))
    phase = np.array([3.0, 2.0, 1.0, 0.5])
    known = np.cos(x @ phase)[:, None] * phase
    known[2], known[4, 1], known[5, 0] = np.nan, np.nan, np.nan
    known = known if slopes else np.full_like(x, np.nan)
    return _process.Data(x, np.sin(x @ phase), known, np.array([0, 1, 2, 2]))


def differences(function, at, step=1e-5):
    return np.array(
        [(function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(len(at))]
    )


@pytest.mark.parametrize("kernel", [_process.matern, _process.gauss])
def test_the_derivatives_of_the_kernels(kernel):
    at = np.array([0.3, 1.0, 4.0])
    for lower, higher in itertools.pairwise(range(4)):
        rises = (kernel(at + 1e-6)[lower] - kernel(at - 1e-6)[lower]) / 2e-6
        np.testing.assert_allclose(kernel(at)[higher], rises, rtol=1e-6)


def test_the_covariance_of_slopes_is_that_of_differences():
    data = told(_process.matern, True)
    scales, h = np.array([0.4, 0.7, 1.2]), 1e-4
    process = _process.Process(data, scales, 1e-6)
    lengths = scales[data.groups]

    def at(p, i, q, j):
        ps = [(p, 1.0)] if i is None else [(p + h * i, 0.5 / h), (p - h * i, -0.5 / h)]
        qs = [(q, 1.0)] if j is None else [(q + h * j, 0.5 / h), (q - h * j, -0.5 / h)]
        return sum(v * w * _process.matern(((a - b) ** 2).sum())[0] for a, v in ps for b, w in qs)

    rows = [(row, None) for row in data.x / lengths]
    for place, number in enumerate(data.sloped):
        unit = np.eye(4)[data.keep.reshape(-1, 4)[place]]
        rows += [(data.x[number] / lengths, column) for column in unit]
    theirs = np.array([[at(p, i, q, j) for q, j in rows] for p, i in rows])
    np.testing.assert_allclose(process._covariance(), theirs, atol=1e-5)


@pytest.mark.parametrize("kernel", [_process.matern, _process.gauss])
@pytest.mark.parametrize("slopes", [False, True])
def test_the_derivative_of_the_posterior_density(kernel, slopes):
    data = told(kernel, slopes)
    settings = np.log(np.array([0.4, 0.7, 1.2, 1e-3]))
    _, slope = _process.loss(settings, data, kernel)
    np.testing.assert_allclose(
        slope, differences(lambda s: _process.loss(s, data, kernel)[0], settings), rtol=1e-5
    )


def test_the_density_is_that_of_a_normal_distribution():
    data, scales = told(_process.matern, False), np.array([0.4, 0.7, 1.2])
    process = _process.Process(data, scales, 1e-3)
    covariance = process.amplitude * (process._covariance() + 1e-3 * np.eye(9))
    theirs = stats.multivariate_normal(np.full(9, process.centre), covariance).logpdf(data.y)
    constant = -4.5 * (math.log(2 * math.pi) + 1)
    assert process.log_likelihood() + constant == pytest.approx(theirs)


@pytest.mark.parametrize("kernel", [_process.matern, _process.gauss])
def test_mean_and_deviation_and_their_derivatives(kernel):
    process = _process.Process(told(kernel, True), np.array([0.4, 0.7, 1.2]), 1e-6, kernel)
    at = np.array([0.3, 0.6, 0.2, 0.9])
    mean, deviation, slope, rise = process.at(at)
    together = process.mean_and_deviation(at[None])
    assert (mean, deviation) == (pytest.approx(together[0][0]), pytest.approx(together[1][0]))
    np.testing.assert_allclose(slope, differences(lambda p: process.at(p)[0], at), atol=1e-7)
    np.testing.assert_allclose(rise, differences(lambda p: process.at(p)[1], at), atol=1e-7)


def test_the_posterior_goes_through_values_and_slopes():
    x = np.array([[0.2], [0.7]])
    data = _process.Data(x, np.sin(3 * x[:, 0]), 3 * np.cos(3 * x), np.array([0]))
    process = _process.Process(data, np.array([0.5]), 1e-10)
    mean, deviation = process.mean_and_deviation(np.array([[0.2], [0.2001], [0.7], [0.45]]))
    np.testing.assert_allclose(mean[[0, 2]], np.sin(3 * x[:, 0]), atol=1e-6)
    assert (mean[1] - mean[0]) / 1e-4 == pytest.approx(3 * math.cos(0.6), abs=1e-2)
    assert mean[3] == pytest.approx(math.sin(1.35), abs=0.05)
    assert deviation[3] > deviation[0]


def test_the_logarithm_of_the_expected_improvement():
    z = np.array([-100.0, -20.0, -14.9, -5.0, 0.0, 3.0])
    log, slope = _acquire.log_improvement(z)
    direct = np.log(stats.norm.pdf(z[3:]) + z[3:] * stats.norm.cdf(z[3:]))
    np.testing.assert_allclose(log[3:], direct, rtol=1e-9)
    np.testing.assert_allclose(
        log[:2], -0.5 * z[:2] ** 2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(-z[:2]), rtol=1e-3
    )
    rises = (_acquire.log_improvement(z + 1e-5)[0] - _acquire.log_improvement(z - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(slope, rises, rtol=1e-3)


def test_a_descent_asks_for_the_points_of_scipy():
    visited = []

    def rosenbrock(point):
        visited.append(point.copy())
        return optimize.rosen(point), optimize.rosen_der(point)

    start = np.array([0.1, 0.9, 0.4])
    optimize.minimize(
        rosenbrock, start, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 3, options={"maxfun": 12}
    )
    x = [start]
    for _ in range(11):
        y, slopes = np.array([optimize.rosen(p) for p in x]), np.array([optimize.rosen_der(p) for p in x])
        asked = next_of_descent(np.array(x), y, slopes, 1)
        assert asked is not None
        x.append(asked)
    np.testing.assert_allclose(x, visited[:12], atol=1e-12)


def branin(x, y):
    """The function less its minimum, and its gradient."""
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    u = y - b * x * x + c * x - 6
    value = u * u + 10 * (1 - t) * math.cos(x) + 10 - 0.39788735772973816
    return value, {"x": 2 * u * (c - 2 * b * x) - 10 * (1 - t) * math.sin(x), "y": 2 * u}


@pytest.mark.slow
@pytest.mark.parametrize(("slopes", "trials"), [(True, 16), (False, 40)])
def test_branin(slopes, trials):
    best = []
    for seed in range(3):
        study = search.create_study(sampler=search.GPSampler(seed=seed))
        for _ in range(trials):
            trial = study.ask()
            value, gradient = branin(trial.suggest_float("x", -5, 10), trial.suggest_float("y", 0, 15))
            study.tell(trial, value, gradient=gradient if slopes else None)
        best.append(study.best_value)
    assert np.median(best) < 0.004


def test_gradients_by_logarithms_arrays_and_what_is_maximized():
    study = search.create_study(direction="maximize", sampler=search.GPSampler(seed=0))
    for _ in range(14):
        trial = study.ask()
        rate, w = trial.suggest_float("rate", 1e-4, 1.0, log=True), trial.suggest_array("w", 2, -1, 1)
        away = math.log(rate / 0.01)
        value = -(away**2) - float(((w - 0.3) ** 2).sum())
        study.tell(trial, value, gradient={"rate": -2 * away / rate, "w": -2 * (w - 0.3)})
    assert study.best_value > -1e-2


def test_the_same_seed_gives_the_same_study():
    studies = [search.create_study(sampler=search.GPSampler(seed=1)) for _ in range(2)]
    for study in studies:
        study.optimize(bowl, n_trials=14)  # conditional: TPE
        study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=2)
    assert same(studies[0].trials, studies[1].trials, times=False)


def test_whole_numbers_choices_and_batches():
    study = search.create_study(sampler=search.GPSampler(seed=0))

    def value(trial):
        x, n = trial.suggest_float("x", 0, 1), trial.suggest_int("n", 1, 9)
        return (x - 0.3) ** 2 + 0.1 * abs(n - 4) + (trial.suggest_categorical("kind", ["a", "b"]) == "a")

    for _ in range(7):
        trials = study.ask(3)
        study.tell(trials, [value(trial) for trial in trials])
    assert study.best_value < 0.15
    points = {tuple(trial.params.values()) for trial in study.trials}
    assert len(points) == len(study.trials)


def test_what_an_enqueued_trial_was_given_is_kept_in_mind():
    """The best y is at x; with x given, the proposal follows it."""
    study = search.create_study(sampler=search.GPSampler(seed=0))

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        return (trial.suggest_float("y", 0, 1) - x) ** 2

    study.optimize(objective, n_trials=14)
    study.enqueue_trial({"x": 0.9})
    study.optimize(objective, n_trials=1)
    assert study.trials[14].params["x"] == 0.9
    assert abs(study.trials[14].params["y"] - 0.9) < 0.1
