"""200 workers killed at random (SIGKILL), others started in their place: no finished trial may be lost.

Four workers run trials of about 20 ms in four steps, with a checkpoint after every second one; every kill is followed
by a look at all trials that were finished before. In the end somebody finishes what the dead have left. Twice: in the
usual loop, and by ask and tell. The peer is Optuna with its journal under a tenth of the kills: of the trials of its
dead workers, how many run for ever.
"""

import multiprocessing
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

from _search import as_line, optuna_or_exit

from nestor import search

WORKERS, LEASE = 4, 0.4


def objective(trial):
    x = trial.suggest_float("x", -1.0, 1.0)
    for step in range(getattr(trial, "restored", None) or 0, 4):
        time.sleep(0.005)
        if step % 2 and hasattr(trial, "checkpoint"):
            trial.checkpoint(step + 1)
    return x * x


def opened(path):
    storage = search.FileStorage(path, lease=LEASE)
    return search.load_study(storage=storage, sampler=search.RandomSampler(seed=0))


def loop(path):
    opened(path).optimize(objective)


def ask_and_tell(path):
    study = opened(path)
    while True:
        trials = study.ask(2)
        study.tell(trials, [objective(trial) for trial in trials])


def peer_study(path, make=False):
    optuna = optuna_or_exit()
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    if make:
        return optuna.create_study(storage=storage, study_name="s")
    return optuna.load_study(storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler())


def peer_loop(path):
    peer_study(path).optimize(objective)


def killed(work, path, kills, look):
    """Kill, look and start again; everybody is dead in the end."""
    chance, context = random.Random(0), multiprocessing.get_context("fork")
    alive = [context.Process(target=work, args=(path,)) for _ in range(WORKERS)]
    for worker in alive:
        worker.start()
    time.sleep(1.0)
    for _ in range(kills):
        place = chance.randrange(WORKERS)
        os.kill(alive[place].pid, signal.SIGKILL)
        alive[place].join()
        look()
        alive[place] = context.Process(target=work, args=(path,))
        alive[place].start()
        time.sleep(chance.uniform(0.02, 0.2))
    for worker in alive:
        worker.kill()
        worker.join()


def ours(work, kills):
    """Finished trials that were lost or changed; trials that a kill interrupted; all trials; seconds to mend."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "s.db"
        search.create_study(storage=path)
        study, finished, lost = opened(path), {}, 0

        def look():
            nonlocal finished, lost
            now = {trial.number: trial.value for trial in study.trials_with(search.TrialState.COMPLETE)}
            lost += sum(now.get(number) != value for number, value in finished.items())
            finished = now

        killed(work, path, kills, look)
        before = time.perf_counter()
        study.optimize(objective, total=len(study.trials))
        look()
        trials = study.trials
        lost += len(trials) - len(finished)
        again = sum(trial.attempt > 1 for trial in trials)
        return lost, again, len(trials), time.perf_counter() - before


if __name__ == "__main__":
    kills = int(sys.argv[1]) if sys.argv[1:] else 200
    optuna = optuna_or_exit()
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "s.log")
        study = peer_study(path, make=True)
        killed(peer_loop, path, kills // 10, lambda: None)
        for_ever = sum(trial.state == optuna.trial.TrialState.RUNNING for trial in study.trials)
    for name, work in (("in the usual loop", loop), ("by ask and tell", ask_and_tell)):
        lost, again, count, seconds = ours(work, kills)
        as_line(
            f"{kills} random kills over {WORKERS} workers, {name}: no trial is lost",
            *(lost, max(for_ever, 1)),
            unit=f"trials lost (Optuna: trials that run for ever after {kills // 10} kills)",
            trials=count,
            interrupted_by_a_kill=again,
            seconds_to_finish_what_was_left=round(seconds, 2),
        )
