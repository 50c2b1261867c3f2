"""How much each parameter decides whether a trial is among the best: PED-ANOVA."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nestor.errors import BadArgument, NestorError
from nestor.search._ledger import Ledger
from nestor.search._records import TrialState
from nestor.search._spaces import Array, Categorical, Domain, Float, Int
from nestor.search._study import Study
from nestor.search._tpe import front_by_front

_CELLS = 50  # of a parameter's range
_ENTRIES = 100  # of an array, at most, evenly spread
_TINY = 1e-12
_erf = np.vectorize(math.erf, otypes=[float])


def importance(
    study: Study, *, quantile: float = 0.1, region: float = 1.0, objective: int | None = None
) -> dict[str, float]:
    """How much each parameter decides whether a trial is among the best.

    PED-ANOVA compares, one parameter at a time, the density p of the best trials with the density q of all: the
    divergence sum_k q_k (p_k / q_k - 1)^2, times quantile^2, is the share of the variance of "is among the best"
    that this parameter explains by itself. Densities are Parzen estimates with Scott's bandwidth on 50 cells of the
    parameter's range, in its logarithm for ``log=True``. A parameter that not all trials have, or that had several
    ranges, counts by parts: each range with the share of the trials that have it. An array counts as the
    mean of its entries, of which at most 100 are looked at.

    Only complete trials with finite values count. What has one value has no importance.

    Args:
        study: the study.
        quantile: in (0, region); the share of the trials that are the best.
        region: in (0, 1]; only so many of the trials, the best of them, are looked at: less than 1 tells what
            decides among good trials.
        objective: of several, the one to be good at; None is the Pareto front, peeled layer by layer.

    Returns:
        Parameter name to its share of the importance, largest first. The shares add up to 1, or are all 0 where
        nothing can be said.

    Raises:
        BadArgument: a quantile or an objective out of range. NestorError: fewer than 2 complete trials.

    Cost: a few milliseconds a parameter, whatever the number of trials.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> def objective(trial):
    ...     return 10 * trial.suggest_float("much", -1, 1) ** 2 + trial.suggest_float("little", -1, 1) ** 2
    >>> study.optimize(objective, n_trials=100)
    >>> list(search.importance(study))
    ['much', 'little']

    Source: Watanabe, Bansal, Hutter, PED-ANOVA, IJCAI 2023, equations (8) and (9); parts: Conditional PED-ANOVA,
    2026, theorem 4.2.
    """
    if not 0 < quantile < region <= 1:
        got = f"{quantile} with region={region}"
        want = "0 < quantile < region <= 1"
        raise BadArgument("importance", "quantile", got=got, want=want, do="pass quantile=0.1, region=1.0")
    ledger = study._ledger
    count = len(ledger.directions)
    if objective is not None and (isinstance(objective, bool) or objective not in range(count)):
        want = f"None or a whole number from 0 to {count - 1}"
        raise BadArgument("importance", "objective", got=objective, want=want, do="count from 0")
    rows = np.flatnonzero(ledger.state[: ledger.size] == TrialState.COMPLETE)
    rows = rows[np.isfinite(ledger.values[rows]).all(axis=1)]
    if len(rows) < 2:
        raise NestorError(
            f"Study '{study.name}' has {len(rows)} complete trials, and importance compares them.\n"
            "Do this: run more trials"
        )
    losses = ledger.values[rows] * ledger.signs
    if objective is not None:
        losses = losses[:, [objective]]
    near, best = (rows[_among(losses, share)] for share in (region, quantile))
    found = {
        name: share
        for name in ledger.columns
        if (share := _of_parameter(ledger, name, near, best)) is not None
    }
    total = sum(found.values())
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return {name: value / total if total > 0 else 0.0 for name, value in ranked}


def _among(losses: np.ndarray, share: float) -> np.ndarray:
    """Which rows are among the best share; those that tie with the last are."""
    if share == 1:
        return np.ones(len(losses), bool)
    wanted = math.ceil(share * len(losses))
    loss = losses[:, 0] if losses.shape[1] == 1 else front_by_front(losses, wanted)
    return loss <= np.partition(loss, wanted - 1)[wanted - 1]


def _of_parameter(ledger: Ledger, name: str, near: np.ndarray, best: np.ndarray) -> float | None:
    """The divergence of the best from the others; None for a name that no trial here has."""
    column = ledger.columns[name]
    kinds, kinds_of_best = column.kinds[near], column.kinds[best]
    if not kinds.any():
        return None
    total = 0.0
    for kind in np.unique(kinds[kinds > 0]).tolist():
        domain = ledger.domains[kind - 1]
        inside, inside_best = near[kinds == kind], best[kinds_of_best == kind]
        if domain.count == 1 or len(inside) < 2 or len(inside_best) == 0:
            continue
        parts = (len(inside_best) / len(best)) ** 2 / (len(inside) / len(near))
        total += parts * _divergence(domain, column, inside, inside_best)
    return total


def _divergence(domain: Domain, column: Any, inside: np.ndarray, best: np.ndarray) -> float:
    """Pearson's divergence of two Parzen estimates on the cells of a domain; of an array, the mean over its entries."""
    if not isinstance(domain, Array):
        cells, count = _cells(domain, column.values[inside])
        cells_of_best, _ = _cells(domain, column.values[best])
        return _pearson(domain, cells_of_best, cells, count)
    chosen = np.unique(np.linspace(0, domain.size - 1, min(domain.size, _ENTRIES)).astype(int))
    line = Float(domain.low, domain.high, domain.log)
    around, top = (
        np.array([column.arrays[number].ravel()[chosen] for number in numbers.tolist()]).T
        for numbers in (inside, best)
    )
    pairs = ((_cells(line, a)[0], _cells(line, b)[0]) for a, b in zip(around, top, strict=True))
    return float(np.mean([_pearson(line, b, a, _CELLS) for a, b in pairs])) if len(chosen) else 0.0


def _pearson(domain: Domain, best: np.ndarray, inside: np.ndarray, count: int) -> float:
    p, q = (_density(domain, np.bincount(cells, minlength=count)) + _TINY for cells in (best, inside))
    return float(q @ (p / q - 1.0) ** 2)


def _cells(domain: Domain, values: np.ndarray) -> tuple[np.ndarray, int]:
    """The cell of each value, and how many cells the domain has; a value between two belongs to the lower."""
    if isinstance(domain, Categorical):
        return values.astype(int), domain.count
    count, low, high = _CELLS, domain.low, domain.high
    if isinstance(domain, Int) and domain.log:
        count = min(math.ceil(math.log2(high - low + 1)) + 1, count)
    elif domain.count is not None:
        count = min(domain.count, count)
    if domain.log:
        low, high, values = math.log(low), math.log(high), np.log(values)
    cells = np.ceil((values - low) / (high - low) * (count - 1) - 0.5).astype(int)
    return np.clip(cells, 0, count - 1), count


def _density(domain: Domain, counts: np.ndarray) -> np.ndarray:
    """The Parzen estimate on the cells, one kernel for each occupied cell and a flat one: it adds up to 1."""
    centres = np.flatnonzero(counts)
    weights = counts[centres].astype(float)
    size = len(counts)
    if isinstance(domain, Categorical):
        flat = 1.0 / (len(centres) + 1)
        kernels = np.full((len(centres) + 1, size), flat)
        kernels[np.arange(len(centres)), centres] += 1.0
    else:
        widths = np.full(len(centres), _scott(centres, weights))
        kernels = _bells(
            np.append(centres, (size - 1) / 2), np.append(widths, float(size)), np.arange(size + 1) - 0.5
        )
    kernels /= kernels.sum(axis=1, keepdims=True)
    weights = np.append(weights, 1.0)
    return weights / weights.sum() @ kernels


def _bells(centres: np.ndarray, widths: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The mass of normal kernels between edges: [kernels, edges - 1]."""
    places = (edges - centres[:, None]) / (widths[:, None] * math.sqrt(2.0))
    return 0.5 * np.diff(_erf(places), axis=1)


def _scott(centres: np.ndarray, weights: np.ndarray) -> float:
    """Scott's bandwidth, in cells, of weighted observations; at least so wide that 90 % fill one cell."""
    total = weights.sum()
    mean = centres @ weights / total
    deviation = math.sqrt((centres - mean) ** 2 @ weights / max(1.0, total - 1))
    cumulative = np.cumsum(weights)
    lower = np.searchsorted(cumulative, total // 4, side="left")
    upper = np.searchsorted(cumulative, total * 3 // 4, side="right")
    spread = float(centres[min(len(centres) - 1, upper)] - centres[lower])
    return max(1.059 * min(spread / 1.34, deviation) * total**-0.2, 0.5 / 1.64)
