"""The convex quadratic program inside a turn of `SQP`: rows that cost something on either side of zero, and a box.

    minimize  c.d + ½ d'K d + sum_i up_i max(0, (R d + r)_i) + down_i max(0, -(R d + r)_i)   for low <= d <= high

An equality has two prices; an inequality  R d + r <= 0  has no price below. It always has a solution. It is solved
by a primal-dual interior-point method with Mehrotra's predictor and corrector, whose last point says which rows
and bounds are active; one linear solve with those then gives the solution to rounding.

Source: Mehrotra 1992; Nocedal and Wright 2006, section 16.6.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl

from nestor import trees

_ROUNDS = 60


class Quadratic(NamedTuple):
    """The data of the program, all dense; `hessian` is positive definite, or semidefinite where the box is finite.

    Attributes:
        hessian, linear: K, shape (n, n), and c, shape (n,).
        rows, at: R, shape (m, n), and r, shape (m,).
        low, high: the box, shape (n,); entries may be infinite, or equal.
        up, down: the prices, shape (m,), at least zero.
    """

    hessian: jax.Array
    linear: jax.Array
    rows: jax.Array
    at: jax.Array
    low: jax.Array
    high: jax.Array
    up: jax.Array
    down: jax.Array


class Answer(NamedTuple):
    """The solution d, a multiplier between -down and up for each row, and which bounds are active."""

    d: jax.Array
    multipliers: jax.Array
    at_low: jax.Array
    at_high: jax.Array


class _Iterate(NamedTuple):
    """An interior point; the products of slacks and duals vanish at a solution.

    Both are in the order: of the lower bounds, of the upper bounds, of the rows below zero, above zero.
    """

    d: jax.Array
    multipliers: jax.Array
    slack: jax.Array
    dual: jax.Array


class Rough(NamedTuple):
    """An answer as the interior-point method leaves it, a constant for every derivative.

    Attributes:
        answer: good to some ten digits.
        sides: of each row: at zero (0), above (1) or below (-1).
    """

    answer: Answer
    sides: jax.Array


def nothing(program: Quadratic) -> Rough:
    """What stands in the place of an answer before there is one."""
    nowhere = jnp.zeros(program.low.shape, bool)
    answer = Answer(jnp.zeros_like(program.low), jnp.zeros_like(program.at), nowhere, nowhere)
    return Rough(answer, jnp.zeros(program.at.shape, jnp.int32))


def rough(program: Quadratic) -> Rough:
    """The solution. Cost: about 15 factorisations of a matrix of n + m rows."""
    scaled, units = _scaled(program)
    end = _interior(trees.stop_gradient(scaled))
    n, m = program.low.size, program.at.size
    larger = end.dual > end.slack
    below, above = ~larger[2 * n : 2 * n + m], ~larger[2 * n + m :]
    sides = above.astype(jnp.int32) - below.astype(jnp.int32)
    answer = Answer(units.d * end.d, units.multipliers * end.multipliers, larger[:n], larger[n : 2 * n])
    return trees.stop_gradient(Rough(answer, sides))


def refined(program: Quadratic, found: Rough) -> Answer:
    """The solution to rounding, from what is active at a rough one; differentiable in the program."""
    scaled, units = _scaled(program)
    near = found.answer._replace(
        d=found.answer.d / units.d, multipliers=found.answer.multipliers / units.multipliers
    )
    fine = _on_active_set(scaled, near, found.sides)
    better = _error(scaled, fine) <= jnp.maximum(_error(scaled, near), 1e-14)
    best = trees.select(better, fine, near)
    return best._replace(d=units.d * best.d, multipliers=units.multipliers * best.multipliers)


class _Units(NamedTuple):
    """What d and the multipliers of the scaled program are to be multiplied by."""

    d: jax.Array
    multipliers: jax.Array


def _scaled(q: Quadratic) -> tuple[Quadratic, _Units]:
    """The program with curvatures, slopes and rows of size one."""
    tiny = max(1e-30, float(jnp.finfo(q.low.dtype).tiny) ** 0.4)  # its square is no zero
    width = jnp.minimum(q.high - q.low, 1e10)
    steep = jnp.max(jnp.abs(q.linear))
    curves = jnp.maximum(jnp.abs(jnp.diagonal(q.hessian)), 1e-12 * jnp.max(jnp.abs(q.hessian)))
    curves = jnp.maximum(curves, 0.01 * steep / jnp.maximum(width, tiny))
    unit = 1 / jnp.sqrt(jnp.maximum(curves, tiny))
    reach = jnp.max(jnp.abs(q.rows) * unit[None, :], axis=1, initial=tiny)
    asked = jnp.where((q.at > 0) | (q.down > 0), jnp.abs(q.at) / reach, 0.0)
    size = jnp.maximum(jnp.max(jnp.abs(q.linear) * unit), jnp.max(asked, initial=0.0))
    size = jnp.maximum(jnp.minimum(size, jnp.max(width / unit)), tiny)
    unit, size = jax.lax.stop_gradient((unit * size, size))
    rows = q.rows * unit[None, :]
    sizes = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1, initial=tiny))
    scaled = Quadratic(
        hessian=q.hessian * jnp.outer(unit, unit) / size**2,
        linear=q.linear * unit / size**2,
        rows=rows / sizes[:, None],
        at=q.at / sizes,
        low=q.low / unit,
        high=q.high / unit,
        up=q.up * sizes / size**2,
        down=q.down * sizes / size**2,
    )
    return scaled, _Units(unit, size**2 / sizes)


# --- the interior-point method -----------------------------------------------------------------------


def _free(q: Quadratic) -> jax.Array:
    """Which entries of d have room to move."""
    eps = float(jnp.finfo(q.low.dtype).eps)
    width = q.high - q.low
    size = jnp.minimum(jnp.abs(q.low), jnp.abs(q.high))
    return ~jnp.isfinite(width) | (width > 4 * eps * jnp.where(jnp.isfinite(size), size, 0.0) + 1e-30)


def _without_fixed(q: Quadratic, free: jax.Array) -> tuple[Quadratic, jax.Array]:
    """The program of the free entries, in the same shapes; and where the others stand."""
    fixed = jnp.where(free, 0.0, q.low)
    moves = free.astype(q.low.dtype)
    return q._replace(
        hessian=q.hessian * jnp.outer(moves, moves) + jnp.diag(1 - moves),
        linear=moves * (q.linear + q.hessian @ fixed),
        rows=q.rows * moves[None, :],
        at=q.at + q.rows @ fixed,
        low=jnp.where(free, q.low, -jnp.inf),
        high=jnp.where(free, q.high, jnp.inf),
    ), fixed


def _start(q: Quadratic) -> tuple[_Iterate, jax.Array]:
    """The first interior point, and which of the pairs are there (those of finite bounds and of all rows)."""
    width = q.high - q.low
    room = jnp.minimum(jnp.where(jnp.isfinite(width), 0.1 * width, 1.0), 1.0)
    d = jnp.minimum(jnp.maximum(0.0, q.low + room), q.high - room)
    at = q.rows @ d + q.at
    first = jnp.where(q.down > 0, 0.0, 0.5 * jnp.minimum(q.up, 2.0))
    bounded = jnp.concatenate([jnp.isfinite(q.low), jnp.isfinite(q.high)])
    walls = jnp.where(bounded, jnp.concatenate([d - q.low, q.high - d]), 1.0)
    slack = jnp.concatenate([walls, jnp.maximum(-at, 0) + 1, jnp.maximum(at, 0) + 1])
    ones = jnp.ones_like(walls)
    there = jnp.concatenate([bounded, jnp.ones((2 * at.size,), bool)])
    dual = jnp.where(there, jnp.concatenate([ones, q.down + first, q.up - first]), 0.0)
    return _Iterate(d, first, slack, dual), there


def _interior(program: Quadratic) -> _Iterate:
    free = _free(program)
    q, fixed = _without_fixed(program, free)
    n, m = q.low.size, q.at.size
    dtype = q.low.dtype
    goal = float(jnp.finfo(dtype).eps) ** 0.7
    start, there = _start(q)
    count = jnp.sum(there, dtype=dtype)

    def moved(
        w: _Iterate, factor: tuple[jax.Array, jax.Array], residual: jax.Array, want: jax.Array
    ) -> _Iterate:
        """The Newton step that takes the residuals to zero and changes the products by `want`."""
        walls, costs = want[: 2 * n] / w.slack[: 2 * n], want[2 * n :] / w.dual[2 * n :]
        right = jnp.concatenate([walls[:n] - walls[n:], costs[m:] - costs[:m]])
        both = jsl.lu_solve(factor, right - residual)
        d, e = both[:n], both[n:]
        shift = jnp.where(there[: 2 * n], jnp.concatenate([d, -d]), 0.0)
        turn = jnp.concatenate([e, -e])
        slack = jnp.concatenate([shift, costs - w.slack[2 * n :] / w.dual[2 * n :] * turn])
        dual = jnp.concatenate([walls - w.dual[: 2 * n] / w.slack[: 2 * n] * shift, turn])
        return _Iterate(d, e, slack, dual)

    def more(carry: tuple[jax.Array, _Iterate, jax.Array]) -> jax.Array:
        return (carry[0] < _ROUNDS) & (carry[2] > goal)

    def round_(carry: tuple[jax.Array, _Iterate, jax.Array]) -> tuple[jax.Array, _Iterate, jax.Array]:
        rounds, w, worst = carry
        products = w.slack * w.dual
        average = jnp.sum(products) / count
        residual = _residual(q, w)
        factor = jsl.lu_factor(_matrix(q, w))
        # Both steps go through one solve in a loop, because what is traced once is compiled once.

        def half(_: jax.Array, pair: tuple[_Iterate, jax.Array]) -> tuple[_Iterate, jax.Array]:
            step, _ = pair
            ahead = _stepped(w, step, _length(w, step))
            hopeful = jnp.sum(ahead.slack * ahead.dual) / count
            target = average * jnp.clip((hopeful / average) ** 3, 1e-4, 1.0)
            second = step.slack * step.dual
            corrected = target - products - second
            want = jnp.where(pair[1] > 0, corrected, -products)
            return moved(w, factor, residual, jnp.where(there, want, 0.0)), pair[1] + 1

        nothing = jax.tree.map(jnp.zeros_like, w)
        step, _ = jax.lax.fori_loop(0, 2, half, (nothing, jnp.zeros((), dtype)))
        new = _stepped(w, step, jnp.maximum(0.99, 1 - average) * _length(w, step))
        good = trees.all_finite(new)
        gap = jnp.sum(new.slack * new.dual) / count
        left = jnp.maximum(jnp.max(jnp.abs(_residual(q, new))), gap)
        return (
            jnp.where(good, rounds + 1, _ROUNDS),
            trees.select(good, new, w),
            jnp.where(good, left, worst),
        )

    first = (jnp.int32(0), start, jnp.asarray(jnp.inf, dtype))
    _, end, _ = jax.lax.while_loop(more, round_, first)
    # A fixed entry stands at its lower bound.
    at_low = jnp.concatenate([~free, jnp.zeros((n + 2 * m,), bool)])
    return end._replace(
        d=jnp.where(free, end.d, fixed),
        slack=jnp.where(at_low, 0.0, end.slack),
        dual=jnp.where(at_low, 1.0, end.dual),
    )


def _residual(q: Quadratic, w: _Iterate) -> jax.Array:
    """Of the dual equation, and of the rows."""
    n, m = q.low.size, q.at.size
    along = q.linear + q.hessian @ w.d + q.rows.T @ w.multipliers - w.dual[:n] + w.dual[n : 2 * n]
    return jnp.concatenate([along, q.rows @ w.d + q.at + w.slack[2 * n : 2 * n + m] - w.slack[2 * n + m :]])


def _matrix(q: Quadratic, w: _Iterate) -> jax.Array:
    n, m = q.low.size, q.at.size
    walls, costs = w.dual[: 2 * n] / w.slack[: 2 * n], w.slack[2 * n :] / w.dual[2 * n :]
    diagonal = jnp.concatenate([walls[:n] + walls[n:], -costs[:m] - costs[m:]])
    return _symmetric(q.hessian, q.rows) + jnp.diag(diagonal)


def _symmetric(hessian: jax.Array, rows: jax.Array) -> jax.Array:
    corner = jnp.zeros((rows.shape[0], rows.shape[0]), rows.dtype)
    return jnp.block([[hessian, rows.T], [rows, corner]])


def _length(w: _Iterate, step: _Iterate) -> jax.Array:
    """The longest step, at most 1 (or a little more), at which no slack and no dual is negative."""
    values = jnp.concatenate([w.slack, w.dual])
    moves = jnp.concatenate([step.slack, step.dual])
    ratios = jnp.where(moves < 0, values / jnp.where(moves < 0, -moves, 1.0), 1.0)
    return jnp.minimum(jnp.min(ratios), 1.0)


def _stepped(w: _Iterate, step: _Iterate, length: jax.Array) -> _Iterate:
    return jax.tree.map(lambda a, b: a + length * b, w, step)


# --- from its last point to the solution -------------------------------------------------------------


def _on_active_set(q: Quadratic, near: Answer, sides: jax.Array) -> Answer:
    """The solution of the equations that hold when that is active; differentiable in the program.

    Args:
        q: the program.
        near: which bounds are active.
        sides: of each row: at zero (0), above (1) or below (-1).
    """
    dtype = q.low.dtype
    eps = float(jnp.finfo(dtype).eps)
    n = q.low.size
    pinned = near.at_low | near.at_high
    stand = jnp.where(near.at_low, q.low, jnp.where(near.at_high, q.high, 0.0))
    moves, kept = (~pinned).astype(dtype), (sides == 0).astype(dtype)
    paid = jnp.where(sides > 0, q.up, jnp.where(sides < 0, -q.down, 0.0))
    rows = q.rows * jnp.outer(kept, moves)
    hessian = q.hessian * jnp.outer(moves, moves)
    # Rows that follow from others, or from pinned entries, leave multipliers open: these stay where they are.
    loose = 1e3 * eps * kept
    diagonal = jnp.concatenate([1 - moves, -(1 - kept) - loose])
    push = q.linear + q.hessian @ stand + q.rows.T @ paid
    right = jnp.concatenate([moves * push, kept * (q.at + q.rows @ stand)])
    factor = jsl.lu_factor(_symmetric(hessian, rows) + jnp.diag(diagonal))

    def solved(_: int, both: jax.Array) -> jax.Array:
        return jsl.lu_solve(factor, -right - jnp.concatenate([jnp.zeros_like(moves), loose * both[n:]]))

    start = jnp.concatenate([near.d, kept * (near.multipliers - paid)])
    both = jax.lax.fori_loop(0, 2, solved, start)
    return near._replace(d=jnp.where(pinned, stand, both[:n]), multipliers=paid + kept * both[n:])


def _error(q: Quadratic, near: Answer) -> jax.Array:
    """How far an answer is from the conditions of a solution; infinite if it is not finite."""
    at, e = q.rows @ near.d + q.at, near.multipliers
    grad = q.linear + q.hessian @ near.d + q.rows.T @ e
    along = near.d - jnp.minimum(jnp.maximum(near.d - grad, q.low), q.high)
    outside = jnp.maximum(jnp.maximum(q.low - near.d, near.d - q.high), 0)
    above = jnp.minimum(jnp.maximum(at, 0), q.up - e)
    below = jnp.minimum(jnp.maximum(-at, 0), q.down + e)
    worst = jnp.max(jnp.abs(jnp.concatenate([along, outside, above, below])))
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(worst), worst, jnp.inf))
