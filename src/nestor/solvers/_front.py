"""The front functions: check, trace, run, and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints import Answer, Implicit
from nestor.errors import BadArgument, SolveFailed
from nestor.programs import Program, Watcher, register, registered
from nestor.solution import KKT, Solution, Stats, Status
from nestor.solvers import _checks, _drive, _kkt, _onward, _reports, _terms
from nestor.solvers._augmented import AugmentedLagrangian
from nestor.solvers._bfgs import BFGS, LBFGS
from nestor.solvers._bounds import Box, check_bounds, clip, pinned, tied
from nestor.solvers._constraints import Rows, trace_constrained
from nestor.solvers._contract import (
    Composite,
    Constrained,
    FixedPointFinding,
    LeastSquares,
    Minimization,
    Point,
    RootFinding,
)
from nestor.solvers._fixed_points import Anderson
from nestor.solvers._losses import check_loss
from nestor.solvers._optax import as_solver
from nestor.solvers._proximal_gradient import ProximalGradient
from nestor.solvers._roots import NewtonRoot
from nestor.solvers._sqp import SQP
from nestor.solvers._squares import LevenbergMarquardt

Tree = Any

_DENSE_UP_TO = 100
_CONSTRAINED_UP_TO = 300  # variables and constraints together


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

_MINIMIZERS = dict.fromkeys(
    [
        *("BFGS", "LBFGS", "Newton", "NewtonCG", "NonlinearCG", "GradientDescent"),
        *("LineSearchNewton", "LineSearchNewtonCG"),
    ],
    "minimize",
)
_CONSTRAINED = dict.fromkeys(["SQP", "AugmentedLagrangian"], "minimize")
_COMPOSITES = dict.fromkeys(
    ["ProximalGradient", "ProjectedGradient", "MirrorDescent", "FrankWolfe", "BlockCoordinateDescent"],
    "minimize",
)
_ROOTS = dict.fromkeys(["NewtonRoot", "Broyden"], "find_root")
_FIXED = dict.fromkeys(["Anderson", "Picard"], "fixed_point")
_SQUARES = dict.fromkeys(["LevenbergMarquardt", "GaussNewton", "Dogleg"], "least_squares")


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
    rows: Rows | None = None


def minimize(
    fun: Callable[[Tree], Any],
    x0: Tree,
    *,
    bounds: Any = None,
    constraints: Any = None,
    prox: Any = None,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    history: bool = False,
    callback: Callable[[_reports.Report], Any] | None = None,
    progress: bool = False,
    raise_on_failure: bool = True,
) -> Solution:
    """Minimize a scalar function of a tree of arrays.

    Args:
        fun: from a tree like `x0` to a real scalar; it may close over anything, traced values included, and the
            solution is differentiable in all of it.
        x0: the start, a tree of floating arrays (or floats); under `vmap` one per lane.
        bounds: None, or a pair (lower, upper) that no point where `fun` is evaluated goes beyond, not even by
            rounding (x0 is moved to the nearest such point). Each is None, a number, or a tree like `x0` of
            numbers, arrays and None; an entry may be infinite. The solution is differentiable in them.
        constraints: None, a `Constraint` or a sequence of them, on any functions of the unknowns; also SciPy's
            dictionaries, `LinearConstraint` and `NonlinearConstraint`. They may be broken on the way, and hold to
            `tol` at the answer; the solution is differentiable in all that they close over and in their limits.
        prox: None, or g, so that fun + g is minimized: a penalty or a set of `nestor.proximal`, such as
            ``Lasso(0.1)`` or ``Simplex()``, or a tree of them (a prefix of `x0`, None for no penalty). The
            solution is differentiable in their settings; an entry on the edge of two cases counts to one.
        solver: `BFGS()` (the default up to 100 variables), `LBFGS()` (the default above, and with bounds),
            `Newton()`, `NewtonCG()`, `NonlinearCG()`, `GradientDescent()`, `LineSearchNewton()`,
            `LineSearchNewtonCG()`, or any optax transformation. None goes on where its first method ends without
            an answer and the status is known (outside `jit` and `vmap`): with `Newton()` up to 200 variables, which
            is left half of the steps from max_steps=100 on, `NewtonCG()` above. Counts and history are then those
            of both. With a prox `ProximalGradient()` (the default), `ProjectedGradient()`, `MirrorDescent()`,
            `FrankWolfe()` or `BlockCoordinateDescent()`. With constraints `SQP()` (the default up to 300 variables
            and constraints together) or `AugmentedLagrangian()` (the default above).
        adjoint: how derivatives cross the solution; None is `Implicit()`.
        tol: converged when every entry of the gradient is at most this, in absolute value; None is the root of
            the precision, 1.5e-8 in float64 and 3.5e-4 in float32. Where a method can go no further, by precision
            or by max_steps, it also counts as converged when the gradient has come down to this (or to the
            root of the precision, if that is less) times the first one. With constraints this is asked of three
            things: the gradient of the Lagrangian, projected on the bounds, divided by max(1, mean multiplier /
            100); the violation; and the lesser of multiplier and slack of every inequality.
        max_steps: moves at most; a move costs one evaluation of `fun` with its gradient, and a line search
            makes several.
        history: record value and optimality of every evaluation in `Solution.history`.
        callback: called with a `Report` after every evaluation, also inside compiled solves; returning a true
            value or raising StopIteration stops the solve (status STOPPED).
        progress: show a progress line on stderr.
        raise_on_failure: outside a trace, raise `SolveFailed` unless converged. Inside a trace (jit, vmap)
            nothing is raised: the status travels in the solution, x is the best point seen.

    Returns:
        A `Solution`: `.x`, `.fun`, `.status`, `.success`, `.stats`, `.history`, `.kkt`.

    Raises:
        BadArgument: an argument cannot be used.
        SolveFailed: the solve did not converge (see raise_on_failure).

    Cost: compiles once for a program and its shapes; calls with other arrays, closed over or not, reuse it
    (another Python number in the closure is another program: close over jnp.asarray of it in a sweep).

    >>> import jax.numpy as jnp, nestor
    >>> solution = nestor.minimize(lambda x: jnp.sum((x - 3.0) ** 2), jnp.zeros(2))
    >>> solution.x.round(4).tolist(), solution.status.name
    ([3.0, 3.0], 'CONVERGED')
    """
    options = Options(
        "minimize",
        solver,
        adjoint,
        tol,
        max_steps,
        history,
        callback,
        progress,
        raise_on_failure,
        bounds,
        constraints,
        prox,
    )
    plan, inputs, rows = _prepare_minimization(fun, x0, options)
    return _run(plan, inputs, dataclasses.replace(options, rows=rows))


def argmin(
    fun: Callable[[Tree], Any],
    x0: Tree,
    *,
    bounds: Any = None,
    constraints: Any = None,
    prox: Any = None,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    on_failure: str | None = None,
) -> Tree:
    """The minimizer of a scalar function, as a function of everything that `fun` closes over.

    Args:
        fun, x0, bounds, constraints, prox, solver, adjoint, tol, max_steps: as in `minimize`.
        on_failure: what happens without convergence: "raise" (`SolveFailed`; inside a trace a runtime error,
            which needs the package equinox), "nan" (x is NaN, and so are its derivatives), "keep" (the best
            point seen, as it is). None is "raise" where the status is known at once (plain calls, plain
            `jax.grad`) and "nan" where it is traced (under `jit` and `vmap`).

    Returns:
        x, a tree like x0; differentiable to any order, forwards and backwards, as far as the adjoint goes.

    Raises:
        BadArgument, SolveFailed: as `minimize`.

    Source of the default derivative: the implicit function theorem, see `Implicit`.

    >>> import jax, nestor
    >>> y = lambda x: nestor.argmin(lambda y: (y - x) ** 2 + y**2, 0.0)
    >>> round(float(jax.grad(y)(1.0)), 5)
    0.5
    """
    where = "argmin"
    _checks.check_policy(where, on_failure)
    plan, inputs, _ = _prepare_minimization(
        fun,
        x0,
        Options(where, solver, adjoint, tol, max_steps, bounds=bounds, constraints=constraints, prox=prox),
    )
    if solver is None:
        inputs = _onward.share(plan, inputs)
    answer = _drive.solution_map(plan)(inputs)
    following = None if solver is not None else _onward.following(plan, inputs, answer.x, answer.record)
    if following is not None:
        second = _drive.solution_map(following.plan)(following.inputs)
        answer = _onward.joined(answer, second)
    x = answer.x.x if isinstance(answer.x, Point) else answer.x
    return _apply_policy(where, plan, x, answer.value, answer.record, x, on_failure)


def minimum(
    fun: Callable[[Tree], Any],
    x0: Tree,
    *,
    bounds: Any = None,
    constraints: Any = None,
    prox: Any = None,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    on_failure: str | None = None,
) -> jax.Array:
    """The least value of a scalar function, differentiable by the envelope theorem.

    A first derivative costs one partial derivative of `fun` at the answer and no linear solve; higher ones
    are exact, through `adjoint`.

    Args:
        fun, x0, bounds, prox, solver, adjoint, tol, max_steps, on_failure: as in `argmin`.

    Returns:
        The value, a scalar.

    Raises:
        BadArgument, SolveFailed: as `minimize`.

    Source: Danskin 1966; Milgrom and Segal 2002, theorem 2.

    >>> import jax, jax.numpy as jnp, nestor
    >>> v = lambda x: nestor.minimum(lambda y: (1 + x**2) * y**2 / 2 - jnp.sin(x) * y, 0.0)
    >>> round(float(v(0.7)), 4), round(float(jax.grad(v)(0.7)), 4)
    (-0.1393, -0.1998)
    """
    where = "minimum"
    _checks.check_policy(where, on_failure)
    plan, inputs, _ = _prepare_minimization(
        fun,
        x0,
        Options(where, solver, adjoint, tol, max_steps, bounds=bounds, constraints=constraints, prox=prox),
    )
    if solver is None:
        inputs = _onward.share(plan, inputs)
    value, record = _drive.value_map(plan)(inputs)
    # From the start again: the best point is not kept.
    following = None if solver is not None else _onward.following(plan, inputs, inputs.x0, record)
    if following is not None:
        second = _drive.value_map(following.plan)(following.inputs)
        _, value, record = _onward.joined(Answer(None, value, record), Answer(None, *second))
    return _apply_policy(where, plan, None, value, record, value, on_failure)


def find_root(
    fun: Callable[[Tree], Tree],
    x0: Tree,
    *,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    history: bool = False,
    callback: Callable[[_reports.Report], Any] | None = None,
    progress: bool = False,
    raise_on_failure: bool = True,
) -> Solution:
    """Find z with fun(z) = 0, for a function from a tree to a tree like it.

    Args:
        fun: from a tree like `x0` to a tree of the same structure, shapes and dtypes.
        x0: the start.
        solver: `NewtonRoot()` (the default) or `Broyden()`.
        tol: converged when every entry of fun(z) is at most this in absolute value.
        adjoint, max_steps, history, callback, progress, raise_on_failure: as in `minimize`.

    Returns:
        A `Solution`; `.fun` is the Euclidean norm of fun(z).

    Raises:
        BadArgument, SolveFailed: as `minimize`.

    >>> import jax, nestor
    >>> root = lambda a: nestor.find_root(lambda z: z**3 - a, 1.0).x
    >>> round(float(jax.grad(root)(8.0)), 4)  # 1 / (3 * 8^(2/3))
    0.0833
    """
    solver = NewtonRoot() if solver is None else solver
    options = Options(
        "find_root", solver, adjoint, tol, max_steps, history, callback, progress, raise_on_failure
    )
    return _solve_vector(ROOT, _ROOTS, _checks.check_same_tree, fun, x0, options)


def fixed_point(
    fun: Callable[[Tree], Tree],
    x0: Tree,
    *,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    history: bool = False,
    callback: Callable[[_reports.Report], Any] | None = None,
    progress: bool = False,
    raise_on_failure: bool = True,
) -> Solution:
    """Find z with fun(z) = z, for a map from a tree to a tree like it.

    Args:
        fun: the map T.
        x0: the start.
        solver: `Anderson()` (the default) or `Picard()` (plain iteration).
        tol: converged when every entry of z - T(z) is at most this in absolute value.
        adjoint, max_steps, history, callback, progress, raise_on_failure: as in `minimize`.

    Returns:
        A `Solution`; `.fun` is the Euclidean norm of z - T(z).

    Raises:
        BadArgument, SolveFailed: as `minimize`.

    >>> import jax.numpy as jnp, nestor
    >>> round(float(nestor.fixed_point(jnp.cos, 1.0).x), 3)
    0.739
    """
    solver = Anderson() if solver is None else solver
    options = Options(
        "fixed_point", solver, adjoint, tol, max_steps, history, callback, progress, raise_on_failure
    )
    return _solve_vector(FIXED_POINT, _FIXED, _checks.check_same_tree, fun, x0, options)


def least_squares(
    fun: Callable[[Tree], Tree],
    x0: Tree,
    *,
    bounds: Any = None,
    loss: str = "linear",
    f_scale: Any = 1.0,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    history: bool = False,
    callback: Callable[[_reports.Report], Any] | None = None,
    progress: bool = False,
    raise_on_failure: bool = True,
) -> Solution:
    """Minimize ½|fun(w)|², or a robust loss of the residuals that a function returns.

    Args:
        fun: from a tree like `x0` to any tree of residuals.
        x0: the start.
        bounds: as in `minimize`; kept by `LevenbergMarquardt` alone.
        loss: "linear" (squares), "soft_l1", "huber", "cauchy" or "arctan": ½ sum of f_scale² rho((r / f_scale)²),
            entry by entry, with rho(z) = z, 2 (sqrt(1 + z) - 1), z up to 1 and 2 sqrt(z) - 1 beyond, log(1 + z),
            arctan z. The two last have local minima.
        f_scale: the size of a residual that begins to count as an outlier; the solution is differentiable in it.
        solver: `LevenbergMarquardt()` (the default), `GaussNewton()` or `Dogleg()`.
        tol: converged when every entry of J'r (of the gradient; with bounds of w - clip(w - gradient)) is at
            most this in absolute value.
        adjoint, max_steps, history, callback, progress, raise_on_failure: as in `minimize`.

    Returns:
        A `Solution`; `.fun` is ½|r|², or the robust cost.

    Raises:
        BadArgument, SolveFailed: as `minimize`.

    >>> import jax.numpy as jnp, nestor
    >>> t = jnp.arange(4.0)
    >>> fit = nestor.least_squares(lambda w: w["a"] * jnp.exp(w["b"] * t) - 2.0 * jnp.exp(-0.5 * t),
    ...                            {"a": 1.0, "b": 0.0})
    >>> round(float(fit.x["a"]), 3), round(float(fit.x["b"]), 3)
    (2.0, -0.5)
    """
    solver = LevenbergMarquardt() if solver is None else solver
    options = Options(
        "least_squares",
        solver,
        adjoint,
        tol,
        max_steps,
        history,
        callback,
        progress,
        raise_on_failure,
        bounds,
    )
    return fit("least_squares", fun, x0, loss, f_scale, options)


def _prepare_minimization(
    fun: Any, x0: Any, options: Options
) -> tuple[_drive.Plan, _drive.Inputs, Rows | None]:
    where, solver = options.where, options.solver
    _checks.check_function(where, "fun", fun)
    start = _checks.check_start(where, "x0", x0)
    box = check_bounds(where, options.bounds, start)
    if options.constraints is not None:
        _terms.check_alone(where, options.prox)
        return _prepare_constrained(fun, start, box, options)
    term = _terms.pose(where, options.prox, box, start, solver)
    if term is not None:
        return *_prepare_composite(fun, start, term, options), None
    if solver is None:
        solver = BFGS() if trees.size(start) <= _DENSE_UP_TO and box is None else LBFGS()
    solver = as_solver(where, solver, start)
    _checks.check_solver(where, solver, Minimization, _MINIMIZERS, Minimization.kind)
    if box is not None:
        _checks.check_keeps_bounds(where, solver)
        start = clip(start, box)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    _checks.check_scalar(where, "fun", shape)
    options = dataclasses.replace(options, solver=solver)
    return *_plan(MINIMIZATION, program, captured, start, options, box), None


def _prepare_constrained(
    fun: Any, start: Tree, box: Box | None, options: Options
) -> tuple[_drive.Plan, _drive.Inputs, Rows]:
    where, solver = options.where, options.solver
    if solver is not None:
        solver = as_solver(where, solver, start)
        _checks.check_solver(where, solver, Constrained, _CONSTRAINED, Constrained.kind)
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
    options = dataclasses.replace(options, solver=solver)
    point = Point(start, equal, inequal)
    return *_plan(CONSTRAINED, joint, everything, point, options, box), rows


def _prepare_composite(
    fun: Any, start: Tree, term: Any, options: Options
) -> tuple[_drive.Plan, _drive.Inputs]:
    where = options.where
    solver = ProximalGradient() if options.solver is None else options.solver
    _checks.check_solver(where, solver, Composite, _COMPOSITES, Composite.kind)
    _terms.check_suits(where, solver, term)
    start = _terms.into(term, start)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    _checks.check_scalar(where, "fun", shape)
    options = dataclasses.replace(options, solver=solver)
    return _plan(COMPOSITE, program, captured, start, options, beside=_drive.beside(term))


def fit(where: str, fun: Any, x0: Any, loss: Any, f_scale: Any, options: Options) -> Solution:
    """Least squares with bounds and a loss, for that front function."""
    _checks.check_function(where, "fun", fun)
    start = _checks.check_start(where, "x0", x0)
    box = check_bounds(where, options.bounds, start)
    robust = check_loss(where, loss, f_scale, trees.float_dtype(start))
    _checks.check_solver(where, options.solver, LeastSquares, _SQUARES, LeastSquares.kind)
    if box is not None:
        _checks.check_keeps_bounds(where, options.solver, ("LevenbergMarquardt",))
    start = clip(start, box)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    _checks.check_residuals(where, "fun", shape, start)
    beside = () if robust is None else _drive.beside(robust)
    return _run(*_plan(SQUARES, program, captured, start, options, box, beside), options)


def _solve_vector(
    kind: _drive.Kind, names: dict[str, str], check: Any, fun: Any, x0: Any, options: Options
) -> Solution:
    where = options.where
    _checks.check_function(where, "fun", fun)
    start = _checks.check_start(where, "x0", x0)
    _checks.check_solver(where, options.solver, kind.problem, names, kind.problem.kind)
    program, captured, shape = _checks.trace_function(where, "fun", fun, start)
    check(where, "fun", shape, start)
    return _run(*_plan(kind, program, captured, start, options), options)


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


def _run(plan: _drive.Plan, inputs: _drive.Inputs, options: Options) -> Solution:
    bar = _reports.progress_bar(options.where, plan.max_steps) if options.progress else None
    if options.solver is None:
        inputs = _onward.share(plan, inputs)
    answer = _answer(plan, inputs, options.callback, bar)
    following = None
    if options.solver is None:
        following = _onward.following(plan, inputs, answer.x, answer.record)
    if following is not None:
        turns = int(answer.record.turns)
        second = _answer(following.plan, following.inputs, options.callback, bar, turns)
        answer = _onward.joined(answer, second)
    if bar is not None and not _traced(inputs):
        bar.close()
    return _deliver(plan, answer, options)


def _answer(plan: _drive.Plan, inputs: _drive.Inputs, callback: Any, bar: Any, turns: int = 0) -> Answer:
    """Run a plan, with whoever watches it registered; `turns` were made before."""
    solve = _drive.solution_map(plan)
    if not plan.watch:
        return solve(inputs)
    report = _reports.report if turns == 0 else _onward.shifted(_reports.report, turns)
    watcher = Watcher(report, callback, bar)
    if _traced(inputs):  # the program outlives this call, so the registration must too
        number = register(watcher)
        return solve(inputs._replace(watcher=jnp.int32(number)))
    with registered(watcher) as number:
        answer = jax.block_until_ready(solve(inputs._replace(watcher=jnp.int32(number))))
    if watcher.error is not None:
        if bar is not None:
            bar.close()
        raise watcher.error
    return answer


def _traced(tree: Tree) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _solution(plan: _drive.Plan, answer: Any, rows: Rows | None = None) -> Solution:
    record, x, kkt = answer.record, answer.x, None
    if record.kkt is not None:
        found: _kkt.Report = record.kkt
        kkt = KKT(
            found.residuals.stationarity,
            found.residuals.feasibility,
            found.residuals.complementarity,
            found.lower,
            found.upper,
            () if rows is None else rows.multipliers(x.equal, x.inequal),
            found.weakly_active,
        )
    if rows is not None:
        x = x.x
    tol = jnp.asarray(plan.tol, answer.value.dtype)
    stats = Stats(
        steps=jnp.maximum(record.turns - 1, 0),
        evaluations=record.turns,
        accepted=jnp.maximum(record.accepted - 1, 0),
        optimality=record.optimality,
        tol=jnp.broadcast_to(tol, jnp.shape(record.optimality)),
    )
    return Solution(x, answer.value, record.code, stats, record.history, kkt)


def _deliver(plan: _drive.Plan, answer: Any, options: Options) -> Solution:
    solution = _solution(plan, answer, options.rows)
    if isinstance(solution.code, jax.core.Tracer):
        return solution
    if solution.history is not None:
        history = _onward.cut(solution.history, solution.stats.evaluations)
        solution = dataclasses.replace(solution, history=history)
    if options.raise_on_failure and not solution.success:
        raise _failure(options.where, solution, plan)
    return solution


def _failure(where: str, solution: Solution, plan: _drive.Plan) -> SolveFailed:
    stats = solution.stats
    status = Status(int(solution.code))
    value = jax.lax.stop_gradient(solution.fun)  # under a plain grad the value is traced, the status is not
    shown = "traced" if isinstance(value, jax.core.Tracer) else f"{float(value):.6g}"
    return SolveFailed(
        f"{where}: {status.message}\n"
        f"Status {status.name} after {int(stats.evaluations)} evaluations (max_steps={plan.max_steps}); best "
        f"value {shown}, optimality {float(stats.optimality):.3g} against tol {plan.tol:.3g}. "
        "The unfinished solution is in the exception's .solution; raise_on_failure=False returns it. "
        "See how-to/it-does-not-converge.",
        solution,
    )


def _apply_policy(
    where: str, plan: _drive.Plan, x: Tree, value: Any, record: Any, result: Tree, on_failure: str | None
) -> Tree:
    traced = isinstance(record.code, jax.core.Tracer)
    policy = on_failure or ("nan" if traced else "raise")
    if policy == "keep":
        return result
    bad = record.code != int(Status.CONVERGED)
    if policy == "nan":
        return jax.tree.map(lambda leaf: leaf * jnp.where(bad, jnp.nan, 1.0).astype(leaf.dtype), result)
    if traced:
        return _raise_at_run_time(where, result, bad)
    if bool(bad):
        answer = Answer(result if x is None else x, value, record)
        raise _failure(where, _solution(plan, answer), plan)
    return result


def _raise_at_run_time(where: str, result: Tree, bad: jax.Array) -> Tree:
    from nestor.errors import MissingExtra

    try:
        import equinox
    except ImportError as error:
        raise MissingExtra("equinox", "test", 'on_failure="raise" inside a trace') from error
    return equinox.error_if(
        result, bad, f"{where}: a solve inside a compiled function did not converge (on_failure='raise')."
    )
