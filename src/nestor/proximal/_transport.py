"""Transport plans: non-negative matrices whose rows and columns have given sums."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.proximal._contract import Set, check_matrices

Tree = Any

_NEWTON, _SINKHORN = 100, 10_000  # turns at most


class _Duals(NamedTuple):
    """A price for every row and every column, and how far the sums are from right."""

    rows: jax.Array
    columns: jax.Array
    error: jax.Array
    turns: jax.Array


def _system(weight: jax.Array) -> jax.Array:
    """[[diag(W 1), W], [W', diag(W' 1)]]: how the sums answer to the prices."""
    top = jnp.concatenate([jnp.diag(weight.sum(axis=1)), weight], axis=1)
    return jnp.concatenate([top, jnp.concatenate([weight.T, jnp.diag(weight.sum(axis=0))], axis=1)])


def _solved(weight: jax.Array, right: jax.Array, damping: jax.Array | None = None) -> jax.Array:
    """The least solution of the system: adding to all rows what is taken from all columns changes nothing."""
    matrix = _system(weight)
    if damping is not None:
        return jax.scipy.linalg.solve(
            matrix + damping * jnp.eye(right.size, dtype=right.dtype), right, assume_a="pos"
        )
    return jnp.linalg.pinv(matrix, hermitian=True) @ right


def _plan(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.maximum(x - rows[:, None] - columns[None, :], 0)


def _nearest(x: jax.Array, a: jax.Array, b: jax.Array) -> _Duals:
    """The prices r, c of the nearest plan max(x - r 1' - 1 c', 0), by a damped Newton method on the dual."""
    size = x.shape[0]
    tol = 100 * float(jnp.finfo(x.dtype).eps) * jnp.maximum(jnp.max(a), jnp.max(b))

    def dual(rows: jax.Array, columns: jax.Array) -> jax.Array:
        return jnp.sum(_plan(x, rows, columns) ** 2) / 2 + jnp.vdot(a, rows) + jnp.vdot(b, columns)

    def step(s: _Duals) -> _Duals:
        plan = _plan(x, s.rows, s.columns)
        slope = jnp.concatenate([a - plan.sum(axis=1), b - plan.sum(axis=0)])
        error = jnp.max(jnp.abs(slope))
        move = -_solved((plan > 0).astype(x.dtype), slope, jnp.minimum(error, 1) * 0.1 + tol)
        lengths = 0.5 ** jnp.arange(20).astype(x.dtype)
        trials = jax.vmap(lambda t: dual(s.rows + t * move[:size], s.columns + t * move[size:]))(lengths)
        enough = trials <= dual(s.rows, s.columns) + 1e-4 * lengths * jnp.vdot(slope, move)
        t = jnp.where(jnp.any(enough), lengths[jnp.argmax(enough)], lengths[jnp.argmin(trials)])
        return _Duals(s.rows + t * move[:size], s.columns + t * move[size:], error, s.turns + 1)

    start = _Duals(x.max(axis=1) - a, jnp.zeros_like(b), jnp.full((), jnp.inf, x.dtype), jnp.int32(0))
    return jax.lax.while_loop(lambda s: (s.error > tol) & (s.turns < _NEWTON), step, start)


def _project(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    duals = _nearest(*jax.lax.stop_gradient((x, a, b)))
    support = jax.lax.stop_gradient(_plan(x, duals.rows, duals.columns) > 0)
    held = jnp.where(support, x - duals.rows[:, None] - duals.columns[None, :], 0)
    short = jnp.concatenate([held.sum(axis=1) - a, held.sum(axis=0) - b])
    more = _solved(support.astype(x.dtype), short)
    plan = jnp.where(support, held - more[: x.shape[0], None] - more[None, x.shape[0] :], 0)
    good = (duals.error < 1e3 * float(jnp.finfo(x.dtype).eps) ** 0.75) & jnp.all(jnp.isfinite(plan))
    return jnp.where(good, plan, jnp.nan)


def _project_kl(logarithm: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """exp(logarithm - r 1' - 1 c'): Sinkhorn's turns, then one of Newton's, which has the derivative."""
    tol = 100 * float(jnp.finfo(a.dtype).eps) * jnp.max(a)
    fixed, row_sums, column_sums = jax.lax.stop_gradient((logarithm, a, b))
    log_rows, log_columns = jnp.log(row_sums), jnp.log(column_sums)

    def step(s: _Duals) -> _Duals:
        rows = jax.nn.logsumexp(fixed - s.columns[None, :], axis=1) - log_rows
        columns = jax.nn.logsumexp(fixed - rows[:, None], axis=0) - log_columns
        sums = jnp.exp(fixed - rows[:, None] - columns[None, :]).sum(axis=1)
        return _Duals(rows, columns, jnp.max(jnp.abs(sums - row_sums)), s.turns + 1)

    zero = jnp.zeros_like(b)
    start = _Duals(jnp.zeros_like(a), zero, jnp.full((), jnp.inf, a.dtype), jnp.int32(0))
    duals = jax.lax.while_loop(lambda s: (s.error > tol) & (s.turns < _SINKHORN), step, start)
    rows, columns = jax.lax.stop_gradient((duals.rows, duals.columns))
    plan = jnp.exp(logarithm - rows[:, None] - columns[None, :])
    short = jnp.concatenate([plan.sum(axis=1) - a, plan.sum(axis=0) - b])
    more = _solved(jax.lax.stop_gradient(plan), short)
    return plan * jnp.exp(-more[: a.size, None] - more[None, a.size :])


@trees.record
class Transport(Set):
    """Matrices P >= 0 whose rows sum to `rows` and whose columns sum to `columns`, the last axes of every leaf.

    The nearest point by Euclid is max(x - r 1' - 1 c', 0), that in relative entropy (`project_kl`, the plan of
    optimal transport with an entropic term) exp(logarithm - r 1' - 1 c').

    Args:
        rows: shape (m,), entries > 0.
        columns: shape (n,), entries > 0, of the same sum.

    Fails (NaN) where the dual is not solved in 100 turns of a Newton method. Cost: some 10 dense solves with
    m + n unknowns, and a pseudo-inverse; in relative entropy Sinkhorn's turns, and a pseudo-inverse.
    Source: Blondel, Seguy, Rolet 2018, section 4; Sinkhorn 1967; Cuturi 2013.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> plans = proximal.Transport(jnp.array([1.0, 1.0]), jnp.array([0.5, 1.5]))
    >>> plans.project(jnp.eye(2)).round(3).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """

    rows: Any
    columns: Any

    def project(self, x: Tree) -> Tree:
        """The nearest plan."""
        return jax.tree.map(lambda leaf: self._each(_project, leaf), x)

    def project_kl(self, logarithm: Tree) -> Tree:
        """The nearest plan to exp(logarithm) in relative entropy."""
        return jax.tree.map(lambda leaf: self._each(_project_kl, leaf), logarithm)

    def _each(self, function: Any, leaf: jax.Array) -> jax.Array:
        rows = jnp.asarray(self.rows).astype(leaf.dtype)
        columns = jnp.asarray(self.columns).astype(leaf.dtype)
        check_matrices("Transport", leaf)
        if leaf.shape[-2:] != (*rows.shape, *columns.shape):
            raise BadArgument(
                "Transport",
                "x",
                got=f"of shape {leaf.shape}, for rows of shape {rows.shape} and columns of shape {columns.shape}",
                want="a matrix with a row for every entry of rows, and a column for every entry of columns",
                do="pass the sums of the rows first, then those of the columns, or transpose x",
            )
        _check_sums(self.rows, self.columns)
        flat = leaf.reshape(-1, *leaf.shape[-2:])
        return jax.vmap(lambda one: function(one, rows, columns))(flat).reshape(leaf.shape)


def _check_sums(rows: Any, columns: Any) -> None:
    """What leaves the rows must arrive in the columns; traced sums are not looked at."""
    if isinstance(rows, jax.core.Tracer) or isinstance(columns, jax.core.Tracer):
        return
    sent, taken = float(np.sum(np.asarray(rows))), float(np.sum(np.asarray(columns)))
    if not abs(sent - taken) <= 1e-3 * max(abs(sent), abs(taken)):
        raise BadArgument(
            "Transport",
            "rows",
            got=f"of sum {sent:.6g}, where columns sum to {taken:.6g}",
            want="of the same sum",
            do="divide each by its sum",
        )


@trees.record
class Birkhoff(Set):
    """Doubly stochastic matrices: `Transport` with all sums 1, for square last axes.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Birkhoff().project(jnp.zeros((2, 2))).round(3).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    def project(self, x: Tree) -> Tree:
        """The nearest doubly stochastic matrix."""
        return jax.tree.map(lambda leaf: self._plans(leaf).project(leaf), x)

    def project_kl(self, logarithm: Tree) -> Tree:
        """The nearest one to exp(logarithm) in relative entropy."""
        return jax.tree.map(lambda leaf: self._plans(leaf).project_kl(leaf), logarithm)

    def _plans(self, leaf: jax.Array) -> Transport:
        check_matrices("Birkhoff", leaf, square=True)
        ones = jnp.ones(leaf.shape[-1], leaf.dtype)
        return Transport(ones, ones)
