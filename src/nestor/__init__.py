"""Nestor: an optimization is a function, so it can be compiled, batched, nested and differentiated."""

import importlib
import typing

from nestor import schedules
from nestor.adjoints import (
    DARTS,
    SAMA,
    Checkpoint,
    DerivativeReport,
    Evolution,
    FiniteDifference,
    Forward,
    Implicit,
    OneStep,
    Reversible,
    Truncate,
    Unroll,
    check_derivatives,
)
from nestor.errors import (
    BadArgument,
    CannotDifferentiate,
    MissingExtra,
    NestorError,
    ReversalFailed,
    SolveFailed,
)
from nestor.linear import CG, GMRES, LU, BiCGStab, Cholesky, Neumann, Nystrom
from nestor.minimize import minimize
from nestor.solution import KKT, History, Solution, Stats, Status
from nestor.solvers import (
    BFGS,
    LBFGS,
    AdaGradStep,
    Anderson,
    Backtracking,
    Broyden,
    Dogleg,
    FixedStep,
    GaussNewton,
    GradientDescent,
    LevenbergMarquardt,
    LineSearchNewton,
    LineSearchNewtonCG,
    Newton,
    NewtonCG,
    NewtonRoot,
    NonlinearCG,
    Optax,
    Picard,
    Report,
    RMSPropStep,
    ScheduledStep,
    StrongWolfe,
    argmin,
    find_root,
    fixed_point,
    least_squares,
    minimum,
)

if typing.TYPE_CHECKING:
    from nestor import levels
    from nestor.levels import Graph, Level
    from nestor.training import (
        Cost,
        CostTable,
        Diagnosis,
        Finding,
        RunCost,
        RunHistory,
        StepReport,
        Training,
        adagrad,
        adam,
        adamw,
        diagnose,
        leapfrog,
        predict_cost,
        rmsprop,
        sgd,
        train,
        tuned,
    )

__version__ = "0.1.0"

__all__ = [
    "BFGS",
    "CG",
    "DARTS",
    "GMRES",
    "KKT",
    "LBFGS",
    "LU",
    "SAMA",
    "AdaGradStep",
    "Anderson",
    "Backtracking",
    "BadArgument",
    "BiCGStab",
    "Broyden",
    "CannotDifferentiate",
    "Checkpoint",
    "Cholesky",
    "Cost",
    "CostTable",
    "DerivativeReport",
    "Diagnosis",
    "Dogleg",
    "Evolution",
    "Finding",
    "FiniteDifference",
    "FixedStep",
    "Forward",
    "GaussNewton",
    "GradientDescent",
    "Graph",
    "History",
    "Implicit",
    "Level",
    "LevenbergMarquardt",
    "LineSearchNewton",
    "LineSearchNewtonCG",
    "MissingExtra",
    "NestorError",
    "Neumann",
    "Newton",
    "NewtonCG",
    "NewtonRoot",
    "NonlinearCG",
    "Nystrom",
    "OneStep",
    "Optax",
    "Picard",
    "RMSPropStep",
    "Report",
    "ReversalFailed",
    "Reversible",
    "RunCost",
    "RunHistory",
    "ScheduledStep",
    "Solution",
    "SolveFailed",
    "Stats",
    "Status",
    "StepReport",
    "StrongWolfe",
    "Training",
    "Truncate",
    "Unroll",
    "adagrad",
    "adam",
    "adamw",
    "argmin",
    "check_derivatives",
    "diagnose",
    "find_root",
    "fixed_point",
    "leapfrog",
    "least_squares",
    "levels",
    "minimize",
    "minimum",
    "predict_cost",
    "rmsprop",
    "schedules",
    "sgd",
    "train",
    "tuned",
]

_LATER = {  # rooms that are imported when they are first asked for
    "levels": ("Graph", "Level"),
    "training": (
        "Cost",
        "CostTable",
        "Diagnosis",
        "Finding",
        "RunCost",
        "RunHistory",
        "StepReport",
        "Training",
        "adagrad",
        "adam",
        "adamw",
        "diagnose",
        "leapfrog",
        "predict_cost",
        "rmsprop",
        "sgd",
        "train",
        "tuned",
    ),
}


def __getattr__(name: str) -> typing.Any:
    for room, shown in _LATER.items():
        if name == room or name in shown:
            found = importlib.import_module(f"nestor.{room}")
            return found if name == room else getattr(found, name)
    raise AttributeError(f"module 'nestor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
