"""Krylov methods: products with A only, memory of a few vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.linear._operators import Operator

Tree = Any


def _default_tol(tol: float | None, dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps) ** 0.75 if tol is None else tol


def _poison_unless(good: jax.Array, x: Tree) -> Tree:
    return trees.select(good, x, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), x))


def _good_enough(residual: jax.Array, b_norm: jax.Array, tol: float) -> jax.Array:
    """A solve may stall at rounding above tol, but never above the root of the precision."""
    if tol == 0.0:
        return jnp.isfinite(residual)
    bar = max(tol, float(jnp.finfo(residual.dtype).eps) ** 0.5)
    return residual <= bar * b_norm


class Conjugate(NamedTuple):
    """Where conjugate gradients stand.

    Attributes:
        x: the solution so far; it starts at zero and only gets longer.
        residual: b - A x, as the recurrence has it.
        direction: where the next step goes.
        rho: the square of the residual's length.
        steps: steps made, each with one product.
        steepest: the largest d'A d / r'r met; between the extreme eigenvalues of A.
        convex: whether every direction had positive curvature.
    """

    x: Tree
    residual: Tree
    direction: Tree
    rho: jax.Array
    steps: jax.Array
    steepest: jax.Array
    convex: jax.Array


def conjugate_gradients(operator: Operator, b: Tree, more: Callable[[Conjugate], jax.Array]) -> Conjugate:
    """Conjugate gradients from zero, while `more` says so and the curvature is positive."""

    def step(s: Conjugate) -> Conjugate:
        product = operator.matvec(s.direction)
        curvature = trees.dot(s.direction, product)
        convex = curvature > 0
        alpha = jnp.where(convex, s.rho / jnp.where(convex, curvature, 1), 0)
        residual = trees.add_scaled(s.residual, -alpha, product)
        rho = trees.squared_norm(residual)
        return Conjugate(
            x=trees.add_scaled(s.x, alpha, s.direction),
            residual=residual,
            direction=trees.add_scaled(residual, rho / s.rho, s.direction),
            rho=rho,
            steps=s.steps + 1,
            steepest=jnp.maximum(s.steepest, curvature / s.rho),
            convex=convex,
        )

    rho = trees.squared_norm(b)
    start = Conjugate(trees.zeros_like(b), b, b, rho, jnp.int32(0), jnp.zeros_like(rho), jnp.bool_(True))
    return jax.lax.while_loop(lambda s: more(s) & s.convex, step, start)


@trees.record
class CG:
    """Conjugate gradients, for symmetric positive definite operators; fixed and stateless.

    Args:
        tol: stop when |b - A x| <= tol |b|; None is eps^(3/4) of the dtype (2e-12 or 6e-6).
            With ``tol=0.0`` exactly `max_steps` products are spent and the result is taken as it is.
        max_steps: at most so many products; None is 10 n, at most 2000.

    Fails (NaN) when a direction has no positive curvature, or when the residual at the end is above
    the root of the machine precision. Cost: one product and 10 n operations a step.
    Source: Hestenes and Stiefel 1952; Nocedal and Wright 2006, algorithm 5.2.

    >>> import nestor
    >>> nestor.Implicit(nestor.CG(tol=1e-8)).linear_solver.tol
    1e-08
    """

    tol: float | None = None
    max_steps: int | None = None

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution of A x = b."""
        dtype = trees.float_dtype(b)
        tol = _default_tol(self.tol, dtype)
        limit = min(10 * operator.size, 2000) if self.max_steps is None else self.max_steps
        b_norm = jnp.sqrt(trees.squared_norm(b))

        def more(s: Conjugate) -> jax.Array:
            return (jnp.sqrt(s.rho) > tol * b_norm) & (s.steps < limit)

        end = conjugate_gradients(operator, b, more)
        good = end.convex & _good_enough(jnp.sqrt(end.rho), b_norm, tol)
        return _poison_unless(good, end.x)


@trees.record
class GMRES:
    """Generalised minimal residuals with restarts (`jax.scipy.sparse.linalg.gmres`), for any operator.

    Args:
        tol: stop when |b - A x| <= tol |b|; None is eps^(3/4) of the dtype.
        restart: vectors kept between restarts (memory: restart + 1 trees).
        max_steps: at most so many restarts; None is 10 n / restart, at most 200.

    Fails (NaN) when the residual at the end is above the root of the machine precision.

    >>> import nestor
    >>> nestor.GMRES(restart=10).restart
    10
    """

    tol: float | None = None
    restart: int = 20
    max_steps: int | None = None

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution of A x = b."""
        from jax.scipy.sparse.linalg import gmres

        restart = min(self.restart, operator.size)
        limit = self.max_steps or max(2, min(10 * operator.size // restart, 200))
        tol = _default_tol(self.tol, trees.float_dtype(b))

        def method(b: Tree) -> Tree:
            return gmres(operator.matvec, b, tol=tol, restart=restart, maxiter=limit)[0]

        return _checked(operator, b, method, tol)


@trees.record
class BiCGStab:
    """Stabilised bi-conjugate gradients (`jax.scipy.sparse.linalg.bicgstab`), for any operator.

    Args:
        tol: stop when |b - A x| <= tol |b|; None is eps^(3/4) of the dtype.
        max_steps: at most so many steps of two products; None is 10 n, at most 2000.

    Fails (NaN) when the residual at the end is above the root of the machine precision.

    >>> import nestor
    >>> nestor.BiCGStab(max_steps=50).max_steps
    50
    """

    tol: float | None = None
    max_steps: int | None = None

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution of A x = b."""
        from jax.scipy.sparse.linalg import bicgstab

        tol = _default_tol(self.tol, trees.float_dtype(b))
        limit = self.max_steps or min(10 * operator.size, 2000)

        def method(b: Tree) -> Tree:
            return bicgstab(operator.matvec, b, tol=tol, maxiter=limit)[0]

        return _checked(operator, b, method, tol)


def _checked(operator: Operator, b: Tree, method: Callable[[Tree], Tree], tol: float) -> Tree:
    """Solve for b scaled to length one (or a zero solution), and look at the true residual."""
    size = jnp.sqrt(trees.squared_norm(b))
    some = size > 0
    unit = trees.scale(1 / jnp.where(some, size, 1), b)
    probe = trees.select(some, unit, jax.tree.map(jnp.ones_like, b))
    x = method(probe)
    residual = jnp.sqrt(trees.squared_norm(trees.subtract(probe, operator.matvec(x))))
    good = _good_enough(residual, jnp.sqrt(trees.squared_norm(probe)), tol)
    return trees.select(some, trees.scale(size, _poison_unless(good, x)), trees.zeros_like(b))
