"""The default sampler against Optuna's: the median regret after 100 trials, over 20 seeds, on four problems.

`search_quality.py SEEDS TRIALS` takes other numbers. One line a problem; the CPU time a trial stands beside.
"""

import statistics
import sys
import time

from _search import as_line, optuna_or_exit
from _search_problems import regret

from nestor import search


def best(study, objective, trials):
    before = time.process_time()
    study.optimize(objective, n_trials=trials)
    return study.best_value, (time.process_time() - before) / trials


def main(name, seeds, trials):
    optuna = optuna_or_exit()
    pairs = []
    for seed in range(seeds):
        ours = search.create_study(sampler=search.PortfolioSampler(seed=seed))
        peer = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        pairs.append((best(ours, regret(name), trials), best(peer, regret(name), trials)))
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    as_line(
        f"{name}: the median regret of the default sampler after {trials} trials is not worse than Optuna's",
        statistics.median(value for value, _ in mine),
        statistics.median(value for value, _ in theirs),
        unit="regret",
        upper_quartiles=[round(statistics.quantiles([v for v, _ in side])[2], 5) for side in (mine, theirs)],
        ms_a_trial=[round(1e3 * statistics.median(cost for _, cost in side), 2) for side in (mine, theirs)],
        seeds=seeds,
        optuna=optuna.__version__,
    )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]] or [20, 100]
    for problem in ("Branin", "Hartmann-6", "Rosenbrock-5", "conditional"):
        main(problem, *numbers)
