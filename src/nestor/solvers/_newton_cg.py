"""Newton's method for minimization, in a trust region, on Hessian-vector products."""

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
from nestor.solvers._newton import first_radius

Tree = Any


_PAIRS = 200  # of the preconditioner, at most
_NUMBERS = 2**22  # in them, at most, but for ten pairs


class Pairs(NamedTuple):
    """What conjugate gradients have seen of the Hessian: pairs (d, H d), in places that are used in turn.

    Attributes:
        rows: d above H d, each pair scaled so that d'H d = 1; shape (2, k, n).
        scale: d'H d / |H d|² of the newest.
        seen: how many there were; the last k of them are kept.
    """

    rows: jax.Array
    scale: jax.Array
    seen: jax.Array

    def with_one(self, d: jax.Array, hd: jax.Array, curvature: jax.Array, when: jax.Array) -> Pairs:
        """These and another one, where `when`."""
        place = self.seen % self.rows.shape[1]
        size = jnp.where(when, curvature, 1)
        new = jnp.where(when, jnp.stack([d, hd]) / jnp.sqrt(size), self.rows[:, place])
        square = jnp.vdot(hd, hd)
        scale = jnp.where(when & (square > 0), size / jnp.where(square > 0, square, 1), self.scale)
        return Pairs(self.rows.at[:, place].set(new), scale, self.seen + when.astype(jnp.int32))

    def inverse_times(self, v: jax.Array) -> jax.Array:
        """About H^-1 v: the recursion of L-BFGS, in as many steps as there are pairs; v itself without any."""
        length = self.rows.shape[1]
        used = jnp.minimum(self.seen, length)

        def down(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            q, weights = carry
            d, hd = self.rows[:, (self.seen - 1 - k) % length]
            weight = jnp.vdot(d, q)
            return q - weight * hd, weights.at[k].set(weight)

        def up(j: jax.Array, r: jax.Array) -> jax.Array:
            k = used - 1 - j
            d, hd = self.rows[:, (self.seen - 1 - k) % length]
            return r + (weights[k] - jnp.vdot(hd, r)) * d

        q, weights = jax.lax.fori_loop(0, used, down, (v, jnp.zeros((length,), v.dtype)))
        return jax.lax.fori_loop(0, used, up, self.scale * q)


def no_pairs(x: jax.Array, limit: int) -> Pairs:
    """Room for as many pairs as `limit` products and the memory allow."""
    length = max(1, min(_PAIRS, limit, max(10, _NUMBERS // max(2 * x.size, 1))))
    rows = jnp.zeros((2, length, x.size), x.dtype)
    return Pairs(rows, jnp.ones((), x.dtype), jnp.int32(0))


class _Walk(NamedTuple):
    p: jax.Array
    residual: jax.Array
    direction: jax.Array
    rho: jax.Array  # residual' M residual, M the preconditioner
    steps: jax.Array
    done: jax.Array
    negative: jax.Array
    pairs: Pairs | None


@trees.record
class NewtonCG:
    """Newton's method in a trust region, on Hessian-vector products: for many variables.

    The model is minimized by conjugate gradients that stop at the boundary or at negative curvature
    (Steihaug). What they saw of the Hessian preconditions those of the next steps: a limited-memory BFGS matrix
    of the last pairs (d, H d), 200 at most, which pays where the Hessian is ill-conditioned. Where the gradient is
    already small, the curvature is probed with a random vector instead, so that a saddle point is left rather than
    called converged.

    Args:
        radius: the first trust radius; None is max(1, |x0|).
        max_products: Hessian-vector products a step at most; None is min(n, 200).

    Superlinear convergence. Cost a step: one gradient and up to max_products products, each with 8 n operations for
    every pair; memory of two x for a pair, up to 200 pairs or 4 million numbers (but always ten).
    With bounds, the same in the free unknowns, up to six times a step as bounds are met, and 14 products more, and
    nothing is preconditioned.
    Source: Nocedal and Wright 2006, algorithm 7.2; the forcing sequence min(1/2, sqrt|g|); Morales and Nocedal 2000.

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
        vector, _ = trees.ravel(x)
        return _trust.init(x, () if problem.box is not None else no_pairs(vector, self._limit(vector)))

    def step(
        self, problem: Minimization, x: Tree, state: _trust.TrustState
    ) -> tuple[Tree, _trust.TrustState]:
        """See `Solver.step`."""
        if problem.box is not None:
            return self._step_in_a_box(problem, x, state)
        flat, vector, back = problem.raveled(x)
        value, g, product = flat.value_grad_and_hvp(vector)
        probe = trees.max_norm(trees.stop_gradient(g)) <= problem.tol

        def propose(radius: jax.Array) -> _trust.Proposal:
            found = _steihaug(product, g, radius, probe, self._limit(vector), pairs=state.kept)
            return found._replace(step=back(found.step))

        return _trust.step(
            x,
            state,
            merit=value,
            residual=back(g),
            gradient=back(g),
            propose=propose,
            first_radius=first_radius(self.radius, x),
        )

    def _limit(self, x: jax.Array) -> int:
        return self.max_products or min(x.size, 200)

    def _step_in_a_box(
        self, problem: Minimization, x: Tree, state: _trust.TrustState
    ) -> tuple[Tree, _trust.TrustState]:
        flat, vector, back = problem.raveled(x)
        assert flat.box is not None
        value, g, product = flat.value_grad_and_hvp(vector)
        residual = projected_gradient(vector, g, flat.box)
        room = limits(vector, flat.box)
        limit = self._limit(vector)
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
            first_radius=first_radius(self.radius, x),
            box=problem.box,
        )

    def status(self, problem: Minimization, x: Tree, state: _trust.TrustState) -> jax.Array:
        """See `Solver.status`."""
        return _trust.status(problem, state)


def _steihaug(
    product: Callable[[jax.Array], jax.Array],
    grad: jax.Array,
    radius: jax.Array,
    probe: jax.Array,
    limit: int,
    free: jax.Array | None = None,
    pairs: Pairs | None = None,
) -> _trust.Proposal:
    """The truncated conjugate-gradient step; with `probe`, only a direction of negative curvature, if any.

    With `free`, in those entries alone; the gradient is zero in the others. With `pairs`, preconditioned by them,
    and new ones are kept.
    """
    g, pairs = trees.stop_gradient((grad, pairs))
    random = jax.random.normal(jax.random.key(0), g.shape, g.dtype)
    random = random if free is None else jnp.where(free, random, 0)
    right = jnp.where(probe, random, -g)
    size = trees.norm(right)
    forcing = jnp.where(probe, 0.1, jnp.minimum(0.5, jnp.sqrt(size)))
    eps = float(jnp.finfo(g.dtype).eps)
    constant_product = lambda v: trees.stop_gradient(product(v))  # noqa: E731
    conditioned = (lambda v: v) if pairs is None else pairs.inverse_times

    def more(w: _Walk) -> jax.Array:
        return ~w.done & (w.steps < limit) & (trees.norm(w.residual) > forcing * size)

    def walk(w: _Walk) -> _Walk:
        d = w.direction
        hd = constant_product(d)
        curvature = trees.dot(d, hd)
        dd = trees.squared_norm(d)
        negative = curvature <= -eps * dd
        usable = curvature > 0
        alpha = w.rho / jnp.where(usable, curvature, 1)
        p = w.p + alpha * d
        leaves = ~usable | (trees.squared_norm(p) >= radius**2)
        edge = w.p + _to_boundary(w.p, d, radius) * d
        # When probing there is no step worth keeping but the negative direction itself, downhill.
        uphill = trees.dot(g, d) > 0
        along = (jnp.where(uphill, -1.0, 1.0) * radius / jnp.sqrt(jnp.maximum(dd, eps**2))) * d
        p = jnp.where(leaves & ~probe, edge, p)
        residual = w.residual - alpha * hd
        z = conditioned(residual)
        rho = trees.dot(residual, z)
        return _Walk(
            jnp.where(negative & probe, along, p),
            residual,
            z + (rho / w.rho) * d,
            rho,
            w.steps + 1,
            jnp.where(probe, negative, leaves),
            negative,
            None if w.pairs is None else w.pairs.with_one(d, hd, curvature, curvature > eps * dd),
        )

    zeros, no = jnp.zeros_like(g), jnp.zeros((), bool)
    z = conditioned(right)
    start = _Walk(zeros, right, z, trees.dot(right, z), jnp.int32(0), no, no, pairs)
    end = jax.lax.while_loop(more, walk, start)
    p = jnp.where(probe & ~end.negative, zeros, end.p)
    decrease = -(trees.dot(g, p) + trees.dot(p, constant_product(p)) / 2)
    step = newton_derivative(product, grad, p, ~end.done)
    return _trust.Proposal(step, decrease, ~end.negative, () if end.pairs is None else end.pairs)


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
