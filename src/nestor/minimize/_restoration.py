"""A point that meets the constraints, near one that does not: least squares on their violation, in the bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from nestor.minimize._watch import Watch

Vector = np.ndarray

_EVALUATIONS = 200  # of the constraints, at most, from each of two starts
_ASIDE = 1e-2  # how far the second start is from the first, in units of x


def nearest_feasible(watch: Watch, x: Vector) -> Vector | None:
    """A point with a violation of at most `watch.slack`; None where the violation has a minimum that is larger.

    Cost: some evaluations of the constraints and of their derivatives; none of the objective.
    """
    from scipy.optimize import least_squares

    constraints, box = watch.constraints, watch.box
    assert constraints is not None
    free = box.lower < box.upper

    def whole(z: Vector) -> Vector:
        full = x.copy()
        full[free] = z
        return full

    def excess(z: Vector) -> Vector:
        values = watch.constraint_values(whole(z))
        return (values - np.clip(values, constraints.lower, constraints.upper)) / constraints.scale

    def slopes(z: Vector) -> np.ndarray:
        rows = watch.constraint_jacobian(whole(z))[:, free] / constraints.scale[:, None]
        return np.where(excess(z)[:, None] != 0, rows, 0.0)

    def sought(start: Vector) -> Vector | None:
        if not (np.isfinite(excess(start)).all() and np.isfinite(slopes(start)).all()):
            return None
        rules: Any = {"xtol": 1e-15, "ftol": 1e-15, "gtol": watch.slack * 1e-3, "max_nfev": _EVALUATIONS}
        jac: Any = slopes
        try:
            found = least_squares(excess, start, jac, (box.lower[free], box.upper[free]), **rules)
        except np.linalg.LinAlgError:
            return None
        met = box.clip(whole(found.x))
        return met if constraints.violation(watch.constraint_values(met)) <= watch.slack else None

    if not free.any():
        return None
    aside = x + _ASIDE * np.maximum(1.0, np.abs(x)) * np.cos(np.arange(1.0, x.size + 1))
    for start in (x, aside):  # the violation may be largest at x, or without a slope
        met = sought(box.interior(start)[free])
        if met is not None:
            return met
    return None
