"""What is kept and recorded while a run goes on, and when it stops before its last step."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.programs import Program, show
from nestor.solution import Status

Tree = Any
Kept = TypeVar("Kept", bound=Any)

RUNNING = int(Status.RUNNING)


class Watch(NamedTuple):
    """What is kept beside the parameters.

    Attributes:
        code: of the status.
        best: the parameters with the lowest validation loss; () where nothing validates.
        best_value: that loss.
        best_t: the number of steps after which they were there.
        waited: validations since then.
        lowest: the lowest loss of a batch.
        idle: steps since then.
    """

    code: jax.Array
    best: Tree
    best_value: jax.Array
    best_t: jax.Array
    waited: jax.Array
    lowest: jax.Array
    idle: jax.Array


class Seen(NamedTuple):
    """What is recorded at every step; all but the loss are constants for every derivative."""

    loss: jax.Array
    norm: jax.Array
    validation: jax.Array
    hyper: dict[str, Tree]


class Watching(NamedTuple):
    """See the attributes of the same names of a plan."""

    validation: Program | None
    steps: int
    every: int
    patience: int | None
    stagnation: int | None
    reports: int

    def start(self, params: Tree, hyper: Tree) -> tuple[Watch, Seen]:
        """Nothing kept and nothing seen; `hyper` is a tree of shapes."""
        dtype = trees.float_dtype(params)
        zero, infinite = jnp.int32(0), jnp.full((), jnp.inf, dtype)
        best = () if self.validation is None else params
        watch = Watch(jnp.int32(RUNNING), best, infinite, zero, zero, infinite, zero)
        nothing = jnp.full((), jnp.nan, dtype)
        return watch, Seen(
            nothing, nothing, nothing, jax.tree.map(lambda h: jnp.zeros(h.shape, h.dtype), hyper)
        )

    def validate(self, inputs: Any, params: Tree) -> jax.Array:
        """The validation loss; NaN where nothing validates."""
        dtype = trees.float_dtype(params)
        if self.validation is None:
            return jnp.full((), jnp.nan, dtype)
        return self.validation(inputs.validation, params).astype(dtype)

    def look(
        self, inputs: Any, t: jax.Array, loss: jax.Array, grads: Tree, params: Tree, hyper: Tree, watch: Watch
    ) -> tuple[Watch, Seen]:
        """After step t, which started with that loss and gradient and led to these parameters."""
        dtype = watch.lowest.dtype
        loss = loss.astype(dtype)
        seen_loss = jax.lax.stop_gradient(loss)
        norm = jax.lax.stop_gradient(trees.norm(grads)).astype(dtype)
        lost = ~(jnp.isfinite(seen_loss) & jnp.isfinite(norm))
        watch = watch._replace(code=jnp.where(lost, jnp.int32(int(Status.NOT_FINITE)), watch.code))
        watch, validation = self._validated(inputs, t, params, watch, lost)
        lower = seen_loss < watch.lowest
        watch = watch._replace(
            lowest=jnp.where(lower, seen_loss, watch.lowest), idle=jnp.where(lower, 0, watch.idle + 1)
        )
        if self.stagnation is not None:
            watch = _ended(watch, watch.idle >= self.stagnation, Status.STAGNATED)
        seen = Seen(loss, norm, validation, trees.stop_gradient(hyper))
        if self.reports:
            due = ((t + 1) % self.reports == 0) | (t + 1 == self.steps) | (watch.code != RUNNING)
            asked = show(inputs.watcher, due, t, seen_loss, norm, watch.best_value)
            watch = _ended(watch, asked, Status.STOPPED)
        return watch, seen

    def _validated(
        self, inputs: Any, t: jax.Array, params: Tree, watch: Watch, lost: jax.Array
    ) -> tuple[Watch, jax.Array]:
        nothing = jnp.full((), jnp.nan, watch.lowest.dtype)
        if self.validation is None:
            return watch, nothing
        due = (((t + 1) % self.every == 0) | (t + 1 == self.steps)) & ~lost
        constant = jax.lax.stop_gradient(params)
        value = jax.lax.cond(
            due, lambda: jax.lax.stop_gradient(self.validate(inputs, constant)), lambda: nothing
        )
        better, watch = with_best(watch, due, value, params)
        watch = watch._replace(best_t=jnp.where(better, t + 1, watch.best_t))
        if self.patience is not None:
            watch = _ended(watch, watch.waited >= self.patience, Status.OVERFITTED)
        return watch, value


def with_status(code: jax.Array, when: jax.Array, status: Status) -> jax.Array:
    """The code of a run that ends now for that reason, if it had not ended."""
    return jnp.where(when & (code == RUNNING), jnp.int32(int(status)), code)


def with_best(kept: Kept, due: jax.Array, value: jax.Array, params: Tree) -> tuple[jax.Array, Kept]:
    """Whether a validation, if one was due, is the lowest so far, and what is kept after it.

    Args:
        kept: a named tuple with the fields `best`, `best_value` and `waited` of `Watch`.
        due: whether there was a validation.
        value, params: its loss, and of which parameters.
    """
    better = due & (value < kept.best_value)
    return better, kept._replace(
        best=trees.select(better, params, kept.best),
        best_value=jnp.where(better, value, kept.best_value),
        waited=jnp.where(better, 0, kept.waited + due.astype(jnp.int32)),
    )


def _ended(watch: Watch, when: jax.Array, status: Status) -> Watch:
    return watch._replace(code=with_status(watch.code, when, status))


def out_of_range(watch: Watch, when: jax.Array) -> Watch:
    """The end of a run whose numbers left the range of its integers."""
    return _ended(watch, when, Status.OUT_OF_RANGE)
