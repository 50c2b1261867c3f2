"""Reverse mode through a loop in the memory of a few carries: binomial checkpointing."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.loops._loops import Loop

Tree = Any


@functools.lru_cache(maxsize=16)
def binomial_schedule(length: int, slots: int) -> np.ndarray:
    """The order of work that reverses a loop with the fewest forward turns.

    Args:
        length: number of turns to reverse, the last one first.
        slots: number of carries that can be stored, the start among them.

    Returns:
        The actions, an int32 array. Each begins at the newest stored carry; at first that is the start.

        - -n: make n turns and store the carry that they lead to;
        - n >= 0: make n turns and reverse the one that comes next. With n = 0 it came from the newest stored
          carry itself, which is then dropped.

    With r the least number for which C(slots + r, r) >= length, no turn is made forward more than r times, and
    all together r length - C(slots + r, r - 1) times; no schedule does with less.
    Source: Griewank, Walther 2000, "Algorithm 799: revolve", proposition 1.

    >>> binomial_schedule(4, 2).tolist()  # store turn 2; 3 from there, 2; 1 from the start, 0
    [-2, 1, 0, 1, 0]
    """
    actions = []
    sections = [(length, slots)] if length else []  # each begins at a stored carry; the last one comes first
    while sections:
        length, slots = sections.pop()
        if length == 1:
            actions.append(0)
            continue
        turns = _split(length, slots)
        sections.append((turns, slots))
        if turns == length - 1:
            actions.append(turns)
        else:
            actions.append(-turns)
            sections.append((length - turns, slots - 1))
    schedule = np.asarray(actions, np.int32)
    schedule.flags.writeable = False
    return schedule


@functools.lru_cache(maxsize=4096)
def _split(length: int, slots: int) -> int:
    """Where to store next: each part is then as long as r - 1 or r sweeps reach, and no longer."""
    if slots == 1:
        return length - 1
    sweeps, reach = 0, 1
    while reach < length:
        sweeps += 1
        reach = reach * (slots + sweeps) // sweeps
    left_at_most = math.comb(slots + sweeps - 1, slots)
    right_at_least = math.comb(slots + sweeps - 2, slots - 1)
    return min(left_at_most, length - right_at_least)


def reverse_binomially(
    loop: Loop, inputs: Tree, slots: int, end_cotangent: Tree, seen_cotangent: Tree
) -> Tree:
    """The cotangent of a loop's inputs, in the memory of `slots` carries.

    Args:
        loop: the iteration.
        inputs: a tree of floating-point arrays.
        slots: number of carries that are stored, the start among them.
        end_cotangent: of the last carry: a tree like it, of which only the floating-point leaves are read.
        seen_cotangent: the same of the record; rows of turns that were not made are not read.

    Returns:
        A tree like `inputs`.

    The turns are those of `binomial_schedule`, and one more for each that is reversed. One program whatever
    the length: `turn` stands in it twice, once with its derivative. The result is not meant to be
    differentiated again (see `trees.linear_map`).
    """
    start, pull_start = _pulled_start(loop, inputs)
    end = _floats_along(start, end_cotangent)
    rows = _floats_along(jax.eval_shape(loop.record, start), seen_cotangent)
    total = trees.zeros_like(inputs)
    if loop.bound:
        slots = max(1, min(slots, loop.bound))
        schedule = jnp.asarray(binomial_schedule(loop.bound, slots))
        act = functools.partial(_act, loop, inputs, schedule)
        reverse_turn = functools.partial(_reverse_turn, loop, inputs)

        def reverse_one(state: Tree, row: Tree) -> tuple[Tree, None]:
            place, cotangent, total = state
            at, top, stored, carry, _ = jax.lax.while_loop(lambda p: p[-1], act, place)
            made = loop.running(carry)
            rest = lambda carry, row, cotangent, total: (cotangent, total)  # noqa: E731
            cotangent, total = jax.lax.cond(made, reverse_turn, rest, carry, row, cotangent, total)
            top = top - (schedule[at - 1] == 0).astype(jnp.int32)
            return ((at, top, stored, carry, jnp.asarray(True)), cotangent, total), None

        stored = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (slots, *leaf.shape)), start)
        place = (jnp.int32(0), jnp.int32(0), stored, start, jnp.asarray(True))
        state, _ = jax.lax.scan(reverse_one, (place, end, total), rows, length=loop.bound, reverse=True)
        _, end, total = state
    return trees.add(total, pull_start(end)[0])


def _act(loop: Loop, inputs: Tree, schedule: jax.Array, place: tuple[Any, ...]) -> tuple[Any, ...]:
    """One action, without the reversal: (the next action, the newest slot, slots, carry, whether stored)."""
    at, top, stored, _, _ = place
    newest = jax.tree.map(lambda s: jax.lax.dynamic_index_in_dim(s, top, keepdims=False), stored)
    carry = _advanced(loop, inputs, newest, jnp.abs(schedule[at]))
    stores = schedule[at] < 0
    top = top + stores.astype(jnp.int32)
    entry = trees.select(stores, carry, newest)  # what is not stored is written as it was
    write = lambda s, e: jax.lax.dynamic_update_index_in_dim(s, e, top, 0)  # noqa: E731
    return at + 1, top, jax.tree.map(write, stored, entry), carry, stores


def _advanced(loop: Loop, inputs: Tree, carry: Tree, turns: jax.Array) -> Tree:
    """The carry some turns later, or where the loop ended by itself."""

    def more(counted: tuple[jax.Array, Tree]) -> jax.Array:
        return (counted[0] < turns) & loop.running(counted[1])

    def body(counted: tuple[jax.Array, Tree]) -> tuple[jax.Array, Tree]:
        return counted[0] + 1, loop.turn(inputs, counted[1])

    return jax.lax.while_loop(more, body, (jnp.int32(0), carry))[1]


def _reverse_turn(
    loop: Loop, inputs: Tree, carry: Tree, row: list[Any], cotangent: list[Any], total: Tree
) -> tuple[list[Any], Tree]:
    """From the cotangents after a turn to those before it."""

    def turned(inputs: Tree, floats: list[Any]) -> tuple[list[Any], list[Any]]:
        after = loop.turn(inputs, trees.with_floats(carry, floats))
        return trees.floats(after), trees.floats(loop.record(after))

    of_inputs, before = jax.vjp(turned, inputs, trees.floats(carry))[1]((cotangent, row))
    return before, trees.add(total, of_inputs)


def _pulled_start(loop: Loop, inputs: Tree) -> tuple[Tree, Any]:
    def started(inputs: Tree) -> tuple[list[Any], Tree]:
        start = jax.tree.map(jnp.asarray, loop.start(inputs))
        return trees.floats(start), start

    _, pull, start = jax.vjp(started, inputs, has_aux=True)
    return start, pull


# Only floating-point leaves have cotangents; these are kept as lists, in the order of the leaves.


def _floats_along(tree: Tree, other: Tree) -> list[Any]:
    """The leaves of `other` that stand where `tree` has floating-point leaves."""
    leaves, structure = jax.tree.flatten(tree)
    along = structure.flatten_up_to(other)
    return [entry for leaf, entry in zip(leaves, along, strict=True) if trees.is_float(leaf)]
