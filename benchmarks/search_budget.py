"""Epochs until a target: successive halving that promotes, against Optuna's TPE with Hyperband.

The default sampler knows what an epoch is worth. Four hyperparameters move the floor of the loss and the speed at
which it is reached, not to the same place, so that early epochs mislead a little. Both sides look at epochs 1, 3, 9,
27 and 81; an epoch counts when it is run.
"""

import contextlib
import statistics
import sys

import numpy as np
from _search import as_line, optuna_or_exit

from nestor import search

EPOCHS, RUNGS, MOST = 81, (1, 3, 9, 27, 81), 8000
BEST, CURVATURE = np.array([0.35, 0.6, 0.25, 0.7]), np.array([6.0, 2.0, 1.5, 1.0])


def loss(x, epochs):
    floor = 0.05 + float((CURVATURE * (x - BEST) ** 2).sum())
    speed = 0.24 + 0.96 * np.exp(-8.0 * (x[0] - 0.45) ** 2)
    return floor + 1.2 * (1.0 + epochs) ** -speed


TARGET = loss(BEST + np.array([0.03, 0.0, 0.0, 0.0]), EPOCHS) + 0.012


class _ReachedError(Exception):
    pass


def objective_of(spent, pruned, restores):
    def objective(trial):
        x = np.array([trial.suggest_float(name, 0.0, 1.0) for name in "abcd"])
        value = np.inf
        for epoch in range((trial.restored or 0 if restores else 0) + 1, EPOCHS + 1):
            spent.append(epoch)
            value = loss(x, epoch)
            if value <= TARGET or len(spent) >= MOST:
                raise _ReachedError
            if epoch in RUNGS:
                if restores:
                    trial.checkpoint(epoch)
                trial.report(value, epoch)
                if trial.should_prune():
                    raise pruned
        return value

    return objective


def epochs(study, pruned, restores):
    spent = []
    with contextlib.suppress(_ReachedError):
        study.optimize(objective_of(spent, pruned, restores), n_trials=5000)
    return len(spent)


def main(seeds):
    optuna = optuna_or_exit()
    mine, theirs = [], []
    for seed in range(seeds):
        pruner = search.SuccessiveHalvingPruner(1, 3, promote=True)
        study = search.create_study(sampler=search.PortfolioSampler(seed=seed), pruner=pruner)
        mine.append(epochs(study, search.TrialPruned("others are better"), True))
        peer = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.HyperbandPruner(1, EPOCHS, 3)
        )
        theirs.append(epochs(peer, optuna.TrialPruned(), False))
    as_line(
        "epochs until a target on learning curves: at most half of Optuna's TPE with Hyperband",
        statistics.median(mine),
        statistics.median(theirs),
        unit="epochs",
        ranges=[[min(side), max(side)] for side in (mine, theirs)],
        seeds=seeds,
        optuna=optuna.__version__,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10)
