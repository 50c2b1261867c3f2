"""What an adjoint is given and what it gives back; and the envelope theorem, which needs no adjoint at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from nestor import trees
from nestor.loops import Loop

Tree = Any


class Answer(NamedTuple):
    """What comes out of a solve.

    Attributes:
        x: the point, a tree; differentiable in the inputs.
        value: the objective there, a scalar; for a run, what was measured on the way, a tree of arrays.
            Differentiable in the inputs.
        record: status, counts, history: constants for every derivative.
    """

    x: Tree
    value: Any
    record: Tree


@dataclasses.dataclass(frozen=True)
class Condition:
    """What holds at the answer, stated without a word about how it was found.

    Args:
        residual: (x, inputs) -> a tree like x that vanishes at the answer.
        value: (x, inputs) -> the scalar objective, or a tree like `Answer.value`; None where there is none (its
            derivative is then zero).
        symmetric: whether d(residual)/dx is symmetric.
        positive: whether it is positive definite too.
        objective: (x, inputs) -> the scalar whose gradient the residual is; None where there is none.
        move: (x, inputs, change of the gradient) -> change of x: how the next move from the answer would follow
            its gradient, linear in the change; None where nothing moves by gradients.
    """

    residual: Callable[[Tree, Tree], Tree]
    value: Callable[[Tree, Tree], Any] | None = None
    symmetric: bool = False
    positive: bool = False
    objective: Callable[[Tree, Tree], jax.Array] | None = None
    move: Callable[[Tree, Tree, Tree], Tree] | None = None


Read = Callable[[Tree, Tree, Tree], Answer]  # (inputs, the last carry of a loop, its record) -> answer


@runtime_checkable
class Adjoint(Protocol):
    """One way to differentiate a solve; one verb.

    `attach` returns a function of the inputs whose derivatives are the adjoint's. It sees the loop, how the
    answer is read from its last carry, and the condition; it never sees the solver.
    """

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """A differentiable function from the inputs to the answer.

        Args:
            loop: the iteration.
            read: (inputs, last carry, record) -> Answer.
            condition: what holds at the answer.
        """
        ...


def envelope(
    solve: Callable[[Tree], Answer], condition: Condition
) -> Callable[[Tree], tuple[jax.Array, Tree]]:
    """The minimum value as a function of the inputs, by the envelope theorem (Danskin).

    dV = (partial f / partial inputs) at the answer: no linear solve for a first derivative. For higher ones
    that formula is itself differentiated, through the answer and so through the adjoint of `solve`; they are
    exact.

    Returns:
        A function from the inputs to (value, record).
    """
    assert condition.value is not None
    value_at = condition.value

    def value(inputs: Tree) -> tuple[jax.Array, Tree]:
        answer = solve(inputs)
        return answer.value, answer.record

    def rule(inputs: Tree, perturbed: list[Any], merge: Any, tangents: list[Any]) -> Any:
        answer = solve(inputs)
        _, tangent = jax.jvp(lambda p: value_at(answer.x, merge(p)), (perturbed,), (tangents,))
        return (answer.value, answer.record), (tangent.astype(answer.value.dtype), None)

    return trees.custom_jvp_on_perturbed(value, rule)


def value_tangent(
    condition: Condition, answer: Answer, dx: Tree, perturbed: list[Any], merge: Any, t: list[Any]
) -> Tree:
    """The tangent of the value along (dx, t); zero if the condition states no value."""
    if condition.value is None:
        return trees.zeros_like(answer.value)
    function = condition.value
    _, tangent = jax.jvp(lambda x, p: function(x, merge(p)), (answer.x, perturbed), (dx, t))
    return jax.tree.map(lambda t, value: t.astype(value.dtype), tangent, answer.value)
