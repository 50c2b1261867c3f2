"""Frozen records that are trees, and the split of any object into arrays and a hashable rest."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Hashable
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

Tree = Any
Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: Class) -> Class:
    """Make a class a frozen dataclass whose fields are the children of a tree.

    A field declared with ``dataclasses.field(metadata={"static": True})`` is part of the structure.

    Cost: half of `dataclasses.dataclass`, which writes and compiles six methods for each class; an import of
    Nestor makes a hundred of them.
    """
    made = dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls)
    for name, method in _methods(tuple(field.name for field in dataclasses.fields(made))).items():
        if cls.__dict__.get(name) is None:
            setattr(made, name, method)
    return jax.tree_util.register_dataclass(made)


def _methods(names: tuple[str, ...]) -> dict[str, Any]:
    """How records of these fields are shown, compared and hashed: as `dataclasses.dataclass` does it."""
    values = (
        operator.attrgetter(*names) if len(names) > 1 else lambda it: tuple(getattr(it, n) for n in names)
    )

    def shown(self: Any) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({inside})"

    def equal(self: Any, other: Any) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return {"__repr__": shown, "__eq__": equal, "__hash__": lambda self: hash(values(self))}


class _Hole:
    """Stands where an array was taken out."""

    def __repr__(self) -> str:
        return "array"


_HOLE = _Hole()


def split(tree: Tree) -> tuple[list[Any], Hashable]:
    """Part a tree into its arrays and a hashable remainder that compares by value.

    Arrays are JAX and NumPy arrays, traced ones included; everything else (numbers, strings, functions,
    the structure) stays in the remainder. `join` is the inverse.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_array = [isinstance(leaf, (jax.Array, np.ndarray, np.generic)) for leaf in leaves]
    arrays = [leaf for leaf, yes in zip(leaves, is_array, strict=True) if yes]
    rest = tuple(_HOLE if yes else leaf for leaf, yes in zip(leaves, is_array, strict=True))
    kinds = (*_node_types(structure), *(type(leaf) for leaf in rest))
    return arrays, (structure, rest, kinds)


def _node_types(structure: Any) -> list[Any]:
    """The classes of the nodes: two structures of different dataclasses compare equal in JAX (seen in 0.10.2)."""
    data = structure.node_data()
    found = [] if data is None else [data[0]]
    for child in structure.children():
        found += _node_types(child)
    return found


def join(arrays: list[Any], rest: Hashable) -> Tree:
    """Put a tree that was `split` together again, with other arrays if wanted."""
    structure, leaves, _ = rest  # type: ignore[misc]
    supply = iter(arrays)
    return jax.tree.unflatten(structure, [next(supply) if x is _HOLE else x for x in leaves])


def stop_gradient(tree: Tree) -> Tree:
    """The same tree as a constant for every derivative; leaves that are no arrays pass."""
    return jax.tree.map(
        lambda leaf: jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.Array) else leaf, tree
    )


def graft(value: Tree, carrier: Tree) -> Tree:
    """The numbers of `value` with the derivatives of `carrier`."""
    return jax.tree.map(_graft, value, carrier)


@jax.custom_jvp
def _graft(value: jax.Array, carrier: jax.Array) -> jax.Array:
    return value


@_graft.defjvp
def _graft_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return _graft(*primals), tangents[1]
