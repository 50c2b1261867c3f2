"""Samplers and pruners at the edges: infinite, huge, missing and equal values; each failed once."""

import math

import numpy as np
import pytest

import nestor
from nestor import search
from nestor.search import TrialState, _gp, _process
from nestor.search._curves import curves_of

LEARNING = [search.TPESampler, search.GPSampler]


def bowl(x):
    return (x - 0.3) ** 2


@pytest.mark.parametrize(
    "value",
    [
        lambda x: 1e300 if x > 0.5 else x,
        lambda x: 1.7e308 * (2 * x - 1),
        lambda x: 1e-310 * x,
        lambda x: math.inf if x > 0.5 else x,
    ],
)
def test_values_of_any_size(value):
    study = search.create_study(sampler=search.GPSampler(seed=0))
    study.optimize(lambda trial: value(trial.suggest_float("x", 0, 1)), n_trials=14)
    assert len(study.trials) == 14


def test_what_diverged_leaves_room_for_the_rest():
    """A third of the space is 1e30; the best of the rest is found as if it were not."""

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return 1e30 * (1 + x) if x > 0.7 else 1 + bowl(x) + bowl(y)

    study = search.create_study(sampler=search.GPSampler(seed=7))
    study.optimize(objective, n_trials=26)
    assert study.best_value < 1 + 1e-3


def test_the_bend_is_smooth_and_its_derivative_its_own():
    y = np.array([-1.0, 0.5, 1.5, math.exp(_gp._FAR - 1) * 0.999, math.exp(_gp._FAR - 1) * 1.001, 1e20])
    bent, slopes, log_slope = _gp.bent_above(y, np.ones((6, 1)))
    step = 1e-6 * np.maximum(np.abs(y), 1)
    rises = (_gp.bent_above(y + step, slopes)[0] - _gp.bent_above(y - step, slopes)[0]) / (2 * step)
    np.testing.assert_allclose(slopes[:, 0], rises, rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_slope), slopes[:, 0])
    assert (np.diff(bent) > 0).all()


@pytest.mark.parametrize("told", [lambda number: number % 2 == 0, lambda number: number < 4])
def test_the_best_trial_need_not_have_a_gradient(told):
    study = search.create_study(sampler=search.GPSampler(seed=0))
    for _ in range(9):
        trial = study.ask()
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        slopes = {"x": 2 * (x - 0.3), "y": 2 * (y - 0.3)}
        study.tell(trial, bowl(x) + bowl(y), gradient=slopes if told(trial.number) else None)
    assert study.best_value < 0.05


def test_an_array_without_entries():
    study = search.create_study(sampler=search.GPSampler(seed=0))
    study.optimize(lambda trial: float(trial.suggest_array("none", 0, 0, 1).sum()), n_trials=12)
    assert len(study.trials) == 12


@pytest.mark.parametrize("width", [30, 100])
def test_a_batch_takes_a_step_of_a_descent_once(width):
    study = search.create_study(sampler=search.GPSampler(seed=0))
    for _ in range(3):
        trials = study.ask(5)
        arrays = [trial.suggest_array("w", width, -1, 1) for trial in trials]
        for trial, w in zip(trials, arrays, strict=True):
            study.tell(trial, float((w**2).sum()), gradient={"w": 2 * w})
        assert len({w.tobytes() for w in arrays}) == 5


def test_in_order_a_step_of_a_descent_is_taken_once():
    def objective(trial):
        w = trial.suggest_array("w", 100, -1, 1)
        trial.set_gradient({"w": 2 * w})
        return float((w**2).sum())

    study = search.create_study(sampler=search.GPSampler(seed=0))
    study.optimize(objective, 12, ordered=3)
    assert len({trial.params["w"].tobytes() for trial in study.trials}) == 12


def test_running_trials_at_one_point_can_be_believed():
    x = np.linspace(0, 1, 6)[:, None]
    data = _process.Data(x, x[:, 0] ** 2, 2 * x, np.array([0]))
    process = _process.settled(data, np.array([3.0]), 1e-10, _process.gauss)
    believing = _gp._believing(process, np.full((40, 1), 0.5))
    assert believing.mean_and_deviation(np.array([[0.5]]))[0][0] == pytest.approx(0.25, abs=1e-2)


def reporting(values):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        for step, value in enumerate(values(x)):
            trial.report(value, step)
            if trial.should_prune():
                raise search.TrialPruned("no good")
        return x

    return objective


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "pruner", [search.MedianPruner(n_startup_trials=2), search.ThresholdPruner(lower=-1, upper=1)]
)
def test_reports_that_are_no_finite_numbers(pruner, value):
    study = search.create_study(sampler=search.GPSampler(seed=0), pruner=pruner)
    study.optimize(reporting(lambda x: [value, value]), n_trials=13)
    assert len(study.trials) == 13


def test_curves_know_slopes_and_where_they_end():
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    for pruned in (False, True):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 2)
        for step in (1, 9):
            trial.report(10.0 - step, step)
        state = {"state": TrialState.PRUNED} if pruned else {"gradient": {"x": 3.0}}
        study.tell(trial, None if pruned else 0.5 * x, **state)
    history = study._history(None)
    x, y, slopes = curves_of(history, np.array([0, 1]), np.full((2, 1), 0.5), np.array([[6.0], [math.nan]]))
    assert x[:, 1].max() == 1.0
    assert np.isfinite(slopes).sum() == 1
    assert slopes[np.isfinite(slopes)] == [6.0]
    assert y[np.isfinite(slopes[:, 0])] == [0.5 * study.trials[0].params["x"]]


def test_reports_at_step_zero_alone_are_at_the_end():
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    study.optimize(reporting(lambda x: [x]), n_trials=3)
    nothing = np.full((3, 1), math.nan)
    x, _, _ = curves_of(study._history(None), np.arange(3), np.zeros((3, 1)), nothing)
    assert x[:, 1].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("make", LEARNING)
def test_infinite_values_of_several_objectives(make):
    study = search.create_study(directions=["minimize"] * 2, sampler=make(seed=0))

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        return x, math.inf if x > 0.4 else -math.inf if x > 0.3 else 1 - x

    study.optimize(objective, n_trials=24)
    assert len(study.trials) == 24


def test_failures_make_it_careful_and_it_forgets():
    caution = _gp.caution_of
    assert caution(np.zeros(0, bool)) == caution(np.zeros(9, bool)) == 0.0
    once = np.array([False, True] + [False] * 10)
    assert caution(once[:2]) == pytest.approx(1 - _gp._TARGET)
    assert caution(once) == pytest.approx(1 - 11 * _gp._TARGET)
    assert caution(np.append(once, [False] * 40)) == 0.0


@pytest.mark.slow
def test_of_the_last_half_few_fail_whatever_the_seed():
    """The space that fails is a corner cut off by a curve; the best lies not far from it."""

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if (x - 1) ** 2 + (y - 1) ** 2 < 0.38:
            raise MemoryError("too large")
        return (x - 0.4) ** 2 + (y - 0.55) ** 2

    for seed in range(6):
        study = search.create_study(sampler=search.PortfolioSampler(seed=seed))
        study.optimize(objective, n_trials=100, catch=MemoryError)
        assert sum(trial.state == TrialState.FAILED for trial in study.trials[50:]) <= 3
        assert study.best_value < 1e-4


# --- pruners ------------------------------------------------------------------------------------


def test_an_interval_has_one_look_wherever_reports_begin():
    study = search.create_study(pruner=search.MedianPruner(n_startup_trials=1, interval_steps=10))
    for value in (1.0, 2.0):
        trial = study.ask()
        verdicts = []
        for step in (1, 5, 11, 12):
            trial.report(value, step)
            verdicts.append(trial.should_prune())
        study.tell(trial, value)
    assert verdicts == [True, False, True, False]


def test_patience_with_what_is_no_number():
    study = search.create_study(pruner=search.PatientPruner(None, 1))
    trial = study.ask()
    for step, value in enumerate([1.0, math.nan, math.nan]):
        trial.report(value, step)
    assert trial.should_prune()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: search.HyperbandPruner(1, 27, 1), "reduction_factor"),
        (lambda: search.ThresholdPruner(2.0, 1.0), "lower, upper"),
        (lambda: search.SuccessiveHalvingPruner(math.nan), "min_resource"),
        (lambda: search.PercentilePruner(50.0, interval_steps=0), "interval_steps"),
        (lambda: search.MedianPruner(n_startup_trials=-1), "n_startup_trials"),
        (lambda: search.PatientPruner(None, 1.5), "patience"),
    ],
)
def test_pruners_that_make_no_sense_are_refused(make, name):
    with pytest.raises(nestor.BadArgument, match=name):
        make()


def test_a_population_goes_on_when_its_best_member_has_failed():
    """It reports the best value, and dies: the others had waited for a copy of it for ever."""

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        for step in range((trial.restored or 0) + 1, 7):
            trial.checkpoint(step)
            trial.report(-1.0 if trial.number == 0 else x, step)
            if trial.number == 0 and step == 2:
                raise MemoryError("the best one")
            if trial.should_prune():
                raise search.TrialPruned("waits")
        return x

    scheduler = search.PopulationBasedTraining(population=4, interval=2, seed=0)
    study = search.create_study(sampler=search.RandomSampler(seed=0), pruner=scheduler)
    study.optimize(objective, catch=MemoryError)
    forks = [trial for trial in study.trials if "forked_from" in trial.user_attrs]
    assert forks
    assert all(trial.user_attrs["forked_from"][0] != 0 for trial in forks)
    assert not any(trial.state == TrialState.PAUSED for trial in study.trials)


def test_a_small_population_replaces_one():
    assert search.PopulationBasedTraining(population=2)._count(2) == 1


# --- places and slopes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "domain",
    [search.Float(-2.0, 5.0), search.Float(1e-4, 10.0, log=True), search.Float(1e-300, 1e300, log=True)],
)
def test_the_derivative_of_a_value_by_its_place(domain):
    place, step = 0.45, 1e-6
    rise = (domain.from_unit(place + step) - domain.from_unit(place - step)) / (2 * step)
    assert domain.rise(domain.from_unit(place)) == pytest.approx(rise, rel=1e-4)
    array = search.Array((2,), domain.low, domain.high, domain.log)
    values = array.from_unit(np.array([place, place]))
    np.testing.assert_allclose(np.broadcast_to(array.rise(values), (2,)), rise, rtol=1e-4)


def test_a_grid_has_the_values_that_it_was_given():
    grid = {"x": [0.1 * k for k in range(1, 8)], "rate": [1e-3, 3e-4], "w": [[0.1, 0.7]], "kind": [None, 2]}
    study = search.create_study(sampler=search.GridSampler(grid))

    def objective(trial):
        trial.suggest_categorical("kind", [2, None])
        w = trial.suggest_array("w", 2, 0, 3)
        return trial.suggest_float("x", 0, 10) + trial.suggest_float("rate", 1e-5, 1, log=True) + w.sum()

    study.optimize(objective)
    found = {(trial.params["x"], trial.params["rate"], trial.params["kind"]) for trial in study.trials}
    assert found == {(x, rate, kind) for x in grid["x"] for rate in grid["rate"] for kind in grid["kind"]}
    assert all(trial.params["w"].tolist() == [0.1, 0.7] for trial in study.trials)


def test_a_step_that_failed_is_not_taken_again():
    """The slopes lead into where trials fail: the same step was proposed for ever."""
    study = search.create_study(sampler=search.GPSampler(seed=0))

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if x > 0.6:
            raise MemoryError("too large")
        trial.set_gradient({"x": -1.0})
        return -x

    study.optimize(objective, n_trials=16, catch=MemoryError)
    points = [trial.params["x"] for trial in study.trials]
    assert len(set(points)) == len(points)
    assert study.best_value < -0.5
