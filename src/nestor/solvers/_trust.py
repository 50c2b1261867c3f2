"""The turn that all model-based methods share: one evaluation, a verdict on the model, the next step.

A rejected step is shortened along itself (Nocedal and Yuan 1998), so that nothing but the merit is ever needed
at a rejected point, and no model has to be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solution import Status
from nestor.solvers import _progress
from nestor.solvers._bounds import Box, clip
from nestor.solvers._contract import (
    Info,
    Problem,
    code,
    converged_at_precision,
    info_at,
    judge,
    no_info,
)

Tree = Any

_ACCEPT, _POOR, _GOOD = 1e-4, 0.25, 0.75


class Proposal(NamedTuple):
    """A step from the model at the point just evaluated.

    Attributes:
        step: a tree like x.
        decrease: how much the merit falls by the model.
        convex: whether the model has no direction of negative curvature (true where that means nothing).
        kept: what the method wants to know at the next iterate.
    """

    step: Tree
    decrease: jax.Array
    convex: Any = True
    kept: Any = ()


class TrustState(NamedTuple):
    """Attributes as named; `x, merit` are those of the last accepted point."""

    info: Info
    x: Tree
    merit: jax.Array
    step: Tree  # from x to the trial
    decrease: jax.Array  # promised by the model for it
    slope: jax.Array  # of the merit along it, where the gradient of the merit is known
    radius: jax.Array
    convex: jax.Array
    singular: jax.Array
    first: jax.Array
    final: jax.Array  # the trial is x again: stop there
    ended: jax.Array  # this turn was that last one
    failure: jax.Array
    progress: _progress.Progress
    kept: Any  # by the method, from the last accepted point


def init(x: Tree, kept: Any = ()) -> TrustState:
    """The state before the first turn; nothing is evaluated."""
    zero = jnp.zeros((), trees.float_dtype(x))
    yes, no = jnp.ones((), bool), jnp.zeros((), bool)
    return TrustState(
        info=no_info(x),
        x=x,
        merit=zero,
        step=trees.zeros_like(x),
        decrease=zero,
        slope=zero,
        radius=zero,
        convex=yes,
        singular=no,
        first=yes,
        final=no,
        ended=no,
        failure=code(Status.LINE_SEARCH_FAILED),
        progress=_progress.begin(zero),
        kept=kept,
    )


def step(
    x: Tree,
    state: TrustState,
    *,
    merit: jax.Array,
    residual: Tree,
    propose: Callable[[jax.Array], Proposal],
    first_radius: jax.Array,
    gradient: Tree | None = None,
    value: jax.Array | None = None,
    radius_is_length: bool = True,
    growth: float = 2.5,
    box: Box | None = None,
) -> tuple[Tree, TrustState]:
    """Judge the trial x by its merit and propose the next.

    Args:
        x: the point just evaluated.
        state: the state before.
        merit: what must fall, at x.
        residual: what must vanish, at x.
        propose: from a trust radius to a step from x.
        first_radius: the radius of the first step.
        gradient: of the merit at x. Where a change of the merit drowns in rounding, slopes then decide.
        radius_is_length: whether the radius bounds the step's length, or is only monotone in it (a damping).
        growth: of the radius after a step as long as that, which the model foretold to a tenth; others 2.5.
        value: what is reported as the objective; the merit if None.
        box: bounds that proposals keep; the trial is cut back to them, against rounding.
    """
    info = info_at(merit if value is None else value, residual)
    eps = float(jnp.finfo(merit.dtype).eps)
    finite = jnp.isfinite(merit) & jnp.isfinite(info.optimality)
    noise = 10 * eps * jnp.abs(state.merit)
    promised = state.decrease + noise
    safe = promised > 0
    ratio = jnp.where(safe, (state.merit - merit + noise) / jnp.where(safe, promised, 1), -1)
    if gradient is not None:
        along = trees.dot(trees.stop_gradient(gradient), state.step)
        trapezoid = -(state.slope + along) / 2
        drowned = (jnp.abs(state.merit - merit) <= noise) & (state.decrease > 0)
        by_slopes = trapezoid / jnp.where(state.decrease > 0, state.decrease, 1)
        ratio = jnp.where(drowned, by_slopes, ratio)
    ratio = jax.lax.stop_gradient(ratio)
    accepted = state.first | state.final | (finite & (ratio > _ACCEPT))
    info = info._replace(accepted=accepted)
    progress = _progress.advance(state.progress, info, merit=merit, first=state.first)
    exhausted = _progress.exhausted(progress, accepted & ~state.final)
    length = jax.lax.stop_gradient(trees.norm(state.step))
    kept, shrunk = _next_radius(state.radius, ratio, length, radius_is_length, growth)
    radius = jnp.where(accepted, jnp.where(state.final, state.radius, kept), shrunk)
    radius = jnp.where(state.first, first_radius, radius)
    radius = jax.lax.stop_gradient(radius)

    proposal = propose(radius)
    sound = trees.all_finite(trees.stop_gradient(proposal.step))
    here = trees.norm(trees.stop_gradient(x))
    too_short = length <= 2 * eps * jnp.maximum(here, eps**0.5)
    final = (~accepted & too_short) | (accepted & ~sound & ~state.final) | exhausted
    retry = trees.scale(0.25, state.step)
    next_step = trees.select(accepted & sound, proposal.step, retry)
    next_step = trees.select(final, trees.zeros_like(x), next_step)
    base = trees.select(accepted, x, state.x)
    failure = jnp.where(finite, code(Status.STALLED), code(Status.NOT_FINITE))
    slope = state.slope * 0.25
    if gradient is not None:
        slope = jnp.where(accepted, trees.dot(*trees.stop_gradient((gradient, proposal.step))), slope)
    new_state = TrustState(
        info=info,
        x=base,
        merit=jnp.where(accepted, merit, state.merit),
        step=next_step,
        decrease=jnp.where(accepted, proposal.decrease, state.decrease * 0.3),
        slope=slope,
        radius=radius,
        convex=jnp.where(accepted, jnp.asarray(proposal.convex, bool), state.convex),
        singular=jnp.where(accepted & ~state.final, ~sound, state.singular),
        first=jnp.zeros((), bool),
        final=final,
        ended=state.final,
        failure=jnp.where(state.final, state.failure, failure),
        progress=progress,
        kept=trees.select(accepted, proposal.kept, state.kept),
    )
    return clip(trees.add(base, next_step), box), new_state


def _next_radius(
    radius: jax.Array, ratio: jax.Array, length: jax.Array, radius_is_length: bool, growth: float
) -> tuple[jax.Array, jax.Array]:
    """The radius after an accepted step, and after a rejected one."""
    if radius_is_length:
        factor = 2.5 if growth == 2.5 else jnp.where((ratio > 0.9) & (ratio < 1.1), growth, 2.5)
        grown = jnp.where(length > 0.8 * radius, factor * radius, radius)
        bound = jnp.minimum(length, radius)
    else:
        grown, bound = 3 * radius, radius
    kept = jnp.where(ratio > _GOOD, grown, jnp.where(ratio < _POOR, 0.5 * bound, radius))
    return kept, 0.25 * bound


def status(problem: Problem, state: TrustState) -> jax.Array:
    """The verdict on the point just evaluated; a rejected trial leaves the solve running."""
    running, converged = code(Status.RUNNING), code(Status.CONVERGED)
    verdict = judge(problem, state.info)
    verdict = jnp.where(state.info.accepted | (verdict == int(Status.UNBOUNDED)), verdict, running)
    at_saddle = (verdict == int(Status.CONVERGED)) & ~state.convex
    verdict = jnp.where(at_saddle, running, verdict)
    failure = jnp.where(state.singular, code(Status.SINGULAR), state.failure)
    failure = jnp.where(at_saddle, code(Status.SADDLE), failure)
    first_optimality = state.progress.first_optimality
    precise = converged_at_precision(problem, state.info, first_optimality, state.ended) & state.convex
    last_word = jnp.where(precise, converged, failure)
    return jnp.where(state.ended & (verdict == int(Status.RUNNING)), last_word, verdict)
