"""Studies: asking, telling, enqueueing, several objectives, constraints, copies; in memory and in a file."""

import numpy as np
import pytest

import nestor
from nestor import search
from nestor.search import TrialState
from tests.search.objectives import bowl


def make(storage=None, **settings):
    return search.create_study(storage=storage, sampler=search.RandomSampler(seed=0), **settings)


def test_ask_and_tell_in_batches(storage):
    study = make(storage)
    trials = study.ask(5)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    xs = [trial.suggest_float("x", 0, 1) for trial in trials]
    study.tell(trials, xs)
    assert [trial.value for trial in study.trials] == xs
    assert study.best_value == min(xs)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_a_space_is_suggested_at_once(storage):
    space = {"x": search.Float(0, 1), "n": search.Int(1, 3)}
    trials = make(storage).ask(3, space=space)
    assert all(set(trial.params) == {"x", "n"} for trial in trials)


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "study.db"
    study = make(path, study_name="s", direction="maximize")
    study.set_user_attr("note", {"a": [1, 2]})

    def objective(trial):
        trial.set_user_attr("square", trial.number**2)
        trial.set_constraints([trial.number - 3.0])
        trial.report(0.5, 1)
        array = trial.suggest_array("w", 3, 0, 1)
        return trial.suggest_float("x", 0, 1) + float(array.sum())

    study.optimize(objective, n_trials=6)
    last = study.ask()
    last.suggest_float("x", 0, 1)
    study.tell(last, 0.25, gradient={"x": 1.5})
    again = search.load_study(storage=f"sqlite:///{path}")
    assert again.user_attrs == {"note": {"a": [1, 2]}}
    assert same(study.trials, again.trials)
    assert again.best_trial.number <= 3
    assert again.trials[6].gradient == {"x": 1.5}


def same(first, second, times=True):
    """Whether two lists of trials are equal, bit for bit."""
    if len(first) != len(second):
        return False
    for one, other in zip(first, second, strict=True):
        names = [name for name in one.__slots__ if name not in ("params", "domains")]
        if not times:
            names = [name for name in names if name not in ("started", "ended", "attempt")]
        if any(getattr(one, name) != getattr(other, name) for name in names):
            return False
        if list(one.params) != list(other.params) or dict(one.domains) != dict(other.domains):
            return False
        if not all(np.array_equal(one.params[name], other.params[name]) for name in one.params):
            return False
    return True


def test_an_enqueued_trial_runs_first(storage):
    study = make(storage)
    study.enqueue_trial({"x": 0.125, "n": 2}, user_attrs={"who": "me"})
    study.optimize(bowl, n_trials=2)
    assert study.trials[0].params["x"] == 0.125
    assert study.trials[0].user_attrs == {"who": "me"}
    assert study.trials[1].params["x"] != 0.125


def test_an_enqueued_value_outside_is_refused(storage):
    study = make(storage)
    study.enqueue_trial({"x": 99.0})
    with pytest.raises(nestor.BadArgument, match="enqueue_trial"):
        study.ask().suggest_float("x", 0, 1)


def test_trials_are_added_and_copied(storage, tmp_path):
    study = make(storage, study_name="a")
    study.optimize(bowl, n_trials=5)
    other = make(study_name="b")
    other.add_trials(study.trials)
    assert same(study.trials, other.trials)
    copy = search.copy_study(
        from_study_name="a", from_storage=storage, to_storage=tmp_path / "c.db", to_study_name="c"
    )
    assert same(study.trials, copy.trials)
    study.export(tmp_path / "a.jsonl")
    assert same(study.trials, search.import_study(tmp_path / "a.jsonl").trials)


def test_studies_have_names(storage):
    make(storage, study_name="a").optimize(bowl, n_trials=1)
    make(storage, study_name="b")
    assert search.study_names(storage) == ["a", "b"]
    with pytest.raises(nestor.BadArgument, match="load_if_exists"):
        make(storage, study_name="a")
    assert len(make(storage, study_name="a", load_if_exists=True).trials) == 1
    search.delete_study(study_name="a", storage=storage)
    assert search.study_names(storage) == ["b"]
    assert len(make(storage, study_name="a").trials) == 0
    with pytest.raises(nestor.BadArgument, match="study_name"):
        search.load_study(study_name="z", storage=storage)


def test_several_objectives(storage):
    study = make(storage, directions=["minimize", "maximize"])
    study.optimize(lambda trial: (trial.suggest_int("a", 0, 5), trial.suggest_int("b", 0, 5)), n_trials=40)
    values = [trial.values for trial in study.trials]
    front = {(a, b) for a, b in values if not any(c <= a and d >= b and (c, d) != (a, b) for c, d in values)}
    assert {trial.values for trial in study.best_trials} == front
    with pytest.raises(nestor.NestorError, match="best_trials"):
        _ = study.best_trial
    with pytest.raises(nestor.BadArgument, match="one an objective"):
        study.tell(study.ask(), 1.0)


def test_a_trial_that_misses_a_constraint_is_not_the_best(storage):
    study = make(storage)
    study.tell(study.ask(3), [3.0, 1.0, 2.0], constraints=[[-1.0], [0.5], [0.0]])
    assert study.best_trial.number == 2
    assert [trial.number for trial in study.best_trials] == [2]


def test_failures(storage):
    study = make(storage)

    def objective(trial):
        if trial.number % 2:
            raise MemoryError("too large")
        return float("nan") if trial.number == 2 else 1.0

    study.optimize(objective, n_trials=4, catch=MemoryError)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAILED", "FAILED", "FAILED"]
    assert study.trials[1].error == "MemoryError: too large"
    with pytest.raises(ZeroDivisionError):
        study.optimize(lambda trial: 1 / 0, n_trials=3)
    assert len(study.trials) == 5


def test_the_first_to_tell_is_heard(storage):
    study = make(storage)
    trial = study.ask()
    study.tell(trial, 1.0)
    study.tell(trial, 2.0)
    assert study.trials[0].value == 1.0


def test_ctrl_c_gives_the_trial_back(storage):
    study = make(storage)

    def interrupted(trial):
        if trial.number == 2 and study.trials[2].attempt == 1:
            raise KeyboardInterrupt
        return bowl(trial)

    with pytest.raises(KeyboardInterrupt):
        study.optimize(interrupted, n_trials=5)
    assert study.trials[2].state == TrialState.WAITING
    study.optimize(interrupted, n_trials=3)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 5


def test_timeout_callbacks_and_progress(capsys):
    study, seen = make(), []
    study.optimize(bowl, timeout=0.0)
    assert len(study.trials) == 0
    study.optimize(
        bowl, n_trials=3, callbacks=[lambda study, trial: seen.append(trial.number)], progress=True
    )
    assert seen == [0, 1, 2]
    assert "best" in capsys.readouterr().err


def test_the_trials_are_a_view():
    study = make()
    study.tell(study.ask(10), list(range(10)))
    trials = study.trials
    assert len(trials[2:5]) == 3
    assert trials[-1].value == 9.0
    assert [trial.number for trial in trials[::-3]] == [9, 6, 3, 0]
    assert len(study.trials_with(TrialState.COMPLETE)) == 10


def test_a_table_needs_pandas(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(nestor.MissingExtra, match=r"nestor\[search\]"):
        make().trials_dataframe()


@pytest.mark.parametrize(
    "call",
    [
        lambda: search.create_study(direction="down"),
        lambda: search.create_study(direction="minimize", directions=["minimize"]),
        lambda: search.create_study(storage="htp://x"),
        lambda: search.create_study(sampler=search.RandomSampler),
        lambda: make().optimize(bowl, n_trials=0),
        lambda: make().ask(0),
        lambda: make().tell(3, 1.0),
        lambda: make().optimize(lambda trial: 0.0, n_trials=1, n_workers=2),
        lambda: search.RandomSampler(seed=-1),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call):
    with pytest.raises(nestor.BadArgument):
        call()


def test_memory_of_many_trials():
    """100,000 trials of 10 parameters take less than 400 bytes each."""
    import tracemalloc

    names = [f"x{k}" for k in range(10)]
    space = {name: search.Float(0, 1) for name in names}
    study = make()
    study.tell(study.ask(1, space=space), [0.0])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(4):
        study.tell(study.ask(500, space=space), [0.0] * 500)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown / 2000 < 400
