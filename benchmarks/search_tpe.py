"""A trial by TPE against Optuna's: CPU time with many finished trials; objective of 10 parameters.

Both studies start from the same random trials. Optuna is measured over few trials, because each takes long.
"""

import statistics
import sys
import time

import numpy as np
from _search import as_line, optuna_or_exit

from nestor import search

NAMES = [f"x{k}" for k in range(8)]


def objective(trial):
    total = sum(trial.suggest_float(name, 0.0, 1.0) ** 2 for name in NAMES)
    return total + trial.suggest_int("n", 1, 10) + (trial.suggest_categorical("kind", ["a", "b", "c"]) == "a")


def cpu_per_trial(study, count):
    before = time.process_time()
    study.optimize(objective, n_trials=count)
    return (time.process_time() - before) / count


def main(finished, count_ours, count_peer, rounds):
    optuna = optuna_or_exit()
    ours = search.create_study(sampler=search.RandomSampler(seed=0))
    ours.optimize(objective, n_trials=finished)
    ours.sampler = search.TPESampler(seed=1)
    peer = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    kinds = {
        **{name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in NAMES},
        "n": optuna.distributions.IntDistribution(1, 10),
        "kind": optuna.distributions.CategoricalDistribution(["a", "b", "c"]),
    }
    peer.add_trials(
        optuna.trial.create_trial(params=dict(trial.params), distributions=kinds, value=trial.value)
        for trial in ours.trials
    )
    pairs = [(cpu_per_trial(ours, count_ours), cpu_per_trial(peer, count_peer)) for _ in range(rounds)]
    as_line(
        f"a TPE trial of 10 parameters at {finished} finished trials: at most "
        f"{6 if finished <= 5000 else 25} ms of CPU",
        *(statistics.median(side) for side in zip(*pairs, strict=True)),
        unit="CPU s a trial",
        rounds=rounds,
        optuna=optuna.__version__,
        numpy=np.__version__,
    )


if __name__ == "__main__":
    for size in [int(word) for word in sys.argv[1:]] or [5000, 20000]:
        main(size, 20, 4, 3)
