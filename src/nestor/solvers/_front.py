"""The front functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from nestor.adjoints import Answer
from nestor.solution import Solution
from nestor.solvers import _checks, _drive, _kinds, _onward, _reports
from nestor.solvers._contract import Point
from nestor.solvers._delivery import apply_policy, run, solved
from nestor.solvers._fixed_points import Anderson
from nestor.solvers._posing import Options, pose_equations, pose_minimization, pose_squares
from nestor.solvers._roots import NewtonRoot
from nestor.solvers._squares import LevenbergMarquardt

Tree = Any


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
            rounding (x0 is moved to the nearest such point; with a prox, which must then be a sum over entries such
            as `Lasso`, they hold for every point that is kept). Each is None, a number, or a tree like `x0` of
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
        tol: converged when every entry of the gradient (with a prox, of x - prox(x - gradient), the change of a
            step of length one) is at most this, in absolute value; None is the root of
            the precision, 1.5e-8 in float64 and 3.5e-4 in float32. In float64, where a method can go no further, by
            precision or by max_steps, it also counts as converged when the gradient has come down to 4e-10 of the
            first one, or of 1 if that is more; and where the value changes no more but by rounding, to ten times
            tol of that, 1.5e-7 at most. With constraints this is asked of three
            things: the gradient of the Lagrangian, projected on the bounds, divided by max(1, mean multiplier /
            100); the violation; and the lesser of multiplier and slack of every inequality.
        max_steps: moves at most; a move costs one evaluation of `fun` with its gradient, and a line search
            makes several.
        history: record value and optimality of every evaluation in `Solution.history`.
        callback: called with a `Report` after every evaluation, also inside compiled solves; returning a true
            value or raising StopIteration stops the solve (status STOPPED).
        progress: show a progress line on stderr.
        raise_on_failure: outside a trace, raise `SolveFailed` unless converged (but not after Ctrl-C, which
            stops the solve at the best point so far, status INTERRUPTED: at the next turn with a callback or
            progress, else within about 0.2 s; one that comes before a first turn is made raises KeyboardInterrupt).
            Inside a trace (jit, vmap) nothing is raised: the status travels in the solution, x is the best point
            seen.

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
    return run(pose_minimization(fun, x0, options), options)


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
        KeyboardInterrupt: after Ctrl-C outside a trace, within about 0.2 s, whatever `on_failure` says; `minimize`
            returns the best point so far.

    Cost: that of `minimize`; a derivative is one linear solve with the Hessian at the answer, whatever the number of
    steps, and compiles nothing new for other data.

    Source of the default derivative: the implicit function theorem, see `Implicit`.

    >>> import jax, nestor
    >>> y = lambda x: nestor.argmin(lambda y: (y - x) ** 2 + y**2, 0.0)
    >>> round(float(jax.grad(y)(1.0)), 5)
    0.5
    """
    where = "argmin"
    _checks.check_policy(where, on_failure)
    plan, inputs, _ = pose_minimization(
        fun,
        x0,
        Options(where, solver, adjoint, tol, max_steps, bounds=bounds, constraints=constraints, prox=prox),
    )
    answer = _onward.solved(
        plan, inputs, lambda plan, inputs, _: solved(plan, inputs), goes_on=solver is None
    )
    x = answer.x.x if isinstance(answer.x, Point) else answer.x
    return apply_policy(where, plan, x, answer.value, answer.record, x, on_failure)


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
        fun, x0, bounds, constraints, prox, solver, adjoint, tol, max_steps, on_failure: as in `argmin`.

    Returns:
        The value, a scalar.

    Raises:
        BadArgument, SolveFailed, KeyboardInterrupt: as `argmin`.

    Source: Danskin 1966; Milgrom and Segal 2002, theorem 2.

    >>> import jax, jax.numpy as jnp, nestor
    >>> v = lambda x: nestor.minimum(lambda y: (1 + x**2) * y**2 / 2 - jnp.sin(x) * y, 0.0)
    >>> round(float(v(0.7)), 4), round(float(jax.grad(v)(0.7)), 4)
    (-0.1393, -0.1998)
    """
    where = "minimum"
    _checks.check_policy(where, on_failure)
    plan, inputs, _ = pose_minimization(
        fun,
        x0,
        Options(where, solver, adjoint, tol, max_steps, bounds=bounds, constraints=constraints, prox=prox),
    )

    def solve(plan: _drive.Plan, inputs: _drive.Inputs, _: int) -> Answer:
        return solved(plan, inputs, _drive.value_map)

    x, value, record = _onward.solved(plan, inputs, solve, goes_on=solver is None)
    return apply_policy(where, plan, x, value, record, value, on_failure)


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

    Cost: that of its solver (a Jacobian and an LU a step for `NewtonRoot`), and for a derivative one linear solve with
    the Jacobian at the root. Compiled once for a program and its shapes.

    >>> import jax, nestor
    >>> root = lambda a: nestor.find_root(lambda z: z**3 - a, 1.0).x
    >>> round(float(jax.grad(root)(8.0)), 4)  # 1 / (3 * 8^(2/3))
    0.0833
    """
    solver = NewtonRoot() if solver is None else solver
    options = Options(
        "find_root", solver, adjoint, tol, max_steps, history, callback, progress, raise_on_failure
    )
    return run(
        pose_equations(_kinds.ROOT, _kinds.ROOT_FINDERS, _checks.check_same_tree, fun, x0, options), options
    )


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

    Cost: one application of the map a step, and for a derivative one linear solve with I - dT at the answer. Compiled
    once for a program and its shapes.

    >>> import jax.numpy as jnp, nestor
    >>> round(float(nestor.fixed_point(jnp.cos, 1.0).x), 3)
    0.739
    """
    solver = Anderson() if solver is None else solver
    options = Options(
        "fixed_point", solver, adjoint, tol, max_steps, history, callback, progress, raise_on_failure
    )
    return run(
        pose_equations(
            _kinds.FIXED_POINT, _kinds.FIXED_POINT_FINDERS, _checks.check_same_tree, fun, x0, options
        ),
        options,
    )


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

    Cost: that of its solver (for m residuals and n unknowns a Jacobian and 2 (m + n) n² operations a step, m n
    numbers), and for a derivative one linear solve with n unknowns. Compiled once for a program and its shapes.

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
    return run(pose_squares(fun, x0, loss, f_scale, options), options)
