"""The kinds of problem: what holds at a solution of each, and the solvers that are ours for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from nestor import trees
from nestor.solvers import _drive, _kkt
from nestor.solvers._bounds import pinned, tied
from nestor.solvers._contract import (
    Composite,
    Constrained,
    FixedPointFinding,
    LeastSquares,
    Minimization,
    RootFinding,
)

Tree = Any


def _cost(problem: LeastSquares, x: Tree) -> jax.Array:
    return problem.cost(problem.fun(x))


def _objective(problem: Minimization, x: Tree) -> jax.Array:
    return problem.fun(x)


def _of_minimum(of: Callable[[Any, Tree], Any]) -> tuple[Any, Any]:
    """What holds at a minimum of `of` in a box, and the value there: see `_bounds`."""

    def residual(problem: Minimization, x: Tree) -> Tree:
        grad = jax.grad(lambda z: of(problem, z))(pinned(x, problem.box))
        return tied(x, grad, problem.box)

    return residual, lambda problem, x: of(problem, pinned(x, problem.box))


def _value_of_image(problem: Composite, x: Tree) -> jax.Array:
    """fun + g at prox(x - grad), which is x; it moves with what a set or a penalty depends on."""
    image = problem.term.prox(trees.subtract(x, jax.grad(problem.fun)(x)))
    value = problem.fun(image)
    return value + problem.term.value(image).astype(value.dtype)


MINIMIZATION = _drive.Kind(
    Minimization,
    *_of_minimum(_objective),
    symmetric=True,
    positive=True,
    settle=_kkt.report_in_a_box(_objective),
)
SQUARES = _drive.Kind(
    LeastSquares, *_of_minimum(_cost), symmetric=True, positive=True, settle=_kkt.report_in_a_box(_cost)
)
CONSTRAINED = _drive.Kind(
    Constrained,
    _kkt.condition,
    _kkt.value,
    symmetric=True,
    positive=False,
    by_value=False,
    report=_kkt.report,
)
COMPOSITE = _drive.Kind(
    Composite,
    lambda problem, x: problem.residual(x, jax.grad(problem.fun)(x)),
    _value_of_image,
    symmetric=False,
    positive=False,
    by_value=False,
)
ROOT = _drive.Kind(RootFinding, lambda problem, x: problem.fun(x), None, symmetric=False, positive=False)
FIXED_POINT = _drive.Kind(
    FixedPointFinding,
    lambda problem, x: trees.subtract(x, problem.fun(x)),
    None,
    symmetric=False,
    positive=False,
)

MINIMIZERS = dict.fromkeys(
    [
        *("BFGS", "LBFGS", "Newton", "NewtonCG", "NonlinearCG", "GradientDescent"),
        *("LineSearchNewton", "LineSearchNewtonCG"),
    ],
    "minimize",
)
CONSTRAINED_SOLVERS = dict.fromkeys(["SQP", "AugmentedLagrangian"], "minimize")
COMPOSITE_SOLVERS = dict.fromkeys(
    ["ProximalGradient", "ProjectedGradient", "MirrorDescent", "FrankWolfe", "BlockCoordinateDescent"],
    "minimize",
)
ROOT_FINDERS = dict.fromkeys(["NewtonRoot", "Broyden"], "find_root")
FIXED_POINT_FINDERS = dict.fromkeys(["Anderson", "Picard"], "fixed_point")
SQUARES_SOLVERS = dict.fromkeys(["LevenbergMarquardt", "GaussNewton", "Dogleg"], "least_squares")
