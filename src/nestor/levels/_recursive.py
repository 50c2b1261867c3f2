"""Stochastic methods that carry estimates of both directions from step to step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.levels._inner_loops import inner_draws
from nestor.levels._oracles import Draw, Point, TwoLevels, everything, hypergradient, move, series
from nestor.levels._settings import power, rate_at
from nestor.levels._stochastic import (
    STATIC,
    State,
    ThreeRates,
    TwoRates,
    inner_rate,
    outer_move,
    series_rate,
)

Tree = Any


@trees.record
class MRBO(TwoRates):
    """Both levels at once, along estimates with recursive momentum.

        d_t = D_t(point_t) + (1 - r) (d_(t-1) - D_t(point_(t-1)))
        y <- y - a d.y,   x <- x - b d.x

    where D_t is the inner gradient and the hypergradient of `StocBiO` on the batches of step t, at both points.

    Args:
        inner_rate: a, a number, an array of shape () or a schedule.
        outer_rate: b, likewise.
        linear_rate: of the series, below 1 / L for a Hessian of norm L; None is the inner rate, not decayed.
        decay: numbers a and b are divided by (1 + t)^decay, and r by its square.
        renewal: r, how much of an estimate is renewed in a step; 1 is no momentum. The first step has 1.
        terms: of the series.

    Cost of a step: about six gradients and 2 (`terms` - 1) Hessian products. Memory: two more of each of y and
    x. Source: Yang, Ji, Liang 2021, algorithm 1; one inner batch for both directions.

    >>> import nestor
    >>> inner = nestor.Level(lambda p, _: (p["y"] - p["x"]) ** 2 / 2, 0.0)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(200, method=nestor.levels.MRBO(0.5, 0.5))
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    linear_rate: Any = None
    decay: Any = 1 / 3
    renewal: Any = 0.5
    terms: int = dataclasses.field(default=10, metadata=STATIC)

    def init(self, problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, key: jax.Array) -> State:
        """See `Method.init`."""
        state = super().init(problem, inputs, y, x, key)
        return state._replace(memory=(state.point, trees.zeros_like(state.point)))

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        old, last = state.memory
        draw = inner_draws(problem, state.keys, t, self.terms)
        outer = problem.draw_outer(state.keys, t)
        rate = series_rate(self, t)
        here = _estimate(problem, inputs, old, rate, self.terms, draw, outer)
        there = _estimate(problem, inputs, state.point, rate, self.terms, draw, outer)
        renewal = rate_at(self.renewal, self.decay, t)
        kept = jnp.where(t == 0, 0, 1 - renewal / power(t, self.decay, renewal.dtype))
        along = trees.add_scaled(there, kept, trees.subtract(last, here))
        y = move(state.y, rate_at(self.inner_rate, self.decay, t), along.y)
        x = move(state.x, rate_at(self.outer_rate, self.decay, t), along.x)
        return State(y, x, None, (state.point, along), state.keys)


@trees.record
class VRBO(ThreeRates):
    """An outer step, then several inner steps, along estimates that add up changes as in SPIDER.

        x <- x - b d.x,   then d <- d + D(y, x) - D(old y, old x) and y <- y - a d.y in turn, `inner_steps` times

    where D is the inner gradient and the hypergradient of `StocBiO`, on the same batches at both points, and
    d = D(y, x) on all rows where `period` divides t.

    Args:
        inner_rate: a, a number, an array of shape () or a schedule.
        outer_rate: b, likewise.
        linear_rate: of the series, below 1 / L for a Hessian of norm L; None is the inner rate, not decayed.
        inner_decay: a number a is divided by (1 + t)^inner_decay; none is needed.
        outer_decay: and b by (1 + t)^outer_decay.
        inner_steps: moves of y in a step.
        terms: of the series; its truncation is what stays of the error at constant rates.
        period: steps from one pass over all rows to the next; None is about an epoch.

    Cost of a step: (`inner_steps` + 1) times six gradients and 2 (`terms` - 1) Hessian products, all of a batch,
    and once in a period one hypergradient of all rows. Memory: one more of each of y and x. Source: Yang, Ji,
    Liang 2021, algorithm 2.

    >>> import nestor
    >>> inner = nestor.Level(lambda p, _: (p["y"] - p["x"]) ** 2 / 2, 0.0)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(50, method=nestor.levels.VRBO(0.5, 0.5))
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    inner_steps: int = dataclasses.field(default=3, metadata=STATIC)
    terms: int = dataclasses.field(default=10, metadata=STATIC)
    period: int | None = dataclasses.field(default=None, metadata=STATIC)

    def init(self, problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, key: jax.Array) -> State:
        """See `Method.init`."""
        state = super().init(problem, inputs, y, x, key)
        return state._replace(memory=trees.zeros_like(state.point))

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        point, keys = state.point, state.keys
        linear, rate = series_rate(self, t), inner_rate(self, t)
        visits = self.inner_steps + 1

        def anew() -> Point:
            inner, outer = everything(keys[0]), everything(keys[1])
            return _estimate(problem, inputs, point, linear, self.terms, inner, outer)

        def turn(carry: tuple[Point, Point, Point], i: jax.Array) -> tuple[tuple[Point, Point, Point], None]:
            old, new, along = carry
            draw = inner_draws(problem, keys, t * visits + i, self.terms)
            outer = problem.draw_outer(keys, t * visits + i)
            here = _estimate(problem, inputs, old, linear, self.terms, draw, outer)
            there = _estimate(problem, inputs, new, linear, self.terms, draw, outer)
            along = trees.add(along, trees.subtract(there, here))
            return (new, new._replace(y=move(new.y, rate, along.y)), along), None

        along = jax.lax.cond(t % (self.period or problem.epoch) == 0, anew, lambda: state.memory)
        moved = point._replace(x=outer_move(self, state.x, along.x, t))
        times = jnp.arange(visits, dtype=jnp.int32)
        (end, _, along), _ = jax.lax.scan(turn, (point, moved, along), times)  # the last move is not made
        return State(end.y, end.x, None, along, keys)


def _estimate(
    problem: TwoLevels, inputs: Tree, at: Point, rate: Any, terms: int, inner: Any, outer: Draw
) -> Point:
    """The inner gradient and the hypergradient by a series; `inner` is one `Draw`, or those of a step."""
    last = inner if isinstance(inner, Draw) else inner(terms - 1)
    solve = lambda b: series(problem, inputs, at.y, at.x, b, rate, terms, inner)  # noqa: E731
    return hypergradient(problem, inputs, at.y, at.x, last, outer, solve)
