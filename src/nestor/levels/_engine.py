"""What one move of a level is: the levels below answer, the chain rule goes through their answers, and it moves.

An answer is a function of the parameters above it, with an adjoint of its own. So the derivative of a loss is
the derivative of a composition of functions, which JAX takes, and every path through the graph is in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints import Answer, Condition
from nestor.levels._plan import Given, GraphPlan, LevelInputs, LevelPlan, LevelState
from nestor.loops import Loop, Reversal, to_the_end
from nestor.training import advance_optimizer, begin_optimizer, clipped

Tree = Any
States = tuple[LevelState, ...]
_ANOTHER = 2**32 - 1  # folded into a key for noise that is not the loss's: no batch has this number
_START = 2**32 - 2  # the same for where a run starts


class Move(NamedTuple):
    """A move of a level: the states after it, the loss before it, and the gradient it followed."""

    states: States
    loss: jax.Array
    gradient: Tree


class Engine:
    """The functions of a graph. Each takes the inputs; none remembers anything."""

    def __init__(self, plan: GraphPlan):
        self.plan = plan
        below: list[frozenset[int]] = []
        for level in plan.levels:
            below.append(frozenset(level.needs).union(*(below[j] for j in level.needs)))
        only = {i for i, level in enumerate(plan.levels) if getattr(level.adjoint, "forward_only", False)}
        self._forwards = frozenset(i for i, lower in enumerate(below) if lower & only)

    # --- where levels are ----------------------------------------------------------------------------

    def beginning(self, inputs: tuple[LevelInputs, ...]) -> States:
        """All levels at their start."""
        return tuple(self._fresh(inputs, i, inputs[i].initial) for i in range(len(inputs)))

    def _fresh(self, inputs: tuple[LevelInputs, ...], i: int, params: Tree) -> LevelState:
        known = {j: level.initial for j, level in enumerate(inputs) if j > i}
        zero = jnp.int32(0)
        return LevelState(params, self._memory(inputs, i, known, params), zero, zero, zero)

    def _memory(self, inputs: tuple[LevelInputs, ...], i: int, known: dict[int, Tree], params: Tree) -> Any:
        if self.plan.levels[i].optimizer is None:
            return ()
        return begin_optimizer(self._optimizer(inputs, i, known), params)

    def _optimizer(self, inputs: tuple[LevelInputs, ...], i: int, known: dict[int, Tree]) -> Any:
        level = self.plan.levels[i]
        arrays = inputs[i].optimizer
        if level.chooses is not None:
            arrays = level.chooses(arrays, self.named(inputs, known))
        return trees.join(arrays, level.optimizer)

    def named(self, inputs: tuple[LevelInputs, ...], known: dict[int, Tree]) -> dict[str, Tree]:
        """The parameters by name, as the programs read them; one that nobody reads may be anything."""
        return {
            level.name: known[k] if k in known else inputs[k].initial
            for k, level in enumerate(self.plan.levels)
        }

    # --- losses --------------------------------------------------------------------------------------

    def loss(
        self, inputs: tuple[LevelInputs, ...], i: int, known: dict[int, Tree], drawn: jax.Array
    ) -> jax.Array:
        """The loss of level i on its batch of that number."""
        own = inputs[i]
        batch = self.plan.levels[i].batches.draw(own.data, own.key, drawn)
        return self.loss_on(inputs, i, known, batch, jax.random.fold_in(own.key, drawn))

    def loss_on(
        self, inputs: tuple[LevelInputs, ...], i: int, known: dict[int, Tree], batch: Tree, noise: jax.Array
    ) -> jax.Array:
        """The loss of level i on a batch of the size of its plan, with a key for what else is random in it."""
        loss = self.plan.levels[i].loss
        return loss(inputs[i].captured, self.named(inputs, known), self._shared(batch), noise)

    def _shared(self, batch: Tree) -> Tree:
        """A batch with its leading axis spread over the devices."""
        mesh = self.plan.mesh
        if mesh is None:
            return batch
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), batch)

    def value(
        self, given: Given, i: int, x: Tree, drawn: jax.Array, *, moving: bool
    ) -> tuple[jax.Array, States]:
        """The loss of level i at x, with the answers of the levels below; and where those are then.

        Args:
            given: the parameters above, and the states of (at least) the levels below.
            i: the level.
            x: its parameters.
            drawn: the number of its batch.
            moving: whether the levels below go on first; else they answer from where they are.
        """
        known, states = {**given.known, i: x}, given.states[:i]
        for j in self.plan.levels[i].needs:
            above = {k: params for k, params in known.items() if k > j}
            known[j], states = self._response(given.inputs, j, above, states, moving)
        return self.loss(given.inputs, i, known, drawn), states

    def _response(
        self,
        inputs: tuple[LevelInputs, ...],
        j: int,
        known: dict[int, Tree],
        states: States,
        moving: bool,
    ) -> tuple[Tree, States]:
        level = self.plan.levels[j]
        if level.answer is not None:
            x = level.answer(inputs[j].answer, self.named(inputs, known))
            there = states[j]._replace(params=trees.stop_gradient(x))
            return x, (*states[:j], there, *states[j + 1 :])
        if not at_the_answer(level):
            fresh = jax.random.fold_in(jax.random.fold_in(inputs[j].key, _ANOTHER), states[j].runs)
            answer = level.adjoint.attach(self._loop(j), _read_steps, self._condition(j))(
                Given(inputs, known, states[: j + 1], fresh)
            )
            return answer.x, (*answer.record, *states[j + 1 :]) if moving else states
        if moving:
            there = self.run(trees.stop_gradient(Given(inputs, known, states)), j)
            states = (*there, *states[j + 1 :])
        pinned = Loop(
            start=lambda given: given.states[j],
            turn=lambda given, carry: carry,
            running=lambda carry: jnp.zeros((), bool),
            bound=0,
        )
        read = lambda given, carry, rows: Answer(carry.params, (), ())  # noqa: E731
        condition = self._condition(j, moved=moving)
        answer = level.adjoint.attach(pinned, read, condition)(Given(inputs, known, states[: j + 1]))
        return answer.x, states

    # --- moves ---------------------------------------------------------------------------------------

    def run(self, given: Given, j: int) -> States:
        """Levels 0 to j after a run of level j: as many moves as it makes before the level above it moves."""
        return to_the_end(self._loop(j), given._replace(states=given.states[: j + 1]))[0]

    def _loop(self, j: int) -> Loop:
        level = self.plan.levels[j]
        return Loop(
            start=functools.partial(self._begun, j),
            turn=lambda given, states: self.move(given._replace(states=states), j).states,
            running=lambda states: jnp.ones((), bool),
            bound=level.steps,
            fixed=True,
            reversal=self._reversal(j) if level.rule is not None and not level.needs else None,
        )

    def _begun(self, j: int, given: Given) -> States:
        """The states at the start of a run of level j: where they were, or afresh where its policy says so."""
        level, states = self.plan.levels[j], given.states
        state = states[j]
        if level.restart:
            params = given.inputs[j].initial
            if level.start is not None:
                fresh = jax.random.fold_in(jax.random.fold_in(given.inputs[j].key, _START), state.runs)
                params = level.start(given.inputs[j].start, self.named(given.inputs, given.known), fresh)
            memory = self._memory(given.inputs, j, given.known, params)
            fresh = state._replace(params=params, optimizer=memory, t=jnp.int32(0))
            due = state.runs % level.restart == 0
            state = fresh if level.restart == 1 else trees.select(due, fresh, state)
        return (*states[:j], state._replace(runs=state.runs + 1))

    def move(self, given: Given, i: int) -> Move:
        """One move of level i, after those of the levels below that it needs."""
        level, own = self.plan.levels[i], given.inputs[i]
        state = given.states[i]
        if level.estimator is not None:
            loss, lower, gradient = level.estimator.estimate(
                lambda x, at: self.value(at, i, x, state.drawn, moving=True),
                given,
                state.params,
                jax.random.fold_in(jax.random.fold_in(own.key, _ANOTHER), state.drawn),
            )
        else:
            (loss, lower), gradient = self._slope(i)(
                lambda x: self.value(given, i, x, state.drawn, moving=True)
            )(state.params)
        gradient = self._clipped(level, own, gradient)
        optimizer = self._optimizer(given.inputs, i, given.known)
        params, memory, _ = advance_optimizer(optimizer, state.t, gradient, state.params, state.optimizer)
        if level.project is not None:
            params = level.project(own.project, params)
        there = LevelState(params, memory, state.t + 1, state.drawn + 1, state.runs)
        return Move((*lower, there), loss, gradient)

    def _slope(self, i: int) -> Callable[..., Any]:
        """From (x -> (value, more)) to (x -> ((value, more), gradient)), in the mode that the levels below allow."""
        if i not in self._forwards:
            return functools.partial(jax.value_and_grad, has_aux=True)

        def forwards(function: Callable[[Tree], tuple[jax.Array, Any]]) -> Callable[[Tree], Any]:
            def kept(x: Tree) -> tuple[jax.Array, Any]:
                value, more = function(x)
                return value, (value, more)

            def both(x: Tree) -> Any:
                gradient, found = jax.jacfwd(kept, has_aux=True)(x)
                return found, gradient

            return both

        return forwards

    @staticmethod
    def _clipped(level: LevelPlan, own: LevelInputs, gradient: Tree) -> Tree:
        return clipped(gradient, own.clip) if level.clip else gradient

    # --- what holds at an answer, and how a move is undone --------------------------------------------

    def _condition(self, j: int, *, moved: bool = False) -> Condition:
        """What holds at the answer of level j.

        Args:
            j: the level.
            moved: whether the level is known to have moved. Then the number of its last batch is plainly one less
                than that of its next, which the compiler sees too: after a run of one move the batch is not
                fetched a second time.
        """
        level = self.plan.levels[j]

        def objective(x: Tree, given: Given) -> jax.Array:
            last = given.states[j].drawn - 1
            return self.value(given, j, x, last if moved else jnp.maximum(last, 0), moving=False)[0]

        def slope(x: Tree, given: Given) -> Tree:
            return self._slope(j)(lambda x: (objective(x, given), None))(x)[1]

        def projected(x: Tree, given: Given) -> Tree:
            return x if level.project is None else level.project(given.inputs[j].project, x)

        def residual(x: Tree, given: Given) -> Tree:
            gradient = slope(x, given)
            if level.project is None:
                return gradient
            return trees.subtract(x, projected(trees.subtract(x, gradient), given))

        def move(x: Tree, given: Given, change: Tree) -> Tree:
            state = given.states[j]
            optimizer = self._optimizer(given.inputs, j, given.known)

            def moved(gradient: Tree) -> Tree:
                gradient = self._clipped(level, given.inputs[j], gradient)
                moved = advance_optimizer(optimizer, state.t, gradient, x, state.optimizer)[0]
                return projected(moved, given)

            return jax.jvp(moved, (slope(x, given),), (change,))[1]

        free = level.project is None
        return Condition(
            residual=residual,
            symmetric=free and all(self.plan.levels[k].answer is not None for k in level.needs),
            positive=free and not level.needs,
            objective=objective,
            move=move,
        )

    def _reversal(self, j: int) -> Reversal:
        level = self.plan.levels[j]
        assert level.rule is not None

        def begin(given: Given) -> tuple[Tree, dict[str, Tree]]:
            state = self._begun(j, given)[j]
            return state.params, state.optimizer.slots

        def table(given: Given) -> dict[str, Tree]:
            optimizer = self._optimizer(given.inputs, j, given.known)
            first = self._begun(j, given)[j].t
            row = lambda t: optimizer.coefficients(optimizer.values(t), t)  # noqa: E731
            return jax.vmap(row)(first + jnp.arange(level.steps, dtype=jnp.int32))

        def gradient(given: Given, t: jax.Array, x: Tree) -> tuple[jax.Array, Tree]:
            drawn = given.states[j].drawn + t
            loss, slope = jax.value_and_grad(lambda x: self.value(given, j, x, drawn, moving=False)[0])(x)
            return loss, self._clipped(level, given.inputs[j], slope)

        def carried(t: jax.Array, params: Tree, slots: Any, watch: Any, seen: Any) -> States:
            (*before, state), in_range = watch
            kept = lambda leaf: jnp.where(in_range, leaf, jnp.full_like(leaf, jnp.nan))  # noqa: E731
            memory = state.optimizer._replace(slots=slots)
            there = LevelState(jax.tree.map(kept, params), memory, state.t + t, state.drawn + t, state.runs)
            return (*before, there)

        def begun(given: Given) -> tuple[tuple[States, jax.Array], tuple[()]]:
            return (self._begun(j, given), jnp.ones((), bool)), ()

        def observe(
            given: Given, t: jax.Array, loss: jax.Array, slope: Tree, x: Tree, good: jax.Array, watch: Any
        ) -> tuple[Any, tuple[()]]:
            return (watch[0], watch[1] & good), ()

        return Reversal(
            rule=level.rule,
            begin=begin,
            gradient=gradient,
            table=table,
            watch=begun,
            observe=observe,
            running=lambda watch: jnp.ones((), bool),
            carried=carried,
            parts=lambda states: (states[j].params, states[j].optimizer.slots, (), states[j].t),
            losses=lambda rows: jnp.zeros((level.steps,), level.loss.out_shape.dtype),
        )


def at_the_answer(level: LevelPlan) -> bool:
    """Whether the level's adjoint needs only what holds at the answer, not the steps that led there."""
    return bool(getattr(level.adjoint, "at_answer", False))


def _read_steps(given: Given, states: States, rows: Tree) -> Answer:
    return Answer(states[-1].params, (), states)
