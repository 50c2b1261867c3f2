"""What a schedule is, and how the numbers it is given become arrays."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, TypeVar, dataclass_transform

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor import trees

Tree = Any
Class = TypeVar("Class", bound=type)


class Schedule(Protocol):
    """A function of the step number that is a tree: what it is made from can be differentiated.

    Any callable that is registered as a tree will do.
    """

    def __call__(self, step: Any) -> Any:
        """The value at a step: an int32 scalar, traced as a rule; 0 is the first."""
        ...


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def schedule(cls: Class) -> Class:
    """Make a class a frozen record whose numbers become arrays when it is made.

    So another number is another input of a compiled program, and not another program. As for `trees.record`
    the fields are the children of a tree; but a tree is put together again as it was, with any leaves.
    """
    if not hasattr(cls, "__post_init__"):
        cls.__post_init__ = _make_arrays
    cls.__repr__ = _text  # type: ignore[assignment]
    cls = dataclasses.dataclass(frozen=True, repr=False)(cls)
    fields = dataclasses.fields(cls)
    names = tuple(field.name for field in fields if not field.metadata.get("static"))
    rest = tuple(field.name for field in fields if field.metadata.get("static"))

    def flatten(made: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(made, n) for n in names), tuple(getattr(made, n) for n in rest)

    def flatten_with_keys(made: Any) -> Any:
        children, static = flatten(made)
        return tuple(zip(map(jax.tree_util.GetAttrKey, names), children, strict=True)), static

    def unflatten(static: tuple[Any, ...], children: Any) -> Any:
        made = object.__new__(cls)
        for name, child in zip((*names, *rest), (*children, *static), strict=True):
            object.__setattr__(made, name, child)
        return made

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _make_arrays(made: Any) -> None:
    """Numbers, and lists of them, become floating arrays of the dtype of the arrays that are there."""
    parts = [getattr(made, field.name) for field in dataclasses.fields(made)]
    given = [leaf for leaf in jax.tree.leaves(parts) if isinstance(leaf, (jax.Array, np.ndarray, np.generic))]
    dtype = trees.float_dtype(given)
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        is_list = isinstance(value, (list, tuple)) and jax.tree_util.all_leaves(value)
        if not field.metadata.get("static") and (is_number(value) or is_array(value) or is_list):
            object.__setattr__(made, field.name, _floating(value, dtype))


def is_number(value: Any) -> bool:
    """Whether it is a Python number, and no truth value."""
    return type(value) in (int, float)


def is_array(value: Any) -> bool:
    """Whether it is an array, traced ones included, of real numbers."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return False
    return jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)


def _floating(value: Any, dtype: Any) -> jax.Array:
    if isinstance(value, (list, tuple)):
        return jnp.stack([_floating(v, dtype) for v in value]) if value else jnp.zeros((0,), dtype)
    if is_array(value) and jnp.issubdtype(value.dtype, jnp.floating):
        dtype = value.dtype
    if isinstance(value, jax.core.Tracer):
        return jax.lax.convert_element_type(value, dtype)
    with jax.ensure_compile_time_eval():  # a number is a number, also inside a trace
        return jnp.asarray(value, jax.dtypes.canonicalize_dtype(dtype))


def _text(made: Any) -> str:
    """As it is written, with numbers in place of the arrays that hold them."""
    shown = [f"{field.name}={_shown(getattr(made, field.name))}" for field in dataclasses.fields(made)]
    return f"{type(made).__name__}({', '.join(shown)})"


def _shown(value: Any) -> str:
    concrete = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
    return f"{float(value):.6g}" if concrete and value.ndim == 0 else repr(value)


def numbers(made: Any, step: Any) -> tuple[jax.Array, ...]:
    """The step and then the fields, all in the widest floating dtype among them."""
    dtype = trees.float_dtype(made)
    fields = [getattr(made, field.name) for field in dataclasses.fields(made)]
    return tuple(jnp.asarray(value).astype(dtype) for value in (step, *fields))


def part(step: jax.Array, steps: jax.Array) -> jax.Array:
    """How much of a stretch is over, from 0 to 1; 1 where it has no length."""
    real = steps > 0
    return jnp.where(real, jnp.minimum(step / jnp.where(real, steps, 1), 1), 1)
