"""The same study of Optuna's, its code and its sampler, in a file of ours by the bridge and in its own journal file."""

import pathlib
import statistics
import sys
import tempfile
import time

from _search import as_line, optuna_or_exit

import nestor.optuna
from nestor import search

NAMES = [f"x{k}" for k in range(10)]


def objective(trial):
    return sum(trial.suggest_float(name, 0.0, 1.0) for name in NAMES)


def cost(optuna, storage, count):
    """Milliseconds of CPU a trial of random points, the storage's share and Optuna's own."""
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    before = time.process_time()
    study.optimize(objective, n_trials=count)
    return 1e3 * (time.process_time() - before) / count


def main(count, rounds):
    optuna = optuna_or_exit()
    journal = optuna.storages.journal
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            mine = nestor.optuna.Storage(search.FileStorage(pathlib.Path(folder) / "s.db"))
            theirs = optuna.storages.JournalStorage(
                journal.JournalFileBackend(str(pathlib.Path(folder) / "s.log"))
            )
            pairs.append((cost(optuna, mine, count), cost(optuna, theirs, count)))
            mine.remove_session()
    as_line(
        "a study of Optuna's of 10 parameters in our file costs at most a quarter of what its journal file costs",
        *(statistics.median(side) for side in zip(*pairs, strict=True)),
        unit="ms of CPU a trial",
        rounds=rounds,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 200, 5)
