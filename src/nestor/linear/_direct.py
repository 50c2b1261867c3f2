"""Dense factorisations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl

from nestor import trees
from nestor.linear._operators import Operator

Tree = Any


@trees.record
class Cholesky:
    """Dense Cholesky factorisation, for symmetric positive definite operators; NaN if A is not that.

    Singular to working precision counts as not positive definite: its solution would mean nothing.

    Cost: n products to build A, n^3 / 3 operations, n^2 numbers of memory.

    >>> import jax.numpy as jnp, nestor
    >>> nestor.argmin(lambda x: (x - 1.0) ** 2, 0.0, adjoint=nestor.Implicit(nestor.Cholesky())).shape
    ()
    """

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution of A x = b."""
        vector, back = trees.ravel(b)
        matrix = operator.dense()
        if vector.size == 1:
            pivot = matrix[0]
            return back(jnp.where(pivot > 0, vector / pivot, jnp.nan * vector))
        factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
        x = jsl.cho_solve((factor, True), vector)
        regular = _has_full_rank(jnp.diagonal(factor) ** 2, jnp.diagonal(matrix))
        return back(jnp.where(regular, x, jnp.nan * x))


@trees.record
class LU:
    """Dense LU factorisation with partial pivoting, for any invertible operator; NaN if A is singular.

    Cost: n products to build A, 2 n^3 / 3 operations, n^2 numbers of memory.

    >>> import nestor
    >>> root = nestor.find_root(lambda z: z**3 - 8.0, 1.0, adjoint=nestor.Implicit(nestor.LU()))
    >>> round(float(root.x), 4)
    2.0
    """

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution of A x = b."""
        vector, back = trees.ravel(b)
        matrix = operator.dense()
        if vector.size == 1:
            x = vector / matrix[0]
        else:
            factor, pivots = jsl.lu_factor(matrix)
            x = jsl.lu_solve((factor, pivots), vector)
            regular = _has_full_rank(jnp.diagonal(factor), jnp.max(jnp.abs(matrix), axis=0))
            x = jnp.where(regular, x, jnp.nan * x)
        return back(jnp.where(jnp.all(jnp.isfinite(x)), x, jnp.nan * x))


def _has_full_rank(pivots: jax.Array, columns: jax.Array) -> jax.Array:
    """Whether every pivot of a factorisation is more than rounding, measured against its own column."""
    eps = float(jnp.finfo(pivots.dtype).eps)
    return jnp.all(jnp.abs(pivots) > 4 * eps * columns)


@trees.record
class LeastNorm:
    """Dense LU factorisation; where A is singular, the shortest solution, if there is one; NaN if there is none.

    Conditions that say something twice (an equality that follows from others) have singular systems whose
    solutions differ only in what does not matter, the multipliers. In reverse mode a system without a solution
    is a derivative that does not exist.

    Cost: as `LU`; a singular value decomposition, some 20 n^3 operations, where A is singular (under `vmap` always).

    >>> import jax.numpy as jnp
    >>> from nestor import linear
    >>> twice = linear.Operator(lambda v: jnp.array([v[0] + v[1], v[0] + v[1]]), jnp.zeros(2))
    >>> linear.solve(twice, jnp.ones(2), linear.LeastNorm()).round(3).tolist()
    [0.5, 0.5]
    """

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution of A x = b."""
        vector, back = trees.ravel(b)
        matrix = operator.dense()
        sizes = jnp.max(jnp.abs(matrix), axis=1)
        rows = jnp.where(sizes > 0, sizes, 1)
        matrix, vector = matrix / rows[:, None], vector / rows
        factor, pivots = jsl.lu_factor(matrix)
        regular = _has_full_rank(jnp.diagonal(factor), 1e2 * jnp.max(jnp.abs(matrix), axis=0))

        def shortest() -> jax.Array:
            left, values, right = jnp.linalg.svd(matrix)
            kept = values > 1e2 * float(jnp.finfo(values.dtype).eps) * values.size * values[0]
            inner = jnp.where(kept, left.T @ vector, 0) / jnp.where(kept, values, 1)
            x = right.T @ inner
            off = jnp.max(jnp.abs(matrix @ x - vector))
            bar = float(jnp.finfo(values.dtype).eps) ** 0.5 * jnp.maximum(jnp.max(jnp.abs(vector)), 1e-30)
            return jnp.where(off <= bar, x, jnp.nan * x)

        x = jax.lax.cond(regular, lambda: jsl.lu_solve((factor, pivots), vector), shortest)
        return back(jnp.where(jnp.all(jnp.isfinite(x)), x, jnp.nan * x))
