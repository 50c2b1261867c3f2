"""Quasi-Newton methods: BFGS with a dense inverse Hessian, and L-BFGS with the last few moves."""

from __future__ import annotations

import dataclasses
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
        # (6.17), with H y formed once.
        factor = (sy + jnp.vdot(y, hy)) / (sy * sy)
        cross = (hy / sy)[:, None] * s[None, :]
        change = (factor * s)[:, None] * s[None, :] - cross - cross.T
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
    steps: Tree  # m last s, leading axis m, oldest first
    changes: Tree  # m last y
    inverse_curvatures: jax.Array  # (m,) 1 / s'y, zero where there is no pair
    scale: jax.Array  # s'y / y'y of the last pair
    moves: jax.Array


class _Limited(NamedTuple):
    length: int

    def empty(self, x: Tree) -> _LimitedMemory:
        dtype = trees.float_dtype(x)
        return _LimitedMemory(
            trees.vectors_like(x, self.length),
            trees.vectors_like(x, self.length),
            jnp.zeros((self.length,), dtype),
            jnp.ones((), dtype),
            jnp.zeros((), jnp.int32),
        )

    def is_empty(self, memory: _LimitedMemory) -> jax.Array:
        return memory.moves == 0

    def forget(self, memory: _LimitedMemory, when: jax.Array) -> _LimitedMemory:
        return memory._replace(
            inverse_curvatures=jnp.where(when, 0, memory.inverse_curvatures),
            scale=jnp.where(when, 1, memory.scale),
            moves=jnp.where(when, 0, memory.moves),
        )

    def remember(self, memory: _LimitedMemory, move: _descent.Move, when: jax.Array) -> _LimitedMemory:
        sy, yy, curved = _descent.curvature(move.step, move.change)
        use = when & curved
        sy, yy = jnp.where(use, sy, 1), jnp.where(use, yy, 1)
        place = memory.moves % self.length
        put = lambda rows, new: rows.at[place].set(jnp.where(use, new, rows[place]))  # noqa: E731
        return _LimitedMemory(
            jax.tree.map(put, memory.steps, move.step),
            jax.tree.map(put, memory.changes, move.change),
            put(memory.inverse_curvatures, 1 / sy),
            jnp.where(use, sy / yy, memory.scale),
            memory.moves + use.astype(jnp.int32),
        )

    def direction(self, memory: _LimitedMemory, grad: Tree, x: Tree, box: Any) -> Tree:
        """The two-loop recursion, newest to oldest and back; empty places have weight zero."""
        order = (memory.moves - 1 - jnp.arange(self.length, dtype=jnp.int32)) % self.length

        def pair(i: jax.Array) -> tuple[Tree, Tree, jax.Array]:
            row = lambda rows: rows[i]  # noqa: E731
            return (
                jax.tree.map(row, memory.steps),
                jax.tree.map(row, memory.changes),
                memory.inverse_curvatures[i],
            )

        def first(q: Tree, i: jax.Array) -> tuple[Tree, jax.Array]:
            s, y, rho = pair(i)
            a = rho * trees.dot(s, q)
            return trees.add_scaled(q, -a, y), a

        def second(r: Tree, pairs: tuple[jax.Array, jax.Array]) -> tuple[Tree, None]:
            i, a = pairs
            s, y, rho = pair(i)
            return trees.add_scaled(r, a - rho * trees.dot(y, r), s), None

        q, weights = jax.lax.scan(first, grad, order)
        r, _ = jax.lax.scan(second, trees.scale(memory.scale, q), (order, weights), reverse=True)
        return trees.negative(r)

    def first_length(self, memory: _LimitedMemory, guess: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.where(memory.moves > 0, jnp.ones_like(guess), guess)


@trees.record
class LBFGS:
    """L-BFGS: quasi-Newton directions from the last few moves, for any number of variables.

    Args:
        memory: moves that are remembered; memory 2 * memory * n numbers.
        search: step lengths, by default `StrongWolfe()`.

    Restarts with steepest descent when a search fails. Cost a step: one gradient and 4 * memory * n
    operations. Source: Nocedal and Wright 2006, algorithms 7.4 and 7.5; Liu and Nocedal 1989.

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

    def init(self, problem: Minimization, x: Tree) -> _descent.DescentState:
        """See `Solver.init`."""
        start = trees.ravel(x)[0] if self._in_one_vector(problem) else x
        return _descent.init(self._rule(problem), self.search, start)

    def step(
        self, problem: Minimization, x: Tree, state: _descent.DescentState
    ) -> tuple[Tree, _descent.DescentState]:
        """See `Solver.step`."""
        if not self._in_one_vector(problem):
            return _descent.step(self._rule(problem), self.search, problem, x, state)
        flat, vector, back = problem.raveled(x)
        vector, state = _descent.step(self._rule(problem), self.search, flat, vector, state)
        return back(vector), state

    def status(self, problem: Minimization, x: Tree, state: _descent.DescentState) -> jax.Array:
        """See `Solver.status`."""
        return _descent.status(self.search, problem, state)

    def _in_one_vector(self, problem: Minimization) -> bool:
        # One vector has half the operations to compile of a net of four arrays. A rate may differ between leaves.
        return problem.box is not None or not isinstance(self.search, Rate)

    def _rule(self, problem: Minimization) -> _descent.Rule:
        return _Limited(self.memory) if problem.box is None else Boxed(self.memory)
