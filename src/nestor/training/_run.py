"""A training run as a loop: what goes round, what one turn does, and what is read at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints import Answer, Condition, Read
from nestor.loops import Loop, Reversal, Rule, begun, onward
from nestor.programs import Program
from nestor.solution import Status
from nestor.training._batches import Batches
from nestor.training._cotangents import LOSS, OPTIMIZER, PARAMS, STEP, reported, reported_together
from nestor.training._towers import State, advance_optimizer, begin_optimizer
from nestor.training._watching import Seen, Watch, Watching, out_of_range

Tree = Any


class Plan(NamedTuple):
    """The hashable part of a run: two equal plans are one compiled program.

    Attributes:
        loss: the program of the loss: (trained, batch, noise key) -> scalar.
        optimizer: what is left of the optimizer without its arrays.
        rule: its rule, if the run can be reversed, else None.
        batches: how batches are drawn.
        steps: the number of steps.
        adjoint: how derivatives cross the run.
        clip: whether gradients are clipped by norm.
        validation: the program of the validation loss: trained -> scalar; None for none.
        every: steps between two validations.
        patience: validations without improvement before the run stops; None for no end.
        stagnation: steps without improvement of the training loss before it stops; None for no end.
        reports: steps between two reports to a watcher; 0 if nobody watches.
        probe: whether the run is made for a diagnosis.
    """

    loss: Program
    optimizer: Hashable
    rule: Rule | None
    batches: Batches
    steps: int
    adjoint: Any
    clip: bool
    validation: Program | None
    every: int
    patience: int | None
    stagnation: int | None
    reports: int
    probe: bool = False


class Inputs(NamedTuple):
    """Everything that a compiled run depends on besides its structure.

    Attributes:
        captured: what the loss closed over.
        params: the trained arrays; None where the user's tree has something else.
        data: the rows of the data; for data that is a function, what that closed over.
        key: a random key.
        optimizer: the arrays among the optimizer's settings.
        clip: the largest norm of a gradient, a scalar.
        validation: what the validation loss closed over.
        watcher: the number of a watcher's registration (int32).
        probe: of a diagnosis: the numbers of its registration and of this run (int32); else None.
    """

    captured: list[Any]
    params: Tree
    data: Tree
    key: jax.Array
    optimizer: list[Any]
    clip: jax.Array
    validation: list[Any]
    watcher: jax.Array
    probe: Any = None


class Carry(NamedTuple):
    """What goes round the loop."""

    t: jax.Array
    params: Tree
    state: Any
    watch: Watch
    seen: Seen


class Measured(NamedTuple):
    """The numbers that a run is judged by, differentiable like its parameters.

    Attributes:
        loss: of the batch at every step, before that step, shape (steps,); NaN after the end.
        final: the validation loss of the last parameters; NaN without validation.
        best: the parameters with the lowest validation loss; the last ones without validation.
    """

    loss: jax.Array
    final: jax.Array
    best: Tree


class Record(NamedTuple):
    """What a run reports, constant for every derivative."""

    code: jax.Array
    steps: jax.Array
    best_value: jax.Array
    rows: Seen
    state: Any


@functools.lru_cache(maxsize=256)
def run_map(plan: Plan) -> Callable[[Inputs], Answer]:
    """The compiled, differentiable function from inputs to the end of the run."""
    return jax.jit(plan.adjoint.attach(*pieces(plan)))


@functools.lru_cache(maxsize=64)
def stretch_map(plan: Plan) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """For runs that are made in stretches: compiled start, (inputs, carry, rows, until) -> both, and read."""
    loop, read, _ = pieces(plan)

    def stretch(inputs: Inputs, carry: Carry, rows: Seen, until: jax.Array) -> tuple[Carry, Seen]:
        return onward(loop, inputs, (carry.t, carry, rows), until)[1:]

    def begin(inputs: Inputs) -> tuple[Carry, Seen]:
        return begun(loop, inputs)[1:]

    return jax.jit(begin), jax.jit(stretch), jax.jit(read)


def pieces(plan: Plan) -> tuple[Loop, Read, Condition]:
    """The loop of a run, how its answer is read, and the condition that holds where it has converged."""
    run = _Run(plan)
    loop = Loop(
        start=run.start,
        turn=run.turn,
        running=lambda carry: carry.watch.code == int(Status.RUNNING),
        bound=plan.steps,
        seen=lambda carry: carry.seen,
        reversal=None if plan.rule is None else run.reversal(plan.rule),
    )
    return loop, run.read, Condition(run.residual, run.value, symmetric=True, positive=True)


def clipped(gradient: Tree, longest: jax.Array) -> Tree:
    """A gradient, scaled down to that norm if it is longer."""
    norm = trees.norm(gradient)
    return trees.scale(jnp.where(norm > longest, longest / norm, jnp.ones_like(norm)), gradient)


class _Run:
    """The functions of a run; each takes the inputs, none remembers anything."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.watching = Watching(
            plan.validation, plan.steps, plan.every, plan.patience, plan.stagnation, plan.reports
        )

    def optimizer(self, inputs: Inputs) -> Any:
        return trees.join(inputs.optimizer, self.plan.optimizer)

    def gradient(self, inputs: Inputs, t: jax.Array, params: Tree) -> tuple[jax.Array, Tree]:
        """The loss and the (clipped) gradient of step t."""
        plan = self.plan
        batch = plan.batches.draw(inputs.data, inputs.key, t)
        noise = jax.random.fold_in(inputs.key, t)
        loss, grads = jax.value_and_grad(lambda p: plan.loss(inputs.captured, p, batch, noise))(params)
        if plan.clip:
            grads = clipped(grads, inputs.clip)
        return loss, grads

    def start(self, inputs: Inputs) -> Carry:
        optimizer, params = self.optimizer(inputs), inputs.params
        state = begin_optimizer(optimizer, params)
        hyper = jax.eval_shape(lambda: advance_optimizer(optimizer, jnp.int32(0), params, params, state)[2])
        watch, seen = self.watching.start(params, hyper)
        return Carry(jnp.int32(0), params, state, watch, seen)

    def turn(self, inputs: Inputs, carry: Carry) -> Carry:
        if self.plan.probe:  # the record of the loss apart from the step, to tell their cotangents apart
            inputs, carry = _probed(inputs, carry)
            loss, _ = self.gradient(inputs, carry.t, carry.params)
            carry = carry._replace(params=reported_together(carry.params, inputs.probe, STEP, carry.t))
            _, grads = self.gradient(inputs, carry.t, carry.params)
        else:
            loss, grads = self.gradient(inputs, carry.t, carry.params)
        params, state, hyper = advance_optimizer(
            self.optimizer(inputs), carry.t, grads, carry.params, carry.state
        )
        watch, seen = self.watching.look(inputs, carry.t, loss, grads, params, hyper, carry.watch)
        lost = watch.code == int(Status.NOT_FINITE)
        params, state = trees.select(lost, (carry.params, carry.state), (params, state))
        return Carry(carry.t + 1, params, state, watch, seen)

    def read(self, inputs: Inputs, carry: Carry, rows: Seen) -> Answer:
        if self.plan.probe:
            carry = _probed(inputs, carry)[1]
        made = jnp.arange(self.plan.steps, dtype=jnp.int32) < carry.t
        rows = jax.tree.map(lambda r: _where_made(made, r), rows)
        watch = carry.watch
        best = watch.best if self.plan.validation is not None else carry.params
        running = watch.code == int(Status.RUNNING)
        code = jnp.where(running, jnp.int32(int(Status.FINISHED)), watch.code)
        record = Record(code, carry.t, watch.best_value, rows, carry.state)
        measured = Measured(rows.loss, self.watching.validate(inputs, carry.params), best)
        return Answer(carry.params, measured, trees.stop_gradient(record))

    def residual(self, x: Tree, inputs: Inputs) -> Tree:
        """The gradient on all of the data, zero where a run has converged."""
        noise = jax.random.fold_in(inputs.key, 0)
        return jax.grad(lambda p: self.plan.loss(inputs.captured, p, inputs.data, noise))(x)

    def value(self, x: Tree, inputs: Inputs) -> Measured:
        """What is measured, as far as it is a function of converged parameters."""
        blank = jnp.zeros((self.plan.steps,), self.plan.loss.out_shape.dtype)
        return Measured(blank, self.watching.validate(inputs, x), x)

    def reversal(self, rule: Rule) -> Reversal:
        """The run as `Reversible` needs it."""

        def begin(inputs: Inputs) -> tuple[Tree, dict[str, Tree]]:
            return inputs.params, self.optimizer(inputs).init(inputs.params)

        def table(inputs: Inputs) -> dict[str, Tree]:
            made = self.optimizer(inputs)
            row = lambda t: made.coefficients(made.values(t), t)  # noqa: E731
            return jax.vmap(row)(jnp.arange(self.plan.steps, dtype=jnp.int32))

        def observe(
            inputs: Inputs,
            t: jax.Array,
            loss: jax.Array,
            grads: Tree,
            params: Tree,
            good: jax.Array,
            watch: Watch,
        ) -> tuple[Watch, Seen]:
            hyper = self.optimizer(inputs).values(t)
            watch, seen = self.watching.look(inputs, t, loss, grads, params, hyper, watch)
            return out_of_range(watch, ~good), seen

        return Reversal(
            rule=rule,
            begin=begin,
            gradient=self.gradient,
            table=table,
            watch=lambda inputs: self.start(inputs)[-2:],
            observe=observe,
            running=lambda watch: watch.code == int(Status.RUNNING),
            carried=lambda t, params, slots, watch, seen: Carry(
                t, params, State(slots, {}, None), watch, seen
            ),
            parts=lambda carry: (carry.params, carry.state.slots, carry.watch.best, carry.watch.best_t),
            losses=lambda rows: rows.loss,
        )


def _probed(inputs: Inputs, carry: Carry) -> tuple[Inputs, Carry]:
    """What a step reads, watched by the doctor."""
    tag, t = inputs.probe, carry.t
    params = reported_together(carry.params, tag, PARAMS, t)
    captured = reported(inputs.captured, tag, LOSS, t)
    optimizer = reported(inputs.optimizer, tag, OPTIMIZER, t)
    return inputs._replace(captured=captured, optimizer=optimizer), carry._replace(params=params)


def _where_made(made: jax.Array, rows: jax.Array) -> jax.Array:
    """NaN (or zero) in the rows of steps that were not made."""
    blank = jnp.nan if jnp.issubdtype(rows.dtype, jnp.inexact) else 0
    return jnp.where(made.reshape(-1, *[1] * (rows.ndim - 1)), rows, jnp.asarray(blank, rows.dtype))
