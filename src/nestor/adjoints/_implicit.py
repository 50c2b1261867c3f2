"""The implicit function theorem, once, times any linear solver."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from nestor import linear, trees
from nestor.adjoints._contract import Answer, Condition, Read, value_tangent
from nestor.loops import Loop, to_the_end

Tree = Any


@trees.record
class Implicit:
    """Differentiate the condition at the answer: F(x, t) = 0 gives  F_x dx = -F_t dt.

    How the answer was found leaves no trace in the derivative, so it is exact at a converged answer, its
    memory does not depend on the number of steps, and the start `x0` has derivative zero. Forward and
    reverse mode, any order. An unconverged answer makes it wrong by about the optimality there times the
    condition number.

    Args:
        linear_solver: how F_x is inverted: `Auto()` (the default: dense to 256 unknowns, else Krylov; for a
            minimum of 128 to 256 unknowns conjugate gradients are tried before, to 2e-9), `Cholesky()`, `LU()`,
            `CG()`, `GMRES()`, `BiCGStab()`, `Neumann(terms)`, `Nystrom(rank)`, or any object with their one
            verb. One that fails gives NaN, never a wrong number.

    Cost: one linearisation of F and one linear solve per direction (one in all in reverse mode).
    Source: Christianson 1994; Blondel et al. 2022, equation 2.

    >>> import jax, nestor
    >>> y = lambda x: nestor.argmin(lambda z: (z - x) ** 2 + z**4, 0.0, adjoint=nestor.Implicit())
    >>> slope = jax.grad(y)(1.0)  # 2 / (2 + 12 y^2)
    >>> bool(abs(slope - 2 / (2 + 12 * y(1.0) ** 2)) < 1e-4)
    True
    """

    at_answer: ClassVar[bool] = True
    linear_solver: Any = dataclasses.field(default_factory=linear.Auto)

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""

        def solve(inputs: Tree) -> Answer:
            return read(inputs, *to_the_end(loop, inputs))

        def rule(inputs: Tree, perturbed: list[Any], merge: Any, t: list[Any]) -> Any:
            answer = solution(inputs)

            def residual(x: Tree, p: list[Any]) -> Tree:
                return condition.residual(x, merge(p))

            _, push = jax.linearize(residual, answer.x, perturbed)
            operator = linear.Operator(
                lambda v: push(v, trees.zeros_like(perturbed)),
                like=answer.x,
                symmetric=condition.symmetric,
                positive=condition.positive,
            )
            right = trees.negative(push(trees.zeros_like(answer.x), t))
            dx = linear.solve(operator, right, self.linear_solver)
            return answer, Answer(dx, value_tangent(condition, answer, dx, perturbed, merge, t), None)

        solution = trees.custom_jvp_on_perturbed(solve, rule)
        return solution
