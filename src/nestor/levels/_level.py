"""What a user says of a level."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

Tree = Any


@dataclasses.dataclass(frozen=True)
class Level:
    """One problem of a graph: a loss, where its parameters start, and how they move. Data, not a class to inherit.

    Args:
        loss: ``loss(p, batch) -> scalar`` with ``p`` a dictionary of the parameters of all levels by name; it
            reads its own and whichever others it needs. ``loss(p, batch, key)`` with `stochastic`.
        params: where its parameters start, any tree; its floating-point arrays are moved.
        optimizer: `nestor.sgd`, `adam` or another optimizer of Nestor's, an optax transformation, or a function
            from ``p`` to one of Nestor's: levels above may then set its rates. None only with an `answer`, or for
            runs by a method that moves the levels itself.
        data: a tree of arrays with a common leading axis, a function of the number of the batch, or None.
        batch_size: examples in a batch; None takes all of them at every move.
        shuffle: draw the order anew in every epoch; False takes consecutive batches.
        stochastic: call the loss with a fresh random key at every move.
        steps: moves before the level above moves once.
        adjoint: how derivatives cross the answer of this level: `Implicit`, `Unroll`, `Checkpoint`, `Reversible`,
            `Truncate`, `OneStep`, `Forward`, `FiniteDifference`, `Evolution`, `DARTS`, `SAMA`. None: `Unroll()`
            up to 10 steps, else `Implicit()`. The highest level needs none.
        start: ``start(p) -> params``, where each run of this level starts: a function of the levels above it
            (a common initialisation), or ``start(p, key)`` with a fresh random key at every run. None goes on from
            where it was, a warm start; that is a constant for the derivatives of the steps, which end at the
            start of a run.
        restart: start afresh, optimizer included: True at every run, k at every k-th one, from `start` or, without
            one, from `params`. None is True where there is a `start`, else False.
        answer: ``answer(p) -> params``, the answer in closed form; then there is no optimizer and no steps, and
            derivatives cross it as they cross any function.
        gradient: how the gradient of this level is found: None differentiates its loss; `levels.Smoothed` or
            `levels.Reinforce` only evaluate it, for what has no derivative.
        clip: largest norm of a gradient, a number; longer ones are scaled down to it.
        project: ``project(params) -> params``, applied after every move, for constraints.
        accumulate: parts into which a batch is divided; its loss is the mean over them, and they are computed one
            after the other, in the memory of one.
        precision: a dtype such as "bfloat16" in which the loss is computed; parameters and optimizer keep theirs.

    >>> import jax.numpy as jnp, nestor
    >>> nestor.Level(lambda p, _: jnp.sum((p["w"] - 1.0) ** 2), jnp.zeros(3), nestor.sgd(0.1), steps=20).steps
    20
    """

    loss: Callable[..., Any]
    params: Tree
    optimizer: Any = None
    _: dataclasses.KW_ONLY
    data: Any = None
    batch_size: int | None = None
    shuffle: bool = True
    stochastic: bool = False
    steps: int = 1
    adjoint: Any = None
    start: Callable[..., Tree] | None = None
    restart: bool | int | None = None
    answer: Callable[..., Tree] | None = None
    gradient: Any = None
    clip: Any = None
    project: Callable[[Tree], Tree] | None = None
    accumulate: int = 1
    precision: Any = None
