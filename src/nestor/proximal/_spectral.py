"""Functions of the singular values of a matrix, with derivatives that are right where these repeat or vanish."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.proximal._contract import Set, matrices, scalar, size
from nestor.proximal._simplex import project_simplex

Tree = Any


@jax.custom_jvp
def _shrink_singular(matrix: jax.Array, by: jax.Array) -> jax.Array:
    """U max(S - by, 0) V' for matrix = U S V'."""
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    return (u * jnp.maximum(s - by, 0)[..., None, :]) @ vt


@_shrink_singular.defjvp
def _shrink_singular_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    """The derivative of a spectral function: divided differences of the symmetric and the skew part of U' dX V."""
    (matrix, by), (dot, by_dot) = primals, tangents
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    h = jnp.maximum(s - by, 0)
    slope = ((s > by) | (by <= 0)).astype(s.dtype)  # without a threshold nothing changes, of any rank
    inner = u.mT @ dot @ vt.mT
    even, odd = (inner + inner.mT) / 2, (inner - inner.mT) / 2
    s_row, s_column = s[..., :, None], s[..., None, :]
    h_row, h_column = h[..., :, None], h[..., None, :]
    gap = s_row - s_column
    apart = slope[..., :, None] != slope[..., None, :]  # else the difference is the slope
    difference = jnp.where(
        apart,
        (h_row - h_column) / jnp.where(apart, gap, 1),
        jnp.broadcast_to(slope[..., :, None], gap.shape),
    )
    both = s_row + s_column
    whole = (by <= 0).astype(s.dtype)
    mean = jnp.where(both > 0, (h_row + h_column) / jnp.where(both > 0, both, 1), whole)
    core = difference * even + mean * odd
    core = core - by_dot * slope[..., None, :] * jnp.eye(s.shape[-1], dtype=s.dtype)
    ratio = jnp.where(s > 0, h / jnp.where(s > 0, s, 1), whole)
    out = u @ core @ vt
    rest = dot @ vt.mT - u @ inner  # outside the range of u; empty where u is square
    out = out + (rest * ratio[..., None, :]) @ vt
    rest = u.mT @ dot - inner @ vt
    out = out + u @ (ratio[..., :, None] * rest)
    return (u * h[..., None, :]) @ vt, out


def _singular_values(matrix: jax.Array) -> jax.Array:
    return jnp.linalg.svd(matrix, compute_uv=False)


@trees.record
class NuclearNorm:
    """g(x) = strength times the sum of the singular values, of the last two axes of every leaf.

    prox: U max(S - step strength, 0) V', the singular values shrunk. Its derivative is right where singular
    values repeat or vanish (a second one is NaN there).

    Args:
        strength: a number >= 0.

    Cost: a singular value decomposition. Source: Cai, Candès, Shen 2010, theorem 2.1; the derivative: Lewis and
    Sendov 2005.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.NuclearNorm(1.0).prox(jnp.diag(jnp.array([3.0, 0.5]))).round(3).tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """

    strength: Any = 1.0

    def value(self, x: Tree) -> jax.Array:
        """g(x)."""
        matrices("NuclearNorm", x)
        dtype = trees.float_dtype(x)
        sums = [jnp.sum(_singular_values(leaf)).astype(dtype) for leaf in jax.tree.leaves(x)]
        return size("NuclearNorm", "strength", self.strength, dtype) * sum(sums[1:], sums[0])

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The singular values, shrunk."""
        matrices("NuclearNorm", x)

        def shrunk(leaf: jax.Array) -> jax.Array:
            strength = size("NuclearNorm", "strength", self.strength, leaf.dtype)
            return _shrink_singular(leaf, scalar(step, leaf.dtype) * strength)

        return jax.tree.map(shrunk, x)


@trees.record
class NuclearBall(Set):
    """Matrices whose singular values sum to at most `radius`: the last two axes of every leaf.

    The nearest point shrinks the singular values by the number that makes their sum right.

    Args:
        radius: a number >= 0.

    Cost: two singular value decompositions.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.NuclearBall(2.0).project(jnp.diag(jnp.array([3.0, 0.5]))).round(3).tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """

    radius: Any = 1.0

    def project(self, x: Tree) -> Tree:
        """The nearest point."""

        def shrunk(matrix: jax.Array) -> jax.Array:
            radius = size("NuclearBall", "radius", self.radius, matrix.dtype)
            s = _singular_values(matrix)
            by = s[:1] - project_simplex(s, radius)[:1]  # the largest is shrunk by as much as all
            by = jnp.sum(jnp.where(jnp.sum(s) <= radius, 0, by))
            return _shrink_singular(matrix, by)

        matrices("NuclearBall", x)
        return jax.tree.map(lambda leaf: _on_matrices(shrunk, leaf), x)

    def lowest(self, slope: Tree) -> Tree:
        """The matrix where <slope, .> is least, of rank one: -radius u v' for the largest singular value."""

        def vertex(matrix: jax.Array) -> jax.Array:
            u, _, vt = jnp.linalg.svd(matrix, full_matrices=False)
            return -size("NuclearBall", "radius", self.radius, matrix.dtype) * u[..., :, :1] @ vt[..., :1, :]

        matrices("NuclearBall", slope)
        return jax.tree.map(vertex, slope)


def _on_matrices(function: Any, leaf: jax.Array) -> jax.Array:
    """A function of one matrix on the last two axes."""
    flat = leaf.reshape(-1, *leaf.shape[-2:])
    return jax.vmap(function)(flat).reshape(leaf.shape)
