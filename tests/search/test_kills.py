"""Workers killed at random: no finished trial is lost, all others are finished by somebody (slow; also a benchmark)."""

import multiprocessing
import os
import random
import signal
import time
import uuid

import pytest

from nestor import search
from nestor.search import TrialState
from tests.search import objectives

SPAWN = multiprocessing.get_context("spawn")
SERVER = os.environ.get("NESTOR_TEST_DATABASE")


def open_storage(where, lease):
    if "://" in str(where):
        return search.SQLStorage(where, lease=lease)
    return search.FileStorage(where, lease=lease)


def run_loop(where, name, lease):
    """A worker in the usual loop, until it is killed."""
    study = search.load_study(
        storage=open_storage(where, lease), study_name=name, sampler=search.RandomSampler(seed=0)
    )
    study.optimize(objectives.checkpointed)


def run_ask_and_tell(where, name, lease):
    """A worker with a loop of its own."""
    study = search.load_study(
        storage=open_storage(where, lease), study_name=name, sampler=search.RandomSampler(seed=0)
    )
    while True:
        trials = study.ask(2)
        study.tell(trials, [objectives.checkpointed(trial) for trial in trials])


def survived(where, name, work, kills, lease=0.4, workers=4, seed=0):
    """Kill workers one after another, and start others in their place; what was finished, and the study."""
    random_number = random.Random(seed)
    study = search.create_study(
        storage=open_storage(where, lease), study_name=name, sampler=search.RandomSampler(seed=0)
    )
    alive = [SPAWN.Process(target=work, args=(where, name, lease)) for _ in range(workers)]
    for worker in alive:
        worker.start()
    finished: dict[int, float] = {}
    while len(finished) < 8:  # they have all begun
        time.sleep(0.05)
        finished = {trial.number: trial.value for trial in study.trials_with(TrialState.COMPLETE)}
    for _ in range(kills):
        place = random_number.randrange(workers)
        pid = alive[place].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        alive[place].join()
        alive[place] = SPAWN.Process(target=work, args=(where, name, lease))
        alive[place].start()
        now = {trial.number: trial.value for trial in study.trials_with(TrialState.COMPLETE)}
        assert finished.items() <= now.items(), "a finished trial is lost, or has changed"
        finished = now
        time.sleep(random_number.uniform(0.0, 0.3))
    for worker in alive:
        worker.kill()
        worker.join()
    died = time.monotonic()
    study.optimize(objectives.checkpointed, total=len(study.trials))  # what the dead left behind
    return finished, study, time.monotonic() - died


def check(where, name, work, kills):
    finished, study, _ = survived(where, name, work, kills)
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))
    left = [trial for trial in study.trials if trial.state != TrialState.COMPLETE]
    assert all("died" in (trial.error or "") for trial in left), "only a trial that kept killing may fail"
    assert len(left) <= kills / 50
    assert all(study.trials[number].value == value for number, value in finished.items())
    alone = search.create_study(sampler=search.RandomSampler(seed=0))
    alone.optimize(objectives.checkpointed, n_trials=20)
    assert [trial.params for trial in alone.trials] == [trial.params for trial in study.trials[:20]]


@pytest.mark.parametrize("work", [run_loop, run_ask_and_tell])
def test_some_kills_lose_nothing(tmp_path, work):
    if SERVER:
        pytest.importorskip("sqlalchemy")
    check(SERVER or tmp_path / "s.db", uuid.uuid4().hex, work, kills=6)


@pytest.mark.slow
@pytest.mark.parametrize("work", [run_loop, run_ask_and_tell])
def test_two_hundred_kills_lose_nothing(tmp_path, work):
    if SERVER:
        pytest.importorskip("sqlalchemy")
    check(SERVER or tmp_path / "s.db", uuid.uuid4().hex, work, kills=200)
