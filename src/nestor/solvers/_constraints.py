"""Constraints: what a user may pass, and one traced function of the objective with all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.programs import Program, shape_text, structure_text, trace_function
from nestor.settings import nearest, shown

Tree = Any


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A constraint on a function of the unknowns: ``fun(x) == equal``, or ``lower <= fun(x) <= upper``.

    Args:
        fun: from a tree like `x0` to a tree of real floating-point arrays; it may close over anything, and the
            solution is differentiable in all of it.
        equal: a scalar, or a tree like the value of `fun` (or a prefix of it): what the value has to be.
        lower, upper: likewise, what it may not be below or above; None for no limit. An entry may be infinite;
            entries where both are the same number are equalities. The solution is differentiable in the limits.

    Raises:
        BadArgument: (by the function it is passed to) neither `equal` nor a limit; both; limits that are crossed
            or NaN; a function that cannot be called or traced, or does not return real floating-point arrays.

    Cost: its function is evaluated with the objective; m entries of its value make a Jacobian of m rows for `SQP`, and
    one product with the transposed Jacobian a step for `AugmentedLagrangian`.

    >>> import jax.numpy as jnp, nestor
    >>> on_circle = nestor.Constraint(lambda x: jnp.sum(x**2), equal=2.0)
    >>> far = lambda x: jnp.sum((x - 3.0) ** 2)
    >>> nestor.minimize(far, jnp.array([1.0, 0.0]), constraints=on_circle).x.round(2).tolist()
    [1.0, 1.0]
    """

    fun: Callable[[Tree], Tree]
    equal: Any = None
    lower: Any = None
    upper: Any = None


class Piece(NamedTuple):
    """Some rows of h or g: entries of one leaf of the value of one constraint, against one limit.

    Attributes:
        constraint, leaf: which one.
        side: "equal" (a row of h is value - limit), "lower" (of g, value - limit), "upper" (of g, limit - value).
        entries: which entries of the raveled leaf; None for all of them.
        limit: a vector, one entry a row.
    """

    constraint: int
    leaf: int
    side: str
    entries: np.ndarray | None
    limit: jax.Array


class Rows(NamedTuple):
    """How the entries of all constraints make the vectors h and g, in order.

    Attributes:
        pieces: the rows.
        shapes: for every constraint, the shapes and dtypes of its value.
        dtype: of h and g, that of the unknowns.
    """

    pieces: list[Piece]
    shapes: list[Any]
    dtype: Any

    def count(self, *sides: str) -> int:
        """How many rows there are of those sides."""
        return sum(piece.limit.size for piece in self.pieces if piece.side in sides)

    def vectors(self, values: Sequence[Tree]) -> tuple[jax.Array, jax.Array]:
        """h and g from the values of all constraints."""
        equal: list[jax.Array] = []
        inequal: list[jax.Array] = []
        for piece in self.pieces:
            flat = jax.tree.leaves(values[piece.constraint])[piece.leaf].reshape(-1).astype(self.dtype)
            part = flat if piece.entries is None else flat[piece.entries]
            if piece.side == "equal":
                equal.append(part - piece.limit)
                continue
            finite = jnp.isfinite(jax.lax.stop_gradient(piece.limit))  # a traced limit may be infinite
            limit = jnp.where(finite, piece.limit, 0.0)
            slack = part - limit if piece.side == "lower" else limit - part
            inequal.append(jnp.where(finite, slack, 1.0))
        return _joined(equal, self.dtype), _joined(inequal, self.dtype)

    def multipliers(self, equal: jax.Array, inequal: jax.Array) -> tuple[Tree, ...]:
        """For every constraint a tree like its value, positive at an active upper limit (SciPy's signs)."""
        flats = [
            [jnp.zeros((leaf.size,), self.dtype) for leaf in jax.tree.leaves(shape)] for shape in self.shapes
        ]
        at = {"equal": 0, "inequal": 0}
        for piece in self.pieces:
            kind = "equal" if piece.side == "equal" else "inequal"
            rows = (equal if kind == "equal" else inequal)[at[kind] : at[kind] + piece.limit.size]
            at[kind] += piece.limit.size
            signed = -rows if piece.side == "lower" else rows
            flat = flats[piece.constraint]
            whole = piece.entries is None
            old = flat[piece.leaf]
            flat[piece.leaf] = old + signed if whole else old.at[piece.entries].add(signed)
        return tuple(
            jax.tree.unflatten(
                jax.tree.structure(shape),
                [
                    flat.reshape(leaf.shape).astype(leaf.dtype)
                    for flat, leaf in zip(leaves, jax.tree.leaves(shape), strict=True)
                ],
            )
            for leaves, shape in zip(flats, self.shapes, strict=True)
        )


def _joined(parts: list[jax.Array], dtype: Any) -> jax.Array:
    return jnp.concatenate(parts) if parts else jnp.zeros((0,), dtype)


def trace_constrained(
    where: str, program: Program, captured: list[Any], constraints: Any, x: Tree
) -> tuple[Program, list[Any], Rows]:
    """One program x -> (f, h, g) of the traced objective and all constraints, what it captured, and its rows."""
    listed = check_constraints(where, constraints, x)
    traced, shapes, pieces = [], [], []
    for i, (place, constraint) in enumerate(listed):
        own, held, shape = trace_function(where, f"{place}.fun", constraint.fun, x)
        _check_value(where, place, shape)
        pieces += _pieces(where, place, i, constraint, shape, trees.float_dtype(x))
        traced.append((own, held))
        shapes.append(shape)
    rows = Rows(pieces, shapes, trees.float_dtype(x))

    def together(x: Tree) -> tuple[jax.Array, jax.Array, jax.Array]:
        return program(captured, x), *rows.vectors([own(held, x) for own, held in traced])

    joint, everything, _ = trace_function(where, "fun", together, x)
    return joint, everything, rows


# --- what may be passed ------------------------------------------------------------------------------


def check_constraints(where: str, constraints: Any, x: Tree) -> list[tuple[str, Constraint]]:
    """The constraints as a list of `Constraint`, with the names of their places; SciPy's kinds are translated.

    Raises:
        BadArgument: something is no constraint.
    """
    one = not isinstance(constraints, (list, tuple))
    listed = [constraints] if one else list(constraints)
    named = [("constraints" if one else f"constraints[{i}]", c) for i, c in enumerate(listed)]
    return [(place, _one(where, place, c, x)) for place, c in named]


def _one(where: str, place: str, given: Any, x: Tree) -> Constraint:
    if isinstance(given, Constraint):
        constraint = given
    elif isinstance(given, Mapping):
        constraint = _from_dictionary(where, place, given)
    elif all(hasattr(given, name) for name in ("A", "lb", "ub")):
        constraint = Constraint(_linear(where, place, given.A, x), lower=given.lb, upper=given.ub)
    elif all(hasattr(given, name) for name in ("fun", "lb", "ub")):
        constraint = Constraint(given.fun, lower=given.lb, upper=given.ub)
    else:
        do = "write nestor.Constraint(fun, equal=...) or nestor.Constraint(fun, lower=..., upper=...)"
        got = f"the function {getattr(given, '__name__', given)}" if callable(given) else shown(given)
        raise BadArgument(where, place, got=got, want="a nestor.Constraint, or a sequence of them", do=do)
    if np.any(getattr(given, "keep_feasible", False)):
        raise BadArgument(
            where,
            place,
            got="keep_feasible=True",
            want="constraints that may be broken on the way",
            do="pass bounds=, which are kept at every evaluation, or leave keep_feasible out",
        )
    _check_form(where, place, constraint)
    return constraint


def _check_form(where: str, place: str, constraint: Constraint) -> None:
    if not callable(constraint.fun):
        raise BadArgument(
            where,
            f"{place}.fun",
            got=shown(constraint.fun),
            want="a function of one tree",
            do="pass the function itself, not its value: nestor.Constraint(lambda x: ..., equal=0.0)",
        )
    limits = constraint.lower is not None or constraint.upper is not None
    if limits == (constraint.equal is not None):
        raise BadArgument(
            where,
            place,
            got="equal= and a limit" if limits else "no limit at all",
            want="either equal=, or lower= or upper= or both",
            do="write nestor.Constraint(fun, equal=0.0) or nestor.Constraint(fun, lower=0.0)",
        )


_KEYS = ("type", "fun", "jac", "args")


def _from_dictionary(where: str, place: str, given: Mapping[str, Any]) -> Constraint:
    """SciPy's {"type": "eq" or "ineq", "fun": ..., "args": ...}; a "jac" is not needed, and not called."""
    unknown = [key for key in given if key not in _KEYS]
    kind = given.get("type")
    kind = kind.lower() if isinstance(kind, str) else kind
    if unknown or "fun" not in given or kind not in ("eq", "ineq"):
        near = nearest(unknown[0], _KEYS) if unknown else None
        do = 'write {"type": "eq", "fun": f} for f(x) = 0, {"type": "ineq", "fun": f} for f(x) >= 0'
        raise BadArgument(
            where,
            place,
            got=f"the key {unknown[0]!r}" if unknown else shown(dict(given)),
            want="a dictionary of type ('eq' or 'ineq') and fun",
            do=f"write {near!r}; {do}" if near else do,
        )
    fun, extra = given["fun"], given.get("args", ())
    extra = tuple(extra) if isinstance(extra, (list, tuple)) else (extra,)
    called = (lambda x: fun(x, *extra)) if extra else fun
    return Constraint(called, equal=0.0) if kind == "eq" else Constraint(called, lower=0.0)


def _linear(where: str, place: str, matrix: Any, x: Tree) -> Callable[[Tree], jax.Array]:
    """x -> A x, for unknowns that are one vector."""
    dense = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    array = jnp.atleast_2d(jnp.asarray(dense, trees.float_dtype(x)))
    leaves = jax.tree.leaves(x)
    if len(leaves) != 1 or leaves[0].ndim != 1 or array.shape[1] != leaves[0].size:
        raise BadArgument(
            where,
            f"{place}.A",
            got=f"of shape {array.shape}, for x0 {shape_text(x)}",
            want="a column for every entry of x0, a vector",
            do="write nestor.Constraint(lambda x: ..., lower=..., upper=...) for other trees",
        )
    return lambda v: array @ jax.tree.leaves(v)[0]


def _check_value(where: str, place: str, shape: Any) -> None:
    leaves = jax.tree.leaves(shape)
    if leaves and all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        return
    raise BadArgument(
        where,
        f"{place}.fun",
        got=f"a function that returns {shape_text(shape)}",
        want="a function that returns a tree of real floating-point arrays",
        do="return what the limits are about, fun(x), not a comparison; .astype(float) makes integers floats",
    )


# --- limits ------------------------------------------------------------------------------------------


def _pieces(where: str, place: str, i: int, c: Constraint, shape: Any, dtype: Any) -> list[Piece]:
    """The rows of one constraint; entries without a limit have none."""
    found: list[Piece] = []
    if c.equal is not None:
        for j, limit in enumerate(_limits(where, f"{place}.equal", c.equal, shape, dtype)):
            if limit is None or (_known(limit) and not np.isfinite(np.asarray(limit)).all()):
                got = "None in it" if limit is None else "NaN or infinite"
                do = "use lower= and upper= for entries that may be anything"
                raise BadArgument(where, f"{place}.equal", got=got, want="finite numbers", do=do)
            found.append(Piece(i, j, "equal", None, limit))
        return found
    lowers = _limits(where, f"{place}.lower", c.lower, shape, dtype)
    uppers = _limits(where, f"{place}.upper", c.upper, shape, dtype)
    for j, (low, high) in enumerate(zip(lowers, uppers, strict=True)):
        _check_order(where, place, low, high)
        same = np.zeros(0, bool)
        if low is not None and high is not None and _known(low) and _known(high):
            same = np.asarray(low) == np.asarray(high)
            found += _rows(i, j, "equal", low, same)
        for side, limit in (("lower", low), ("upper", high)):
            if limit is not None:
                finite = np.isfinite(np.asarray(limit)) if _known(limit) else np.ones(limit.size, bool)
                found += _rows(i, j, side, limit, finite & ~same if same.size else finite)
    return found


def _rows(i: int, j: int, side: str, limit: jax.Array, mask: np.ndarray) -> list[Piece]:
    if not mask.any():
        return []
    if mask.all():
        return [Piece(i, j, side, None, limit)]
    entries = np.flatnonzero(mask)
    return [Piece(i, j, side, entries, limit[entries])]


def _known(array: Any) -> bool:
    return not isinstance(array, jax.core.Tracer)


def _limits(where: str, place: str, limit: Any, shape: Any, dtype: Any) -> list[jax.Array | None]:
    """A vector, or None, for each leaf of the value."""
    leaves = jax.tree.leaves(shape)
    if limit is None:
        return [None] * len(leaves)
    is_none = lambda leaf: leaf is None  # noqa: E731
    try:
        spread = jax.tree.leaves(jax.tree.broadcast(limit, shape, is_leaf=is_none), is_leaf=is_none)
    except ValueError as error:
        raise BadArgument(
            where,
            place,
            got=f"of the structure {structure_text(limit)}",
            want=f"a number, or a tree like the value of fun, {structure_text(shape)}",
            do="give every leaf of the value its limit",
        ) from error
    return [_limit(where, place, one, leaf, dtype) for one, leaf in zip(spread, leaves, strict=True)]


def _limit(where: str, place: str, limit: Any, leaf: Any, dtype: Any) -> jax.Array | None:
    if limit is None:
        return None
    try:
        array = jnp.asarray(limit)
        if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
            raise TypeError(f"its dtype is {array.dtype}")
        return jnp.broadcast_to(array, leaf.shape).astype(dtype).reshape(-1)
    except (TypeError, ValueError) as error:
        raise BadArgument(
            where,
            place,
            got=shown(limit) if np.ndim(limit) == 0 else f"of shape {np.shape(limit)}",
            want=f"a number, or an array that broadcasts to the shape {leaf.shape} of the value there",
            do="give one limit for each entry, or one for all",
        ) from error


def _check_order(where: str, place: str, low: Any, high: Any) -> None:
    """Limits are numbers, and the lower one is not above the upper one; traced limits are not looked at."""
    lows = np.asarray(low) if low is not None and _known(low) else np.full(1, -np.inf)
    highs = np.asarray(high) if high is not None and _known(high) else np.full(1, np.inf)
    wrong = np.isnan(lows) | np.isnan(highs) | (lows > highs) | (lows == np.inf) | (highs == -np.inf)
    if wrong.any():
        first = int(np.argmax(wrong))
        lows, highs = np.broadcast_to(lows, wrong.shape), np.broadcast_to(highs, wrong.shape)
        raise BadArgument(
            where,
            place,
            got=f"lower {lows[first]!s}, upper {highs[first]!s} (entry {first})",
            want="lower <= upper, both numbers (or infinite on their own side)",
            do="swap them, or leave out what is no limit",
        )
