"""The compiled run of a graph: outer step after outer step in one program, whatever the stretch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.levels._engine import Engine
from nestor.levels._methods import MethodInputs, two_levels
from nestor.levels._methods import moved as moved_by
from nestor.levels._oracles import TwoLevels
from nestor.levels._plan import Given, GraphPlan, LevelInputs, LevelState
from nestor.loops import Loop, begun, onward, to_the_end
from nestor.programs import Program
from nestor.solution import Status
from nestor.training import with_best, with_status

Tree = Any
RUNNING = int(Status.RUNNING)


class RunPlan(NamedTuple):
    """The hashable part of a run.

    Attributes:
        graph: the graph.
        mover: None for the alternating engine, else a stochastic method for two levels without its arrays.
        whole: for such a method, the graph with all data in each batch; else None.
        steps: outer steps.
        validation: parameters by name -> scalar; None for none.
        every: outer steps between two validations.
        patience: validations without improvement before the run stops; None for no end.
        guarded: whether every step makes sure that all parameters are finite, and keeps those before it if not.
            Without, a run ends at the first loss or gradient that is not, and says at the end of a stretch
            whether everything is finite: at a lower price, for runs that can be made again with guard.
        reports: outer steps between two measurements of the losses below.
        compiler_options: XLA's, as pairs in order of their names.
    """

    graph: GraphPlan
    mover: Any
    whole: GraphPlan | None
    steps: int
    validation: Program | None
    every: int
    patience: int | None
    reports: int
    guarded: bool = False
    compiler_options: tuple[tuple[str, Any], ...] = ()


class RunInputs(NamedTuple):
    """The arrays of a run.

    Attributes:
        levels: those of the levels.
        start: the states of the levels at its start.
        mover: those of its method.
        whole: as `levels`, of the graph with all data in each batch; () where there is no method.
        validation: what the validation loss closed over.
    """

    levels: tuple[LevelInputs, ...]
    start: Any
    mover: list[Any]
    whole: tuple[LevelInputs, ...]
    validation: list[Any]


class Seen(NamedTuple):
    """What is recorded of every outer step.

    Attributes:
        loss: of the highest level, before its move.
        norm: of its gradient.
        validation: after it; NaN where none was taken.
        below: losses of the levels below, lowest first, after their moves; NaN where none were measured.
    """

    loss: jax.Array
    norm: jax.Array
    validation: jax.Array
    below: jax.Array


class Carry(NamedTuple):
    """What goes round: the step, the states, the method's own, the status, and the best answer so far."""

    t: jax.Array
    states: tuple[LevelState, ...]
    own: Any
    code: jax.Array
    best: Any
    best_value: jax.Array
    waited: jax.Array
    seen: Seen


Stretch = Callable[[RunInputs, Carry, Seen, jax.Array], tuple[Carry, Seen]]


@functools.lru_cache(maxsize=128)
def compiled(plan: RunPlan) -> tuple[Callable[..., tuple[Carry, Seen]], Stretch]:
    """The start of a run, and a stretch of it up to a given step, compiled; it consumes the record."""
    loop = _loop(plan)

    def begin(inputs: RunInputs) -> tuple[Carry, Seen]:
        return begun(loop, inputs)[1:]

    def stretch(inputs: RunInputs, carry: Carry, rows: Seen, until: jax.Array) -> tuple[Carry, Seen]:
        _, carry, rows = onward(loop, inputs, (carry.t, carry, rows), until)
        fine = trees.all_finite([state.params for state in carry.states])
        code = jnp.where(fine, carry.code, jnp.int32(int(Status.NOT_FINITE)))
        return carry._replace(code=code), rows

    options = dict(plan.compiler_options) or None
    # A copy of the record a stretch would be many.
    return jax.jit(begin, compiler_options=options), jax.jit(
        stretch, donate_argnums=2, compiler_options=options
    )


@functools.lru_cache(maxsize=128)
def compiled_whole(plan: RunPlan) -> Callable[[RunInputs], tuple[Carry, Seen]]:
    """The whole run in one go, compiled."""
    return jax.jit(functools.partial(to_the_end, _loop(plan)))


def _loop(plan: RunPlan) -> Loop:
    run = _Run(plan)
    return Loop(
        start=run.start,
        turn=run.turn,
        running=lambda carry: carry.code == RUNNING,
        bound=plan.steps,
        seen=lambda carry: carry.seen,
    )


@functools.lru_cache(maxsize=128)
def compiled_move(plan: GraphPlan, i: int) -> Callable[..., Any]:
    """(level inputs, states) -> the move of level i, compiled."""
    engine = Engine(plan)

    def move(inputs: tuple[LevelInputs, ...], states: tuple[LevelState, ...]) -> Any:
        known = {k: state.params for k, state in enumerate(states) if k > i}
        return engine.move(Given(inputs, known, states[: i + 1]), i)

    return jax.jit(move)


@functools.lru_cache(maxsize=128)
def compiled_beginning(plan: GraphPlan) -> Callable[..., tuple[LevelState, ...]]:
    """Level inputs -> the states of all levels at their start, compiled."""
    return jax.jit(Engine(plan).beginning)


class _Run:
    def __init__(self, plan: RunPlan):
        self.plan = plan
        self.engine = Engine(plan.graph)
        self.top = len(plan.graph.levels) - 1

    def start(self, inputs: RunInputs) -> Carry:
        states = inputs.start
        dtype = trees.float_dtype(states[self.top].params)
        nothing = jnp.full((), jnp.nan, dtype)
        seen = Seen(nothing, nothing, nothing, jnp.full((self.top,), jnp.nan, dtype))
        zero, infinite = jnp.int32(0), jnp.full((), jnp.inf, dtype)
        best = tuple(state.params for state in states) if self.plan.validation is not None else ()
        own = ()
        if self.plan.mover is not None:
            y, x = (state.params for state in states)
            key = inputs.levels[self.top].key
            own = self._method(inputs).init(
                self._problem(), MethodInputs(inputs.levels, inputs.whole), y, x, key
            )
        return Carry(zero, states, own, jnp.int32(RUNNING), best, infinite, zero, seen)

    def _method(self, inputs: RunInputs) -> Any:
        return trees.join(inputs.mover, self.plan.mover)

    def _problem(self) -> TwoLevels:
        assert self.plan.whole is not None
        return two_levels(self.engine, Engine(self.plan.whole))

    def turn(self, inputs: RunInputs, carry: Carry) -> Carry:
        plan, dtype = self.plan, carry.best_value.dtype
        if plan.mover is None:
            moved = self.engine.move(Given(inputs.levels, {}, carry.states), self.top)
            states, own = moved.states, ()
            loss, norm = moved.loss.astype(dtype), trees.norm(moved.gradient).astype(dtype)
            fine = jnp.isfinite(loss) & jnp.isfinite(norm)
        else:
            states, own, loss, norm = self._by_method(inputs, carry)
            fine = jnp.ones((), bool)
        if plan.guarded:
            fine = fine & trees.all_finite([s.params for s in states])
            states = trees.select(fine, states, carry.states)
        code = jnp.where(fine, carry.code, jnp.int32(int(Status.NOT_FINITE)))
        t = carry.t + 1
        carry = carry._replace(t=t, states=states, own=own, code=code)
        carry, validation = self._validated(inputs, carry, fine)
        carry = _ended(carry, carry.t == plan.steps, Status.FINISHED)
        return carry._replace(seen=Seen(loss, norm, validation, self._below(inputs, carry)))

    def _by_method(self, inputs: RunInputs, carry: Carry) -> tuple[Any, Any, jax.Array, jax.Array]:
        """The states, the method's own, the loss where one is due, and the length of the move of the outer level."""
        plan, dtype = self.plan, carry.best_value.dtype
        count = carry.states[self.top].t
        read = MethodInputs(inputs.levels, inputs.whole)
        own = self._method(inputs).step(self._problem(), read, carry.own, count)
        before = carry.states[self.top]

        def measure() -> jax.Array:
            known = {k: state.params for k, state in enumerate(carry.states)}
            return self.engine.loss(inputs.levels, self.top, known, before.drawn).astype(dtype)

        due = ((carry.t + 1) % plan.reports == 0) | (carry.t + 1 == plan.steps)
        loss = jax.lax.cond(due, measure, lambda: jnp.full((), jnp.nan, dtype))
        norm = trees.norm(trees.subtract(own.x, before.params)).astype(dtype)
        return moved_by(carry.states, own.y, own.x), own, loss, norm

    def _below(self, inputs: RunInputs, carry: Carry) -> jax.Array:
        dtype = carry.best_value.dtype
        blank = jnp.full((self.top,), jnp.nan, dtype)
        if not self.top:
            return blank
        known = {k: state.params for k, state in enumerate(carry.states)}

        def measure() -> jax.Array:
            drawn = [jnp.maximum(state.drawn - 1, 0) for state in carry.states]
            losses = [self.engine.loss(inputs.levels, i, known, drawn[i]) for i in range(self.top)]
            return jnp.stack([loss.astype(dtype) for loss in losses])

        due = (carry.t % self.plan.reports == 0) | (carry.t == self.plan.steps)
        return jax.lax.cond(due, measure, lambda: blank)

    def _validated(self, inputs: RunInputs, carry: Carry, fine: jax.Array) -> tuple[Carry, jax.Array]:
        plan, dtype = self.plan, carry.best_value.dtype
        nothing = jnp.full((), jnp.nan, dtype)
        if plan.validation is None:
            return carry, nothing
        program = plan.validation
        params = tuple(state.params for state in carry.states)
        named = {level.name: p for level, p in zip(plan.graph.levels, params, strict=True)}
        due = ((carry.t % plan.every == 0) | (carry.t == plan.steps)) & fine
        value = jax.lax.cond(due, lambda: program(inputs.validation, named).astype(dtype), lambda: nothing)
        _, carry = with_best(carry, due, value, params)
        if plan.patience is not None:
            carry = _ended(carry, carry.waited >= plan.patience, Status.OVERFITTED)
        return carry, value


def _ended(carry: Carry, when: jax.Array, status: Status) -> Carry:
    return carry._replace(code=with_status(carry.code, when, status))
