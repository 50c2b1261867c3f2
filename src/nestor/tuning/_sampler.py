"""Search and descent in one sampler: another sampler looks around, a trust region refines the best of what it found."""

from __future__ import annotations

import math
import weakref
from typing import Any, NamedTuple

import numpy as np

from nestor import search
from nestor.search import Array, Float, GPSampler, TrialState
from nestor.settings import as_count
from nestor.tuning._tangents import trust_region_step

_FIRST_RADIUS, _LARGEST_RADIUS, _LEAST_RADIUS = 0.15, 0.5, 1e-5
_ARRIVED = 1e-6  # a descent whose slope promises less than this part of the spread of the values has arrived
_SAME = 1e-9  # how near two trials are that are the same step


class DescentSampler:
    """Another sampler, and a descent from the best point that it found, for trials that carry gradients.

    The other sampler proposes as long as it gets better. When `patience` of its trials in a row have not, a descent
    begins at the best point: each step is the least point, in a trust region, of a Gaussian process through the values
    and gradients near by, which needs fewer trials than L-BFGS. When it has arrived, the other sampler looks
    elsewhere, until there is a new best point. Choices are the other sampler's; each combination has a descent.

    It is a function of its seed, the number of the trial and the history, so a descent goes on in a resumed study.

    Args:
        seed: makes the study repeatable; None takes a new one.
        other: the other sampler; None is ``search.GPSampler(seed)``.
        patience: trials of the other sampler without progress before a descent.

    Without gradients it is the other sampler. A trial that misses a constraint is no place to descend from, and
    shortens the step that led to it.

    Cost: that of the other sampler, or some 5 ms for a step of a descent.

    >>> from nestor import search, tuning
    >>> study = search.create_study(sampler=tuning.DescentSampler(seed=0))
    >>> for _ in range(25):
    ...     trial = study.ask()
    ...     x, y = trial.suggest_float("x", -2, 2), trial.suggest_float("y", -1, 3)
    ...     gradient = {"x": -400 * x * (y - x * x) - 2 * (1 - x), "y": 200 * (y - x * x)}
    ...     study.tell(trial, 100 * (y - x * x) ** 2 + (1 - x) ** 2, gradient=gradient)
    >>> study.best_value < 0.01
    True

    Source: Conn, Gould and Toint, Trust-region methods, 2000; Eriksson et al., Scalable global optimization via local
    Bayesian optimization, NeurIPS 2019.
    """

    def __init__(self, seed: int | None = None, *, other: search.Sampler | None = None, patience: int = 2):
        self.other: search.Sampler = GPSampler(seed) if other is None else other
        self.patience = as_count("DescentSampler", "patience", patience)
        self._rows: weakref.WeakKeyDictionary[Any, _Rows] = weakref.WeakKeyDictionary()

    @property
    def limit(self) -> int | None:
        """How many trials the other sampler would make, or None."""
        return getattr(self.other, "limit", None)

    def __call__(self, asked: Any, name: str, domain: Any) -> Any:
        """A place in [0, 1], or an array of places."""
        if asked.history.ledger.gradients and _is_real(domain):
            if "descent" not in asked.memo:
                asked.memo["descent"] = self._proposed(asked)
            place = asked.memo["descent"].get((name, domain))
            if place is not None:
                return place
        return self.other(asked, name, domain)

    def told(self, asked: Any, name: str, domain: Any, place: Any) -> None:
        """A parameter of the trial is settled."""
        told = getattr(self.other, "told", None)
        if told is not None:
            told(asked, name, domain, place)

    def __getstate__(self) -> dict[str, Any]:
        """What has been read is read again elsewhere."""
        return {"other": self.other, "patience": self.patience}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rows = weakref.WeakKeyDictionary()

    def _proposed(self, asked: Any) -> dict[Any, Any]:
        """Where the descent of these choices wants the trial: (name, domain) to place; empty for the other sampler."""
        history = asked.history
        rows = self._rows.setdefault(history.ledger, _Rows(history.ledger))
        picked = tuple(
            (name, repr(domain.from_unit(place)))
            for name, (domain, place) in sorted(asked.given.items())
            if not _is_real(domain)
        )
        descent, form, latest = _Descent(self.patience), None, -1
        for number in history.rows.tolist():
            row = rows.read(number)
            if row.picked == picked and row.form and (form is None or row.form == form):
                form, latest = row.form, number if descent.take(row) else latest
        point = descent.step()
        if point is None or form is None:
            return {}
        if history.watched:
            others = (_read(history.ledger, number) for number in history.pending(asked.number))
            if any(row.form == form and np.abs(row.point - point).max() <= _SAME for row in others):
                return {}
        elif (asked.number - latest) % max(asked.number - int(history.rows[-1]), 1):
            return {}  # in the ordered mode: one of the trials that do not know of each other takes the step
        return _places(form, point)


class _Row(NamedTuple):
    """A trial as a descent sees it.

    Attributes:
        picked: its choices, name and value as text.
        form: name and domain of what a descent can move along, in order.
        point: those in [0, 1]^d.
        loss: less is better; infinite where the trial is not complete, or misses a constraint.
        slopes: of the loss by the point, or None.
    """

    picked: tuple[tuple[str, str], ...]
    form: tuple[tuple[str, Any], ...]
    point: np.ndarray
    loss: float
    slopes: np.ndarray | None


class _Rows:
    """The finished trials of a study, each read once."""

    def __init__(self, ledger: Any):
        self._ledger = weakref.ref(ledger)
        self._known: dict[int, _Row] = {}

    def read(self, number: int) -> _Row:
        """A finished trial."""
        row = self._known.get(number)
        if row is None:
            row = self._known[number] = _read(self._ledger(), number)
        return row


def _read(ledger: Any, number: int) -> _Row:
    told = ledger.gradients.get(number) or {}
    picked, form, parts, slopes = [], [], [np.zeros(0)], [np.zeros(0)]
    for name in sorted(ledger.columns):
        found = ledger.param(number, name)
        if found is None:
            continue
        domain, value = found
        if not _is_real(domain):
            picked.append((name, repr(value)))
            continue
        form.append((name, domain))
        values = np.asarray(value, float)
        parts.append(np.ravel(domain.to_unit(values)))
        slope = np.asarray(told.get(name, math.nan), float) * domain.rise(values)
        slopes.append(np.ravel(np.broadcast_to(slope, values.shape)))
    value = float(ledger.values[number, 0] * ledger.signs[0])
    kept = not any(missed > 0 for missed in ledger.constraints.get(number, ()))
    good = ledger.state[number] == TrialState.COMPLETE and math.isfinite(value) and kept
    slope = np.concatenate(slopes) * ledger.signs[0]
    known = slope if good and np.isfinite(slope).all() else None
    return _Row(tuple(picked), tuple(form), np.concatenate(parts), value if good else math.inf, known)


def _places(form: tuple[tuple[str, Any], ...], point: np.ndarray) -> dict[Any, Any]:
    """A point as (name, domain) to place."""
    found, at = {}, 0
    for name, domain in form:
        if isinstance(domain, Array):
            found[name, domain] = point[at : at + domain.size].reshape(domain.shape)
            at += domain.size
        else:
            found[name, domain] = float(point[at])
            at += 1
    return found


class _Descent:
    """What the trials, in order, have made of the descent: whether there is one, and its radius."""

    def __init__(self, patience: int):
        self._patience, self._misses = patience, 0
        self._active = False
        self._fresh = False  # whether no descent has arrived at the best point
        self._radius = _FIRST_RADIUS
        self._points: list[np.ndarray] = []
        self._losses: list[float] = []
        self._slopes: list[np.ndarray] = []
        self._best = -1

    def take(self, row: _Row) -> bool:
        """Take a trial into account; whether it was a step of the descent, or the beginning of one."""
        better = row.slopes is not None and (self._best < 0 or row.loss < self._losses[self._best])
        length = float(np.abs(row.point - self._points[self._best]).max()) if self._best >= 0 else math.inf
        inside = self._active and length <= self._radius + _SAME
        if row.slopes is not None:
            self._points.append(row.point)
            self._losses.append(row.loss)
            self._slopes.append(row.slopes)
            self._best = len(self._losses) - 1 if better else self._best
        if inside:
            if not better:
                self._radius = 0.5 * min(self._radius, length)
            elif length > 0.8 * self._radius:
                self._radius = min(2 * self._radius, _LARGEST_RADIUS)
            if self._arrived():
                self._active, self._fresh, self._misses = False, False, 0
            return True
        if better:  # by the other sampler
            self._misses, self._fresh = 0, True
            self._radius = max(self._radius, _FIRST_RADIUS)
        else:
            self._misses += 1
        if self._active or not self._fresh or self._misses < self._patience:
            return False
        self._active, self._radius = True, _FIRST_RADIUS
        return True

    def step(self) -> np.ndarray | None:
        """The next step of the descent; None where there is none, or none that leads anywhere new."""
        if not self._active:
            return None
        points, slopes = np.array(self._points), np.array(self._slopes)
        point = trust_region_step(points, np.array(self._losses), slopes, self._radius)
        return None if np.abs(points - point).max(axis=1).min() <= _SAME else point

    def _arrived(self) -> bool:
        point, slope = self._points[self._best], self._slopes[self._best]
        free = ~(((point <= 0) & (slope > 0)) | ((point >= 1) & (slope < 0)))
        promised = float(np.abs(slope[free]).max(initial=0.0)) * self._radius
        return self._radius < _LEAST_RADIUS or promised < _ARRIVED * float(np.ptp(self._losses))


def _is_real(domain: Any) -> bool:
    """Whether a descent can move along it."""
    return isinstance(domain, Float | Array) and domain.count is None
