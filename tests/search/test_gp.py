"""The Gaussian process against finite differences, and what its sampler finds with and without gradients."""

import math

import numpy as np
import pytest

from nestor import search
from nestor.search import _gp
from tests.search.objectives import bowl
from tests.search.test_study import same


def kernel(p, q, scales):
    squares = (((p - q) / scales) ** 2).sum()
    return _gp._matern(np.array([[squares]]))[0][0, 0]


def test_the_covariance_of_slopes_is_that_of_differences():
    random, d, h = np.random.default_rng(0), 3, 1e-4
    a, b, scales = random.random((4, d)), random.random((5, d)), np.array([0.4, 0.7, 1.2])
    ours = _gp._covariance(a, a[:2], b, b[:3], scales)
    shifts = h * np.eye(d)

    def at(p, i, q, j):
        ps = [(p, 1.0)] if i is None else [(p + shifts[i], 0.5 / h), (p - shifts[i], -0.5 / h)]
        qs = [(q, 1.0)] if j is None else [(q + shifts[j], 0.5 / h), (q - shifts[j], -0.5 / h)]
        return sum(v * w * kernel(x, y, scales) for x, v in ps for y, w in qs)

    rows = [(p, None) for p in a] + [(p, i) for p in a[:2] for i in range(d)]
    columns = [(q, None) for q in b] + [(q, j) for q in b[:3] for j in range(d)]
    theirs = np.array([[at(p, i, q, j) for q, j in columns] for p, i in rows])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_likelihood_and_its_derivative():
    x = np.random.default_rng(0).random((15, 3))
    y = np.sin(x @ np.array([3.0, 2.0, 1.0]))
    nothing = np.full_like(x, np.nan)
    settings = np.log(np.array([0.4, 0.7, 1.2, 1e-3]))
    value, slope = _gp._fast_loss(settings, x, y, nothing)
    assert value == pytest.approx(_gp._slow_loss(settings, x, y, nothing))
    steps = 1e-6 * np.eye(4)
    rises = [
        _gp._fast_loss(settings + s, x, y, nothing)[0] - _gp._fast_loss(settings - s, x, y, nothing)[0]
        for s in steps
    ]
    np.testing.assert_allclose(slope, np.array(rises) / 2e-6, rtol=1e-4)


def test_the_posterior_goes_through_values_and_slopes():
    x = np.array([[0.2], [0.7]])
    process = _gp._Process(x, np.sin(3 * x[:, 0]), 3 * np.cos(3 * x), np.array([0.5]), 1e-10)
    mean, deviation = process.mean_and_deviation(np.array([[0.2], [0.2001], [0.7], [0.45]]))
    np.testing.assert_allclose(mean[[0, 2]], np.sin(3 * x[:, 0]), atol=1e-6)
    assert (mean[1] - mean[0]) / 1e-4 == pytest.approx(3 * math.cos(0.6), abs=1e-2)
    assert mean[3] == pytest.approx(math.sin(1.35), abs=0.05)
    assert deviation[3] > deviation[0]


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
