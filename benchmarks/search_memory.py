"""What trials take in memory, and what asking and telling takes in time, against Optuna.

100,000 trials of 10 parameters (Optuna: 2,000); batches of 64, bare and with 10 parameters; and trials of an array
of 10,000 values with three categories.
"""

import gc
import statistics
import sys
import time
import tracemalloc

from _search import as_line, optuna_or_exit

from nestor import search

NAMES = [f"x{k}" for k in range(10)]
SIZE, KINDS = 10_000, "abc"


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


def cpu(run, rounds=15):
    times = []
    for _ in range(rounds):
        before = time.process_time()
        run()
        times.append(time.process_time() - before)
    return statistics.median(times)


def batches():
    optuna = optuna_or_exit()
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    other = optuna.create_study(sampler=optuna.samplers.RandomSampler())
    space = {name: search.Float(0.0, 1.0) for name in NAMES}
    theirs = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in NAMES}
    as_line(
        "ask(64) and tell(64) of 10 parameters in memory take at most 2 ms of CPU",
        cpu(lambda: study.tell(study.ask(64, space=space), [0.0] * 64)),
        cpu(lambda: [other.tell(trial, 0.0) for trial in [other.ask(theirs) for _ in range(64)]]),
        unit="CPU s",
        without_parameters_ours=cpu(lambda: study.tell(study.ask(64), [0.0] * 64)),
        without_parameters_peer=cpu(
            lambda: [other.tell(trial, 0.0) for trial in [other.ask() for _ in range(64)]]
        ),
    )


def wide(trial):
    trial.suggest_array("w", SIZE, -1.0, 1.0)
    for name in KINDS:
        trial.suggest_categorical(name, ["u", "v", "w"])
    return 0.0


def wide_peer(trial):
    for place in range(SIZE):
        trial.suggest_float(f"w{place}", -1.0, 1.0)
    for name in KINDS:
        trial.suggest_categorical(name, ["u", "v", "w"])
    return 0.0


def overhead(study, objective, count):
    study.optimize(objective, n_trials=count)
    seconds = cpu(lambda: study.optimize(objective, n_trials=count), rounds=3) / count
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    study.optimize(objective, n_trials=count)
    gc.collect()
    taken = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    return seconds, taken


def arrays():
    optuna = optuna_or_exit()
    other = optuna.create_study(sampler=optuna.samplers.RandomSampler())
    peer_seconds, peer_bytes = overhead(other, wide_peer, 1)
    for sampler in (search.RandomSampler(seed=0), search.TPESampler(seed=0)):
        seconds, taken = overhead(search.create_study(sampler=sampler), wide, 20)
        as_line(
            f"an array of {SIZE} values and 3 categories, {type(sampler).__name__}: under 5 ms and 200 kB a trial",
            *(seconds, peer_seconds),
            unit="CPU s a trial (Optuna: 10,000 floats, random)",
            bytes_ours=round(taken),
            bytes_peer=round(peer_bytes),
        )


if __name__ == "__main__":
    size = int(sys.argv[1]) if sys.argv[1:] else 100_000
    (mine, study), (theirs, other) = bytes_per_trial(ours, size), bytes_per_trial(peer, 2000)
    view = cpu(lambda: len(study.trials), rounds=5)
    as_line(
        f"a trial of 10 parameters takes less than 400 bytes ({size} trials; Optuna: 2000), study.trials < 50 ms",
        *(mine, theirs),
        unit="bytes",
        view_seconds=round(view, 6),
        view_seconds_peer=round(cpu(lambda: other.trials, rounds=5), 6),
    )
    batches()
    arrays()
