"""Methods for nonlinear least squares on the dense Jacobian."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers import _trust
from nestor.solvers._bounds import Box, clip, held, projected_gradient
from nestor.solvers._contract import LeastSquares, Problem

Tree = Any


class _Linearised(NamedTuple):
    residual: jax.Array  # (m,), scaled where the loss is robust
    jacobian: jax.Array  # (m, n), its rows scaled likewise
    gradient: jax.Array  # (n,)  J'r
    merit: jax.Array  # ½|r|², or the robust cost
    x: jax.Array  # (n,)
    box: Box | None  # of vectors (n,)
    back: Any


def _linearise(problem: LeastSquares, x: Tree) -> _Linearised:
    vector, back = trees.ravel(x)

    def transform(fun: Any) -> Any:
        def flat(v: jax.Array) -> jax.Array:
            return trees.ravel(fun(back(v)))[0].astype(v.dtype)

        def at(v: jax.Array) -> tuple[jax.Array, jax.Array]:
            residual, push = jax.linearize(flat, v)
            return residual, jax.vmap(push, out_axes=1)(jnp.eye(v.size, dtype=v.dtype))

        return at

    residual, jacobian = problem.evaluate(transform, vector)
    if problem.loss is None:
        merit, gradient = jnp.vdot(residual, residual) / 2, jacobian.T @ residual
    else:
        merit, pull, factor, residual = problem.loss.weighted(residual)
        gradient, jacobian = jacobian.T @ pull, factor[:, None] * jacobian
    box = None if problem.box is None else Box(*(trees.ravel(side)[0] for side in problem.box))
    return _Linearised(residual, jacobian, gradient, merit, vector, box, back)


def _solve_stacked(at: _Linearised, damping: jax.Array) -> jax.Array:
    """The least-squares solution of [J; sqrt(damping)] p = [-r; 0], by QR: no squared condition number.

    NaN where the columns are dependent to working precision.
    """
    n = at.gradient.size
    root = jnp.sqrt(damping) * jnp.eye(n, dtype=at.gradient.dtype)
    q, r = jnp.linalg.qr(jnp.concatenate([at.jacobian, root]))
    right = q[: at.residual.size].T @ -at.residual
    eps = float(jnp.finfo(r.dtype).eps)
    columns = jnp.sqrt(jnp.sum(jax.lax.stop_gradient(r) ** 2, axis=0))
    regular = jnp.all(jnp.abs(jnp.diagonal(r)) > 4 * eps * columns)
    return jnp.where(regular, jax.scipy.linalg.solve_triangular(r, right), jnp.nan)


def _decrease(at: _Linearised, p: jax.Array) -> jax.Array:
    change = at.jacobian @ p
    return jax.lax.stop_gradient(-(jnp.vdot(at.gradient, p) + jnp.vdot(change, change) / 2))


def _inside(at: _Linearised, p: jax.Array, damping: jax.Array) -> jax.Array:
    """The step p cut where it leaves the box, or one along the cut gradient where that gains more."""
    if at.box is None:
        return p
    cut = clip(at.x + p, at.box) - at.x
    columns = jnp.max(jnp.sum(at.jacobian**2, axis=0))
    size = columns + damping
    plain = clip(at.x - at.gradient / jnp.where(size > 0, size, 1), at.box) - at.x
    change = at.jacobian @ plain
    bend, slope = jnp.vdot(change, change), -jnp.vdot(at.gradient, plain)
    plain = plain * jnp.where(bend > slope, slope / jnp.where(bend > 0, bend, 1), 1)
    return jnp.where(_decrease(at, cut) >= 0.1 * _decrease(at, plain), cut, plain)


def _free(at: _Linearised) -> _Linearised:
    """The same without the columns of unknowns that are held at a bound."""
    if at.box is None:
        return at
    on = held(*jax.lax.stop_gradient((at.x, at.gradient, at.box)))
    return at._replace(jacobian=jnp.where(on[None, :], 0, at.jacobian))


def _snap(x: Tree, box: Box | None) -> Tree:
    """x in the box; entries that rounding keeps from a bound are put on it."""
    if box is None:
        return x

    def entry(v: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        near = 4 * float(jnp.finfo(v.dtype).eps)
        below = v <= low + near * jnp.maximum(jnp.abs(low), jnp.abs(v))
        above = v >= high - near * jnp.maximum(jnp.abs(high), jnp.abs(v))
        return jnp.where(below, low, jnp.where(above, high, v))

    return jax.tree.map(entry, x, *box)


def _turn(
    problem: LeastSquares,
    at: _Linearised,
    x: Tree,
    state: _trust.TrustState,
    propose: Any,
    first_radius: jax.Array,
    radius_is_length: bool = True,
) -> tuple[Tree, _trust.TrustState]:
    gradient = at.back(at.gradient)
    onward, after = _trust.step(
        x,
        state,
        merit=at.merit,
        residual=projected_gradient(x, gradient, problem.box),
        gradient=gradient,
        propose=propose,
        first_radius=first_radius,
        radius_is_length=radius_is_length,
    )
    return _snap(onward, problem.box), after


@trees.record
class GaussNewton:
    """Gauss-Newton with backtracking: each step solves the linearised problem by QR.

    Fast for small residuals and a Jacobian of full rank; SINGULAR where the rank falls. Cost a step: one
    Jacobian (n forward derivatives), 2 m n^2 operations, m n numbers.
    Source: Nocedal and Wright 2006, section 10.3.

    >>> import jax.numpy as jnp, nestor
    >>> fit = nestor.least_squares(lambda w: jnp.exp(w) - 2.0, 0.0, solver=nestor.GaussNewton())
    >>> round(float(fit.x), 4)
    0.6931
    """

    solves: ClassVar[type[Problem]] = LeastSquares

    def init(self, problem: LeastSquares, x: Tree) -> _trust.TrustState:
        """See `Solver.init`."""
        return _trust.init(x)

    def step(
        self, problem: LeastSquares, x: Tree, state: _trust.TrustState
    ) -> tuple[Tree, _trust.TrustState]:
        """See `Solver.step`."""
        at = _linearise(problem, x)

        def propose(radius: jax.Array) -> _trust.Proposal:
            p = _solve_stacked(at, jnp.zeros_like(at.merit))
            return _trust.Proposal(at.back(p), _decrease(at, p))

        return _turn(problem, at, x, state, propose, jnp.ones_like(at.merit))

    def status(self, problem: LeastSquares, x: Tree, state: _trust.TrustState) -> jax.Array:
        """See `Solver.status`."""
        return _trust.status(problem, state)


@trees.record
class LevenbergMarquardt:
    """Levenberg-Marquardt: Gauss-Newton steps damped as far as the model deserves; the default.

    Args:
        damping: the first damping, relative to the largest column of J, squared.

    With bounds, unknowns that are held at theirs stay out of the step, which is then cut where it leaves the box.
    Works for any rank and from far away; close to Gauss-Newton near a solution with small residuals. Cost a
    step: one Jacobian (n forward derivatives), 2 (m + n) n^2 operations, m n numbers.
    Source: Levenberg 1944; Marquardt 1963; Moré 1978 for the solution by QR.

    >>> import jax.numpy as jnp, nestor
    >>> solver = nestor.LevenbergMarquardt(damping=1.0)
    >>> round(float(nestor.least_squares(lambda w: jnp.exp(w) - 2.0, 0.0, solver=solver).x), 4)
    0.6931
    """

    damping: float = 1e-3
    solves: ClassVar[type[Problem]] = LeastSquares
    bounds: ClassVar[bool] = True

    def init(self, problem: LeastSquares, x: Tree) -> _trust.TrustState:
        """See `Solver.init`."""
        return _trust.init(x)

    def step(
        self, problem: LeastSquares, x: Tree, state: _trust.TrustState
    ) -> tuple[Tree, _trust.TrustState]:
        """See `Solver.step`."""
        at = _linearise(problem, x)
        columns = jnp.max(jnp.sum(jax.lax.stop_gradient(at.jacobian) ** 2, axis=0))
        columns = jnp.where(columns > 0, columns, 1)
        free = _free(at)

        def propose(radius: jax.Array) -> _trust.Proposal:
            p = _inside(at, _solve_stacked(free, 1 / radius), 1 / radius)
            return _trust.Proposal(at.back(p), _decrease(at, p))

        # The "radius" of the shared turn is 1 / damping here, grown and shrunk by the same verdicts.
        return _turn(problem, at, x, state, propose, 1 / (self.damping * columns), radius_is_length=False)

    def status(self, problem: LeastSquares, x: Tree, state: _trust.TrustState) -> jax.Array:
        """See `Solver.status`."""
        return _trust.status(problem, state)


@trees.record
class Dogleg:
    """Powell's dogleg: from steepest descent to Gauss-Newton along two legs, inside a trust radius.

    Args:
        radius: the first trust radius; None is max(1, |x0|).

    Steps along the first leg only where the Jacobian loses its rank. Cost as `GaussNewton`.
    Source: Powell 1970; Nocedal and Wright 2006, section 4.1.

    >>> import jax.numpy as jnp, nestor
    >>> fit = nestor.least_squares(lambda w: jnp.exp(w) - 2.0, 0.0, solver=nestor.Dogleg())
    >>> round(float(fit.x), 4)
    0.6931
    """

    radius: float | None = None
    solves: ClassVar[type[Problem]] = LeastSquares

    def init(self, problem: LeastSquares, x: Tree) -> _trust.TrustState:
        """See `Solver.init`."""
        return _trust.init(x)

    def step(
        self, problem: LeastSquares, x: Tree, state: _trust.TrustState
    ) -> tuple[Tree, _trust.TrustState]:
        """See `Solver.step`."""
        at = _linearise(problem, x)
        size = jnp.maximum(trees.norm(trees.stop_gradient(x)), 1)
        first = size if self.radius is None else jnp.full_like(size, self.radius)

        def propose(radius: jax.Array) -> _trust.Proposal:
            p = _dogleg(at, radius)
            return _trust.Proposal(at.back(p), _decrease(at, p))

        return _turn(problem, at, x, state, propose, first)

    def status(self, problem: LeastSquares, x: Tree, state: _trust.TrustState) -> jax.Array:
        """See `Solver.status`."""
        return _trust.status(problem, state)


def _dogleg(at: _Linearised, radius: jax.Array) -> jax.Array:
    newton = _solve_stacked(at, jnp.zeros_like(at.merit))
    regular = jnp.all(jnp.isfinite(newton))  # else the first leg is all there is
    newton = jnp.where(regular, newton, 0)
    g = at.gradient
    jg = at.jacobian @ g
    gg, curved = jnp.vdot(g, g), jnp.vdot(jg, jg)
    some = (gg > 0) & (curved > 0)
    cauchy = -jnp.where(some, gg / jnp.where(some, curved, 1), 0) * g
    length = trees.norm(cauchy)
    fits = trees.norm(newton) <= radius
    clipped = cauchy * jnp.minimum(1, radius / jnp.where(length > 0, length, 1))
    leg = newton - cauchy
    a, b = jnp.vdot(leg, leg), jnp.vdot(cauchy, leg)
    c = jnp.vdot(cauchy, cauchy) - radius**2
    inner = b**2 - a * c
    usable = (inner > 0) & (a > 0)
    t = (jnp.sqrt(jnp.where(usable, inner, 1)) - b) / jnp.where(usable, a, 1)
    bent = cauchy + jnp.clip(jnp.where(usable, t, 0), 0, 1) * leg
    return jnp.where(fits & regular, newton, jnp.where((length >= radius) | ~regular, clipped, bent))
