"""One loop, four ways to run it: the same numbers, other derivatives and another memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees

Tree = Any


class Loop(NamedTuple):
    """An iteration as data; it knows nothing of solvers.

    Attributes:
        start: inputs -> carry.
        turn: (inputs, carry) -> carry, of the same shapes and dtypes.
        running: carry -> bool scalar, whether another turn is wanted.
        bound: the largest number of turns.
        ahead: carry -> (the point that the next turn would visit, whether the loop ended there by itself).
    """

    start: Callable[[Tree], Tree]
    turn: Callable[[Tree, Tree], Tree]
    running: Callable[[Tree], jax.Array]
    bound: int
    ahead: Callable[[Tree], tuple[Tree, jax.Array]]


def to_the_end(loop: Loop, inputs: Tree) -> Tree:
    """Run until done: a `while` loop. Memory: one carry. Derivatives: forward mode only."""

    def more(indexed: tuple[jax.Array, Tree]) -> jax.Array:
        count, carry = indexed
        return loop.running(carry) & (count < loop.bound)

    def body(indexed: tuple[jax.Array, Tree]) -> tuple[jax.Array, Tree]:
        count, carry = indexed
        return count + 1, loop.turn(inputs, carry)

    return jax.lax.while_loop(more, body, (jnp.int32(0), loop.start(inputs)))[1]


def every_turn(loop: Loop, inputs: Tree) -> Tree:
    """Run all turns in a scan; differentiable to any order. Memory of a reverse pass: `bound` carries."""
    start = loop.start(inputs)
    return _scan(loop, inputs, start, start, loop.bound)


def last_turns(loop: Loop, inputs: Tree, last: int) -> Tree:
    """Run to the end and differentiate only the last `last` turns.

    The carries of the last turns are kept in a ring while a `while` loop runs; the turns from the oldest of
    them on are then run again, differentiably. Memory: `last` carries, twice.
    """
    again = min(last, loop.bound)
    size = max(again, 1)
    constant = jax.tree.map(_constant, inputs)
    start = loop.start(constant)
    ring = trees.vectors_like(start, size)

    def more(indexed: tuple[jax.Array, Tree, Tree]) -> jax.Array:
        count, carry, _ = indexed
        return loop.running(carry) & (count < loop.bound)

    def body(indexed: tuple[jax.Array, Tree, Tree]) -> tuple[jax.Array, Tree, Tree]:
        count, carry, ring = indexed
        ring = jax.tree.map(lambda r, c: r.at[count % size].set(c), ring, carry)
        return count + 1, loop.turn(constant, carry), ring

    count, end, ring = jax.lax.while_loop(more, body, (jnp.int32(0), start, ring))
    oldest = jax.tree.map(lambda r: r[jnp.maximum(count - size, 0) % size], ring)
    oldest = trees.select(count > 0, oldest, end)
    oldest = jax.tree.map(_constant, oldest)
    return _scan(loop, inputs, oldest, oldest, again)


def rematerialised(loop: Loop, inputs: Tree, levels: int) -> Tree:
    """Run all turns in nested scans that keep only the carries at their seams and recompute the rest.

    With L levels the memory of a reverse pass is about L * bound^(1/L) carries, its time L + 1 forward runs.
    Differentiable again, to any order.
    """
    width = max(2, math.ceil(loop.bound ** (1 / levels)))
    while width**levels < loop.bound:
        width += 1
    start = loop.start(inputs)

    def run(carry: Tree, level: int) -> Tree:
        if level == 0:
            return _guarded_turn(loop, inputs, start, carry)
        inner = jax.checkpoint(lambda c: run(c, level - 1))

        def block(c: Tree, _: None) -> tuple[Tree, None]:
            return jax.lax.cond(loop.running(c[1]) & (c[0] < loop.bound), inner, lambda x: x, c), None

        return jax.lax.scan(block, carry, None, length=width)[0]

    def _guarded_turn(loop: Loop, inputs: Tree, safe: Tree, counted: Tree) -> Tree:
        count, carry = counted
        running = loop.running(carry) & (count < loop.bound)
        return count + 1, _turn_or_rest(loop, inputs, safe, carry, running)

    return run((jnp.int32(0), start), levels)[1]


def _scan(loop: Loop, inputs: Tree, start: Tree, safe: Tree, length: int) -> Tree:
    def body(carry: Tree, _: None) -> tuple[Tree, None]:
        running = loop.running(carry)
        turn = lambda c: _turn_or_rest(loop, inputs, safe, c, running)  # noqa: E731
        return jax.lax.cond(running, turn, lambda c: c, carry), None

    return jax.lax.scan(body, start, None, length=length)[0]


def _turn_or_rest(loop: Loop, inputs: Tree, safe: Tree, carry: Tree, running: jax.Array) -> Tree:
    """A turn, or the carry as it is; under `vmap` a resting lane repeats its first turn in vain.

    A batched `cond` computes both branches. A turn at a point where the lane has already converged may divide
    by zero, and zero times infinity would poison the derivative of the branch that is not taken; the first
    turn is known to be harmless.
    """
    turned = loop.turn(inputs, trees.select(running, carry, safe))
    return trees.select(running, turned, carry)


def _constant(leaf: Any) -> Any:
    return jax.lax.stop_gradient(leaf)
