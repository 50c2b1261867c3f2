"""A run of a loop whose reverse mode is a program of its own; forward mode and higher orders are JAX's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.errors import CannotDifferentiate
from nestor.loops import Loop

Tree = Any


def differentiable_run(
    run: Callable[[Tree], Tree], push_run: Callable[[Tree], Tree], pull: Callable[..., list[Any]]
) -> Callable[[Tree], Tree]:
    """`run`, with a reverse mode of its own and derivatives of any order.

    Args:
        run: inputs -> outcome, such as the last carry of a loop and its record; any program.
        push_run: the same function, one that JAX differentiates in both modes: forward mode and all
            derivatives above the first are its own. It is not run for a gradient.
        pull: (perturbed, merge, outcome, cotangent) -> a list of cotangents like `perturbed`, with `perturbed`
            and `merge` as in `trees.custom_jvp_on_perturbed`. The cotangent is a tree like the outcome; only
            where that has floating-point leaves is there anything in it.

    Integers, booleans and random keys in the outcome have no derivative.
    """

    def rule(inputs: Tree, perturbed: list[Any], merge: Any, tangents: list[Any]) -> tuple[Tree, Tree]:
        outcome = crossing(inputs)
        _refuse_complex((tangents, outcome))

        def push(along: list[Any]) -> list[Any]:
            return jax.jvp(lambda p: trees.floats(push_run(merge(p))), (perturbed,), (along,))[1]

        def transposed(cotangents: list[Any]) -> list[Any]:
            return pull(perturbed, merge, outcome, trees.tangent_like(outcome, cotangents))

        dots = trees.linear_map(push, transposed, tangents, trees.floats(outcome))
        return outcome, trees.tangent_like(outcome, dots)

    # (JAX hands what a loop never changes through as it is, Python numbers too)
    crossing = trees.custom_jvp_on_perturbed(lambda inputs: jax.tree.map(jnp.asarray, run(inputs)), rule)
    return crossing


def on_perturbed(loop: Loop, merge: Callable[[list[Any]], Tree]) -> Loop:
    """The same loop as a function of the perturbed inputs alone: others have no cotangent, and need no room."""
    return loop._replace(
        start=lambda perturbed: loop.start(merge(perturbed)),
        turn=lambda perturbed, carry: loop.turn(merge(perturbed), carry),
    )


def _refuse_complex(tree: Tree) -> None:
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in jax.tree.leaves(tree)):
        raise CannotDifferentiate(
            "This adjoint differentiates loops of real numbers, and this one carries complex ones.\n"
            "Do this: use adjoint=nestor.Checkpoint(levels=2)."
        )
