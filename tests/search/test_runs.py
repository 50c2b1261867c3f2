"""Totals, batches, executors and nested studies."""

import random
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import nestor
from nestor import search
from nestor.search import TrialState
from tests.search import objectives
from tests.search.test_study import same


def made(storage=None, **settings):
    return search.create_study(storage=storage, sampler=search.RandomSampler(seed=0), **settings)


def test_a_total_is_what_the_study_has_in_the_end(storage):
    study = made(storage)
    study.optimize(objectives.bowl, n_trials=3)
    study.optimize(objectives.bowl, total=5)
    study.optimize(objectives.bowl, total=5)
    assert len(study.trials) == 5
    study.optimize(objectives.bowl, n_trials=1, total=9)
    assert len(study.trials) == 6
    study.enqueue_trial({"x": 2.0})
    study.optimize(objectives.bowl, total=7)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 7


def test_programs_that_share_a_total_make_no_trial_too_many(tmp_path):
    path = tmp_path / "s.db"
    made(path)

    def program():
        search.load_study(storage=path, sampler=search.RandomSampler(seed=0)).optimize(
            objectives.slow_bowl, total=21
        )

    threads = [threading.Thread(target=program) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = search.load_study(storage=path).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 21


def test_one_that_finds_the_study_full_takes_over_what_the_dead_left(tmp_path):
    path = tmp_path / "s.db"
    lost = made(search.FileStorage(path, lease=0.3))
    lost.ask(2)
    lost._channel.close()  # it gives no more signs of life
    study = search.load_study(storage=path, sampler=search.RandomSampler(seed=0))
    study.optimize(objectives.bowl, total=3)
    assert [(trial.state, trial.attempt) for trial in study.trials] == [
        (TrialState.COMPLETE, 2),
        (TrialState.COMPLETE, 2),
        (TrialState.COMPLETE, 1),
    ]


def test_batches(storage):
    study, seen = made(storage), []
    study.optimize(
        objectives.batched, n_trials=20, batch=8, callbacks=[lambda study, trial: seen.append(trial.number)]
    )
    assert seen == list(range(20))
    one = made()
    one.optimize(lambda trial: objectives.batched([trial])[0], n_trials=20)
    assert same(one.trials, study.trials, times=False)
    failed = [trial for trial in study.trials if trial.state == TrialState.FAILED]
    assert failed
    assert all(trial.error == "MemoryError: too wide" for trial in failed)
    study.optimize(objectives.batched, total=23, batch=8)
    assert len(study.trials) == 23
    with pytest.raises(nestor.BadArgument, match="one a trial"):
        study.optimize(lambda trials: [0.0], n_trials=2, batch=2)
    with pytest.raises(nestor.BadArgument, match="batch"):
        study.optimize(objectives.batched, n_trials=2, batch=2, n_workers=2)


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_of_the_standard_library(make, tmp_path):
    import multiprocessing

    more = {"mp_context": multiprocessing.get_context("spawn")} if make is ProcessPoolExecutor else {}
    seen = []
    with make(2, **more) as executor:
        for storage in (None, tmp_path / "s.db"):
            study = search.create_study(storage=storage, sampler=search.TPESampler(seed=5, n_startup=6))
            study.enqueue_trial({"x": 0.125})
            study.optimize(
                objectives.bowl,
                n_trials=12,
                n_workers=2,
                ordered=2,
                executor=executor,
                callbacks=[lambda study, trial: seen.append(trial.number)],
            )
            assert len(study.trials) == 12
            assert study.trials[0].params["x"] == 0.125
        assert sorted(seen) == sorted([*range(12)] * 2)
        with pytest.raises(KeyError, match="no such thing"):
            study.optimize(objectives.wrong, n_trials=4, n_workers=2, executor=executor)
    with pytest.raises(nestor.BadArgument, match="submit"):
        study.optimize(objectives.bowl, n_trials=1, executor=object())


def test_stopping_from_a_callback_reaches_an_executor():
    study = made()
    with ThreadPoolExecutor(2) as threads:
        study.optimize(
            objectives.slow_bowl,
            n_workers=2,
            executor=threads,
            callbacks=[lambda study, trial: study.stop() if trial.number >= 5 else None],
        )
    assert 6 <= len(study.trials) < 60
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.parametrize("workers", [1, 2])
def test_nested_studies_and_what_they_cost(workers, storage):
    study = made(storage, study_name="outer")
    study.optimize(objectives.nested, n_trials=4, n_workers=workers)
    assert sorted(study.nested()) == ["outer/0", "outer/1", "outer/2", "outer/3"]
    assert study.nested(2) == ["outer/2"]
    inner = search.load_study(study_name="outer/2", storage=study.storage)
    assert inner.parent == ("outer", 2)
    assert study.parent is None
    assert inner.best_value == study.trials[2].value
    assert inner.cost() == 4
    assert study.cost(1) == 4
    assert study.cost() == 4 * 4 + 2 * 10
    again = made(storage, study_name="outer", load_if_exists=True)
    assert again.cost() == 36


def test_a_later_attempt_goes_on_with_the_nested_study(storage):
    study = made(storage)

    def objective(trial):
        inner = search.create_study(parent=trial, study_name="in", direction="maximize")
        inner.optimize(lambda one: one.number, n_trials=2)
        if study.trials[trial.number].attempt == 1:
            raise KeyboardInterrupt
        return inner.best_value

    with pytest.raises(KeyboardInterrupt):
        study.optimize(objective, n_trials=1)
    study.optimize(objective, n_trials=1)
    assert study.best_value == 3.0
    assert study.nested() == [f"{study.name}/0/in"]
    with pytest.raises(nestor.BadArgument, match="amount"):
        study.ask().add_cost(-1.0)


def test_an_extra_that_is_missing_is_named(monkeypatch):
    import sys

    for make, module in ((search.DaskExecutor, "distributed"), (search.RayExecutor, "ray")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(nestor.MissingExtra, match="pip install"):
            make()
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(nestor.MissingExtra, match=r"nestor\[sql\]"):
        search.create_study(storage="postgresql://me:secret@host/studies")


def test_what_a_newer_program_wrote_is_refused(tmp_path):
    study = made(tmp_path / "s.db")
    study.storage.append(study._identity, [{"do": "sing"}])
    with pytest.raises(nestor.NestorError, match="sing"):
        len(study.trials)


def test_an_older_file_is_brought_up_to_date(tmp_path, monkeypatch):
    from nestor.search import _storages

    made(tmp_path / "s.db").optimize(objectives.bowl, n_trials=3)

    def add_column(connection):
        connection.execute("ALTER TABLE log ADD COLUMN noted TEXT")

    with monkeypatch.context() as later:
        later.setattr(_storages, "SCHEMA", 2)
        later.setitem(_storages._MIGRATIONS, 1, add_column)
        assert len(search.load_study(storage=tmp_path / "s.db").trials) == 3
    with pytest.raises(nestor.NestorError, match="newer"):
        search.load_study(storage=tmp_path / "s.db")


def test_a_space_suggested_at_once_is_what_would_be_suggested_one_by_one(storage):
    space = {
        "x": search.Float(-1, 2),
        "rate": search.Float(1e-5, 1, log=True),
        "half": search.Float(0, 1, step=0.25),
        "n": search.Int(1, 9, step=2),
        "width": search.Int(1, 1000, log=True),
        "kind": search.Categorical(("a", None, 3)),
        "w": search.Array((3,), 0, 1),
        "one": search.Int(2, 2),
    }
    study, other = made(storage), made()
    study.enqueue_trial({"x": 0.5})
    other.enqueue_trial({"x": 0.5})
    trials = study.ask(20, space=space)
    singles = [other.ask() for _ in range(20)]
    for trial, single in zip(trials, singles, strict=True):
        for name, domain in space.items():
            single.suggest(name, domain)
        assert repr(trial.params) == repr(single.params)
        assert repr(trial._asked.given) == repr(single._asked.given)
    study.tell(trials, [0.0] * 20)
    other.tell(singles, [0.0] * 20)
    assert same(study.trials, other.trials, times=False)
    if storage is not None and not isinstance(storage, search.MemoryStorage):
        assert same(study.trials, search.load_study(storage=storage).trials)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no timers that interrupt")
@pytest.mark.parametrize("batch", [None, 3])
def test_ctrl_c_at_any_moment_leaves_a_whole_study(storage, batch):
    """Interrupted dozens of times wherever it happens to be, it ends as if nothing had happened."""

    def once(trial):
        return objectives.bowl(trial)

    def listed(trials):
        return [objectives.bowl(trial) for trial in trials]

    random_number, interruptions = random.Random(0), 0
    made(storage, study_name="s")
    before = signal.signal(signal.SIGALRM, lambda signum, frame: signal.raise_signal(signal.SIGINT))
    try:
        for _ in range(400):
            study = search.load_study(study_name="s", storage=storage, sampler=search.RandomSampler(seed=3))
            try:
                signal.setitimer(signal.ITIMER_REAL, random_number.uniform(0.0005, 0.006))
                study.optimize(listed if batch else once, total=150, batch=batch)
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except KeyboardInterrupt:
                interruptions += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interruptions > 0
    study = search.load_study(study_name="s", storage=storage)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 150
    whole = search.create_study(sampler=search.RandomSampler(seed=3))
    whole.optimize(once, n_trials=150)
    assert same(whole.trials, study.trials, times=False)
