"""Bounds on the host: checked, in float64, and such that rounding to the dtypes of the leaves stays inside."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nestor.errors import BadArgument
from nestor.minimize._frameworks import Spec, numbers, shape_of
from nestor.minimize._layout import Layout
from nestor.settings import shown

Vector = np.ndarray


_INTERIOR = 1e-2  # of the size of a bound, or of the width of the box


class HostBox(NamedTuple):
    """Lower and upper bounds on the vector; an entry may be infinite."""

    lower: Vector
    upper: Vector
    given: bool = True

    @classmethod
    def free(cls, size: int) -> HostBox:
        """No bounds."""
        return cls(np.full(size, -np.inf), np.full(size, np.inf), False)

    def clip(self, x: Vector) -> Vector:
        """The nearest point of the box."""
        return np.minimum(np.maximum(x, self.lower), self.upper) if self.given else x

    def interior(self, x: Vector) -> Vector:
        """The nearest point a little away from every bound (Waechter and Biegler 2006, section 3.6)."""
        if not self.given:
            return x
        finite = lambda side: np.where(np.isfinite(side), side, 0.0)  # noqa: E731
        with np.errstate(over="ignore"):
            width = _INTERIOR * (self.upper - self.lower)
        low = self.lower + np.minimum(_INTERIOR * np.maximum(1.0, np.abs(finite(self.lower))), width)
        high = self.upper - np.minimum(_INTERIOR * np.maximum(1.0, np.abs(finite(self.upper))), width)
        return np.minimum(np.maximum(x, low), high)

    def projected(self, x: Vector, grad: Vector) -> Vector:
        """x - clip(x - grad), which vanishes at a solution."""
        return np.maximum(np.minimum(grad, x - self.lower), x - self.upper) if self.given else grad


def check_bounds(where: str, bounds: Any, layout: Layout) -> HostBox:
    """The bounds as vectors.

    Args:
        where: the public function.
        bounds: as `nestor.minimize` takes them.
        layout: of x0.

    Raises:
        BadArgument: of another structure or shape, NaN, or crossed.
    """
    if bounds is None:
        return HostBox.free(layout.size)
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        bounds = (layout.cut(bounds.lb), layout.cut(bounds.ub))
    elif is_list_of_pairs(bounds, [spec.shape for spec in layout.specs]):
        bounds = pairs_as_sides(where, bounds)
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise BadArgument(
            where,
            "bounds",
            got=shown(bounds) if not isinstance(bounds, (tuple, list)) else f"of length {len(bounds)}",
            want="a pair (lower, upper)",
            do="pass two trees like x0, two scalars, or None for no bound: bounds=(0.0, None)",
        )
    if bounds[0] is None and bounds[1] is None:
        return HostBox.free(layout.size)
    lower = _side(where, "lower", bounds[0], layout, -np.inf)
    upper = _side(where, "upper", bounds[1], layout, np.inf)
    _check_order(where, layout, lower, upper)
    return _inward(layout, lower, upper)


def is_list_of_pairs(bounds: Any, shapes: list[tuple[int, ...]]) -> bool:
    """Whether bounds are SciPy's: a list of a pair for each entry of one vector; a tuple of two is (lower, upper)."""
    return (
        (isinstance(bounds, list) or (isinstance(bounds, tuple) and len(bounds) != 2))
        and len(shapes) == 1
        and len(shapes[0]) == 1
        and len(bounds) == shapes[0][0]
        and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in bounds)
    )


def pairs_as_sides(where: str, bounds: Any) -> tuple[Vector, Vector]:
    """SciPy's pairs as two vectors.

    Raises:
        BadArgument: something in a pair is no number.
    """

    def number(entry: int, end: Any, free: float) -> float:
        if end is None:
            return free
        try:
            return float(numbers(end).reshape(()))
        except (TypeError, ValueError) as error:
            raise BadArgument(
                where,
                f"bounds[{entry}]",
                got=shown(bounds[entry]),
                want="a pair of numbers or None",
                do="write (0.0, None) for an unknown that is at least 0",
            ) from error

    lower = np.array([number(i, pair[0], -np.inf) for i, pair in enumerate(bounds)])
    return lower, np.array([number(i, pair[1], np.inf) for i, pair in enumerate(bounds)])


def _side(where: str, name: str, side: Any, layout: Layout, free: float) -> Vector:
    out = np.empty(layout.size)
    for bound, spec, place, path in zip(
        layout.spread(f"bounds ({name})", side), layout.specs, layout.slices, layout.paths, strict=True
    ):
        out[place] = _leaf(where, f"bounds ({name})", path, bound, spec, free)
    return out


def _leaf(where: str, argument: str, path: str, bound: Any, spec: Spec, free: float) -> Vector:
    if bound is None:
        return np.full(spec.size, free)
    try:
        array = numbers(bound)
        return np.broadcast_to(array, spec.shape).reshape(-1)
    except (TypeError, ValueError) as error:
        got = shown(bound) if shape_of(bound) == () else f"of shape {shape_of(bound)}"
        raise BadArgument(
            where,
            argument,
            got=f"{got} at {path}",
            want=f"a number, or an array that broadcasts to the shape {spec.shape} of x0 there",
            do="give one bound for each entry, or one for all",
        ) from error


def _check_order(where: str, layout: Layout, lower: Vector, upper: Vector) -> None:
    with np.errstate(invalid="ignore"):
        wrong = ~(lower <= upper) | (lower == np.inf) | (upper == -np.inf)
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    index = next(i for i, place in enumerate(layout.slices) if place.start <= first < place.stop)
    inside = np.unravel_index(first - layout.slices[index].start, layout.specs[index].shape or (1,))
    entry = [int(i) for i in inside] if layout.specs[index].shape else ""
    raise BadArgument(
        where,
        "bounds",
        got=f"lower {lower[first]!s}, upper {upper[first]!s} at {layout.paths[index]}{entry}",
        want="lower <= upper, both numbers (or infinite on their own side)",
        do="swap them, or pass None where there is no bound",
    )


def _inward(layout: Layout, lower: Vector, upper: Vector) -> HostBox:
    """The bounds, moved inwards to numbers that the leaves can hold; where there is none between, the nearest."""
    low, high = lower.copy(), upper.copy()
    for place, spec in zip(layout.slices, layout.specs, strict=True):
        if spec.dtype == np.float64:
            continue
        low[place] = _rounded(lower[place], spec.dtype, up=True)
        high[place] = _rounded(upper[place], spec.dtype, up=False)
        crossed = low[place] > high[place]
        nearest = np.clip(lower[place], -_largest(spec.dtype), _largest(spec.dtype)).astype(spec.dtype)
        low[place] = np.where(crossed, nearest.astype(np.float64), low[place])
        high[place] = np.where(crossed, nearest.astype(np.float64), high[place])
    return HostBox(low, high)


def _largest(dtype: Any) -> float:
    import jax.numpy as jnp

    return float(jnp.finfo(dtype).max)


def _rounded(bound: Vector, dtype: Any, up: bool) -> Vector:
    with np.errstate(over="ignore"):
        near = bound.astype(dtype)
    wrong = near.astype(np.float64) < bound if up else near.astype(np.float64) > bound
    towards = np.asarray(np.inf if up else -np.inf, dtype)
    return np.where(wrong, np.nextafter(near, towards), near).astype(np.float64)
