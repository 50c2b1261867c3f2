"""Trials that tell their gradients: how many it takes, against SciPy's L-BFGS-B from random starts.

Branin and Hartmann-6: trials until 1 % of the minimum, the median over 10 seeds (1000 where it is not reached in
30). Rosenbrock-5: the regret after 40 trials. Ours is the default sampler; beside it Optuna's GPSampler, which has
no use for gradients, where `--optuna` is given. Names of problems choose some.
"""

import statistics
import sys

import numpy as np
from _search import as_line, optuna_or_exit
from _search_problems import SMOOTH, regret, suggest
from scipy import optimize

from nestor import search

NEVER = 1000


class _EnoughError(Exception):
    pass


def ours(name, seed, trials):
    function, box, least = SMOOTH[name]
    study = search.create_study(sampler=search.PortfolioSampler(seed=seed))
    found = []
    for _ in range(trials):
        trial = study.ask()
        value, slope = function(suggest(trial, box))
        study.tell(trial, value, gradient={f"x{place}": float(part) for place, part in enumerate(slope)})
        found.append(value - least)
    return found


def descents(name, seed, trials):
    function, box, least = SMOOTH[name]
    low, high = np.array(box).T
    random, found = np.random.default_rng(seed), []

    def counted(point):
        if len(found) == trials:
            raise _EnoughError
        value, slope = function(point)
        found.append(value - least)
        return value, slope

    try:
        while True:
            optimize.minimize(counted, random.uniform(low, high), jac=True, method="L-BFGS-B", bounds=box)
    except _EnoughError:
        return found


def gaussian(name, seed, trials):
    optuna = optuna_or_exit()
    study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=seed))
    study.optimize(regret(name), n_trials=trials)
    return [trial.value for trial in study.trials]


def trials_until(level, found):
    return next((place for place, value in enumerate(found, 1) if value <= level), NEVER)


def main(with_optuna, names):
    runs = [ours, descents] + [gaussian] * with_optuna
    for name, seeds, trials in (("Branin", 10, 30), ("Hartmann-6", 10, 30), ("Rosenbrock-5", 10, 40)):
        if names and name not in names:
            continue
        level = 0.01 * abs(SMOOTH[name][2])
        curves = [[run(name, seed, trials) for seed in range(seeds)] for run in runs]
        if level:
            claim = f"{name} with gradients: within 1 % of the minimum after a median of at most 12 trials"
            scores = [statistics.median(trials_until(level, found) for found in side) for side in curves]
        else:
            claim = f"{name} with gradients: a regret under 0.1 after {trials} trials"
            scores = [statistics.median(min(found) for found in side) for side in curves]
        more = {"optuna_gp": scores[2]} if with_optuna else {}
        unit = "trials" if level else "regret"
        as_line(claim, *scores[:2], unit=unit, peer_is="L-BFGS-B, multi-start", seeds=seeds, **more)


if __name__ == "__main__":
    main("--optuna" in sys.argv, [word for word in sys.argv[1:] if word in SMOOTH])
