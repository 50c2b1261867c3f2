"""Cones: the non-negative orthant, second-order cones, positive semidefinite matrices."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.proximal._contract import Set, along, check_matrices

Tree = Any


@trees.record
class NonNegative(Set):
    """Every entry >= 0: the nearest point is max(x, 0).

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.NonNegative().project(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        return jax.tree.map(lambda leaf: jnp.where(leaf > 0, leaf, 0), x)

    def project_kl(self, logarithm: Tree) -> Tree:
        """The nearest point to exp(logarithm) in relative entropy: itself."""
        return jax.tree.map(jnp.exp, logarithm)


@trees.record
class SecondOrderCone(Set):
    """Vectors (t, v) with |v|₂ <= t, where t is the first entry.

    The nearest point of an x neither inside nor opposite is (t + |v|)/2 (1, v/|v|).

    Args:
        axis: None, the whole tree is one vector; or the axis of every leaf, each slice by itself.

    Source: Parikh and Boyd 2014, section 6.3.2.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.SecondOrderCone().project(jnp.array([1.0, 0.0, 3.0])).tolist()
    [2.0, 0.0, 2.0]
    """

    axis: int | None = dataclasses.field(default=None, metadata={"static": True})

    def project(self, x: Tree) -> Tree:
        """The nearest point."""

        def onto(v: jax.Array) -> jax.Array:
            top, rest = v[..., :1], v[..., 1:]
            length = trees.root(jnp.sum(rest**2, axis=-1, keepdims=True))
            mean = (top + length) / 2
            beyond = length > jnp.abs(top)
            leaning = jnp.concatenate([mean, rest * (mean / jnp.where(beyond, length, 1))], axis=-1)
            return jnp.where(beyond, leaning, jnp.where(top >= length, v, 0))

        return along(onto, x, self.axis)


@jax.custom_jvp
def _positive_part(matrix: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.maximum(values, 0)[..., None, :]) @ vectors.mT


@_positive_part.defjvp
def _positive_part_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    """Daleckii and Krein: differences of the function over differences of the eigenvalues, none of them 0/0."""
    (matrix,), (dot,) = primals, tangents
    values, vectors = jnp.linalg.eigh(matrix)
    clipped = jnp.maximum(values, 0)
    row, column = values[..., :, None], values[..., None, :]
    mixed = (row > 0) != (column > 0)
    weight = (clipped[..., :, None] - clipped[..., None, :]) / jnp.where(mixed, row - column, 1)
    weight = jnp.where(mixed, weight, jnp.where(row > 0, jnp.ones_like(weight), 0))
    inner = weight * (vectors.mT @ dot @ vectors)
    return (vectors * clipped[..., None, :]) @ vectors.mT, vectors @ inner @ vectors.mT


@trees.record
class PositiveSemidefinite(Set):
    """Symmetric positive semidefinite matrices, in the last two axes of every leaf.

    The nearest point is Q max(D, 0) Q' for the symmetric part Q D Q' of x. Its derivative is right where
    eigenvalues repeat.

    Cost: an eigendecomposition, n^3. Source: Higham 1988; the derivative: Malick and Sendov 2006.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.PositiveSemidefinite().project(jnp.diag(jnp.array([1.0, -1.0]))).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        check_matrices("PositiveSemidefinite", x, square=True)
        return jax.tree.map(lambda leaf: _positive_part((leaf + leaf.mT) / 2), x)
