"""Schedules made of others, and the door that makes a schedule of anything that can be one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument
from nestor.programs import Program, hoist
from nestor.schedules._record import is_array, is_number, schedule
from nestor.schedules._shapes import Constant
from nestor.schedules._tables import PerStep

Tree = Any


@schedule
class Called:
    """A function of the step, optax's schedules among them; `as_schedule` makes it.

    Args:
        program: the traced function.
        captured: what it closed over: arrays, traced ones too, in which it can be differentiated. Python
            numbers in it are part of the program.

    >>> import jax.numpy as jnp, nestor
    >>> peak = jnp.asarray(0.5)
    >>> float(nestor.schedules.as_schedule(lambda step: peak / (1 + step))(1))
    0.25
    """

    program: Program = dataclasses.field(metadata={"static": True})
    captured: list[Any]

    def __call__(self, step: Any) -> jax.Array:
        """The value at a step."""
        whole = jnp.floor(step) if jnp.issubdtype(jnp.result_type(step), jnp.floating) else step
        return self.program(self.captured, jnp.asarray(whole).astype(jnp.int32))


@schedule
class Grouped:
    """A schedule for each group of the parameters.

    Args:
        tree: a prefix of the tree of parameters; its leaves are anything that `as_schedule` takes.

    Called, it gives the same tree of values.

    >>> import nestor
    >>> rates = nestor.schedules.Grouped({"body": nestor.schedules.InverseTime(0.1, 1.0), "head": 0.5})
    >>> {name: round(float(value), 3) for name, value in rates(1).items()}
    {'body': 0.05, 'head': 0.5}
    """

    tree: Tree

    def __post_init__(self) -> None:
        """Make a schedule of every leaf."""

        def make(path: Any, leaf: Any) -> Any:
            return as_schedule(leaf, "Grouped", f"tree{jax.tree_util.keystr(path)}")

        tree = jax.tree_util.tree_map_with_path(make, self.tree, is_leaf=_is_leaf)
        object.__setattr__(self, "tree", tree)

    def __call__(self, step: Any) -> Tree:
        """The tree of values at a step."""
        return jax.tree.map(lambda inner: inner(step), self.tree, is_leaf=is_schedule)


def is_schedule(value: Any) -> bool:
    """Whether it is a schedule as it stands: a callable that is a tree."""
    return callable(value) and not isinstance(value, type) and not _is_one_leaf(value)


def _is_one_leaf(value: Any) -> bool:
    return jax.tree_util.all_leaves([value])


def _is_leaf(value: Any) -> bool:
    return value is None or is_schedule(value)


def as_schedule(value: Any, where: str = "as_schedule", name: str = "value") -> Any:
    """A schedule, from anything that can be one.

    Args:
        value: a schedule, taken as it is; a number or an array of shape (): `Constant`; an array of shape (T,):
            `PerStep`; a dict, list or tuple, a prefix of the parameters: `Grouped`; a function of the step:
            `Called`.
        where: the public function that it was given to, for messages.
        name: of its argument.

    Returns:
        A callable that is a tree of arrays.

    Raises:
        BadArgument: it can be none of these.

    >>> import nestor
    >>> nestor.schedules.as_schedule(0.1)
    Constant(value=0.1)
    """
    if is_schedule(value):
        return value
    if is_number(value) and math.isfinite(value):
        return Constant(value)
    if is_array(value) and value.ndim <= 1 and value.size:
        return PerStep(value) if value.ndim else Constant(value)
    if callable(value) and not isinstance(value, type):
        return _called(value, where, name)
    if not _is_leaf(value) and jax.tree.leaves(value, is_leaf=_is_leaf) and not _is_one_leaf(value):
        tree = jax.tree_util.tree_map_with_path(
            lambda path, leaf: as_schedule(leaf, where, f"{name}{jax.tree_util.keystr(path)}"),
            value,
            is_leaf=_is_leaf,
        )
        return Grouped(tree)
    raise _no_schedule(value, where, name)


def _called(function: Any, where: str, name: str) -> Called:
    try:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counters with floats
            program, captured = hoist(lambda step: _as_float(function(step)), jnp.int32(0))
    except TypeError as error:
        raise BadArgument(
            where,
            name,
            got=f"a function that cannot be traced at a step ({error})",
            want="a function of the step number, an int32 scalar, that returns a number",
            do="write it with jax.numpy, jnp.where in place of if",
        ) from error
    shape = program.out_shape
    if not isinstance(shape, jax.ShapeDtypeStruct) or shape.shape != ():
        raise BadArgument(
            where,
            name,
            got=f"a function of the step that returns {shape}",
            want="a function that returns one number",
            do="for one number a group of parameters pass a tree of functions",
        )
    return Called(program, captured)


def _as_float(value: Any) -> Any:
    """The value as a floating array without a weak type."""
    array = jnp.asarray(value)
    dtype = array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else jnp.zeros(()).dtype
    return jax.lax.convert_element_type(array, dtype)


def _no_schedule(value: Any, where: str, name: str) -> BadArgument:
    got, do = value, "pass a number, or a schedule such as nestor.schedules.Cosine(0.1, 1000)"
    if isinstance(value, (jax.Array, np.ndarray)) and value.dtype == bool:
        got, do = f"an array of dtype {value.dtype}", "convert it with .astype(float)"
    elif is_array(value):
        got, do = f"an array of shape {value.shape}", "pass one number a step, an array of shape (T,)"
    elif isinstance(value, type):
        got, do = f"the class {value.__name__}", "pass an object: call the class with its numbers"
    elif isinstance(value, str):
        got = f"{value!r} (str)"
    return BadArgument(
        where, name, got=got, want="a finite number, a (T,) array, a schedule, a function, or a tree", do=do
    )
