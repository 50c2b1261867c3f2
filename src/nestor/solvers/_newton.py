"""Newton's method for minimization, in a trust region, with the dense Hessian."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers import _trust
from nestor.solvers._bounds import projected_gradient
from nestor.solvers._box_trust import limits, step_in_a_box
from nestor.solvers._contract import Minimization, Problem

Tree = Any

_GROWTH = 10.0  # of the radius, where the model is right
_LEFT = 0.1  # of a slope; less is no sign that steps are too short


@trees.record
class Newton:
    """Newton's method in a trust region, with the dense Hessian.

    Solves the trust-region problem exactly from the eigenvalues of the Hessian, also where it is indefinite:
    it leaves saddle points, and never calls one converged.

    Args:
        radius: the first trust radius; None is max(1, |x0|).

    Quadratic convergence. A step is lengthened by what the last one left of its slope, beyond what the model
    foretold, from a tenth on. Cost a step: one Hessian (n products), about 10 n^3 operations, n^2 numbers.
    With bounds, the trust-region problem of the free unknowns, up to six times a step as bounds are met.
    Source: Moré and Sorensen 1983; Nocedal and Wright 2006, section 4.3.

    >>> import jax.numpy as jnp, nestor
    >>> rosenbrock = lambda x: 100.0 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    >>> nestor.minimize(rosenbrock, jnp.array([-1.2, 1.0]), solver=nestor.Newton()).x.round(3).tolist()
    [1.0, 1.0]
    """

    radius: float | None = None
    solves: ClassVar[type[Problem]] = Minimization
    bounds: ClassVar[bool] = True

    def init(self, problem: Minimization, x: Tree) -> _trust.TrustState:
        """See `Solver.init`."""
        return _trust.init(x)

    def step(
        self, problem: Minimization, x: Tree, state: _trust.TrustState
    ) -> tuple[Tree, _trust.TrustState]:
        """See `Solver.step`."""
        value, grad, hessian = problem.value_grad_and_hessian(x)
        g, back = trees.ravel(grad)

        if problem.box is not None:
            return self._step_in_a_box(problem, x, state, value, grad, hessian)

        left = _slope_left(grad, state)

        def propose(radius: jax.Array) -> _trust.Proposal:
            p, convex = _exact_step(hessian, g, radius)
            p = _lengthened(p, left, radius, convex)
            decrease = -(jnp.vdot(g, p) + jnp.vdot(p, hessian @ p) / 2)
            return _trust.Proposal(back(p), jax.lax.stop_gradient(decrease), convex)

        return _trust.step(
            x,
            state,
            merit=value,
            residual=grad,
            gradient=grad,
            propose=propose,
            first_radius=first_radius(self.radius, x),
            growth=_GROWTH,
        )

    def _step_in_a_box(
        self,
        problem: Minimization,
        x: Tree,
        state: _trust.TrustState,
        value: jax.Array,
        grad: Tree,
        hessian: jax.Array,
    ) -> tuple[Tree, _trust.TrustState]:
        flat, vector, back = problem.raveled(x)
        assert flat.box is not None
        g, room = trees.ravel(grad)[0], limits(vector, flat.box)

        def propose(radius: jax.Array) -> _trust.Proposal:
            def inner(free: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
                both = free[:, None] & free[None, :]
                own = jnp.where(both, hessian, 0)
                # The other entries stay: their slope is zero, and no eigenvalue of theirs is the least or largest.
                middle = jnp.max(jnp.abs(jax.lax.stop_gradient(own)))
                eye = jnp.diag(jnp.where(free, 0, jnp.where(middle > 0, middle, 1)))
                return _exact_step(own + eye, slope, radius)

            times = lambda rows: jnp.matmul(rows, hessian, precision="highest")  # noqa: E731
            p, decrease, convex = step_in_a_box(g, room, radius, times, inner)
            return _trust.Proposal(back(p), decrease, convex)

        return _trust.step(
            x,
            state,
            merit=value,
            residual=projected_gradient(x, grad, problem.box),
            gradient=grad,
            propose=propose,
            first_radius=first_radius(self.radius, x),
            box=problem.box,
        )

    def status(self, problem: Minimization, x: Tree, state: _trust.TrustState) -> jax.Array:
        """See `Solver.status`."""
        return _trust.status(problem, state)


def first_radius(radius: float | None, x: Tree) -> jax.Array:
    """The first trust radius: what was asked for, or max(1, |x|)."""
    size = jnp.maximum(trees.norm(trees.stop_gradient(x)), 1)
    return size if radius is None else jnp.full_like(size, radius)


def _slope_left(grad: Tree, state: _trust.TrustState) -> jax.Array:
    """How much of the slope along the last step is left at its end, beyond what the model foretold."""
    left, before, decrease = jax.lax.stop_gradient((trees.dot(grad, state.step), state.slope, state.decrease))
    foretold = jnp.minimum(-before - 2 * decrease, 0)  # of a step to the boundary; no slope of others
    part = (left - foretold) / jnp.where(before < 0, before, 1)
    return jnp.where((before < 0) & (part > _LEFT), jnp.minimum(part, 1), 0)


def _lengthened(p: jax.Array, left: jax.Array, radius: jax.Array, convex: jax.Array) -> jax.Array:
    """The step p, longer by the part of the slope that the last one left; within the radius.

    Where the curvature falls along the way, as in the tail of an exponential, Newton's steps are too short again
    and again. Nothing changes where the model is right: it foretells what is left.
    """
    size = jax.lax.stop_gradient(trees.norm(p))
    room = jnp.maximum(radius / jnp.where(size > 0, size, 1), 1)
    return jnp.where(convex, jnp.minimum(1 + left, room), 1) * p


def _exact_step(hessian: jax.Array, g: jax.Array, radius: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The minimizer of the quadratic model in the ball, and whether the model is convex.

    The shift comes from the eigenvalues and counts as a constant; the step is differentiated as the solution
    of (H + shift) p = -g.
    """
    eps = float(jnp.finfo(g.dtype).eps)
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(hessian))
    a = vectors.T @ jax.lax.stop_gradient(g)
    scale = jnp.maximum(jnp.max(jnp.abs(values)), eps)
    lowest = values[0]
    convex = lowest >= -(eps**0.5) * scale
    tiny = 10 * eps * scale

    def length(shift: jax.Array) -> jax.Array:
        gaps = jnp.maximum(values + shift, tiny)
        return jnp.sqrt(jnp.sum((a / gaps) ** 2))

    floor = jnp.maximum(-lowest, 0) + jnp.where(lowest <= tiny, tiny, 0)
    ceiling = jnp.sqrt(jnp.sum(a**2)) / radius + jnp.maximum(-lowest, 0) + tiny

    def halve(_: Any, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = jnp.where(low > 0, jnp.sqrt(low * high), high / 2**8)
        middle = jnp.where((middle > low) & (middle < high), middle, (low + high) / 2)
        outside = length(middle) > radius
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    inside = length(floor) <= radius
    _, shift = jax.lax.fori_loop(0, 50, halve, (floor, ceiling))
    shift = jnp.where(inside, floor, shift)
    gaps = jnp.maximum(values + shift, tiny)
    p = -(vectors @ (a / gaps))
    # The hard case: the gradient does not see the most negative direction; walk along it to the boundary.
    hard = inside & (lowest < -(eps**0.5) * scale)
    room = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum(p**2), 0))
    sign = jnp.where(a[0] > 0, -1.0, 1.0).astype(g.dtype)
    p = jnp.where(hard, p + sign * room * vectors[:, 0], p)
    shifted = hessian + (shift + jnp.where(hard, tiny + scale, 0)) * jnp.eye(g.size, dtype=g.dtype)
    return trees.graft(p, -jnp.linalg.solve(shifted, g)), convex
