"""Hyperparameters that are optimized while the run goes on: optimizers on top of optimizers, to any height.

At every step the gradient of the loss is pulled back through the step before, to the hyperparameters that it
used, and their own optimizer moves them; that one may have hyperparameters that are tuned in turn.
Source: Chandra, Xie, Ragan-Kelley, Meijer 2022, "Gradient descent: the ultimate optimizer", section 2.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.errors import BadArgument

Tree = Any


@trees.record
class Tuned:
    """A hyperparameter that another optimizer moves; made by `tuned`.

    Args:
        start: its value at the start, an array.
        by: its optimizer.
        log: whether its logarithm is what is moved.

    >>> import nestor
    >>> nestor.tuned(0.1, by=nestor.sgd(1e-3)).log
    False
    """

    start: jax.Array
    by: Any
    log: bool = dataclasses.field(default=False, metadata={"static": True})

    def value(self, moved: jax.Array) -> jax.Array:
        """The hyperparameter from what is moved."""
        return jnp.exp(moved) if self.log else moved

    def begin(self) -> jax.Array:
        """What is moved, at the start."""
        return jnp.log(self.start) if self.log else self.start


class State(NamedTuple):
    """What an optimizer remembers.

    Attributes:
        slots: its own memory.
        tuned: for every tuned hyperparameter (what is moved, the state of its optimizer).
        last: the step before, which the hypergradient goes through: (gradient, params, slots, hyperparameters);
            None where nothing is tuned.
    """

    slots: dict[str, Tree]
    tuned: dict[str, tuple[jax.Array, Any]]
    last: Any


def tuned(start: Any, by: Any, *, log: bool = False) -> Tuned:
    """A hyperparameter that is optimized online, by an optimizer of its own.

    Args:
        start: where it starts: a number or an array.
        by: the optimizer that moves it, for example ``nestor.sgd(1e-4)``; its hyperparameters may be `tuned` too.
        log: move its logarithm, which keeps it positive and makes the steps relative.

    Greedy: each step's hypergradient looks one step back (`nestor.OneStep` in time). Cost: two more
    elementwise passes and a copy of parameters, gradient and slots for each level.

    Raises:
        BadArgument: `by` is not one of Nestor's optimizers, or `start` is no number.

    Source: Baydin et al. 2018; Chandra et al. 2022, section 2.

    >>> import nestor
    >>> tower = nestor.sgd(nestor.tuned(1e-3, by=nestor.sgd(nestor.tuned(1e-4, by=nestor.sgd(1e-5)))))
    """
    if not (hasattr(by, "rule") and hasattr(by, "update")):
        raise BadArgument(
            "tuned", "by", got=by, want="an optimizer of Nestor's", do="write by=nestor.sgd(1e-4)"
        )
    try:
        value = jnp.asarray(start, float) if not isinstance(start, jax.Array) else start
    except (TypeError, ValueError) as error:
        raise BadArgument(
            "tuned", "start", got=start, want="a number or an array of floats", do="write tuned(0.1, by=...)"
        ) from error
    return Tuned(value, by, log)


def begin_optimizer(optimizer: Any, params: Tree) -> State:
    """The state of an optimizer at the start of a run."""
    slots = optimizer.init(params)
    above = {name: part for name, part in optimizer.schedules.items() if isinstance(part, Tuned)}
    if not above:
        return State(slots, {}, None)
    moved = {name: part.begin() for name, part in above.items()}
    states = {name: (moved[name], begin_optimizer(part.by, moved[name])) for name, part in above.items()}
    values = {name: part.value(moved[name]) for name, part in above.items()}
    return State(slots, states, (trees.zeros_like(params), params, slots, values))


def advance_optimizer(
    optimizer: Any, t: jax.Array, gradient: Tree, params: Tree, state: State
) -> tuple[Tree, State, dict[str, Any]]:
    """One step of an optimizer and of those above it: parameters, state, the hyperparameters that were used."""
    if not state.tuned:
        hyper = optimizer.values(t)
        params, slots = optimizer.update(hyper, t, gradient, params, state.slots)
        return params, State(slots, {}, None), hyper
    tuned = _move_the_tuned(optimizer, t, gradient, state)
    moving = {name: optimizer.schedules[name].value(tuned[name][0]) for name in tuned}
    hyper = _hyper(optimizer, t, moving)
    new, slots = optimizer.update(hyper, t, gradient, params, state.slots)
    return new, State(slots, tuned, (gradient, params, state.slots, moving)), hyper


def _hyper(optimizer: Any, t: jax.Array, moving: dict[str, Any]) -> dict[str, Any]:
    still = {n: part(t) for n, part in optimizer.schedules.items() if not isinstance(part, Tuned)}
    return {**still, **moving}


def _move_the_tuned(optimizer: Any, t: jax.Array, gradient: Tree, state: State) -> dict[str, Any]:
    """Pull the gradient back through the step before, and let each tuned hyperparameter's optimizer move it."""
    before, params, slots, _ = state.last
    earlier = jnp.maximum(t - 1, 0)

    def effect(moved: dict[str, jax.Array]) -> Tree:
        moving = {name: optimizer.schedules[name].value(m) for name, m in moved.items()}
        return optimizer.update(_hyper(optimizer, earlier, moving), earlier, before, params, slots)[0]

    _, pull = jax.vjp(effect, {name: m for name, (m, _) in state.tuned.items()})
    slopes = pull(gradient)[0]
    result = {}
    for name, (m, own) in state.tuned.items():
        moved, after, _ = advance_optimizer(optimizer.schedules[name].by, earlier, slopes[name], m, own)
        result[name] = trees.select(t > 0, (moved, after), (m, own))
    return result
