"""What a penalty and a set must say, and what the entries of their settings are for a given tree."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.errors import BadArgument
from nestor.settings import shown

Tree = Any


@runtime_checkable
class Penalty(Protocol):
    """A function g of a tree, known by two verbs; every set and penalty of this room is one.

    A user's own is any object with these verbs whose arrays JAX can see (``jax.tree_util.register_dataclass``):
    then solutions are differentiable in them.
    """

    def value(self, x: Tree) -> jax.Array:
        """g(x), a scalar; of a set 0, wherever x is."""
        ...

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The z that minimizes step g(z) + ½|z - x|²; of a set the nearest point, whatever the step."""
        ...


class Set(ABC):
    """A set of trees: one verb to fill, `project`; as a penalty it is 0 inside and infinite outside."""

    @abstractmethod
    def project(self, x: Tree) -> Tree:
        """The nearest point of the set, by the Euclidean distance."""

    def value(self, x: Tree) -> jax.Array:
        """0, wherever x is: solvers look at points of the set, or close to it."""
        return jnp.zeros((), trees.float_dtype(x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The nearest point of the set."""
        return self.project(x)


@trees.record
class Free:
    """No penalty: g = 0, and the proximal operator leaves everything where it is.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Free().prox(jnp.ones(2)).tolist()
    [1.0, 1.0]
    """

    entrywise: ClassVar[bool] = True

    def value(self, x: Tree) -> jax.Array:
        """0."""
        return jnp.zeros((), trees.float_dtype(x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """x."""
        return x

    def project(self, x: Tree) -> Tree:
        """x: as a set this is the whole space."""
        return x


@trees.record
class Separate:
    """A sum over the branches of a tree: each has its own penalty or set.

    Args:
        terms: a tree, or a prefix of one, whose leaves are penalties, sets, and None for no penalty.

    ``prox=`` of the front functions takes such a tree as it is. The parts may stand in any order, and the
    gradient of each is as if it stood alone.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> g = proximal.Separate({"w": proximal.Lasso(1.0), "b": None})
    >>> {k: v.tolist() for k, v in g.prox({"w": jnp.array([3.0, 0.5]), "b": jnp.ones(1)}).items()}
    {'b': [1.0], 'w': [2.0, 0.0]}
    """

    terms: Any

    def value(self, x: Tree) -> jax.Array:
        """The sum of the values."""
        dtype = trees.float_dtype(x)
        parts = [term.value(part).astype(dtype) for term, part in self.parts(x)[0]]
        return sum(parts, jnp.zeros((), dtype))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """Each branch by its own operator."""
        parts, join = self.parts(x)
        return join([term.prox(part, step) for term, part in parts])

    def project(self, x: Tree) -> Tree:
        """Each branch on its own set; None stands for all of the space, a penalty is not allowed."""
        parts, join = self.parts(x)
        return join([term.project(part) for term, part in parts])

    def lowest(self, slope: Tree) -> Tree:
        """The point of the sets where <slope, .> is least."""
        parts, join = self.parts(slope)
        return join([term.lowest(part) for term, part in parts])

    def project_kl(self, logarithm: Tree) -> Tree:
        """Each branch by its own projection in relative entropy."""
        parts, join = self.parts(logarithm)
        return join([term.project_kl(part) for term, part in parts])

    def parts(self, x: Tree) -> tuple[list[tuple[Any, Tree]], Callable[[list[Tree]], Tree]]:
        """The terms beside the branches of x that they are for, and the function that joins branches again."""
        terms, structure = jax.tree.flatten(self.terms, is_leaf=is_term)
        branches = structure.flatten_up_to(x)
        return [
            (Free() if term is None else term, branch) for term, branch in zip(terms, branches, strict=True)
        ], lambda new: jax.tree.unflatten(structure, new)


def is_term(thing: Any) -> bool:
    """Whether a thing is a penalty, a set or the None that stands for neither."""
    return thing is None or (hasattr(thing, "prox") and hasattr(thing, "value"))


def spread(where: str, name: str, setting: Any, x: Tree, least: float | None = None) -> Tree:
    """A setting as a tree like x: a number for all entries, or a tree (or prefix) of numbers and arrays.

    Args:
        where, name: the class and its setting, for messages.
        setting: what the user gave.
        x: the tree.
        least: below it a plain number is refused; arrays, which may be traced, are not looked at.
    """
    check_number(where, name, setting, least)
    try:
        given = jax.tree.broadcast(setting, x)
        return jax.tree.map(
            lambda value, leaf: jnp.broadcast_to(jnp.asarray(value).astype(leaf.dtype), leaf.shape), given, x
        )
    except (ValueError, TypeError) as error:
        shapes = jax.tree.map(jnp.shape, setting)
        raise BadArgument(
            where,
            name,
            got=f"of shape {shapes}",
            want=f"a number, or a tree like x, whose shapes are {jax.tree.map(jnp.shape, x)}",
            do="give one number for all entries, or one for each",
        ) from error


def scalar(value: Any, dtype: Any) -> jax.Array:
    """A setting that is one number, in the dtype of x."""
    return jnp.asarray(value).astype(dtype)


def not_negative(owner: Any, name: str, dtype: Any) -> jax.Array:
    """A setting of a penalty or a set that is one number >= 0, in the dtype of x."""
    value = getattr(owner, name)
    check_number(type(owner).__name__, name, value, 0.0)
    return scalar(value, dtype)


def check_number(where: str, name: str, value: Any, least: float | None, most: float = math.inf) -> None:
    """A plain number is no text, not NaN and from `least` to `most`; what is no plain number is not looked at.

    Raises:
        BadArgument: it is.
    """
    text = isinstance(value, (str, bytes))
    if not text and (least is None or type(value) not in (int, float) or least <= value <= most):
        return
    want = (
        "a number, or an array of them"
        if least is None
        else f"a number >= {least:g}" + (f" and <= {most:g}" if most < math.inf else "")
    )
    do = f"write for example {name}=0.5"
    raise BadArgument(where, name, got=shown(value), want=want, do=do)


def check_matrices(where: str, x: Tree, square: bool = False) -> None:
    """Every leaf of x is a matrix, or a stack of them.

    Raises:
        BadArgument: one is not.
    """
    for leaf in jax.tree.leaves(x):
        shape = jnp.shape(leaf)
        if len(shape) >= 2 and (shape[-1] == shape[-2] or not square):
            continue
        kind = "square matrices" if square else "matrices"
        raise BadArgument(
            where,
            "x",
            got=f"of shape {shape}",
            want=f"{kind} in its last two axes",
            do="reshape it, or give this branch of the tree another set",
        )


def along(function: Callable[[jax.Array], jax.Array], x: Tree, axis: int | None) -> Tree:
    """Apply a function of the last axis of an array.

    Args:
        function: from (..., n) to (..., n).
        x: a tree.
        axis: None, the whole tree is one vector (n,); or the axis of every leaf.
    """
    if axis is None:
        vector, back = trees.ravel(x)
        return back(function(vector))
    for leaf in jax.tree.leaves(x):
        if not isinstance(axis, int) or not -jnp.ndim(leaf) <= axis < jnp.ndim(leaf):
            raise BadArgument(
                "proximal",
                "axis",
                got=f"{axis!r}, for an array of shape {jnp.shape(leaf)}",
                want="None, or an axis that every leaf has",
                do="write axis=-1 for the last one, or None for the whole tree",
            )
    return jax.tree.map(lambda leaf: jnp.moveaxis(function(jnp.moveaxis(leaf, axis, -1)), -1, axis), x)
