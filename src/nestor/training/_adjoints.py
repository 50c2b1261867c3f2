"""Which adjoint a run gets when none is asked for, and what it must know of the run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from nestor import trees
from nestor.adjoints import Checkpoint, Implicit, Reversible, check_adjoint
from nestor.errors import BadArgument
from nestor.loops import Rule
from nestor.programs import is_traced
from nestor.training._run import Inputs, Plan

STORED = 256e6  # bytes of stored states that `adjoint=None` allows itself


def choose(plan: Plan, inputs: Inputs, adjoint: Any) -> Any:
    """The adjoint of a run: the one asked for, checked against the run, or by the documented rule."""
    if adjoint is None:
        adjoint = _by_size(plan, inputs)
    check_adjoint("train", adjoint)
    if isinstance(adjoint, Implicit) and plan.batches.function is not None:
        raise BadArgument(
            "train",
            "adjoint",
            got=adjoint,
            want="one that goes through the steps where the data is a function: its loss on all data is unknown",
            do="pass the data as arrays, or adjoint=nestor.Checkpoint()",
        )
    if isinstance(adjoint, Implicit) and plan.rule is not None and plan.rule.shrink:
        raise BadArgument(
            "train",
            "adjoint",
            got=adjoint,
            want="one that goes through the steps: with decoupled decay no run ends where the gradient is zero",
            do="put the decay into the loss as an L2 term and use nestor.adam, or adjoint=nestor.Checkpoint()",
        )
    if isinstance(adjoint, Reversible):
        return _reversible(plan, inputs, adjoint)
    return adjoint


def state_bytes(inputs: Inputs, slots: int) -> int:
    """Bytes of the parameters and the optimizer's slots."""
    leaves = jax.tree.leaves(inputs.params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) * (1 + slots)


def _by_size(plan: Plan, inputs: Inputs) -> Any:
    slots = len(plan.rule.slots) if plan.rule is not None else 2
    one = state_bytes(inputs, slots)
    if plan.steps * one <= STORED:
        return Checkpoint(levels=1)
    if plan.rule is not None and lost_bits(plan, inputs) is not None and plan.patience is None:
        return Reversible()
    return Checkpoint(slots=max(2, int(STORED // max(one, 1))))


def _reversible(plan: Plan, inputs: Inputs, adjoint: Reversible) -> Reversible:
    if plan.rule is None:
        raise BadArgument(
            "train",
            "adjoint",
            got=adjoint,
            want="another adjoint for this optimizer: optax transformations and tuned ones cannot be run backwards",
            do="use nestor.sgd, rmsprop, adam or adamw, or adjoint=nestor.Checkpoint()",
        )
    if adjoint.bits is not None:
        return adjoint
    return with_room(adjoint, plan.rule, trees.join(inputs.optimizer, plan.optimizer), plan.steps)


def with_room(adjoint: Reversible, rule: Rule, optimizer: Any, steps: int, again: int = 1) -> Reversible:
    """The adjoint with room on its stack for what such a run loses; one bit a step while that is traced.

    Args:
        adjoint: as it was asked for; if it says how many bits, it is returned as it is.
        rule, optimizer: of the run.
        steps: of the run.
        again: how many such runs follow each other, each with the room of the worst.
    """
    if adjoint.bits is not None:
        return adjoint
    each = [_bits(rule, optimizer, steps, adjoint.snapshots, run * steps) for run in range(again)]
    known = [bits for bits in each if bits is not None]
    return dataclasses.replace(adjoint, bits=_rounded_up(max(known)) if known else float(steps))


def lost_bits(plan: Plan, inputs: Inputs, snapshots: int | None = None) -> float | None:
    """The bits that the multiplications of the whole run lose, for each parameter; None while they are traced.

    A traced weight decay is taken to leave 0.958 of the parameters a step, or more: a sixteenth of a bit. With
    snapshots: what the bits would be if every stretch lost as many as the worst one.
    """
    assert plan.rule is not None
    return _bits(plan.rule, trees.join(inputs.optimizer, plan.optimizer), plan.steps, snapshots)


def _bits(rule: Rule, optimizer: Any, count: int, snapshots: int | None, first: int = 0) -> float | None:
    names = list(rule.scaled.values())
    if not names:
        return 0.0
    steps = np.arange(first, first + count, dtype=np.int32)
    table = jax.vmap(lambda t: {n: optimizer.coefficients(optimizer.values(t), t)[n] for n in names})(steps)
    table = jax.lax.stop_gradient(table)
    segments = 1 if snapshots is None else min(snapshots, count)
    length = -(-count // segments)

    def worst(leaf: Any) -> float:
        bits = -np.log2(np.clip(np.asarray(leaf, np.float64), 2.0**-16, 1.0))
        return float(np.pad(bits, (0, segments * length - count)).reshape(segments, length).sum(axis=1).max())

    total = 0.0
    for name in names:
        leaves = jax.tree.leaves(table[name])
        if not is_traced(leaves):
            total += segments * max(map(worst, leaves))
        elif name == rule.shrink:
            total += count / 16
        else:
            return None
    return total


def _rounded_up(bits: float) -> float:
    """A little more, and one of few numbers, so that another momentum seldom compiles another program."""
    room = bits + 64
    unit = 2.0 ** max(math.floor(math.log2(room)) - 5, 3)
    return math.ceil(room / unit) * unit
