"""Many solvers and many problems in one compiled program: the matrix of tests costs seconds, not an hour.

A compiled solve costs most of a second, and the matrix has thousands. Two things make them share a program:

* `OneOf` is a solver that is one of many, by a traced number. It goes through the same front door and the same
  driver; every turn evaluates the objective once and hands it to the chosen solver's own ``step``.
* A switch over the problems is one objective of a traced number. Problems of fewer unknowns are padded with
  unknowns that start, and stay, at zero; see `minimization` for why that changes no iterate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import nestor
from nestor import trees
from nestor.solvers import Info, Minimization, Problem
from nestor.solvers._optax import as_solver

Tree = Any


class Outcome(NamedTuple):
    """One solve, on the host."""

    x: Tree
    fun: float
    status: nestor.Status
    evaluations: int
    steps: int
    accepted: int
    optimality: float
    tol: float
    again: float = math.nan  # the value at x, computed by another program
    rounding: float = math.inf  # how far apart two computations of it may be
    start: float = math.nan  # the value at the start


@dataclasses.dataclass(frozen=True)
class _Evaluated(Minimization):
    """A minimization whose value and derivatives at the point of this turn are known already."""

    found: Any = None

    def value_and_grad(self, x: Tree) -> Any:
        return self.found[:2]

    def value_grad_and_hvp(self, x: Tree) -> Any:
        return self.found


class _State(NamedTuple):
    info: Info
    states: tuple[Any, ...]


def one_of(which: jax.Array, solvers: Sequence[Any], *, curvature: bool = False) -> Any:
    """The solver with that number, which may be traced; `curvature` where they want Hessian products."""
    kinds = {solver.solves for solver in solvers}
    assert len(kinds) == 1, kinds

    @trees.record
    class OneOf:
        number: Any
        choices: tuple[Any, ...]
        solves: ClassVar[type[Problem]] = kinds.pop()

        def init(self, problem: Any, x: Tree) -> _State:
            states = tuple(solver.init(problem, x) for solver in self.choices)
            return _State(states[0].info, states)

        def step(self, problem: Any, x: Tree, state: _State) -> tuple[Tree, _State]:
            if isinstance(problem, Minimization):
                found = problem.value_grad_and_hvp(x) if curvature else problem.value_and_grad(x)
                problem = _Evaluated(problem.fun, problem.tol, problem.box, problem.scale, found)

            def turn(k: int) -> Callable[[_State], tuple[Tree, _State]]:
                def one(state: _State) -> tuple[Tree, _State]:
                    x_next, new = self.choices[k].step(problem, x, state.states[k])
                    return x_next, _State(new.info, (*state.states[:k], new, *state.states[k + 1 :]))

                return one

            return jax.lax.switch(self.number, [turn(k) for k in range(len(self.choices))], state)

        def status(self, problem: Any, x: Tree, state: _State) -> jax.Array:
            verdicts = [s.status(problem, x, own) for s, own in zip(self.choices, state.states, strict=True)]
            return jnp.stack(verdicts)[self.number]

    return OneOf(which, tuple(solvers))


class Piece(NamedTuple):
    """A problem as one branch of a switch over problems of the same shape.

    Attributes:
        name: of the problem.
        key: pieces with the same key share a branch.
        fun: from a vector to what the problem returns.
        x0: the padded start.
        back: from the padded answer to the problem's own tree.
    """

    name: str
    key: Any
    fun: Callable[[jax.Array], Any]
    x0: jax.Array
    back: Callable[[jax.Array], Tree]


def _vector(problem: Any, dtype: Any, size: int) -> tuple[int, jax.Array, Callable[[jax.Array], Tree]]:
    flat, unravel = ravel_pytree(problem.x0(dtype))
    n = flat.size
    return n, jnp.zeros(size, dtype).at[:n].set(flat), lambda x: unravel(x[:n])


def minimization(problem: Any, dtype: Any, size: int) -> Piece:
    """A minimization of `size` unknowns; those beyond the problem's own are not seen by the objective.

    Their gradient is zero, so no method that builds its steps from gradients (and from the identity) moves
    them or feels them. Newton's methods do: they want `minimization_in_a_bowl`.
    """
    n, x0, back = _vector(problem, dtype, size)
    return Piece(problem.name, (problem.fun, n), lambda x: problem.fun(back(x)), x0, back)


def minimization_in_a_bowl(problem: Any, dtype: Any, size: int) -> Piece:
    """A minimization whose unknowns beyond its own stand at the bottom of ½x²: for methods with a Hessian.

    Their gradient is zero and their block of the Hessian is the identity, so a step leaves them where they are
    and the other block as it is. (A pad that is not seen at all would make every Hessian singular.)
    """
    n, x0, back = _vector(problem, dtype, size)

    def fun(x: jax.Array) -> jax.Array:
        own = problem.fun(back(x))
        return own if n == size else own + 0.5 * jnp.sum(x[n:] ** 2)

    return Piece(problem.name, (problem.fun, n), fun, x0, back)


def root(problem: Any, dtype: Any, size: int) -> Piece:
    """A root problem; every unknown beyond its own has the equation "I am zero"."""
    n, x0, back = _vector(problem, dtype, size)
    fun = lambda x: jnp.concatenate([ravel_pytree(problem.fun(back(x)))[0], x[n:]])  # noqa: E731
    return Piece(problem.name, problem.name, fun, x0, back)


def map_(problem: Any, dtype: Any, size: int) -> Piece:
    """A fixed-point problem; every unknown beyond its own is mapped to zero, where it starts."""
    n, x0, back = _vector(problem, dtype, size)
    fun = lambda x: jnp.concatenate([ravel_pytree(problem.fun(back(x)))[0], 0 * x[n:]])  # noqa: E731
    return Piece(problem.name, problem.name, fun, x0, back)


def residuals(problem: Any, dtype: Any, size: int, count: int) -> Piece:
    """A least-squares problem of its own size, with residuals that are always zero up to `count`."""
    _, x0, back = _vector(problem, dtype, size)

    def fun(x: jax.Array) -> jax.Array:
        r = problem.residual(back(x))
        return jnp.pad(r, (0, count - r.shape[0]))

    return Piece(problem.name, problem.name, fun, x0, back)


def solve_all(
    front: Callable[..., nestor.Solution],
    solvers: Mapping[str, Any],
    pieces: Sequence[Piece],
    *,
    max_steps: int,
    curvature: bool = False,
) -> dict[tuple[str, str], Outcome]:
    """Every solver on every piece, by (solver, problem); compiles once.

    Args:
        front: `nestor.minimize`, `find_root`, `fixed_point` or `least_squares`.
        solvers: by name; optax transformations too.
        pieces: of one shape and dtype.
        max_steps: for all of them.
        curvature: whether the solvers (minimizers) want Hessian products.
    """
    first: dict[Any, int] = {}
    branches = [first.setdefault(piece.key, len(first)) for piece in pieces]
    functions = [next(p.fun for p in pieces if p.key == key) for key in first]
    methods = [as_solver("minimize", solver, pieces[0].x0) for solver in solvers.values()]

    def solve(number: jax.Array, problem: jax.Array, x0: jax.Array) -> nestor.Solution:
        fun = functions[0] if len(functions) == 1 else lambda x: jax.lax.switch(problem, functions, x)
        solver = one_of(number, methods, curvature=curvature)
        return front(fun, x0, solver=solver, max_steps=max_steps, raise_on_failure=False)

    def value(problem: jax.Array, x: jax.Array) -> jax.Array:
        result = jax.lax.switch(problem, functions, x)
        if front is nestor.fixed_point:
            result = result - x
        return {
            nestor.minimize: lambda f: f,
            nestor.least_squares: lambda r: 0.5 * jnp.sum(r**2),
        }.get(front, jnp.linalg.norm)(result)

    arguments = (jnp.int32(0), jnp.int32(0), pieces[0].x0)
    program = jax.jit(solve).lower(*arguments).compile()
    check = jax.jit(value)
    outcomes = {}
    for branch, piece in zip(branches, pieces, strict=True):
        number = jnp.int32(branch)
        start = float(check(number, piece.x0))
        for k, name in enumerate(solvers):
            solution = program(jnp.int32(k), number, piece.x0)
            again, rounding = _recompute(lambda x, number=number: check(number, x), solution.x)
            found = outcome(solution, piece.back(solution.x))
            outcomes[name, piece.name] = found._replace(again=again, rounding=rounding, start=start)
    return outcomes


def _recompute(value: Callable[[jax.Array], jax.Array], x: jax.Array) -> tuple[float, float]:
    """The value at x, and what rounding may do to it: from how it moves when x moves by a few ulps."""
    at = float(value(x))
    eps = float(jnp.finfo(x.dtype).eps)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(3, x.size))
    near = [float(value(x * jnp.asarray(1 + 4 * eps * sign, x.dtype))) for sign in signs]
    moved = max((abs(v - at) for v in near if math.isfinite(v)), default=0.0)
    return at, 10 * moved + 100 * eps * max(1.0, abs(at))


def outcome(solution: nestor.Solution, x: Tree) -> Outcome:
    """A solution on the host."""
    stats = solution.stats
    return Outcome(
        x=jax.tree.map(np.asarray, x),
        fun=float(solution.fun),
        status=nestor.Status(int(solution.code)),
        evaluations=int(stats.evaluations),
        steps=int(stats.steps),
        accepted=int(stats.accepted),
        optimality=float(stats.optimality),
        tol=float(stats.tol),
    )
