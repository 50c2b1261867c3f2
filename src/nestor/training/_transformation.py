"""Any optax transformation as the optimizer of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.programs import Program, hoist_transformation

Tree = Any


@trees.record
class Transformation:
    """An optax `GradientTransformation`; made for you when one is passed as ``optimizer=``.

    What it closes over (a traced learning rate, say) is an input of the run like any other. Where its square
    roots have an infinite slope at zero, their derivative there is taken to be zero.

    Args:
        start: the traced ``init``.
        start_captured: what it closed over.
        step: the traced ``update``.
        step_captured: what it closed over.
        schedules: none; it keeps its hyperparameters to itself.
    """

    start: Program = dataclasses.field(metadata={"static": True})
    start_captured: list[Any]
    step: Program = dataclasses.field(metadata={"static": True})
    step_captured: list[Any]
    schedules: dict[str, Any] = dataclasses.field(default_factory=dict)

    def init(self, params: Tree) -> Tree:
        """The state of the transformation at the start."""
        return self.start(self.start_captured, params)

    def values(self, t: jax.Array) -> dict[str, Any]:
        """Nothing: see `schedules`."""
        return {}

    def update(self, hyper: dict[str, Any], t: jax.Array, gradient: Tree, params: Tree, slots: Tree) -> Any:
        """One step. Transformations that need the value of the loss are given NaN."""
        loss = jnp.full((), jnp.nan, trees.float_dtype(params))
        moves, slots = self.step(self.step_captured, gradient, slots, params, loss)
        return jax.tree.map(lambda a, b: a + b.astype(a.dtype), params, moves), slots


def as_transformation(where: str, thing: Any, params: Tree) -> Transformation:
    """An optax transformation, traced for these parameters."""
    return Transformation(*hoist_transformation(where, "optimizer", thing, params))
