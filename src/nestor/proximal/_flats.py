"""Boxes, planes, and what they have in common."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg

from nestor import trees
from nestor.errors import BadArgument
from nestor.proximal._contract import Set, scalar, spread

Tree = Any


@trees.record
class Box(Set):
    """lower <= x <= upper, entry by entry: the nearest point is x clipped.

    Args:
        lower, upper: numbers, or trees like x (or prefixes of it) of numbers and arrays; an entry may be infinite.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Box(0.0, 1.0).project(jnp.array([-1.0, 0.5, 2.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    lower: Any = 0.0
    upper: Any = 1.0

    def _sides(self, x: Tree) -> tuple[Tree, Tree]:
        numbers = all(type(side) in (int, float) for side in (self.lower, self.upper))
        if numbers and not self.lower <= self.upper:
            raise BadArgument(
                "Box",
                "lower",
                got=f"{self.lower}, above upper={self.upper}",
                want="a number <= upper",
                do="swap them",
            )
        return spread("Box", "lower", self.lower, x), spread("Box", "upper", self.upper, x)

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        return jax.tree.map(_clip, x, *self._sides(x))

    def lowest(self, slope: Tree) -> Tree:
        """The corner where <slope, .> is least."""
        return jax.tree.map(lambda v, low, high: jnp.where(v > 0, low, high), slope, *self._sides(slope))


@trees.record
class Bounded:
    """A penalty that is a sum over entries, in a box; prox: that of the penalty, clipped.

    Of one entry the penalty is a convex function, and the least value of a convex function between two bounds is
    at the free minimizer or at the bound next to it. Penalties that mix entries (`GroupLasso`, a ball) do not
    allow that, so the front functions refuse them beside ``bounds=``.

    Args:
        term: a penalty with ``entrywise = True``, such as `Lasso`, or a `Separate` of them.
        lower, upper: as of `Box`.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Bounded(proximal.Lasso(1.0), -0.5, 1.0).prox(jnp.array([3.0, -4.0, 0.5])).tolist()
    [1.0, -0.5, 0.0]
    """

    term: Any
    lower: Any = 0.0
    upper: Any = 1.0

    def value(self, x: Tree) -> jax.Array:
        """The penalty at x."""
        return self.term.value(x)

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The operator of the penalty, clipped."""
        return self.inside(self.term.prox(x, step))

    def inside(self, x: Tree) -> Tree:
        """x, clipped."""
        return Box(self.lower, self.upper).project(x)


def _clip(v: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    return jnp.where(v < low, low, jnp.where(v > high, high, v))


@trees.record
class Hyperplane(Set):
    """<normal, x> = offset. The nearest point is x - (<normal, x> - offset) normal / |normal|².

    Args:
        normal: a tree like x.
        offset: a number.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Hyperplane(jnp.ones(2), 1.0).project(jnp.zeros(2)).tolist()
    [0.5, 0.5]
    """

    normal: Any
    offset: Any = 0.0

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        normal = spread("Hyperplane", "normal", self.normal, x)
        over = trees.dot(normal, x) - scalar(self.offset, trees.float_dtype(x))
        return trees.add_scaled(x, -over / trees.squared_norm(normal), normal)


@trees.record
class Halfspace(Set):
    """<normal, x> <= offset. The nearest point is x - max(<normal, x> - offset, 0) normal / |normal|².

    Args:
        normal: a tree like x.
        offset: a number.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Halfspace(jnp.ones(2), 1.0).project(jnp.ones(2)).tolist()
    [0.5, 0.5]
    """

    normal: Any
    offset: Any = 0.0

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        normal = spread("Halfspace", "normal", self.normal, x)
        over = trees.dot(normal, x) - scalar(self.offset, trees.float_dtype(x))
        over = jnp.where(over > 0, over, 0)
        return trees.add_scaled(x, -over / trees.squared_norm(normal), normal)


@trees.record
class Affine(Set):
    """matrix x = target. The nearest point is x - A' (A A')⁻¹ (A x - b).

    Args:
        matrix: A, shape (m, n), of full row rank; n counts all entries of x.
        target: b, shape (m,).

    Cost: one factorisation of A A' at every projection, m² n operations.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Affine(jnp.ones((1, 2)), jnp.ones(1)).project(jnp.zeros(2)).round(3).tolist()
    [0.5, 0.5]
    """

    matrix: Any
    target: Any

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        vector, back = trees.ravel(x)
        matrix = jnp.asarray(self.matrix).astype(vector.dtype)
        target = jnp.asarray(self.target).astype(vector.dtype)
        if matrix.shape != (*target.shape, vector.size) or target.ndim != 1:
            raise BadArgument(
                "Affine",
                "matrix",
                got=f"of shape {matrix.shape}, with a target of shape {target.shape}",
                want=f"of shape (m, {vector.size}), a column for every entry of x, and a target of shape (m,)",
                do="write a single equation as matrix=a[None, :], target=b[None]",
            )
        over = jnp.matmul(matrix, vector, precision="highest") - target
        gram = jnp.matmul(matrix, matrix.T, precision="highest")
        force = jax.scipy.linalg.solve(gram, over, assume_a="pos")
        return back(vector - jnp.matmul(matrix.T, force, precision="highest"))


@trees.record
class BoxSection(Set):
    """lower <= x <= upper and <normal, x> = total: a box cut by a plane, which must meet it.

    The nearest point is x - t normal, clipped, with the t that puts it on the plane: found by bisection among
    the breakpoints, then exactly, from the entries that are between their bounds.

    Args:
        lower, upper: as of `Box`.
        normal: a number or a tree like x.
        total: a number.

    Cost: a sort and log n evaluations. Source: Kiwiel 2008, section 2.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.BoxSection(0.0, 1.0, 1.0, 1.5).project(jnp.array([2.0, 0.5, -0.5])).tolist()
    [1.0, 0.5, 0.0]
    """

    lower: Any = 0.0
    upper: Any = 1.0
    normal: Any = 1.0
    total: Any = 1.0

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        vector, back = trees.ravel(x)
        lower, upper, normal = (
            trees.ravel(spread("BoxSection", name, getattr(self, name), x))[0]
            for name in ("lower", "upper", "normal")
        )
        return back(_on_section(vector, lower, upper, normal, scalar(self.total, vector.dtype)))


def _on_section(
    v: jax.Array, low: jax.Array, high: jax.Array, normal: jax.Array, total: jax.Array
) -> jax.Array:
    between = _between(*jax.lax.stop_gradient((v, low, high, normal, total)))
    at = jax.lax.stop_gradient(_clip(v - between * normal, low, high))
    free = (at > low) & (at < high)
    free = jax.lax.stop_gradient(free)
    fixed = jnp.where(at <= low, low, high)
    fixed = jnp.where(free, 0, fixed)
    weight = jnp.sum(jnp.where(free, normal**2, 0))
    some = weight > 0
    over = jnp.sum(jnp.where(free, normal * v, normal * fixed)) - total
    t = jnp.where(some, over / jnp.where(some, weight, 1), between)
    return jnp.where(free, v - t * normal, fixed)


def _between(v: jax.Array, low: jax.Array, high: jax.Array, normal: jax.Array, total: jax.Array) -> jax.Array:
    """A t in the middle of that piece of t -> <normal, clip(v - t normal)> where it passes `total`."""
    some = normal != 0
    over = jnp.where(some, normal, 1)
    breaks = jnp.concatenate([jnp.where(some, (v - side) / over, jnp.inf) for side in (low, high)])
    breaks = jnp.sort(jnp.where(jnp.isfinite(breaks), breaks, jnp.inf))  # the infinite ones are never reached
    count = jnp.sum(jnp.isfinite(breaks))

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, right = ends  # the sum is above total at breakpoint left, and not at right
        middle = (left + right) // 2
        t = breaks[jnp.clip(middle, 0, breaks.size - 1)]
        above = jnp.sum(normal * _clip(v - t * normal, low, high)) > total
        inside = right - left > 1
        return jnp.where(inside & above, middle, left), jnp.where(inside & ~above, middle, right)

    ends = (jnp.full((), -1, count.dtype), count)
    left, right = jax.lax.fori_loop(0, math.ceil(math.log2(breaks.size + 2)) + 1, halve, ends)
    first = breaks[jnp.clip(left, 0, breaks.size - 1)]
    last = breaks[jnp.clip(right, 0, breaks.size - 1)]
    first = jnp.where(left >= 0, first, jnp.where(right < count, last - 1, -1))
    last = jnp.where(right < count, last, first + 2)
    return (first + last) / 2
