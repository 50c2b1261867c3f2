"""Many processes over one study: nothing lost, nothing twice, dead workers replaced, the order kept."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

import nestor
from nestor import search
from nestor.search import TrialState
from tests.search import objectives
from tests.search.test_study import same


def run(n_workers, ordered, storage=None, trials=24, sampler=None, objective=objectives.slow_bowl):
    study = search.create_study(storage=storage, sampler=sampler or search.TPESampler(seed=5, n_startup=6))
    study.optimize(objective, n_trials=trials, n_workers=n_workers, ordered=ordered)
    return study


def test_a_seeded_study_is_the_same_with_any_number_of_workers(tmp_path):
    alone = run(1, ordered=4)
    assert same(alone.trials, run(4, ordered=4, storage=tmp_path / "four.db").trials, times=False)
    assert same(alone.trials, run(2, ordered=4).trials, times=False)  # in memory
    assert not same(alone.trials, run(1, ordered=1).trials, times=False)


@pytest.mark.slow
def test_a_portfolio_is_the_same_with_any_number_of_workers(tmp_path):
    alone, many = (
        run(n, ordered=2, storage=tmp_path / f"{n}.db", trials=20, sampler=search.PortfolioSampler(seed=5))
        for n in (1, 2)
    )
    assert same(alone.trials, many.trials, times=False)


@pytest.mark.parametrize("make", [search.TPESampler, search.PortfolioSampler])
def test_a_seeded_study_is_the_same_when_interrupted_and_resumed(tmp_path, make):
    whole = run(1, ordered=None, objective=objectives.bowl, sampler=make(seed=5, n_startup=6))
    count = 0

    def interrupted(trial):
        nonlocal count
        count += 1
        value = objectives.bowl(trial)
        if count == 15:
            raise KeyboardInterrupt
        return value

    def sampler():
        return make(seed=5, n_startup=6)

    study = search.create_study(storage=tmp_path / "s.db", sampler=sampler())
    with pytest.raises(KeyboardInterrupt):
        study.optimize(interrupted, n_trials=24)
    again = search.load_study(storage=tmp_path / "s.db", sampler=sampler())
    again.optimize(objectives.bowl, n_trials=10)
    assert same(whole.trials, again.trials, times=False)


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(tmp_path):
    study = search.create_study(storage=tmp_path / "s.db", sampler=search.RandomSampler(seed=0))
    study.optimize(objectives.deadly_once, n_trials=8, n_workers=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 8
    third = study.trials[3]
    assert third.user_attrs["restored"] == {"half": third.value}
    assert third.attempt == 2


def test_a_trial_that_kills_every_worker_fails(tmp_path):
    study = search.create_study(storage=tmp_path / "s.db")
    study.ask(2)
    study.tell(0, 0.0)
    channel = study._channel
    for _ in range(4):
        channel.commit({"do": "orphan", "worker": channel.worker, "at": time.time()})
        assert study.ask().number == 1
    channel.commit({"do": "orphan", "worker": channel.worker, "at": time.time()})
    assert study.ask().number == 2
    assert study.trials[1].state == TrialState.FAILED
    assert "died" in study.trials[1].error


def test_an_error_in_a_worker_is_raised_here(tmp_path):
    study = search.create_study(storage=tmp_path / "s.db")
    with pytest.raises(KeyError, match="no such thing"):
        study.optimize(objectives.wrong, n_trials=4, n_workers=2)
    assert all(trial.state != TrialState.RUNNING for trial in study.trials)


def test_workers_of_a_study_with_errors_that_are_caught():
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    study.optimize(objectives.wrong, n_trials=3, n_workers=2, catch=KeyError)
    assert [trial.state for trial in study.trials] == [TrialState.FAILED] * 3


def _write(path, count):
    study = search.load_study(storage=path, sampler=search.RandomSampler(seed=os.getpid()))
    for _ in range(count):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))


def test_four_writers_lose_nothing(tmp_path):
    path = tmp_path / "s.db"
    study = search.create_study(storage=path)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, 50)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len(study.trials) == 200
    assert all(trial.state == TrialState.COMPLETE and trial.attempt == 1 for trial in study.trials)


def _hang(path, lease, told):
    study = search.load_study(storage=search.FileStorage(path, lease=lease))
    trial = study.ask()
    trial.checkpoint("so far")
    told.send(trial.number)
    time.sleep(60)


def test_an_asked_trial_of_a_killed_process_is_reclaimed_within_two_leases(tmp_path):
    path, lease = tmp_path / "s.db", 1.5
    search.create_study(storage=path)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=_hang, args=(path, lease, there))
    worker.start()
    assert here.recv() == 0
    study = search.load_study(storage=search.FileStorage(path, lease=lease))
    time.sleep(1.5 * lease)
    assert study.ask().number == 1, "its worker gives signs of life: it is slow, not dead"
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    died = time.monotonic()
    while (trial := study.ask()).number != 0:
        assert time.monotonic() - died < 2 * lease
        time.sleep(0.1)
    assert trial.restored == "so far"


def test_a_newer_file_is_refused(tmp_path):
    import sqlite3

    search.create_study(storage=tmp_path / "s.db")
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("UPDATE schema SET version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(nestor.NestorError, match="newer"):
        search.load_study(storage=tmp_path / "s.db")


def test_a_trial_of_which_five_workers_died_has_failed(tmp_path):
    path = tmp_path / "s.db"
    study = search.create_study(storage=path, study_name="s", sampler=search.RandomSampler(seed=0))
    dead = {"by": "gone", "lease": 1.0}
    study._channel.commit({"do": "ask", "n": 1, "at": 0.0, **dead})
    for attempt in (2, 3, 4, 5):
        assert study._channel.ledger.given_up(0, 10.0 * attempt) is None
        study._channel.commit({"do": "claim", "number": 0, "attempt": attempt, "at": 10.0 * attempt, **dead})
    assert study.ask().number == 1
    assert (study.trials[0].state, study.trials[0].error) == (TrialState.FAILED, "5 workers died of it")


FORKED = """
import os, sys, time
from nestor import search

study = search.create_study(storage=search.FileStorage(sys.argv[1], lease=0.5), sampler=search.RandomSampler(seed=0))
study.tell(study.ask(), 0.0)  # so that there are signs of life
child = os.fork()
if not child:
    trial = study.ask()
    time.sleep(1.6)
    study.tell(trial, float(trial.number))
    os._exit(0)
time.sleep(1.0)
print(search.load_study(storage=sys.argv[1]).ask().number)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_gives_signs_of_life_of_its_own(tmp_path):
    """A study that was opened before is used by the child; a slow trial of the child's is nobody else's."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "s.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "2\n", done.stderr
    trial = search.load_study(storage=tmp_path / "s.db").trials[1]
    assert (trial.value, trial.attempt) == (1.0, 1)
