"""Studies both ways: what came from Optuna goes back equal, trial by trial."""

import datetime
import math
import random
import re

import numpy as np
import pytest

import nestor.optuna
from nestor import search
from nestor.errors import BadArgument, NestorError

optuna = pytest.importorskip("optuna")

from optuna.distributions import (  # noqa: E402  (where Optuna is)
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = {
    "x": FloatDistribution(-10.2, 10.2),
    "rate": FloatDistribution(1e-7, 1.0, log=True),
    "share": FloatDistribution(-10.2, 10.2, step=0.1),
    "third": FloatDistribution(0.0, 0.9, step=0.3),
    "n": IntDistribution(-5, 1000),
    "width": IntDistribution(1, 4096, log=True),
    "odd": IntDistribution(1, 97, step=2),
    "mixed": CategoricalDistribution((None, True, 1.5, 2, "a", "2", float("inf"), float("nan"))),
    "only": CategoricalDistribution(("the one",)),
    "kind": CategoricalDistribution(("tree", "linear")),
}
SPECIAL = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]


def drawn(random: random.Random, name: str):
    distribution = SPACE[name]
    if isinstance(distribution, CategoricalDistribution):
        return random.choice(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return random.randrange(distribution.low, distribution.high + 1, distribution.step)
    if distribution.step is not None:
        steps = round((distribution.high - distribution.low) / distribution.step)
        return distribution.low + random.randint(0, steps) * distribution.step
    return random.uniform(distribution.low, distribution.high)


def mixed_trial(random: random.Random, objectives: int) -> FrozenTrial:
    """A trial of any state, with anything that Optuna lets a trial have."""
    state = random.choice(list(TrialState))
    names = random.sample([*SPACE][:-1], random.randint(0, 6)) + ["kind"] * (random.random() < 0.7)
    params = {name: drawn(random, name) for name in names}
    space = {name: SPACE[name] for name in names}
    if params.get("kind") == "tree":  # conditional; and a range that moves from trial to trial
        space["depth"] = IntDistribution(1, random.randint(8, 12))
        params["depth"] = random.randint(1, 8)
    reports = {
        step: random.choice([*SPECIAL, random.gauss(0, 1e3)])
        for step in random.sample(range(1000), random.choice([0, 0, 1, 5]))
    }
    system = {}
    if random.random() < 0.3:
        system["constraints"] = [random.gauss(0, 1) for _ in range(random.randint(1, 3))]
    if random.random() < 0.3:
        system |= {f"constraints:{name}": random.gauss(0, 1) for name in ("memory", "latency")}
    if random.random() < 0.3:
        system["fixed_params"] = random.choice([{}, {"x": 0.5, "mixed": None}])
    if random.random() < 0.3:
        system["cma:n"] = {"a": [1, None, {"b": "c"}]}
    user = {"note": random.choice([None, True, 1, 0.1, "text", [1, 2], {"deep": {"er": []}}, *SPECIAL[1:]])}
    begun = datetime.datetime(2026, 1, 1) + datetime.timedelta(microseconds=random.randrange(10**13))
    values = [random.choice([*SPECIAL[1:], random.gauss(0, 1)]) for _ in range(objectives)]
    told = state == TrialState.COMPLETE or (state == TrialState.PRUNED and random.random() < 0.5)
    return FrozenTrial(
        number=0,
        trial_id=0,
        state=state,
        value=None,
        values=values if told else None,
        datetime_start=None if state == TrialState.WAITING else begun,
        datetime_complete=begun + datetime.timedelta(microseconds=7) if state.is_finished() else None,
        params=params,
        distributions=space,
        user_attrs=user if random.random() < 0.5 else {},
        system_attrs=system,
        intermediate_values=reports,
    )


def filled(storage, n_trials: int, objectives: int, seed: int = 0):
    """A study of Optuna's with mixed trials and notes."""
    source = random.Random(seed)
    directions = [optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE][:objectives]
    study_id = storage.create_new_study(directions, "mixed")
    for _ in range(n_trials):
        storage.create_new_trial(study_id, template_trial=mixed_trial(source, objectives))
    study = optuna.load_study(study_name="mixed", storage=storage)
    study.set_user_attr("who", {"name": "me", "size": [1.5, None]})
    storage.set_study_system_attr(study_id, "study:metric_names", ["loss", "speed"][:objectives])
    return study


def written(trial: FrozenTrial) -> str:
    """All that a trial holds but the id that its storage gave it; NaN and the types of numbers show."""
    parts = {key.strip("_"): value for key, value in trial.__dict__.items() if key != "_trial_id"}
    for key in ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values"):
        parts[key] = sorted(parts[key].items())
    return repr(parts)


def alike(a, b, signed_zeros: bool = True) -> None:
    assert a.directions == b.directions
    assert a.user_attrs == b.user_attrs
    assert a.metric_names == b.metric_names
    first, second = a.get_trials(deepcopy=False), b.get_trials(deepcopy=False)
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        texts = written(one), written(other)
        if not signed_zeros:
            texts = tuple(re.sub(r"-0\.0\b", "0.0", text) for text in texts)
        assert texts[0] == texts[1]


def theirs(kind: str, path):
    """Where Optuna keeps a study: what it is called, and the storage."""
    if kind == "memory":
        return optuna.storages.InMemoryStorage()
    if kind == "database":
        return optuna.storages.RDBStorage(f"sqlite:///{path}.db")
    journal = optuna.storages.journal
    return optuna.storages.JournalStorage(journal.JournalFileBackend(f"{path}.log"))


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_thousand_mixed_trials_go_and_come_back(objectives, tmp_path):
    study = filled(optuna.storages.InMemoryStorage(), 1000, objectives)
    file = search.FileStorage(tmp_path / "ours.db")
    ours = nestor.optuna.import_study(study, storage=file)
    assert len(ours.trials) == 1000
    alike(study, nestor.optuna.export_study(ours, None))
    alike(study, optuna.load_study(study_name="mixed", storage=nestor.optuna.Storage(file)))
    memory = search.MemoryStorage()
    copy = search.copy_study(from_study_name="mixed", from_storage=file, to_storage=memory)
    alike(study, nestor.optuna.export_study(copy, None))


@pytest.mark.parametrize(("first", "second"), [("database", "journal"), ("journal", "database")])
def test_from_a_file_and_into_another(first, second, tmp_path):
    from_a_file(first, second, tmp_path, 25)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("database", "journal"), ("journal", "database")])
def test_a_thousand_trials_from_a_file_and_into_another(first, second, tmp_path):
    from_a_file(first, second, tmp_path, 1000)


def from_a_file(first, second, folder, n_trials):
    study = filled(theirs(first, folder / "first"), n_trials, 2)
    source = {"database": f"sqlite:///{folder}/first.db", "journal": folder / "first.log"}[first]
    ours = nestor.optuna.import_study(source, storage=folder / "ours.db")
    target = {"database": f"sqlite:///{folder}/second.db", "journal": folder / "second.log"}[second]
    there = nestor.optuna.export_study(ours, target)
    alike(study, there, signed_zeros=False)  # Optuna's database does not keep the sign of a zero
    again = nestor.optuna.import_study(theirs(second, folder / "second"), study_name="mixed")
    assert [trial.params.keys() for trial in again.trials] == [trial.params.keys() for trial in ours.trials]


def test_what_only_ours_has_goes_and_comes_back():
    def objective(trial):
        w = trial.suggest_array("w", (2, 3), 1e-3, 1.0, log=True)
        if trial.number == 1:
            raise MemoryError("too large")
        trial.set_constraints((w.sum() - 3.0, -1.0))
        return w.sum()

    study = search.create_study(study_name="arrays", sampler=search.RandomSampler(seed=0))
    study.optimize(objective, n_trials=3, catch=MemoryError)
    trial = study.ask()
    w = trial.suggest_array("w", (2, 3), 1e-3, 1.0, log=True)
    trial.add_cost(2.5)
    study.tell(trial, float(w.sum()), gradient={"w": np.ones((2, 3))})
    there = nestor.optuna.export_study(study, None)
    assert there.trials[0].params["w[1,2]"] == study.trials[0].params["w"][1, 2]
    assert there.trials[1].system_attrs["nestor:error"] == "MemoryError: too large"
    assert list(there.trials[0].constraints.values()) == list(study.trials[0].constraints)
    assert there.trials[3].system_attrs["nestor:cost"] == 2.5
    back = nestor.optuna.import_study(there, new_name="back")
    for one, other in zip(study.trials, back.trials, strict=True):
        np.testing.assert_array_equal(one.params["w"], other.params["w"])
        assert (one.state, one.values, one.domains) == (other.state, other.values, other.domains)
        assert (one.constraints, one.gradient, one.error) == (other.constraints, other.gradient, other.error)


def test_a_trial_that_paused_is_one_that_runs():
    study = search.create_study(study_name="paused")
    study.tell(study.ask(), state=search.TrialState.PAUSED)
    there = nestor.optuna.export_study(study, None)
    assert there.trials[0].state == TrialState.RUNNING
    assert nestor.optuna.import_study(there).trials[0].state == search.TrialState.PAUSED


def test_what_waits_and_what_ran_is_run_here():
    there = optuna.create_study(study_name="waiting")
    running = there.ask()
    running.suggest_float("x", 0, 1)
    there.enqueue_trial({"x": 0.25}, user_attrs={"why": "a guess"})
    there.enqueue_trial({"x": 0.75})
    ours = nestor.optuna.import_study(there)
    ours.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert sorted(trial.value for trial in ours.trials) == sorted([0.25, 0.75, running.params["x"]])
    assert len(ours.trials) == 3


def test_a_file_of_ours_gets_no_tables_of_theirs(tmp_path):
    study = search.create_study(storage=tmp_path / "ours.db", study_name="mine")
    for where in (tmp_path / "ours.db", f"sqlite:///{tmp_path}/ours.db"):
        with pytest.raises(BadArgument, match="Optuna's"):
            nestor.optuna.export_study(study, where)
        with pytest.raises(BadArgument, match="Optuna's"):
            nestor.optuna.import_study(where)


def test_a_wrong_name_names_those_that_are_there(tmp_path):
    storage = optuna.storages.InMemoryStorage()
    for name in ("a", "b"):
        optuna.create_study(storage=storage, study_name=name)
    for name in (None, "c"):
        with pytest.raises(BadArgument, match=r"one of \['a', 'b'\]"):
            nestor.optuna.import_study(storage, study_name=name)
    with pytest.raises(BadArgument, match="journal"):
        nestor.optuna.import_study(tmp_path / "nowhere.db")
    with pytest.raises(BadArgument, match="journal"):
        nestor.optuna.import_study(f"sqlite:///{tmp_path}/nowhere.db")
    assert not (tmp_path / "nowhere.db").exists()
    with pytest.raises(BadArgument, match="study of nestor"):
        nestor.optuna.export_study(optuna.create_study(), None)


def test_their_database_gets_no_tables_of_ours(tmp_path):
    filled(theirs("database", tmp_path / "theirs"), 1, 1)
    with pytest.raises(NestorError, match="import_study"):
        search.create_study(storage=f"sqlite:///{tmp_path}/theirs.db")
    assert len(nestor.optuna.import_study(tmp_path / "theirs.db").trials) == 1


def test_a_file_of_something_else_is_left_alone(tmp_path):
    """A line without an end looked like a journal that is being written."""
    study = search.create_study(study_name="mine")
    for text in ("hello", "a,b\n1,2\n"):
        path = tmp_path / "notes.txt"
        path.write_text(text)
        with pytest.raises(BadArgument, match="journal"):
            nestor.optuna.export_study(study, path)
        assert path.read_text() == text
    path.write_text("")
    assert nestor.optuna.export_study(study, path).study_name == "mine"
    assert nestor.optuna.import_study(path).name == "mine"


def test_what_fails_leaves_no_part_of_a_study(tmp_path, monkeypatch):
    ours = search.create_study(study_name="mine")
    ours.ask().set_user_attr("note", [1, 2])
    there = theirs("database", tmp_path / "theirs")

    def full(*_, **__):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(optuna.storages.get_storage(there)), "create_new_trial", full)
        for _ in range(2):
            with pytest.raises(OSError, match="full"):
                nestor.optuna.export_study(ours, there)
    assert there.get_all_studies() == []
    study = optuna.create_study(study_name="theirs")
    study.ask().set_user_attr("note", {1, 2})
    for _ in range(2):
        with pytest.raises(TypeError):
            nestor.optuna.import_study(study, storage=tmp_path / "ours.db")
    assert search.study_names(tmp_path / "ours.db") == []
