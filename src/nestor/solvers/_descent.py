"""The turn that all line-search methods share: one evaluation, then accept, keep searching, or restart."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solution import Status
from nestor.solvers._contract import (
    Info,
    Minimization,
    code,
    converged_at_precision,
    info_at,
    judge,
    no_info,
)
from nestor.solvers._searches import Search, SearchState, begin

Tree = Any


class Move(NamedTuple):
    """An accepted move: where from, what changed."""

    step: Tree  # x_new - x_old
    change: Tree  # g_new - g_old
    grad: Tree  # g_new
    old_grad: Tree
    direction: Tree  # the direction that was followed
    old_slope: jax.Array


class Rule(Protocol):
    """How a method turns gradients into directions: three functions of its memory."""

    def empty(self, x: Tree) -> Any:
        """The memory before any move."""
        ...

    def remember(self, memory: Any, move: Move, when: jax.Array) -> Any:
        """The memory after a move; unchanged where `when` is false."""
        ...

    def direction(self, memory: Any, grad: Tree) -> Tree:
        """The direction at a point with this gradient; -grad for an empty memory."""
        ...

    def first_length(self, memory: Any, guess: jax.Array) -> jax.Array:
        """The first trial length of a search, given one scaled from the last move."""
        ...


class DescentState(NamedTuple):
    """Attributes as named; `x, value, grad` are those of the last accepted point."""

    info: Info
    x: Tree
    value: jax.Array
    grad: Tree
    direction: Tree
    slope: jax.Array
    search: SearchState
    memory: Any
    fresh: jax.Array  # the memory is empty: the direction is steepest descent
    first: jax.Array  # nothing has been evaluated yet
    forced: jax.Array  # the trial is a step known to go down: accept it
    final: jax.Array  # the trial is the last accepted point again: stop there
    ended: jax.Array  # this turn was that last one
    failure: jax.Array  # the status to end with if that point is no solution
    first_optimality: jax.Array


def init(rule: Rule, x: Tree) -> DescentState:
    """The state before the first turn; nothing is evaluated."""
    zero = jnp.zeros((), trees.float_dtype(x))
    zeros = trees.zeros_like(x)
    yes, no = jnp.ones((), bool), jnp.zeros((), bool)
    return DescentState(
        info=no_info(x),
        x=x,
        value=zero,
        grad=zeros,
        direction=zeros,
        slope=zero,
        search=begin(zero, zero, zero),
        memory=rule.empty(x),
        fresh=yes,
        first=yes,
        forced=no,
        final=no,
        ended=no,
        failure=code(Status.LINE_SEARCH_FAILED),
        first_optimality=zero,
    )


def step(
    rule: Rule, search: Search, problem: Minimization, x: Tree, state: DescentState
) -> tuple[Tree, DescentState]:
    """Evaluate at x and propose the next trial point."""
    value, grad = problem.value_and_grad(x)
    slope = trees.dot(grad, state.direction)
    finite = jnp.isfinite(value) & jnp.isfinite(trees.max_norm(trees.stop_gradient(grad)))
    good, gives_up, searching = search.advance(state.search, value, slope, state.value, state.slope)
    accepted = state.first | state.final | (finite & (good | state.forced))
    gives_up = ~accepted & (gives_up | state.forced)

    moved = accepted & ~state.first & ~state.final
    move = Move(
        trees.subtract(x, state.x),
        trees.subtract(grad, state.grad),
        grad,
        state.grad,
        state.direction,
        state.slope,
    )
    memory = rule.remember(state.memory, move, moved)
    base = trees.select(accepted, (x, value, grad), (state.x, state.value, state.grad))
    base_x, base_value, base_grad = base

    settle = gives_up & (searching.low > 0) & ~state.forced  # a shorter step went down: take that one
    restart = gives_up & ~settle & ~state.fresh
    final = gives_up & ~settle & ~restart
    memory = trees.select(restart, rule.empty(x), memory)
    direction = rule.direction(memory, base_grad)
    base_slope = trees.dot(base_grad, direction)
    uphill = ~(base_slope < 0) & (trees.max_norm(trees.stop_gradient(base_grad)) > 0)
    memory = trees.select(uphill & accepted, rule.empty(x), memory)
    direction = trees.select(uphill, trees.negative(base_grad), direction)
    base_slope = jnp.where(uphill, -trees.squared_norm(base_grad), base_slope)
    fresh = (state.fresh & ~moved) | restart | (uphill & accepted)

    begins = accepted | restart
    length = _first_length(rule, search, memory, fresh, state, base_grad, base_slope)
    search_state = trees.select(begins, begin(length, base_value, base_slope), searching)
    alpha = jnp.where(settle, searching.low, search_state.alpha)
    alpha = jnp.where(final, jnp.zeros_like(alpha), alpha)
    info = info_at(value, grad, accepted)
    failure = jnp.where(finite, code(Status.LINE_SEARCH_FAILED), code(Status.NOT_FINITE))
    new_state = DescentState(
        info=info,
        x=base_x,
        value=base_value,
        grad=base_grad,
        direction=direction,
        slope=base_slope,
        search=search_state._replace(alpha=alpha),
        memory=memory,
        fresh=fresh,
        first=jnp.zeros((), bool),
        forced=settle,
        final=final,
        ended=state.final,
        failure=jnp.where(state.final, state.failure, failure),
        first_optimality=jnp.where(state.first, info.optimality, state.first_optimality),
    )
    return trees.add_scaled(base_x, alpha, direction), new_state


def _first_length(
    rule: Rule,
    search: Search,
    memory: Any,
    fresh: jax.Array,
    state: DescentState,
    grad: Tree,
    slope: jax.Array,
) -> jax.Array:
    """The first trial of a new search: as much change as the last move, or a unit step at the start."""
    if search.fixed_length is not None:
        return jnp.asarray(search.fixed_length).astype(slope.dtype)
    size = trees.norm(grad)
    cautious = jnp.minimum(1, 1 / jnp.where(size > 0, size, 1))
    ratio = state.slope / jnp.where(slope < 0, slope, -1)
    scaled = state.search.alpha * jnp.clip(ratio, 0.1, 10)
    guess = jnp.where(state.first | ~(scaled > 0), cautious, scaled)
    return jnp.where(fresh, jnp.where(state.first, cautious, guess), rule.first_length(memory, guess))


def status(problem: Minimization, state: DescentState) -> jax.Array:
    """The verdict on the point just evaluated; a rejected trial leaves the solve running."""
    verdict = judge(problem, state.info)
    last_word = jnp.where(
        converged_at_precision(problem, state.info, state.first_optimality),
        code(Status.CONVERGED),
        state.failure,
    )
    counts = state.info.accepted | (verdict == int(Status.UNBOUNDED))
    verdict = jnp.where(counts, verdict, code(Status.RUNNING))
    return jnp.where(state.ended & (verdict == int(Status.RUNNING)), last_word, verdict)
