"""A smooth model through a few points with values and gradients, and the step of a trust region on it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

_POINTS = 20  # nearest to the best one that the model goes through
_EQUATIONS = 400  # values and slopes together, at most
_LENGTHS = 10.0 ** np.linspace(-1.0, 1.0, 9)
_POWERS = (0.0, 0.25, 0.5)  # of the curvature of each coordinate, by which it is stretched
_JITTER = 1e-9


class _Model(NamedTuple):
    """A Gaussian process with a Gaussian kernel, given values and slopes.

    Attributes:
        points: stretched. [n, d].
        stretch: of each coordinate. [d].
        length: of the kernel.
        weights: of the values and slopes. [n (d + 1)].
        level: far from all points.
    """

    points: np.ndarray
    stretch: np.ndarray
    length: float
    weights: np.ndarray
    level: float

    def value_and_slope(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean at a point, and its gradient."""
        row = _covariance((point * self.stretch)[None], self.points, self.length) @ self.weights
        return self.level + float(row[0]), row[1:] * self.stretch


def trust_region_step(
    points: np.ndarray, losses: np.ndarray, slopes: np.ndarray, radius: float
) -> np.ndarray:
    """The least point, within a radius of the best point and in [0, 1]^d, of a model of what is known.

    The model is a Gaussian process through values and gradients of the best point and its nearest: what a
    quasi-Newton method knows, and how the curvature changes. Its length, and how much it is stretched along coordinates
    that curve more, have maximal likelihood. In more dimensions than points it lives in the span of steps and slopes.

    Args:
        points: [n, d], in the unit cube.
        losses: [n].
        slopes: [n, d].
        radius: largest change of a coordinate.

    Cost: 27 Cholesky factorizations of at most 400 equations, some 5 ms.

    Source: Wu, Poloczek, Wilson and Frazier, Bayesian optimization with gradients, NeurIPS 2017; Hennig and Kiefel,
    Quasi-Newton methods: a new direction, JMLR 2013; Conn, Gould and Toint, Trust-region methods, 2000.
    """
    best = int(np.argmin(losses))
    centre, slope = points[best], slopes[best]
    held = ((centre <= 0) & (slope > 0)) | ((centre >= 1) & (slope < 0))
    free = np.flatnonzero(~held)
    downhill = slope[free]
    if len(free) == 0 or not np.any(downhill):
        return centre.copy()
    count = max(2, min(_POINTS, _EQUATIONS // (min(len(free), 2 * _POINTS) + 1)))
    distances = ((points - centre) ** 2).sum(axis=1)
    near = np.argsort(distances, kind="stable")[:count]
    moved = centre.copy()
    if len(near) == 1:
        moved[free] -= radius * downhill / np.abs(downhill).max()
        return np.clip(moved, 0.0, 1.0)
    spread = max(float(np.ptp(losses[near])), 1e-300)
    x, g = (points[near] - centre)[:, free], slopes[near][:, free] / spread
    basis = _span(x, g) if len(free) > 2 * len(near) else np.eye(len(free))
    model = _fitted(x @ basis, (losses[near] - losses[best]) / spread, g @ basis)
    if model is None:
        moved[free] -= radius * downhill / np.abs(downhill).max()
        return np.clip(moved, 0.0, 1.0)
    whole = basis.shape[0] == basis.shape[1]
    low = np.maximum(-centre[free], -radius) if whole else np.full(basis.shape[1], -radius)
    high = np.minimum(1.0 - centre[free], radius) if whole else np.full(basis.shape[1], radius)
    found = minimize(
        model.value_and_slope,
        np.zeros(basis.shape[1]),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)),
    )
    moved[free] += np.clip(basis @ found.x, -radius, radius)
    return np.clip(moved, 0.0, 1.0)


def _span(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span all steps and slopes."""
    rows = np.concatenate([x, g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300)])
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    return directions[sizes > 1e-9 * sizes[0]].T


def _fitted(x: np.ndarray, y: np.ndarray, g: np.ndarray) -> _Model | None:
    """The model of maximal likelihood; None where nothing can be factorized."""
    n = len(x)
    moved, turned = ((side - side[0]) ** 2 for side in (x, g))
    curvature = np.sqrt((turned.sum(axis=0) + 1e-300) / (moved.sum(axis=0) + 1e-300))
    curvature = np.clip(curvature / np.exp(np.log(curvature).mean()), 1e-3, 1e3)
    best: tuple[float, _Model] | None = None
    for power in _POWERS:
        stretch = curvature**power
        told = np.concatenate([y, (g / stretch).ravel()])
        for length in _LENGTHS:
            found = _solved(x * stretch, told, float(length))
            if found is None:
                continue
            likelihood = found[0] - n * float(np.log(stretch).sum())
            if best is None or likelihood > best[0]:
                best = likelihood, _Model(x * stretch, stretch, float(length), *found[1:])
    return None if best is None else best[1]


def _solved(x: np.ndarray, told: np.ndarray, length: float) -> tuple[float, np.ndarray, float] | None:
    """Log likelihood (level and amplitude at their best), weights and level."""
    n, d = x.shape
    kernel = _covariance(x, x, length)
    noise = np.concatenate([np.ones(n), np.full(n * d, 1.0 / length**2)])
    kernel[np.diag_indices(len(kernel))] += _JITTER * noise
    try:
        factor = cho_factor(kernel, lower=True, check_finite=False)
    except LinAlgError:
        return None
    ones = np.concatenate([np.ones(n), np.zeros(n * d)])
    both = cho_solve(factor, np.stack([ones, told], axis=1), check_finite=False)
    level = float(ones @ both[:, 1]) / float(ones @ both[:, 0])
    weights = both[:, 1] - level * both[:, 0]
    amplitude = max(float((told - level * ones) @ weights) / len(told), 1e-300)
    size = float(np.log(np.diagonal(factor[0])).sum())
    return -0.5 * len(told) * math.log(amplitude) - size, weights, level


def _covariance(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    """Of values and slopes at points a with those at points b, for exp(-|p - q|^2 / 2 length^2).

    [n, d], [m, d] -> [n (d + 1), m (d + 1)]: values first, then all slopes, point by point.
    """
    (n, d), m = a.shape, len(b)
    difference = (a[:, None, :] - b[None, :, :]) / length
    kernel = np.exp(-0.5 * (difference**2).sum(axis=-1))
    by_b = difference * kernel[..., None] / length
    both = np.eye(d) - difference[..., :, None] * difference[..., None, :]
    both *= kernel[..., None, None] / length**2
    whole = np.empty((n * (d + 1), m * (d + 1)))
    whole[:n, :m] = kernel
    whole[:n, m:] = by_b.reshape(n, m * d)
    whole[n:, :m] = -by_b.transpose(0, 2, 1).reshape(n * d, m)
    whole[n:, m:] = both.transpose(0, 2, 1, 3).reshape(n * d, m * d)
    return whole
