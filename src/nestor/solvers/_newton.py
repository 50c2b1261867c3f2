"""Newton's method for minimization, in a trust region: dense, or on Hessian-vector products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import linear, trees
from nestor.solvers import _trust
from nestor.solvers._bounds import projected_gradient
from nestor.solvers._box_trust import limits, step_in_a_box
from nestor.solvers._contract import Minimization, Problem

Tree = Any


@trees.record
class Newton:
    """Newton's method in a trust region, with the dense Hessian.

    Solves the trust-region problem exactly from the eigenvalues of the Hessian, also where it is indefinite:
    it leaves saddle points, and never calls one converged.

    Args:
        radius: the first trust radius; None is max(1, |x0|).

    Quadratic convergence. Cost a step: one Hessian (n products), about 10 n^3 operations, n^2 numbers.
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

        def propose(radius: jax.Array) -> _trust.Proposal:
            p, convex = _exact_step(hessian, g, radius)
            decrease = -(jnp.vdot(g, p) + jnp.vdot(p, hessian @ p) / 2)
            return _trust.Proposal(back(p), jax.lax.stop_gradient(decrease), convex)

        return _trust.step(
            x,
            state,
            merit=value,
            residual=grad,
            gradient=grad,
            propose=propose,
            first_radius=_first_radius(self.radius, x),
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
            first_radius=_first_radius(self.radius, x),
            box=problem.box,
        )

    def status(self, problem: Minimization, x: Tree, state: _trust.TrustState) -> jax.Array:
        """See `Solver.status`."""
        return _trust.status(problem, state)


def _first_radius(radius: float | None, x: Tree) -> jax.Array:
    size = jnp.maximum(trees.norm(trees.stop_gradient(x)), 1)
    return size if radius is None else jnp.full_like(size, radius)


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


class _Walk(NamedTuple):
    p: Tree
    residual: Tree
    direction: Tree
    rho: jax.Array
    steps: jax.Array
    done: jax.Array
    negative: jax.Array


@trees.record
class NewtonCG:
    """Newton's method in a trust region, on Hessian-vector products: for many variables.

    The model is minimized by conjugate gradients that stop at the boundary or at negative curvature
    (Steihaug). Where the gradient is already small, the curvature is probed with a random vector instead, so
    that a saddle point is left rather than called converged.

    Args:
        radius: the first trust radius; None is max(1, |x0|).
        max_products: Hessian-vector products a step at most; None is min(n, 200).

    Superlinear convergence. Cost a step: one gradient and up to max_products products; memory of a few x.
    With bounds, the same in the free unknowns, up to six times a step as bounds are met, and 14 products more.
    Source: Nocedal and Wright 2006, algorithm 7.2; the forcing sequence min(1/2, sqrt|g|).

    >>> import jax.numpy as jnp, nestor
    >>> bowl = lambda x: jnp.sum(jnp.cosh(x - 1.0))
    >>> nestor.minimize(bowl, jnp.zeros(1000), solver=nestor.NewtonCG()).success
    True
    """

    radius: float | None = None
    max_products: int | None = None
    solves: ClassVar[type[Problem]] = Minimization
    bounds: ClassVar[bool] = True

    def init(self, problem: Minimization, x: Tree) -> _trust.TrustState:
        """See `Solver.init`."""
        return _trust.init(x)

    def step(
        self, problem: Minimization, x: Tree, state: _trust.TrustState
    ) -> tuple[Tree, _trust.TrustState]:
        """See `Solver.step`."""
        if problem.box is not None:
            return self._step_in_a_box(problem, x, state)
        value, grad, product = problem.value_grad_and_hvp(x)
        limit = self.max_products or min(trees.size(x), 200)
        optimality = trees.max_norm(trees.stop_gradient(grad))

        def propose(radius: jax.Array) -> _trust.Proposal:
            return _steihaug(product, grad, radius, optimality <= problem.tol, limit)

        return _trust.step(
            x,
            state,
            merit=value,
            residual=grad,
            gradient=grad,
            propose=propose,
            first_radius=_first_radius(self.radius, x),
        )

    def _step_in_a_box(
        self, problem: Minimization, x: Tree, state: _trust.TrustState
    ) -> tuple[Tree, _trust.TrustState]:
        flat, vector, back = problem.raveled(x)
        assert flat.box is not None
        value, g, product = flat.value_grad_and_hvp(vector)
        residual = projected_gradient(vector, g, flat.box)
        room = limits(vector, flat.box)
        limit = self.max_products or min(vector.size, 200)
        probe = trees.max_norm(jax.lax.stop_gradient(residual)) <= problem.tol

        def propose(radius: jax.Array) -> _trust.Proposal:
            def inner(free: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
                own = lambda v: jnp.where(free, product(jnp.where(free, v, 0)), v)  # noqa: E731
                found = _steihaug(own, slope, radius, probe, limit, free)
                return found.step, found.convex

            p, decrease, convex = step_in_a_box(g, room, radius, jax.vmap(product), inner)
            return _trust.Proposal(back(p), decrease, convex)

        return _trust.step(
            x,
            state,
            merit=value,
            residual=residual,
            gradient=back(g),
            propose=propose,
            first_radius=_first_radius(self.radius, x),
            box=problem.box,
        )

    def status(self, problem: Minimization, x: Tree, state: _trust.TrustState) -> jax.Array:
        """See `Solver.status`."""
        return _trust.status(problem, state)


def _steihaug(
    product: Callable[[Tree], Tree],
    grad: Tree,
    radius: jax.Array,
    probe: jax.Array,
    limit: int,
    free: jax.Array | None = None,
) -> _trust.Proposal:
    """The truncated conjugate-gradient step; with `probe`, only a direction of negative curvature, if any.

    With `free`, in those entries of a vector alone; the gradient is zero in the others.
    """
    g = trees.stop_gradient(grad)
    vector, back = trees.ravel(g)
    random = back(jax.random.normal(jax.random.key(0), vector.shape, vector.dtype))
    random = random if free is None else jnp.where(free, random, 0)
    right = trees.select(probe, random, trees.negative(g))
    size = trees.norm(right)
    forcing = jnp.where(probe, 0.1, jnp.minimum(0.5, jnp.sqrt(size)))
    eps = float(jnp.finfo(vector.dtype).eps)
    constant_product = lambda v: trees.stop_gradient(product(v))  # noqa: E731

    def more(w: _Walk) -> jax.Array:
        return ~w.done & (w.steps < limit) & (jnp.sqrt(w.rho) > forcing * size)

    def walk(w: _Walk) -> _Walk:
        hd = constant_product(w.direction)
        curvature = trees.dot(w.direction, hd)
        dd = trees.squared_norm(w.direction)
        negative = curvature <= -eps * dd
        usable = curvature > 0
        alpha = w.rho / jnp.where(usable, curvature, 1)
        p = trees.add_scaled(w.p, alpha, w.direction)
        leaves = ~usable | (trees.squared_norm(p) >= radius**2)
        tau = _to_boundary(w.p, w.direction, radius)
        edge = trees.add_scaled(w.p, tau, w.direction)
        # When probing there is no step worth keeping but the negative direction itself, downhill.
        uphill = trees.dot(g, w.direction) > 0
        along = trees.scale(
            jnp.where(uphill, -1.0, 1.0) * radius / jnp.sqrt(jnp.maximum(dd, eps**2)), w.direction
        )
        residual = trees.add_scaled(w.residual, -alpha, hd)
        rho = trees.squared_norm(residual)
        new = _Walk(
            trees.select(leaves & ~probe, edge, p),
            residual,
            trees.add_scaled(residual, rho / w.rho, w.direction),
            rho,
            w.steps + 1,
            jnp.where(probe, negative, leaves),
            negative,
        )
        return new._replace(p=trees.select(negative & probe, along, new.p))

    zeros = trees.zeros_like(g)
    no = jnp.zeros((), bool)
    start = _Walk(zeros, right, right, trees.squared_norm(right), jnp.int32(0), no, no)
    end = jax.lax.while_loop(more, walk, start)
    p = trees.select(probe & ~end.negative, zeros, end.p)
    decrease = -(trees.dot(g, p) + trees.dot(p, constant_product(p)) / 2)
    return _trust.Proposal(newton_derivative(product, grad, p, ~end.done), decrease, ~end.negative)


def _to_boundary(p: Tree, d: Tree, radius: jax.Array) -> jax.Array:
    """The positive t with |p + t d| = radius."""
    dd, pd, pp = trees.squared_norm(d), trees.dot(p, d), trees.squared_norm(p)
    root = jnp.sqrt(jnp.maximum(pd**2 + dd * (radius**2 - pp), 0))
    return (root - pd) / jnp.where(dd > 0, dd, 1)


def newton_derivative(product: Callable[[Tree], Tree], grad: Tree, p: Tree, interior: jax.Array) -> Tree:
    """The step p, differentiated as the solution of H p = -g where the model was convex and had room.

    Elsewhere (at the boundary, along negative curvature) it is a constant.
    """
    operator = linear.Operator(
        lambda v: trees.select(interior, product(v), v), grad, symmetric=True, positive=True
    )
    right = trees.select(interior, trees.negative(grad), trees.zeros_like(grad))
    return trees.graft(p, linear.solve(operator, right, linear.CG()))
