"""Where to look next: the expected improvement of a process, its derivative, and the point where it is largest."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nestor.search._points import Points
from nestor.search._process import Process
from nestor.search._spaces import Categorical

_WIDE, _NEAR = 256, 256  # candidates drawn everywhere, and near the best
_CLIMBED = 3  # of which so many are climbed from
_LEADERS = 4

Penalty = Callable[[np.ndarray], np.ndarray]


def log_improvement(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of phi(z) + z Phi(z), the expected improvement by a unit deviation, and its derivative."""
    from scipy.special import erfcx

    ratio = 1.2533141373155003 * erfcx(np.clip(-z / math.sqrt(2.0), -26.0, None))  # Phi / phi
    far = z < -15.0
    square = np.where(far, z * z, 1.0)
    inside = np.where(far, (1.0 - 3.0 / square) / square, np.maximum(1.0 + z * ratio, 1e-300))
    return -0.5 * z * z - 0.9189385332046727 + np.log(inside), ratio / inside


class Look:
    """What is needed to look for the next point.

    Attributes:
        process: the posterior, in which less is better.
        points: the columns.
        x: the points of the trials. [n, columns].
        y: their losses, as the process knows them. [n].
        patterns: which parameters each of the trials has. [n, names].
        penalty: taken from the logarithm of the expected improvement; None for nothing.
        held: what a proposal has in some columns, NaN in the others. [columns].
        visited: points that are not proposed again.
        best: the loss to improve upon.
        extra: how many columns the process has beyond those, such as the step; proposals have 1 there.
    """

    def __init__(
        self,
        process: Process,
        points: Points,
        x: np.ndarray,
        y: np.ndarray,
        patterns: np.ndarray,
        penalty: Penalty | None = None,
        held: np.ndarray | None = None,
        visited: np.ndarray | None = None,
    ):
        self.process, self.points, self.x, self.y, self.patterns = process, points, x, y, patterns
        self.penalty, self.best = penalty, float(y.min())
        self.held = np.full(points.width, np.nan) if held is None else held
        self.visited = x if visited is None else visited
        self.extra = process.data.x.shape[1] - points.width

    def score(self, at: np.ndarray) -> np.ndarray:
        """The logarithm of the expected improvement, less the penalty. [m, columns] -> [m]."""
        mean, deviation = self.process.mean_and_deviation(self.extended(at))
        found = np.log(deviation) + log_improvement((self.best - mean) / deviation)[0]
        return found if self.penalty is None else found - self.penalty(at)

    def extended(self, at: np.ndarray) -> np.ndarray:
        """Points with the columns that only the process knows."""
        return np.concatenate([at, np.ones((len(at), self.extra))], axis=1) if self.extra else at

    def _loss(self, moving: np.ndarray, still: np.ndarray, columns: np.ndarray) -> tuple[float, np.ndarray]:
        point = still.copy()
        point[columns] = moving
        mean, deviation, slope, rise = self.process.at(point)
        z = (self.best - mean) / deviation
        log, by_z = log_improvement(np.array([z]))
        whole = rise / deviation + by_z[0] * (-slope - z * rise) / deviation
        return -(math.log(deviation) + float(log[0])), -whole[columns]

    def lowest(
        self, start: np.ndarray, columns: np.ndarray, reach: float = 0.3, turns: int = 60
    ) -> tuple[np.ndarray, float]:
        """Where the mean is lowest around a start, no farther than a reach; and the mean there."""
        from scipy.optimize import minimize

        still, free = self.extended(start[None])[0], np.flatnonzero(columns)

        def mean(moving: np.ndarray) -> tuple[float, np.ndarray]:
            point = still.copy()
            point[free] = moving
            value, _, slope, _ = self.process.at(point)
            return value, slope[free]

        low, high = np.maximum(start[free] - reach, 0.0), np.minimum(start[free] + reach, 1.0)
        found = minimize(
            *(mean, start[free]),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)),
            options={"maxiter": turns},
        )
        moved = start.copy()
        moved[free] = np.clip(found.x, 0.0, 1.0)
        return moved, float(found.fun)

    def largest(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The best point found, and its pattern: drawn widely and near the best trials, then climbed."""
        points = self.points
        candidates, of = self._candidates(random)
        score = self.score(candidates)
        order = np.argsort(-score, kind="stable")
        tops = [int(order[0])]
        for place in order[1:64].tolist():
            far = min(float(np.abs(candidates[place] - candidates[top]).max()) for top in tops)
            if len(tops) < _CLIMBED and far > 0.1:
                tops.append(place)
        found = [(candidates[top], of[top]) for top in tops]
        for top in tops:
            moved = self.climbed(
                candidates[top], points.columns_of(of[top][None])[0] & ~points.discrete & np.isnan(self.held)
            )
            found.append((moved, of[top]))
        finals = points.snapped(np.array([point for point, _ in found]))
        new = np.abs(finals[:, None, :] - self.visited[None]).max(axis=-1).min(axis=1) > 1e-9
        if not new.any():
            wide = np.abs(candidates[:, None, :] - self.visited[None]).max(axis=-1).min(axis=1) > 1e-9
            place = int(np.argmax(np.where(wide, score, -np.inf)))
            return candidates[place], of[place]
        place = int(np.argmax(np.where(new, self.score(finals), -np.inf)))
        return finals[place], found[place][1]

    def climbed(self, start: np.ndarray, columns: np.ndarray, turns: int = 40) -> np.ndarray:
        """The point that L-BFGS climbs to over some columns, from a start."""
        from scipy.optimize import minimize

        if not columns.any():
            return start
        still = self.extended(start[None])[0]
        free = np.flatnonzero(columns)
        found = minimize(
            *(self._loss, start[free]),
            args=(still, free),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1.0)] * len(free),
            options={"maxiter": turns},
        )
        moved = start.copy()
        moved[free] = np.clip(found.x, 0.0, 1.0)
        return moved

    def _candidates(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points and their patterns: wide ones in the patterns there are, and near the best trials."""
        points, d = self.points, self.points.width
        patterns, of_row = np.unique(self.patterns, axis=0, return_inverse=True)
        of_row = of_row.ravel()
        wide = random.integers(len(patterns), size=_WIDE)
        ordered, counts = np.argsort(of_row, kind="stable"), np.bincount(of_row)
        base = ordered[(np.cumsum(counts) - counts)[wide] + random.integers(counts[wide])]  # a row of each
        leaders = np.argsort(self.y, kind="stable")[:_LEADERS]
        near = leaders[random.integers(len(leaders), size=_NEAR)]
        rows = np.concatenate([base, near])
        of, at = self.patterns[rows], self.x[rows].copy()
        active = points.columns_of(of)
        widths = 10.0 ** random.uniform(-3, -0.5, (_NEAR, 1))
        moved = active[_WIDE:] & (random.random((_NEAR, d)) < max(0.3, 2.0 / d))
        at[_WIDE:] += moved * widths * random.standard_normal((_NEAR, d))
        at[:_WIDE] = np.where(active[:_WIDE], random.random((_WIDE, d)), at[:_WIDE])
        self._choose(at, rows, of_row, patterns, random)
        at = np.where(np.isnan(self.held), at, self.held)
        return points.snapped(at), of

    def _choose(
        self,
        at: np.ndarray,
        rows: np.ndarray,
        of_row: np.ndarray,
        patterns: np.ndarray,
        random: np.random.Generator,
    ) -> None:
        """Give candidates choices that their pattern has been seen with, or that nothing has been seen with."""
        for place, (name, domain) in enumerate(self.points.domains.items()):
            if not isinstance(domain, Categorical):
                continue
            span = self.points.spans[name]
            seen = self.x[:, span]
            unseen = ~(seen > 0).any(axis=0)
            at[:, span] = seen[rows]
            again = np.concatenate([random.random(_WIDE) < 0.7, random.random(_NEAR) < 0.15])
            allowed = [
                np.flatnonzero((seen[of_row == k] > 0).any(axis=0) | unseen) for k in range(len(patterns))
            ]
            draw = random.random(len(rows))
            for row in np.flatnonzero(again).tolist():
                pattern = int(of_row[rows[row]])
                if patterns[pattern, place]:
                    choices = allowed[pattern]
                    at[row, span] = 0.0
                    at[row, span.start + choices[int(draw[row] * len(choices))]] = 1.0
