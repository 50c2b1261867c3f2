"""A graph of levels without its arrays, and what flows through it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax

from nestor.loops import Rule
from nestor.programs import Program
from nestor.training import Batches

Tree = Any


class LevelPlan(NamedTuple):
    """The hashable part of a level. Programs are called with the parameters of all levels, by name.

    Attributes:
        name: of the level.
        loss: (parameters, batch, noise key) -> scalar.
        optimizer: what is left of the optimizer without its arrays; None where the answer has a closed form.
        chooses: parameters -> the arrays of the optimizer, where levels above set them; else None.
        rule: the optimizer's rule, if its steps can be run backwards; else None.
        batches: how batches are drawn.
        parts: into which a batch is divided, to be computed one after the other.
        steps: moves before the level above moves once.
        adjoint: how derivatives cross the answer of this level.
        estimator: how the gradient of this level is found without derivatives of its loss; else None.
        clip: whether gradients are clipped by norm.
        project: parameters of this level -> admissible ones, after each move; else None.
        start: (parameters, key) -> where each run of this level starts; else None, and it goes on from where it was.
        restart: runs from one fresh start to the next; 0 for none.
        answer: parameters -> the answer, where it has a closed form; else None.
        needs: the levels below whose answers the loss depends on, highest first.
    """

    name: str
    loss: Program
    optimizer: Hashable
    chooses: Program | None
    rule: Rule | None
    batches: Batches
    parts: int
    steps: int
    adjoint: Any
    estimator: Any
    clip: bool
    project: Program | None
    start: Program | None
    restart: int
    answer: Program | None
    needs: tuple[int, ...]


class GraphPlan(NamedTuple):
    """The hashable part of a graph: two equal plans are one compiled program.

    Attributes:
        levels: lowest first.
        mesh: devices over which batches are spread, with one axis "data"; None for one device.
    """

    levels: tuple[LevelPlan, ...]
    mesh: Any = None


class LevelInputs(NamedTuple):
    """The arrays of a level: what its programs closed over, its data, and where it starts."""

    initial: Tree
    captured: list[Any]
    data: Tree
    key: jax.Array
    optimizer: list[Any]
    clip: jax.Array
    project: list[Any]
    start: list[Any]
    answer: list[Any]


class LevelState(NamedTuple):
    """Where a level is.

    Attributes:
        params: its trained arrays.
        optimizer: its optimizer's state; () where the answer has a closed form.
        t: moves since its last fresh start (int32).
        drawn: batches drawn (int32).
        runs: runs begun (int32).
    """

    params: Tree
    optimizer: Any
    t: jax.Array
    drawn: jax.Array
    runs: jax.Array


class Given(NamedTuple):
    """What the answer of a level is a function of.

    Attributes:
        inputs: of all levels.
        known: the parameters of levels above, by their number.
        states: of the levels up to this one, lowest first.
        fresh: a random key, another one at every run, for adjoints that draw noise; None where nothing draws.
    """

    inputs: tuple[LevelInputs, ...]
    known: dict[int, Tree]
    states: tuple[LevelState, ...]
    fresh: Any = None
