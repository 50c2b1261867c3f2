"""Constraints on the host: SciPy's dictionaries and objects, and `nestor.Constraint`, as values and Jacobians.

Each is  lower <= c(x) <= upper  for a function of the tree that x0 is; an equality has equal limits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.minimize import _differences, _frameworks
from nestor.minimize._box import HostBox
from nestor.minimize._layout import Layout, Node, _build, _look
from nestor.minimize._objective import Called
from nestor.settings import nearest, shown

Vector = np.ndarray


def are_given(constraints: Any) -> bool:
    """Whether there is a constraint: None and an empty list are none."""
    return constraints is not None and not (isinstance(constraints, (list, tuple)) and not constraints)


def of_leaves(source: Any, layout: Layout) -> Any:
    """The same constraint as a function of the list of leaves that x0 has."""
    whole = lambda fun: lambda leaves, *args: fun(layout.tree(leaves), *args)  # noqa: E731
    if isinstance(source, dict):
        return {**source, "fun": whole(source["fun"])} if callable(source.get("fun")) else source
    if callable(getattr(source, "fun", None)):
        changed = copy.copy(source)
        object.__setattr__(changed, "fun", whole(source.fun))
        return changed
    return source


class HostConstraint:
    """One constraint.

    Attributes:
        lower, upper: the limits, as long as its value.
        box: of the unknowns, for finite differences.
    """

    def __init__(self, where: str, layout: Layout, index: int, source: Any, x0: Vector):
        self.where, self.layout, self.name = where, layout, f"constraints[{index}]"
        fun, self.jac, self.args, limits = _read(where, self.name, source, layout)
        if not callable(fun):
            raise BadArgument(
                where,
                f"{self.name}.fun",
                got=shown(fun),
                want="a function of one tree",
                do="pass the function itself, not its value: nestor.Constraint(lambda x: ..., equal=0.0)",
            )
        self.box = HostBox.free(layout.size)
        self.call = Called(fun, layout, self.args)
        leaves: list[Any] = []
        value = layout.framework.value(self.call, layout.leaves(x0))
        value = _as_arrays(where, self.name, value)
        self.followed = layout.framework.differentiates
        self.root: Node = _look(value, self.name, leaves, [])
        self.sizes = [int(np.prod(_frameworks.shape_of(leaf), dtype=int)) for leaf in leaves]
        self.shapes = [_frameworks.shape_of(leaf) for leaf in leaves]
        self.parts = [_Part(self.call, i, where, self.name) for i in range(len(leaves))]
        self.lower, self.upper = (self._limit(limit, value) for limit in limits)
        with np.errstate(invalid="ignore"):
            if not (self.lower <= self.upper).all():
                raise BadArgument(
                    where,
                    self.name,
                    got=f"lower limit {self.lower.tolist()}, upper limit {self.upper.tolist()}",
                    want="lower <= upper, all numbers",
                    do="swap the limits, or pass None where there is none",
                )
        if np.isinf(self.lower[self.equal]).any():
            raise BadArgument(
                where,
                self.name,
                got="an equality with an infinite number",
                want="finite where both limits are the same",
                do="use lower= and upper= for entries that may be anything",
            )

    @property
    def equal(self) -> np.ndarray:
        """Which entries are equalities."""
        return self.lower == self.upper

    @property
    def scale(self) -> Vector:
        """What a violation is measured against: the size of the limit, at least one."""
        size = lambda limit: np.where(np.isfinite(limit), np.abs(limit), 0.0)  # noqa: E731
        return np.maximum(1.0, np.maximum(size(self.lower), size(self.upper)))

    def values(self, x: Vector) -> Vector:
        """The value of the function, a vector."""
        result = self.layout.framework.value(self.call, self.layout.leaves(x))
        leaves: list[Any] = []
        _look(_as_arrays(self.where, self.name, result), self.name, leaves, [])
        if [_frameworks.shape_of(leaf) for leaf in leaves] != self.shapes:
            raise BadArgument(
                self.where,
                self.name,
                got=f"a function that returned shapes {self.shapes} at the start, and others later",
                want="one to values of the same shapes everywhere",
                do="return one number for every condition, whether it is met or not",
            )
        try:
            return np.concatenate([_frameworks.numbers(leaf).reshape(-1) for leaf in leaves])
        except (TypeError, ValueError) as error:
            raise BadArgument(
                self.where,
                self.name,
                got=f"a function that returns what is not made of real numbers ({error})",
                want="one that returns arrays of real numbers",
                do="return the value that is limited",
            ) from error

    def jacobian(self, x: Vector) -> np.ndarray:
        """Its derivative, (entries of the value, entries of x)."""
        layout = self.layout
        if callable(self.jac):
            return self._blocks(self.jac(layout.tree(layout.leaves(x)), *self.args))
        if self.followed:
            try:
                rows = [layout.framework.jacobian(part, layout.leaves(x)) for part in self.parts]
                return np.concatenate([np.concatenate(row, axis=1) for row in rows])
            except _frameworks.NotFollowed:  # of constants, or of what NumPy computed
                self.followed = False
        rel = np.concatenate([np.full(spec.size, spec.eps**0.5) for spec in layout.specs])
        return _differences.jacobian(self.values, x, self.values(x), self.box, rel)

    def tree(self, vector: Vector) -> Any:
        """A vector as long as the value, as a tree like the value, of NumPy arrays."""
        ends = np.cumsum(self.sizes)
        leaves = [
            vector[end - size : end].reshape(shape)
            for end, size, shape in zip(ends, self.sizes, self.shapes, strict=True)
        ]
        return _build(self.root, leaves)

    def _limit(self, limit: Any, value: Any) -> Vector:
        count = sum(self.sizes)
        try:
            if _frameworks.is_leaf(limit) or isinstance(limit, (int, list)):
                array = _frameworks.numbers(limit)
                if array.ndim == 0:
                    return np.full(count, float(array))
                if len(self.sizes) == 1:
                    return np.array(
                        np.broadcast_to(array.reshape(-1) if array.size == count else array, count)
                    )
            leaves: list[Any] = []
            _look(limit, self.name, leaves, [])
            pairs = zip(leaves, self.shapes, strict=True)
            flat = [np.broadcast_to(_frameworks.numbers(leaf), shape).reshape(-1) for leaf, shape in pairs]
            return np.concatenate(flat)
        except (ValueError, TypeError) as error:
            raise BadArgument(
                self.where,
                self.name,
                got=f"a limit that does not fit the value of its function ({error})",
                want="a number, or a tree like that value",
                do="give one limit for each entry, or one for all",
            ) from error

    def _blocks(self, jac: Any) -> np.ndarray:
        count = sum(self.sizes)
        if _frameworks.is_leaf(jac) or isinstance(jac, (list, tuple)):
            array = _frameworks.numbers(jac)
            if array.size == count * self.layout.size:
                return array.reshape(count, self.layout.size)
        blocks = [_frameworks.numbers(block) for block in self.layout.parts(f"{self.name} jac", jac)]
        pairs = list(zip(blocks, self.layout.specs, strict=True))
        if any(block.size != count * spec.size for block, spec in pairs):
            raise BadArgument(
                self.where,
                f"{self.name} jac",
                got=f"of shapes {[block.shape for block in blocks]}",
                want=f"the derivative of {count} numbers in each entry of x0: {count} x {self.layout.size} in all",
                do="return a row for every entry of the value, or leave jac out",
            )
        return np.concatenate([block.reshape(count, spec.size) for block, spec in pairs], axis=1)


class _Part:
    """One array of a constraint's value, as a function of the leaves."""

    def __init__(self, call: Called, index: int, where: str, name: str):
        self.call, self.index, self.where, self.name = call, index, where, name

    def __call__(self, leaves: list[Any]) -> Any:
        found: list[Any] = []
        _look(_as_arrays(self.where, self.name, self.call(leaves)), "", found, [])
        return found[self.index]


class Constraints:
    """All of them, one after the other."""

    def __init__(self, where: str, layout: Layout, given: Any, x0: Vector, box: HostBox):
        several = isinstance(given, (list, tuple))
        self.each = [
            HostConstraint(where, layout, i, source, x0)
            for i, source in enumerate(given if several else [given])
        ]
        for one in self.each:
            one.box = box
        join = lambda parts: np.concatenate(parts) if parts else np.zeros(0)  # noqa: E731
        self.lower, self.upper = join([c.lower for c in self.each]), join([c.upper for c in self.each])
        self.scale, self.equal = join([c.scale for c in self.each]), self.lower == self.upper

    def values(self, x: Vector) -> Vector:
        """All values."""
        return np.concatenate([c.values(x) for c in self.each])

    def jacobian(self, x: Vector) -> np.ndarray:
        """All derivatives."""
        return np.concatenate([c.jacobian(x) for c in self.each])

    def violation(self, values: Vector) -> float:
        """The largest violation, in units of the limits."""
        over = np.maximum(np.maximum(self.lower - values, values - self.upper), 0.0) / self.scale
        return float(np.max(over, initial=0.0)) if not np.isnan(values).any() else np.inf

    def trees(self, vector: Vector) -> tuple[Any, ...]:
        """A vector as long as all values, cut up."""
        ends = np.cumsum([c.lower.size for c in self.each])
        return tuple(c.tree(vector[end - c.lower.size : end]) for c, end in zip(self.each, ends, strict=True))


def _as_arrays(where: str, name: str, value: Any) -> Any:
    """The value of a constraint's function, with plain numbers and lists of them made into arrays."""
    if isinstance(value, (int, np.bool_)):
        return float(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value):
        return np.asarray(value, float)
    if value is None:
        raise BadArgument(
            where,
            name,
            got="a function that returns None",
            want="one that returns arrays",
            do="return the value",
        )
    if isinstance(value, str):
        raise BadArgument(
            where,
            name,
            got=f"a function that returns {shown(value)}",
            want="one that returns arrays",
            do="return numbers",
        )
    return value


def _read(
    where: str, name: str, source: Any, layout: Layout
) -> tuple[Callable[..., Any], Any, tuple[Any, ...], tuple[Any, Any]]:
    """Function, Jacobian, further arguments and limits of what the user passed."""
    if isinstance(source, dict):
        return _read_dictionary(where, name, source)
    if hasattr(source, "A") and hasattr(source, "lb"):
        matrix = (
            source.A.toarray() if hasattr(source.A, "toarray") else np.atleast_2d(np.asarray(source.A, float))
        )
        if matrix.shape[1] != layout.size:
            raise BadArgument(
                where,
                f"{name}.A",
                got=f"of shape {matrix.shape}",
                want=f"a column for every entry of x0, {layout.size} of them",
                do="order the columns as the leaves of x0",
            )
        _refuse_promises(where, name, source)
        flat = lambda tree: matrix @ layout.vector(layout.matched(name, tree))  # noqa: E731
        return _Outside(flat, matrix, layout).fun, lambda _: matrix, (), (source.lb, source.ub)
    if hasattr(source, "fun") and hasattr(source, "lb"):
        _refuse_promises(where, name, source)
        return source.fun, source.jac, (), (source.lb, source.ub)
    if hasattr(source, "fun") and hasattr(source, "equal"):
        limits = [source.lower, source.upper]
        if (source.equal is None) == all(limit is None for limit in limits):
            raise BadArgument(
                where,
                name,
                got="without a limit" if source.equal is None else "with equal and a limit",
                want="either equal=, or lower= or upper= or both",
                do="write nestor.Constraint(fun, lower=0.0)",
            )
        if source.equal is not None:
            return source.fun, None, (), (source.equal, source.equal)
        low, high = (limit if limit is not None else free for limit, free in zip(limits, (-np.inf, np.inf)))  # noqa: B905
        return source.fun, None, (), (low, high)
    raise BadArgument(
        where,
        name,
        got=shown(source),
        want="a nestor.Constraint, a dictionary of SciPy's, or a constraint object of SciPy's",
        do='write {"type": "ineq", "fun": lambda x: ...}, for a value that has to be >= 0',
    )


def _refuse_promises(where: str, name: str, source: Any) -> None:
    """What a constraint object of SciPy's may say that is not honoured here."""
    given = {
        "keep_feasible": bool(np.any(getattr(source, "keep_feasible", False))),
        "hess": callable(getattr(source, "hess", None)),
        "finite_diff_rel_step": getattr(source, "finite_diff_rel_step", None) is not None,
        "finite_diff_jac_sparsity": getattr(source, "finite_diff_jac_sparsity", None) is not None,
    }
    for field in (field for field, is_given in given.items() if is_given):
        raise BadArgument(
            where,
            f"{name}.{field}",
            got="given, which is not honoured here",
            want="left out",
            do="leave it out; what the solver may never leave, write as bounds",
        )


def _read_dictionary(where: str, name: str, source: dict[str, Any]) -> Any:
    kind, fun = source.get("type"), source.get("fun")
    kind = kind.lower() if isinstance(kind, str) else kind
    if kind not in ("eq", "ineq") or not callable(fun):
        near = nearest(kind, ("eq", "ineq"))
        raise BadArgument(
            where,
            name,
            got=f"a dictionary with type {kind!r} and fun {shown(fun)}",
            want='one with type "eq" or "ineq" and a function fun',
            do=f'write "type": "{near or "ineq"}", for fun(x) {"== 0" if near == "eq" else ">= 0"}',
        )
    odd = set(source) - {"type", "fun", "jac", "args"}
    if odd:
        raise BadArgument(
            where,
            name,
            got=f"with {sorted(odd)}",
            want="made of type, fun, jac and args",
            do="leave them out",
        )
    args, jac = source.get("args", ()), source.get("jac")
    if not (callable(jac) or jac in (None, False, "2-point", "3-point", "cs")):
        raise BadArgument(
            where,
            f"{name}.jac",
            got=shown(jac),
            want="a function of the tree",
            do="pass one, or leave it out",
        )
    return (
        fun,
        jac,
        tuple(args) if isinstance(args, (list, tuple)) else (args,),
        (0.0, 0.0 if kind == "eq" else np.inf),
    )


class _Outside:
    """A function of NumPy's, of a tree of another framework's arrays: its derivative is known."""

    def __init__(self, flat: Callable[[Any], Any], matrix: Any, layout: Layout):
        self.flat, self.matrix, self.layout = flat, matrix, layout

    def fun(self, tree: Any) -> Any:
        if self.layout.framework.name == "JAX":  # traced
            import jax.numpy as jnp

            leaves = self.layout.matched("constraints", tree)
            flat = jnp.concatenate([leaf.reshape(-1) for leaf in leaves])
            return jnp.asarray(self.matrix, flat.dtype) @ flat
        return self.flat(tree)
