"""Approximate inverses of a fixed cost: a truncated series and a low-rank model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.linear._operators import Operator

Tree = Any


@trees.record
class Neumann:
    """The truncated Neumann series x = s * sum_{i < terms} (I - s A)^i b.

    Args:
        terms: number of terms k; the error shrinks by the norm of I - s A with each.
        scale: s; None is 1 for a general operator (a fixed point's I - T'), and one over the largest
            eigenvalue, by 10 power iterations, for a positive definite one.

    An approximation, taken as it is: needs about as many terms as A has condition number. Cost: `terms`
    products. Source: Lorraine, Vicol, Duvenaud 2020, algorithm 3.

    >>> import nestor
    >>> nestor.Implicit(nestor.Neumann(terms=50)).linear_solver.terms
    50
    """

    terms: int = 20
    scale: float | None = None

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The approximate solution of A x = b."""
        dtype = trees.float_dtype(b)
        if self.scale is not None:
            scale = jnp.asarray(self.scale, dtype)
        elif operator.positive:
            scale = 1 / (1.05 * _largest_eigenvalue(operator, b))
        else:
            scale = jnp.ones((), dtype)

        def add_term(_: Any, carry: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
            term, total = carry
            term = trees.add_scaled(term, -scale, operator.matvec(term))
            return term, trees.add(total, term)

        _, total = jax.lax.fori_loop(0, self.terms - 1, add_term, (b, b))
        return trees.scale(scale, total)


def _largest_eigenvalue(operator: Operator, like: Tree, products: int = 10) -> jax.Array:
    vector, back = trees.ravel(like)
    start = jax.random.normal(jax.random.key(0), vector.shape, vector.dtype)

    def power(_: Any, carry: tuple[Tree, jax.Array]) -> tuple[Tree, jax.Array]:
        v, _value = carry
        product = operator.matvec(v)
        value = trees.norm(product)
        return trees.scale(1 / jnp.where(value > 0, value, 1), product), value

    unit = back(start / jnp.sqrt(jnp.vdot(start, start)))
    _, value = jax.lax.fori_loop(0, products, power, (unit, jnp.zeros((), vector.dtype)))
    return jnp.where(value > 0, value, 1)


@trees.record
class Nystrom:
    """A randomised low-rank model of a positive semidefinite operator, inverted by Woodbury's identity.

    A is replaced by U diag(l) U' + shift (I - U U') with U of `rank` columns, from products with a random
    orthonormal block; for rank >= n it is exact up to rounding.

    Args:
        rank: columns k; memory k trees, cost k products (one batch) and n k^2 operations.
        shift: the value given to the directions that the model does not see (the regularisation rho of the
            paper); None takes the smallest eigenvalue seen.
        seed: of the random block.

    An approximation, taken as it is. Source: Frangella, Tropp, Udell 2021, algorithm 2.1 (the stable
    sketch); Hataya and Yamada 2023 for its use in hypergradients.

    >>> import nestor
    >>> nestor.Implicit(nestor.Nystrom(rank=10)).linear_solver.rank
    10
    """

    rank: int = 10
    shift: float | None = None
    seed: int = 0

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The approximate solution of A x = b."""
        vector, back = trees.ravel(b)
        rank = min(self.rank, vector.size)
        block = jax.random.normal(jax.random.key(self.seed), (vector.size, rank), vector.dtype)
        omega, _ = jnp.linalg.qr(block)
        product = lambda v: trees.ravel(operator.matvec(back(v)))[0]  # noqa: E731
        sketch = jax.vmap(product, in_axes=1, out_axes=1)(omega)
        eps = float(jnp.finfo(vector.dtype).eps)
        nudge = eps * jnp.sqrt(jnp.sum(sketch**2))
        sketch = sketch + nudge * omega
        inner = omega.T @ sketch
        factor = jax.lax.linalg.cholesky((inner + inner.T) / 2, symmetrize_input=False)
        half = jax.lax.linalg.triangular_solve(factor, sketch, left_side=False, lower=True, transpose_a=True)
        u, singular, _ = jnp.linalg.svd(half, full_matrices=False)
        eigenvalues = jnp.maximum(singular**2 - nudge, 0)
        shift = eigenvalues[-1] if self.shift is None else jnp.asarray(self.shift, vector.dtype)
        seen = u.T @ vector
        floor = jnp.where(eigenvalues > 0, eigenvalues, shift)
        x = u @ (seen / floor)
        if rank < vector.size:
            x = x + (vector - u @ seen) / shift
        return back(x)
