"""The quasi-Newton model of L-BFGS, and its minimizer in a box: how L-BFGS moves where there are bounds.

With the pairs (s, y) of the last moves scaled so that s'y = 1, the model's Hessian is the compact form

    B = t I - W' M W,   W = [Y; t S],   M^-1 = [[-I, L'], [L, t S S']],   L = the part of S Y' below its diagonal.

Source: Byrd, Nocedal and Schnabel 1994, (3.7); Byrd, Lu, Nocedal and Zhu 1995.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers import _descent
from nestor.solvers._bounds import Box

Tree = Any

_ROUNDS = 6  # guesses, at most, of which unknowns the model leaves free


class Pairs(NamedTuple):
    """The last moves of raveled unknowns, s'y = 1, and what the model needs of them.

    Attributes:
        steps: S, shape (m, n).
        changes: Y, shape (m, n), of the gradient.
        step_step: S S', shape (m, m).
        step_change: S Y', shape (m, m).
        scale: y'y / s'y of the last pair: how curved the objective is along the last move.
        moves: how many pairs there were; the last m of them are kept, place `moves % m` is written next.
    """

    steps: jax.Array
    changes: jax.Array
    step_step: jax.Array
    step_change: jax.Array
    scale: jax.Array
    moves: jax.Array


class Boxed(NamedTuple):
    """The `Rule` of L-BFGS in a box: the direction leads to the minimizer of the model in the box.

    Attributes:
        length: pairs that are kept.
    """

    length: int

    def empty(self, x: Tree) -> Pairs:
        """See `Rule`."""
        vector, _ = trees.ravel(x)
        rows = jnp.zeros((self.length, vector.size), vector.dtype)
        square = jnp.zeros((self.length, self.length), vector.dtype)
        return Pairs(rows, rows, square, square, jnp.ones((), vector.dtype), jnp.zeros((), jnp.int32))

    def is_empty(self, memory: Pairs) -> jax.Array:
        """See `Rule`."""
        return memory.moves == 0

    def forget(self, memory: Pairs, when: jax.Array) -> Pairs:
        """See `Rule`."""
        return memory._replace(scale=jnp.where(when, 1, memory.scale), moves=jnp.where(when, 0, memory.moves))

    def remember(self, memory: Pairs, move: _descent.Move, when: jax.Array) -> Pairs:
        """See `Rule`."""
        s, _ = trees.ravel(move.step)
        y, _ = trees.ravel(move.change)
        sy, yy, curved = _descent.curvature(s, y)
        use = when & curved
        place = memory.moves % self.length
        root = jnp.sqrt(jnp.where(use, sy, 1))
        put = lambda old, new: old.at[place].set(jnp.where(use, new, old[place]))  # noqa: E731
        steps, changes = put(memory.steps, s / root), put(memory.changes, y / root)
        ss, sy_row, sy_column = (
            _times(steps, steps[place]),
            _times(changes, steps[place]),
            _times(steps, changes[place]),
        )
        return Pairs(
            steps,
            changes,
            memory.step_step.at[place, :].set(ss).at[:, place].set(ss),
            memory.step_change.at[place, :].set(sy_row).at[:, place].set(sy_column),
            jnp.where(use, yy / jnp.where(use, sy, 1), memory.scale),
            memory.moves + use.astype(jnp.int32),
        )

    def direction(self, memory: Pairs, grad: Tree) -> Tree:
        """Not used: there is always a box."""
        raise NotImplementedError

    def direction_in(self, memory: Pairs, grad: Tree, x: Tree, box: Box) -> Tree:
        """From x to the minimizer of the model in the box."""
        g, back = trees.ravel(grad)
        point, (lower, upper) = trees.ravel(x)[0], (trees.ravel(side)[0] for side in box)
        return back(_step(_model(memory), g, lower - point, upper - point))

    def first_length(self, memory: Pairs, guess: jax.Array, last: jax.Array) -> jax.Array:
        """See `Rule`."""
        return jnp.where(memory.moves > 0, jnp.ones_like(guess), guess)


class _Model(NamedTuple):
    """The Hessian B of the model; see the head of this file."""

    pairs: Pairs
    used: jax.Array  # (m,), 1 where there is a pair, else 0
    below: jax.Array  # (m, m), whether the row's pair is newer than the column's
    inverse: jax.Array  # M^-1, (2m, 2m)
    middle: jax.Array  # M

    def down(self, v: jax.Array) -> jax.Array:
        """W v."""
        return jnp.concatenate(
            [
                self.used * _times(self.pairs.changes, v),
                self.used * self.pairs.scale * _times(self.pairs.steps, v),
            ]
        )

    def up(self, c: jax.Array) -> jax.Array:
        """W' c."""
        of_changes, of_steps = jnp.split(c, 2)
        return _times(self.pairs.changes.T, self.used * of_changes) + _times(
            self.pairs.steps.T, self.used * self.pairs.scale * of_steps
        )

    def times(self, v: jax.Array) -> jax.Array:
        """B v."""
        return self.pairs.scale * v - self.up(_times(self.middle, self.down(v)))

    def solve(self, free: jax.Array, right: jax.Array) -> jax.Array:
        """v with (B v = right) in the free entries, and zero in all others.

        By the formula of Sherman, Morrison and Woodbury, with K = M^-1 - W_F W_F' / t; the blocks of K are
        formed without cancellation, as in Byrd et al. 1995, section 5.1.
        """
        steps, changes, scale = self.pairs.steps, self.pairs.changes, self.pairs.scale
        both = self.used[:, None] * self.used[None, :]
        weight = free.astype(right.dtype)
        in_free = _times(jnp.concatenate([changes, steps]) * weight[None, :], changes.T)
        in_held = _times(steps * (1 - weight)[None, :], jnp.concatenate([changes, steps]).T)
        yy, sy = jnp.split(in_free, 2)
        sy_held, ss_held = jnp.split(in_held, 2, axis=1)
        eye = jnp.eye(self.used.size, dtype=right.dtype)
        corner = jnp.where(self.below, sy_held, -sy) * both
        k = jnp.block(
            [
                [-eye - both * yy / scale, corner.T],
                [corner, both * ss_held * scale + jnp.diag(1 - self.used)],
            ]
        )
        right = weight * right
        inner = jnp.linalg.solve(k, self.down(right))
        return weight * (right / scale + self.up(inner) / (scale * scale))


def _model(pairs: Pairs) -> _Model:
    length, dtype = pairs.steps.shape[0], pairs.steps.dtype
    places = jnp.arange(length, dtype=jnp.int32)
    age = (pairs.moves - 1 - places) % length
    used = (places < pairs.moves).astype(dtype)
    below = age[:, None] < age[None, :]
    both = used[:, None] * used[None, :]
    eye = jnp.eye(length, dtype=dtype)
    corner = jnp.where(below, pairs.step_change * both, 0)
    inverse = jnp.block(
        [[-eye, corner.T], [corner, pairs.scale * pairs.step_step * both + jnp.diag(1 - used)]]
    )
    return _Model(pairs, used, below, inverse, jnp.linalg.inv(inverse))


class _Round(NamedTuple):
    step: jax.Array
    value: jax.Array  # of the model there
    down: jax.Array  # held at the lower bound
    up: jax.Array
    settled: jax.Array


def _step(model: _Model, g: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """About the minimizer p of g'p + p'B p / 2 with low <= p <= high, as low as a gradient step at least.

    Every round guesses the bounds that hold from the last step (those that a projected gradient step from there
    runs into), and minimizes in all other unknowns; Bertsekas 1982. The model is convex, so a step that lowers
    it leads downhill.
    """
    scale = model.pairs.scale
    eps = float(jnp.finfo(g.dtype).eps)
    cut = lambda p: jnp.minimum(jnp.maximum(p, low), high)  # noqa: E731

    def guess(p: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
        ahead = jax.lax.stop_gradient(p - slope / scale)
        return ahead <= low, ahead >= high

    def walk(r: _Round) -> _Round:
        held = jnp.where(r.down, low, jnp.where(r.up, high, 0))
        free = ~(r.down | r.up)
        p = cut(held + model.solve(free, -g - model.times(held)))
        bp = model.times(p)
        value = jnp.vdot(g + bp / 2, p)
        down, up = guess(p, g + bp)
        better = value < r.value
        return _Round(
            step=jnp.where(better, p, r.step),
            value=jnp.where(better, value, r.value),
            down=down,
            up=up,
            settled=jnp.all((down == r.down) & (up == r.up)),
        )

    cauchy = cut(-g / scale)
    curved = model.times(cauchy)
    slope, bend = jnp.vdot(g, cauchy), jnp.vdot(cauchy, curved)
    length = jnp.where(bend > -slope, -slope / jnp.where(bend > 0, bend, 1), 1)
    down, up = guess(jnp.zeros_like(g), g)
    start = _Round(length * cauchy, length * slope + length**2 * bend / 2, down, up, jnp.zeros((), bool))
    turn = lambda r, _: (jax.lax.cond(r.settled, lambda r: r, walk, r), None)  # noqa: E731
    end, _ = jax.lax.scan(turn, start, None, length=_ROUNDS)
    # a step to a bound goes a little beyond, so that the point that is cut back is at the bound exactly
    p = end.step
    beyond = ((p <= low) | (p >= high)).astype(p.dtype)
    return p * (1 + 4 * eps * beyond)


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
