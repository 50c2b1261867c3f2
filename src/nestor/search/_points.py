"""Trials as points: one column a number, one a choice, and what a sampler over such points may propose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nestor.search._ledger import History
from nestor.search._records import TrialState
from nestor.search._spaces import Array, Categorical, Domain, Float

_ABSENT = 0.5  # where a parameter stands that a trial does not have


class Points:
    """The parameters of a study as columns in [0, 1], one for every entry of an array and for every choice.

    A trial without a parameter stands in the middle of its columns. Which parameters a trial has is its pattern; a
    point is proposed in a pattern that some trial had, so that a conditional space is learned, not declared.

    Attributes:
        domains: parameter name to its latest domain.
        width: how many columns there are.
        groups: for every column the place of its length scale: the choices of one parameter share one.
        discrete: which columns hold whole numbers, steps and choices.
    """

    def __init__(self, history: History, names: list[str]):
        self.ledger = history.ledger
        self.domains = {name: self.ledger.latest[name] for name in names}
        self.spans: dict[str, slice] = {}
        groups: list[int] = []
        discrete: list[bool] = []
        for name, domain in self.domains.items():
            count = _columns(domain)
            self.spans[name] = slice(len(groups), len(groups) + count)
            group = groups[-1] + 1 if groups else 0
            one = isinstance(domain, Categorical)
            groups += [group if one else group + k for k in range(count)]
            discrete += [not isinstance(domain, Array) and domain.count is not None] * count
        self.groups, self.discrete = np.array(groups, int), np.array(discrete, bool)
        self.width = len(groups)

    # --- from trials to points ----------------------------------------------------------------

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Trials as points: [n, columns], their patterns [n, names], and whether each lies in today's domains."""
        x = np.full((len(numbers), self.width), _ABSENT)
        active = np.zeros((len(numbers), len(self.domains)), bool)
        inside = np.ones(len(numbers), bool)
        for place, (name, domain) in enumerate(self.domains.items()):
            column, span = self.ledger.columns[name], self.spans[name]
            there = active[:, place] = column.kinds[numbers] > 0
            if isinstance(domain, Array):
                for row in np.flatnonzero(there).tolist():
                    x[row, span] = domain.to_unit(column.arrays[int(numbers[row])]).ravel()
            elif isinstance(domain, Categorical):
                known = np.flatnonzero(there)
                x[:, span] = 0.0
                x[known, span.start + column.values[numbers[known]].astype(int)] = 1.0
            else:
                with np.errstate(invalid="ignore"):
                    x[there, span.start] = domain.to_unit(column.values[numbers[there]])
            inside &= ((x[:, span] > -1e-9) & (x[:, span] < 1 + 1e-9)).all(axis=1)
        return x, active, inside

    def slopes(self, numbers: np.ndarray) -> np.ndarray:
        """The derivatives of the loss by the columns, NaN where one is not known. [n, columns]."""
        found = np.full((len(numbers), self.width), np.nan)
        for row, number in enumerate(numbers.tolist()):
            told = self.ledger.gradients.get(number)
            for name, slope in (told or {}).items():
                domain = self.domains.get(name)
                if isinstance(domain, Float | Array) and domain.count is None:
                    column = self.ledger.columns[name]
                    value = column.arrays[number] if isinstance(domain, Array) else column.values[number]
                    found[row, self.spans[name]] = np.ravel(np.asarray(slope, float) * domain.rise(value))
        found[~np.isfinite(found)] = np.nan
        return found * self.ledger.signs[0]

    # --- from points to trials ----------------------------------------------------------------

    def snapped(self, points: np.ndarray) -> np.ndarray:
        """Points with whole numbers in the middle of their cells and choices one of each. [n, columns]."""
        points = np.clip(points, 0.0, 1.0)
        for name, domain in self.domains.items():
            part = points[:, self.spans[name]]
            if isinstance(domain, Categorical):
                chosen = part.max(axis=1) > 0  # else the parameter is absent
                part[...] = np.eye(domain.count)[part.argmax(axis=1)] * chosen[:, None]
            elif not isinstance(domain, Array) and domain.count is not None:
                values = np.array([domain.encode(domain.from_unit(place)) for place in part[:, 0].tolist()])
                part[:, 0] = domain.to_unit(values)
        return points

    def places(self, point: np.ndarray, pattern: np.ndarray) -> dict[str, tuple[Domain, Any]]:
        """What a point of a pattern means: name to (domain, place)."""
        found = {}
        for there, (name, domain) in zip(pattern.tolist(), self.domains.items(), strict=True):
            part = point[self.spans[name]]
            if not there:
                continue
            if isinstance(domain, Array):
                found[name] = domain, part.reshape(domain.shape)
            elif isinstance(domain, Categorical):
                found[name] = domain, (int(part.argmax()) + 0.5) / domain.count
            else:
                found[name] = domain, float(part[0])
        return found

    def held(self, given: Mapping[str, tuple[Domain, Any]]) -> np.ndarray:
        """The columns of parameters that a trial has already, NaN for the others. [columns]."""
        found = np.full(self.width, np.nan)
        for name, (domain, place) in given.items():
            if self.domains.get(name) != domain:
                continue
            if isinstance(domain, Categorical):
                found[self.spans[name]] = np.eye(domain.count)[
                    min(int(place * domain.count), domain.count - 1)
                ]
            else:
                found[self.spans[name]] = np.ravel(place)
        return found

    def columns_of(self, patterns: np.ndarray) -> np.ndarray:
        """Which columns patterns have. [n, names] -> [n, columns]."""
        names = np.concatenate(
            [np.full(_columns(domain), place) for place, domain in enumerate(self.domains.values())]
        )
        return patterns[:, names]


def _columns(domain: Domain) -> int:
    if isinstance(domain, Array):
        return domain.size
    return domain.count if isinstance(domain, Categorical) else 1


def choose_rows(history: History, best: np.ndarray, most: int) -> np.ndarray:
    """Numbers of trials to learn from: all, or the best and the latest. Ascending."""
    rows = history.rows
    if len(rows) <= most:
        return rows
    return np.union1d(best[: most - most // 3], rows[-(most // 3) :])


def losses(history: History, numbers: np.ndarray) -> np.ndarray:
    """The loss of each trial; that of one which is not complete or not finite is the worst of the others."""
    ledger = history.ledger
    y = ledger.values[numbers, 0] * ledger.signs[0]
    good = (ledger.state[numbers] == TrialState.COMPLETE) & np.isfinite(y)
    y[~good] = y[good].max() if good.any() else 0.0
    return y
