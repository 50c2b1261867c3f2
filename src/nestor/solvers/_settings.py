"""The settings of everything that a solve can be built from: one table of fields, ranges and examples.

A class that is not in the table (a user's own solver, search or adjoint) is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import jax

from nestor import linear, settings
from nestor.adjoints import SETTINGS, Implicit
from nestor.settings import Setting, choice, count, number, optional, part, plain_number
from nestor.solvers._augmented import AugmentedLagrangian
from nestor.solvers._bfgs import BFGS, LBFGS
from nestor.solvers._block_descent import BlockCoordinateDescent, Blocks, Order
from nestor.solvers._contract import Minimization
from nestor.solvers._fixed_points import Anderson, Picard
from nestor.solvers._frank_wolfe import FrankWolfe
from nestor.solvers._gradient_descent import GradientDescent
from nestor.solvers._line_newton import LineSearchNewton, LineSearchNewtonCG
from nestor.solvers._mirror_descent import MirrorDescent
from nestor.solvers._newton import Newton
from nestor.solvers._newton_cg import NewtonCG
from nestor.solvers._nonlinear_cg import Direction, NonlinearCG
from nestor.solvers._proximal_gradient import Acceleration, ProjectedGradient, ProximalGradient
from nestor.solvers._rates import AdaGradStep, Rate, RMSPropStep
from nestor.solvers._roots import Broyden, NewtonRoot
from nestor.solvers._searches import Backtracking, FixedStep, StrongWolfe
from nestor.solvers._sqp import SQP
from nestor.solvers._squares import Dogleg, LevenbergMarquardt


def check_settings(where: str, argument: str, thing: Any) -> None:
    """Check the fields of a solver, search, linear solver or adjoint, and of those that it holds.

    Cost: a few microseconds; the values of arrays, which may still be on their way, are not waited for.
    """
    settings.check_settings(where, argument, thing, TABLE)


def _wolfe_decrease(value: Any, owner: StrongWolfe) -> bool:
    return _FRACTION.good(value, owner) and (isinstance(value, jax.Array) or value < owner.curvature)


_POSITIVE = number(lambda v: 0 < v < math.inf, "a finite number > 0", "0.1")
_FRACTION = number(lambda v: 0 < v < 1, "a number between 0 and 1, both excluded", "0.5")
_SMALL = _FRACTION._replace(example="1e-4")
_NOT_ZERO = number(lambda v: v != 0 and math.isfinite(v), "a finite number other than 0", "0.5")
_NOT_NEGATIVE = number(lambda v: 0 <= v < math.inf, "a finite number >= 0", "1e-8")
_FIRST = optional(_POSITIVE._replace(example="1.0"))
_TOL = optional(plain_number(lambda v: 0 <= v < math.inf, "number >= 0", "1e-6"))
_SEARCH = Setting(
    lambda value, _: not isinstance(value, type) and (hasattr(value, "advance") or isinstance(value, Rate)),
    "a search, Backtracking() or StrongWolfe(), or a step such as FixedStep(length)",
    "nestor.StrongWolfe()",
)

_INNER = Setting(
    lambda value, _: getattr(value, "solves", None) is Minimization and not isinstance(value, type),
    "a solver that minimizes and keeps bounds",
    "nestor.LBFGS()",
)

_LINEAR = SETTINGS[Implicit]["linear_solver"]

TABLE: Mapping[type, dict[str, Setting]] = {
    # searches
    FixedStep: {"length": _POSITIVE},
    Backtracking: {"decrease": _SMALL, "shrink": _FRACTION, "max_tries": count(40), "first": _FIRST},
    StrongWolfe: {
        "curvature": plain_number(lambda v: 0 < v < 1, "number between 0 and 1, both excluded", "0.9"),
        "decrease": _SMALL._replace(
            good=_wolfe_decrease, want="a number between 0 and curvature, both excluded"
        ),
        "max_tries": count(30),
        "first": _FIRST,
    },
    AdaGradStep: {"eps": _NOT_NEGATIVE},
    RMSPropStep: {
        "decay": number(lambda v: 0 <= v < 1, "a number >= 0 and < 1", "0.9"),
        "eps": _NOT_NEGATIVE,
    },
    # minimization
    GradientDescent: {"search": _SEARCH},
    BFGS: {"search": _SEARCH},
    LBFGS: {"memory": count(10), "search": _SEARCH},
    NonlinearCG: {"direction": choice(*get_args(Direction)), "search": _SEARCH},
    Newton: {"radius": optional(_POSITIVE)},
    LineSearchNewton: {"search": _SEARCH},
    LineSearchNewtonCG: {"search": _SEARCH, "max_products": optional(count(20))},
    NewtonCG: {"radius": optional(_POSITIVE), "max_products": optional(count(100))},
    AugmentedLagrangian: {"inner": _INNER},
    SQP: {"radius": optional(_POSITIVE)},
    # composite problems
    ProximalGradient: {"acceleration": choice(*get_args(Acceleration)), "first": _FIRST},
    ProjectedGradient: {"first": _FIRST},
    MirrorDescent: {
        "mirror": part("primal", "a mirror map, such as Entropy()", "nestor.Entropy()"),
        "first": _FIRST,
    },
    FrankWolfe: {"curvature": _POSITIVE._replace(example="1.0")},
    BlockCoordinateDescent: {
        "blocks": choice(*get_args(Blocks)),
        "order": choice(*get_args(Order)),
        "first": _POSITIVE._replace(example="1.0"),
    },
    # roots, fixed points, least squares
    NewtonRoot: {"linear_solver": optional(_LINEAR)},
    Broyden: {"jacobian": choice("exact", "identity"), "max_tries": count(30)},
    Anderson: {"memory": count(5), "regularization": optional(_NOT_NEGATIVE)},
    Picard: {"damping": _NOT_ZERO},
    LevenbergMarquardt: {"damping": _POSITIVE._replace(example="1e-3")},
    Dogleg: {"radius": optional(_POSITIVE)},
    # linear solvers
    linear.CG: {"tol": _TOL, "max_steps": optional(count(100))},
    linear.BiCGStab: {"tol": _TOL, "max_steps": optional(count(100))},
    linear.GMRES: {"tol": _TOL, "restart": count(20), "max_steps": optional(count(10))},
    linear.Neumann: {"terms": count(20), "scale": optional(_NOT_ZERO)},
    linear.Nystrom: {"rank": count(10), "shift": optional(_POSITIVE)},
    **SETTINGS,
}
