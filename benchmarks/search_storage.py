"""Trials a second into a file, durable to a killed process: two processes, 10 parameters, against Optuna's journal."""

import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time

from _search import as_line, optuna_or_exit

from nestor import search

NAMES = [f"x{k}" for k in range(10)]


def objective(trial):
    return sum(trial.suggest_float(name, 0.0, 1.0) for name in NAMES)


def our_worker(path, count):
    study = search.load_study(storage=path, study_name="s", sampler=search.RandomSampler(seed=0))
    study.optimize(objective, n_trials=count)


def peer_worker(path, count):
    optuna = optuna_or_exit()
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    study = optuna.load_study(storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler())
    study.optimize(objective, n_trials=count)


def rate(worker, path, count):
    """Trials a second of two processes, from start to end without what importing takes."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=worker, args=(path, count)) for _ in range(2)]
    before = time.perf_counter()
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    return 2 * count / (time.perf_counter() - before)


def main(ours_count, peer_count, rounds):
    optuna = optuna_or_exit()
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            path = str(pathlib.Path(folder) / "s.db")
            study = search.create_study(storage=path, study_name="s")
            mine = rate(our_worker, path, ours_count)
            numbers = [trial.number for trial in study.trials]
            whole = numbers == list(range(2 * ours_count)) and all(t.state.is_finished for t in study.trials)
            log = str(pathlib.Path(folder) / "s.log")
            backend = optuna.storages.journal.JournalFileBackend(log)
            optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name="s")
            pairs.append((mine, rate(peer_worker, log, peer_count)))
    as_line(
        "two processes write at least 150 trials/s of 10 parameters, and 8 times Optuna's journal file",
        *(statistics.median(side) for side in zip(*pairs, strict=True)),
        unit="trials a second (more is better)",
        rounds=rounds,
        nothing_lost=whole,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 500, 50, 3)
