"""optax transformations as programs, recognized by their shape: optax itself is not imported."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor.errors import BadArgument
from nestor.programs._programs import Program, hoist
from nestor.programs._safe import safe_roots

Tree = Any


class Transformation(NamedTuple):
    """A `GradientTransformation` whose two functions have become programs.

    Attributes:
        start: (what ``init`` closed over, params) -> state.
        start_captured: what it closed over.
        update: (what ``update`` closed over, gradient, state, params, loss) -> (moves, state). Its derivatives
            are finite where it takes the root of zero.
        update_captured: what it closed over.
    """

    start: Program
    start_captured: list[Any]
    update: Program
    update_captured: list[Any]


def is_transformation(thing: Any) -> bool:
    """Whether it looks like an optax `GradientTransformation`."""
    return isinstance(thing, tuple) and hasattr(thing, "init") and hasattr(thing, "update")


def hoist_transformation(
    where: str, argument: str, thing: Any, x: Tree, own: str = "use one of Nestor's own instead"
) -> Transformation:
    """Trace a transformation for parameters like x.

    Args:
        where, argument: the public function and its argument, for messages.
        thing: the transformation.
        x: a tree of floating-point arrays.
        own: what to do where it cannot be used.

    Raises:
        BadArgument: its update needs more than gradient, state, parameters and value.
    """
    first, follow = thing.init, thing.update
    wants_more = type(thing).__name__.endswith("ExtraArgs")

    def start(x: Tree) -> Tree:
        # optax starts counters as Python-typed scalars; the loop needs fixed dtypes
        return jax.tree.map(jnp.asarray, first(x))

    def update(grad: Tree, inner: Tree, x: Tree, value: jax.Array) -> tuple[Tree, Tree]:
        extra = {"value": value, "grad": grad} if wants_more else {}
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counters with floats
            moves, after = follow(grad, inner, x, **extra)
        return moves, jax.tree.map(lambda new, old: new.astype(old.dtype), after, inner)

    start_program, start_captured = hoist(start, x)
    inner = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), start_program.out_shape)
    with jax.numpy_dtype_promotion("standard"):
        value = jnp.zeros((), jnp.result_type(*jax.tree.leaves(x)))
    try:
        update_program, update_captured = hoist(update, x, inner, x, value)
    except TypeError as error:
        raise BadArgument(
            where,
            argument,
            got=f"an optax transformation whose update cannot be traced ({error})",
            want="an optax transformation that needs gradients, parameters and the value only",
            do=own,
        ) from error
    return Transformation(start_program, start_captured, safe_roots(update_program), update_captured)
