"""The convex quadratic program inside a turn of `SQP`: constraints that may be broken at a price, and a box.

    minimize  c.d + ½ d'K d + sum_i p_i |A d + h|_i + sum_j q_j max(0, -(G d + g)_j)   for low <= d <= high

It always has a solution. It is solved by a primal-dual interior-point method with Mehrotra's predictor and
corrector, whose last point says which constraints and bounds are active; one linear solve with those then gives
the solution to rounding.
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
        equal, equal_at: A, shape (k, n), and h, shape (k,).
        inequal, inequal_at: G, shape (m, n), and g, shape (m,).
        low, high: the box, shape (n,); entries may be infinite, or equal.
        equal_price, inequal_price: p and q, positive.
    """

    hessian: jax.Array
    linear: jax.Array
    equal: jax.Array
    equal_at: jax.Array
    inequal: jax.Array
    inequal_at: jax.Array
    low: jax.Array
    high: jax.Array
    equal_price: jax.Array
    inequal_price: jax.Array


class Answer(NamedTuple):
    """The solution d, the multipliers (|equal| <= p, 0 <= inequal <= q), and which bounds are active."""

    d: jax.Array
    equal: jax.Array
    inequal: jax.Array
    at_low: jax.Array
    at_high: jax.Array


class _Pairs(NamedTuple):
    """The quantities >= 0 whose products vanish at the solution: or their slacks, or their multipliers."""

    low: jax.Array
    high: jax.Array
    kept: jax.Array  # how far an inequality is kept; its multiplier
    broken: jax.Array  # how far it is broken; its price less its multiplier
    above: jax.Array  # how far an equality is above zero; its price less its multiplier
    below: jax.Array  # below; its price plus its multiplier


class _Iterate(NamedTuple):
    d: jax.Array
    equal: jax.Array
    slack: _Pairs
    dual: _Pairs


def solve(program: Quadratic) -> Answer:
    """The solution. Cost: about 15 factorisations of a matrix of n + k + m rows."""
    scaled, cost, rows = _scaled(trees.stop_gradient(program))
    end = _interior(scaled)
    rough = Answer(
        end.d,
        end.equal,
        end.dual.kept,
        end.slack.low < end.dual.low,
        end.slack.high < end.dual.high,
    )
    states = _states(end)
    fine = _on_active_set(scaled, rough, states)
    better = _error(scaled, fine) <= jnp.maximum(_error(scaled, rough), 1e-14)
    best = trees.select(better, fine, rough)
    return best._replace(equal=best.equal * cost / rows[0], inequal=best.inequal * cost / rows[1])


def _scaled(program: Quadratic) -> tuple[Quadratic, jax.Array, tuple[jax.Array, jax.Array]]:
    """The program with rows and objective of size one, and what they were divided by."""
    K, c = program.hessian, program.linear
    cost = jnp.maximum(jnp.maximum(jnp.max(jnp.abs(c)), jnp.max(jnp.abs(K))), 1e-10)
    over_e = jnp.maximum(jnp.max(jnp.abs(program.equal), axis=1, initial=0.0), 1e-10)
    over_i = jnp.maximum(jnp.max(jnp.abs(program.inequal), axis=1, initial=0.0), 1e-10)
    scaled = program._replace(
        hessian=K / cost,
        linear=c / cost,
        equal=program.equal / over_e[:, None],
        equal_at=program.equal_at / over_e,
        inequal=program.inequal / over_i[:, None],
        inequal_at=program.inequal_at / over_i,
        equal_price=program.equal_price * over_e / cost,
        inequal_price=program.inequal_price * over_i / cost,
    )
    return scaled, cost, (over_e, over_i)


# --- the interior-point method -----------------------------------------------------------------------


def _start(q: Quadratic) -> _Iterate:
    bounded = jnp.isfinite(q.low) & jnp.isfinite(q.high)
    room = jnp.where(bounded, 0.1 * (q.high - q.low), 1.0)
    room = jnp.minimum(room, 1.0)
    d = jnp.minimum(jnp.maximum(jnp.zeros_like(q.low), q.low + room), q.high - room)
    h, g = q.equal_at + q.equal @ d, q.inequal_at + q.inequal @ d
    mu = jnp.minimum(q.inequal_price / 2, 1.0)
    slack = _Pairs(
        jnp.where(jnp.isfinite(q.low), d - q.low, 1.0),
        jnp.where(jnp.isfinite(q.high), q.high - d, 1.0),
        jnp.maximum(g, 0) + 1,
        jnp.maximum(-g, 0) + 1,
        jnp.maximum(h, 0) + 1,
        jnp.maximum(-h, 0) + 1,
    )
    one = jnp.ones_like(d)
    dual = _Pairs(
        jnp.where(jnp.isfinite(q.low), one, 0.0),
        jnp.where(jnp.isfinite(q.high), one, 0.0),
        mu,
        q.inequal_price - mu,
        q.equal_price,
        q.equal_price,
    )
    return _Iterate(d, jnp.zeros_like(h), slack, dual)


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
        equal=q.equal * moves[None, :],
        equal_at=q.equal_at + q.equal @ fixed,
        inequal=q.inequal * moves[None, :],
        inequal_at=q.inequal_at + q.inequal @ fixed,
        low=jnp.where(free, q.low, -jnp.inf),
        high=jnp.where(free, q.high, jnp.inf),
    ), fixed


def _interior(program: Quadratic) -> _Iterate:
    free = _free(program)
    q, fixed = _without_fixed(program, free)
    dtype = q.low.dtype
    goal = float(jnp.finfo(dtype).eps) ** 0.7

    def gap(w: _Iterate) -> jax.Array:
        products = jax.tree.map(jnp.multiply, w.slack, w.dual)
        count = max(sum(leaf.size for leaf in products), 1)
        return sum(jnp.sum(leaf) for leaf in products) / count

    def more(carry: tuple[jax.Array, _Iterate, jax.Array]) -> jax.Array:
        rounds, _, worst = carry
        return (rounds < _ROUNDS) & (worst > goal)

    def turn(carry: tuple[jax.Array, _Iterate, jax.Array]) -> tuple[jax.Array, _Iterate, jax.Array]:
        rounds, w, worst = carry
        average = gap(w)
        residual = _residuals(q, w)
        factor = jsl.lu_factor(_matrix(q, w))
        products = jax.tree.map(jnp.multiply, w.slack, w.dual)
        want = jax.tree.map(jnp.negative, products)
        predicted = _direction(q, w, factor, residual, want)
        short = _length(w, predicted, 1.0)
        hopeful = gap(_moved(w, predicted, short))
        target = average * jnp.clip((hopeful / average) ** 3, 1e-4, 1.0)
        second = jax.tree.map(jnp.multiply, predicted.slack, predicted.dual)
        want = jax.tree.map(lambda p, s: target - p - s, products, second)
        moves = _direction(q, w, factor, residual, want)
        new = _moved(w, moves, _length(w, moves, jnp.maximum(0.99, 1 - average)))
        good = trees.all_finite(new)
        left = jnp.maximum(_largest(_residuals(q, new)), gap(new))
        return (
            jnp.where(good, rounds + 1, _ROUNDS),
            trees.select(good, new, w),
            jnp.where(good, left, worst),
        )

    start = _start(q)
    first = (jnp.int32(0), start, jnp.asarray(jnp.inf, dtype))
    _, end, _ = jax.lax.while_loop(more, turn, first)
    # fixed entries: no slack, and as much multiplier as it takes
    return end._replace(
        d=jnp.where(free, end.d, fixed),
        slack=end.slack._replace(low=jnp.where(free, end.slack.low, 0.0)),
        dual=end.dual._replace(low=jnp.where(free, end.dual.low, 1.0)),
    )


def _largest(residuals: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(r), initial=0.0) for r in residuals]))


def _residuals(q: Quadratic, w: _Iterate) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of the dual equation, of the equalities and of the inequalities."""
    along = q.linear + q.hessian @ w.d + q.equal.T @ w.equal - q.inequal.T @ w.dual.kept
    return (
        along - w.dual.low + w.dual.high,
        q.equal @ w.d + q.equal_at - w.slack.above + w.slack.below,
        q.inequal @ w.d + q.inequal_at + w.slack.broken - w.slack.kept,
    )


def _matrix(q: Quadratic, w: _Iterate) -> jax.Array:
    s, z = w.slack, w.dual
    k, m = q.equal.shape[0], q.inequal.shape[0]
    return jnp.block(
        [
            [q.hessian + jnp.diag(z.low / s.low + z.high / s.high), q.equal.T, -q.inequal.T],
            [q.equal, -jnp.diag(s.above / z.above + s.below / z.below), jnp.zeros((k, m), q.low.dtype)],
            [
                -q.inequal,
                jnp.zeros((m, k), q.low.dtype),
                -jnp.diag(s.kept / z.kept + s.broken / z.broken),
            ],
        ]
    )


def _direction(
    q: Quadratic,
    w: _Iterate,
    factor: tuple[jax.Array, jax.Array],
    residual: tuple[jax.Array, jax.Array, jax.Array],
    want: _Pairs,
) -> _Iterate:
    """The Newton step that takes the residuals to zero and changes the products by `want`."""
    s, z = w.slack, w.dual
    n, k = q.low.size, q.equal.shape[0]
    want = want._replace(low=jnp.where(z.low > 0, want.low, 0.0), high=jnp.where(z.high > 0, want.high, 0.0))
    right = jnp.concatenate(
        [
            -residual[0] + want.low / s.low - want.high / s.high,
            -residual[1] + want.above / z.above - want.below / z.below,
            residual[2] + want.broken / z.broken - want.kept / z.kept,
        ]
    )
    both = jsl.lu_solve(factor, right)
    d, equal, inequal = both[:n], both[n : n + k], both[n + k :]
    return _Iterate(
        d,
        equal,
        _Pairs(
            jnp.where(z.low > 0, d, 0.0),
            jnp.where(z.high > 0, -d, 0.0),
            (want.kept - s.kept * inequal) / z.kept,
            (want.broken + s.broken * inequal) / z.broken,
            (want.above + s.above * equal) / z.above,
            (want.below - s.below * equal) / z.below,
        ),
        _Pairs(
            jnp.where(z.low > 0, (want.low - z.low * d) / s.low, 0.0),
            jnp.where(z.high > 0, (want.high + z.high * d) / s.high, 0.0),
            inequal,
            -inequal,
            -equal,
            equal,
        ),
    )


def _length(w: _Iterate, move: _Iterate, share: jax.Array | float) -> jax.Array:
    """The longest step, at most 1, that keeps a share of every slack and multiplier."""
    one = jnp.ones((), w.d.dtype)

    def longest(v: jax.Array, dv: jax.Array) -> jax.Array:
        ratio = jnp.where(dv < 0, v / jnp.where(dv < 0, -dv, 1.0), jnp.inf)
        return jnp.min(ratio, initial=jnp.inf)

    all_ratios = jax.tree.leaves(jax.tree.map(longest, (w.slack, w.dual), (move.slack, move.dual)))
    return jnp.minimum(one, share * jnp.min(jnp.stack(all_ratios)))


def _moved(w: _Iterate, move: _Iterate, length: jax.Array) -> _Iterate:
    return jax.tree.map(lambda a, b: a + length * b, w, move)


# --- from its last point to the solution -------------------------------------------------------------


class _States(NamedTuple):
    """What the last point says: an equality is kept (0), broken above (+1) or below (-1); an inequality is
    inactive, active, or broken."""

    equal: jax.Array
    active: jax.Array
    broken: jax.Array


def _states(w: _Iterate) -> _States:
    s, z = w.slack, w.dual
    up, down = s.above > z.above, s.below > z.below
    equal = jnp.where(up & ~down, 1, jnp.where(down & ~up, -1, 0))
    broken = s.broken > z.broken
    return _States(equal, (z.kept > s.kept) & ~broken, broken)


def _on_active_set(q: Quadratic, at: Answer, states: _States) -> Answer:
    """The solution of the equations that hold when that is active; differentiable in the program."""
    dtype = q.low.dtype
    n, k, m = q.low.size, q.equal.shape[0], q.inequal.shape[0]
    pinned = at.at_low | at.at_high
    where = jnp.where(at.at_low, q.low, jnp.where(at.at_high, q.high, 0.0))
    moves = (~pinned).astype(dtype)
    kept = (states.equal == 0).astype(dtype)
    active = states.active.astype(dtype)
    eps = float(jnp.finfo(dtype).eps)
    A, G = q.equal * moves[None, :], q.inequal * moves[None, :]
    ruled = jnp.block(
        [
            [
                q.hessian * jnp.outer(moves, moves) + jnp.diag(1 - moves),
                A.T * kept[None, :],
                -G.T * active[None, :],
            ],
            [A * kept[:, None], -jnp.diag(1 - kept + eps * kept), jnp.zeros((k, m), dtype)],
            [-G * active[:, None], jnp.zeros((m, k), dtype), -jnp.diag(1 - active + eps * active)],
        ]
    )
    prices = q.equal_price * states.equal, jnp.where(states.broken, q.inequal_price, 0.0)
    push = q.linear + q.hessian @ where + q.equal.T @ prices[0] - q.inequal.T @ prices[1]
    right = jnp.concatenate(
        [
            -moves * push,
            -kept * (q.equal_at + q.equal @ where),
            active * (q.inequal_at + q.inequal @ where),
        ]
    )
    both = jnp.linalg.solve(ruled, right)
    d = jnp.where(pinned, where, both[:n])
    return at._replace(
        d=d, equal=prices[0] + kept * both[n : n + k], inequal=prices[1] + active * both[n + k :]
    )


def _error(q: Quadratic, at: Answer) -> jax.Array:
    """How far an answer is from the conditions of a solution; infinite if it is not finite."""
    h, g = q.equal @ at.d + q.equal_at, q.inequal @ at.d + q.inequal_at
    grad = q.linear + q.hessian @ at.d + q.equal.T @ at.equal - q.inequal.T @ at.inequal
    along = at.d - jnp.minimum(jnp.maximum(at.d - grad, q.low), q.high)
    outside = jnp.maximum(jnp.maximum(q.low - at.d, at.d - q.high), 0)
    kept = jnp.minimum(jnp.abs(h), q.equal_price - jnp.abs(at.equal))
    left = jnp.minimum(jnp.maximum(g, 0), at.inequal)
    right = jnp.minimum(jnp.maximum(-g, 0), q.inequal_price - at.inequal)
    worst = _largest((along, outside, kept, left, right))
    return jnp.where(jnp.isfinite(worst), worst, jnp.inf)
