"""The step of a trust-region method in a box: subspace steps, cut back at the bounds, as low as a gradient step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers._bounds import Box

_ROUNDS = 6  # subspaces in a step, at most
_GRADIENT_LENGTHS = tuple(4.0**-k for k in range(10))  # of a gradient step, in radii
_LENGTHS = (1.0, 0.5, 0.125, 0.0)  # of a subspace step; zero stands for up to the first bound

Inner = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class Limits(NamedTuple):
    """The box as seen from a point: how far each entry may go.

    Attributes:
        low, high: vectors, the bounds minus the point.
    """

    low: jax.Array
    high: jax.Array

    def cut(self, p: jax.Array) -> jax.Array:
        """The nearest step that stays in the box."""
        return jnp.minimum(jnp.maximum(p, self.low), self.high)

    def free(self, p: jax.Array, slope: jax.Array) -> jax.Array:
        """For every entry, whether it is inside, or at a bound and not pushed outwards."""
        out = ((p <= self.low) & (slope > 0)) | ((p >= self.high) & (slope < 0))
        return jax.lax.stop_gradient(~out)

    def first_bound(self, p: jax.Array, step: jax.Array) -> jax.Array:
        """How much of the step, 1 at most, leads from p to the first bound; entries at a bound do not count."""
        left = jnp.where(step > 0, self.high - p, p - self.low)
        size = jnp.abs(step)
        meets = (left > 0) & (size > 0)
        ratios = jnp.where(meets, left / jnp.where(meets, size, 1), 1)
        return jax.lax.stop_gradient(jnp.minimum(jnp.min(ratios), 1))


def limits(x: jax.Array, box: Box) -> Limits:
    """The box as seen from x."""
    return Limits(box.lower - x, box.upper - x)


class _Walk(NamedTuple):
    p: jax.Array
    hp: jax.Array
    value: jax.Array  # of the model
    free: jax.Array
    convex: jax.Array
    first: jax.Array
    settled: jax.Array


def step_in_a_box(
    g: jax.Array,
    room: Limits,
    radius: jax.Array,
    times: Callable[[jax.Array], jax.Array],
    inner: Inner,
) -> tuple[jax.Array, jax.Array, Any]:
    """A step that lowers the model g'p + p'H p / 2 in the box, about a radius long at most.

    The first candidates lie on the projected path of the gradient. Every round then solves the trust-region
    problem of the entries that are free at the best step so far, and looks at a few lengths of the solution, cut
    back at the bounds; one of them ends at the first bound on the way, where the model is lower for certain.
    Steps that the gradient does not lead down are left out. After Lin and Moré 1999, section 4.

    Args:
        g: the gradient.
        room: how far each entry may go.
        radius: of the trust region, for each round.
        times: from rows, shape (k, n), to the same rows times H.
        inner: (the free entries, the slope of the model) -> (the trust-region step in them, whether the model
            is convex there).

    Returns:
        The step, by how much the model falls, and whether it is convex in what is free at the start.
    """

    def lowest(rows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The best of these steps, times H, and the model there."""
        rows = jax.vmap(room.cut)(rows)
        curved = times(rows)
        along = jnp.einsum("kn,n->k", rows, g, precision="highest")
        value = along + jnp.einsum("kn,kn->k", rows, curved, precision="highest") / 2
        best = jnp.argmin(jnp.where(jnp.isfinite(value) & (along <= 0), value, jnp.inf))
        return rows[best], curved[best], jnp.where(along[best] <= 0, value[best], jnp.inf)

    def walk(w: _Walk) -> _Walk:
        step, convex = inner(w.free, jnp.where(w.free, g + w.hp, 0))
        # Along a direction of negative curvature both ways are downhill, and one may lead out of the box.
        lengths = jnp.asarray(_LENGTHS, g.dtype)
        lengths = jnp.where(lengths > 0, lengths, room.first_bound(w.p, step))
        lengths = jnp.concatenate([lengths, jnp.where(convex, 0, -lengths[:2])])
        p, hp, value = lowest(w.p[None, :] + lengths[:, None] * step[None, :])
        better = value < w.value
        p, hp, value = trees.select(better, (p, hp, value), (w.p, w.hp, w.value))
        free = room.free(p, g + hp)
        settled = ~better | jnp.all(free == w.free)
        return _Walk(p, hp, value, free, jnp.where(w.first, convex, w.convex), jnp.zeros((), bool), settled)

    zero = jnp.zeros_like(g)
    inside = jnp.where(room.free(zero, g), g, 0)
    size = jax.lax.stop_gradient(jnp.sqrt(jnp.vdot(inside, inside)))
    steepest = (radius / jnp.where(size > 0, size, 1)) * inside
    lengths = jnp.asarray(_GRADIENT_LENGTHS, g.dtype)[:, None]
    p, hp, value = lowest(-lengths * steepest[None, :])
    down = value < 0
    p, hp, value = trees.select(down, (p, hp, value), (zero, zero, jnp.zeros_like(value)))
    yes, no = jnp.ones((), bool), jnp.zeros((), bool)
    start = _Walk(p, hp, value, room.free(p, g + hp), yes, yes, no)
    turn = lambda w, _: (jax.lax.cond(w.settled, lambda w: w, walk, w), None)  # noqa: E731
    end, _ = jax.lax.scan(turn, start, None, length=_ROUNDS)
    # A step to a bound goes a little beyond, so that the point that is cut back is at the bound exactly.
    eps = float(jnp.finfo(g.dtype).eps)
    onto = ((1 + 16 * eps) * end.p <= room.low) | ((1 + 16 * eps) * end.p >= room.high)
    p = jnp.where(onto, (1 + 32 * eps) * end.p, end.p)
    return p, jax.lax.stop_gradient(-end.value), end.convex
