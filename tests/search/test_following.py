"""Looking on at studies: what changed, by every verb of the log, and nothing written."""

import sqlite3

import pytest

from nestor import search
from nestor.errors import BadArgument, NestorError
from nestor.search import TrialState


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def study(path):
    return search.create_study(storage=path, study_name="mine", sampler=search.RandomSampler(seed=0))


def test_every_change_is_seen_and_nothing_else(path, study):
    followed = search.Follower(path).study("mine")
    place = 0

    def changed():
        nonlocal place
        place, numbers = followed.changes(after=place)
        return numbers

    trials = study.ask(3)
    assert changed() == [0, 1, 2]
    assert changed() == []
    trials[1].suggest_float("x", 0, 1)
    study._channel.flush()
    assert changed() == [1]
    trials[2].report(1.0, step=0)
    trials[0].set_user_attr("note", 1)
    assert changed() == [2, 0]
    study.set_user_attr("note", 2)
    assert changed() == []
    assert followed.study.user_attrs == {"note": 2}
    study.tell(trials, [1.0, 2.0, 3.0])
    assert changed() == [0, 1, 2]
    study.enqueue_trial({"x": 0.5})
    study.add_trial(study.trials[0])
    assert changed() == [3, 4]
    study.ask()
    assert changed() == [3]
    study._channel.commit({"do": "orphan", "worker": study._channel.worker, "at": 0.0})
    assert changed() == [3]
    assert [trial.state for trial in followed.study.trials] == [trial.state for trial in study.trials]
    assert followed.study.trials[1] == study.trials[1]
    assert followed.study.best_value == study.best_value


def test_it_writes_nothing(path, study):
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    with sqlite3.connect(path) as connection:
        before = connection.execute("SELECT * FROM log").fetchall()
    followed = search.Follower(path).study("mine").study
    for write in (
        followed.ask,
        lambda: followed.tell(0, 1.0),
        lambda: followed.set_user_attr("a", 1),
        lambda: followed.enqueue_trial({}),
        lambda: followed.optimize(lambda trial: 0.0, n_trials=1),
    ):
        with pytest.raises(NestorError, match="only looked at"):
            write()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM log").fetchall() == before
    connection.close()


def test_studies_come_and_go(path, study):
    follower = search.Follower(path)
    assert follower.names() == ["mine"]
    first = follower.study("mine")
    assert follower.study("mine") is first
    search.create_study(storage=path, study_name="other", direction="maximize")
    assert follower.headers()["other"]["directions"] == ["maximize"]
    search.delete_study(study_name="mine", storage=path)
    with pytest.raises(NestorError, match="no study 'mine'"):
        follower.study("mine")
    search.create_study(storage=path, study_name="mine")
    assert follower.study("mine").identity != first.identity


def test_checkpoints_are_not_kept(path, study):
    trial = study.ask()
    trial.checkpoint(b"large")
    followed = search.Follower(path).study("mine")
    assert followed.changes(after=0)[1] == [0]
    assert not followed.study._ledger.checkpoints
    assert followed.study.trials[0].state == TrialState.RUNNING


def test_memory_is_refused():
    with pytest.raises(BadArgument, match="other processes"):
        search.Follower(search.MemoryStorage())


def test_a_log_is_read_once(path, study, monkeypatch):
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    follower = search.Follower(path)
    read, found = search.FileStorage.read, []

    def reading(storage, name, after):
        entries = read(storage, name, after)
        found.extend(entry["do"] for _, entry in entries)
        return entries

    monkeypatch.setattr(search.FileStorage, "read", reading)
    followed = follower.study("mine")
    followed.changes(after=0)
    assert followed.ledger.size == 3
    assert found.count("tell") == 3
