"""Hypergradients from first derivatives alone: the Hessian's inverse is left out, the mixed derivative differenced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints._contract import Answer, Condition, Read
from nestor.errors import BadArgument
from nestor.loops import Loop, to_the_end

Tree = Any


@trees.record
class DARTS:
    """One gradient step stands for the answer, and its mixed derivative is a central difference of two gradients.

    dx = -rate (d gradient / d inputs); in reverse mode, along a cotangent v,
    -rate (grad_inputs f(x + h v) - grad_inputs f(x - h v)) / (2 h) with h = eps / |v|.

    For levels of a graph. The inverse Hessian is taken to be `rate` times the identity, so the result is a
    direction and not a gradient: its length means little (follow it by Adam), and it is biased unless the
    answer's curvature is the same in all directions.

    Args:
        eps: length of the move of x between the two gradients. None differentiates instead, forwards and then
            backwards: at about the same cost, without an error of differences, and with every `stop_gradient` of
            the objective obeyed, of which differences know nothing.
        rate: of the one step.

    Cost: two gradients of the objective, no second derivative in reverse mode; memory of one gradient.
    First derivatives only, to be used in reverse mode. Source: Liu, Simonyan, Yang 2019, equations 7 and 8.

    >>> import nestor
    >>> nestor.DARTS(eps=1e-2).rate
    1.0
    """

    at_answer: ClassVar[bool] = True
    eps: float | None = 1e-2
    rate: float = 1.0

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""
        _needs_objective("DARTS", condition)
        return _first_order(loop, read, condition, self.eps, lambda x, inputs, v: trees.scale(-self.rate, v))


@trees.record
class SAMA:
    """`DARTS` with the right step: the Jacobian of the optimizer's own update stands for the inverse Hessian.

    With x <- x + u(gradient) the level's next move, dx = (du / d gradient)(d gradient / d inputs). The Jacobian of
    the update is differentiated from the update itself, at the gradient and the memory (moments, velocity) of
    the moment; so it is right for Adam, RMSProp, momentum and any optax transformation.

    For levels of a graph. Biased like `DARTS`, but scaled for each parameter as the optimizer scales it.

    Args:
        eps: length of the move of x between the two gradients; None differentiates, as in `DARTS`. Weights that are
            read off a stopped loss need None.

    Cost: three gradients of the objective and one pass through the update; no second derivative in reverse mode.
    First derivatives only, to be used in reverse mode. Source: Choe et al. 2023, equations 4 and 5.

    >>> import nestor
    >>> nestor.SAMA().eps
    0.01
    """

    at_answer: ClassVar[bool] = True
    eps: float | None = 1e-2

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""
        _needs_objective("SAMA", condition)
        move = condition.move
        assert move is not None

        def transposed(x: Tree, inputs: Tree, v: Tree) -> Tree:
            return jax.linear_transpose(lambda change: move(x, inputs, change), x)(v)[0]

        return _first_order(loop, read, condition, self.eps, transposed)


def _first_order(
    loop: Loop,
    read: Read,
    condition: Condition,
    eps: float | None,
    weight: Callable[[Tree, Tree, Tree], Tree],
) -> Callable[[Tree], Answer]:
    """The answer with the derivative  weight' (d gradient / d inputs), differenced in reverse mode.

    Args:
        loop, read, condition: as of `Adjoint.attach`.
        eps: length of the move of x; None for a derivative in place of a difference.
        weight: (x, inputs, cotangent of x) -> cotangent of the gradient, linear in the cotangent.
    """
    objective = condition.objective
    assert objective is not None

    def solve(inputs: Tree) -> Answer:
        return read(inputs, *to_the_end(loop, inputs))

    def rule(inputs: Tree, perturbed: list[Any], merge: Any, tangents: list[Any]) -> Any:
        answer = solution(inputs)
        x = trees.stop_gradient(answer.x)
        constant = trees.stop_gradient(perturbed)

        def push(along: list[Any]) -> Tree:
            change = jax.jvp(lambda p: condition.residual(x, merge(p)), (constant,), (along,))[1]
            return jax.linear_transpose(lambda v: weight(x, merge(constant), v), x)(change)[0]

        def pull(cotangent: Tree) -> list[Any]:
            v = weight(x, merge(constant), cotangent)
            if eps is None:
                along = lambda p: jax.jvp(lambda x: objective(x, merge(p)), (x,), (v,))[1]  # noqa: E731
                return jax.grad(along)(constant)
            length = trees.norm(v)
            h = eps / jnp.where(length > 0, length, jnp.ones_like(length))

            def difference(p: list[Any]) -> jax.Array:
                at = lambda distance: objective(trees.add_scaled(x, distance, v), merge(p))  # noqa: E731
                return at(h) - at(-h)

            # One gradient of the difference: what both have in common is added up once.
            return jax.tree.map(lambda a: a / (2 * h).astype(a.dtype), jax.grad(difference)(constant))

        dx = trees.linear_map(push, pull, tangents, answer.x)
        return answer, Answer(dx, None, None)

    solution = trees.custom_jvp_on_perturbed(solve, rule)
    return solution


def _needs_objective(name: str, condition: Condition) -> None:
    if condition.objective is None or condition.move is None:
        raise BadArgument(
            name,
            "adjoint",
            got="used for a solve that does not move by gradients of an optimizer",
            want="the adjoint of a level of nestor.levels",
            do="use nestor.Implicit() or nestor.OneStep() here",
        )
