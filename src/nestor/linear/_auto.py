"""The default: a solver chosen by the operator's facts and size, and by what a few products tell."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend import core as jex

from nestor import trees
from nestor.linear._direct import LU, Cholesky
from nestor.linear._iterative import CG, GMRES, Conjugate, conjugate_gradients
from nestor.linear._operators import Operator

Tree = Any

_DENSE_UP_TO = 256
_TRIED_FROM = 128  # unknowns; with fewer, a matrix costs little more than the products that would be tried
_TRIED_TOL = 2e-9  # in float64: the answer of a solve to its default tolerance is not known better


@trees.record
class Auto:
    """The default: dense for at most 256 unknowns, else Krylov.

    ========================  ===========================================  =========
    unknowns                  symmetric positive definite                  any other
    ========================  ===========================================  =========
    up to 127                 `Cholesky`                                   `LU`
    128 to 256                `CG` if it arrives early, else `Cholesky`    `LU`
    more                      `CG`                                         `GMRES`
    ========================  ===========================================  =========

    From 128 unknowns on, conjugate gradients may spend n / 4 products, and half of them if the residual has not
    fallen to a thousandth by then. What they find is taken when |b - A x| <= tol |b|, with tol = 2e-9 in float64
    and eps^(3/4) = 6e-6 in float32; in all other cases the matrix is built and factorised. So a well
    conditioned A (up to a condition number of about 15) costs some 40 products and not n of them.
    Under `vmap`, where many right-hand sides (`jax.jacobian`) share one factorisation, it is dense as below 128.

    Fails (NaN) as the solver that had the last word. As with `CG` itself, a singular A goes unseen if b has
    nothing in its null space; ``Implicit(Cholesky())`` sees it always.

    >>> import nestor
    >>> nestor.Implicit().linear_solver
    Auto()
    """

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution of A x = b."""
        if operator.size > _DENSE_UP_TO:
            method = CG() if operator.positive else GMRES()
        elif operator.positive:
            method = Cholesky() if operator.size < _TRIED_FROM else _Tried()
        else:
            method = LU()
        return method.run(operator, b)


@trees.record
class _Tried:
    """A few conjugate gradients; a Cholesky factorisation where they do not arrive, and under `vmap`."""

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution of A x = b."""
        vector, back = trees.ravel(b)
        # What A closes over becomes an argument: the rule for `vmap` must see what has a batch.
        program = jax.make_jaxpr(lambda v: trees.ravel(operator.matvec(back(v)))[0])(vector)
        if program.effects:  # such as the name of an axis, which that rule would not know
            return Cholesky().run(operator, b)

        def posed(captured: list[Any]) -> Operator:
            closed = jex.jaxpr_as_fun(jex.ClosedJaxpr(program.jaxpr, captured))
            return Operator(lambda v: closed(v)[0], jnp.zeros_like(vector), symmetric=True, positive=True)

        def dense(captured: list[Any], right: jax.Array) -> jax.Array:
            return Cholesky().run(posed(captured), right)

        @custom_vmap
        def solution(captured: list[Any], right: jax.Array) -> jax.Array:
            x, arrived = _try(posed(captured), right)
            return jax.lax.cond(arrived, lambda: x, lambda: dense(captured, right))

        @solution.def_vmap
        def in_batch(size: int, batched: list[Any], captured: list[Any], right: jax.Array) -> Any:
            axes = jax.tree.map(lambda has: 0 if has else None, tuple(batched))
            return jax.vmap(dense, in_axes=axes, axis_size=size)(captured, right), True

        return back(solution(list(program.consts), vector))


def _try(operator: Operator, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Some conjugate gradients: x, and whether it is a solution."""
    eps = float(jnp.finfo(b.dtype).eps)
    tol, limit = max(_TRIED_TOL, eps**0.75), operator.size // 4
    size = jnp.sqrt(trees.squared_norm(b))

    def more(s: Conjugate) -> jax.Array:
        left = jnp.sqrt(s.rho)
        promising = (s.steps < limit // 2) | (left <= 1e-3 * size)
        return (left > tol * size) & (s.steps < limit) & promising

    end = conjugate_gradients(operator, b, more)
    # The recurrence loses sight of b - A x by about eps |A| |x|, and says so nowhere.
    drift = eps * end.steepest * jnp.sqrt(trees.squared_norm(end.x))
    return end.x, end.convex & (jnp.maximum(jnp.sqrt(end.rho), drift) <= tol * size)
