"""A Gaussian process over values and, where trials give them, gradients."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from nestor.search._acquire import Look, Penalty
from nestor.search._arguments import whole_or_none
from nestor.search._curves import curves_of, curves_told, told, unfinished
from nestor.search._descent import next_of_descent
from nestor.search._ledger import History
from nestor.search._points import Points, choose_rows, losses
from nestor.search._process import Data, Process, fitted, gauss, matern, settled
from nestor.search._proposing import Proposing
from nestor.search._records import TrialState
from nestor.search._samplers import Asked, QuasiRandomSampler, generator
from nestor.search._spaces import Domain
from nestor.search._tpe import ranking

_MOST_COLUMNS = 60
_NARROW = 20  # columns up to which a process alone decides where gradients are told
_MOST_ROWS = 400  # the best and the latest beyond that
_MOST_FIT = 120  # rows that the length scales are fitted to
_MOST_EQUATIONS = 500  # values and slopes together
_MOST_FIT_EQUATIONS = 240  # of these, those that the length scales are fitted to
_REACH = 0.3  # of a step to where the mean is lowest; halved by each that did not improve
_PROMISE = 1e-6  # of the spread of losses; less is not worth such a step
_RACE = 3  # in a conditional space, the trials out of which one improves a branch upon itself
_MOST_BRANCHES = 8
_HUGE = 1e100  # losses whose squares could overflow
_FAR = 5.0  # what is 55 times as far above the median as the best is below
_SAME = 1e-9  # places that differ by less are one point
_BEARABLE, _DREAD = 0.15, 1e12  # the risk of failure that is borne, and what more costs: any improvement
_TARGET = 0.03  # the share of trials that may fail in the long run


class GPSampler(Proposing):
    r"""Bayesian optimization: a Gaussian process, and the point of the largest expected improvement.

    Of two processes the one of the larger evidence is taken: a smooth one (Gaussian kernel), and a rough one (Matern
    5/2) over losses whose upper half counts by its logarithm; one length scale a parameter, by maximal posterior
    density. Choices are columns of 0 and 1. In a conditional space a parameter that a trial lacks stands in the
    middle, and every third trial improves one branch upon itself.

    A trial that was told its gradient counts as 1 + d observations, the value and d slopes, which is worth most of
    all information about the function near it: trials go to where the mean is lowest around the best one, no
    farther than was good lately, and look for other valleys when that promises nothing more. With more than 20
    columns every second of these trials is a step of L-BFGS-B instead, with more than 60 all are.

    What trials reported counts too: where some were pruned or pause, a value belongs to the step at which it was
    reached, and the improvement is sought at the last step. Where trials failed, the places are avoided that a
    second process says fail, and as long as it was wrong lately, those where it is not sure. Running trials count
    as what is expected of them. Several objectives, constraints and, without gradients, more than 60 columns are
    left to TPE.

    Cost: linear algebra of at most 500 equations; 20 to 50 ms of CPU a trial, with gradients about 0.4 s at the most
    equations (40 trials of 12 parameters).

    Needs `scipy.linalg` and `scipy.optimize`, imported when they are used.

    Args:
        seed: makes the study repeatable; None takes a new one.
        n_startup: quasi-random trials before it starts to learn; None is 10, and 2 where gradients are given.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.GPSampler(seed=0))
    >>> for _ in range(6):
    ...     trial = study.ask()
    ...     x = trial.suggest_float("x", -3.0, 3.0)
    ...     study.tell(trial, (x - 1.0) ** 2, gradient={"x": 2 * (x - 1.0)})
    >>> study.best_value < 1e-2
    True

    Source: Rasmussen and Williams, Gaussian processes for machine learning, 2006, sections 4.2, 5.4 and 9.4;
    Wu, Poloczek, Wilson and Frazier, Bayesian optimization with gradients, NeurIPS 2017; Ament, Daulton, Eriksson,
    Balandat and Bakshy, Unexpected improvements to expected improvement, NeurIPS 2023.
    """

    def __init__(self, seed: int | None = None, *, n_startup: int | None = None):
        super().__init__("GPSampler", seed)
        self.n_startup = whole_or_none("GPSampler", "n_startup", n_startup, example=10)
        self._start = QuasiRandomSampler(self.seed)

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1], or an array of places."""
        history = asked.history
        learned = 2 if history.ledger.gradients else 10
        if told(history) < (learned if self.n_startup is None else self.n_startup):
            return self._start(asked, name, domain)
        return super().__call__(asked, name, domain)

    def _propose(self, asked: Asked) -> dict[str, tuple[Domain, Any]]:
        """All parameters at once: name to (domain, place); empty where this sampler does not apply."""
        known = known_trials(asked)
        if known is None:
            return {}
        points, (turn, first) = known.points, _turn(asked)
        others = np.array(asked.history.pending(asked.number), int)
        lies, _, inside = points.rows(others[~np.isin(others, known.numbers)])
        lies = lies[inside]
        if points.width > _NARROW and first and (turn % 2 or points.width > _MOST_COLUMNS):
            step = _step_of_descent(known, lies)
            if step:
                return step
        if points.width > _MOST_COLUMNS:
            return {}
        process, y = _process_of(known)
        if len(lies):
            process = _believing(process, lies)
        rows = _raced(known, asked.number)
        held, visited = points.held(asked.given), np.concatenate([known.x, known.failed])
        look = Look(
            process, points, known.x[rows], y[rows], known.active[rows], _penalty(known), held, visited
        )
        best = int(np.argmin(y))
        along = ~np.isnan(known.slopes[best])
        if along.any() and first and not len(lies) and np.isnan(held).all():
            reach = _REACH * 0.5 ** int(np.count_nonzero(known.numbers > known.numbers[best]))
            point, low = look.lowest(known.x[best], along, reach)
            new = np.abs(visited - point).max(axis=1).min() > 1e-7
            safe = look.penalty is None or look.penalty(point[None])[0] == 0.0
            if new and safe and y[best] - low > _PROMISE * (np.median(y) - y[best]):
                return points.places(point, known.active[best])
        return points.places(*look.largest(generator(self.seed, asked.number, "gp")))


def _turn(asked: Asked) -> tuple[int, bool]:
    """How many groups of trials that know nothing of each other were before this trial's, and whether it leads its own.

    In the ordered mode a trial does not see those shortly before it; what has but one answer is left to one of them.
    """
    history = asked.history
    apart = 1 if history.watched else max(asked.number - int(history.rows[-1]), 1)
    turn, place = divmod(asked.number, apart)
    return turn, place == 0


def _step_of_descent(known: Known, lies: np.ndarray) -> dict[str, tuple[Domain, Any]]:
    """The next step of L-BFGS-B; empty where there is none, or where a running trial is there already."""
    rows = np.flatnonzero(~np.isnan(known.slopes).any(axis=1))
    if not len(rows):
        return {}
    point = next_of_descent(known.x[rows], known.y[rows], known.slopes[rows], 2)
    if point is None or (np.abs(lies - point).max(axis=1) <= _SAME).any():
        return {}
    return known.points.places(point, known.active[rows[0]])


def _believing(process: Process, lies: np.ndarray) -> Process:
    """The same process told that points without a value have the one that it expects. [m, columns]."""
    more = process.data.x.shape[1] - lies.shape[1]
    lies = np.concatenate([lies, np.ones((len(lies), more))], axis=1)
    data = process.data.with_lies(lies, process.mean_and_deviation(lies)[0])
    return settled(data, process.scales, process.noise, process.kernel)


@dataclasses.dataclass
class Known:
    """The trials that a process learns from.

    Attributes:
        points: the columns.
        numbers: of the trials that have not failed, ascending. [n].
        x: their points. [n, columns].
        active: their patterns. [n, names].
        y: their losses. [n].
        slopes: the derivatives of these, NaN where not known. [n, columns].
        failed: the points of the trials that failed.
        caution: see `caution_of`.
        curves: where values came at several steps: points with the step as the last column, losses and slopes.
        derived: what follows from these.
    """

    points: Points
    numbers: np.ndarray
    x: np.ndarray
    active: np.ndarray
    y: np.ndarray
    slopes: np.ndarray
    failed: np.ndarray
    caution: float
    curves: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    derived: dict[str, Any] = dataclasses.field(default_factory=dict)


def known_trials(asked: Asked) -> Known | None:
    """The trials to learn from; None where a process does not apply."""
    history = asked.history
    state = curves_told(history) if history.ledger.reports else None
    if history.memo.get("gp state", history) != state:
        history.memo["gp state"], history.memo["gp data"] = state, _read(history)
    return history.memo["gp data"]


def _read(history: History) -> Known | None:
    ledger = history.ledger
    if len(ledger.directions) > 1 or ledger.constraints or not ledger.columns:
        return None
    points = Points(history, list(ledger.columns))
    if not points.width or (points.width > _MOST_COLUMNS and not ledger.gradients):
        return None
    numbers = choose_rows(history, ranking(history), _MOST_ROWS)
    early = unfinished(history, numbers)
    numbers = np.union1d(numbers, early)
    x, active, inside = points.rows(numbers)
    inside &= active.any(axis=1)
    numbers, x, active = numbers[inside], x[inside], active[inside]
    failed = ledger.state[numbers] == TrialState.FAILED
    failures = x[failed]
    numbers, x, active = numbers[~failed], x[~failed], active[~failed]
    y = losses(history, numbers)
    good = (ledger.state[numbers] == TrialState.COMPLETE) & np.isfinite(y)
    if good.sum() < 2 and not (len(early) and len(numbers) > 2):
        return None
    slopes = points.slopes(numbers)
    slopes[~good] = np.nan
    curves = curves_of(history, numbers, x, slopes) if len(early) else None
    if curves is not None and len(curves[0]) < 2:
        return None
    caution = caution_of(ledger.state[history.rows] == TrialState.FAILED)
    return Known(points, numbers, x, active, y, slopes, failures, caution, curves)


def _process_of(known: Known) -> tuple[Process, np.ndarray]:
    """The most likely process, and the losses of trials as it knows them: where curves end, if they go on."""
    if "process" not in known.derived:
        groups = known.points.groups
        if known.curves is None:
            found = likeliest(known.x, known.y, known.slopes, groups)
        else:
            process, _ = likeliest(*known.curves, np.append(groups, groups.max() + 1))
            ends = np.concatenate([known.x, np.ones((len(known.x), 1))], axis=1)
            found = process, process.mean_and_deviation(ends)[0]
        known.derived["process"] = found
    return known.derived["process"]


def likeliest(
    x: np.ndarray, y: np.ndarray, slopes: np.ndarray, groups: np.ndarray
) -> tuple[Process, np.ndarray]:
    """The process of the larger evidence: smooth, or rough over losses whose upper part counts by its logarithm."""
    largest = float(np.abs(y).max())
    if largest > _HUGE:
        y, slopes = y / largest, slopes / largest
    wide, sharp = units(y)
    plain, (*bent, log_bend) = scaled(y, slopes, wide), bent_above(*scaled(y, slopes, sharp))
    bends = np.zeros(len(y)), log_bend + math.log(wide / sharp)
    order = np.argsort(y, kind="stable")[: _MOST_FIT // 2]
    part = np.union1d(order, np.arange(len(y))[-_MOST_FIT // 2 :])
    best, found = -np.inf, None
    for kernel, (values, rises), log_bend in zip((gauss, matern), (plain, bent), bends, strict=True):
        data = Data(x, values, rises, groups).thinned(_MOST_EQUATIONS)
        sample = data.part(part).thinned(_MOST_FIT_EQUATIONS)
        process, evidence = fitted(data, sample, kernel)
        evidence += float((1 + (~np.isnan(sample.slopes)).sum(axis=1)) @ log_bend[part])
        if evidence > best:
            best, found = evidence, (process, values)
    assert found is not None
    return found


def _raced(known: Known, number: int) -> np.ndarray:
    """The rows to improve upon: all, or in a conditional space at every third trial those of one branch, in turns."""
    whole = np.arange(len(known.y))
    if number % _RACE:
        return whole
    patterns, of = np.unique(known.active, axis=0, return_inverse=True)
    if len(patterns) < 2:
        return whole
    best = [float(known.y[of.ravel() == k].min()) for k in range(len(patterns))]
    order = np.argsort(best, kind="stable")[:_MOST_BRANCHES]
    return np.flatnonzero(of.ravel() == order[(number // _RACE) % len(order)])


def _penalty(known: Known) -> Penalty | None:
    """What the risk of failure takes from the logarithm of the improvement; None where none failed."""
    if not len(known.failed):
        return None
    if "risk" not in known.derived:
        x = np.concatenate([known.x, known.failed])
        labels = np.concatenate([np.zeros(len(known.x)), np.ones(len(known.failed))])
        data = Data(x, labels, np.full(x.shape, np.nan), known.points.groups)
        known.derived["risk"] = fitted(data, None, matern, 12)[0]
    risk: Process = known.derived["risk"]

    def penalty(at: np.ndarray) -> np.ndarray:
        mean, deviation = risk.mean_and_deviation(at)
        return _DREAD * np.maximum(mean + known.caution * deviation - _BEARABLE, 0.0)

    return penalty


def caution_of(failed: np.ndarray) -> float:
    """How many standard deviations the risk of failure is taken for more than it seems, after these outcomes.

    A model of where trials fail is wrong at first, and where the edge has a shape that it does not expect. So a failure
    adds to the caution, and every other trial takes a little of it: in the long run no more than a share of `_TARGET`
    fails, whatever the model says (Gibbs and Candes, Adaptive conformal inference, NeurIPS 2021).

    Args:
        failed: whether each trial failed, in the order of their numbers. [n].
    """
    walk = np.cumsum(failed - _TARGET)
    return float(walk[-1] - min(walk.min(), 0.0)) if len(walk) else 0.0


def scaled(y: np.ndarray, slopes: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Losses with the median at 0, in units; slopes with them."""
    return (y - float(np.median(y))) / unit, slopes / unit


def units(y: np.ndarray) -> tuple[float, float]:
    """From the median to the best, as a unit of losses: widened where a few are far above, and not."""
    middle, best = float(np.median(y)), float(y.min())
    below, least = middle - best, 1e-12 * max(abs(middle), abs(best)) + 1e-300
    wide = max(below, float(y.std()) * 1e-3, least)
    return wide, below if below > least else wide


def bent_above(y: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses logarithmic beyond 1, and doubly so beyond `_FAR`; slopes with them; the logarithm of that derivative.

    What diverged is so far above the others that even its logarithm would leave no room for the differences between
    those that did not.
    """
    factor = 1.0 / np.maximum(y, 1.0)
    once = np.where(y > 1.0, 1.0 - np.log(factor), y)
    beyond = np.maximum(once - _FAR, 0.0)
    factor = factor / (1.0 + beyond)
    return np.minimum(once, _FAR) + np.log1p(beyond), slopes * factor[:, None], np.log(factor)
