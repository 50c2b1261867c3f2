"""Bounds on the unknowns: what a user may pass, and the arithmetic of a box.

An unknown at its bound is *held* there at a solution, so the condition of a solution with bounds is: an unknown
at a bound is that bound, and the gradient vanishes in all others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.programs import structure_text
from nestor.settings import shown

Tree = Any


class Box(NamedTuple):
    """Lower and upper bounds, trees like x; an entry may be infinite."""

    lower: Tree
    upper: Tree


def check_bounds(where: str, bounds: Any, x: Tree) -> Box | None:
    """The bounds as a `Box` of trees like `x`, or None where there are none.

    Args:
        where: the public function, for messages.
        bounds: None; a pair (lower, upper), each None, a scalar, or a tree like `x` (or a prefix of it) whose
            leaves are None, scalars or arrays that broadcast to the leaf of `x`; or an object with the attributes
            `lb` and `ub`, such as `scipy.optimize.Bounds`.
        x: the start, as `check_start` returns it.

    Raises:
        BadArgument: of another shape, NaN, or crossed.
    """
    if bounds is None:
        return None
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        bounds = (bounds.lb, bounds.ub)
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise BadArgument(
            where,
            "bounds",
            got=shown(bounds),
            want="a pair (lower, upper)",
            do=_PAIR
            if _are_pairs(bounds)
            else "pass two trees like x0, two numbers, or None for no bound: bounds=(0.0, None)",
        )
    lower = _side(where, "lower", bounds[0], x, -np.inf)
    upper = _side(where, "upper", bounds[1], x, np.inf)
    if lower is None and upper is None:
        return None
    box = Box(
        jax.tree.map(lambda leaf: jnp.full_like(leaf, -jnp.inf), x) if lower is None else lower,
        jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), x) if upper is None else upper,
    )
    _check_order(where, box)
    return box


_PAIR = "pass all lower bounds and all upper bounds, bounds=(lower, upper); pairs by unknown are SciPy's"


def _are_pairs(bounds: Any) -> bool:
    """Whether these look like SciPy's pairs, one for each unknown, or like one of them."""
    pairs = bounds if isinstance(bounds, list) else [bounds]
    ends = (type(None), int, float)
    return all(
        isinstance(p, (tuple, list)) and len(p) == 2 and all(isinstance(end, ends) for end in p)
        for p in pairs
    )


def _side(where: str, name: str, side: Any, x: Tree, free: float) -> Tree | None:
    """One side of the bounds as a tree like x; None where it bounds nothing."""
    if side is None:
        return None
    try:
        spread = jax.tree.broadcast(side, x, is_leaf=lambda leaf: leaf is None)
    except ValueError as error:
        raise BadArgument(
            where,
            f"bounds ({name})",
            got=f"of the structure {structure_text(side, lambda leaf: leaf is None)}",
            want=f"a number, None, or a tree like x0, {structure_text(x)}",
            do=_PAIR if _are_pairs(side) else "give every leaf of x0 its bound, or None",
        ) from error
    sides = jax.tree.leaves(spread, is_leaf=lambda leaf: leaf is None)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(x)]
    leaves = [
        _leaf(where, f"bounds ({name}){path}", bound, leaf, free)
        for path, bound, leaf in zip(paths, sides, jax.tree.leaves(x), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(x), leaves)


def _leaf(where: str, place: str, bound: Any, leaf: jax.Array, free: float) -> jax.Array:
    if bound is None:
        return jnp.full_like(leaf, free)
    try:
        array = jnp.asarray(bound)
        if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
            raise TypeError(f"its dtype is {array.dtype}")
        array = jnp.broadcast_to(array, leaf.shape).astype(leaf.dtype)
    except (TypeError, ValueError) as error:
        raise BadArgument(
            where,
            place,
            got=f"{shown(bound)}" if np.ndim(bound) == 0 else f"of shape {np.shape(bound)}",
            want=f"a number, or an array that broadcasts to the shape {leaf.shape} of x0 there",
            do="give one bound for each entry, or one for all",
        ) from error
    return array


def _check_order(where: str, box: Box) -> None:
    """Bounds are numbers, and the lower one is not above the upper one; traced bounds are not looked at."""
    for (path, lower), upper in zip(
        jax.tree_util.tree_leaves_with_path(box.lower), jax.tree.leaves(box.upper), strict=True
    ):
        if isinstance(lower, jax.core.Tracer) or isinstance(upper, jax.core.Tracer):
            continue
        low, high = np.asarray(lower), np.asarray(upper)
        wrong = np.isnan(low) | np.isnan(high) | (low > high) | (low == np.inf) | (high == -np.inf)
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            place = f"x0{jax.tree_util.keystr(path)}{list(first) if first else ''}"
            raise BadArgument(
                where,
                "bounds",
                got=f"lower {low[first]!s}, upper {high[first]!s} at {place}",
                want="lower <= upper, both numbers (or infinite on their own side)",
                do="swap them, or pass None where there is no bound",
            )


def clip(x: Tree, box: Box | None) -> Tree:
    """The nearest point of the box."""
    if box is None:
        return x
    return jax.tree.map(lambda v, low, high: jnp.minimum(jnp.maximum(v, low), high), x, *box)


def projected_gradient(x: Tree, grad: Tree, box: Box | None) -> Tree:
    """x - clip(x - grad): what vanishes at a solution; the gradient itself where there are no bounds."""
    if box is None:
        return grad
    cut = jax.tree.map(  # equal to x - clip(x - grad), without the rounding of x - (x - grad)
        lambda v, g, low, high: jnp.maximum(jnp.minimum(g, v - low), v - high), x, grad, *box
    )
    return cut


def at_bound(x: Tree, box: Box) -> Tree:
    """For every entry, whether it is at one of its bounds."""
    return jax.tree.map(lambda v, low, high: (v <= low) | (v >= high), x, *box)


def held(x: Tree, grad: Tree, box: Box) -> Tree:
    """For every entry, whether it is at a bound and the gradient pushes it outwards."""
    return jax.tree.map(
        lambda v, g, low, high: ((v <= low) & (g >= 0)) | ((v >= high) & (g <= 0)), x, grad, *box
    )


def pinned(x: Tree, box: Box | None) -> Tree:
    """x, with the entries that are at a bound tied to that bound: the same numbers, other derivatives."""
    if box is None:
        return x
    return jax.tree.map(
        lambda v, low, high: jnp.where(v <= low, low, jnp.where(v >= high, high, v)),
        x,
        *box,
    )


def tied(x: Tree, residual: Tree, box: Box | None) -> Tree:
    """The residual, with x - bound in place of the entries that are at a bound."""
    if box is None:
        return residual
    at = at_bound(trees.stop_gradient(x), trees.stop_gradient(box))
    return jax.tree.map(lambda on, v, bound, r: jnp.where(on, v - bound, r), at, x, pinned(x, box), residual)
