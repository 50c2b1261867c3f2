"""From what a user asked to what the driver runs: every argument checked, every function traced."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from nestor import linear, trees
from nestor.adjoints import Implicit
from nestor.errors import BadArgument
from nestor.programs import Program
from nestor.solvers import _checks, _drive, _kinds
from nestor.solvers._augmented import AugmentedLagrangian
from nestor.solvers._bfgs import BFGS, LBFGS
from nestor.solvers._bounds import Box, check_bounds, clip
from nestor.solvers._constraints import Rows, trace_constrained
from nestor.solvers._contract import Composite, Constrained, LeastSquares, Minimization, Point
from nestor.solvers._losses import check_loss
from nestor.solvers._optax import as_solver
from nestor.solvers._proximal_gradient import ProximalGradient
from nestor.solvers._sqp import SQP

Tree = Any

_DENSE_UP_TO = 100
_CONSTRAINED_UP_TO = 300  # variables and constraints together


@dataclasses.dataclass(frozen=True)
class Options:
    """What a front function was asked for besides the function and the start, not yet checked.

    Attributes:
        where: the front function's name, for messages.
        solver, ..., raise_on_failure: its arguments, in its order; as in `minimize`.
    """

    where: str
    solver: Any
    adjoint: Any
    tol: Any
    max_steps: Any
    history: bool = False
    callback: Any = None
    progress: bool = False
    raise_on_failure: bool = True
    bounds: Any = None
    constraints: Any = None
    prox: Any = None


class Posed(NamedTuple):
    """A problem that can be run.

    Attributes:
        plan, inputs: see `_drive`.
        rows: how constraints make rows; None where there are none.
    """

    plan: _drive.Plan
    inputs: _drive.Inputs
    rows: Rows | None = None


def pose_minimization(fun: Any, x0: Any, options: Options) -> Posed:
    """A minimization: plain, in a box, with constraints, or with a penalty."""
    where, solver = options.where, options.solver
    _checks.check_function(where, "fun", fun)
    start = _checks.check_start(where, "x0", x0)
    box = check_bounds(where, options.bounds, start)
    if options.constraints is not None:
        _checks.check_alone(where, options.prox)
        return _pose_constrained(fun, start, box, options)
    if options.prox is not None or _is_for_composites(solver):
        return _pose_composite(fun, start, box, options)
    if solver is None:
        solver = BFGS() if trees.size(start) <= _DENSE_UP_TO and box is None else LBFGS()
    solver = as_solver(where, solver, start)
    _checks.check_solver(where, solver, Minimization, _kinds.MINIMIZERS, Minimization.kind)
    if box is not None:
        _checks.check_keeps_bounds(where, solver)
        start = clip(start, box)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    _checks.check_scalar(where, "fun", shape)
    options = dataclasses.replace(options, solver=solver)
    return Posed(*_plan(_kinds.MINIMIZATION, program, captured, start, options, box))


def _pose_constrained(fun: Any, start: Tree, box: Box | None, options: Options) -> Posed:
    where, solver = options.where, options.solver
    if solver is not None:
        solver = as_solver(where, solver, start)
        _checks.check_solver(where, solver, Constrained, _kinds.CONSTRAINED_SOLVERS, Constrained.kind)
    start = clip(start, box)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    _checks.check_scalar(where, "fun", shape)
    joint, everything, rows = trace_constrained(where, program, captured, options.constraints, start)
    equal, inequal = (
        jnp.zeros((rows.count(*sides),), rows.dtype) for sides in (("equal",), ("lower", "upper"))
    )
    if solver is None:
        size = trees.size(start) + equal.size + inequal.size
        solver = SQP() if size <= _CONSTRAINED_UP_TO else AugmentedLagrangian()
    adjoint = options.adjoint
    if adjoint is None and isinstance(solver, SQP):  # dense anyhow, and constraints may say things twice
        adjoint = Implicit(linear.LeastNorm())
    options = dataclasses.replace(options, solver=solver, adjoint=adjoint)
    point = Point(start, equal, inequal)
    return Posed(*_plan(_kinds.CONSTRAINED, joint, everything, point, options, box), rows)


def _is_for_composites(solver: Any) -> bool:
    solves = getattr(solver, "solves", None)
    return isinstance(solves, type) and issubclass(solves, Composite) and not isinstance(solver, type)


def _pose_composite(fun: Any, start: Tree, box: Box | None, options: Options) -> Posed:
    from nestor.solvers import _terms  # here, because it brings the room `proximal` with it

    where = options.where
    term = _terms.pose(where, options.prox, box, start)
    solver = ProximalGradient() if options.solver is None else options.solver
    _checks.check_solver(where, solver, Composite, _kinds.COMPOSITE_SOLVERS, Composite.kind)
    _terms.check_suits(where, solver, term)
    start = _terms.into(term, start)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    _checks.check_scalar(where, "fun", shape)
    options = dataclasses.replace(options, solver=solver)
    beside = _drive.beside(term)
    return Posed(*_plan(_kinds.COMPOSITE, program, captured, start, options, beside=beside))


def pose_squares(fun: Any, x0: Any, loss: Any, f_scale: Any, options: Options) -> Posed:
    """Least squares, with bounds and a loss."""
    where = options.where
    _checks.check_function(where, "fun", fun)
    start = _checks.check_start(where, "x0", x0)
    box = check_bounds(where, options.bounds, start)
    robust = check_loss(where, loss, f_scale, trees.float_dtype(start))
    _checks.check_solver(where, options.solver, LeastSquares, _kinds.SQUARES_SOLVERS, LeastSquares.kind)
    if box is not None:
        _checks.check_keeps_bounds(where, options.solver, ("LevenbergMarquardt",))
    start = clip(start, box)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    _checks.check_residuals(where, "fun", shape, start)
    beside = () if robust is None else _drive.beside(robust)
    return Posed(*_plan(_kinds.SQUARES, program, captured, start, options, box, beside))


def pose_equations(
    kind: _drive.Kind, names: dict[str, str], check: Any, fun: Any, x0: Any, options: Options
) -> Posed:
    """A root or a fixed point to be found."""
    where = options.where
    _checks.check_function(where, "fun", fun)
    start = _checks.check_start(where, "x0", x0)
    _checks.check_solver(where, options.solver, kind.problem, names, kind.problem.kind)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    check(where, "fun", shape, start)
    return Posed(*_plan(kind, program, captured, start, options))


def _plan(
    kind: _drive.Kind,
    program: Program,
    captured: list[Any],
    start: Tree,
    options: Options,
    box: Box | None = None,
    beside: tuple[_drive.Beside, ...] = (),
) -> tuple[_drive.Plan, _drive.Inputs]:
    where = options.where
    adjoint = Implicit() if options.adjoint is None else options.adjoint
    _checks.check_adjoint(where, adjoint)
    arrays, rest = trees.split(options.solver)
    watch = _checks.check_callback(where, options.callback) or ("numbers" if options.progress else "")
    plan = _drive.Plan(
        kind=kind,
        program=program,
        solver=rest,
        adjoint=adjoint,
        tol=_checks.check_tol(where, options.tol, trees.float_dtype(start)),
        max_steps=_checks.check_max_steps(where, options.max_steps),
        history=bool(options.history),
        watch=watch,
    )
    try:
        hash(plan)
    except TypeError as error:
        raise BadArgument(
            where,
            "solver",
            got=options.solver,
            want="hashable, so that what is compiled for it can be found again",
            do="make it a frozen dataclass of numbers, strings and arrays",
        ) from error
    return plan, _drive.Inputs(captured, start, arrays, jnp.int32(0), box, beside)
