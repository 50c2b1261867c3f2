"""Objectives that worker processes can import; they import no jax."""

import os
import signal
import time

from nestor import search


def bowl(trial: search.Trial) -> float:
    x = trial.suggest_float("x", -5, 5)
    n = trial.suggest_int("n", 1, 8)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    extra = trial.suggest_float("rate", 1e-4, 1.0, log=True) if kind == "b" else 0.5
    return (x - 1) ** 2 + abs(n - 3) + extra


def slow_bowl(trial: search.Trial) -> float:
    time.sleep(0.01 * (trial.number % 3))
    return bowl(trial)


def deadly_once(trial: search.Trial) -> float:
    """Trial 3 kills its process in the middle, the first time; then it goes on from its checkpoint."""
    value = bowl(trial)
    if trial.number == 3 and trial.restored is None:
        trial.checkpoint({"half": value})
        os.kill(os.getpid(), signal.SIGKILL)
    trial.set_user_attr("restored", trial.restored)
    return value


def wrong(trial: search.Trial) -> float:
    raise KeyError("no such thing")


def no_jax(trial: search.Trial) -> float:
    import sys

    return float("jax" in sys.modules)


def nested(trial: search.Trial) -> float:
    """A study inside the trial; every third trial says what it cost besides."""
    width = trial.suggest_int("width", 1, 8)
    inner = search.create_study(parent=trial, sampler=search.RandomSampler(seed=trial.number))
    inner.optimize(lambda one: width * one.suggest_float("rate", 0.0, 1.0), total=4)
    if trial.number % 3 == 0:
        trial.add_cost(10)
    return inner.best_value


def checkpointed(trial: search.Trial) -> float:
    """Some work in steps, which a later attempt goes on with."""
    x = trial.suggest_float("x", -1, 1)
    done = trial.restored or 0
    for step in range(done, 4):
        time.sleep(0.004)
        if step % 2:
            trial.checkpoint(step + 1)
    return x * x


def batched(trials: list[search.Trial]) -> list[object]:
    xs = [trial.suggest_float("x", 0, 1) for trial in trials]
    return [MemoryError("too wide") if x > 0.9 else x for x in xs]


def climbs(trial: search.Trial) -> float:
    """The toy of population based training: gradient steps on a surrogate of 1.2 - |x|^2 that two numbers weigh."""
    a, b = trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0, 1)
    step, x = trial.restored or (0, (0.9, 0.9))
    for now in range(step + 1, 25):
        x = (x[0] * (1 - 0.04 * a), x[1] * (1 - 0.04 * b))
        if now % 4 == 0:
            trial.checkpoint((now, x))
            trial.report(1.2 - x[0] ** 2 - x[1] ** 2, now)
            if trial.should_prune():
                raise search.TrialPruned("waits for the others")
    return 1.2 - x[0] ** 2 - x[1] ** 2


def truncated(trial: search.Trial) -> float:
    raise EOFError("a truncated file")


def with_children(trial: search.Trial) -> float:
    """An objective that starts a process, as loaders of data do."""
    import multiprocessing

    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    child.start()
    child.join()
    return 1.0
