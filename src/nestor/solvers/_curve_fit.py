"""Curve fitting: weighted least squares with the covariance of what was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.programs import is_traced, signature_that_refuses
from nestor.solution import Solution
from nestor.solvers import _checks
from nestor.solvers._delivery import run
from nestor.solvers._losses import check_loss
from nestor.solvers._posing import Options, pose_squares
from nestor.solvers._squares import LevenbergMarquardt

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CurveFit:
    """What `curve_fit` found.

    Attributes:
        params: a tree like p0.
        errors: the standard error of each, a tree like p0: the roots of the covariance's diagonal.
        covariance: shape (n, n), in the order of the leaves of `params`; infinite where the data do not
            determine them, or leave nothing to tell their noise by.
        solution: the `Solution` of the least-squares problem.

    >>> import jax.numpy as jnp, nestor
    >>> t = jnp.arange(5.0)
    >>> nestor.curve_fit(lambda t, p: p * t, t, 2.0 * t + jnp.array([0.1, -0.1, 0.1, -0.1, 0.0]), 1.0).covariance.shape
    (1, 1)
    """

    params: Tree
    errors: Tree
    covariance: jax.Array
    solution: Solution


def curve_fit(
    f: Callable[[Any, Tree], Tree],
    xdata: Any,
    ydata: Tree,
    p0: Tree,
    *,
    sigma: Any = None,
    absolute_sigma: bool = False,
    bounds: Any = None,
    loss: str = "linear",
    f_scale: Any = 1.0,
    solver: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    raise_on_failure: bool = True,
) -> CurveFit:
    """Fit f(xdata, params) to ydata, and say how well the parameters are known.

    Args:
        f: (xdata, params) -> a tree like `ydata`, with params a tree like `p0`; a function of SciPy's form
            f(x, a, b) is ``lambda x, p: f(x, *p)``.
        xdata: whatever f wants.
        ydata: a tree of arrays, m numbers in all; parameters and covariance are differentiable in them.
        p0: the start, a tree of n numbers.
        sigma: the standard deviations of ydata, a number or a tree like `ydata` (or a prefix of it); or their
            covariance matrix, shape (m, m), for m >= 2 and ydata of shape (m,); None is 1.
        absolute_sigma: whether sigma is meant in the units of ydata. If not, only the ratios count, and the
            covariance is scaled so that what remains looks like that noise.
        bounds, loss, f_scale, solver, adjoint, tol, max_steps, raise_on_failure: as in `least_squares`.

    Returns:
        A `CurveFit`: `.params`, `.errors`, `.covariance`, `.solution`.

    Raises:
        BadArgument: as `least_squares`; an f that does not take two arguments; deviations that are not positive.
        SolveFailed: as `least_squares`.

    The covariance is (J'J)⁻¹, with J the Jacobian of the weighted residuals at the answer (of a robust loss, of
    those that make J'J its Gauss-Newton Hessian), times 2 cost / (m - n) unless `absolute_sigma`; it takes no
    notice of bounds. Cost: that of `least_squares`, and one Jacobian more. Source: Nocedal and Wright 2006, section
    10.1; the scaling is that of SciPy's `curve_fit`.

    >>> import jax.numpy as jnp, nestor
    >>> t = jnp.linspace(0.0, 1.0, 20)
    >>> y = 2.0 * t + 1.0 + 0.01 * (-1.0) ** jnp.arange(20)
    >>> line = nestor.curve_fit(lambda t, p: p["slope"] * t + p["at 0"], t, y, {"slope": 0.0, "at 0": 0.0})
    >>> round(float(line.params["slope"]), 1), bool(line.errors["slope"] < 0.01)
    (2.0, True)
    """
    where = "curve_fit"
    solver = LevenbergMarquardt() if solver is None else solver
    options = Options(
        where, solver, adjoint, tol, max_steps, raise_on_failure=raise_on_failure, bounds=bounds
    )
    residuals = _weighted(where, f, xdata, ydata, sigma)
    _checks.check_start(where, "p0", p0)
    solution = run(pose_squares(residuals, p0, loss, f_scale, options), options)
    robust = check_loss(where, loss, f_scale, trees.float_dtype(solution.x))
    vector, back = trees.ravel(solution.x)
    left, push = jax.linearize(lambda v: trees.ravel(residuals(back(v)))[0].astype(v.dtype), vector)
    jacobian = jax.vmap(push, out_axes=1)(jnp.eye(vector.size, dtype=vector.dtype))
    cost = jnp.vdot(left, left) / 2
    if robust is not None:
        cost, _, factor, _ = robust.weighted(left, least=float(jnp.finfo(vector.dtype).eps))
        jacobian = factor[:, None] * jacobian
    covariance = _inverse_gram(jacobian)
    if not absolute_sigma:
        spare = jacobian.shape[0] - jacobian.shape[1]
        covariance = covariance * (2 * cost / spare) if spare > 0 else jnp.full_like(covariance, jnp.inf)
    return CurveFit(solution.x, back(jnp.sqrt(jnp.diagonal(covariance))), covariance, solution)


def _inverse_gram(jacobian: jax.Array) -> jax.Array:
    """(J'J)⁻¹ by QR of J with columns of length one; infinite where J has not full rank."""
    m, n = jacobian.shape
    if m < n:
        return jnp.full((n, n), jnp.inf, jacobian.dtype)
    lengths = jnp.sqrt(jnp.sum(jacobian**2, axis=0))
    some = jnp.where(lengths > 0, lengths, 1)
    _, r = jnp.linalg.qr(jacobian / some[None, :])
    eps = float(jnp.finfo(r.dtype).eps)
    regular = jnp.all(jnp.abs(jnp.diagonal(r)) > max(m, n) * eps) & jnp.all(lengths > 0)
    r = jnp.where(regular, r, jnp.eye(n, dtype=r.dtype))
    inverse = jax.scipy.linalg.solve_triangular(r, jnp.eye(n, dtype=r.dtype)) / some[:, None]
    return jnp.where(regular, inverse @ inverse.T, jnp.inf)


def _weighted(where: str, f: Any, xdata: Any, ydata: Tree, sigma: Any) -> Callable[[Tree], Tree]:
    """The function from parameters to residuals in units of sigma."""
    if not callable(f):
        raise BadArgument(
            where,
            "f",
            got=f,
            want="a function of (xdata, params)",
            do="pass the function first, then the data",
        )
    signature = signature_that_refuses(f, 2)
    if signature is not None:
        raise BadArgument(
            where,
            "f",
            got=f"a function with signature f{signature}",
            want="callable with two arguments, xdata and the parameters, one tree like p0",
            do="write lambda x, p: f(x, *p) for a function of SciPy's form, with p0 an array or a list of floats",
        )
    y = jax.tree.map(jnp.asarray, ydata)
    if not jax.tree.leaves(y):
        raise BadArgument(where, "ydata", got=ydata, want="a tree of arrays", do="pass what is to be fitted")
    y = jax.tree.map(lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(float), y)
    weigh = _weights(where, y, sigma)

    def residuals(params: Tree) -> Tree:
        made = f(xdata, params)
        alike = jax.tree.structure(made) == jax.tree.structure(y)
        if not alike or [jnp.shape(a) for a in jax.tree.leaves(made)] != [
            a.shape for a in jax.tree.leaves(y)
        ]:
            raise BadArgument(
                where,
                "f",
                got=f"a function that returns {jax.tree.map(jnp.shape, made)}",
                want=f"one that returns a tree like ydata, {jax.tree.map(jnp.shape, y)}",
                do="check its shapes; data that one row at a time is fitted to wants jax.vmap",
            )
        return weigh(jax.tree.map(lambda a, b: a - b.astype(a.dtype), made, y))

    return residuals


def _weights(where: str, y: Tree, sigma: Any) -> Callable[[Tree], Tree]:
    """Division by the standard deviations, or by the Cholesky factor of the covariance matrix."""
    if sigma is None:
        return lambda r: r
    one = isinstance(y, jax.Array) and y.ndim == 1
    if one and np.ndim(sigma) == 2 and np.shape(sigma) == (y.size, y.size):
        factor = jnp.linalg.cholesky(jnp.asarray(sigma))
        _check_spread(where, factor, "a matrix that is not positive definite", "a covariance matrix")
        return lambda r: jax.scipy.linalg.solve_triangular(factor.astype(r.dtype), r, lower=True)
    try:
        spread = jax.tree.map(
            lambda s, leaf: jnp.broadcast_to(jnp.asarray(s).astype(leaf.dtype), leaf.shape),
            jax.tree.broadcast(sigma, y),
            y,
        )
    except (ValueError, TypeError) as error:
        raise BadArgument(
            where,
            "sigma",
            got=f"of shape {jax.tree.map(jnp.shape, sigma)}",
            want=f"None, a number, a tree like ydata, {jax.tree.map(jnp.shape, y)}, or a matrix (m, m)",
            do="give the standard deviation of each number, or their covariance",
        ) from error
    _check_spread(where, spread, "with entries that are not > 0", "standard deviations > 0")
    return lambda r: jax.tree.map(lambda a, s: a / s.astype(a.dtype), r, spread)


def _check_spread(where: str, spread: Tree, got: str, want: str) -> None:
    """Whether deviations are positive, or the diagonal of a Cholesky factor is; traced ones are not looked at."""
    if is_traced(spread) or all(
        bool(np.all(np.asarray(jnp.diagonal(leaf) if want.startswith("a cov") else leaf) > 0))
        for leaf in jax.tree.leaves(spread)
    ):
        return
    raise BadArgument(
        where,
        "sigma",
        got=got,
        want=want,
        do="leave out data that are known exactly, or give them a small one",
    )
