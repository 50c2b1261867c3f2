"""Forward mode through the running loop, with a clear refusal of reverse mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from nestor import trees
from nestor.adjoints._contract import Answer, Condition, Read
from nestor.adjoints._refusals import refusing
from nestor.adjoints._unrolled import through_the_steps
from nestor.loops import Loop, to_the_end

Tree = Any


@trees.record
class Forward:
    """Differentiate every step, forwards, while the solve runs: memory of one state per direction.

    The exact derivative of the computation for a few inputs (`jvp`, `jacfwd`, any order of them), without a
    bound on the number of steps that must be stored. Reverse mode is refused with `CannotDifferentiate`. In a
    graph the levels above such a level move by forward mode, one pass a parameter of theirs; none of them may be
    `Implicit`.

    >>> import jax, nestor
    >>> y = lambda x: nestor.argmin(lambda z: (z - x) ** 2, 0.0, adjoint=nestor.Forward())
    >>> bool(abs(jax.jacfwd(y)(1.0) - 1.0) < 1e-3)
    True
    """

    forward_only: ClassVar[bool] = True

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""

        def solve(inputs: Tree) -> Answer:
            answer = through_the_steps(loop, read, inputs, *to_the_end(loop, inputs))
            x, value = _forward_only((answer.x, answer.value))
            return answer._replace(x=x, value=value)

        return solve


# Reverse mode meets it before the loop itself.
_forward_only = refusing(
    "reverse",
    "nestor_forward_only",
    "Forward() only has forward-mode derivatives, and reverse mode (grad, vjp, jacrev) was asked for.\n"
    "Do this: use jax.jvp or jax.jacfwd, or adjoint=nestor.Implicit() (at a solution) or "
    "nestor.Checkpoint() (through the steps).",
)
