"""Trials until an optimum is found, where they carry gradients, against Optuna's GP and TPE, and L-BFGS-B.

Within 1 % of the optimum of Branin and Hartmann-6 in a median of at most 12 trials over 10 seeds, Rosenbrock-5 with a
regret under 0.1 in 40, and never more than 1.2 times the better of the Gaussian process alone and multi-start L-BFGS-B.

    python benchmarks/tuning_gradients.py                the claims, ours and L-BFGS-B
    python benchmarks/tuning_gradients.py --peers        with Optuna as well (minutes)
"""

import statistics
import sys

import jax
import numpy as np
from _functions import FUNCTIONS
from _search import as_line, optuna_or_exit

from nestor import search, tuning

jax.config.update("jax_enable_x64", True)
SEEDS, MOST = 10, 100


class _Found(Exception):
    pass


def evaluator(name):
    fun, low, high, least, regret = FUNCTIONS[name]
    both = jax.jit(jax.value_and_grad(fun))

    def evaluate(x):
        value, gradient = both(np.asarray(x, float))
        return float(value), np.asarray(gradient), float(value) - least <= regret

    return evaluate, np.array(low), np.array(high)


def ours(name, sampler):
    evaluate, low, high = evaluator(name)
    study = search.create_study(sampler=sampler)
    for number in range(MOST):
        trial = study.ask()
        x = [trial.suggest_float(f"x{k}", *ends) for k, ends in enumerate(zip(low, high, strict=True))]
        value, gradient, found = evaluate(x)
        if found:
            return number + 1
        study.tell(trial, value, gradient={f"x{k}": slope for k, slope in enumerate(gradient)})
    return MOST


def multi_start(name, seed):
    from scipy.optimize import minimize

    evaluate, low, high = evaluator(name)
    draw, count = np.random.default_rng(seed), 0

    def loss(place):
        nonlocal count
        count += 1
        value, gradient, found = evaluate(low + place * (high - low))
        if found or count >= MOST:
            raise _Found("it is within the regret, or there are no more trials")
        return value, gradient * (high - low)

    try:
        while True:
            minimize(loss, draw.random(len(low)), jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(low))
    except _Found:
        return count


def optuna_trials(name, sampler):
    optuna = optuna_or_exit()
    evaluate, low, high = evaluator(name)
    study = optuna.create_study(sampler=sampler)
    for number in range(MOST):
        trial = study.ask()
        x = [trial.suggest_float(f"x{k}", *ends) for k, ends in enumerate(zip(low, high, strict=True))]
        value, _, found = evaluate(x)
        if found:
            return number + 1
        study.tell(trial, value)
    return MOST


def main(with_peers):
    for name in FUNCTIONS:
        found = {
            "descent": [ours(name, tuning.DescentSampler(seed)) for seed in range(SEEDS)],
            "gp": [ours(name, search.GPSampler(seed)) for seed in range(SEEDS)],
            "multi-start L-BFGS-B": [multi_start(name, seed) for seed in range(SEEDS)],
        }
        if with_peers:
            samplers = optuna_or_exit().samplers
            found["optuna TPE"] = [optuna_trials(name, samplers.TPESampler(seed=k)) for k in range(SEEDS)]
            found["optuna GP"] = [optuna_trials(name, samplers.GPSampler(seed=k)) for k in range(SEEDS)]
        medians = {who: statistics.median(trials) for who, trials in found.items()}
        as_line(
            f"{name}: trials that carry gradients until it is found, median of {SEEDS} seeds",
            medians["descent"],
            min(medians["gp"], medians["multi-start L-BFGS-B"]),
            unit="trials",
            peer_is="the better of our GP alone and multi-start L-BFGS-B",
            medians=medians,
            all_seeds={who: sorted(trials) for who, trials in found.items()},
            most=MOST,
        )


if __name__ == "__main__":
    main("--peers" in sys.argv)
