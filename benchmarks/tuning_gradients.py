"""Trials until an optimum is found, and the regret after so many, where trials carry their gradients.

Branin and Hartmann-6 within 1 % of the optimum in a median of at most 12 trials over 10 seeds, Rosenbrock-5 with a
regret under 0.1 in 40, and never more than 1.2 times the better of the Gaussian process alone and multi-start L-BFGS-B.
Judged are the sampler that `nestor.tuning.tune` has by default and the one that a study has. Everyone has the same
function and draws its own random points; an evaluation with its gradient is one trial, whoever makes it.

    python benchmarks/tuning_gradients.py                the claims; ours and L-BFGS-B
    python benchmarks/tuning_gradients.py --peers        with Optuna's GP and TPE as well, which know no gradients
    python benchmarks/tuning_gradients.py Branin ...     some of the problems
"""

import itertools
import statistics
import sys

import numpy as np
from _search import as_line, optuna_or_exit
from _search_problems import SMOOTH, suggest
from scipy.optimize import minimize

from nestor import search, tuning

SEEDS, MOST = 10, 60
AFTER = (12, 25)  # trials after which the regret is looked at
NEGLIGIBLE = 1e-6  # a regret that is as good as none


class _EnoughError(Exception):
    pass


class Watched:
    """A problem that keeps count: the regret of every trial, until there are enough of them."""

    def __init__(self, name):
        self._function, self.box, self._least = SMOOTH[name]
        self._level = 0.01 * abs(self._least) or 0.1
        self.regrets = []

    def __call__(self, point):
        value, slope = self._function(point)
        self.regrets.append(float(value) - self._least)
        if len(self.regrets) >= MOST or (len(self.regrets) >= AFTER[-1] and self.found < MOST):
            raise _EnoughError
        return float(value), slope

    @property
    def found(self):
        """The trial that is good enough, from 1; `MOST` where none is."""
        good = (place for place, regret in enumerate(self.regrets, 1) if regret <= self._level)
        return next(good, MOST)

    def regret(self, trials):
        return max(min(self.regrets[:trials]), NEGLIGIBLE)


def in_study(study, sloped):
    """Trials of a study of ours, or of Optuna's."""

    def run(problem):
        while True:
            trial = study.ask()
            value, slope = problem(suggest(trial, problem.box))
            told = {f"x{place}": float(part) for place, part in enumerate(slope)}
            study.tell(trial, value, **({"gradient": told} if sloped else {}))

    return run


def multi_start(seed):
    """L-BFGS-B from one random point after another, in the unit cube."""

    def run(problem):
        low, high = np.array(problem.box).T
        draw = np.random.default_rng(seed)

        def loss(place):
            value, slope = problem(low + place * (high - low))
            return value, slope * (high - low)

        for _ in itertools.count():
            minimize(loss, draw.random(len(low)), jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(low))

    return run


def rivals(seed, with_peers):
    """Who takes part: name to what runs a problem until it has enough."""
    ours = {
        "tune": tuning.DescentSampler(seed),
        "study": search.PortfolioSampler(seed),
        "gp": search.GPSampler(seed),
    }
    runs = {who: in_study(search.create_study(sampler=sampler), True) for who, sampler in ours.items()}
    runs["multi-start L-BFGS-B"] = multi_start(seed)
    if with_peers:
        optuna = optuna_or_exit()
        for who, kind in (
            ("optuna GP", optuna.samplers.GPSampler),
            ("optuna TPE", optuna.samplers.TPESampler),
        ):
            runs[who] = in_study(optuna.create_study(sampler=kind(seed=seed)), False)
    return runs


def main(name, with_peers, seeds):
    watched = {}
    for seed in seeds:
        for who, run in rivals(seed, with_peers).items():
            problem = Watched(name)
            watched.setdefault(who, []).append(problem)
            try:
                run(problem)
            except _EnoughError:
                continue
    trials = {who: statistics.median(one.found for one in ones) for who, ones in watched.items()}
    regrets = {
        who: [float(f"{statistics.median(one.regret(count) for one in ones):.3g}") for count in AFTER]
        for who, ones in watched.items()
    }
    better = min(trials["gp"], trials["multi-start L-BFGS-B"])
    as_line(
        f"{name}: trials with gradients until it is found, at most 1.2 times the better of two rivals",
        trials["tune"],
        better,
        unit="trials, median",
        peer_is="the better of our Gaussian process alone and multi-start L-BFGS-B",
        ratio_of_a_study=round(trials["study"] / better, 5),
        trials=trials,
        every_seed={who: sorted(one.found for one in ones) for who, ones in watched.items()},
        regrets_after={"trials": AFTER, **regrets},
        seeds=len(watched["gp"]),
        most=MOST,
    )


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if word in SMOOTH]
    for problem in chosen or SMOOTH:
        main(problem, "--peers" in sys.argv, range(SEEDS))
