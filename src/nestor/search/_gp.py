"""A Gaussian process over values and, where trials give them, gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nestor.search._ledger import History
from nestor.search._records import TrialState
from nestor.search._samplers import Asked, generator, seed_or_new, uniform
from nestor.search._spaces import Array, Categorical, Domain, Float
from nestor.search._tpe import TPESampler, ranking

_MOST_COLUMNS = 60
_MOST_ROWS = 500  # the best and the latest beyond that
_MOST_FIT = 200  # rows that the length scales are fitted to
_MOST_EQUATIONS = 500  # values and slopes together
_CANDIDATES = 400


class GPSampler:
    r"""Bayesian optimization: a Gaussian process with a Matern 5/2 kernel, and the largest expected improvement.

    A trial that was told its gradient counts as 1 + d observations, the value and d slopes, which is worth most of
    all information about the function near it; every second trial is then a quasi-Newton step from the best point,
    which follows a valley that the process does not see yet. One length scale a parameter is fitted by maximal
    posterior density. Values much worse than the median count by their logarithm. Failed trials count as the worst
    value seen, running ones as what is expected of them. Several objectives, parameters that not every trial
    has, and more than 60 columns (one a float, an integer or an entry of an array, one a choice) are sampled by TPE.

    Cost: linear algebra of at most 500 equations; with gradients the length scales are fitted by differences, some
    0.2 s of CPU a trial at 15 trials of 6 parameters and up to seconds at 500 equations.

    Needs `scipy.linalg` and `scipy.optimize`, imported when they are used.

    Args:
        seed: makes the study repeatable; None takes a new one.
        n_startup: trials before it starts to learn; None is 10, and 2 where gradients are given.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.GPSampler(seed=0))
    >>> for _ in range(6):
    ...     trial = study.ask()
    ...     x = trial.suggest_float("x", -3.0, 3.0)
    ...     study.tell(trial, (x - 1.0) ** 2, gradient={"x": 2 * (x - 1.0)})
    >>> study.best_value < 1e-2
    True

    Source: Rasmussen and Williams, Gaussian processes for machine learning, 2006, sections 4.2, 5.4 and 9.4;
    Wu, Poloczek, Wilson and Frazier, Bayesian optimization with gradients, NeurIPS 2017.
    """

    def __init__(self, seed: int | None = None, *, n_startup: int | None = None):
        self.seed = seed_or_new("GPSampler", seed)
        self.n_startup = n_startup
        self._otherwise = TPESampler(self.seed)

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        """A place in [0, 1], or an array of places."""
        history = asked.history
        learned = 2 if history.ledger.gradients else 10
        if len(history.rows) < (learned if self.n_startup is None else self.n_startup):
            return uniform(self.seed, asked.number, name, domain)
        if "gp" not in asked.memo:
            asked.memo["gp"] = self._propose(asked)
        proposed = asked.memo["gp"].get(name)
        if proposed is None or proposed[0] != domain:
            return self._otherwise(asked, name, domain)
        return proposed[1]

    def told(self, asked: Asked, name: str, domain: Domain, place: Any) -> None:
        """A parameter of the trial is settled."""
        self._otherwise.told(asked, name, domain, place)

    def _propose(self, asked: Asked) -> dict[str, tuple[Domain, Any]]:
        """All parameters at once: name to (domain, place); empty where this sampler does not apply."""
        data = _data_of(asked.history)
        if data is None:
            return {}
        random = generator(self.seed, asked.number, "gp")
        space, x, told, told_slopes = data
        y, slopes = _scaled(told, told_slopes)
        sloped = ~np.isnan(slopes).any(axis=1)
        if sloped.any() and not space.rounded:
            point, promise = _quasi_newton(x[sloped], told[sloped], told_slopes[sloped])
            falls = promise > 1e-4 * float(np.median(told) - told.min())
            if (asked.number % 2 or falls) and np.abs(x - point).max(axis=1).min() > 1e-7:
                return space.places(point)
        process = _fitted(asked.history, x, y, slopes)
        pending = [
            row for number in asked.history.pending(asked.number) if (row := space.row(number)) is not None
        ]
        if pending:
            lies = np.array(pending)
            process = _Process(
                np.concatenate([x, lies]),
                np.concatenate([y, process.mean_and_deviation(lies)[0]]),
                np.concatenate([slopes, np.full_like(lies, np.nan)]),
                process.scales,
                process.noise,
            )
        return space.places(_best_candidate(process, space, x, y, random))


class _Space:
    """The columns of the parameters that every trial has, with one column for every choice."""

    def __init__(self, history: History, names: list[str]):
        self.ledger, self.domains = history.ledger, {name: history.ledger.latest[name] for name in names}
        self.widths = {
            name: domain.size
            if isinstance(domain, Array)
            else domain.count
            if isinstance(domain, Categorical)
            else 1
            for name, domain in self.domains.items()
        }
        self.columns = sum(self.widths.values())
        self.rounded = any(not isinstance(d, Array) and d.count is not None for d in self.domains.values())

    def row(self, number: int) -> np.ndarray | None:
        """The point of a trial; None when it lacks a parameter, or has one outside."""
        parts = []
        for name, domain in self.domains.items():
            found = self.ledger.param(number, name)
            if found is None or not domain.contains(found[1]):
                return None
            if isinstance(domain, Array):
                parts.append(domain.to_unit(found[1]).ravel())
            elif isinstance(domain, Categorical):
                parts.append(np.eye(domain.count)[int(domain.encode(found[1]))])
            else:
                parts.append(domain.to_unit(np.array([domain.encode(found[1])])))
        return np.concatenate(parts)

    def slopes(self, number: int, row: np.ndarray) -> np.ndarray:
        """The derivatives of the loss by the columns, NaN where one is not known."""
        told = self.ledger.gradients.get(number)
        found = np.full(self.columns, np.nan)
        if told is None:
            return found
        at = 0
        for name, domain in self.domains.items():
            width = self.widths[name]
            if name in told and isinstance(domain, Float | Array):
                span = math.log(domain.high / domain.low) if domain.log else domain.high - domain.low
                if isinstance(domain, Float):
                    value = np.array([domain.from_unit(float(row[at]))])
                else:
                    value = domain.from_unit(row[at : at + width])
                found[at : at + width] = np.ravel(told[name]) * span * (value if domain.log else 1.0)
            at += width
        return found * self.ledger.signs[0]

    def snapped(self, points: np.ndarray) -> np.ndarray:
        """Points with whole numbers in the middle of their cells and choices one of each. [n, columns]."""
        points, at = np.clip(points, 0.0, 1.0), 0
        for name, domain in self.domains.items():
            width = self.widths[name]
            part = points[:, at : at + width]
            if isinstance(domain, Categorical):
                part[...] = np.eye(domain.count)[part.argmax(axis=1)]
            elif not isinstance(domain, Array) and domain.count is not None:
                values = np.array([domain.encode(domain.from_unit(place)) for place in part[:, 0].tolist()])
                part[:, 0] = domain.to_unit(values)
            at += width
        return points

    def places(self, point: np.ndarray) -> dict[str, tuple[Domain, Any]]:
        """What a point means: name to (domain, place)."""
        found, at = {}, 0
        for name, domain in self.domains.items():
            part = point[at : at + self.widths[name]]
            at += self.widths[name]
            if isinstance(domain, Array):
                found[name] = domain, part.reshape(domain.shape)
            elif isinstance(domain, Categorical):
                found[name] = domain, (int(part.argmax()) + 0.5) / domain.count
            else:
                found[name] = domain, float(part[0])
        return found


def _data_of(history: History) -> tuple[_Space, np.ndarray, np.ndarray, np.ndarray] | None:
    """The space, and of the trials to learn from: points, losses, slopes; None for TPE."""
    if "gp data" not in history.memo:
        history.memo["gp data"] = _read(history)
    return history.memo["gp data"]


def _read(history: History) -> tuple[_Space, np.ndarray, np.ndarray, np.ndarray] | None:
    ledger, rows = history.ledger, history.rows
    complete = rows[ledger.state[rows] == TrialState.COMPLETE]
    if len(ledger.directions) > 1 or ledger.constraints or len(complete) < 2:
        return None
    every = complete[-_MOST_ROWS:]
    names = [name for name, column in ledger.columns.items() if (column.kinds[every] > 0).all()]
    if not names or any(
        (column.kinds[every] > 0).any() for n, column in ledger.columns.items() if n not in names
    ):
        return None
    space = _Space(history, names)
    if space.columns > _MOST_COLUMNS:
        return None
    chosen = rows
    if len(rows) > _MOST_ROWS:
        chosen = np.union1d(ranking(history)[: _MOST_ROWS // 2], rows[-_MOST_ROWS // 2 :])
    found = [(int(n), row) for n in chosen.tolist() if (row := space.row(n)) is not None]
    if len(found) < 2:
        return None
    numbers = np.array([number for number, _ in found])
    x = np.array([row for _, row in found])
    y = ledger.values[numbers, 0] * ledger.signs[0]
    good = (ledger.state[numbers] == TrialState.COMPLETE) & np.isfinite(y)
    if good.sum() < 2:
        return None
    y[~good] = y[good].max()
    slopes = np.array([space.slopes(number, row) for number, row in found])
    slopes[~good] = np.nan
    return space, x, y, slopes


def _scaled(y: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses with the median at 0 and the best at -1, logarithmic beyond 1; slopes with them."""
    middle = float(np.median(y))
    unit = max(middle - float(y.min()), float(y.std()) * 1e-3, 1e-12)
    y, slopes = (y - middle) / unit, slopes / unit
    far = y > 1.0
    slopes = np.where(far[:, None], slopes / np.maximum(y, 1.0)[:, None], slopes)
    return np.where(far, 1.0 + np.log(np.maximum(y, 1.0)), y), slopes


class _Process:
    """The posterior, given points, values, slopes (a NaN row: none), length scales and noise."""

    def __init__(self, x: np.ndarray, y: np.ndarray, slopes: np.ndarray, scales: np.ndarray, noise: float):
        from scipy.linalg import cho_factor, cho_solve

        known = ~np.isnan(slopes).any(axis=1)
        self.x, self.sloped, self.scales, self.noise = x, x[known], scales, noise
        self.centre = float(y.mean())
        told = np.concatenate([y - self.centre, slopes[known].ravel()])
        covariance = _covariance(x, self.sloped, x, self.sloped, scales)
        jitter = np.concatenate(
            [np.full(len(y), noise), np.full(len(told) - len(y), noise / scales.mean() ** 2)]
        )
        covariance[np.diag_indices_from(covariance)] += jitter
        self._factor = cho_factor(covariance, lower=True, check_finite=False)
        self._weights = cho_solve(self._factor, told, check_finite=False)
        self.amplitude = max(float(told @ self._weights) / len(told), 1e-12)
        diagonal = np.log(np.diagonal(self._factor[0])).sum()
        self.log_likelihood = -0.5 * len(told) * math.log(self.amplitude) - diagonal

    def mean_and_deviation(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the standard deviation at points. [m, d] -> [m], [m]."""
        from scipy.linalg import solve_triangular

        cross = _covariance(points, points[:0], self.x, self.sloped, self.scales)
        solved = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        variance = np.maximum(1.0 - (solved * solved).sum(axis=0), 1e-12)
        return self.centre + cross @ self._weights, np.sqrt(self.amplitude * variance)


def _covariance(
    a: np.ndarray, a_sloped: np.ndarray, b: np.ndarray, b_sloped: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """The covariance of values and slopes at points a with those at points b."""
    values = _matern(_squares(a / scales, b / scales))[0]
    if not len(a_sloped) and not len(b_sloped):
        return values
    d = a.shape[1]
    by_b = _slope_rows(b_sloped, a, scales).transpose(1, 0, 2)
    by_a = _slope_rows(a_sloped, b, scales).transpose(0, 2, 1).reshape(len(a_sloped) * d, len(b))
    differences = (a_sloped[:, None, :] - b_sloped[None, :, :]) / scales
    _, first, second = _matern((differences**2).sum(axis=-1))
    both = -4.0 * second[:, :, None, None] * differences[..., :, None] * differences[..., None, :]
    both[..., np.arange(d), np.arange(d)] -= 2.0 * first[:, :, None]
    both /= scales[:, None] * scales[None, :]
    both = both.transpose(0, 2, 1, 3).reshape(len(a_sloped) * d, len(b_sloped) * d)
    return np.block([[values, by_b.reshape(len(a), len(b_sloped) * d)], [by_a, both]])


def _slope_rows(sloped: np.ndarray, others: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The derivative of k(p, q) by p, for p in sloped and q in others. [n, m, d]."""
    differences = (sloped[:, None, :] - others[None, :, :]) / scales
    first = _matern((differences**2).sum(axis=-1))[1]
    return 2.0 * first[..., None] * differences / scales


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.maximum(total, 0.0)


def _matern(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Matern 5/2 kernel as a function of the squared distance, with two derivatives."""
    r = np.sqrt(5.0 * squares)
    decay = np.exp(-r)
    return (1.0 + r + r * r / 3.0) * decay, (-5.0 / 6.0) * (1.0 + r) * decay, (25.0 / 12.0) * decay


def _fitted(history: History, x: np.ndarray, y: np.ndarray, slopes: np.ndarray) -> _Process:
    """The process with the length scales and the noise of maximal posterior density."""
    if "gp fit" in history.memo:
        return history.memo["gp fit"]
    from scipy.optimize import minimize

    d = x.shape[1]
    known = np.flatnonzero(~np.isnan(slopes).any(axis=1))
    most = max((_MOST_EQUATIONS - len(x)) // d, 1)
    if len(known) > most:  # the slopes of the best points
        dropped = known[np.argsort(y[known], kind="stable")[most:]]
        slopes = slopes.copy()
        slopes[dropped] = np.nan
    part = np.sort(
        np.argsort(y, kind="stable")[: _MOST_FIT // 2].tolist() + list(range(len(y)))[-_MOST_FIT // 2 :]
    )
    part = np.unique(part)
    fit = _slow_loss if len(known) else _fast_loss
    start = np.concatenate([np.full(d, math.log(0.5 * math.sqrt(d))), [math.log(1e-4)]])
    bounds = [(math.log(0.03), math.log(20.0))] * d + [(math.log(1e-8), math.log(0.1))]
    found = minimize(
        *(fit, start),
        args=(x[part], y[part], slopes[part]),
        jac=fit is _fast_loss,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 12 if len(known) else 25},
    )
    process = _Process(x, y, slopes, np.exp(found.x[:-1]), float(np.exp(found.x[-1])))
    history.memo["gp fit"] = process
    return process


def _log_prior(settings: np.ndarray) -> tuple[float, np.ndarray]:
    """Log-normal on the scales around 0.5 sqrt(d), on the noise around 1e-5; with the derivative."""
    d = len(settings) - 1
    centre = np.concatenate([np.full(d, math.log(0.5 * math.sqrt(d))), [math.log(1e-5)]])
    width = np.concatenate([np.full(d, 1.0), [3.0]])
    away = (settings - centre) / width
    return -0.5 * float(away @ away), -away / width


def _slow_loss(settings: np.ndarray, x: np.ndarray, y: np.ndarray, slopes: np.ndarray) -> float:
    try:
        process = _Process(x, y, slopes, np.exp(settings[:-1]), float(np.exp(settings[-1])))
    except np.linalg.LinAlgError:
        return 1e10
    return -process.log_likelihood - _log_prior(settings)[0]


def _fast_loss(
    settings: np.ndarray, x: np.ndarray, y: np.ndarray, slopes: np.ndarray
) -> tuple[float, np.ndarray]:
    """Minus the log posterior of values alone, the amplitude at its best, with the derivative."""
    from scipy.linalg import cho_factor, cho_solve

    scaled, noise, n = x / np.exp(settings[:-1]), math.exp(settings[-1]), len(x)
    kernel, first, _ = _matern(_squares(scaled, scaled))
    kernel[np.diag_indices(n)] += noise
    try:
        factor = cho_factor(kernel, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(settings)
    residual = y - y.mean()
    weights = cho_solve(factor, residual, check_finite=False)
    amplitude = max(float(residual @ weights) / n, 1e-12)
    inner = np.outer(weights, weights) / amplitude - cho_solve(factor, np.eye(n), check_finite=False)
    slope = np.empty_like(settings)
    pairs = inner * first  # the derivative of the kernel by log scale_i is -2 first (difference_i)^2
    rows = pairs.sum(axis=1)
    slope[:-1] = -2.0 * (rows @ scaled**2 - (scaled * (pairs @ scaled)).sum(axis=0))
    slope[-1] = 0.5 * noise * np.trace(inner)
    prior, prior_slope = _log_prior(settings)
    value = 0.5 * n * math.log(amplitude) + np.log(np.diagonal(factor[0])).sum()
    return float(value - prior), -(slope + prior_slope)


def _log_improvement(process: _Process, points: np.ndarray, best: float) -> np.ndarray:
    """The logarithm of the expected improvement on a value, up to a constant."""
    from scipy.special import log_ndtr

    mean, deviation = process.mean_and_deviation(points)
    z = (best - mean) / deviation
    log_density = -0.5 * z * z - 0.9189385332046727
    ratio = np.exp(np.clip(log_ndtr(z) - log_density, -700, 700))  # Phi / phi
    inside = 1.0 + z * ratio
    tail = np.where(z < -10, 1.0 / (z * z + 2.0), np.maximum(inside, 1e-300))
    return np.log(deviation) + log_density + np.log(tail)


def _best_candidate(
    process: _Process, space: _Space, x: np.ndarray, y: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """The point with the largest expected improvement: drawn widely and near the best, then climbed."""
    from scipy.optimize import minimize

    d, best = x.shape[1], float(y.min())
    leaders = x[np.argsort(y, kind="stable")[:4]]
    widths = 10.0 ** random.uniform(-3, -0.5, (_CANDIDATES // 2, 1))
    near = leaders[random.integers(len(leaders), size=_CANDIDATES // 2)]
    moved = random.random((_CANDIDATES // 2, d)) < max(0.3, 2.0 / d)
    near = near + moved * widths * random.standard_normal((_CANDIDATES // 2, d))
    candidates = space.snapped(np.concatenate([random.random((_CANDIDATES, d)), near]))
    scores = _log_improvement(process, candidates, best)
    order = np.argsort(-scores, kind="stable")
    tops = [candidates[order[0]], *candidates[order[1:]][:: max(len(order) // 8, 1)][:1]]
    if len(space.domains) == 1 or not all(isinstance(v, Categorical) for v in space.domains.values()):
        steps = np.concatenate([np.zeros((1, d)), 1e-6 * np.eye(d)])

        def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
            around = -_log_improvement(process, point + steps, best)
            return float(around[0]), (around[1:] - around[0]) / 1e-6

        for start in list(tops):
            found = minimize(
                loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * d, options={"maxiter": 30}
            )
            tops.append(found.x)
    finals = space.snapped(np.array(tops))
    new = np.abs(finals[:, None, :] - x[None]).max(axis=-1).min(axis=1) > 1e-9
    scores = np.where(new, _log_improvement(process, finals, best), -np.inf)
    if not new.any():
        return space.snapped(random.random((1, d)))[0]
    return finals[int(np.argmax(scores))]


def _quasi_newton(x: np.ndarray, y: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, float]:
    """A step from the best point by the two-loop recursion over the differences of the points, within [0, 1].

    Also what the slope promises of it, where the last point is the best one, else 0.
    """
    order = np.argsort(y, kind="stable")
    best = int(order[0])
    since = len(y) - 1 - best  # how many came after the best, which did not improve on it
    nearest = np.argsort(((x - x[best]) ** 2).sum(axis=1), kind="stable")[1:]
    pairs = [
        (x[best] - x[other], slopes[best] - slopes[other]) for other in nearest[: 2 * x.shape[1]].tolist()
    ]
    pairs = [(s, t) for s, t in pairs if s @ t > 1e-10 * math.sqrt((s @ s) * (t @ t)) and s @ s > 0][::-1]
    gradient = slopes[best].copy()
    free = ~(((x[best] <= 0) & (gradient > 0)) | ((x[best] >= 1) & (gradient < 0)))
    q, remembered = np.where(free, gradient, 0.0), []
    for s, t in reversed(pairs):
        share = (s @ q) / (s @ t)
        remembered.append(share)
        q = q - share * t
    q = (
        q * ((pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1]))
        if pairs
        else 0.1 * q / max(_norm(q), 1e-12)
    )
    for (s, t), share in zip(pairs, reversed(remembered), strict=True):
        q = q + (share - (t @ q) / (s @ t)) * s
    if q @ gradient <= 0:
        q = 0.1 * gradient / max(_norm(gradient), 1e-12)
    q *= min(1.0, 0.5 / max(_norm(q), 1e-12)) * 0.5 ** ((since + 1) // 2 if since else 0)
    point = np.clip(x[best] - np.where(free, q, 0.0), 0.0, 1.0)
    return point, float(gradient @ (x[best] - point)) if since == 0 else 0.0


def _norm(v: np.ndarray) -> float:
    return float(np.sqrt(v @ v))
