"""The front functions that solve, one driver, and one file a method."""

import importlib as _importlib
import typing as _typing

from nestor.solvers._augmented import AugmentedLagrangian
from nestor.solvers._batch import minimize_batch
from nestor.solvers._bfgs import BFGS, LBFGS
from nestor.solvers._block_descent import BlockCoordinateDescent
from nestor.solvers._bounds import Box
from nestor.solvers._constraints import Constraint
from nestor.solvers._contract import (
    Composite,
    Constrained,
    FixedPointFinding,
    Info,
    LeastSquares,
    Minimization,
    Point,
    Problem,
    RootFinding,
    Solver,
    code,
    info_at,
    judge,
    no_info,
)
from nestor.solvers._curve_fit import CurveFit, curve_fit
from nestor.solvers._fixed_points import Anderson, Picard
from nestor.solvers._frank_wolfe import FrankWolfe
from nestor.solvers._front import (
    argmin,
    find_root,
    fixed_point,
    least_squares,
    minimize,
    minimum,
)
from nestor.solvers._gradient_descent import GradientDescent
from nestor.solvers._line_newton import LineSearchNewton, LineSearchNewtonCG
from nestor.solvers._mirror_descent import Entropy, MirrorDescent
from nestor.solvers._newton import Newton
from nestor.solvers._newton_cg import NewtonCG
from nestor.solvers._nonlinear_cg import NonlinearCG
from nestor.solvers._optax import Optax
from nestor.solvers._paced import Pacer, minimize_paced
from nestor.solvers._proximal_gradient import ProjectedGradient, ProximalGradient
from nestor.solvers._rates import AdaGradStep, Rate, RMSPropStep, ScheduledStep
from nestor.solvers._reports import ProgressBar, Report
from nestor.solvers._roots import Broyden, NewtonRoot
from nestor.solvers._searches import Backtracking, FixedStep, Search, StrongWolfe
from nestor.solvers._sqp import SQP
from nestor.solvers._squares import Dogleg, GaussNewton, LevenbergMarquardt

if _typing.TYPE_CHECKING:
    from nestor.solvers._host_solvers import Clarabel, HiGHS
    from nestor.solvers._programs import solve_cone, solve_lp, solve_qp

__all__ = [
    "BFGS",
    "LBFGS",
    "SQP",
    "AdaGradStep",
    "Anderson",
    "AugmentedLagrangian",
    "Backtracking",
    "BlockCoordinateDescent",
    "Box",
    "Broyden",
    "Clarabel",
    "Composite",
    "Constrained",
    "Constraint",
    "CurveFit",
    "Dogleg",
    "Entropy",
    "FixedPointFinding",
    "FixedStep",
    "FrankWolfe",
    "GaussNewton",
    "GradientDescent",
    "HiGHS",
    "Info",
    "LeastSquares",
    "LevenbergMarquardt",
    "LineSearchNewton",
    "LineSearchNewtonCG",
    "Minimization",
    "MirrorDescent",
    "Newton",
    "NewtonCG",
    "NewtonRoot",
    "NonlinearCG",
    "Optax",
    "Pacer",
    "Picard",
    "Point",
    "Problem",
    "ProgressBar",
    "ProjectedGradient",
    "ProximalGradient",
    "RMSPropStep",
    "Rate",
    "Report",
    "RootFinding",
    "ScheduledStep",
    "Search",
    "Solver",
    "StrongWolfe",
    "argmin",
    "code",
    "curve_fit",
    "find_root",
    "fixed_point",
    "info_at",
    "judge",
    "least_squares",
    "minimize",
    "minimize_batch",
    "minimize_paced",
    "minimum",
    "no_info",
    "solve_cone",
    "solve_lp",
    "solve_qp",
]

# Linear, quadratic and cone programs bring SciPy's optimizers with them: they come when they are asked for.
_LATER = {"Clarabel": "_host_solvers", "HiGHS": "_host_solvers"}
_LATER |= dict.fromkeys(("solve_cone", "solve_lp", "solve_qp"), "_programs")


def __getattr__(name: str) -> _typing.Any:
    if name not in _LATER:
        raise AttributeError(f"module 'nestor.solvers' has no attribute {name!r}")
    found = getattr(_importlib.import_module(f"nestor.solvers.{_LATER[name]}"), name)
    globals()[name] = found
    return found
