"""What trials reported on their way: values at steps, for a sampler that knows what a step is worth."""

from __future__ import annotations

import math

import numpy as np

from nestor.search._ledger import History
from nestor.search._records import TrialState

_A_TRIAL = 3  # values of one trial that count: the last, and earlier ones at a third of the step before
_APART = 3.0
_MOST_VALUES = 400


def curves_told(history: History) -> tuple[int, int]:
    """What tells whether something was reported since; it counts trials that pause or run."""
    if not history.watched:
        return 0, 0
    ledger = history.ledger
    return len(ledger.paused), sum(len(ledger.reports.get(n, ())) for n in (*ledger.owners, *ledger.paused))


def unfinished(history: History, rows: np.ndarray) -> np.ndarray:
    """The trials with reports that were pruned, pause or run; empty where every curve came to its end."""
    ledger = history.ledger
    if not ledger.reports:
        return np.zeros(0, int)
    stopped = rows[ledger.state[rows] == TrialState.PRUNED].tolist()
    others = (*ledger.owners, *ledger.paused) if history.watched else ()
    return np.array(sorted(n for n in (*stopped, *others) if n in ledger.reports), int)


def curves_of(
    history: History, numbers: np.ndarray, x: np.ndarray, slopes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points with a last column for the step, from 0 to 1 by its logarithm, the losses there, and their slopes.

    A complete trial without reports counts at the last step. Slopes belong to the value that was told at the end.
    """
    ledger, sign = history.ledger, history.ledger.signs[0]
    known = [ledger.reports.get(int(number), {}) for number in numbers]
    last = max((max(reports) for reports in known if reports), default=0)
    rows, values, rises = [], [], []
    for place, (number, reports) in enumerate(zip(numbers.tolist(), known, strict=True)):
        steps = _thinned(sorted(reports))
        found = {step: reports[step] for step in steps}
        end = None
        if ledger.state[number] == TrialState.COMPLETE:
            end = steps[0] if steps else last
            found[end] = float(ledger.values[number, 0])
        for step, value in found.items():
            if math.isfinite(value):
                rows.append(np.append(x[place], math.log1p(step) / math.log1p(last) if last else 1.0))
                values.append(sign * value)
                rises.append(
                    np.append(slopes[place] if step == end else np.full(x.shape[1], math.nan), math.nan)
                )
    kept = slice(max(len(rows) - _MOST_VALUES, 0), None)
    return np.array(rows)[kept], np.array(values)[kept], np.array(rises)[kept]


def _thinned(steps: list[int]) -> list[int]:
    """The last step, and a few before, each at most a third of the one after it."""
    chosen: list[int] = []
    for step in reversed(steps):
        if len(chosen) < _A_TRIAL and (not chosen or (step + 1) * _APART <= chosen[-1] + 1):
            chosen.append(step)
    return chosen


def told(history: History) -> int:
    """How many trials there is something to learn from."""
    others = (*history.ledger.owners, *history.ledger.paused) if history.watched else ()
    return len(history.rows) + sum(number in history.ledger.reports for number in others)
