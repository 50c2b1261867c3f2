"""What the stochastic methods ask of a problem of two levels: draws of rows, and derivatives on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.training import Batches

Tree = Any


class TwoLevels(NamedTuple):
    """Two levels as functions of rows; hashable, the arrays that they read come with each call.

        minimize over x   outer(y*(x), x),   y*(x) = argmin over y of inner(y, x)

    Args:
        inner: (inputs, y, x, rows, key) -> scalar, strongly convex in y. It is the mean over the examples
            named by `rows`, an int32 array of shape (inner_batch,), or over all of them where `rows` is None.
            The key, new for each draw, is for what else is random in it.
        outer: the same of the outer level, with `outer_batch` rows.
        inner_rows: the number of examples of the inner level; 1 where there are none to draw from.
        outer_rows: the same of the outer level.
        inner_batch: examples in a batch; `inner_rows` of them are the full level, without noise.
        outer_batch: the same of the outer level.

    Rows are drawn without replacement: every draw goes on where the last one ended in a shuffled order of the
    examples, another one for each pass. Which rows a draw has follows from its number and the key alone.

    >>> import jax.numpy as jnp
    >>> from nestor.levels._oracles import TwoLevels
    >>> inner = lambda a, y, x, rows, key: jnp.mean((y - a[rows] * x) ** 2)
    >>> outer = lambda a, y, x, rows, key: (y - 1) ** 2
    >>> TwoLevels(inner, outer, inner_rows=100, inner_batch=10).inner_batches
    10
    """

    inner: Callable[..., jax.Array]
    outer: Callable[..., jax.Array]
    inner_rows: int = 1
    outer_rows: int = 1
    inner_batch: int = 1
    outer_batch: int = 1

    @property
    def inner_batches(self) -> int:
        """Full batches in a pass over the inner examples."""
        return self.inner_rows // self.inner_batch

    @property
    def outer_batches(self) -> int:
        """Full batches in a pass over the outer examples."""
        return self.outer_rows // self.outer_batch

    @property
    def epoch(self) -> int:
        """Steps of one inner and one outer batch in which about all examples of both levels are seen."""
        return -(-(self.inner_rows + self.outer_rows) // (self.inner_batch + self.outer_batch))

    def draw_inner(self, keys: jax.Array, number: jax.Array) -> Draw:
        """The inner batch of that number; `keys` are those of `State`."""
        return _draw(self.inner_rows, self.inner_batch, keys[0], number)

    def draw_outer(self, keys: jax.Array, number: jax.Array) -> Draw:
        """The outer batch of that number."""
        return _draw(self.outer_rows, self.outer_batch, keys[1], number)


class Draw(NamedTuple):
    """One batch.

    Attributes:
        rows: int32, of shape (batch,); None for all rows.
        key: what the function may draw with.
    """

    rows: jax.Array | None
    key: jax.Array


class Point(NamedTuple):
    """The variables of both levels; also a direction of each, where descent is against it.

    Attributes:
        y: inner variables.
        v: the solution of (d²inner/dy²) v = -d outer/dy, a tree like y; None in methods that have no such.
        x: outer variables.
    """

    y: Tree
    v: Tree
    x: Tree


def everything(key: jax.Array) -> Draw:
    """All rows."""
    return Draw(None, key)


def _draw(rows: int, batch: int, key: jax.Array, number: jax.Array) -> Draw:
    chosen = None if batch == rows else shuffled(rows, batch, key, number)
    return Draw(chosen, jax.random.fold_in(key, number))


def shuffled(rows: int, batch: int, key: jax.Array, number: jax.Array) -> jax.Array:
    """The rows of one batch, int32 of shape (batch,): an order of its own for each pass over them."""
    return Batches(rows, batch, shuffle=True).draw(jnp.arange(rows, dtype=jnp.int32), key, number)


# --- derivatives ---------------------------------------------------------------------------------------


def inner_gradient(problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, draw: Draw) -> Tree:
    """d inner/dy. Cost: one gradient."""
    return jax.grad(problem.inner, argnums=1)(inputs, y, x, *draw)


def outer_gradients(problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, draw: Draw) -> tuple[Tree, Tree]:
    """d outer/dy and d outer/dx. Cost: one gradient."""
    return jax.grad(problem.outer, argnums=(1, 2))(inputs, y, x, *draw)


def hessian_product(problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, v: Tree, draw: Draw) -> Tree:
    """(d²inner/dy²) v. Cost: about two gradients."""
    return jax.jvp(lambda y: inner_gradient(problem, inputs, y, x, draw), (y,), (v,))[1]


def inner_products(
    problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, v: Tree, draw: Draw
) -> tuple[Tree, Tree, Tree]:
    """d inner/dy, (d²inner/dy²) v and (d²inner/dy dx)' v, all from one linearisation.

    The derivative along v of the gradient in y and x together has both products in it, and the gradient in y
    beside it. Cost: about two gradients; what is not used is not computed.
    """
    both = lambda y: jax.grad(problem.inner, argnums=(1, 2))(inputs, y, x, *draw)  # noqa: E731
    (gradient, _), (hessian, cross) = jax.jvp(both, (y,), (v,))
    return gradient, hessian, cross


def directions(problem: TwoLevels, inputs: Tree, at: Point, inner: Draw, outer: Draw) -> Point:
    """The three directions whose common zero is the solution; all are means over the rows.

        of y   d inner/dy
        of v   (d²inner/dy²) v + d outer/dy
        of x   (d²inner/dy dx)' v + d outer/dx

    Cost: about three gradients. Source: Dagréou, Ablin, Vaiter, Moreau 2022.
    """
    gradient, hessian, cross = inner_products(problem, inputs, at.y, at.x, at.v, inner)
    along_y, along_x = outer_gradients(problem, inputs, at.y, at.x, outer)
    return Point(gradient, trees.add(hessian, along_y), trees.add(cross, along_x))


# --- the hypergradient by a truncated series --------------------------------------------------------------


def series(
    problem: TwoLevels, inputs: Tree, y: Tree, x: Tree, b: Tree, rate: Any, terms: int, draw: Any
) -> Tree:
    """rate * sum_{q < terms} prod_{j <= q} (I - rate H_j) b, where H_j is the inner Hessian on draw j.

    Args:
        rate: a number below 2 / |H|.
        terms: how many terms; the truncation is wrong by (1 - rate mu)^terms, mu the least eigenvalue of H.
        draw: a function from 0 ... terms - 2 to a `Draw`; or one `Draw`, where the Hessian is linearised once.

    Cost: `terms` - 1 Hessian products. Source: Ji, Yang, Liang 2021, algorithm 3.
    """
    if isinstance(draw, Draw):
        _, linear = jax.linearize(lambda y: inner_gradient(problem, inputs, y, x, draw), y)
        product = lambda j, v: linear(v)  # noqa: E731
    else:
        product = lambda j, v: hessian_product(problem, inputs, y, x, v, draw(j))  # noqa: E731

    def add_term(carry: tuple[Tree, Tree], j: jax.Array) -> tuple[tuple[Tree, Tree], None]:
        term, total = carry
        term = move(term, rate, product(j, term))
        return (term, trees.add(total, term)), None

    (_, total), _ = jax.lax.scan(add_term, (b, b), jnp.arange(terms - 1, dtype=jnp.int32))
    return scaled(rate, total)


def hypergradient(
    problem: TwoLevels,
    inputs: Tree,
    y: Tree,
    x: Tree,
    inner: Draw,
    outer: Draw,
    solve: Callable[[Tree], Tree],
) -> Point:
    """d inner/dy and the estimate d outer/dx - (d²inner/dy dx)' solve(d outer/dy), as the directions of y and x.

    Args:
        solve: b -> about (d²inner/dy²)^-1 b.

    Cost: about three gradients and one solve.
    """
    along_y, along_x = outer_gradients(problem, inputs, y, x, outer)
    gradient, _, cross = inner_products(problem, inputs, y, x, trees.negative(solve(along_y)), inner)
    return Point(gradient, None, trees.add(cross, along_x))


# --- moves ---------------------------------------------------------------------------------------------


def move(a: Tree, rate: Any, direction: Tree) -> Tree:
    """a - rate * direction, for a rate or a tree of rates for groups of a."""
    return jax.tree.map(lambda r, p, d: trees.add_scaled(p, -r, d), rate, a, direction)


def scaled(rate: Any, direction: Tree) -> Tree:
    """rate * direction, for a rate or a tree of rates."""
    return jax.tree.map(trees.scale, rate, direction)
