"""CMA-ES by the package `cmaes`, run again over the trials there are."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from nestor.errors import BadArgument, MissingExtra
from nestor.search._arguments import whole_or_none
from nestor.search._ledger import History, Ledger
from nestor.search._points import Points
from nestor.search._records import TrialState
from nestor.search._samplers import Asked, generator, mixed, seed_or_new
from nestor.search._spaces import Categorical, Domain
from nestor.search._threads import one_thread
from nestor.search._tpe import TPESampler

_MOST_COLUMNS = 500
_SPREAD = 0.25  # the first standard deviation, in units of the space


class CMASampler:
    """CMA-ES: a normal distribution that learns where to go, and along which directions; for long runs over numbers.

    Finished trials count by generations of ``population`` in the order of their numbers; when a distribution has
    shrunk to nothing, another one begins elsewhere with twice the population. It is run again over the trials as
    they finish, so that a resumed study goes on as it would have. Choices, and parameters that not every trial has,
    are sampled by TPE; so is everything with several objectives. Whole numbers are rounded.

    Needs the package cmaes (``pip install 'nestor[cmaes]'``). Cost: a few ms of CPU a generation.

    Args:
        seed: makes the study repeatable; None takes a new one.
        population: trials of a generation; None is 4 + 3 log(number of columns).
        spread: the first standard deviation, in units of the space.

    >>> from nestor import search
    >>> sampler = search.CMASampler(seed=0, population=6)
    >>> sampler.population
    6

    Source: Hansen, The CMA evolution strategy: a tutorial, 2016; Auger and Hansen, A restart CMA evolution strategy
    with increasing population size, CEC 2005.
    """

    def __init__(self, seed: int | None = None, *, population: int | None = None, spread: float = _SPREAD):
        population = whole_or_none("CMASampler", "population", population, least=3, example=8)
        if not spread > 0:
            raise BadArgument("CMASampler", "spread", got=spread, want="positive", do=f"pass {_SPREAD}")
        self.seed, self.population = seed_or_new("CMASampler", seed), population
        self.spread = float(spread)
        self._otherwise = TPESampler(self.seed)
        self._reached: tuple[Any, ...] | None = None  # what the last replay came to, to go on from

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reached": None}

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1], or an array of places."""
        if "cma" not in asked.memo:
            with one_thread():
                asked.memo["cma"] = self._propose(asked)
        proposed = asked.memo["cma"].get(name)
        if proposed is None or proposed[0] != domain:
            return self._otherwise(asked, name, domain)
        return proposed[1]

    def told(self, asked: Asked, name: str, domain: Domain, place: Any) -> None:
        """A parameter of the trial is settled."""
        self._otherwise.told(asked, name, domain, place)

    def _propose(self, asked: Asked) -> dict[str, tuple[Domain, Any]]:
        try:
            cmaes = importlib.import_module("cmaes")
        except ImportError as error:
            raise MissingExtra("cmaes", "cmaes", "CMASampler") from error
        history = asked.history
        points = _numbers_of(history)
        if points is None:
            return {}
        strategy = self._replayed(cmaes, history, points)
        strategy.reseed_rng(mixed(self.seed, asked.number, "cma") % 2**32)
        return points.places(np.clip(strategy.ask(), 0.0, 1.0), np.ones(len(points.domains), bool))

    def _replayed(self, cmaes: Any, history: History, points: Points) -> Any:
        """The strategy that was told all whole generations."""
        ledger, rows = history.ledger, history.rows
        x, active, inside = points.rows(rows)
        kept = inside & active.all(axis=1)
        rows, x = rows[kept], x[kept]
        y = ledger.values[rows, 0] * ledger.signs[0]
        y = np.where((ledger.state[rows] == TrialState.COMPLETE) & np.isfinite(y), y, np.inf)
        strategy, done, restarts = self._remembered(ledger, points, rows)
        if strategy is None:
            strategy = self._strategy(cmaes, points.width, 0)
        while done + strategy.population_size <= len(rows):
            now = slice(done, done + strategy.population_size)
            worst = y[now][np.isfinite(y[now])].max(initial=0.0) + 1.0
            strategy.tell(
                list(zip(x[now], np.where(np.isfinite(y[now]), y[now], worst).tolist(), strict=True))
            )
            done = now.stop
            if strategy.should_stop():
                restarts += 1
                strategy = self._strategy(cmaes, points.width, restarts)
        self._reached = (
            ledger,
            tuple(points.domains.items()),
            rows[:done].tobytes(),
            strategy,
            done,
            restarts,
        )
        return strategy

    def _remembered(self, ledger: Ledger, points: Points, rows: np.ndarray) -> tuple[Any, int, int]:
        """What an earlier replay came to, if it was over the first of these trials."""
        if self._reached is None:
            return None, 0, 0
        known, domains, numbers, strategy, done, restarts = self._reached
        same = known is ledger and domains == tuple(points.domains.items())
        return (strategy, done, restarts) if same and rows[:done].tobytes() == numbers else (None, 0, 0)

    def _strategy(self, cmaes: Any, width: int, restarts: int) -> Any:
        random = generator(self.seed, restarts, "cma")
        population = self.population or 4 + int(3 * np.log(width))
        return cmaes.CMA(
            mean=random.uniform(0.2, 0.8, width) if restarts else np.full(width, 0.5),
            sigma=self.spread,
            bounds=np.tile([0.0, 1.0], (width, 1)),
            seed=0,
            population_size=population * 2 ** min(restarts, 8),
        )


def _numbers_of(history: History) -> Points | None:
    """The columns of numbers that every finished trial has; None where there are none, or too many."""
    ledger = history.ledger
    rows = history.rows[ledger.state[history.rows] == TrialState.COMPLETE]
    if len(ledger.directions) > 1 or not len(rows):
        return None
    names = [
        name
        for name, column in ledger.columns.items()
        if not isinstance(ledger.latest[name], Categorical) and (column.kinds[rows] > 0).all()
    ]
    points = Points(history, names) if names else None
    return points if points is not None and 1 <= points.width <= _MOST_COLUMNS else None
