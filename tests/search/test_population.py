"""Population based training, against the toy problem of its paper and against itself resumed and shared."""

import pytest

import nestor
from nestor import search
from nestor.search import TrialState
from tests.search.objectives import climbs
from tests.search.test_study import same


def run(storage=None, n_workers=1, objective=climbs):
    scheduler = search.PopulationBasedTraining(population=6, interval=4, seed=1, resample=0.0)
    sampler = search.RandomSampler(seed=3)
    study = search.create_study(
        storage=storage,
        study_name="s",
        direction="maximize",
        sampler=sampler,
        pruner=scheduler,
        load_if_exists=True,
    )
    study.optimize(objective, n_workers=n_workers)
    return study


def test_the_worst_are_replaced_by_copies_of_the_best():
    study = run()
    trials = study.trials
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) == 6
    forks = [trial for trial in trials if "forked_from" in trial.user_attrs]
    assert forks
    assert len(trials) == 6 + len(forks)
    assert sum(trial.state == TrialState.PRUNED for trial in trials) == len(forks)
    for trial in forks:
        parent, step = trial.user_attrs["forked_from"]
        assert min(trial.reports, default=28) == step + 4
        losses = {n: t.reports[step] for n, t in enumerate(trials) if step in t.reports}
        assert sum(value > losses[parent] for value in losses.values()) < 0.25 * len(losses)
        assert max(abs(trial.params[name] - trials[parent].params[name]) for name in ("a", "b")) > 0
    alone = max(trial.value for trial in trials if "forked_from" not in trial.user_attrs and trial.value)
    assert study.best_value >= alone


def test_interrupted_and_resumed_it_is_the_same(tmp_path):
    whole, count = run(), 0

    def interrupted(trial):
        nonlocal count
        count += 1
        if count == 11:
            raise KeyboardInterrupt
        return climbs(trial)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s.db", objective=interrupted)
    again = run(tmp_path / "s.db")
    keys = [(trial.params, trial.reports, trial.user_attrs, trial.state) for trial in whole.trials]
    assert keys == [(trial.params, trial.reports, trial.user_attrs, trial.state) for trial in again.trials]


@pytest.mark.slow
def test_with_two_workers_it_is_the_same(tmp_path):
    alone, two = run(), run(tmp_path / "s.db", n_workers=2)
    keys = [sorted((str(t.params), str(t.reports)) for t in study.trials) for study in (alone, two)]
    assert keys[0] == keys[1]
    assert not same(alone.trials, [], times=False)


@pytest.mark.parametrize(
    "wrong", [{"population": 1}, {"interval": 0}, {"share": 0.6}, {"spread": 0.0}, {"resample": 2.0}]
)
def test_arguments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(nestor.BadArgument, match=next(iter(wrong))):
        search.PopulationBasedTraining(**wrong)
