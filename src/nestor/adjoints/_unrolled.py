"""Derivatives of the steps themselves: all of them, all with less memory, the last few, or one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints._contract import Answer, Condition, Read
from nestor.adjoints._crossing import differentiable_run, on_perturbed
from nestor.loops import Loop, every_turn, last_turns, rematerialised, reverse_binomially, to_the_end

Tree = Any


@trees.record
class Unroll:
    """Differentiate every step: the exact derivative of the computation, start and step sizes included.

    A converged answer is differentiated through one move more, which is smaller than the tolerance, so that an
    answer met early and by luck has a derivative too.

    Forward and reverse mode, any order. Memory of a reverse pass: `max_steps` states of the solver, so set
    `max_steps` no higher than needed; time: about three forward runs of `max_steps` steps under `vmap`,
    of the steps really taken otherwise. Source: Maclaurin, Duvenaud, Adams 2015, section 2, plainly stored.

    >>> import jax, nestor
    >>> def y(x):  # three steps of gradient descent from x: y = x (1 - 0.2)^3
    ...     return nestor.argmin(lambda z: z**2, x, solver=nestor.GradientDescent(nestor.FixedStep(0.1)),
    ...                          adjoint=nestor.Unroll(), max_steps=3, on_failure="keep")
    >>> round(float(jax.grad(y)(1.0)), 5)
    0.512
    """

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""
        return lambda inputs: through_the_steps(loop, read, inputs, *every_turn(loop, inputs))


@trees.record
class Checkpoint:
    """Differentiate every step like `Unroll`, recomputing most of them: less memory, more time.

    Args:
        levels: L; a reverse pass keeps about L * max_steps^(1/L) states and takes about L + 1 forward runs.
            1 keeps one state a step (and nothing inside it); 2, the default, is the classical square root.
        slots: c, instead of levels; a reverse pass keeps c states and recomputes the others in the best order
            there is: with r the least number for which C(c + r, r) >= max_steps, each step is recomputed at
            most r times, and a reverse pass takes about r + 3 forward runs. For 1000 steps 44 slots need
            r = 2, 17 need 3, 10 need 4, 5 need 8.

    Forward and reverse mode, any order; with `slots`, derivatives above the first take the memory of two
    levels. Source: Griewank 1992; Chen et al. 2016 for two levels; Griewank, Walther 2000 for slots.

    >>> import jax, nestor
    >>> y = lambda x: nestor.argmin(lambda z: (z - x) ** 2, 0.0, adjoint=nestor.Checkpoint(slots=5))
    >>> bool(abs(jax.grad(y)(1.0) - 1.0) < 1e-3)
    True
    """

    levels: int | None = None
    slots: int | None = None

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""
        if self.slots is None:
            levels = 2 if self.levels is None else self.levels
            run = lambda inputs: rematerialised(loop, inputs, levels)  # noqa: E731
        else:
            run = _binomial_run(loop, self.slots)
        return lambda inputs: through_the_steps(loop, read, inputs, *run(inputs))


def _binomial_run(loop: Loop, slots: int) -> Callable[[Tree], tuple[Tree, Tree]]:
    def pull(perturbed: list[Any], merge: Any, outcome: Tree, cotangent: tuple[Tree, Tree]) -> list[Any]:
        return reverse_binomially(on_perturbed(loop, merge), perturbed, slots, *cotangent)

    return differentiable_run(
        lambda inputs: to_the_end(loop, inputs), lambda inputs: rematerialised(loop, inputs, 2), pull
    )


@trees.record
class Truncate:
    """Differentiate only the last `last` steps; whatever came before is a constant.

    Args:
        last: number of moves k that are differentiated, from a constant point: the last k evaluations, and the
            move that the last of them proposes.

    Biased, by a factor that shrinks with the convergence rate to the power k. Memory: k states.
    Forward and reverse mode. Source: Shaban et al. 2019.

    >>> import jax, nestor
    >>> y = lambda x: nestor.argmin(lambda z: (z - x) ** 2, 0.0, adjoint=nestor.Truncate(last=10))
    >>> bool(abs(jax.grad(y)(1.0) - 1.0) < 1e-3)
    True
    """

    last: int

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""
        return _last_moves(loop, read, self.last)


@trees.record
class OneStep:
    """Differentiate one step of the solver, taken at the answer: `Truncate(last=1)`.

    Exact to the accuracy of the answer for the Newton methods, biased by the convergence rate for others: a
    rough guess for quasi-Newton and conjugate gradients, whose memory of past gradients is not the Hessian.
    No linear solve; of second derivatives only the mixed one for first-order methods.
    Source: Bolte, Pauwels, Vaiter 2023, definition 1.

    >>> import jax, nestor
    >>> y = lambda x: nestor.argmin(lambda z: (z - x) ** 2, 0.0, solver=nestor.Newton(),
    ...                             adjoint=nestor.OneStep())
    >>> bool(abs(jax.grad(y)(1.0) - 1.0) < 1e-3)
    True
    """

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""
        return _last_moves(loop, read, 1)


def _last_moves(loop: Loop, read: Read, last: int) -> Callable[[Tree], Answer]:
    """The last turn ends where the answer is evaluated; the move it proposes carries the derivative."""

    def solve(inputs: Tree) -> Answer:
        carry, seen = last_turns(loop, inputs, last)
        answer = read(inputs, carry, seen)
        answer = answer._replace(record=trees.stop_gradient(answer.record))
        if loop.ahead is None:
            return answer
        ahead, _ = loop.ahead(inputs, carry)
        return answer._replace(x=_borrow_derivative(answer.x, ahead, jnp.ones((), bool)))

    return solve


def through_the_steps(loop: Loop, read: Read, inputs: Tree, carry: Tree, seen: Tree) -> Answer:
    """The answer of a loop whose turns were differentiated.

    A converged answer takes its derivative from the move that would have come next, a move below the
    tolerance. A solver can meet the answer early and by luck (a first step of length one that lands on it),
    with steps that know nothing yet of the curvature: the numbers are then right and their derivative is not.
    """
    answer = read(inputs, carry, seen)
    answer = answer._replace(record=trees.stop_gradient(answer.record))
    if loop.ahead is None:
        return answer
    ahead, settled = loop.ahead(inputs, carry)
    return answer._replace(x=_borrow_derivative(answer.x, ahead, settled))


def _borrow_derivative(x: Tree, lender: Tree, when: jax.Array) -> Tree:
    fine = when & trees.all_finite(trees.stop_gradient(lender))
    return trees.graft(x, trees.select(fine, lender, x))
