"""What a stochastic method for two levels is, and what those of this room have in common.

A method has two verbs and no loop over its steps: ``init(problem, inputs, y, x, key) -> state`` and
``step(problem, inputs, state, t) -> state``, with t = 0, 1, ... an int32 scalar. What a step draws follows from
t and the keys of the state, so that a run can be taken up again from any state.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

import jax

from nestor import trees
from nestor.levels._oracles import Point, TwoLevels, move
from nestor.levels._settings import make_schedules, rate_at

Tree = Any

STATIC = {"static": True}


class State(NamedTuple):
    """Where a run is.

    Attributes:
        y: inner variables.
        x: outer variables.
        v: the estimate of -(d²inner/dy²)^-1 d outer/dy, a tree like y; None in methods that keep none.
        memory: what else the method keeps.
        keys: random keys of the inner draws, of the outer draws, and for the method itself: shape (3,).
    """

    y: Tree
    x: Tree
    v: Tree
    memory: Tree
    keys: jax.Array

    @property
    def point(self) -> Point:
        """The variables that move."""
        return Point(self.y, self.v, self.x)


class Method(Protocol):
    """A stochastic method for two levels."""

    def init(self, problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, key: jax.Array) -> State:
        """The state before the first step."""
        ...

    def step(self, problem: TwoLevels, inputs: Tree, state: State, t: jax.Array) -> State:
        """The state after step t."""
        ...


@trees.record
class TwoRates:
    """A method with a rate for each level, and a start without memory."""

    inner_rate: Any = 0.1
    outer_rate: Any = 0.1

    keeps_v: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Make schedules of functions."""
        make_schedules(self)

    def init(self, problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, key: jax.Array) -> State:
        """See `Method.init`."""
        v = trees.zeros_like(y) if self.keeps_v else None
        return State(y, x, v, (), jax.random.split(key, 3))


@trees.record
class ThreeRates(TwoRates):
    """A method with a rate for each level and one for the linear system."""

    linear_rate: Any = None
    inner_decay: Any = 0.0
    outer_decay: Any = 0.0


def inner_rate(method: Any, t: jax.Array) -> Any:
    """The rate of y at step t."""
    return rate_at(method.inner_rate, method.inner_decay, t)


def linear_rate(method: Any, t: jax.Array) -> Any:
    """The rate of v at step t."""
    return rate_at(_linear(method), method.inner_decay, t)


def series_rate(method: Any, t: jax.Array) -> Any:
    """The rate of a series: the same at every step, unless it is a schedule."""
    return rate_at(_linear(method), 0.0, t)


def outer_move(method: Any, x: Tree, along: Tree, t: jax.Array) -> Tree:
    """x, moved against its direction."""
    return move(x, rate_at(method.outer_rate, method.outer_decay, t), along)


def _linear(method: Any) -> Any:
    return method.inner_rate if method.linear_rate is None else method.linear_rate
