"""Lists of trials: the objective sees all of them at once, and each ends as it deserves."""

import pytest

from nestor import search
from nestor.errors import BadArgument


def test_the_objective_is_called_once_for_a_batch(storage):
    sizes = []

    def objective(trials):
        sizes.append(len(trials))
        return [trial.suggest_float("x", 0, 1) for trial in trials]

    study = search.create_study(storage=storage, sampler=search.RandomSampler(seed=0))
    study.optimize(objective, n_trials=10, batch=4)
    assert sizes == [4, 4, 2]
    assert [t.value for t in study.trials] == [t.params["x"] for t in study.trials]
    alone = search.create_study(sampler=search.RandomSampler(seed=0))
    alone.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=10)
    assert [t.params for t in alone.trials] == [t.params for t in study.trials]


def test_each_trial_of_a_batch_ends_for_itself():
    def objective(trials):
        return [1.0, float("nan"), MemoryError("too wide"), search.TrialPruned("enough")]

    study = search.create_study()
    study.optimize(objective, n_trials=4, batch=4)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAILED", "FAILED", "PRUNED"]
    assert study.trials[2].error == "MemoryError: too wide"


def test_a_batch_that_raises_has_failed_and_one_that_is_interrupted_waits(storage):
    def failing(trials):
        raise MemoryError("too many")

    study = search.create_study(storage=storage)
    study.optimize(failing, n_trials=3, batch=3, catch=MemoryError)
    with pytest.raises(MemoryError):
        study.optimize(failing, n_trials=3, batch=3)
    assert {t.state.name for t in study.trials} == {"FAILED"}

    def interrupted(trials):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.optimize(interrupted, n_trials=2, batch=2)
    assert [t.state.name for t in study.trials[6:]] == ["WAITING"] * 2
    study.optimize(lambda trials: [0.0] * len(trials), n_trials=2, batch=2)
    assert len(study.trials) == 8


def test_the_points_of_a_grid_end_a_batch_too():
    study = search.create_study(sampler=search.GridSampler({"x": [0.0, 0.5, 1.0]}))
    study.optimize(lambda trials: [t.suggest_float("x", 0, 1) for t in trials], batch=2)
    assert [t.value for t in study.trials] == [0.0, 0.5, 1.0]


def test_what_a_batch_cannot_be():
    study = search.create_study()
    for wrong in ({"batch": 0}, {"batch": 2, "n_workers": 2}, {"batch": 2, "ordered": 1}):
        with pytest.raises(BadArgument, match="batch"):
            study.optimize(lambda trials: [], n_trials=2, **wrong)
    with pytest.raises(BadArgument, match="one a trial"):
        study.optimize(lambda trials: [1.0], n_trials=2, batch=2)


def test_a_trial_tells_its_gradient_and_where_it_has_moved(storage):
    def objective(trial):
        x, w = trial.suggest_float("x", 0, 1, log=False), trial.suggest_array("w", 2, 0.0, 1.0)
        trial.revise({"x": 0.25, "w": [0.5, 1.0]})
        trial.set_gradient({"x": 2.0, "w": [1.0, 3.0]})
        assert x != 0.25
        assert w is not None
        return 1.5

    study = search.create_study(storage=storage)
    study.optimize(objective, n_trials=1)
    trial = study.trials[0]
    assert trial.params["x"] == 0.25
    assert trial.params["w"].tolist() == [0.5, 1.0]
    assert trial.gradient == {"x": 2.0, "w": [1.0, 3.0]}
    with pytest.raises(BadArgument, match="in Float"):
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1) and trial.revise({"x": 2.0}), n_trials=1)
    with pytest.raises(BadArgument, match="suggest it first"):
        study.optimize(lambda trial: trial.set_gradient({"y": 1.0}), n_trials=1)
