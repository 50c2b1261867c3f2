"""The turn that all line-search methods share: one evaluation, then accept, keep searching, or restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solution import Status
from nestor.solvers import _progress
from nestor.solvers._bounds import Box, clip, projected_gradient
from nestor.solvers._contract import (
    Info,
    Minimization,
    code,
    converged_at_precision,
    info_at,
    judge,
    no_info,
)
from nestor.solvers._rates import Rate
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
    seen: Any = None  # what the `Look` saw at the new point


class Rule(Protocol):
    """How a method turns gradients into directions: three functions of its memory."""

    def empty(self, x: Tree) -> Any:
        """The memory before any move."""
        ...

    def forget(self, memory: Any, when: jax.Array) -> Any:
        """An empty memory where `when` is true."""
        ...

    def is_empty(self, memory: Any) -> jax.Array:
        """Whether the memory is empty, so that its direction is -grad."""
        ...

    def remember(self, memory: Any, move: Move, when: jax.Array) -> Any:
        """The memory after a move; unchanged where `when` is false."""
        ...

    def direction(self, memory: Any, grad: Tree, x: Tree, box: Any) -> Tree:
        """The direction at x, with this gradient there; -grad for an empty memory.

        In a box, for the methods that keep bounds, one that goes down once it is cut back at them.
        """
        ...

    def first_length(self, memory: Any, guess: jax.Array, last: jax.Array) -> jax.Array:
        """The first trial length of a search, given a guess scaled from the last move, and its length."""
        ...


def curvature(step: Tree, change: Tree) -> tuple[jax.Array, jax.Array, jax.Array]:
    """s'y, y'y, and whether s'y is positive enough to be a curvature."""
    sy, yy = trees.dot(step, change), trees.squared_norm(change)
    eps = float(jnp.finfo(sy.dtype).eps)
    floor = eps * jax.lax.stop_gradient(jnp.sqrt(trees.squared_norm(step) * yy))
    return sy, yy, (sy > floor) & (yy > 0)


class Look(NamedTuple):
    """The one evaluation of a turn, for methods that want more of it than a gradient.

    Attributes:
        at: (problem, x, the direction that led there) -> (value, gradient, what else is seen).
        keep: (memory, what was seen, when) -> the memory at a new iterate, the first one too.
    """

    at: Callable[[Minimization, Tree, Tree], tuple[jax.Array, Tree, Any]]
    keep: Callable[[Any, Any, jax.Array], Any] = lambda memory, seen, when: memory


GRADIENT = Look(lambda problem, x, direction: (*problem.value_and_grad(x), None))


# What the trial point of the next turn is.
_SEARCHING = 0  # a step length along the direction, to be judged
_FIRST = 1  # the start
_SETTLED = 2  # a step that is known to go down, after a search that gave up: accept it
_FINAL = 3  # the last accepted point again, after a search that gave up for good: stop there
_FINAL_NOT_FINITE = 4  # the same, where the search met NaN or infinity
_FINAL_NOT_DESCENT = 5  # the same, where the objective rose although the slope is clearly downhill


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
    phase: jax.Array
    verdict: jax.Array  # RUNNING; after a final turn, the failure that led there
    progress: _progress.Progress
    rate: Any  # the memory of a `Rate`, empty for a search


def init(rule: Rule, search: Search | Rate, x: Tree) -> DescentState:
    """The state before the first turn; nothing is evaluated."""
    zero = jnp.zeros((), trees.float_dtype(x))
    zeros = trees.zeros_like(x)
    return DescentState(
        info=no_info(x),
        x=x,
        value=zero,
        grad=zeros,
        direction=zeros,
        slope=zero,
        search=begin(zero, zero, zero),
        memory=rule.empty(x),
        phase=jnp.int32(_FIRST),
        verdict=code(Status.RUNNING),
        progress=_progress.begin(zero),
        rate=search.begin(x) if isinstance(search, Rate) else (),
    )


def step(
    rule: Rule,
    search: Search | Rate,
    problem: Minimization,
    x: Tree,
    state: DescentState,
    look: Look = GRADIENT,
) -> tuple[Tree, DescentState]:
    """Evaluate at x and propose the next trial point."""
    if isinstance(search, Rate):
        return _step_at_a_rate(rule, search, problem, x, state, look)
    return _step_of_a_search(rule, search, problem, x, state, look)


def _step_at_a_rate(
    rule: Rule, rate: Rate, problem: Minimization, x: Tree, state: DescentState, look: Look
) -> tuple[Tree, DescentState]:
    """Every finite point is an iterate; where one is not, the solve ends."""
    value, grad, seen = look.at(problem, x, state.direction)
    box = problem.box
    info = info_at(value, projected_gradient(x, grad, box))
    finite = jnp.isfinite(value) & jnp.isfinite(info.optimality)
    grad = trees.select(finite, grad, trees.zeros_like(grad))
    change = trees.subtract(grad, state.grad)
    move = Move(trees.subtract(x, state.x), change, grad, state.grad, state.direction, state.slope, seen)
    memory = rule.remember(state.memory, move, finite & (state.phase != _FIRST))
    memory = look.keep(memory, seen, finite)
    steep = finite & (info.optimality > 0)
    memory, direction, slope = _downhill(rule, memory, grad, finite, steep, x, box)
    step, after = rate.scale(state.rate, grad, direction)
    new_state = state._replace(
        info=info._replace(accepted=finite),
        x=x,
        value=value,
        grad=grad,
        direction=direction,
        slope=slope,
        memory=memory,
        phase=jnp.int32(_SEARCHING),
        rate=after,
    )
    return clip(trees.add(x, step), box), new_state


def _downhill(
    rule: Rule, memory: Any, grad: Tree, forgets: jax.Array, steep: jax.Array, x: Tree, box: Box | None
) -> tuple[Any, Tree, jax.Array]:
    """The direction of the rule, or -grad where that one does not go down: (memory, direction, slope).

    In a box the gradient is the projected one. `steep` says whether it is other than zero.
    """
    direction = rule.direction(memory, grad, x, box)
    residual = projected_gradient(x, grad, box)
    slope = trees.dot(grad, direction)
    downhill = (slope < 0) & jnp.isfinite(slope)
    uphill = ~downhill & steep
    memory = rule.forget(memory, uphill & forgets)
    direction = trees.select(uphill, trees.negative(residual), direction)
    return memory, direction, jnp.where(uphill, -trees.dot(grad, residual), slope)


def _along(state: DescentState, x: Tree, grad: Tree, box: Box | None) -> tuple[jax.Array, jax.Array]:
    """The slopes at the trial and at the point it started from, along the direction that was followed.

    Where bounds have bent the path they are those along the chord, in units of the step length. A chord that
    still goes down counts only with what a longer step would change: the entries that are not at a bound.
    """
    if box is None:
        return trees.dot(grad, state.direction), state.slope
    alpha = state.search.alpha
    chord = trees.scale(1 / jnp.where(alpha > 0, alpha, 1), trees.subtract(x, state.x))
    slope = trees.dot(grad, chord)
    onward = jax.tree.map(
        lambda v, d, low, high: jnp.where(jnp.where(d > 0, v < high, v > low), d, 0), x, state.direction, *box
    )
    ahead = jnp.minimum(trees.dot(grad, onward), 0)
    return jnp.where(slope < 0, jnp.maximum(slope, ahead), slope), trees.dot(state.grad, chord)


def _step_of_a_search(
    rule: Rule, search: Search, problem: Minimization, x: Tree, state: DescentState, look: Look
) -> tuple[Tree, DescentState]:
    """Accept the trial, keep searching, or restart."""
    first, settled = state.phase == _FIRST, state.phase == _SETTLED
    last = state.phase >= _FINAL
    box = problem.box
    value, grad, seen = look.at(problem, x, state.direction)
    finite = jnp.isfinite(value) & jnp.isfinite(trees.max_norm(trees.stop_gradient(grad)))
    found = info_at(value, projected_gradient(x, grad, box))
    # An infinite gradient has no weight in what follows, but times no weight it would be NaN in reverse mode.
    grad = trees.select(finite, grad, trees.zeros_like(grad))
    value = jnp.where(finite, value, jnp.inf)
    slope, old_slope = _along(state, x, grad, box)
    good, tired, searching = search.advance(state.search, value, slope, state.value, old_slope)
    accepted = first | last | (finite & (good | settled))
    gives_up = ~accepted & (tired | settled)
    info = found._replace(accepted=accepted)
    progress = _progress.advance(state.progress, info, merit=value, first=first, against=state.value)
    exhausted = _progress.exhausted(progress, accepted & ~last, rises=False)

    moved = accepted & ~first & ~last
    move = Move(
        trees.subtract(x, state.x),
        trees.subtract(grad, state.grad),
        grad,
        state.grad,
        state.direction,
        state.slope,
        seen,
    )
    memory = rule.remember(state.memory, move, moved)
    memory = look.keep(memory, seen, accepted & ~last)
    base_x, base_value, base_grad = trees.select(
        accepted, (x, value, grad), (state.x, state.value, state.grad)
    )

    went_down = (searching.low > 0) & (searching.low_value < state.value)
    settle = gives_up & went_down & ~settled  # a shorter step went down: take that one
    restart = gives_up & ~settle & ~rule.is_empty(memory)
    final = (gives_up & ~settle & ~restart) | exhausted
    memory = rule.forget(memory, restart)
    # A trial is rejected only after a point that was none of the answers.
    steep = ~accepted | (finite & (found.optimality > 0))
    memory, direction, base_slope = _downhill(rule, memory, base_grad, accepted, steep, base_x, box)
    along = base_grad if box is None else direction
    length = _first_length(rule, search, memory, state, along, base_slope)
    searching = trees.select(accepted | restart, begin(length, base_value, base_slope), searching)
    alpha = jnp.where(settle, searching.low, searching.alpha)
    alpha = jnp.where(final, jnp.zeros_like(alpha), alpha)
    expected = -state.search.alpha * old_slope
    doubt = 1e4 * float(jnp.finfo(value.dtype).eps) * jnp.abs(state.value)
    wrong = (value > state.value) & (expected > doubt) & ~exhausted
    ending = jnp.where(finite, jnp.where(wrong, _FINAL_NOT_DESCENT, _FINAL), _FINAL_NOT_FINITE)
    phase = jnp.where(final, ending, jnp.where(settle, _SETTLED, _SEARCHING)).astype(jnp.int32)
    failure = jnp.where(state.phase == _FINAL, code(Status.LINE_SEARCH_FAILED), code(Status.NOT_FINITE))
    failure = jnp.where(state.phase == _FINAL_NOT_DESCENT, code(Status.NOT_DESCENT), failure)
    new_state = DescentState(
        info=info,
        x=base_x,
        value=base_value,
        grad=base_grad,
        direction=direction,
        slope=base_slope,
        search=searching._replace(alpha=alpha),
        memory=memory,
        phase=phase,
        verdict=jnp.where(last, failure, code(Status.RUNNING)),
        progress=progress,
        rate=(),
    )
    return clip(trees.add_scaled(base_x, alpha, direction), box), new_state


def _first_length(
    rule: Rule, search: Search, memory: Any, state: DescentState, along: Tree, slope: jax.Array
) -> jax.Array:
    """The first trial of a new search: as much change as the last move, or a unit step at the start.

    `along` is as long as the direction of an empty memory.
    """
    if search.first is not None:
        return jnp.asarray(search.first).astype(slope.dtype)
    size = trees.norm(along)
    cautious = jnp.minimum(1, 1 / jnp.where(size > 0, size, 1))
    ratio = state.slope / jnp.where(slope < 0, slope, -1)
    scaled = state.search.alpha * jnp.clip(ratio, 0.1, 10)
    guess = jnp.where((state.phase == _FIRST) | ~(scaled > 0), cautious, scaled)
    last = jnp.where(state.phase == _FIRST, 0, state.search.alpha)
    return rule.first_length(memory, guess, last)


def status(search: Search | Rate, problem: Minimization, state: DescentState) -> jax.Array:
    """The verdict on the point just evaluated; a rejected trial leaves the solve running."""
    if isinstance(search, Rate):
        return judge(problem, state.info)
    running = code(Status.RUNNING)
    fixed = search.fixed_length is not None
    verdict = judge(problem, state.info)
    # A search may find a finite trial after one that is not; a fixed step has nothing else to try.
    hopeless = (verdict == int(Status.NOT_FINITE)) & fixed
    counts = state.info.accepted | (verdict == int(Status.UNBOUNDED)) | hopeless
    verdict = jnp.where(counts, verdict, running)
    stuck = state.verdict == int(Status.LINE_SEARCH_FAILED)
    precise = converged_at_precision(problem, state.info, state.progress.first_optimality, stuck)
    last_word = jnp.where(precise, code(Status.CONVERGED), state.verdict)
    ended = (state.verdict != int(Status.RUNNING)) & (verdict == int(Status.RUNNING))
    return jnp.where(ended, last_word, verdict)
