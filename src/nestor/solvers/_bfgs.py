"""Quasi-Newton methods: BFGS with a dense inverse Hessian, and L-BFGS with the last few moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers import _descent
from nestor.solvers._box_model import Boxed
from nestor.solvers._contract import Minimization, Problem
from nestor.solvers._rates import Rate
from nestor.solvers._searches import Search, StrongWolfe

Tree = Any


class _DenseMemory(NamedTuple):
    inverse: jax.Array  # (n, n), the inverse Hessian's model
    moves: jax.Array


class _Dense:
    def empty(self, x: Tree) -> _DenseMemory:
        vector, _ = trees.ravel(x)
        blank = jnp.zeros((vector.size, vector.size), vector.dtype)
        return _DenseMemory(blank, jnp.zeros((), jnp.int32))

    def is_empty(self, memory: _DenseMemory) -> jax.Array:
        return memory.moves == 0

    def forget(self, memory: _DenseMemory, when: jax.Array) -> _DenseMemory:
        return memory._replace(moves=jnp.where(when, 0, memory.moves))

    def remember(self, memory: _DenseMemory, move: _descent.Move, when: jax.Array) -> _DenseMemory:
        s, _ = trees.ravel(move.step)
        y, _ = trees.ravel(move.change)
        sy, yy, curved = _descent.curvature(s, y)
        use = when & curved
        sy, yy = jnp.where(use, sy, 1), jnp.where(use, yy, 1)
        s, y = jnp.where(use, s, 0), jnp.where(use, y, 0)
        # Nocedal and Wright (6.20): an empty memory stands for the identity, scaled by the first move.
        blank = memory.moves == 0
        scale = sy / yy
        hy = jnp.where(blank, scale * y, memory.inverse @ y)
        eye = scale * jnp.eye(s.size, dtype=s.dtype)
        # (6.17), with H y formed once, as two products of columns and rows: a third, transposed, costs as much again.
        across = hy / sy
        along = (sy + jnp.vdot(y, hy)) / (sy * sy) * s - across
        change = along[:, None] * s[None, :] - s[:, None] * across[None, :]
        updated = jnp.where(blank, eye, memory.inverse) + change
        return _DenseMemory(jnp.where(use, updated, memory.inverse), memory.moves + use.astype(jnp.int32))

    def direction(self, memory: _DenseMemory, grad: Tree, x: Tree, box: Any) -> Tree:
        vector, back = trees.ravel(grad)
        return back(-jnp.where(memory.moves == 0, vector, memory.inverse @ vector))

    def first_length(self, memory: _DenseMemory, guess: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.where(memory.moves > 0, jnp.ones_like(guess), guess)


_DENSE = _Dense()


@trees.record
class BFGS:
    """BFGS with a dense inverse Hessian: the default for up to 100 variables.

    Args:
        search: step lengths, by default `StrongWolfe()`.

    Superlinear convergence; restarts with steepest descent when a search fails. Cost a step: one gradient,
    4 n^2 operations, n^2 numbers of memory. Source: Nocedal and Wright 2006, algorithm 6.1, (6.17), (6.20).

    >>> import jax.numpy as jnp, nestor
    >>> rosenbrock = lambda x: 100.0 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    >>> nestor.minimize(rosenbrock, jnp.array([-1.2, 1.0]), solver=nestor.BFGS()).x.round(3).tolist()
    [1.0, 1.0]
    """

    search: Search | Rate = dataclasses.field(default_factory=StrongWolfe)
    solves: ClassVar[type[Problem]] = Minimization

    def init(self, problem: Minimization, x: Tree) -> _descent.DescentState:
        """See `Solver.init`."""
        return _descent.init(_DENSE, self.search, x)

    def step(
        self, problem: Minimization, x: Tree, state: _descent.DescentState
    ) -> tuple[Tree, _descent.DescentState]:
        """See `Solver.step`."""
        return _descent.step(_DENSE, self.search, problem, x, state)

    def status(self, problem: Minimization, x: Tree, state: _descent.DescentState) -> jax.Array:
        """See `Solver.status`."""
        return _descent.status(self.search, problem, state)


class _LimitedMemory(NamedTuple):
    """The last moves in m + 1 places, each scaled so that s'y = 1.

    Attributes:
        rows: s and y in turns, shape (2 (m + 1), n).
        inverse: R^-1, shape (m + 1, m + 1), where R has s_i'y_j for every i that is no newer than j, else zero;
            zero in the row and the column of a place that holds no move.
        products: y_i'y_j, shape (m + 1, m + 1).
        scale: s'y / y'y of the last move; zero where there is none.
        place: where the next move is written, which holds none until then.
    """

    rows: jax.Array
    inverse: jax.Array
    products: jax.Array
    scale: jax.Array
    place: jax.Array


class _Limited(NamedTuple):
    """The inverse of the model in compact form: Byrd, Nocedal and Schnabel 1994, (3.1).

    A new move is one more column of R^-1, and the oldest is a row and a column less; so nothing is solved.
    """

    length: int

    def empty(self, x: Tree) -> _LimitedMemory:
        vector, _ = trees.ravel(x)
        places = self.length + 1
        square = jnp.zeros((places, places), vector.dtype)
        rows = jnp.zeros((2 * places, vector.size), vector.dtype)
        return _LimitedMemory(rows, square, square, jnp.zeros((), vector.dtype), jnp.int32(0))

    def is_empty(self, memory: _LimitedMemory) -> jax.Array:
        return memory.scale == 0

    def forget(self, memory: _LimitedMemory, when: jax.Array) -> _LimitedMemory:
        return memory._replace(scale=jnp.where(when, 0, memory.scale))

    def remember(self, memory: _LimitedMemory, move: _descent.Move, when: jax.Array) -> _LimitedMemory:
        s, y = trees.ravel(move.step)[0], trees.ravel(move.change)[0]
        sy, yy, curved = _descent.curvature(s, y)
        use = when & curved
        sy, yy = jnp.where(use, sy, 1), jnp.where(use, yy, 1)
        root = jnp.sqrt(sy)
        s, y = jnp.where(use, s / root, 0), jnp.where(use, y / root, 0)
        place = memory.place
        rows = jax.lax.dynamic_update_slice_in_dim(memory.rows, jnp.stack([s, y]), 2 * place, 0)
        with_s, with_y = _products(rows, y)
        known = jnp.where(memory.scale == 0, 0, memory.inverse)
        places = jnp.arange(self.length + 1, dtype=jnp.int32)
        here = places == place
        column = jnp.where(here, 1, -_small(known, with_s))
        ahead = jnp.where(place == self.length, 0, place + 1)
        oldest = places == ahead
        inverse = jnp.where(here[None, :], column[:, None], known)
        inverse = jnp.where(oldest[:, None] | oldest[None, :], 0, inverse)
        products = jnp.where(here[None, :], with_y[:, None], memory.products)
        products = jnp.where(here[:, None], with_y[None, :], products)
        return _LimitedMemory(
            rows,
            jnp.where(use, inverse, memory.inverse),
            products,
            jnp.where(use, sy / yy, memory.scale),
            jnp.where(use, ahead, place),
        )

    def direction(self, memory: _LimitedMemory, grad: Tree, x: Tree, box: Any) -> Tree:
        """Minus the model's inverse times the gradient."""
        g, back = trees.ravel(grad)
        rows, inverse, products, scale, _ = memory
        of_s, of_y = _products(rows, g)
        a = _small(inverse, of_s)
        c = _small(inverse.T, a + scale * (_small(products, a) - of_y))
        weights = jnp.stack([c, -scale * a], axis=1).reshape(-1)
        moved = jnp.matmul(weights, rows, precision="highest")
        return back(-jnp.where(scale == 0, g, scale * g + moved))

    def first_length(self, memory: _LimitedMemory, guess: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.where(memory.scale == 0, guess, jnp.ones_like(guess))


def _products(rows: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The products of all s and of all y with v: one reading of the rows."""
    both = jnp.matmul(rows, v, precision="highest").reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _small(matrix: jax.Array, v: jax.Array) -> jax.Array:
    """The product of a matrix of a few entries with v; a dot product would be a program of its own to compile."""
    return jnp.sum(matrix * v[None, :], axis=1)


@trees.record
class LBFGS:
    """L-BFGS: quasi-Newton directions from the last few moves, for any number of variables.

    Args:
        memory: moves that are remembered; memory 2 * (memory + 1) * n numbers.
        search: step lengths, by default `StrongWolfe()`.

    Restarts with steepest descent when a search fails. Cost a step: one gradient and 12 * memory * n
    operations, in three readings of the memory. Source: Liu and Nocedal 1989, in the compact form of Byrd, Nocedal
    and Schnabel 1994; Nocedal and Wright 2006, sections 7.2 and 3.5.

    With bounds the direction leads to the minimizer, in the box, of the quadratic model that the moves make, found
    by guesses of the bounds that hold: some 8 * memory^2 * n operations a guess, one or two as a rule.
    Source: Byrd, Lu, Nocedal and Zhu 1995, with another way through the model.

    >>> import jax.numpy as jnp, nestor
    >>> bowl = lambda x: jnp.sum(jnp.cosh(x - 1.0))
    >>> nestor.minimize(bowl, jnp.zeros(1000), solver=nestor.LBFGS()).success
    True
    """

    memory: int = 10
    search: Search | Rate = dataclasses.field(default_factory=StrongWolfe)
    solves: ClassVar[type[Problem]] = Minimization
    bounds: ClassVar[bool] = True

    @property
    def in_one_vector(self) -> bool:
        """See `Solver`; a rate may differ between leaves."""
        return not isinstance(self.search, Rate)

    def init(self, problem: Minimization, x: Tree) -> _descent.DescentState:
        """See `Solver.init`."""
        return _descent.init(self._rule(problem), self.search, self._raveled(problem, x)[1])

    def step(
        self, problem: Minimization, x: Tree, state: _descent.DescentState
    ) -> tuple[Tree, _descent.DescentState]:
        """See `Solver.step`."""
        own, point, back = self._raveled(problem, x)
        point, state = _descent.step(self._rule(problem), self.search, own, point, state)
        return back(point), state

    def status(self, problem: Minimization, x: Tree, state: _descent.DescentState) -> jax.Array:
        """See `Solver.status`."""
        return _descent.status(self.search, problem, state)

    def _raveled(self, problem: Minimization, x: Tree) -> tuple[Minimization, Tree, Callable[[Tree], Tree]]:
        if self.in_one_vector or problem.box is not None:
            return problem.raveled(x)
        return problem, x, lambda x: x

    def _rule(self, problem: Minimization) -> _descent.Rule:
        return _Limited(self.memory) if problem.box is None else Boxed(self.memory)
