"""Methods for fixed points: plain iteration, and Anderson's acceleration."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers._contract import FixedPointFinding, Info, Problem, info_at, judge, no_info

Tree = Any


class _PicardState(NamedTuple):
    info: Info


@trees.record
class Picard:
    """Plain fixed-point iteration: z <- z + damping (T(z) - z).

    Args:
        damping: 1 for the plain iteration; below 1 tames an oscillation.

    Converges linearly where T contracts. Cost: one T a step. Source: Banach 1922.

    >>> import jax.numpy as jnp, nestor
    >>> round(float(nestor.fixed_point(jnp.cos, 1.0, solver=nestor.Picard()).x), 3)
    0.739
    """

    damping: Any = 1.0
    solves: ClassVar[type[Problem]] = FixedPointFinding

    def init(self, problem: FixedPointFinding, x: Tree) -> _PicardState:
        """See `Solver.init`."""
        return _PicardState(no_info(x))

    def step(self, problem: FixedPointFinding, x: Tree, state: _PicardState) -> tuple[Tree, _PicardState]:
        """See `Solver.step`."""
        change = trees.subtract(problem.fun(x), x)
        info = info_at(trees.norm(change), change)
        return trees.add_scaled(x, self.damping, change), _PicardState(info)

    def status(self, problem: FixedPointFinding, x: Tree, state: _PicardState) -> jax.Array:
        """See `Solver.status`."""
        return judge(problem, state.info)


class _AndersonState(NamedTuple):
    info: Info
    x: jax.Array
    change: jax.Array
    steps: jax.Array  # (m, n) differences of x
    changes: jax.Array  # (m, n) differences of T(x) - x
    moves: jax.Array


@trees.record
class Anderson:
    """Anderson's acceleration (type II): the next point is the best mixture of the last few.

    Args:
        memory: points that are mixed; memory 2 * memory * n numbers.
        regularization: added to the small least-squares problem, relative to its size; None is eps of the
            dtype. Larger is safer and slower.

    Forgets what it knows when the residual grows tenfold. On smooth contractions close to GMRES in the
    number of maps. Cost a step: one T, 2 memory^2 n operations.
    Source: Walker and Ni 2011, algorithm AA; Anderson 1965.

    >>> import jax.numpy as jnp, nestor
    >>> round(float(nestor.fixed_point(jnp.cos, 1.0, solver=nestor.Anderson()).x), 3)
    0.739
    """

    memory: int = 5
    regularization: float | None = None
    solves: ClassVar[type[Problem]] = FixedPointFinding

    def init(self, problem: FixedPointFinding, x: Tree) -> _AndersonState:
        """See `Solver.init`."""
        vector, _ = trees.ravel(x)
        rows = jnp.zeros((self.memory, vector.size), vector.dtype)
        return _AndersonState(
            no_info(x), vector, jnp.zeros_like(vector), rows, rows, jnp.zeros((), jnp.int32)
        )

    def step(self, problem: FixedPointFinding, x: Tree, state: _AndersonState) -> tuple[Tree, _AndersonState]:
        """See `Solver.step`."""
        vector, back = trees.ravel(x)
        mapped, _ = trees.ravel(problem.fun(x))
        change = mapped - vector
        info = info_at(trees.norm(change), change)
        grown = info.value > 10 * state.info.value
        count = jnp.where(grown, 0, state.moves)
        place = jnp.maximum(count - 1, 0) % self.memory
        known = count > 0
        put = lambda rows, new: rows.at[place].set(jnp.where(known, new, rows[place]))  # noqa: E731
        fade = (~grown).astype(vector.dtype)
        steps = put(state.steps * fade, vector - state.x)
        changes = put(state.changes * fade, change - state.change)
        eps = float(jnp.finfo(vector.dtype).eps)
        weight = eps if self.regularization is None else self.regularization
        gram = changes @ changes.T
        size = jnp.trace(gram)
        size = jnp.where(size > 0, size, 1)
        full = gram + weight * size * jnp.eye(self.memory, dtype=vector.dtype)
        mixture = jnp.linalg.solve(full, changes @ change)
        x_next = mapped - mixture @ (steps + changes)
        return back(x_next), _AndersonState(info, vector, change, steps, changes, count + 1)

    def status(self, problem: FixedPointFinding, x: Tree, state: _AndersonState) -> jax.Array:
        """See `Solver.status`."""
        return judge(problem, state.info)
