"""CMA-ES through the package cmaes, and the word on how to get it."""

import sys

import numpy as np
import pytest

import nestor
from nestor import search
from tests.search.objectives import bowl
from tests.search.test_study import same


def valley(trial):
    x, y = trial.suggest_float("x", -2, 2), trial.suggest_float("y", -2, 2)
    return (x - 0.7) ** 2 + 50 * (y - x) ** 2


def test_it_goes_down_a_valley_and_is_resumed():
    pytest.importorskip("cmaes")
    study = search.create_study(sampler=search.CMASampler(seed=0))
    study.optimize(valley, n_trials=150)
    assert study.best_value < 1e-2
    resumed = search.create_study(sampler=search.CMASampler(seed=0))
    resumed.add_trials(study.trials[:77])
    resumed.optimize(valley, n_trials=20)
    assert [trial.params for trial in resumed.trials[77:]] == [trial.params for trial in study.trials[77:97]]


def test_branches_are_left_to_tpe_and_the_rest_stays_within_itself():
    pytest.importorskip("cmaes")
    studies = [search.create_study(sampler=search.CMASampler(seed=0, population=5)) for _ in range(2)]
    for study in studies:
        study.optimize(bowl, n_trials=30)
    assert same(studies[0].trials, studies[1].trials, times=False)
    one = search.create_study(sampler=search.CMASampler(seed=0))
    one.optimize(lambda trial: float((trial.suggest_array("w", 3, -1, 1) ** 2).sum()), n_trials=80)
    assert one.best_value < 0.02
    assert np.ptp([trial.params["w"][0] for trial in one.trials]) <= 2


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(nestor.MissingExtra, match=r"nestor\[cmaes\]"):
        search.create_study(sampler=search.CMASampler()).ask().suggest_float("x", 0, 1)


@pytest.mark.parametrize("wrong", [{"population": 2}, {"spread": 0.0}])
def test_arguments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(nestor.BadArgument, match=next(iter(wrong))):
        search.CMASampler(**wrong)
