"""Multi-start L-BFGS-B as a function of the trials so far: the descent is run again over what is known already."""

from __future__ import annotations

import numpy as np

_SAME = 1e-9  # places that differ by less are one point


class _Asks(Exception):
    """The descent wants to know a point that no trial has visited."""

    def __init__(self, point: np.ndarray):
        super().__init__()
        self.point = point


def next_of_descent(x: np.ndarray, y: np.ndarray, slopes: np.ndarray, starts: int) -> np.ndarray | None:
    """The point that multi-start L-BFGS-B would evaluate next; None where it wants another start.

    SciPy's method is deterministic: started where it was started and answered what it was answered, it asks for the
    next point. So no state is kept, and an interrupted study goes on as it was.

    Args:
        x: the points of trials with slopes, in the order of their numbers. [n, d].
        y: their losses. [n].
        slopes: the derivatives of these. [n, d].
        starts: the first descent starts from the best of so many first trials; the next ones from the best trial
            that no descent has visited and that is older than the end of the one before.
    """
    from scipy.optimize import minimize

    visited = np.zeros(len(y), bool)
    level = float(np.median(y))
    unit = max(level - float(y.min()), 1e-300)

    def answer(point: np.ndarray) -> tuple[float, np.ndarray]:
        away = np.abs(x - point).max(axis=1)
        place = int(np.argmin(away))
        if away[place] > _SAME:
            raise _Asks(point.copy())
        visited[place] = True
        return float(y[place]), slopes[place]

    bounds, end = [(0.0, 1.0)] * x.shape[1], min(starts, len(y))
    while True:
        free = np.flatnonzero(~visited[:end])
        if not len(free):
            return None
        before = visited.copy()
        start = int(free[np.argmin(y[free])])
        try:
            minimize(
                *(answer, x[start]),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={"ftol": 1e-12, "gtol": 1e-9 * unit},
            )
        except _Asks as asked:
            return np.clip(asked.point, 0.0, 1.0)
        end = max(int(np.flatnonzero(visited & ~before).max(initial=start)) + 1, end)
