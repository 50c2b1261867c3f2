"""Bytes a trial of 10 parameters takes in memory, and ask(64) with tell(64), against Optuna."""

import gc
import statistics
import sys
import time
import tracemalloc

from _search import as_line, optuna_or_exit

from nestor import search

NAMES = [f"x{k}" for k in range(10)]


def ours(count):
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    space = {name: search.Float(0.0, 1.0) for name in NAMES}
    for _ in range(count // 1000):
        study.tell(study.ask(1000, space=space), [0.0] * 1000)
    return study


def peer(count):
    optuna = optuna_or_exit()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler())
    space = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in NAMES}
    for _ in range(count):
        study.tell(study.ask(space), 0.0)
    return study


def bytes_per_trial(make, count):
    make(1000)
    gc.collect()
    tracemalloc.start()
    study = make(count)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    return taken, study


def batch(ask_and_tell, rounds=15):
    times = []
    for _ in range(rounds):
        before = time.process_time()
        ask_and_tell()
        times.append(time.process_time() - before)
    return statistics.median(times)


if __name__ == "__main__":
    size = int(sys.argv[1]) if sys.argv[1:] else 20_000
    (mine, study), (theirs, other) = bytes_per_trial(ours, size), bytes_per_trial(peer, 2000)
    before = time.process_time()
    len(study.trials)
    as_line(
        f"a trial of 10 parameters takes less than 400 bytes ({size} trials; Optuna: 2000), study.trials < 50 ms",
        *(mine, theirs),
        unit="bytes",
        view_seconds=round(time.process_time() - before, 6),
    )
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    other = optuna_or_exit().create_study()
    as_line(
        "ask(64) and tell(64) in memory take at most 2 ms of CPU",
        batch(lambda: study.tell(study.ask(64), [0.0] * 64)),
        batch(lambda: [other.tell(trial, 0.0) for trial in [other.ask() for _ in range(64)]]),
        unit="CPU s",
    )
