"""A Gaussian process over values and slopes: covariances, the posterior, and its settings by maximal density."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Kernel = Callable[[np.ndarray], Parts]
_LEAST_SCALE, _LARGEST_SCALE = 0.02, 30.0
_LEAST_NOISE, _LARGEST_NOISE = 1e-10, 0.1


def matern(squares: np.ndarray) -> Parts:
    """The Matern 5/2 kernel as a function of the squared distance, with three derivatives."""
    r = np.sqrt(5.0 * squares)
    decay = np.exp(-r)
    third = (-125.0 / 24.0) * decay / np.maximum(r, 1e-6)
    return (1.0 + r + r * r / 3.0) * decay, (-5.0 / 6.0) * (1.0 + r) * decay, (25.0 / 12.0) * decay, third


def gauss(squares: np.ndarray) -> Parts:
    """The Gaussian kernel as a function of the squared distance, with three derivatives."""
    k = np.exp(-0.5 * squares)
    return k, -0.5 * k, 0.25 * k, -0.125 * k


class Data:
    """What a process is told: points, values, and slopes (NaN where one is not known).

    Attributes:
        x: the points. [n, d].
        y: the values. [n].
        slopes: the derivatives of the values. [n, d].
        groups: for each column the place of its length scale.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, slopes: np.ndarray, groups: np.ndarray):
        self.x, self.y, self.slopes, self.groups = x, y, slopes, groups
        known = ~np.isnan(slopes)
        self.sloped = np.flatnonzero(known.any(axis=1))
        self.keep = known[self.sloped].ravel()  # of the slopes of sloped rows
        self.told = slopes[self.sloped].ravel()[self.keep]
        self.column = np.tile(np.arange(x.shape[1]), len(self.sloped))[self.keep]  # that a slope is by
        self.size = len(y) + len(self.told)

    def part(self, rows: np.ndarray) -> Data:
        """The same of some rows."""
        return Data(self.x[rows], self.y[rows], self.slopes[rows], self.groups)

    def thinned(self, most: int) -> Data:
        """The same with slopes at the best points only, at most so many equations."""
        if self.size <= most or not len(self.told):
            return self
        per_row = (~np.isnan(self.slopes)).sum(axis=1)
        order = self.sloped[np.argsort(self.y[self.sloped], kind="stable")]
        kept = order[len(self.y) + np.cumsum(per_row[order]) <= most]
        slopes = np.full_like(self.slopes, np.nan)
        slopes[kept] = self.slopes[kept]
        return Data(self.x, self.y, slopes, self.groups)

    def with_lies(self, x: np.ndarray, y: np.ndarray) -> Data:
        """The same with more points that have no slopes."""
        nothing = np.full(x.shape, np.nan)
        return Data(
            np.concatenate([self.x, x]),
            np.concatenate([self.y, y]),
            np.concatenate([self.slopes, nothing]),
            self.groups,
        )


class Process:
    """The posterior, given data, length scales (one a group of columns) and noise; in units of the scales inside.

    The mean far away is that of the values; the amplitude is the most likely one. Raises LinAlgError where rounding
    makes the covariance indefinite.
    """

    def __init__(self, data: Data, scales: np.ndarray, noise: float, kernel: Kernel = matern):
        self.data, self.scales, self.noise, self.kernel = data, scales, noise, kernel
        self.lengths = scales[data.groups]
        self.x = data.x / self.lengths
        self.centre = float(data.y.mean())
        self._told = np.concatenate([data.y - self.centre, data.told * self.lengths[data.column]])
        covariance = self._covariance()
        covariance[np.diag_indices(data.size)] += noise
        self._factor = _lower_factor(covariance)
        self._weights = _lapack()[1](self._factor, self._told, lower=1)[0]
        self.amplitude = max(float(self._told @ self._weights) / data.size, 1e-12)

    @functools.cached_property
    def _between(self) -> Parts:
        """The kernel and its derivatives between all points."""
        return self.kernel(squares(self.x, self.x))

    @functools.cached_property
    def _between_sloped(self) -> tuple[np.ndarray, Parts]:
        """The differences of points with slopes, and the kernel and its derivatives there."""
        a = self.x[self.data.sloped]
        s = a[:, None, :] - a[None, :, :]
        return s, self.kernel((s * s).sum(axis=-1))

    @functools.cached_property
    def inverse(self) -> np.ndarray:
        """The inverse of the covariance."""
        lower = np.tril(_lapack()[2](self._factor, lower=1)[0])
        return lower + np.tril(lower, -1).T

    def _covariance(self) -> np.ndarray:
        """Of what was told, without noise."""
        d = self.data.x.shape[1]
        values = self._between[0]
        if not len(self.data.told):
            return values.copy()
        keep = self.data.keep
        across = self._slopes_across(self.x)
        s = self._between_sloped[0]
        _, first, second, _ = self._between_sloped[1]
        both = -4.0 * second[:, :, None, None] * s[..., :, None] * s[..., None, :]
        both[..., np.arange(d), np.arange(d)] -= 2.0 * first[:, :, None]
        both = both.transpose(0, 2, 1, 3).reshape(len(s) * d, len(s) * d)[np.ix_(keep, keep)]
        return np.block([[values, across], [across.T, both]])

    def cross(self, points: np.ndarray) -> np.ndarray:
        """The covariance of values at points, in units of the scales, with what was told. [m, size]."""
        values = self.kernel(squares(points, self.x))[0]
        if not len(self.data.told):
            return values
        return np.concatenate([values, self._slopes_across(points)], axis=1)

    def _slopes_across(self, points: np.ndarray) -> np.ndarray:
        """The covariance of values at points with the slopes that were told. [m, slopes]."""
        s = points[:, None, :] - self.x[self.data.sloped][None, :, :]
        first = self.kernel((s * s).sum(axis=-1))[1]
        return (-2.0 * first[..., None] * s).reshape(len(points), -1)[:, self.data.keep]

    def mean_and_deviation(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the standard deviation at points. [m, d] -> [m], [m]."""
        cross = self.cross(points / self.lengths)
        variance = np.maximum(1.0 - np.einsum("ij,ij->i", cross @ self.inverse, cross), 1e-12)
        return self.centre + cross @ self._weights, np.sqrt(self.amplitude * variance)

    def at(self, point: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
        """The mean and the deviation at one point, and their derivatives. [d] -> (), (), [d], [d]."""
        p = point / self.lengths
        s = p - self.x
        values, first, second, _ = self.kernel((s * s).sum(axis=-1))
        cross, slopes = values, 2.0 * first[:, None] * s
        if len(self.data.told):
            sloped, d = self.data.sloped, len(p)
            t, f, g = s[sloped], first[sloped], second[sloped]
            more = -4.0 * g[:, None, None] * t[:, :, None] * t[:, None, :]
            more[:, np.arange(d), np.arange(d)] -= 2.0 * f[:, None]
            cross = np.concatenate([values, (-2.0 * f[:, None] * t).ravel()[self.data.keep]])
            slopes = np.concatenate([slopes, more.reshape(-1, d)[self.data.keep]])
        solved = self.inverse @ cross
        variance = max(1.0 - float(cross @ solved), 1e-12)
        deviation = math.sqrt(self.amplitude * variance)
        slope = slopes.T @ self._weights / self.lengths
        rise = -self.amplitude * (slopes.T @ solved) / deviation / self.lengths
        return self.centre + float(cross @ self._weights), deviation, slope, rise

    def log_likelihood(self) -> float:
        """The logarithm of the density of what was told, up to a constant, at the best amplitude."""
        diagonal = np.log(np.diagonal(self._factor)).sum()
        return (
            -0.5 * self.data.size * math.log(self.amplitude)
            - float(diagonal)
            + float(np.log(self.lengths[self.data.column]).sum())
        )

    def likelihood_slopes(self) -> tuple[np.ndarray, float]:
        """The derivatives of `log_likelihood` by the logarithms of the scales and of the noise."""
        n, d = self.data.x.shape
        weights = self._weights
        inner = np.outer(weights, weights) / self.amplitude - self.inverse
        by_noise = 0.5 * self.noise * float(np.trace(inner))
        first = self._between[1]
        by_column = _spread(inner[:n, :n] * first, self.x, self.x)
        if len(self.data.told):
            by_column += self._slopes_by_column(inner)
            more = 1.0 - self._told[n:] * weights[n:] / self.amplitude
            by_column += np.bincount(self.data.column, more, minlength=d)
        return np.bincount(self.data.groups, by_column, minlength=len(self.scales)), by_noise

    def _slopes_by_column(self, inner: np.ndarray) -> np.ndarray:
        """The share that the covariances of slopes have in the derivative by the logarithms of the lengths."""
        (n, d), sloped = self.data.x.shape, self.data.sloped
        k = len(sloped)
        whole = np.zeros((n, k * d))
        whole[:, self.data.keep] = inner[:n, n:]
        whole = whole.reshape(n, k, d)
        s = self.x[:, None, :] - self.x[sloped][None, :, :]
        along = np.einsum("abi,abi->ab", whole, s)
        near, far = self.kernel((s * s).sum(axis=-1))[1:3]
        found = np.einsum("ab,abi,abi->i", 2.0 * near, whole, s)  # once for each of the two blocks
        found += _spread(-2.0 * far * along, self.x, self.x[sloped]) * 2.0
        both = np.zeros((k * d, k * d))
        both[np.ix_(self.data.keep, self.data.keep)] = inner[n:, n:]
        both = both.reshape(k, d, k, d)
        s, (_, near, far, third) = self._between_sloped
        right = np.einsum("aibj,abj->abi", both, s)
        traces = np.einsum("aibi->ab", both)
        pairs = -4.0 * third * np.einsum("abi,abi->ab", right, s) - 2.0 * far * traces
        found += _spread(pairs, self.x[sloped], self.x[sloped])
        return found + np.einsum("ab,abi,abi->i", 4.0 * far, right, s)


@functools.cache
def _lapack() -> Any:
    """The routines that factorise, solve and invert, without what SciPy checks around them."""
    from scipy.linalg import get_lapack_funcs

    return get_lapack_funcs(("potrf", "potrs", "potri"), dtype=np.float64)


def _lower_factor(covariance: np.ndarray) -> np.ndarray:
    """The lower Cholesky factor; what lies above the diagonal means nothing."""
    factor, code = _lapack()[0](covariance, lower=1, clean=0)
    if code:
        raise np.linalg.LinAlgError("the covariance of the trials cannot be factorised")
    return factor


def _spread(pairs: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Minus the sum over pairs of their weight times the squared difference, by columns. [n, m] -> [d]."""
    return -(pairs.sum(axis=1) @ a**2 + pairs.sum(axis=0) @ b**2 - 2.0 * np.einsum("ai,ai->i", a, pairs @ b))


def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The squared distances of rows."""
    total = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.maximum(total, 0.0)


def log_prior(settings: np.ndarray, d: int) -> tuple[float, np.ndarray]:
    """Log-normal on the scales around 0.5 sqrt(d), on the noise around 1e-5; with the derivative."""
    centre = np.append(np.full(len(settings) - 1, math.log(0.5 * math.sqrt(d))), math.log(1e-5))
    width = np.append(np.full(len(settings) - 1, 1.0), 3.0)
    away = (settings - centre) / width
    return -0.5 * float(away @ away), -away / width


def loss(settings: np.ndarray, data: Data, kernel: Kernel = matern) -> tuple[float, np.ndarray]:
    """Minus the log posterior density of log scales and log noise (the last), and its derivative."""
    prior, prior_slope = log_prior(settings, data.x.shape[1])
    try:
        process = Process(data, np.exp(settings[:-1]), math.exp(settings[-1]), kernel)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(settings)
    by_scale, by_noise = process.likelihood_slopes()
    return -process.log_likelihood() - prior, -(np.append(by_scale, by_noise) + prior_slope)


def fitted(
    data: Data, sample: Data | None = None, kernel: Kernel = matern, turns: int = 25
) -> tuple[Process, float]:
    """The process with the settings of maximal posterior density, and the logarithm of that density.

    Args:
        data: what it is told.
        sample: what of it the settings are fitted to; None for all.
        kernel: `matern` or `gauss`.
        turns: at most so many steps of L-BFGS.
    """
    from scipy.optimize import minimize

    groups, d = int(data.groups.max()) + 1, data.x.shape[1]
    start = np.append(np.full(groups, math.log(0.5 * math.sqrt(d))), math.log(1e-4))
    bounds = [(math.log(_LEAST_SCALE), math.log(_LARGEST_SCALE))] * groups
    found = minimize(
        *(loss, start),
        args=(data if sample is None else sample, kernel),
        jac=True,
        method="L-BFGS-B",
        bounds=[*bounds, (math.log(_LEAST_NOISE), math.log(_LARGEST_NOISE))],
        options={"maxiter": turns},
    )
    return settled(data, np.exp(found.x[:-1]), math.exp(found.x[-1]), kernel), -float(found.fun)


def settled(data: Data, scales: np.ndarray, noise: float, kernel: Kernel) -> Process:
    """The process with these settings, or with as much more noise as it takes to factorise the covariance."""
    for _ in range(8):
        try:
            return Process(data, scales, noise, kernel)
        except np.linalg.LinAlgError:
            noise *= 30.0
    raise np.linalg.LinAlgError("the covariance of the trials cannot be factorised")
