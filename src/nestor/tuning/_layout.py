"""A tree of hyperparameters: how it is written down, and how it is suggested, named, and laid out as one vector."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nestor.errors import BadArgument
from nestor.search import Array, Float

Tree = Any
Real = Float | Array
ALONE = "x"  # the name of a space that is one record


@dataclasses.dataclass(frozen=True)
class Layout:
    """The parameters of a tree of records, in the order of its leaves.

    Attributes:
        names: the path of each leaf, joined by dots.
        domains: of each leaf.
        form: the structure of the tree.
    """

    names: tuple[str, ...]
    domains: tuple[Real, ...]
    form: Any

    def suggest(self, trial: Any) -> list[Any]:
        """The values that a trial has for them, a float or an array each."""
        return [trial.suggest(name, domain) for name, domain in zip(self.names, self.domains, strict=True)]

    def tree(self, leaves: Sequence[Any]) -> Tree:
        """Leaves as the tree that an objective takes."""
        return jax.tree.unflatten(self.form, leaves)

    def by_name(self, leaves: Sequence[Any]) -> dict[str, Any]:
        """Name to leaf."""
        return dict(zip(self.names, leaves, strict=True))

    @property
    def sizes(self) -> list[int]:
        """How many numbers each leaf has."""
        return [domain.size if isinstance(domain, Array) else 1 for domain in self.domains]

    def to_unit(self, leaves: Sequence[Any]) -> np.ndarray:
        """The place in [0, 1]^d of some values; a logarithmic parameter's is that of its logarithm."""
        parts = [
            domain.to_unit(np.asarray(leaf, float)) for domain, leaf in zip(self.domains, leaves, strict=True)
        ]
        return np.concatenate([np.ravel(part) for part in parts]) if parts else np.zeros(0)

    def from_unit(self, places: np.ndarray) -> list[Any]:
        """The values at a place in [0, 1]^d."""
        leaves: list[Any] = []
        for domain, part in zip(self.domains, self._split(places), strict=True):
            if isinstance(domain, Array):
                leaves.append(domain.from_unit(part.reshape(domain.shape)))
            else:
                leaves.append(domain.from_unit(float(part[0])))
        return leaves

    def slopes(self, leaves: Sequence[Any], gradient: Sequence[Any]) -> np.ndarray:
        """The derivative by the place in [0, 1]^d, from the one by the values."""
        parts = []
        for domain, leaf, slope in zip(self.domains, leaves, gradient, strict=True):
            parts.append(np.ravel(np.asarray(slope, float) * domain.rise(np.asarray(leaf, float))))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _split(self, vector: np.ndarray) -> list[np.ndarray]:
        return np.split(vector, np.cumsum(self.sizes)[:-1]) if self.sizes else []


def layout_of(where: str, space: Tree) -> Layout:
    """The layout of a space.

    Raises:
        BadArgument: a leaf is no record of a continuous parameter.
    """
    found, form = jax.tree_util.tree_flatten_with_path(space, is_leaf=_is_record)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or ALONE for path, _ in found]
    domains = [_domain(where, name, record) for name, (_, record) in zip(names, found, strict=True)]
    return Layout(tuple(names), tuple(domains), form)


def _is_record(node: Any) -> bool:
    if isinstance(node, Mapping) or node is None:
        return False
    bounds = isinstance(node, tuple) and len(node) in (2, 3) and all(map(_is_number, node[:2]))
    return bounds or not isinstance(node, tuple | list)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _domain(where: str, name: str, record: Any) -> Real:
    if isinstance(record, Array) or (isinstance(record, Float) and record.step is None):
        return record
    if isinstance(record, tuple) and (len(record) == 2 or record[2] in (True, False, "log")):
        return Float(float(record[0]), float(record[1]), log=len(record) == 3 and bool(record[2]))
    raise BadArgument(
        where,
        "space",
        got=f"{name}: {record!r}",
        want="of Float and Array without a step, (low, high) and (low, high, 'log')",
        do="move what has steps or is a choice into choices=",
    )
