"""Trials a second into a file: two processes, 10 parameters, against Optuna's journal and its SQLite.

Durable to a killed process (the default), and with a wait for the disk at every commit (`sync="full"`), as Optuna's
journal has it. The two processes begin when both have opened the study, and trials are read back and counted.
"""

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


def ours(path, sync):
    return search.FileStorage(path, sync=sync)


def our_worker(storage, count, ready, go):
    study = search.load_study(storage=ours(*storage), study_name="s", sampler=search.RandomSampler(seed=0))
    ready.release()
    go.wait()
    study.optimize(objective, n_trials=count)


def peers(path):
    optuna = optuna_or_exit()
    if path.endswith(".log"):
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    return optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 300}})


def peer_worker(path, count, ready, go):
    optuna = optuna_or_exit()
    study = optuna.load_study(storage=peers(path), study_name="s", sampler=optuna.samplers.RandomSampler())
    ready.release()
    go.wait()
    study.optimize(objective, n_trials=count)


def rate(worker, where, count, processes=2):
    """Trials a second of all processes, from when all are ready to when all are done."""
    context = multiprocessing.get_context("fork")
    ready, go = context.Semaphore(0), context.Event()
    workers = [context.Process(target=worker, args=(where, count, ready, go)) for _ in range(processes)]
    for one in workers:
        one.start()
    for _ in workers:
        ready.acquire()
    before = time.perf_counter()
    go.set()
    for one in workers:
        one.join()
    taken = time.perf_counter() - before
    if any(one.exitcode for one in workers):
        raise RuntimeError("a worker failed")
    return processes * count / taken


def our_rate(folder, sync, count, processes=2):
    where = (str(pathlib.Path(folder) / f"{sync}.db"), sync)
    study = search.create_study(storage=ours(*where), study_name="s")
    found = rate(our_worker, where, count, processes)
    trials = study.trials
    whole = [trial.number for trial in trials] == list(range(processes * count))
    return found, whole and all(trial.state.is_finished for trial in trials)


def peer_rate(folder, name, count):
    path = str(pathlib.Path(folder) / name)
    optuna_or_exit().create_study(storage=peers(path), study_name="s")
    return rate(peer_worker, path, count)


def main(count, rounds):
    seen = {"normal": [], "full": [], "journal": [], "sqlite": []}
    lost = 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for sync in ("normal", "full"):
                found, whole = our_rate(folder, sync, count)
                seen[sync].append(found)
                lost += not whole
            seen["journal"].append(peer_rate(folder, "s.log", max(count // 20, 10)))
            seen["sqlite"].append(peer_rate(folder, "peer.db", max(count // 50, 5)))
    with tempfile.TemporaryDirectory() as folder:
        four, whole = our_rate(folder, "normal", 500, processes=4)
        lost += not whole
    medians = {name: statistics.median(rates) for name, rates in seen.items()}
    unit = {"unit": "trials a second (more is better)", "rounds": rounds}
    claim = "two processes write trials of 10 parameters into a file"
    line = f"{claim}: at least 150 a second and 8 times Optuna's journal"
    as_line(line, medians["normal"], medians["journal"], **unit, studies_with_losses=lost)
    as_line(f"{claim}: at least 40 times Optuna's SQLite", medians["normal"], medians["sqlite"], **unit)
    as_line(
        f"{claim}, waiting for the disk at every commit: at least 2 times Optuna's journal",
        *(medians["full"], medians["journal"]),
        **unit,
    )
    line = "four processes write 2,000 trials: none lost, none twice, no error (peer: what was asked for)"
    as_line(line, 2000 if whole else 0, 2000, unit="trials", a_second=round(four, 1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 500, 3)
