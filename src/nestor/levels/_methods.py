"""A graph of two levels as the stochastic methods see it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from nestor.errors import BadArgument
from nestor.levels._engine import Engine
from nestor.levels._oracles import TwoLevels
from nestor.levels._plan import GraphPlan, LevelInputs, LevelState
from nestor.levels._settings import check_method

Tree = Any


def check(where: str, method: Any, plan: GraphPlan) -> None:
    """Whether the method is one, its settings are good, and the graph leaves to it what it does itself."""
    if not (hasattr(method, "init") and hasattr(method, "step")) or isinstance(method, type):
        raise BadArgument(
            where,
            "method",
            got=f"the class {method.__name__}" if isinstance(method, type) else method,
            want="None, or a stochastic method such as nestor.levels.SOBA(...)",
            do="write method=nestor.levels.SOBA(inner_rate=0.1, outer_rate=0.1)",
        )
    check_method(method)
    if len(plan.levels) != 2 or plan.levels[1].needs != (0,):
        raise BadArgument(
            where,
            "method",
            got=type(method).__name__,
            want="None for a graph that has not two levels",
            do="leave it away: the alternating engine takes any graph",
        )
    for level in plan.levels:
        own = {
            "clip": level.clip,
            "project": level.project is not None,
            "restart": level.restart,
            "answer": level.answer is not None,
            "gradient": level.estimator is not None,
            "data": level.batches.function is not None,
        }
        for field, used in own.items():
            if used:
                raise BadArgument(
                    f'level "{level.name}"',
                    field,
                    got=f"in use, in a run by {type(method).__name__}",
                    want="left away there: the method draws the batches and makes the moves of both levels",
                    do="leave it away, or run without method=",
                )


class MethodInputs(NamedTuple):
    """What a method's functions read.

    Attributes:
        levels: as of the engine.
        whole: the same of a graph whose batches are all of the data.
    """

    levels: tuple[LevelInputs, ...]
    whole: tuple[LevelInputs, ...]


def two_levels(engine: Engine, whole: Engine) -> TwoLevels:
    """The losses of both levels as functions of rows; `whole` is the engine of full batches."""
    sizes = [(max(level.batches.rows, 1), max(level.batches.size, 1)) for level in engine.plan.levels]

    def on(
        i: int, inputs: MethodInputs, y: Tree, x: Tree, rows: jax.Array | None, key: jax.Array
    ) -> jax.Array:
        known, data = {0: y, 1: x}, inputs.levels[i].data
        if rows is None:
            return whole.loss_on(inputs.whole, i, known, data, key)
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        return engine.loss_on(inputs.levels, i, known, batch, key)

    return TwoLevels(
        inner=lambda inputs, y, x, rows, key: on(0, inputs, y, x, rows, key),
        outer=lambda inputs, y, x, rows, key: on(1, inputs, y, x, rows, key),
        inner_rows=sizes[0][0],
        outer_rows=sizes[1][0],
        inner_batch=sizes[0][1],
        outer_batch=sizes[1][1],
    )


def moved(states: tuple[LevelState, ...], y: Tree, x: Tree) -> tuple[LevelState, ...]:
    """The states of the two levels after a step of a method."""
    return tuple(
        state._replace(params=params, t=state.t + 1, drawn=state.drawn + 1)
        for state, params in zip(states, (y, x), strict=True)
    )
