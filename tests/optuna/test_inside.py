"""Ours inside Optuna's studies and its own inside ours do what they do at home."""

import importlib
import math
import pickle
import subprocess
import sys
import types
import warnings

import pytest

import nestor.optuna
from nestor import search
from nestor.errors import BadArgument

optuna = pytest.importorskip("optuna")

optuna.logging.set_verbosity(optuna.logging.ERROR)


def conditional(trial):
    """Both libraries' trials understand it."""
    kind = trial.suggest_categorical("kind", ["tree", "linear", "net"])
    if kind == "tree":
        return trial.suggest_int("depth", 1, 10) / 10
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    if kind == "linear":
        return abs(math.log10(rate) + 2)
    return abs(math.log10(rate) + 3) + trial.suggest_float("dropout", 0.0, 0.9, step=0.1)


def smooth(trial):
    return (trial.suggest_float("x", -1, 1) - 0.3) ** 2 + trial.suggest_float("y", -1, 1) ** 2


def records(study):
    return [(trial.params, trial.values and list(trial.values)) for trial in study.trials]


OURS = {
    "random": lambda: search.RandomSampler(seed=3),
    "quasi-random": lambda: search.QuasiRandomSampler(seed=3),
    "tpe": lambda: search.TPESampler(seed=3),
    "gp": lambda: search.GPSampler(seed=3),
}


@pytest.mark.parametrize("kept", ["theirs", "ours"])
@pytest.mark.parametrize("name", OURS)
def test_our_sampler_is_the_same_in_their_study(name, kept):
    objective = smooth if name == "gp" else conditional
    n_trials = 15 if name == "gp" else 40
    here = search.create_study(sampler=OURS[name]())
    here.optimize(objective, n_trials=n_trials)
    storage = nestor.optuna.Storage() if kept == "ours" else None
    there = optuna.create_study(sampler=nestor.optuna.Sampler(OURS[name]()), storage=storage)
    there.optimize(objective, n_trials=n_trials // 2)
    there.sampler = pickle.loads(pickle.dumps(there.sampler))  # it keeps nothing but its settings
    there.optimize(objective, n_trials=n_trials - n_trials // 2)
    assert records(there) == records(here)


def test_our_sampler_learns_from_pruned_failed_and_infeasible_trials_there():
    """A mirror of another storage and our own columns lead to the same suggestions."""

    def objective(trial):
        x = trial.suggest_float("x", -1, 1)
        if x < -0.5:
            raise MemoryError
        trial.report(abs(x), 3)
        if x > 0.5:
            raise optuna.TrialPruned
        trial.set_constraint("c", 0.1 - x)
        return abs(x), -abs(x)

    def one_objective(trial):
        return objective(trial)[0]

    def several(trial):
        x = trial.suggest_float("x", -1, 1)
        if x < -0.5:
            raise MemoryError
        return x**2, (x - 0.5) ** 2

    for directions, f in ((["minimize"], one_objective), (["minimize", "maximize"], several)):
        found = []
        for storage in (None, nestor.optuna.Storage()):
            sampler = nestor.optuna.Sampler(search.TPESampler(seed=0))
            study = optuna.create_study(directions=directions, sampler=sampler, storage=storage)
            study.enqueue_trial({"x": 0.25})
            study.optimize(f, n_trials=40, catch=MemoryError)
            found.append(records(study))
        assert found[0] == found[1]


@pytest.mark.parametrize("kept", ["theirs", "ours"])
def test_our_sampler_beside_their_hyperband(kept):
    """Which shows a sampler the trials of one bracket; ours looks at all."""
    storage = nestor.optuna.Storage() if kept == "ours" else None
    sampler = nestor.optuna.Sampler(search.TPESampler(seed=0))
    pruner = optuna.pruners.HyperbandPruner(1, 8, 2)
    study = optuna.create_study(storage=storage, sampler=sampler, pruner=pruner)
    study.optimize(curves, n_trials=30)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}


def test_a_grid_of_ours_ends_their_study():
    study = optuna.create_study(sampler=nestor.optuna.Sampler(search.GridSampler({"x": [0, 0.5, 1]})))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1))
    assert [trial.value for trial in study.trials] == [0.0, 0.5, 1.0]


def test_threads_share_our_sampler_and_storage(tmp_path):
    file = search.FileStorage(tmp_path / "study.db")
    storage = nestor.optuna.Storage(file)
    study = optuna.create_study(
        storage=storage, sampler=nestor.optuna.Sampler(search.TPESampler(seed=0)), study_name="threads"
    )
    study.optimize(conditional, n_trials=40, n_jobs=4)
    assert sorted(trial.number for trial in study.trials) == list(range(40))
    assert search.load_study(storage=file).best_value == study.best_value
    storage.remove_session()


def test_both_work_on_one_study(tmp_path):
    """Each runs what the other enqueued, and learns of the other's trials."""
    file = search.FileStorage(tmp_path / "study.db")
    ours = search.create_study(storage=file, study_name="both", direction="maximize")
    storage = nestor.optuna.Storage(file)
    theirs = optuna.load_study(study_name="both", storage=storage)
    ours.enqueue_trial({"x": 0.9})
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    theirs.enqueue_trial({"x": 0.95}, user_attrs={"by": "them"})
    ours.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert [trial.state.name for trial in ours.trials] == ["COMPLETE"] * 4
    assert ours.trials[0].params == {"x": 0.9}
    assert (ours.trials[2].params, dict(ours.trials[2].user_attrs)) == ({"x": 0.95}, {"by": "them"})
    assert theirs.best_value == ours.best_value
    assert theirs.best_trial.number == ours.best_trial.number
    storage.remove_session()


def test_a_dead_workers_trial_is_run_again_by_their_study(tmp_path):
    file = search.FileStorage(tmp_path / "study.db", lease=60.0)
    study = search.create_study(storage=file, study_name="dead")
    register = search.Register(file)
    channel = register.open(0)
    dead = {"do": "ask", "by": "gone", "at": 0.0, "lease": 1.0, "n": 1}
    channel.commit(dead, {"do": "set", "number": 0, "params": {"x": [["float", 0, 1, False, None], 0.125]}})
    storage = nestor.optuna.Storage(file)
    optuna.load_study(study_name="dead", storage=storage).optimize(
        lambda trial: trial.suggest_float("x", 0, 1), n_trials=1
    )
    assert [(trial.params, trial.attempt) for trial in study.trials] == [({"x": 0.125}, 2)]
    storage.remove_session()


def test_a_trial_of_which_five_workers_died_has_failed_there_too(tmp_path):
    file = search.FileStorage(tmp_path / "study.db")
    study = search.create_study(storage=file, study_name="deadly")
    channel = search.Register(file).open(0)
    dead = {"by": "gone", "lease": 1.0}
    channel.commit({"do": "ask", "n": 1, "at": 0.0, **dead})
    for attempt in (2, 3, 4, 5):
        channel.commit({"do": "claim", "number": 0, "attempt": attempt, "at": 10.0 * attempt, **dead})
    storage = nestor.optuna.Storage(file)
    theirs = optuna.load_study(study_name="deadly", storage=storage)
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert [trial.state.name for trial in theirs.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[0].error == "5 workers died of it"
    storage.remove_session()


def test_our_sampler_does_not_take_one_study_for_another():
    """Where a storage was forgotten, the next one may stand in its place in memory."""
    key = importlib.import_module("nestor.optuna._ours")._key

    class Held:
        """A study, or its storage."""

    study, trial = Held(), types.SimpleNamespace(_trial_id=0)
    study._storage = Held()
    before, place = key(study, trial), id(study._storage)
    assert key(study, trial) == before
    del study._storage
    study._storage = Held()
    assert id(study._storage) == place
    assert key(study, trial) != before


# --- theirs in ours -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RandomSampler", "TPESampler", "NSGAIISampler", "CmaEsSampler"])
def test_their_sampler_is_the_same_in_our_study(name):
    if name == "CmaEsSampler":
        pytest.importorskip("cmaes")
    make = getattr(optuna.samplers, name)
    there = optuna.create_study(sampler=make(seed=1))
    there.optimize(smooth, n_trials=25)
    here = search.create_study(sampler=nestor.optuna.OptunaSampler(make(seed=1)))
    here.optimize(smooth, n_trials=25)
    for one, other in zip(here.trials, there.trials, strict=True):
        assert one.params == pytest.approx(other.params, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["TPESampler", "CmaEsSampler"])
def test_their_sampler_made_anew_is_repeatable(name, tmp_path):
    """In one go, and interrupted and resumed in a file; CMA-ES finds its state there."""
    if name == "CmaEsSampler":
        pytest.importorskip("cmaes")
    make = getattr(optuna.samplers, name)
    whole = search.create_study(sampler=nestor.optuna.OptunaSampler(make, seed=5))
    whole.optimize(smooth, n_trials=20)
    file = search.FileStorage(tmp_path / "study.db")
    for n_trials in (8, 12):
        sampler = pickle.loads(pickle.dumps(nestor.optuna.OptunaSampler(make, seed=5)))
        study = search.create_study(storage=file, study_name="s", load_if_exists=True, sampler=sampler)
        study.optimize(smooth, n_trials=n_trials)
    assert records(study) == records(whole)


def test_their_sampler_in_every_kind_of_space():
    study = search.create_study(sampler=nestor.optuna.OptunaSampler(optuna.samplers.TPESampler, seed=0))

    def objective(trial):
        w = trial.suggest_array("w", (2, 2), -1.0, 1.0)
        return conditional(trial) + (w**2).sum() + trial.suggest_int("n", 0, 100, step=25)

    study.optimize(objective, n_trials=30)
    assert study.best_trial.domains["w"] == search.Array((2, 2), -1.0, 1.0)
    with pytest.raises(BadArgument, match="256"):
        study.ask().suggest_array("v", 257, 0.0, 1.0)


def curves(trial):
    """Curves that cross."""
    x = trial.suggest_float("x", 0, 1)
    for step in range(8):
        trial.report(math.sin(7 * x + step * (1 + x)) + x * step, step)
        if trial.should_prune():
            raise pruned
    return x


pruned = optuna.TrialPruned


@pytest.mark.parametrize(
    "pruner",
    [
        lambda: optuna.pruners.MedianPruner(n_startup_trials=3),
        lambda: optuna.pruners.SuccessiveHalvingPruner(),
        lambda: optuna.pruners.PercentilePruner(25.0, n_startup_trials=3),
        lambda: optuna.pruners.NopPruner(),
    ],
)
def test_their_pruner_is_the_same_in_our_study(pruner, monkeypatch):
    there = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner())
    there.optimize(curves, n_trials=30)
    sampler = nestor.optuna.OptunaSampler(optuna.samplers.RandomSampler(seed=0))
    here = search.create_study(sampler=sampler, pruner=nestor.optuna.OptunaPruner(pruner()))
    monkeypatch.setitem(globals(), "pruned", search.TrialPruned)
    here.optimize(curves, n_trials=30)
    assert [trial.state.name for trial in here.trials] == [trial.state.name for trial in there.trials]
    for one, other in zip(here.trials, there.trials, strict=True):
        assert one.reports == pytest.approx(other.intermediate_values)


@pytest.mark.parametrize("kept", ["theirs", "ours"])
@pytest.mark.parametrize(
    "pruner",
    [
        lambda: search.MedianPruner(n_startup_trials=3),
        lambda: search.SuccessiveHalvingPruner(1, 2),
        lambda: search.HyperbandPruner(1, 8, 2),
        lambda: search.PatientPruner(search.PercentilePruner(50.0, n_startup_trials=2), 1),
    ],
)
def test_our_pruner_is_the_same_in_their_study(pruner, kept, monkeypatch):
    sampler = search.RandomSampler(seed=0)
    storage = nestor.optuna.Storage() if kept == "ours" else None
    there = optuna.create_study(
        storage=storage,
        sampler=nestor.optuna.Sampler(sampler),
        pruner=pickle.loads(pickle.dumps(nestor.optuna.Pruner(pruner()))),
    )
    there.optimize(curves, n_trials=30)
    here = search.create_study(sampler=sampler, pruner=pruner())
    monkeypatch.setitem(globals(), "pruned", search.TrialPruned)
    here.optimize(curves, n_trials=30)
    assert [trial.state.name for trial in here.trials] == [trial.state.name for trial in there.trials]
    assert "PRUNED" in {trial.state.name for trial in here.trials}


def test_what_is_wrong_is_said():
    with pytest.raises(BadArgument, match="sampler of Optuna"):
        nestor.optuna.OptunaSampler(3)
    with pytest.raises(BadArgument, match="None with an instance"):
        nestor.optuna.OptunaSampler(optuna.samplers.RandomSampler(), seed=0)
    with pytest.raises(BadArgument, match="pruner of Optuna"):
        nestor.optuna.OptunaPruner(search.MedianPruner())
    with pytest.raises(BadArgument, match="TPESampler"):
        nestor.optuna.Sampler(search.TPESampler)
    with pytest.raises(BadArgument, match="MedianPruner"):
        nestor.optuna.Pruner(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns of such choices too
        study = optuna.create_study(sampler=nestor.optuna.Sampler(search.RandomSampler(seed=0)))
        with pytest.raises(BadArgument, match="choices"):
            study.ask().suggest_categorical("layers", [(1, 2), (3,)])


WORKER = """
import sys
import optuna, nestor.optuna
from nestor import search

optuna.logging.set_verbosity(optuna.logging.ERROR)
path, kind = sys.argv[1:]
f = lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 0, 9)
if kind == "theirs":
    study = optuna.load_study(study_name="s", storage=nestor.optuna.Storage(path))
else:
    study = search.load_study(study_name="s", storage=path)
study.optimize(f, n_trials=40)
"""


@pytest.mark.slow
def test_processes_of_both_share_a_file(tmp_path):
    """Nothing is lost, no number is given twice, and what waits is run once."""
    study = search.create_study(storage=tmp_path / "s.db", study_name="s")
    for n in range(10):
        study.enqueue_trial({"n": n})
    kinds = ["theirs", "ours", "theirs"]
    commands = [[sys.executable, "-c", WORKER, str(tmp_path / "s.db"), kind] for kind in kinds]
    workers = [subprocess.Popen(command) for command in commands]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert len(study.trials) == 120
    assert all(trial.state == search.TrialState.COMPLETE for trial in study.trials)
    assert all(trial.attempt == 1 for trial in study.trials)
    assert [study.trials[n].params["n"] for n in range(10)] == list(range(10))
    study.storage.close()
