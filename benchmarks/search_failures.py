"""Failures teach: where 30 % of the space raises MemoryError, few of the last 50 of 100 trials still fail.

The space is a width, a depth and a rate; width + 0.6 depth > 1 does not fit in memory. Ten seeds, the default
sampler, against Optuna's default, which does not look at failed trials.
"""

import math
import statistics

from _search import as_line, optuna_or_exit

from nestor import search

SEEDS, TRIALS = 10, 100


def objective(trial):
    width, depth = trial.suggest_float("width", 0.0, 1.0), trial.suggest_float("depth", 0.0, 1.0)
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    if width + 0.6 * depth > 1.0:
        raise MemoryError("too big")
    return (width - 0.5) ** 2 + (depth - 0.6) ** 2 + 0.1 * (math.log10(rate) + 2) ** 2


def late_failures(study, failed):
    """The percentage of the last half of the trials that failed."""
    study.optimize(objective, n_trials=TRIALS, catch=(MemoryError,))
    late = list(study.trials)[TRIALS // 2 :]
    return 100 * sum(trial.state == failed for trial in late) / len(late)


def main():
    optuna = optuna_or_exit()
    pairs = []
    for seed in range(SEEDS):
        ours = search.create_study(sampler=search.PortfolioSampler(seed=seed))
        peer = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        pairs.append(
            (late_failures(ours, search.TrialState.FAILED), late_failures(peer, optuna.trial.TrialState.FAIL))
        )
    mine, theirs = zip(*pairs, strict=True)
    as_line(
        "with 30 % of the space raising MemoryError at most 5 % of the last 50 of 100 trials fail",
        statistics.median(mine),
        statistics.median(theirs),
        unit="% of the last 50 trials that fail, median",
        each=[list(mine), list(theirs)],
        seeds=SEEDS,
        optuna=optuna.__version__,
    )


if __name__ == "__main__":
    main()
