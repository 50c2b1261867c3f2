"""Stochastic methods with loops of a fixed length inside a step: several inner steps, a series, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.levels._oracles import (
    Draw,
    TwoLevels,
    hessian_product,
    hypergradient,
    inner_gradient,
    inner_products,
    move,
    outer_gradients,
    scaled,
    series,
)
from nestor.levels._settings import rate_at
from nestor.levels._stochastic import (
    STATIC,
    State,
    ThreeRates,
    TwoRates,
    inner_rate,
    linear_rate,
    outer_move,
    series_rate,
)

Tree = Any

# --- an inner loop, then a hypergradient -----------------------------------------------------------------


@trees.record
class TTSA(ThreeRates):
    """Two timescales: one inner step, then an outer step against a hypergradient from a random product.

        y <- y - a dg/dy
        x <- x - b (df/dx - (d²g/dy dx)' u),   u = k c prod_{j <= p} (I - c d²g/dy²_j) df/dy

    with f the outer and g the inner level, k = `terms`, p uniform in 0 ... k - 1 and a batch for each factor:
    in the mean u is the series sum_{q < k} c (I - c d²g/dy²)^q df/dy.

    Args:
        inner_rate: a, a number, an array of shape () or a schedule.
        outer_rate: b, likewise.
        linear_rate: c, below 1 / L for a Hessian of norm L; None is the inner rate, not decayed.
        inner_decay: a number a is divided by (1 + t)^inner_decay.
        outer_decay: and b by (1 + t)^outer_decay.
        terms: k.

    The random length costs half of the series and a variance that grows with k. Cost of a step: about four
    gradients and on the mean k / 2 Hessian products; the loop has a random length, so there is no reverse mode
    through a step. Source: Hong, Wai, Wang, Yang 2023, algorithm 1, with the decays of its weakly convex case.

    >>> import nestor
    >>> inner = nestor.Level(lambda p, _: (p["y"] - p["x"]) ** 2 / 2, 0.0)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(300, method=nestor.levels.TTSA(0.5, 0.5))
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    inner_decay: Any = 0.4
    outer_decay: Any = 0.6
    terms: int = dataclasses.field(default=10, metadata=STATIC)

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        draw = inner_draws(problem, state.keys, t, self.terms + 1)
        rate = inner_rate(self, t)
        y = move(state.y, rate, inner_gradient(problem, inputs, state.y, state.x, draw(self.terms)))
        linear = series_rate(self, t)
        factors = jax.random.randint(jax.random.fold_in(state.keys[2], t), (), 0, self.terms)

        def solve(b: Tree) -> Tree:
            def factor(j: Any, u: Tree) -> Tree:
                return move(u, linear, hessian_product(problem, inputs, y, state.x, u, draw(j)))

            return trees.scale(self.terms, scaled(linear, jax.lax.fori_loop(0, factors, factor, b)))

        outer = problem.draw_outer(state.keys, t)
        along = hypergradient(problem, inputs, y, state.x, draw(self.terms - 1), outer, solve)
        return state._replace(y=y, x=outer_move(self, state.x, along.x, t))


@trees.record
class StocBiO(ThreeRates):
    """Several inner steps, then an outer step against a hypergradient from a series.

        y <- y - a dg/dy,   `inner_steps` times
        x <- x - b (df/dx - (d²g/dy dx)' u),   u = sum_{q < k} c prod_{j <= q} (I - c d²g/dy²_j) df/dy

    with f the outer and g the inner level, k = `terms`, and a batch of its own for each step and factor.

    Args:
        inner_rate: a, a number, an array of shape () or a schedule.
        outer_rate: b, likewise.
        linear_rate: c, below 1 / L for a Hessian of norm L; None is the inner rate, not decayed.
        inner_decay: a number a is divided by (1 + t)^inner_decay.
        outer_decay: and b by (1 + t)^outer_decay.
        inner_steps: from where the last ones ended.
        terms: k; the hypergradient is wrong by (1 - c mu)^k, with mu the least eigenvalue of the Hessian.

    The noise of the batches stays unless the rates fall. All batches of the inner level have one size; the paper
    lets those of the later factors shrink. Cost of a step: `inner_steps` + 3 gradients and k - 1 Hessian
    products. Source: Ji, Yang, Liang 2021, algorithms 2 and 3.

    >>> import nestor
    >>> inner = nestor.Level(lambda p, _: (p["y"] - p["x"]) ** 2 / 2, 0.0)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(50, method=nestor.levels.StocBiO(0.5, 0.5))
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    inner_steps: int = dataclasses.field(default=10, metadata=STATIC)
    terms: int = dataclasses.field(default=10, metadata=STATIC)

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        draw = inner_draws(problem, state.keys, t, self.inner_steps + self.terms)
        y = _descent(self, problem, inputs, state, draw, t)
        later = lambda j: draw(self.inner_steps + j)  # noqa: E731
        rate = series_rate(self, t)
        solve = lambda b: series(problem, inputs, y, state.x, b, rate, self.terms, later)  # noqa: E731
        outer = problem.draw_outer(state.keys, t)
        along = hypergradient(problem, inputs, y, state.x, later(self.terms - 1), outer, solve)
        return state._replace(y=y, x=outer_move(self, state.x, along.x, t))


@trees.record
class AmIGO(ThreeRates):
    """Several inner steps and several of the linear system, each from where the last ones ended.

        y <- y - a dg/dy,   `inner_steps` times
        v <- v - c ((d²g/dy²) v + df/dy),   `linear_steps` times
        x <- x - b ((d²g/dy dx)' v + df/dx)

    with f the outer and g the inner level; one batch of f in a step, one of g for each line and each time.

    Args:
        inner_rate: a, a number, an array of shape () or a schedule.
        outer_rate: b, likewise.
        linear_rate: c, likewise; None is a.
        inner_decay: numbers a and c are divided by (1 + t)^inner_decay.
        outer_decay: and b by (1 + t)^outer_decay.
        inner_steps: inner steps.
        linear_steps: steps of the linear system.

    The noise of the batches stays unless the rates fall. Cost of a step: `inner_steps` + 3 gradients and
    `linear_steps` Hessian products. Source: Arbel and Mairal 2022, algorithm 1 with stochastic gradient descent
    for both inner solvers.

    >>> import nestor
    >>> inner = nestor.Level(lambda p, _: (p["y"] - p["x"]) ** 2 / 2, 0.0)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(50, method=nestor.levels.AmIGO(0.5, 0.5))
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    inner_steps: int = dataclasses.field(default=10, metadata=STATIC)
    linear_steps: int = dataclasses.field(default=10, metadata=STATIC)

    keeps_v: ClassVar[bool] = True

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        draw = inner_draws(problem, state.keys, t, self.inner_steps + self.linear_steps + 1)
        y = _descent(self, problem, inputs, state, draw, t)
        along_y, along_x = outer_gradients(problem, inputs, y, state.x, problem.draw_outer(state.keys, t))
        rate = linear_rate(self, t)

        def solve(v: Tree, j: jax.Array) -> tuple[Tree, None]:
            product = hessian_product(problem, inputs, y, state.x, v, draw(self.inner_steps + j))
            return move(v, rate, trees.add(product, along_y)), None

        v, _ = jax.lax.scan(solve, state.v, jnp.arange(self.linear_steps, dtype=jnp.int32))
        last = draw(self.inner_steps + self.linear_steps)
        _, _, cross = inner_products(problem, inputs, y, state.x, v, last)
        return state._replace(y=y, v=v, x=outer_move(self, state.x, trees.add(cross, along_x), t))


# --- no second derivatives -------------------------------------------------------------------------------


@trees.record
class F2SA(TwoRates):
    """A penalty method that needs gradients only.

        y <- y - a dg/dy(y)   and   w <- w - a / (2 l) (df/dy + l dg/dy)(w),   `inner_steps` times
        x <- x - b (df/dx(w) + l (dg/dx(w) - dg/dx(y)))

    with f the outer and g the inner level, on one batch for both of y and w, so that their noise cancels (the
    paper draws two). The direction of x has a bias of order 1 / l, and l = penalty (1 + t)^(outer_decay -
    inner_decay) grows.

    Args:
        inner_rate: a, a number, an array of shape () or a schedule.
        outer_rate: b, likewise.
        penalty: l at t = 0; at least 2 L / mu for an outer level of smoothness L and an inner one of convexity mu.
        inner_decay: a number a is divided by (1 + t)^inner_decay.
        outer_decay: and b by (1 + t)^outer_decay.
        inner_steps: moves of y and w in a step.

    b l must not exceed about `inner_steps` a, or x runs away from y and w.

    `state.y` is the inner solution, which the paper calls z; its y is w, the state's memory. Cost of a step:
    3 `inner_steps` + 3 gradients, memory of one more y. Source: Kwon, Kwon, Wright, Nowak 2023, algorithm 1,
    with its rates for noise in both levels.

    >>> import nestor
    >>> inner = nestor.Level(lambda p, _: (p["y"] - p["x"]) ** 2 / 2, 0.0)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(1000, method=nestor.levels.F2SA(0.5, 0.5))
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    penalty: Any = 10.0
    inner_decay: Any = 4 / 7
    outer_decay: Any = 5 / 7
    inner_steps: int = dataclasses.field(default=10, metadata=STATIC)

    def init(self, problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, key: jax.Array) -> State:
        """See `Method.init`."""
        return super().init(problem, inputs, y, x, key)._replace(memory=y)

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        visits, keys = self.inner_steps + 1, state.keys
        draw_inner = inner_draws(problem, keys, t, visits)
        draw_outer = lambda i: problem.draw_outer(keys, t * visits + i)  # noqa: E731
        rate = inner_rate(self, t)
        penalty = rate_at(self.penalty, self.inner_decay - self.outer_decay, t)

        def turn(carry: tuple[Tree, Tree], i: jax.Array) -> tuple[tuple[Tree, Tree], None]:
            y, w = carry
            draw = draw_inner(i)
            along_y, _ = outer_gradients(problem, inputs, w, state.x, draw_outer(i))
            of_w = trees.add_scaled(inner_gradient(problem, inputs, w, state.x, draw), 1 / penalty, along_y)
            of_y = inner_gradient(problem, inputs, y, state.x, draw)
            return (move(y, rate, of_y), move(w, scaled(0.5, rate), of_w)), None

        times = jnp.arange(self.inner_steps, dtype=jnp.int32)
        (y, w), _ = jax.lax.scan(turn, (state.y, state.memory), times)
        draw = draw_inner(self.inner_steps)
        _, along_x = outer_gradients(problem, inputs, w, state.x, draw_outer(self.inner_steps))
        above = jax.grad(problem.inner, argnums=2)(inputs, w, state.x, *draw)
        below = jax.grad(problem.inner, argnums=2)(inputs, y, state.x, *draw)
        along = trees.add_scaled(along_x, penalty, trees.subtract(above, below))
        return state._replace(y=y, memory=w, x=outer_move(self, state.x, along, t))


# --- parts -----------------------------------------------------------------------------------------------


def inner_draws(
    problem: TwoLevels, keys: jax.Array, t: jax.Array, count: int
) -> Callable[[int | jax.Array], Draw]:
    """The inner batches of step t, which has `count` of them: a function of 0 ... count - 1."""
    return lambda i: problem.draw_inner(keys, t * count + i)


def _descent(method: Any, problem: TwoLevels, inputs: Tree, state: State, draw: Any, t: jax.Array) -> Tree:
    """y after `inner_steps` steps on the first draws."""
    rate = inner_rate(method, t)

    def turn(y: Tree, i: jax.Array) -> tuple[Tree, None]:
        return move(y, rate, inner_gradient(problem, inputs, y, state.x, draw(i))), None

    return jax.lax.scan(turn, state.y, jnp.arange(method.inner_steps, dtype=jnp.int32))[0]
