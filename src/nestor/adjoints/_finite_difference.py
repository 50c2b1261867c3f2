"""Central differences of whole solves: slow, simple, and independent of every derivative rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints._contract import Answer, Condition, Read
from nestor.loops import Loop, to_the_end

Tree = Any


@trees.record
class FiniteDifference:
    """The derivative of the answer by central differences of fourth order, one input at a time.

    Args:
        step: h, relative to max(1, |input|); None is eps^(1/5) of the dtype (7e-4 or 4e-2). The error is
            about h^4 plus the solver's own error over h, so ask the solver for a tight `tol`.
        batch: how many perturbed solves run at once; None runs all in one `vmap`.

    Forward and reverse mode; orders above the first are differences of differences and lose digits fast.
    For the few inputs of a solve whose objective has no second derivative, and as an oracle.
    Cost: 4 solves for every number among the differentiated inputs.

    >>> import jax, nestor
    >>> y = lambda x: nestor.argmin(lambda z: (z - x) ** 2, 0.0, adjoint=nestor.FiniteDifference())
    >>> bool(abs(jax.grad(y)(1.0) - 1.0) < 1e-2)
    True
    """

    step: float | None = None
    batch: int | None = None

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""

        def solve(inputs: Tree) -> Answer:
            return read(inputs, *to_the_end(loop, inputs))

        def rule(inputs: Tree, perturbed: list[Any], merge: Any, t: list[Any]) -> Any:
            answer = solution(inputs)
            point, back = trees.ravel(perturbed)
            direction, _ = trees.ravel(t)
            eps = float(jnp.finfo(point.dtype).eps)
            h = jnp.maximum(jnp.abs(point), 1) * (eps**0.2 if self.step is None else self.step)

            def difference(unit: jax.Array) -> tuple[Tree, jax.Array]:
                def at(multiple: int) -> tuple[Tree, jax.Array]:
                    moved = solution(merge(back(point + multiple * (unit * h))))
                    return moved.x, moved.value

                near = trees.subtract(at(1), at(-1))
                far = trees.subtract(at(2), at(-2))
                eight = trees.subtract(trees.scale(8.0, near), far)
                return trees.scale(1 / (12 * jnp.vdot(unit, h)), eight)

            units = jnp.eye(point.size, dtype=point.dtype)
            if self.batch is None:
                rows = jax.vmap(difference)(units)
            else:
                rows = jax.lax.map(difference, units, batch_size=self.batch)
            dx, dvalue = jax.tree.map(lambda r: jnp.tensordot(direction.astype(r.dtype), r, axes=1), rows)
            return answer, Answer(dx, dvalue, None)

        solution = trees.custom_jvp_on_perturbed(solve, rule)
        return solution
