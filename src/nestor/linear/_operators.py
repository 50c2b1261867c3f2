"""What a linear solve is given, and the one place where derivatives cross it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from nestor import trees

Tree = Any


@dataclasses.dataclass(frozen=True)
class Operator:
    """A square linear map on trees, with the facts that choose how it is solved.

    Args:
        matvec: the map, from a tree like `like` to a tree of the same shapes; linear and traceable.
        like: a tree of arrays whose shapes and dtypes are those of the space.
        symmetric: whether the map equals its transpose.
        positive: whether it is symmetric positive definite as well (a Hessian at a strict minimum).

    >>> import jax.numpy as jnp
    >>> from nestor import linear
    >>> operator = linear.Operator(lambda v: 2.0 * v, like=jnp.zeros(2), symmetric=True, positive=True)
    >>> linear.solve(operator, jnp.ones(2)).tolist()
    [0.5, 0.5]
    """

    matvec: Callable[[Tree], Tree]
    like: Tree
    symmetric: bool = False
    positive: bool = False

    @property
    def size(self) -> int:
        """The dimension n of the space."""
        return trees.size(self.like)

    def dense(self) -> jax.Array:
        """The matrix, shape (n, n). Cost: n products, taken in one batch."""
        zero, back = trees.ravel(self.like)
        eye = jnp.eye(zero.size, dtype=zero.dtype)
        columns = jax.vmap(lambda v: trees.ravel(self.matvec(back(v)))[0])(eye)
        return columns if self.symmetric else columns.T


@runtime_checkable
class LinearSolver(Protocol):
    """One verb: solve A x = b for a given operator, without a thought for derivatives.

    A solve that did not reach its own standard returns NaN, in x itself: derivatives are assembled from such
    solves in places where no status could follow them, and a wrong gradient must never look like a right one.
    """

    def run(self, operator: Operator, b: Tree) -> Tree:
        """The solution x of A x = b, a tree like b."""
        ...
