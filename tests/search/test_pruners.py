"""Pruners, each against what it says by hand."""

import math

import numpy as np
import pytest

import nestor
from nestor import search
from nestor.search import TrialState
from nestor.search._pruners import dominated_shares


def study_with_curves(pruner, curves, direction="minimize"):
    study = search.create_study(pruner=pruner, direction=direction)
    for curve in curves:
        trial = study.ask()
        for step, value in enumerate(curve):
            trial.report(value, step)
        study.tell(trial, curve[-1])
    return study


@pytest.mark.parametrize(("value", "pruned"), [(2.9, False), (3.1, True)])
def test_median(value, pruned):
    study = study_with_curves(search.MedianPruner(), [[k, k] for k in (1.0, 2.0, 3.0, 4.0, 5.0)])
    trial = study.ask()
    trial.report(value, 1)
    assert trial.should_prune() is pruned


@pytest.mark.parametrize(("value", "pruned"), [(4.1, False), (3.9, True)])
def test_percentile_of_what_is_maximized(value, pruned):
    curves = [[k] for k in (1.0, 2.0, 3.0, 4.0, 5.0)]
    study = study_with_curves(search.PercentilePruner(25.0), curves, "maximize")
    trial = study.ask()
    trial.report(value, 0)
    assert trial.should_prune() is pruned


def test_nothing_is_pruned_before_there_is_something_to_compare_with():
    study = study_with_curves(search.MedianPruner(n_startup_trials=3, n_warmup_steps=2), [[1.0] * 4] * 2)
    for expected in (False, True):
        trial = study.ask()
        trial.report(9.0, 1)
        assert not trial.should_prune()
        trial.report(9.0, 2)
        assert trial.should_prune() is expected
        for step in range(4):
            trial.report(1.0, step)
        study.tell(trial, 1.0)


def test_threshold_also_stops_what_is_no_number():
    study = study_with_curves(search.ThresholdPruner(lower=0.0), [])
    trial = study.ask()
    trial.report(0.5, 0)
    assert not trial.should_prune()
    trial.report(float("nan"), 1)
    assert trial.should_prune()


def test_patience():
    study = study_with_curves(search.PatientPruner(None, 2), [])
    trial = study.ask()
    verdicts = []
    for step, value in enumerate([5.0, 4.0, 4.5, 4.4, 4.3]):
        trial.report(value, step)
        verdicts.append(trial.should_prune())
    assert verdicts == [False, False, False, False, True]


def learning_curve(trial):
    """Nine epochs; the checkpoint is the next epoch."""
    x = trial.suggest_float("x", 0, 1)
    for epoch in range(trial.restored or 0, 9):
        trial.checkpoint(epoch + 1)
        trial.report(x + 1.0 / (epoch + 1), epoch + 1)
        if trial.should_prune():
            raise search.TrialPruned("others are better")
    return x


@pytest.mark.parametrize("promote", [False, True])
def test_successive_halving(promote):
    pruner = search.SuccessiveHalvingPruner(1, 3, promote=promote)
    study = search.create_study(sampler=search.RandomSampler(seed=0), pruner=pruner)
    study.optimize(learning_curve, n_trials=60)
    epochs = [max(trial.reports) for trial in study.trials]
    assert set(epochs) <= {1, 3, 9}
    assert epochs.count(1) > epochs.count(3) > 0
    assert epochs.count(9) > 0
    left = TrialState.PAUSED if promote else TrialState.PRUNED
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, left}
    best = min(study.trials, key=lambda trial: trial.params["x"])
    if promote:  # whatever came early, the best gets through in the end
        assert best.state == TrialState.COMPLETE
        assert any(trial.attempt > 1 for trial in study.trials)
        assert all(list(trial.reports) == sorted(set(trial.reports)) for trial in study.trials)


@pytest.mark.parametrize("promote", [False, True])
def test_hyperband(promote):
    pruner = search.HyperbandPruner(1, 9, 3, promote=promote)
    shares = np.bincount([pruner.bracket(number) for number in range(3000)]) / 3000
    assert shares == pytest.approx([9 / 17, 5 / 17, 3 / 17], abs=0.04)
    study = search.create_study(sampler=search.RandomSampler(seed=0), pruner=pruner)
    study.optimize(learning_curve, n_trials=60)
    first = {trial.number: max(trial.reports) for trial in study.trials}
    for number, epochs in first.items():
        assert epochs >= 3 ** pruner.bracket(number)
    assert 0 < sum(epochs == 9 for epochs in first.values()) < 50


def test_reports_need_steps():
    with pytest.raises(nestor.BadArgument, match="step"):
        search.create_study().ask().report(1.0, -1)


def test_reports_of_several_objectives_need_one_value_each():
    study = search.create_study(directions=["minimize", "maximize"])
    with pytest.raises(nestor.BadArgument, match="one an objective"):
        study.ask().report([1.0, 2.0, 3.0], 0)


def test_dominated_shares():
    shares = dominated_shares(
        [(1.0, 5.0), (2.0, 4.0), (0.5, 6.0), (2.0, 6.0), (math.nan, 1.0), 3.0], np.array([1.0, -1.0])
    )
    np.testing.assert_array_equal(shares, [1 / 6, 4 / 6 - 1 / 6, 0.0, 1 / 6, math.nan, math.nan])


def several(pruner, curves):
    """A study of two objectives, to be small and to be large, with curves of pairs."""
    study = search.create_study(pruner=pruner, directions=["minimize", "maximize"])
    for curve in curves:
        trial = study.ask()
        for step, pair in enumerate(curve):
            trial.report(pair, step)
        study.tell(trial, curve[-1])
    return study


@pytest.mark.parametrize(("pair", "pruned"), [((0.5, 1.0), False), ((2.0, 3.5), False), ((4.5, 1.5), True)])
def test_the_median_of_several_objectives(pair, pruned):
    """What no trial beats in both is kept, whatever its first objective."""
    study = several(search.MedianPruner(), [[(k, 6.0 - k)] for k in (1.0, 2.0, 3.0, 4.0, 5.0)])
    trial = study.ask()
    trial.report(pair, 0)
    assert trial.should_prune() is pruned


def test_patience_and_thresholds_of_several_objectives():
    trial = several(search.PatientPruner(None, 0), []).ask()
    for step, (pair, pruned) in enumerate([((3.0, 1.0), False), ((4.0, 2.0), False), ((5.0, 1.5), True)]):
        trial.report(pair, step)
        assert trial.should_prune() is pruned
    trial = several(search.ThresholdPruner(upper=2.0), []).ask()
    trial.report((1.0, 3.0), 0)
    assert trial.should_prune()


def test_successive_halving_of_several_objectives_in_a_file(tmp_path):
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        for epoch in range((trial.restored or 0) + 1, 10):
            trial.checkpoint(epoch)
            trial.report((x + y, 1 - x + y), epoch)
            if trial.should_prune():
                raise search.TrialPruned("others are better")
        return x + y, 1 - x + y

    pruner = search.SuccessiveHalvingPruner(1, 3, promote=True)
    study = search.create_study(
        storage=tmp_path / "s.db",
        directions=["minimize"] * 2,
        sampler=search.RandomSampler(seed=0),
        pruner=pruner,
    )
    study.optimize(objective, n_trials=40)
    through = [trial.params["y"] for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert 0 < len(through) < 20
    assert np.median(through) < np.median([trial.params["y"] for trial in study.trials])
    study.export(tmp_path / "s.jsonl")
    again = search.import_study(tmp_path / "s.jsonl")
    assert list(again.lines())[1:] == list(study.lines())[1:]
    assert again.trials[0].reports[1] == sum(again.trials[0].params.values())
