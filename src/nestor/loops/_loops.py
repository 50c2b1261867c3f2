"""One loop, four ways to run it: the same numbers, other derivatives and another memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees

Tree = Any
Made = tuple[jax.Array, Tree, Tree]  # turns made, carry, record


class Loop(NamedTuple):
    """An iteration as data; it knows nothing of solvers or models.

    Attributes:
        start: inputs -> carry.
        turn: (inputs, carry) -> carry, of the same shapes and dtypes.
        running: carry -> bool scalar, whether another turn is wanted.
        bound: the largest number of turns.
        ahead: (inputs, carry) -> (the point that the next turn would visit, whether the loop ended there by itself);
            None for an iteration whose last carry is the answer itself.
        seen: carry -> what is recorded after every turn, a tree of arrays; None records nothing.
        reversal: how a turn is undone, for loops that can run backwards (see `Reversal`); None for others.
        fixed: whether all `bound` turns are always made, so that nothing needs to be asked or guarded.
    """

    start: Callable[[Tree], Tree]
    turn: Callable[[Tree, Tree], Tree]
    running: Callable[[Tree], jax.Array]
    bound: int
    ahead: Callable[[Tree, Tree], tuple[Tree, jax.Array]] | None = None
    seen: Callable[[Tree], Tree] | None = None
    reversal: Any = None
    fixed: bool = False

    def record(self, carry: Tree) -> Tree:
        """What is recorded of a carry: an empty tree where nothing is."""
        return () if self.seen is None else self.seen(carry)


# Every way to run a loop returns the last carry and the record: for each array of `seen` one with a leading
# axis of length `bound`. Rows of turns that were not made hold no information.


def to_the_end(loop: Loop, inputs: Tree) -> tuple[Tree, Tree]:
    """Run until done: a `while` loop. Memory: one carry. Derivatives: forward mode only."""
    made = begun(loop, inputs)
    if loop.fixed and loop.bound <= 1:
        return _scan(loop, inputs, made[1], made[1], loop.bound)
    return onward(loop, inputs, made, loop.bound)[1:]


def begun(loop: Loop, inputs: Tree) -> Made:
    """A run before its first turn: no turns made, the first carry, an empty record."""
    start = loop.start(inputs)
    return jnp.int32(0), start, trees.vectors_like(loop.record(start), loop.bound)


def onward(loop: Loop, inputs: Tree, made: Made, limit: int | jax.Array) -> Made:
    """Go on with a run until it is done, or until `limit` turns of it are made, counted from its start.

    Args:
        loop: the iteration.
        inputs: of the turns from here on.
        made: how far the run has come: the number of turns made (int32), the carry, the record.
        limit: a number of turns, traced or not.

    Returns:
        The same three. Derivatives: forward mode only.
    """

    def more(made: Made) -> jax.Array:
        count, carry, _ = made
        return loop.running(carry) & (count < limit)

    def body(made: Made) -> Made:
        count, carry, rows = made
        carry = loop.turn(inputs, carry)
        return count + 1, carry, _noted(rows, count, loop.record(carry))

    return jax.lax.while_loop(more, body, made)


def every_turn(loop: Loop, inputs: Tree) -> tuple[Tree, Tree]:
    """Run all turns in a scan; differentiable to any order. Memory of a reverse pass: `bound` carries."""
    start = loop.start(inputs)
    return _scan(loop, inputs, start, start, loop.bound)


def last_turns(loop: Loop, inputs: Tree, last: int) -> tuple[Tree, Tree]:
    """Run to the end and differentiate only the last `last` turns.

    The carries of the last turns are kept in a ring while a `while` loop runs; the turns from the oldest of
    them on are then run again, differentiably. Memory: `last` carries, twice.
    """
    again = min(last, loop.bound)
    size = max(again, 1)
    constant = jax.tree.map(_constant, inputs)
    made = begun(loop, constant)
    if loop.fixed:
        return _last_of_fixed(loop, inputs, constant, made, again)
    none, start, rows = made
    ring = trees.vectors_like(start, size)

    def more(indexed: tuple[jax.Array, Tree, Tree, Tree]) -> jax.Array:
        count, carry, _, _ = indexed
        return loop.running(carry) & (count < loop.bound)

    def body(indexed: tuple[jax.Array, Tree, Tree, Tree]) -> tuple[jax.Array, Tree, Tree, Tree]:
        count, carry, ring, rows = indexed
        ring = _noted(ring, count % size, carry)
        carry = loop.turn(constant, carry)
        return count + 1, carry, ring, _noted(rows, count, loop.record(carry))

    count, end, ring, rows = jax.lax.while_loop(more, body, (none, start, ring, rows))
    first = jnp.maximum(count - size, 0)
    oldest = jax.tree.map(lambda r: r[first % size], ring)
    oldest = trees.select(count > 0, oldest, end)
    oldest = jax.tree.map(_constant, oldest)
    end, latest = _scan(loop, inputs, oldest, oldest, again)
    place = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, first, 0)  # noqa: E731
    return end, jax.tree.map(place, jax.tree.map(_constant, rows), latest)


def _last_of_fixed(loop: Loop, inputs: Tree, constant: Tree, made: Made, again: int) -> tuple[Tree, Tree]:
    """Where it is known beforehand which turns are the last, none is made twice."""
    before = loop.bound - again
    _, carry, rows = onward(loop, constant, made, before) if before else made
    carry, rows = jax.tree.map(_constant, (carry, rows))
    end, latest = _scan(loop, inputs, carry, carry, again)
    return end, jax.tree.map(lambda old, new: old.at[before:].set(new), rows, latest)


def rematerialised(loop: Loop, inputs: Tree, levels: int) -> tuple[Tree, Tree]:
    """Run all turns in nested scans that keep only the carries at their seams and recompute the rest.

    With L levels the memory of a reverse pass is about L * bound^(1/L) carries, its time L + 1 forward runs.
    Differentiable again, to any order.
    """
    width = max(2, math.ceil(loop.bound ** (1 / levels)))
    while width**levels < loop.bound:
        width += 1
    start = loop.start(inputs)

    def run(counted: Tree, level: int) -> tuple[Tree, Tree]:
        if level == 0:
            return _guarded_turn(counted)

        def rest(counted: Tree) -> tuple[Tree, Tree]:
            return counted, trees.vectors_like(loop.record(counted[1]), width ** (level - 1))

        @jax.checkpoint  # around the branch: one inside it would keep a copy of the inputs for every turn
        def block(counted: Tree) -> tuple[Tree, Tree]:
            running = loop.running(counted[1]) & (counted[0] < loop.bound)
            return jax.lax.cond(running, lambda c: run(c, level - 1), rest, counted)

        counted, rows = jax.lax.scan(lambda c, _: block(c), counted, None, length=width)
        return counted, jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:]), rows)

    def _guarded_turn(counted: Tree) -> tuple[Tree, Tree]:
        count, carry = counted
        running = loop.running(carry) & (count < loop.bound)
        carry = _turn_or_rest(loop, inputs, start, carry, running)
        row = loop.record(carry)
        row = trees.select(running, row, trees.zeros_like(row))
        return (count + 1, carry), jax.tree.map(lambda leaf: leaf[None], row)

    (_, carry), rows = run((jnp.int32(0), start), levels)
    return carry, jax.tree.map(lambda r: r[: loop.bound], rows)


def _scan(loop: Loop, inputs: Tree, start: Tree, safe: Tree, length: int) -> tuple[Tree, Tree]:
    if loop.fixed:
        return _fixed_scan(loop, inputs, start, length)

    def body(carry: Tree, _: None) -> tuple[Tree, Tree]:
        running = loop.running(carry)
        turn = lambda c: _turn_or_rest(loop, inputs, safe, c, running)  # noqa: E731
        carry = jax.lax.cond(running, turn, lambda c: c, carry)
        return carry, loop.record(carry)

    return jax.lax.scan(body, start, None, length=length)


def _fixed_scan(loop: Loop, inputs: Tree, start: Tree, length: int) -> tuple[Tree, Tree]:
    def body(carry: Tree, _: None) -> tuple[Tree, Tree]:
        carry = loop.turn(inputs, carry)
        return carry, loop.record(carry)

    if length == 1:  # a scan of one turn would still be compiled as a loop
        carry, row = body(start, None)
        return carry, jax.tree.map(lambda leaf: leaf[None], row)
    return jax.lax.scan(body, start, None, length=length)


def _turn_or_rest(loop: Loop, inputs: Tree, safe: Tree, carry: Tree, running: jax.Array) -> Tree:
    """A turn, or the carry as it is; under `vmap` a resting lane repeats its first turn in vain.

    A batched `cond` computes both branches. A turn at a point where the lane has already converged may divide
    by zero, and zero times infinity would poison the derivative of the branch that is not taken; the first
    turn is known to be harmless.
    """
    turned = loop.turn(inputs, trees.select(running, carry, safe))
    return trees.select(running, turned, carry)


def _noted(rows: Tree, place: jax.Array, entry: Tree) -> Tree:
    return jax.tree.map(lambda r, e: r.at[place].set(e), rows, entry)


def _constant(leaf: Any) -> Any:
    return jax.lax.stop_gradient(leaf)
