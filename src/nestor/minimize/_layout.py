"""Trees of any framework's arrays, and the float64 vector that a host solver moves.

A tree is made of dictionaries (in their own order), lists, tuples, named tuples, dataclasses and JAX's registered
nodes; it comes back with the same structure and types.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from nestor.errors import BadArgument
from nestor.minimize import _frameworks
from nestor.minimize._frameworks import Framework, Spec

Tree = Any


class Node(NamedTuple):
    """One place of a tree: a leaf, or what stands there and the places below it."""

    leaf: int | None  # its number, or None
    keys: tuple[Any, ...] = ()
    children: tuple[Node, ...] = ()
    get: Callable[[Any, Any], Any] | None = None  # (a tree like this one, key) -> child
    make: Callable[[list[Any]], Any] | None = None
    kind: str = "a leaf"


class Layout:
    """Where every leaf of a tree stands in a vector of float64.

    Attributes:
        framework: whose arrays the leaves are.
        specs: shape and dtype of every leaf, in the order of the vector.
        paths: where it stands in the tree, for messages.
        size: entries of the vector.
        eps: the precision of the coarsest leaf.
    """

    def __init__(self, where: str, name: str, tree: Tree):
        self.where, leaves, self.paths = where, [], []
        self.root = _look(tree, name, leaves, self.paths)
        if not leaves:
            raise BadArgument(
                where,
                name,
                got=f"a {type(tree).__name__} without a single array",
                want="a tree with at least one array",
                do=f"pass the start as {name}, an array or a dictionary, list, dataclass ... of arrays",
            )
        self.framework: Framework = _frameworks.framework_of(where, leaves, self.paths)
        self.specs: list[Spec] = self.framework.specs(where, leaves, self.paths)
        ends = np.cumsum([spec.size for spec in self.specs])
        self.slices = [
            slice(int(end) - spec.size, int(end)) for end, spec in zip(ends, self.specs, strict=True)
        ]
        self.size = int(ends[-1])
        if self.size == 0:
            raise BadArgument(
                where,
                name,
                got="a tree without a single entry",
                want="at least one number",
                do="check the shapes of what it was made from",
            )
        self.eps = max(spec.eps for spec in self.specs)

    def flat(self, argument: str, tree: Tree) -> np.ndarray:
        """The entries of a tree of the user's that must be like x0, float64."""
        leaves = self.matched(argument, tree)
        try:
            return self.vector(leaves)
        except (TypeError, ValueError) as error:
            raise BadArgument(
                self.where,
                argument,
                got=f"not made of real numbers ({error})",
                want="a tree of arrays like x0",
                do="return arrays of real numbers",
            ) from error

    def cut(self, side: Any) -> Any:
        """One side of SciPy's `Bounds`: a number for all, or one vector, as a tree like x0."""
        array = np.asarray(side)
        if array.size == 1:
            return array.item()
        if array.shape != (self.size,):
            return side
        return self.tree(
            [array[place].reshape(spec.shape) for place, spec in zip(self.slices, self.specs, strict=True)]
        )

    def vector(self, leaves: list[Any]) -> np.ndarray:
        """The entries of all leaves, float64."""
        out = np.empty(self.size)
        for place, leaf in zip(self.slices, leaves, strict=True):
            out[place] = _frameworks.numbers(leaf).reshape(-1)
        return out

    def leaves(self, x: np.ndarray) -> list[Any]:
        """The arrays that the user's function is given."""
        return [
            self.framework.make(x[place], spec) for place, spec in zip(self.slices, self.specs, strict=True)
        ]

    def answer(self, x: np.ndarray) -> Tree:
        """A tree as the user gave it: structure, types, dtypes, devices."""
        return self.tree(
            [self.framework.give(x[place], spec) for place, spec in zip(self.slices, self.specs, strict=True)]
        )

    def rounded(self, x: np.ndarray) -> np.ndarray:
        """What becomes of x in the dtypes of the leaves."""
        out = x.copy()
        for place, spec in zip(self.slices, self.specs, strict=True):
            if spec.dtype != np.float64:
                out[place] = x[place].astype(spec.dtype)
        return out

    def tree(self, leaves: list[Any]) -> Tree:
        """The tree with these leaves."""
        return _build(self.root, leaves)

    def matched(self, argument: str, tree: Tree) -> list[Any]:
        """The leaves of a tree that must be like x0, in the order of the vector."""
        found: list[Any] = [None] * len(self.specs)
        for index, leaf in self._pairs(argument, self.root, tree, argument):
            shape, want = _frameworks.shape_of(leaf), self.specs[index].shape
            if leaf is None:
                raise self._mismatch(argument, self.paths[index], "None", "an array")
            if shape != want and not (np.prod(shape, dtype=int) == 1 == np.prod(want, dtype=int)):
                raise BadArgument(
                    self.where,
                    argument,
                    got=f"of shape {shape} at {self.paths[index]}",
                    want=f"of the shape of x0 there, {want}",
                    do="return one entry for each unknown, in the structure of x0",
                )
            found[index] = leaf
        return found

    def parts(self, argument: str, tree: Tree) -> list[Any]:
        """What stands in a tree where the leaves of x0 stand, whatever it is."""
        found: list[Any] = [None] * len(self.specs)
        for index, part in self._pairs(argument, self.root, tree, argument):
            found[index] = part
        return found

    def spread(self, argument: str, tree: Tree) -> list[Any]:
        """For every leaf what a tree like x0, or a prefix of one, says of it; None stands for itself."""
        found: list[Any] = [None] * len(self.specs)
        for index, leaf in self._pairs(argument, self.root, tree, argument, prefix=True):
            found[index] = leaf
        return found

    def _pairs(
        self, argument: str, node: Node, tree: Tree, path: str, prefix: bool = False
    ) -> Iterator[tuple[int, Any]]:
        if node.leaf is not None:
            if prefix and isinstance(tree, (dict, list, tuple)) and not _numeric(tree):
                raise self._mismatch(argument, path, tree, "a number, an array or None")
            yield node.leaf, tree
            return
        if prefix and (tree is None or _frameworks.is_leaf(tree) or isinstance(tree, int)):
            for index in _numbered(node):
                yield index, tree
            return
        if isinstance(tree, Mapping) and (missing := set(node.keys) ^ set(tree)):
            raise self._mismatch(argument, path, f"with the keys {list(tree)}", f"{list(node.keys)}", missing)
        assert node.get is not None
        for key, child in zip(node.keys, node.children, strict=True):
            try:
                below = node.get(tree, key)
            except (KeyError, IndexError, AttributeError, TypeError, ValueError):
                raise self._mismatch(argument, path, tree, f"like x0 there, {node.kind}") from None
            yield from self._pairs(argument, child, below, f"{path}{_step(key)}", prefix)
        counted = isinstance(tree, (list, tuple)) or _frameworks.kind(tree) != ""
        if counted and len(tree) != len(node.keys):
            raise self._mismatch(argument, path, f"of length {len(tree)}", f"of length {len(node.keys)}")

    def _mismatch(self, argument: str, path: str, got: Any, want: str, keys: Any = ()) -> BadArgument:
        got = got if isinstance(got, str) else f"a {type(got).__name__}"
        odd = f" (look at {', '.join(map(repr, sorted(keys, key=str)))})" if keys else ""
        return BadArgument(
            self.where, argument, got=f"{got} at {path}", want=want, do=f"give it the structure of x0{odd}"
        )


def _numeric(tree: Any) -> bool:
    """Whether a list is just an array written as a list."""
    try:
        return np.asarray(tree).dtype.kind in "fiu"
    except (ValueError, TypeError):
        return False


def _numbered(node: Node) -> Iterator[int]:
    if node.leaf is not None:
        yield node.leaf
    for child in node.children:
        yield from _numbered(child)


def _build(node: Node, leaves: list[Any]) -> Tree:
    if node.leaf is not None:
        return leaves[node.leaf]
    assert node.make is not None
    return node.make([_build(child, leaves) for child in node.children])


def _step(key: Any) -> str:
    return f"[{key!r}]" if isinstance(key, (int, str)) else f"{key}"


def _look(tree: Tree, path: str, leaves: list[Any], paths: list[str]) -> Node:
    inner = None if _frameworks.is_leaf(tree) else _inside(tree)
    if inner is None:
        leaves.append(tree)
        paths.append(path)
        return Node(len(leaves) - 1)
    kind, keys, parts, get, make = inner
    dots = kind == "a dataclass"
    steps = [f".{key}" if dots else _step(key) for key in keys]
    children = tuple(_look(part, path + step, leaves, paths) for part, step in zip(parts, steps, strict=True))
    return Node(None, tuple(keys), children, get, make, kind)


def _inside(tree: Tree) -> tuple[str, list[Any], list[Any], Any, Any] | None:
    """What kind of node this is, its keys and children, how a child is got and the node made; None: a leaf."""
    get = lambda other, key: other[key]  # noqa: E731
    if tree is None:
        return "None", [], [], get, lambda _: None
    if isinstance(tree, dict):
        keys = list(tree)
        return "a dictionary", keys, list(tree.values()), get, lambda parts: _dictionary(tree, keys, parts)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return "a named tuple", [*range(len(tree))], [*tree], get, lambda parts: type(tree)(*parts)
    if isinstance(tree, (list, tuple)):
        return f"a {type(tree).__name__}", [*range(len(tree))], [*tree], get, lambda parts: type(tree)(parts)
    if not jax.tree_util.all_leaves([tree]):
        pairs, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda other: other is not tree)
        steps = [jax.tree_util.keystr(path) for path, _ in pairs]
        flat = lambda other: jax.tree.flatten(other, is_leaf=lambda below: below is not other)[0]  # noqa: E731
        take = lambda other, step: flat(other)[steps.index(step)]  # noqa: E731
        make = lambda parts: jax.tree.unflatten(structure, parts)  # noqa: E731
        return (
            f"a {type(tree).__name__}",
            [_Step(step) for step in steps],
            [leaf for _, leaf in pairs],
            take,
            make,
        )
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [f.name for f in dataclasses.fields(tree) if not f.metadata.get("static")]
        parts = [getattr(tree, name) for name in names]
        return "a dataclass", names, parts, getattr, lambda values: _changed(tree, names, values)
    return None


class _Step(str):
    """How a path goes on into a registered node: printed as it is."""

    __slots__ = ()


def _dictionary(like: dict[Any, Any], keys: list[Any], parts: list[Any]) -> dict[Any, Any]:
    pairs = zip(keys, parts, strict=True)
    if type(like) is dict:
        return dict(pairs)
    new = copy.copy(like)
    new.clear()
    new.update(pairs)
    return new


def _changed(like: Any, names: list[str], values: list[Any]) -> Any:
    new = copy.copy(like)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(new, name, value)
    return new
