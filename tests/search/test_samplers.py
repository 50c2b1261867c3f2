"""Samplers: what they cover, that they learn, and that they are functions of seed, number and history."""

import numpy as np
import pytest
from scipy import stats

import nestor
from nestor import search
from tests.search.objectives import bowl
from tests.search.test_study import same

SAMPLERS = [search.RandomSampler, search.QuasiRandomSampler, search.TPESampler, search.PortfolioSampler]


@pytest.mark.parametrize("make", SAMPLERS)
def test_the_same_seed_gives_the_same_study(make):
    studies = [search.create_study(sampler=make(seed=seed)) for seed in (1, 1, 2)]
    for study in studies:
        study.optimize(bowl, n_trials=20)
    assert same(studies[0].trials, studies[1].trials, times=False)
    assert not same(studies[0].trials, studies[2].trials, times=False)


@pytest.mark.parametrize("make", SAMPLERS)
def test_every_kind_of_domain_stays_within_itself(make):
    study = search.create_study(sampler=make(seed=0))
    domains = {
        "float": search.Float(-1, 2),
        "log": search.Float(1e-6, 1e3, log=True),
        "step": search.Float(0, 1, step=0.3),
        "int": search.Int(-5, 5),
        "logint": search.Int(1, 100, log=True),
        "fixed": search.Int(3, 3),
        "kind": search.Categorical(("a", None, 2)),
        "array": search.Array((3, 2), -1.0, 1.0),
    }
    for _ in range(25):
        trial = study.ask(space=domains)
        for name, domain in domains.items():
            assert domain.contains(trial.params[name])
        study.tell(trial, float(trial.params["float"] + trial.params["array"].sum()))


def test_random_numbers_are_uniform_and_independent():
    study = search.create_study(sampler=search.RandomSampler(seed=3))
    trials = study.ask(2000, space={"x": search.Float(0, 1), "y": search.Float(0, 1)})
    x, y = (np.array([trial.params[name] for trial in trials]) for name in "xy")
    assert stats.kstest(x, "uniform").pvalue > 1e-3
    assert stats.kstest(y, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.1
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 0.1


def test_a_sobol_sequence_fills_every_cell():
    study = search.create_study(sampler=search.QuasiRandomSampler(seed=0))
    trials = study.ask(256, space={"x": search.Float(0, 1), "y": search.Float(0, 1)})
    cells = {(int(trial.params["x"] * 16), int(trial.params["y"] * 16)) for trial in trials}
    assert len(cells) == 256


def test_a_grid_is_walked_once():
    grid = {"n": [1, 2, 3], "kind": ["a", "b"]}
    study = search.create_study(sampler=search.GridSampler(grid, seed=1))
    study.optimize(
        lambda trial: trial.suggest_int("n", 1, 3) + len(trial.suggest_categorical("kind", ["a", "b"]))
    )
    assert len({tuple(trial.params.values()) for trial in study.trials}) == len(study.trials) == 6
    with pytest.raises(nestor.BadArgument, match="complete"):
        search.create_study(sampler=search.GridSampler(grid)).ask().suggest_int("other", 0, 1)


def test_the_default_is_the_portfolio():
    assert isinstance(search.create_study().sampler, search.PortfolioSampler)
    with pytest.raises(nestor.BadArgument, match="seed"):
        search.PortfolioSampler(seed=-1)


def test_the_portfolio_finds_the_best_branch():
    def objective(trial):
        if trial.suggest_categorical("kind", ["flat", "steep"]) == "flat":
            return 0.1 + 0.1 * abs(trial.suggest_float("x", 0, 1) - 0.5)
        return abs(trial.suggest_float("y", -1, 1) - 0.3) + 0.1 * abs(trial.suggest_int("n", 1, 9) - 7)

    study = search.create_study(sampler=search.PortfolioSampler(seed=0))
    study.optimize(objective, n_trials=40)
    assert study.best_value < 0.02


def test_the_portfolio_learns_from_failures():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if x > 0.7:
            raise MemoryError("too large")
        return (x - 0.65) ** 2 + (y - 0.5) ** 2

    study = search.create_study(sampler=search.PortfolioSampler(seed=0))
    study.optimize(objective, n_trials=40, catch=MemoryError)
    assert sum(trial.state == search.TrialState.FAILED for trial in study.trials[20:]) <= 4
    assert study.best_value < 1e-3


def test_the_portfolio_knows_what_a_step_is_worth():
    """Trials that pause early tell of the end: most later ones begin near the best parameter."""

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        for epoch in range((trial.restored or 0) + 1, 28):
            if epoch in (1, 3, 9, 27):
                trial.checkpoint(epoch)
                trial.report((x - 0.6) ** 2 + 1.0 / epoch, epoch)
                if trial.should_prune():
                    raise search.TrialPruned("others are better")
        return (x - 0.6) ** 2 + 1.0 / 27

    pruner = search.SuccessiveHalvingPruner(1, 3, promote=True)
    study = search.create_study(sampler=search.PortfolioSampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=24)
    assert np.median([abs(trial.params["x"] - 0.6) for trial in study.trials[12:]]) < 0.1
    assert study.best_value < 1.0 / 27 + 1e-3


@pytest.mark.slow
def test_after_many_trials_tpe_makes_most_and_wide_spaces_follow_gradients():
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=320)
    study.sampler = search.PortfolioSampler(seed=0)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=8)
    wide = search.create_study(sampler=search.PortfolioSampler(seed=0))
    for _ in range(40):
        trial = wide.ask()
        w = trial.suggest_array("w", 100, -1, 1)
        scale = np.linspace(1, 30, 100)
        wide.tell(trial, float((scale * (w - 0.2) ** 2).sum()), gradient={"w": 2 * scale * (w - 0.2)})
    assert wide.best_value < 1e-3


def median_best(sampler, objective, trials, seeds):
    best = []
    for seed in range(seeds):
        study = search.create_study(sampler=sampler(seed=seed))
        study.optimize(objective, n_trials=trials)
        best.append(study.best_value)
    return float(np.median(best))


def test_tpe_learns():
    def objective(trial):
        kind = trial.suggest_categorical("kind", ["near", "far"])
        if kind == "far":
            return 1.0 + trial.suggest_float("z", 0, 1)
        return sum((trial.suggest_float(name, -1, 1) - 0.3) ** 2 for name in "abc")

    learned = median_best(search.TPESampler, objective, 60, 5)
    assert learned < 0.5 * median_best(search.RandomSampler, objective, 60, 5)


def test_tpe_learns_from_failures():
    """30 % of the space runs out of memory: of the last 50 of 100 trials at most 5 % do, in the middle of seeds."""

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if x > 0.7:
            raise MemoryError("too large")
        return (x - 0.65) ** 2 + (y - 0.5) ** 2

    failed = []
    for seed in range(5):
        study = search.create_study(sampler=search.TPESampler(seed=seed))
        study.optimize(objective, n_trials=100, catch=MemoryError)
        failed.append(sum(trial.state == search.TrialState.FAILED for trial in study.trials[50:]))
    assert np.median(failed) <= 2.5, failed


def test_tpe_keeps_constraints():
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraints([x - 0.4])
        return -x

    study = search.create_study(sampler=search.TPESampler(seed=0))
    study.optimize(objective, n_trials=60)
    assert 0.3 < study.best_params["x"] <= 0.4
    late = [trial for trial in study.trials[30:] if trial.constraints[0] <= 0]
    assert len(late) >= 15


def test_tpe_finds_a_front():
    study = search.create_study(directions=["minimize", "minimize"], sampler=search.TPESampler(seed=0))

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return x + y**2, 1 - x + y**2

    study.optimize(objective, n_trials=80)
    late = np.array([trial.params["y"] for trial in study.trials[40:]])
    assert np.median(late) < 0.3
    assert len(study.best_trials) > 5


def test_a_batch_does_not_repeat_itself():
    """The constant liar: trials that are under way repel those that are asked for with them."""
    study = search.create_study(sampler=search.TPESampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=30)
    xs = sorted(trial.suggest_float("x", 0, 1) for trial in study.ask(8))
    assert max(xs) - min(xs) > 0.1
    assert len(set(xs)) == 8
