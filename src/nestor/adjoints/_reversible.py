"""Runs of optimizers that are made backwards, bit for bit, while they are differentiated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.adjoints._contract import Answer, Condition, Read
from nestor.adjoints._crossing import differentiable_run, on_perturbed
from nestor.errors import BadArgument, ReversalFailed
from nestor.loops import INT32, INT64, Loop, Machine, rematerialised

Tree = Any


@trees.record
class Reversible:
    """Differentiate every step, running the optimizer backwards exactly instead of storing its states.

    The state is held in integers. A multiplication by the momentum loses log2(1/momentum) bits a step, which go
    onto a stack; everything else can be undone. So a run of T steps stores T log2(1/momentum) bits for each
    parameter instead of T states. The gradient is computed again on the way back, and must come out the same;
    at the start it is checked that every bit is back in its place, so a wrong derivative is never returned.

    For `nestor.train` with `sgd` (with or without momentum, Nesterov), `rmsprop`, `adagrad`, `adam`, `adamw`
    and `leapfrog`. Steps without memory (no momentum, Nesterov, `adagrad`, `rmsprop` without momentum) cannot
    be undone from where they lead to: they store half a word a step (16 or 32 bits), and 2^-16 or 2^-32 of each step
    is left over in the next, so in int32 their numbers agree with those of other adjoints to about 1e-4 only.

    Args:
        snapshots: c; None stores the bits of the whole run. A number keeps c states, and the bits of one
            stretch between two of them at a time, for one more forward run: for very long runs, best near
            c = sqrt(T b / 64) with b bits a step.
        bits: room on the stack, in bits for each parameter (of the whole run). None: found from the momentum
            and the weight decay where they are known when `train` is called; else one bit a step, or, if it is
            the decay alone that is traced, a sixteenth for it.
        width: "int32" or "int64"; None is int64 where JAX has 64-bit numbers switched on. 32 bits resolve 3e-8
            (positions to 32, velocities to 64), 64 bits 1e-12 (both to 1024).
        on_mismatch: what happens if the start does not come back: "raise"; "checkpoint" computes the derivative
            again by `Checkpoint`; "nan".

    Cost: about four forward runs in all (one more with snapshots), memory about seven states and the bits.
    Forward mode and derivatives above the first are those of the steps in floating point, recomputed like
    ``Checkpoint(levels=2)``: right to rounding. Values and first derivatives are those of the steps in integers.
    A momentum must lie between 1/256 and 1.

    Source: Maclaurin, Duvenaud, Adams 2015, algorithms 2 and 3.

    >>> import jax, nestor
    >>> def end(rate):
    ...     optimizer = nestor.sgd(rate, momentum=0.5)
    ...     return nestor.train(lambda x, _: x**2, 1.0, None, optimizer=optimizer, steps=2,
    ...                         adjoint=nestor.Reversible()).params  # 1 - 2 r - 2 r (0.5 + 1 - 2 r)
    >>> round(float(jax.grad(end)(0.25)), 4)
    -3.0
    """

    snapshots: int | None = None
    bits: float | None = None
    width: Literal["int32", "int64"] | None = None
    on_mismatch: Literal["raise", "checkpoint", "nan"] = dataclasses.field(default="raise")

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""
        if loop.reversal is None:
            raise BadArgument(
                "Reversible",
                "adjoint",
                got="used for a solve that cannot be run backwards",
                want="used for training runs by an optimizer of Nestor's",
                do="use nestor.Checkpoint() or nestor.Implicit()",
            )
        machine = self._machine(loop)

        def push_run(inputs: Tree) -> Tree:
            return rematerialised(loop, inputs, levels=2)

        def pull(perturbed: list[Any], merge: Any, outcome: Tree, cotangent: Tree) -> list[Any]:
            slopes, good = machine.backward(perturbed, merge, outcome, cotangent)
            if self.on_mismatch == "checkpoint":

                def again() -> list[Any]:
                    own = on_perturbed(loop, merge)
                    run = lambda p: trees.floats(rematerialised(own, p, levels=2))  # noqa: E731
                    return jax.vjp(run, perturbed)[1](trees.floats(cotangent))[0]

                return jax.lax.cond(good, lambda: slopes, again)
            if self.on_mismatch == "raise":
                good = _raise_unless(good)
            return trees.select(good, slopes, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), slopes))

        crossing = differentiable_run(machine.forward, push_run, pull)

        def solve(inputs: Tree) -> Answer:
            carry, seen, _ = crossing(inputs)
            answer = read(inputs, carry, seen)
            return answer._replace(record=trees.stop_gradient(answer.record))

        return solve

    def _machine(self, loop: Loop) -> Machine:
        wide = self.width or ("int64" if jax.dtypes.canonicalize_dtype(np.int64) == np.int64 else "int32")
        bits = float(loop.bound) if self.bits is None else self.bits
        if self.snapshots is not None:
            bits = bits / min(self.snapshots, loop.bound) + 8
        rows = int(bits) // 8 + 1
        return Machine(loop.reversal, INT32 if wide == "int32" else INT64, loop.bound, rows, self.snapshots)


def _raise_unless(good: jax.Array) -> jax.Array:
    """The same bool, after an exception on the host if it is false."""
    return jax.pure_callback(_judge, jax.ShapeDtypeStruct((), jnp.bool_), good, vmap_method="sequential")


def _judge(good: Any) -> Any:
    if not bool(good):
        raise ReversalFailed(
            "Reversible(): the run backwards did not return to its start bit for bit, so its derivative would "
            "be wrong.\nDo this: give the stack more room with Reversible(bits=...) if momentum or decay was traced; "
            'else the gradient came out differently in the two directions: Reversible(on_mismatch="checkpoint").'
        )
    return np.bool_(good)
