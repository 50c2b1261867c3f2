"""Studies in a database: in PostgreSQL where NESTOR_TEST_DATABASE names one (make test-servers), else in SQLite.

What an SQLite of SQLAlchemy shows is the same code in another database, with fewer trials: it waits for the disk.
"""

import multiprocessing
import os
import pickle
import signal
import time
import uuid

import numpy as np
import pytest

import nestor
from nestor import search
from nestor.search import TrialState
from tests.search import objectives
from tests.search.test_study import same

pytest.importorskip("sqlalchemy")

SERVER = os.environ.get("NESTOR_TEST_DATABASE")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def url(tmp_path):
    return SERVER or f"sqlite+pysqlite:///{tmp_path}/s.db"


@pytest.fixture
def name():
    """Tests share a database."""
    return f"study-{uuid.uuid4().hex[:8]}"


def test_places_grow_by_one_a_study(url):
    storage, other = search.SQLStorage(url), search.SQLStorage(url)
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    assert storage.append(first, [{"x": 1}, {"x": 2}]) == 2
    assert other.append(second, [{"y": 1}]) == 1
    assert other.append(first, [{"x": 3}]) == 3
    assert storage.read(first, 1) == [(2, {"x": 2}), (3, {"x": 3})]
    storage.drop(first)
    assert other.read(first, 0) == []
    assert other.append(first, []) == 3
    assert isinstance(storage, search.Storage)
    assert abs(storage.now() - time.time()) < 5
    storage.close()
    assert storage.read(second, 0) == [(1, {"y": 1})]


def test_a_study_in_a_database(url, name):
    study = search.create_study(storage=url, study_name=name, sampler=search.RandomSampler(seed=0))

    def objective(trial):
        weights = trial.suggest_array("w", 10_000, -1.0, 1.0)
        trial.set_user_attr("what", "Größe \u0000 \N{SNOWMAN}")
        trial.report(0.5, 1)
        return float(np.sum(weights)) + objectives.bowl(trial)

    study.optimize(objective, n_trials=4)
    again = search.load_study(storage=url, study_name=name)
    assert same(study.trials, again.trials)
    assert name in search.study_names(url)
    copy = search.copy_study(from_study_name=name, from_storage=url, to_storage=None)
    assert same(study.trials, copy.trials)
    search.delete_study(study_name=name, storage=url)
    assert name not in search.study_names(url)


def test_it_travels_without_showing_its_password(url):
    storage = search.SQLStorage(url, lease=7.0)
    again = pickle.loads(pickle.dumps(storage))
    assert again.lease == 7.0
    place = storage.append("travelled", [{"x": 1}])
    assert again.read("travelled", place - 1) == [(place, {"x": 1})]
    if SERVER:
        secret = SERVER.partition("@")[0].rpartition(":")[2]
        assert secret not in repr(storage)
        with pytest.raises(nestor.BadArgument) as caught:
            search.SQLStorage(SERVER.replace(secret, "guessed"))
        assert "guessed" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["postgresql://me:secret@127.0.0.1:1/none", "postgresql://:::/", "db2+what://x"]
)
def test_what_does_not_answer_is_refused(wrong):
    with pytest.raises(nestor.NestorError) as caught:
        search.create_study(storage=wrong)
    assert "secret" not in str(caught.value)


def _write(url, name, count, ready, go):
    ready.release()
    go.wait()
    study = search.load_study(storage=url, study_name=name, sampler=search.RandomSampler(seed=os.getpid()))
    for _ in range(count):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))


def test_four_writers_lose_nothing(url, name):
    """2,000 trials in PostgreSQL: none lost, no number twice, no error."""
    each = 500 if SERVER else 15
    study = search.create_study(storage=url, study_name=name)
    ready, go = SPAWN.Semaphore(0), SPAWN.Event()
    writers = [SPAWN.Process(target=_write, args=(url, name, each, ready, go)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for _ in writers:
        assert ready.acquire(timeout=60)
    go.set()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    trials = study.trials
    assert [trial.number for trial in trials] == list(range(4 * each))
    assert all(trial.state == TrialState.COMPLETE and trial.attempt == 1 for trial in trials)
    places = [place for place, _ in study.storage.read(study._identity, 0)]
    assert places == list(range(1, len(places) + 1))


def _make(url, name, ready, go):
    ready.release()
    go.wait()
    search.create_study(storage=url, study_name=name, load_if_exists=True)


def test_four_processes_make_the_tables_and_one_study(url, name):
    if SERVER:
        import sqlalchemy

        storage = search.SQLStorage(url)
        with storage._open().begin() as connection:
            for table in ("log", "heads", "schema"):
                connection.execute(sqlalchemy.text(f"DROP TABLE nestor_{table}"))
        storage.close()
    ready, go = SPAWN.Semaphore(0), SPAWN.Event()
    makers = [SPAWN.Process(target=_make, args=(url, name, ready, go)) for _ in range(4)]
    for maker in makers:
        maker.start()
    for _ in makers:
        assert ready.acquire(timeout=60)
    go.set()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0] * 4
    assert search.study_names(url).count(name) == 1


def _hang(url, name, lease, told):
    study = search.load_study(storage=search.SQLStorage(url, lease=lease), study_name=name)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.checkpoint("so far")
    told.send(trial.number)
    time.sleep(60)


def test_a_trial_of_a_killed_process_is_reclaimed_within_two_leases(url, name):
    lease = 1.5
    search.create_study(storage=url, study_name=name)
    here, there = SPAWN.Pipe()
    worker = SPAWN.Process(target=_hang, args=(url, name, lease, there))
    worker.start()
    assert here.recv() == 0
    study = search.load_study(storage=search.SQLStorage(url, lease=lease), study_name=name)
    time.sleep(1.5 * lease)
    assert study.ask().number == 1, "its worker gives signs of life: it is slow, not dead"
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    died = time.monotonic()
    while (trial := study.ask()).number != 0:
        assert time.monotonic() - died < 2 * lease
        time.sleep(0.1)
    assert trial.restored == "so far"
    assert "x" in study.trials[0].params


def test_workers_share_a_study_in_a_database(url, name):
    sampler = search.TPESampler(seed=5, n_startup=6)
    study = search.create_study(storage=url, study_name=name, sampler=sampler)
    study.optimize(objectives.slow_bowl, n_trials=12, n_workers=2, ordered=2)
    alone = search.create_study(sampler=sampler)
    alone.optimize(objectives.bowl, n_trials=12, ordered=2)
    assert same(alone.trials, study.trials, times=False)


def test_a_newer_database_is_refused_and_an_older_one_brought_up_to_date(tmp_path, monkeypatch):
    import sqlalchemy

    from nestor.search import _sql

    url = f"sqlite+pysqlite:///{tmp_path}/old.db"
    search.create_study(storage=url, study_name="kept").optimize(objectives.bowl, n_trials=3)

    def add_column(connection):
        connection.execute(sqlalchemy.text("ALTER TABLE nestor_log ADD COLUMN noted VARCHAR(8)"))

    with monkeypatch.context() as later:
        later.setattr(_sql, "SCHEMA", 2)
        later.setitem(_sql._MIGRATIONS, 1, add_column)
        assert len(search.load_study(storage=url).trials) == 3
    with pytest.raises(nestor.NestorError, match="newer"):
        search.load_study(storage=url)
