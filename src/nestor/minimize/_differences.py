"""Finite differences that never leave the bounds.

    forward   (f(x + h e) - f(x)) / h             h = sqrt(eps) max(1, |x|), away from zero
    central   (f(x + h e) - f(x - h e)) / (2 h)   h = cbrt(eps) max(1, |x|)

Near a bound the step is turned round or shortened; between two bounds that are one point the slope counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nestor.minimize._box import HostBox

Vector = np.ndarray


def gradient(
    fun: Callable[[Vector], float], x: Vector, value: float, box: HostBox, rel: Vector, central: bool
) -> Vector:
    """The gradient: n more evaluations, or, central, 2n."""
    grad = np.zeros_like(x)
    ups, downs = _offsets(x, box, rel, central)
    for i in range(x.size):
        grad[i] = _slope(fun, x, value, i, ups[i], downs[i])
    return grad


def jacobian(fun: Callable[[Vector], Vector], x: Vector, value: Vector, box: HostBox, rel: Vector) -> Any:
    """Forward differences of a vector, (len(value), n)."""
    ups, downs = _offsets(x, box, rel, False)
    columns = [_slope(fun, x, value, i, ups[i], downs[i]) for i in range(x.size)]
    return np.stack([np.broadcast_to(column, np.shape(value)) for column in columns], axis=-1)


def along(slope: Callable[[Vector], Vector], x: Vector, p: Vector, box: HostBox, rel: float) -> Vector:
    """The derivative of a gradient along p: a forward difference, and a backward one for entries at a bound.

    Cost: two gradients, or three where p leaves the box.
    """
    size = float(np.linalg.norm(p))
    if size == 0:
        return np.zeros_like(p)
    step = rel * max(1.0, float(np.linalg.norm(x))) / size
    moves = np.abs(p)
    with np.errstate(divide="ignore", invalid="ignore"):  # room in units of p; infinite where nothing moves
        ahead = np.where(moves > 0, np.where(p > 0, box.upper - x, x - box.lower) / moves, np.inf)
        behind = np.where(moves > 0, np.where(p > 0, x - box.lower, box.upper - x) / moves, np.inf)
    forward = (ahead >= step) | (ahead >= behind)
    step = min(step, float(np.min(np.where(forward, ahead, behind))))
    if step == 0:  # an unknown between two bounds that are one point
        return along(slope, x, np.where(np.maximum(ahead, behind) > 0, p, 0.0), box, rel)
    here = slope(x)
    found = np.zeros_like(p)
    for part, sign in ((forward, 1.0), (~forward, -1.0)):
        if (moves[part] > 0).any():
            moved = box.clip(x + sign * step * np.where(part, p, 0.0))
            found += sign * (slope(moved) - here) / step
    return found


def _offsets(x: Vector, box: HostBox, rel: Vector, central: bool) -> tuple[Vector, Vector]:
    """Two offsets for every entry, between which the difference is taken; both inside the box."""
    step = rel * np.maximum(1.0, np.abs(x))
    above, below = box.upper - x, box.lower - x
    if central:
        return np.minimum(step, above), np.maximum(-step, below)
    away = np.where(x >= 0, step, -step)
    fits = (away <= above) & (away >= below)
    wide = np.where(above >= -below, above, below)  # the roomier side
    turned = np.clip(-away, below, above)
    away = np.where(fits, away, np.where(np.abs(turned) >= step, turned, np.clip(wide, -step, step)))
    return away, np.zeros_like(x)


def _slope(fun: Callable[[Vector], Any], x: Vector, value: Any, i: int, up: float, down: float) -> Any:
    moved = x.copy()
    ends = []
    for offset in (up, down):
        moved[i] = x[i] + offset
        ends.append((moved[i] - x[i], value if moved[i] == x[i] else fun(moved)))
    (h, high), (g, low) = ends
    return (high - low) / (h - g) if h != g else 0.0 * value
