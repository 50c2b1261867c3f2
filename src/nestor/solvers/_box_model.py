"""The quasi-Newton model of L-BFGS, and its minimizer in a box: how L-BFGS moves where there are bounds.

With the pairs (s, y) of the last moves scaled so that s'y = 1, the model's Hessian is the compact form

    B = t I - W' M W,   W = [Y; t S],   M^-1 = [[-I, L'], [L, t S S']],   L = the part of S Y' below its diagonal.

Source: Byrd, Nocedal and Schnabel 1994, (3.7); Byrd, Lu, Nocedal and Zhu 1995.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nestor.solvers import _descent
from nestor.solvers._bounds import Box

_ROUNDS = 6  # guesses, at most, of which unknowns the model leaves free


class Pairs(NamedTuple):
    """The last moves, each scaled so that s'y = 1.

    Attributes:
        rows: Y above S, shape (2 m, n).
        products: of all rows with all rows, shape (2 m, 2 m).
        scale: y'y / s'y of the last pair, in the entries that moved: how curved the objective is there.
        moves: how many pairs there were; the last m of them are kept, place `moves % m` is written next.
    """

    rows: jax.Array
    products: jax.Array
    scale: jax.Array
    moves: jax.Array


class Boxed(NamedTuple):
    """The `Rule` of L-BFGS in a box, for vectors: the direction leads to the model's minimizer in the box.

    Attributes:
        length: pairs that are kept.
    """

    length: int

    def empty(self, x: jax.Array) -> Pairs:
        """See `Rule`."""
        m = self.length
        return Pairs(
            jnp.zeros((2 * m, x.size), x.dtype),
            jnp.zeros((2 * m, 2 * m), x.dtype),
            jnp.ones((), x.dtype),
            jnp.zeros((), jnp.int32),
        )

    def is_empty(self, memory: Pairs) -> jax.Array:
        """See `Rule`."""
        return memory.moves == 0

    def forget(self, memory: Pairs, when: jax.Array) -> Pairs:
        """See `Rule`."""
        return memory._replace(scale=jnp.where(when, 1, memory.scale), moves=jnp.where(when, 0, memory.moves))

    def remember(self, memory: Pairs, move: _descent.Move, when: jax.Array) -> Pairs:
        """See `Rule`."""
        sy, _, curved = _descent.curvature(move.step, move.change)
        moved = jnp.where(move.step != 0, move.change, 0)  # entries at a bound say nothing of the scale
        use = when & curved
        sy = jnp.where(use, sy, 1)
        place = memory.moves % self.length
        at = jnp.stack([place, place + self.length])
        new = jnp.where(use, jnp.stack([move.change, move.step]) / jnp.sqrt(sy), memory.rows[at])
        rows = memory.rows
        for one, where in zip(new, at, strict=True):
            rows = jax.lax.dynamic_update_index_in_dim(rows, one, where, 0)
        with_new = _times(rows, new.T)
        products = memory.products.at[:, at].set(with_new).at[at].set(with_new.T)
        return Pairs(
            rows,
            products,
            jnp.where(use, jnp.vdot(moved, moved) / sy, memory.scale),
            memory.moves + use.astype(jnp.int32),
        )

    def direction(self, memory: Pairs, grad: jax.Array, x: jax.Array, box: Box) -> jax.Array:
        """From x to the minimizer of the model in the box."""
        return _step(_model(memory), grad, box.lower - x, box.upper - x)

    def first_length(self, memory: Pairs, guess: jax.Array, last: jax.Array) -> jax.Array:
        """See `Rule`."""
        return jnp.where(memory.moves > 0, jnp.ones_like(guess), guess)


class _Model(NamedTuple):
    """The Hessian B of the model; see the head of this file.

    Attributes:
        rows: Y above S, shape (2 m, n).
        weight: (2 m,) of the rows in W: one or t, zero where there is no pair yet.
        scale: t.
        below: (m, m), whether the row's pair is newer than the column's.
        middle: M, (2 m, 2 m).
    """

    rows: jax.Array
    weight: jax.Array
    scale: jax.Array
    below: jax.Array
    middle: jax.Array

    def down(self, v: jax.Array) -> jax.Array:
        """W v."""
        return self.weight * _times(self.rows, v)

    def up(self, c: jax.Array) -> jax.Array:
        """W' c."""
        return _times(self.weight * c, self.rows)

    def times(self, v: jax.Array) -> jax.Array:
        """B v."""
        return self.scale * v - self.up(_times(self.middle, self.down(v)))

    def solve(self, free: jax.Array, right: jax.Array) -> jax.Array:
        """v with (B v = right) in the free entries, and zero in all others.

        By the formula of Sherman, Morrison and Woodbury, with K = M^-1 - W_F W_F' / t; the blocks of K are
        formed without cancellation, as in Byrd et al. 1995, section 5.1.
        """
        mask = free.astype(right.dtype)
        m = self.below.shape[0]
        parts = jnp.repeat(jnp.stack([mask, 1 - mask]), m, axis=0) * self.rows  # Y_F above S_H
        inner = _times(self.rows, parts.T)
        corner = jnp.where(self.below, inner[:m, m:].T, -inner[m:, :m])
        k = _saddle(inner[:m, :m] / self.scale, corner, inner[m:, m:], self.weight, self.scale)
        right = mask * right
        v = self.up(jnp.linalg.solve(k, self.down(right)))
        return mask * (right + v / self.scale) / self.scale


def _saddle(
    head: jax.Array, corner: jax.Array, tail: jax.Array, weight: jax.Array, scale: jax.Array
) -> jax.Array:
    """[[-I - head, corner'], [corner, t tail]], in places without a pair the same with nothing but -1 and 1."""
    m = head.shape[0]
    used = weight[:m]
    both = used[:, None] * used[None, :]
    eye = jnp.eye(m, dtype=head.dtype)
    corner = both * corner
    return jnp.block([[-eye - both * head, corner.T], [corner, both * scale * tail + jnp.diag(1 - used)]])


def _model(pairs: Pairs) -> _Model:
    m = pairs.rows.shape[0] // 2
    places = jnp.arange(m, dtype=jnp.int32)
    age = (pairs.moves - 1 - places) % m
    below = age[:, None] < age[None, :]
    used = (places < pairs.moves).astype(pairs.rows.dtype)
    weight = jnp.concatenate([used, pairs.scale * used])
    corner = jnp.where(below, pairs.products[m:, :m], 0)
    inverse = _saddle(jnp.zeros_like(corner), corner, pairs.products[m:, m:], weight, pairs.scale)
    return _Model(pairs.rows, weight, pairs.scale, below, jnp.linalg.inv(inverse))


class _Walk(NamedTuple):
    p: jax.Array  # a step in the box
    slope: jax.Array  # the gradient of the model there
    free: jax.Array  # what may move from there
    best: jax.Array  # the best step
    value: jax.Array  # of the model there
    settled: jax.Array


def _step(model: _Model, g: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """About the minimizer p of g'p + p'B p / 2 with low <= p <= high, as low as a gradient step at least.

    From the projected gradient step, every round holds the entries that are at a bound and pushed outwards, and
    minimizes in all others; Bertsekas 1982. The model is convex, so a step that lowers it leads downhill.
    """

    def cut(p: jax.Array) -> jax.Array:
        return jnp.minimum(jnp.maximum(p, low), high)

    def seen(p: jax.Array, before: _Walk) -> _Walk:
        """What the model says of p, and of the best point between here and there."""
        bp = model.times(p)
        along, bend = jnp.vdot(g, p), jnp.vdot(p, bp)
        length = jnp.clip(-along / jnp.where(bend > 0, bend, 1), 0, 1)
        value = length * (along + length * bend / 2)
        better = value < before.value
        slope = g + bp
        free = ~(((p <= low) & (slope >= 0)) | ((p >= high) & (slope <= 0)))
        return _Walk(
            p,
            slope,
            free,
            jnp.where(better, length * p, before.best),
            jnp.where(better, value, before.value),
            jnp.all(free == before.free),
        )

    def walk(w: _Walk) -> _Walk:
        return seen(cut(w.p + model.solve(w.free, -w.slope)), w)

    zero, no = jnp.zeros_like(g), jnp.zeros(g.shape, bool)
    start = seen(cut(-g / model.scale), _Walk(zero, g, no, zero, jnp.zeros((), g.dtype), jnp.zeros((), bool)))
    start = start._replace(settled=jnp.zeros((), bool))
    turn = lambda w, _: (jax.lax.cond(w.settled, lambda w: w, walk, w), None)  # noqa: E731
    end, _ = jax.lax.scan(turn, start, None, length=_ROUNDS)
    # A step to a bound goes a little beyond, so that the point that is cut back is at the bound exactly.
    p, eps = end.best, float(jnp.finfo(g.dtype).eps)
    return jnp.where((p <= low) | (p >= high), p * (1 + 4 * eps), p)


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
