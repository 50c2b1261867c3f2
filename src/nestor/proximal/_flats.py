"""Boxes, planes, and what they have in common."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import jax.scipy.linalg

from nestor import trees
from nestor.errors import BadArgument
from nestor.proximal._contract import Set, scalar, spread, units

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
        known = not any(
            isinstance(side, jax.core.Tracer) for side in jax.tree.leaves((self.lower, self.upper))
        )
        if known:
            with jax.ensure_compile_time_eval():
                sides = spread("Box", "lower", self.lower, x), spread("Box", "upper", self.upper, x)
                pairs = zip(*(jax.tree.leaves(side) for side in sides), strict=True)
                crossed = any(bool(jnp.any(low > high)) for low, high in pairs)
            if crossed:
                numbers = jnp.ndim(self.lower) == jnp.ndim(self.upper) == 0
                got = f"{self.lower}, above upper={self.upper}" if numbers else "above upper in places"
                do = "swap them where they are crossed"
                raise BadArgument("Box", "lower", got=got, want="at most upper", do=do)
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
        normal, over, square = _beyond("Hyperplane", self, x)
        return trees.add_scaled(x, -over / jnp.where((square > 0) | (over != 0), square, 1), normal)


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
        normal, over, square = _beyond("Halfspace", self, x)
        over = jnp.where(over <= 0, 0, over)
        return trees.add_scaled(x, -over / jnp.where((square > 0) | (over != 0), square, 1), normal)


def _beyond(where: str, plane: Any, x: Tree) -> tuple[Tree, jax.Array, jax.Array]:
    """The normal, how far <normal, x> is above the offset, and |normal|², in units where that is ordinary."""
    normal = spread(where, "normal", plane.normal, x)
    unit = units(trees.max_norm(normal))
    normal = jax.tree.map(lambda leaf: leaf / unit.astype(leaf.dtype), normal)
    over = trees.dot(normal, x) - scalar(plane.offset, trees.float_dtype(x)) / unit
    return normal, over, trees.squared_norm(normal)


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
        if matrix.ndim != 2 or matrix.shape[1] != vector.size or target.shape != matrix.shape[:1]:
            raise BadArgument(
                "Affine",
                "matrix, target",
                got=f"of shapes {matrix.shape} and {target.shape}",
                want=f"of shapes (m, {vector.size}) and (m,)",
                do="give the matrix a column for every entry of x, the target an entry for every row",
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

    Fails (NaN) where the plane misses the box. Cost: a sort and log n evaluations. Source: Kiwiel 2008, section 2.

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


class _Piece(NamedTuple):
    """A piece of t -> <normal, clip(v - t normal)> on which it is straight and passes `total`.

    Attributes:
        at: one of its ends (or 0, where it has none): from there t is counted, for t itself may be large.
        low, high: which entries are at their bounds there.
        reached: whether it passes `total` at all.
    """

    at: jax.Array
    low: jax.Array
    high: jax.Array
    reached: jax.Array


def _on_section(
    v: jax.Array, low: jax.Array, high: jax.Array, normal: jax.Array, total: jax.Array
) -> jax.Array:
    if not v.size:
        return v
    piece = jax.lax.stop_gradient(_piece(*jax.lax.stop_gradient((v, low, high, normal, total))))
    fixed = jnp.where(piece.low, low, jnp.where(piece.high, high, 0))
    free = ~(piece.low | piece.high)
    near = v - piece.at * normal
    weight = jnp.sum(jnp.where(free, normal**2, 0))
    some = weight > 0
    over = jnp.sum(jnp.where(free, normal * near, normal * fixed)) - total
    t = jnp.where(some, over / jnp.where(some, weight, 1), 0)
    found = jnp.where(free, _clip(near - t * normal, low, high), fixed)
    return jnp.where(piece.reached, found, jnp.nan)


def _piece(v: jax.Array, low: jax.Array, high: jax.Array, normal: jax.Array, total: jax.Array) -> _Piece:
    """That piece, by bisection among the breakpoints; between two of them every entry is at one place."""
    some = normal != 0
    over = jnp.where(some, normal, 1)
    # An entry leaves its first bound at `leaves` and meets the other one at `arrives`.
    leaves = jnp.where(some, (v - jnp.where(normal > 0, high, low)) / over, -jnp.inf)
    arrives = jnp.where(some, (v - jnp.where(normal > 0, low, high)) / over, jnp.inf)
    breaks = jnp.concatenate([leaves, arrives])
    breaks = jnp.sort(jnp.where(jnp.isfinite(breaks), breaks, jnp.inf))  # the infinite ones are never reached
    count = jnp.sum(jnp.isfinite(breaks))

    def sum_at(t: jax.Array) -> jax.Array:
        return jnp.sum(normal * _clip(v - t * normal, low, high))

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, right = ends  # the sum is above total at breakpoint left, and not at right
        middle = (left + right) // 2
        above = sum_at(breaks[jnp.clip(middle, 0, breaks.size - 1)]) > total
        inside = right - left > 1
        return jnp.where(inside & above, middle, left), jnp.where(inside & ~above, middle, right)

    ends = (jnp.full((), -1, count.dtype), count)
    left, right = jax.lax.fori_loop(0, math.ceil(math.log2(breaks.size + 2)) + 1, halve, ends)
    first = jnp.where(left >= 0, breaks[jnp.clip(left, 0, breaks.size - 1)], -jnp.inf)
    last = jnp.where(right < count, breaks[jnp.clip(right, 0, breaks.size - 1)], jnp.inf)
    before, after = leaves >= last, arrives <= first  # not left yet; arrived already
    low_side = jnp.where(normal > 0, after, before) | (~some & (v <= low))
    high_side = jnp.where(normal > 0, before, after) | (~some & (v >= high))
    at = jnp.where(jnp.isfinite(last), last, jnp.where(jnp.isfinite(first), first, 0))
    same = low == high
    low_side = low_side | same
    straight = jnp.any(~low_side & ~high_side & some)
    off = jnp.abs(sum_at(at) - total)  # without a free entry the sum is what it is all along
    terms = jnp.where(jnp.isfinite(low) & jnp.isfinite(high), jnp.maximum(jnp.abs(low), jnp.abs(high)), 0)
    rounding = float(jnp.finfo(v.dtype).eps) ** 0.75 * (jnp.sum(jnp.abs(normal) * terms) + jnp.abs(total))
    return _Piece(at, low_side, high_side & ~low_side, straight | (off <= rounding))
