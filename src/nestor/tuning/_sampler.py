"""Search and descent in one sampler: another sampler looks around, L-BFGS refines the best of what it found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nestor.search import Array, Float, GPSampler, Sampler, TrialState
from nestor.tuning._descent import Descent

_SAME = 1e-9  # how near a trial is to where the descent wanted it
_STALE = 1e-6  # a descent that promises less than this part of the spread of the values has arrived


class DescentSampler:
    """Another sampler, and L-BFGS from the best point that it found, for trials that carry gradients.

    The other sampler proposes as long as it gets better. When `patience` of its trials in a row have not, Nestor's
    L-BFGS takes over at the best point, and keeps the word as long as it gets on; then the other one looks elsewhere,
    until there is a new best point. Choices are the other sampler's; a descent is one for each combination of them.

    It is a function of its seed, the number of the trial and the history: a descent is made again from the trials
    that it asked for, so it goes on in a resumed study, and past trials that others have added.

    Args:
        seed: makes the study repeatable; None takes a new one.
        other: the other sampler; None is ``search.GPSampler(seed)``.
        patience: trials of the other sampler without progress before a descent.

    Without gradients it is the other sampler. Cost: that of the other sampler, and a step of L-BFGS (0.2 ms) for each
    finished trial of this combination of choices; compiling the step takes some two seconds of CPU, once a process.

    >>> import numpy as np
    >>> from nestor import search, tuning
    >>> study = search.create_study(sampler=tuning.DescentSampler(seed=0))
    >>> for _ in range(30):
    ...     trial = study.ask()
    ...     x, y = trial.suggest_float("x", -2, 2), trial.suggest_float("y", -1, 3)
    ...     gradient = {"x": -400 * x * (y - x * x) - 2 * (1 - x), "y": 200 * (y - x * x)}
    ...     study.tell(trial, 100 * (y - x * x) ** 2 + (1 - x) ** 2, gradient=gradient)
    >>> study.best_value < 0.05
    True

    Source: the steps: Byrd, Lu, Nocedal and Zhu 1995; see `nestor.LBFGS`.
    """

    def __init__(self, seed: int | None = None, *, other: Sampler | None = None, patience: int = 1):
        self.other = GPSampler(seed) if other is None else other
        self.patience = patience
        self._kept: dict[bytes, _Replay] = {}

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

    def _proposed(self, asked: Any) -> dict[Any, Any]:
        """Where the descent of these choices wants the trial: (name, domain) to place; empty for the other sampler."""
        history, ledger = asked.history, asked.history.ledger
        rows = _Rows(ledger, asked.given)
        replay = _Replay(self.patience)
        latest = -1
        for number in history.rows.tolist():
            if replay.take(rows.read(number)):
                latest = number
        if replay.descent is None:
            return {}
        if history.watched:
            for number in history.pending(asked.number):
                found = rows.place(number)
                if found is not None and _near(found, replay.descent.point):
                    return {}
        elif (asked.number - latest) % max(asked.number - int(history.rows[-1]), 1):
            return {}  # in the ordered mode, one of the trials that do not know of each other
        return rows.places(replay.descent.point)


class _Rows:
    """The trials of a study that have some choices, as points of [0, 1]^d."""

    def __init__(self, ledger: Any, given: dict[str, Any]):
        self._ledger, self._given = ledger, given
        self._form: list[tuple[str, Any]] | None = None

    def place(self, number: int) -> np.ndarray | None:
        """The point of a trial; None if it has other choices, or other parameters."""
        parts, form = [], []
        for name in self._ledger.columns:
            found = self._ledger.param(number, name)
            if found is None:
                if name in self._given:
                    return None
                continue
            domain, value = found
            if _is_real(domain):
                form.append((name, domain))
                parts.append(np.ravel(domain.to_unit(np.asarray(value, float))))
            elif name not in self._given or self._given[name][0].from_unit(self._given[name][1]) != value:
                return None
        if not parts or (self._form is not None and form != self._form):
            return None
        self._form = form
        return np.concatenate(parts)

    def read(self, number: int) -> tuple[np.ndarray, float, np.ndarray | None] | None:
        """Point, loss, and slopes (None where they are not known) of a finished trial."""
        ledger = self._ledger
        point = self.place(number)
        if point is None:
            return None
        value = float(ledger.values[number, 0] * ledger.signs[0])
        if ledger.state[number] != TrialState.COMPLETE or not math.isfinite(value):
            return point, math.inf, None
        told, parts = ledger.gradients.get(number) or {}, []
        for name, domain in self._form or ():
            if name not in told:
                return point, value, None
            span = math.log(domain.high / domain.low) if domain.log else domain.high - domain.low
            scale = span * np.asarray(ledger.param(number, name)[1], float) if domain.log else span
            parts.append(np.ravel(np.asarray(told[name], float) * scale))
        slopes = np.concatenate(parts) * ledger.signs[0]
        return point, value, slopes if np.isfinite(slopes).all() else None

    def places(self, point: np.ndarray) -> dict[Any, Any]:
        """A point as (name, domain) to place."""
        found, at = {}, 0
        for name, domain in self._form or ():
            if isinstance(domain, Array):
                found[name, domain] = point[at : at + domain.size].reshape(domain.shape)
                at += domain.size
            else:
                found[name, domain] = float(point[at])
                at += 1
        return found


class _Replay:
    """What trials, in order, have made of the descent."""

    def __init__(self, patience: int):
        self.patience = patience
        self.descent: Descent | None = None
        self._best: tuple[float, np.ndarray, np.ndarray] | None = None
        self._misses = 0
        self._fresh = False  # whether the best point is one that no descent has begun at, or come to
        self._low, self._high = math.inf, -math.inf

    def take(self, row: tuple[np.ndarray, float, np.ndarray | None] | None) -> bool:
        """Take a trial into account; whether the descent now wants another point."""
        if row is None:
            return False
        point, value, slopes = row
        if math.isfinite(value):
            self._low, self._high = min(self._low, value), max(self._high, value)
        better = slopes is not None and (self._best is None or value < self._best[0])
        moved = self.descent is not None and _near(point, self.descent.point)
        if better:
            assert slopes is not None
            self._best = value, point, slopes
        if moved:
            assert self.descent is not None
            self._advance(self.descent, value, slopes if slopes is not None else np.zeros_like(point))
        elif better:
            self._misses, self._fresh = 0, True
            if self.descent is not None:  # somebody else has found a better place to descend from
                self.descent = None
                self._misses = self.patience
        else:
            self._misses += 1
        if self.descent is None and self._fresh and self._misses >= self.patience and self._best is not None:
            self._fresh = False
            self.descent = Descent(self._best[1])
            self._advance(self.descent, self._best[0], self._best[2])
            return self.descent is not None
        return moved

    def _advance(self, descent: Descent, value: float, slopes: np.ndarray) -> None:
        before = descent.point
        ahead = descent.tell(value, slopes)
        spread = max(self._high - self._low, 1e-300)
        if ahead is None or abs(float(slopes @ (ahead - before))) < _STALE * spread:
            self.descent, self._misses = None, 0


def _near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0.0) <= _SAME)


def _is_real(domain: Any) -> bool:
    """Whether a descent can move along it."""
    return isinstance(domain, Float | Array) and domain.count is None
