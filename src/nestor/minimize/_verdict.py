"""The verdict: what holds at the answer, recomputed there; no solver's word is taken for it.

A point is a solution when it is feasible to `tol` (in units of the limits, at least one), and when multipliers of the
right signs bring the gradient of the Lagrangian, projected on the bounds, down to tol * max(1, |g0|), where g0 is the
projected gradient at the start and norms are largest absolute entries. Multipliers are those of active constraints
and bounds; they come from bounded linear least squares.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nestor.minimize._box import HostBox
from nestor.minimize._constraints import Constraints
from nestor.minimize._layout import Layout
from nestor.solution import KKT

Vector = np.ndarray


class Verdict(NamedTuple):
    """What was found at a point.

    Attributes:
        converged: whether it is a solution.
        optimality: the projected gradient of the Lagrangian, largest absolute entry.
        feasible: whether the constraints hold.
        kkt: the same in full.
    """

    converged: bool
    optimality: float
    feasible: bool
    kkt: KKT


def judge(
    layout: Layout,
    x: Vector,
    grad: Vector,
    box: HostBox,
    constraints: Constraints | None,
    values: Vector | None,
    jacobian: np.ndarray | None,
    tol: float,
    target: float,
) -> Verdict:
    """Whether x is a solution.

    Args:
        grad: of the objective at x.
        values, jacobian: of the constraints at x; None without any.
        tol: of the constraints.
        target: of the gradient.
    """
    slope, feasibility, gap, weak = grad, 0.0, 0.0, 0
    multipliers = np.zeros(0)
    if constraints is not None:
        assert values is not None
        assert jacobian is not None
        multipliers, slacks = _multipliers(x, grad, box, constraints, values, jacobian, tol)
        slope = grad + jacobian.T @ multipliers
        feasibility = constraints.violation(values)
        inequality = ~constraints.equal
        gap = float(np.max(np.minimum(np.abs(multipliers), slacks)[inequality], initial=0.0))
        weak += int(np.sum((slacks <= tol) & (np.abs(multipliers) <= target) & inequality))
    residual = box.projected(x, slope)
    optimality = float(np.max(np.abs(residual)))
    lower = upper = None
    if box.given:
        at_lower, at_upper = x <= box.lower, x >= box.upper
        lower = np.where(at_lower, np.maximum(slope, 0.0), 0.0)
        upper = np.where(at_upper & ~(at_lower & (slope > 0)), np.maximum(-slope, 0.0), 0.0)
        weak += int(np.sum((at_lower ^ at_upper) & (np.abs(slope) <= target)))
    kkt = KKT(
        stationarity=optimality,
        feasibility=feasibility,
        complementarity=gap,
        lower=None if lower is None else layout.answer(lower),
        upper=None if upper is None else layout.answer(upper),
        constraints=() if constraints is None else constraints.trees(multipliers),
        weakly_active=weak,
    )
    feasible = feasibility <= tol
    return Verdict(feasible and optimality <= target and gap <= max(tol, target), optimality, feasible, kkt)


def _multipliers(
    x: Vector,
    grad: Vector,
    box: HostBox,
    constraints: Constraints,
    values: Vector,
    jacobian: np.ndarray,
    tol: float,
) -> tuple[Vector, Vector]:
    """Multipliers of all constraints, zero where they are not active, and the slacks."""
    from scipy.optimize import lsq_linear

    under, over = values - constraints.lower, constraints.upper - values
    slacks = np.maximum(np.minimum(under, over), 0.0) / constraints.scale
    active = constraints.equal | (slacks <= tol)
    found = np.zeros(values.size)
    at_lower, at_upper = (_near(x, side, tol) for side in (box.lower, box.upper))
    if not active.any():
        return found, slacks
    unit = np.eye(x.size)
    columns = np.concatenate([jacobian[active].T, -unit[:, at_lower], unit[:, at_upper]], axis=1)
    equal, low = constraints.equal[active], (under <= over)[active]
    bounds = int(at_lower.sum() + at_upper.sum())
    least = np.concatenate([np.where(equal | low, -np.inf, 0.0), np.zeros(bounds)])
    most = np.concatenate([np.where(equal | ~low, np.inf, 0.0), np.full(bounds, np.inf)])
    if np.isfinite(columns).all() and np.isfinite(grad).all():
        found[active] = lsq_linear(columns, -grad, (least, most), method="bvls", max_iter=1000).x[
            : active.sum()
        ]
    return found, slacks


def _near(x: Vector, side: Vector, tol: float) -> np.ndarray:
    """Which unknowns are so near to that bound that it may have a multiplier."""
    finite = np.where(np.isfinite(side), side, 0.0)
    return np.isfinite(side) & (np.abs(x - finite) <= tol * np.maximum(1.0, np.abs(finite)))
