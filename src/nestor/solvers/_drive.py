"""The one driver: it builds the loop of any solver, attaches any adjoint, and remembers what it built."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints import Answer, Condition, Read, envelope
from nestor.loops import Loop, begun, onward
from nestor.programs import Program, quick_jit, show
from nestor.solution import History, Status
from nestor.solvers._bounds import Box
from nestor.solvers._contract import (
    Bound,
    Info,
    Minimization,
    Problem,
    code,
    converged_at_precision,
    no_info,
)

Tree = Any


class Kind(NamedTuple):
    """A kind of problem as the driver needs it.

    Attributes:
        problem: the class of the problem.
        residual: (problem, x) -> what vanishes at a solution.
        value: (problem, x) -> the objective, as the envelope theorem wants it; None where there is none.
        symmetric, positive: facts about the derivative of that residual at a solution.
        by_value: whether the best point seen is the one of least value; else it is that of least optimality.
        report: (problem, x, state, whether x is the last point kept) -> what `Solution.kkt` is made from; None where
            there is none.
        settle: (problem, x) -> what `_kkt.Settled` says, or None without bounds.
    """

    problem: type[Problem]
    residual: Callable[[Any, Tree], Tree]
    value: Callable[[Any, Tree], jax.Array] | None
    symmetric: bool
    positive: bool
    by_value: bool = True
    report: Callable[[Any, Tree, Any, jax.Array], Tree] | None = None
    settle: Callable[[Any, Tree], Any] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beside:
    """Something that a problem has beside its function, parted: its arrays are inputs, its rest is structure."""

    arrays: list[Any]
    rest: Hashable = dataclasses.field(metadata={"static": True})

    @property
    def whole(self) -> Any:
        """The thing itself."""
        return trees.join(self.arrays, self.rest)


def beside(*things: Any) -> tuple[Beside, ...]:
    """Things as inputs of a solve; see `trees.split`."""
    return tuple(Beside(*trees.split(thing)) for thing in things)


class Onward(NamedTuple):
    """The place of a solve among several that make one.

    Attributes:
        budget: evaluations at most, an int32 scalar; not more than the plan allows.
        scale: how large the residual was at the start of the first solve, a scalar; None for the first itself.
    """

    budget: jax.Array
    scale: jax.Array | None


class Inputs(NamedTuple):
    """Everything that a compiled solve depends on besides its structure.

    Attributes:
        captured: what the user's function closed over.
        x0: the start.
        solver: the arrays among the solver's settings.
        watcher: the number of the callback's registration (an int32 scalar).
        box: the bounds, or None.
        beside: what else the class of the problem holds, in the order of its fields: a penalty, a loss.
        onward: see `Onward`; None for a solve that stands alone.
    """

    captured: list[Any]
    x0: Tree
    solver: list[Any]
    watcher: jax.Array
    box: Box | None = None
    beside: tuple[Beside, ...] = ()
    onward: Onward | None = None


class Plan(NamedTuple):
    """The hashable part of a solve: two equal plans are one compiled program."""

    kind: Kind
    program: Program
    solver: Hashable
    adjoint: Any
    tol: float
    max_steps: int
    history: bool
    watch: str  # "", "numbers" or "points": what the callback is shown


class Carry(NamedTuple):
    """What goes round the loop."""

    x: Tree  # the point to be evaluated next
    state: Any
    best_x: Tree
    best: Info
    status: jax.Array
    turns: jax.Array
    accepted: jax.Array
    first: jax.Array  # the optimality at the start


class Record(NamedTuple):
    """What a solve reports besides x and its value."""

    code: jax.Array
    turns: jax.Array
    accepted: jax.Array
    optimality: jax.Array
    history: History | None
    first: jax.Array  # the optimality at the start
    kkt: Tree = None


class _Task(NamedTuple):
    """What is to be done, as the solver wants it: with the user's tree, or with one vector in its place.

    Attributes:
        solver: the method.
        problem: its problem.
        x0: the start.
        back: from a point of the solver to one of the user.
    """

    solver: Any
    problem: Problem
    x0: Tree
    back: Callable[[Tree], Tree]


@functools.lru_cache(maxsize=512)
def solution_map(plan: Plan) -> Callable[[Inputs], Answer]:
    """The compiled, differentiable function from inputs to the answer."""
    loop, read, condition = pieces(plan)
    return jax.jit(plan.adjoint.attach(loop, read, condition))


@functools.lru_cache(maxsize=512)
def value_map(plan: Plan) -> Callable[[Inputs], Answer]:
    """The compiled function to the minimum value (and no point), differentiable by the envelope theorem."""
    loop, read, condition = pieces(plan)
    value = envelope(plan.adjoint.attach(loop, read, condition), condition)
    return jax.jit(lambda inputs: Answer(None, *value(inputs)))


def pieces(plan: Plan) -> tuple[Loop, Read, Condition]:
    def bind(inputs: Inputs) -> tuple[Any, Problem]:
        solver = trees.join(inputs.solver, plan.solver)
        fun = Bound(plan.program, inputs.captured)
        scale = None if inputs.onward is None else inputs.onward.scale
        return solver, plan.kind.problem(
            fun, plan.tol, inputs.box, scale, *(thing.whole for thing in inputs.beside)
        )

    def task(inputs: Inputs) -> _Task:
        solver, problem = bind(inputs)
        if getattr(solver, "in_one_vector", False):
            return _Task(solver, *problem.raveled(inputs.x0))
        return _Task(solver, problem, inputs.x0, lambda x: x)

    def start(inputs: Inputs) -> Carry:
        solver, problem, x0, _ = task(inputs)
        nothing = no_info(x0)
        return Carry(
            x=x0,
            state=solver.init(problem, x0),
            best_x=x0,
            best=nothing,
            status=code(Status.RUNNING),
            turns=jnp.int32(0),
            accepted=jnp.int32(0),
            first=nothing.optimality,
        )

    def turn(inputs: Inputs, carry: Carry) -> Carry:
        solver, problem, _, back = task(inputs)
        x_next, state = solver.step(problem, carry.x, carry.state)
        status = solver.status(problem, carry.x, state)
        info: Info = state.info
        lost = (status == int(Status.RUNNING)) & ~trees.all_finite(trees.stop_gradient(x_next))
        status = jnp.where(lost, code(Status.NOT_FINITE), status)
        if inputs.onward is not None:
            spent = (status == int(Status.RUNNING)) & (carry.turns + 1 >= inputs.onward.budget)
            status = jnp.where(spent, code(Status.OUT_OF_STEPS), status)
        if plan.watch:
            running = carry.status == int(Status.RUNNING)
            point = back(carry.x) if plan.watch == "points" else None
            stop = show(
                inputs.watcher, running, carry.turns, info.value, info.optimality, info.accepted, point
            )
            asked = stop & (status == int(Status.RUNNING))
            status = jnp.where(asked, code(Status.STOPPED), status)
        if plan.kind.by_value:
            better = (info.value < carry.best.value) | (carry.turns == 0)
        else:
            better = (info.optimality < carry.best.optimality) | (carry.turns == 0)
        better = better | (status == int(Status.CONVERGED)) | (status == int(Status.UNBOUNDED))
        best_x, best = trees.select(better, (carry.x, info), (carry.best_x, carry.best))
        return Carry(
            x=x_next,
            state=state,
            best_x=best_x,
            best=best,
            status=status,
            turns=carry.turns + 1,
            accepted=carry.accepted + info.accepted.astype(jnp.int32),
            first=jnp.where(carry.turns == 0, info.optimality, carry.first),
        )

    def read(inputs: Inputs, carry: Carry, seen: History | tuple[()]) -> Answer:
        out = (carry.status == int(Status.RUNNING)) | (carry.status == int(Status.OUT_OF_STEPS))
        verdict = jnp.where(out, code(Status.OUT_OF_STEPS), carry.status)
        if plan.kind.problem is Minimization:  # that the steps are at an end does not make an answer wrong
            problem = bind(inputs)[1]
            there = converged_at_precision(problem, carry.best, carry.first) & getattr(
                carry.state, "convex", True
            )
            verdict = jnp.where(out & there, code(Status.CONVERGED), verdict)
        x = task(inputs).back(carry.best_x)
        there = (verdict == int(Status.CONVERGED)) | (verdict == int(Status.SADDLE))
        kkt = plan.kind.report and plan.kind.report(bind(inputs)[1], x, carry.state, there)
        settled = plan.kind.settle and plan.kind.settle(bind(inputs)[1], x)
        if settled is not None:
            verdict = _agreeing(verdict, carry.best.optimality, settled.stationarity, plan.tol)
            x, kkt = settled.finish(verdict == int(Status.CONVERGED))
        record = Record(
            code=verdict,
            turns=carry.turns,
            accepted=carry.accepted,
            optimality=carry.best.optimality,
            history=_made(seen, carry.turns) if isinstance(seen, History) else None,
            kkt=kkt,
            first=carry.first,
        )
        return Answer(x, carry.best.value, trees.stop_gradient(record))

    def residual(x: Tree, inputs: Inputs) -> Tree:
        return plan.kind.residual(bind(inputs)[1], x)

    def value(x: Tree, inputs: Inputs) -> jax.Array:
        assert plan.kind.value is not None
        return plan.kind.value(bind(inputs)[1], x)

    loop = Loop(
        start=start,
        turn=turn,
        running=lambda carry: carry.status == int(Status.RUNNING),
        bound=plan.max_steps + 1,
        ahead=lambda inputs, carry: (task(inputs).back(carry.x), carry.status == int(Status.CONVERGED)),
        seen=_last_seen if plan.history else None,
    )
    of_value = None if plan.kind.value is None else value
    condition = Condition(residual, of_value, plan.kind.symmetric, plan.kind.positive)
    return loop, read, condition


def _agreeing(verdict: jax.Array, optimality: jax.Array, again: jax.Array, tol: float) -> jax.Array:
    """The verdict; one of convergence only where the residual, computed again, is as small, but for rounding."""
    same = again <= 2 * jnp.maximum(optimality, tol)
    return jnp.where((verdict == int(Status.CONVERGED)) & ~same, code(Status.STALLED), verdict)


def _last_seen(carry: Carry) -> History:
    """What the last evaluation found, a constant for every derivative."""
    info: Info = trees.stop_gradient(carry.state.info)
    return History(info.value, info.optimality, info.accepted)


def _made(seen: History, turns: jax.Array) -> History:
    """The history with NaN (False) in the rows of evaluations that were not made."""
    made = jnp.arange(seen.accepted.shape[0], dtype=jnp.int32) < turns
    value = jnp.where(made, seen.value, jnp.nan)
    return History(value, jnp.where(made, seen.optimality, jnp.nan), made & seen.accepted)


Made = tuple[jax.Array, Carry, Any]  # turns made, carry, record


class Stretches(NamedTuple):
    """A solve as the host paces it; compiled once, whatever the stretches.

    Attributes:
        begin: inputs -> what is made before the first turn.
        onward: (inputs, made, until) -> what is made after `until` turns, or at the end if that is earlier.
        read: (inputs, made) -> the answer.
        turn: inputs -> the first turn, which stands for the program in a digest.
    """

    begin: Callable[[Inputs], Made]
    onward: Callable[[Inputs, Made, Any], Made]
    read: Callable[[Inputs, Made], Answer]
    turn: Callable[[Inputs], Any]


@functools.lru_cache(maxsize=128)
def stretches(plan: Plan) -> Stretches:
    """The same loop as that of `solution_map`, in stretches and without derivatives."""
    loop, read, _ = pieces(plan)

    def go_on(inputs: Inputs, made: Made, until: Any) -> Made:
        return onward(loop, inputs, made, jnp.minimum(until, loop.bound))

    return Stretches(
        quick_jit(lambda inputs: begun(loop, inputs)),
        quick_jit(go_on),
        quick_jit(lambda inputs, made: read(inputs, made[1], made[2])),
        lambda inputs: loop.turn(inputs, loop.start(inputs)),
    )
