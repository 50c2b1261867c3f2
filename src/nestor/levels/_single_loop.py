"""Stochastic methods that move both levels at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.levels._oracles import (
    Point,
    TwoLevels,
    directions,
    everything,
    inner_products,
    move,
    outer_gradients,
    shuffled,
)
from nestor.levels._stochastic import STATIC, State, ThreeRates, inner_rate, linear_rate, outer_move

Tree = Any


@trees.record
class SOBA(ThreeRates):
    """Stochastic bilevel descent in which y, v and x move at once.

        y <- y - a dg/dy,   v <- v - c ((d²g/dy²) v + df/dy),   x <- x - b ((d²g/dy dx)' v + df/dx)

    with f the outer and g the inner level, each on a batch of its own, and all at the old point.

    Args:
        inner_rate: a, a number, an array of shape () or a schedule (see `nestor.schedules.as_schedule`); at
            most 1 / L for a Hessian of norm L.
        outer_rate: b, likewise.
        linear_rate: c, likewise; None is a.
        inner_decay: numbers a and c are divided by (1 + t)^inner_decay.
        outer_decay: and b by (1 + t)^outer_decay.

    The variables chase each other: b times the curvature of x -> f(y*(x), x) must stay below about 2 a mu, mu the
    least eigenvalue of d²g/dy², or they spiral outwards. The noise of the batches stays unless the rates fall.
    Cost of a step: about three gradients of a batch, no memory but y, v and x. Source: Dagréou, Ablin, Vaiter,
    Moreau 2022, algorithm 1.

    >>> import nestor
    >>> inner = nestor.Level(lambda p, _: (p["y"] - p["x"]) ** 2 / 2, 0.0)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> steady = nestor.levels.SOBA(0.5, 0.2, inner_decay=0.0, outer_decay=0.0)  # nothing is drawn
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(100, method=steady)
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    inner_decay: Any = 0.5
    outer_decay: Any = 0.5

    keeps_v: ClassVar[bool] = True

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        inner, outer = problem.draw_inner(state.keys, t), problem.draw_outer(state.keys, t)
        along = directions(problem, inputs, state.point, inner, outer)
        return _moved(self, state, along, state.memory, t)


class Table(NamedTuple):
    """What `SABA` remembers of one level: a tree for each batch.

    Attributes:
        entries: the last value of each batch, with a leading axis of batches.
        mean: their mean.
        old: the entry that the next step replaces. It is read ahead: a table that is read and then written in
            one turn of a loop is copied whole by XLA.
    """

    entries: Tree
    mean: Tree
    old: Tree


@trees.record
class SABA(ThreeRates):
    """SOBA with SAGA's variance reduction: constant rates converge to the solution itself.

        direction = new_i - table_i + mean(table),   then table_i <- new_i

    for each of the five sums in the directions of `SOBA`, where i is the batch drawn.

    Args:
        inner_rate: of y and v; a number, an array of shape () or a schedule.
        outer_rate: of x, likewise.
        linear_rate: of v; None is the inner rate.
        inner_decay: as in `SOBA`; none is needed.
        outer_decay: as in `SOBA`.

    Batches are fixed for a run: a random partition of the rows, visited in another order on each pass. Rows
    beyond the last full batch are left out, so a batch had better divide the rows. What else is random in a
    function is drawn once for each batch. `init` fills the tables by one pass over the data. With many batches
    the tables are old, and rates must be smaller than those of `SRBA`.

    Cost of a step: as `SOBA`. Memory: (2 |y| + |x|) inner_rows / inner_batch + (|y| + |x|) outer_rows /
    outer_batch numbers. Source: Dagréou, Ablin, Vaiter, Moreau 2022.

    >>> import jax.numpy as jnp, nestor
    >>> a = jnp.array([0.5, 1.0, 1.5, 2.0])
    >>> inner = nestor.Level(lambda p, a: jnp.mean(a * (p["y"] - p["x"]) ** 2) / 2, 0.0, data=a, batch_size=1)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(200, method=nestor.levels.SABA(0.2, 0.2))
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    keeps_v: ClassVar[bool] = True

    def init(self, problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, key: jax.Array) -> State:
        """See `Method.init`."""
        state = super().init(problem, inputs, y, x, key)
        i, j = _visits(problem, state.keys, jnp.int32(0))
        inner = _table(lambda k: self.inner_entry(problem, inputs, state, k), problem.inner_batches, i)
        outer = _table(lambda k: self.outer_entry(problem, inputs, state, k), problem.outer_batches, j)
        return state._replace(memory=(inner, outer))

    def inner_entry(self, problem: TwoLevels, inputs: Tree, state: State, i: jax.Array) -> tuple[Tree, ...]:
        """What the inner table holds of batch i at that state."""
        return inner_products(problem, inputs, state.y, state.x, state.v, problem.draw_inner(state.keys, i))

    def outer_entry(self, problem: TwoLevels, inputs: Tree, state: State, i: jax.Array) -> tuple[Tree, ...]:
        """What the outer table holds of batch i at that state."""
        return outer_gradients(problem, inputs, state.y, state.x, problem.draw_outer(state.keys, i))

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        visits, then = _visits(problem, state.keys, t), _visits(problem, state.keys, t + 1)
        return self.visit(problem, inputs, state, t, visits, then)

    def visit(
        self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array, batches: Visits, then: Visits
    ) -> State:
        """Step t with an inner and an outer batch, and those of the step that follows."""
        (i, j), (table, above) = batches, state.memory
        inner, table = _saga(table, self.inner_entry(problem, inputs, state, i), i, then[0])
        outer, above = _saga(above, self.outer_entry(problem, inputs, state, j), j, then[1])
        gradient, hessian, cross = inner
        along = Point(gradient, trees.add(hessian, outer[0]), trees.add(cross, outer[1]))
        return _moved(self, state, along, (table, above), t)


Visits = tuple[jax.Array, jax.Array]


def _table(entry: Callable[[jax.Array], Tree], count: int, first: jax.Array) -> Table:
    entries = jax.lax.map(entry, jnp.arange(count, dtype=jnp.int32))
    return Table(entries, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), entries), _entry(entries, first))


def _entry(entries: Tree, i: jax.Array) -> Tree:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), entries)


def _saga(table: Table, new: Tree, i: jax.Array, then: jax.Array) -> tuple[Tree, Table]:
    """The direction with a new entry i, and the table with it, ready for entry `then`."""
    put = lambda leaf, value: jax.lax.dynamic_update_index_in_dim(leaf, value, i, 0)  # noqa: E731
    count = jax.tree.leaves(table.entries)[0].shape[0]
    change = trees.subtract(new, table.old)
    entries = jax.tree.map(put, table.entries, new)
    mean = trees.add_scaled(table.mean, 1 / count, change)
    return trees.add(change, table.mean), Table(entries, mean, _entry(entries, then))


def _visits(problem: TwoLevels, keys: jax.Array, t: jax.Array) -> Visits:
    """Which inner and which outer batch step t visits: all of them on each pass, in a random order."""
    orders = jax.random.split(keys[2], 2)
    i = shuffled(problem.inner_batches, 1, orders[0], t)
    j = shuffled(problem.outer_batches, 1, orders[1], t)
    return i[0], j[0]


@trees.record
class SRBA(ThreeRates):
    """SOBA with SARAH's variance reduction: what changes is added up, and begun anew from all rows.

        direction_t = direction_(t-1) + D(point_t) - D(point_(t-1)),   both on the batch of step t

    with D the three directions of `SOBA`, and direction_t = D(point_t) on all rows where `period` divides t.

    Args:
        inner_rate: of y and v; a number, an array of shape () or a schedule.
        outer_rate: of x, likewise.
        linear_rate: of v; None is the inner rate.
        inner_decay: as in `SOBA`; none is needed.
        outer_decay: as in `SOBA`.
        period: steps from one pass over all rows to the next; None is about an epoch.

    Cost of a step: about six gradients of a batch, and once in a period three of all rows. Memory: two more of
    each of y, v and x. Source: Dagréou, Moreau, Vaiter, Ablin 2024, algorithm 1.

    >>> import jax.numpy as jnp, nestor
    >>> a = jnp.array([0.5, 1.0, 1.5, 2.0])
    >>> inner = nestor.Level(lambda p, a: jnp.mean(a * (p["y"] - p["x"]) ** 2) / 2, 0.0, data=a, batch_size=1)
    >>> outer = nestor.Level(lambda p, _: (p["y"] - 1) ** 2 / 2, 0.0)
    >>> run = nestor.Graph({"y": inner, "x": outer}).run(300, method=nestor.levels.SRBA(0.2, 0.2))
    >>> print(f"{run.params['x']:.2f}")
    1.00
    """

    period: int | None = dataclasses.field(default=None, metadata=STATIC)

    keeps_v: ClassVar[bool] = True

    def init(self, problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, key: jax.Array) -> State:
        """See `Method.init`."""
        state = super().init(problem, inputs, y, x, key)
        return state._replace(memory=(state.point, trees.zeros_like(state.point)))

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """See `Method.step`."""
        old, last = state.memory
        point = state.point

        def anew() -> Point:
            inner, outer = everything(state.keys[0]), everything(state.keys[1])
            return directions(problem, inputs, point, inner, outer)

        def onward() -> Point:
            inner, outer = problem.draw_inner(state.keys, t), problem.draw_outer(state.keys, t)
            there = directions(problem, inputs, point, inner, outer)
            here = directions(problem, inputs, old, inner, outer)
            return trees.add(last, trees.subtract(there, here))

        along = jax.lax.cond(t % (self.period or problem.epoch) == 0, anew, onward)
        return _moved(self, state, along, (point, along), t)


def _moved(method: Any, state: State, along: Point, memory: Tree, t: jax.Array) -> State:
    """Against the directions of y, v and x, each at its rate."""
    y, v = move(state.y, inner_rate(method, t), along.y), move(state.v, linear_rate(method, t), along.v)
    return State(y, outer_move(method, state.x, along.x, t), v, memory, state.keys)
