"""The sampler that a study has by default: each trial is left to the method that suits what is known so far."""

from __future__ import annotations

from typing import Any

from nestor.search._arguments import whole_or_none
from nestor.search._curves import told
from nestor.search._gp import GPSampler, known_trials
from nestor.search._samplers import Asked, QuasiRandomSampler, Sampler, seed_or_new
from nestor.search._spaces import Domain
from nestor.search._tpe import TPESampler

_LONG = 300  # trials after which the process is asked for one of so many
_RARELY = 4
_BESIDE = 3  # with branches or choices, one trial of so many is left to TPE


class PortfolioSampler:
    """What a study samples with by default: quasi-random points, a Gaussian process and TPE, each in its place.

    The first trials are quasi-random. Then the Gaussian process decides (`GPSampler`: it uses gradients, and the
    steps at which values were reached), but for every third trial of a space with branches or choices, which is left
    to TPE. After 300 trials TPE makes three of four, and it makes all of several objectives, of constraints, and of
    more than 60 columns without gradients. Which of them makes a trial follows from its number and the history, so
    that a study with this sampler can be repeated and resumed like any other.

    Cost: 20 to 50 ms of CPU a trial, after 300 trials about 20 ms; with gradients more, see `GPSampler`.

    Args:
        seed: makes the study repeatable; None takes a new one.
        n_startup: quasi-random trials; None is 10, and 2 where gradients are given.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.PortfolioSampler(seed=0))
    >>> study.optimize(lambda trial: (trial.suggest_float("x", -10, 10) - 2) ** 2, n_trials=20)
    >>> abs(study.best_params["x"] - 2) < 0.1
    True
    """

    def __init__(self, seed: int | None = None, *, n_startup: int | None = None):
        self.seed = seed_or_new("PortfolioSampler", seed)
        self.n_startup = whole_or_none("PortfolioSampler", "n_startup", n_startup, example=10)
        self._start = QuasiRandomSampler(self.seed)
        self._tpe, self._gp = TPESampler(self.seed, n_startup=1), GPSampler(self.seed, n_startup=1)

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1], or an array of places."""
        if "member" not in asked.memo:
            asked.memo["member"] = self._chosen(asked)
        return asked.memo["member"](asked, name, domain)

    def told(self, asked: Asked, name: str, domain: Domain, place: Any) -> None:
        """A parameter of the trial is settled."""
        self._tpe.told(asked, name, domain, place)

    def _chosen(self, asked: Asked) -> Sampler:
        """Which of them makes this trial."""
        history = asked.history
        learned = 2 if history.ledger.gradients else 10
        count = told(history)
        if count < (learned if self.n_startup is None else self.n_startup):
            return self._start
        if count > _LONG and asked.number % _RARELY:
            return self._tpe
        known = known_trials(asked)
        if known is None:
            return self._tpe
        branches = not known.active.all() or known.points.discrete.any()
        return self._tpe if branches and asked.number % _BESIDE == 1 else self._gp
