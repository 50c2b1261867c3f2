"""Newton directions with a step length: dense, or on Hessian-vector products."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solution import Status
from nestor.solvers import _descent
from nestor.solvers._contract import Minimization, Problem, code
from nestor.solvers._newton_cg import newton_derivative
from nestor.solvers._rates import Rate
from nestor.solvers._searches import Backtracking, Search

Tree = Any


class _Seen(NamedTuple):
    direction: Tree  # the Newton direction at the iterate
    convex: jax.Array  # whether no negative curvature was seen there
    steepest: jax.Array  # whether the direction is -grad, for want of a better one


class _Memory(NamedTuple):
    seen: _Seen
    blank: jax.Array  # take -grad instead


class _Newton:
    """The direction that was seen at the iterate; -grad where it does not go down, or its search fails."""

    def empty(self, x: Tree) -> _Memory:
        yes = jnp.ones((), bool)
        return _Memory(_Seen(trees.zeros_like(x), convex=yes, steepest=yes), blank=yes)

    def is_empty(self, memory: _Memory) -> jax.Array:
        return memory.blank

    def forget(self, memory: _Memory, when: jax.Array) -> _Memory:
        return memory._replace(blank=memory.blank | when)

    def remember(self, memory: _Memory, move: _descent.Move, when: jax.Array) -> _Memory:
        return memory

    def direction(self, memory: _Memory, grad: Tree, x: Tree, box: Any) -> Tree:
        return trees.select(memory.blank, trees.negative(grad), memory.seen.direction)

    def first_length(self, memory: _Memory, guess: jax.Array, last: jax.Array) -> jax.Array:
        # Newton's own length is 1. That of -grad is any, and may grow from step to step; see `GradientDescent`.
        growing = jax.lax.stop_gradient(jnp.where(last > 0, 1.5 * last, guess))
        return jnp.where(memory.blank | memory.seen.steepest, growing, jnp.ones_like(guess))


def _keep(memory: _Memory, seen: _Seen, when: jax.Array) -> _Memory:
    return trees.select(when, _Memory(seen, jnp.zeros((), bool)), memory)


_NEWTON = _Newton()


def _status(search: Any, problem: Minimization, state: _descent.DescentState) -> jax.Array:
    verdict = _descent.status(search, problem, state)
    saddle = (verdict == int(Status.CONVERGED)) & ~state.memory.seen.convex
    return jnp.where(saddle, code(Status.SADDLE), verdict)


# --- dense -------------------------------------------------------------------------------------------


def _dense(problem: Minimization, x: Tree, _: Tree) -> tuple[jax.Array, Tree, _Seen]:
    value, grad, hessian = problem.value_grad_and_hessian(x)
    g, back = trees.ravel(grad)
    finite = trees.all_finite(trees.stop_gradient((g, hessian)))
    eye = jnp.eye(g.size, dtype=g.dtype)
    p, convex = _modified(jnp.where(finite, hessian, eye), jnp.where(finite, g, 0))
    return value, grad, _Seen(back(p), convex, steepest=jnp.zeros((), bool))


def _modified(hessian: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """-(H + shift)^-1 g, and whether no shift was needed but for rounding.

    The shift gives the least eigenvalue its absolute value, or a small one. The eigenvector counts as a constant,
    which leaves the first derivative of the eigenvalue, and so of the step, exact.
    """
    eps = float(jnp.finfo(g.dtype).eps)
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(hessian))
    floor = eps**0.5 * jnp.maximum(jnp.max(jnp.abs(values)), eps)
    lowest = vectors[:, 0] @ hessian @ vectors[:, 0]
    shift = jnp.maximum(jnp.maximum(floor - lowest, -2 * lowest), 0)
    return -jnp.linalg.solve(hessian + shift * jnp.eye(g.size, dtype=g.dtype), g), values[0] >= -floor


@trees.record
class LineSearchNewton:
    """Newton's direction with the dense Hessian, and a step length: x <- x - a (H + s)^-1 grad f(x).

    Where the Hessian is not positive definite, the shift s gives its least eigenvalue the absolute value.

    Args:
        search: `Backtracking()` (the default), `StrongWolfe()`, `FixedStep(1.0)` for the plain method, or any
            other step; searches try the length 1 first.

    Quadratic convergence with lengths of 1. A saddle point is called one (`SADDLE`), and not left. `Newton`, in
    a trust region, is the safer choice; this one is for damped steps, for schedules, and for exact unrolled
    derivatives. Cost a step: one Hessian (n products), about 10 n^3 operations, n^2 numbers.
    Source: Nocedal and Wright 2006, algorithm 3.2 with section 3.4.

    >>> import jax.numpy as jnp, nestor
    >>> rosenbrock = lambda x: 100.0 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    >>> solver = nestor.LineSearchNewton()
    >>> nestor.minimize(rosenbrock, jnp.array([-1.2, 1.0]), solver=solver).x.round(3).tolist()
    [1.0, 1.0]
    """

    search: Search | Rate = dataclasses.field(default_factory=Backtracking)
    solves: ClassVar[type[Problem]] = Minimization

    def init(self, problem: Minimization, x: Tree) -> _descent.DescentState:
        """See `Solver.init`."""
        return _descent.init(_NEWTON, self.search, x)

    def step(
        self, problem: Minimization, x: Tree, state: _descent.DescentState
    ) -> tuple[Tree, _descent.DescentState]:
        """See `Solver.step`."""
        return _descent.step(_NEWTON, self.search, problem, x, state, _descent.Look(_dense, _keep))

    def status(self, problem: Minimization, x: Tree, state: _descent.DescentState) -> jax.Array:
        """See `Solver.status`."""
        return _status(self.search, problem, state)


# --- on products -------------------------------------------------------------------------------------


class _Walk(NamedTuple):
    p: Tree
    residual: Tree
    direction: Tree
    rho: jax.Array  # |residual|²
    first: jax.Array
    done: jax.Array
    negative: jax.Array
    stopped_at_once: jax.Array


def _truncated(product: Callable[[Tree], Tree], grad: Tree, probe: jax.Array, limit: int) -> _Seen:
    """-H^-1 grad by conjugate gradients, until the residual is small or the curvature is negative.

    With `probe`, at a point where the gradient says nothing any more, a random vector looks for negative
    curvature instead. A scan: its derivative is that of the steps that were made.
    """
    vector, back = trees.ravel(grad)
    random = back(jax.random.normal(jax.random.key(0), vector.shape, vector.dtype))
    right = trees.select(probe, random, trees.negative(grad))
    square = trees.squared_norm(right)
    size = jnp.sqrt(jax.lax.stop_gradient(square))
    enough = (jnp.where(probe, 0.1, jnp.minimum(0.5, jnp.sqrt(size))) * size) ** 2
    eps = float(jnp.finfo(vector.dtype).eps)

    def walk(w: _Walk) -> _Walk:
        hd = product(w.direction)
        curvature = trees.dot(w.direction, hd)
        stops = curvature <= 0
        noise = 10 * eps * trees.norm(w.direction) * trees.norm(hd)
        alpha = w.rho / jnp.where(stops, 1, curvature)
        residual = trees.add_scaled(w.residual, -alpha, hd)
        rho = trees.squared_norm(residual)
        ratio = rho / jnp.where(w.rho > 0, w.rho, 1)
        stay = trees.select(w.first, right, w.p)  # the first direction is steepest descent
        return _Walk(
            p=trees.select(stops, stay, trees.add_scaled(w.p, alpha, w.direction)),
            residual=residual,
            direction=trees.add_scaled(residual, ratio, w.direction),
            rho=rho,
            first=jnp.zeros((), bool),
            done=stops | (rho <= enough),
            negative=curvature < -noise,
            stopped_at_once=w.first & stops,
        )

    def turn(w: _Walk, _: None) -> tuple[_Walk, None]:
        return jax.lax.cond(w.done, lambda w: w, walk, w), None

    zeros, no = trees.zeros_like(grad), jnp.zeros((), bool)
    start = _Walk(zeros, right, right, square, ~no, ~(size > 0), no, no)
    end, _ = jax.lax.scan(turn, start, None, length=limit)
    # Of the last step of a solve nothing is taken but its derivative, which is that of Newton's.
    last = newton_derivative(product, grad, trees.negative(grad), probe)
    return _Seen(trees.select(probe, last, end.p), ~end.negative, steepest=end.stopped_at_once)


@trees.record
class LineSearchNewtonCG:
    """Newton's direction by a few conjugate-gradient steps on Hessian-vector products, and a step length.

    Conjugate gradients stop when |H p + g| <= min(0.5, sqrt|g|) |g|, at negative curvature (the step so far is
    then taken, or -g), or after `max_products`.

    Args:
        search: `Backtracking()` (the default), `StrongWolfe()` or any other step; searches try the length 1 first.
        max_products: Hessian-vector products a step at most; None is min(n, 20).

    Superlinear convergence where the products suffice. Where the gradient is small the curvature is probed with a
    random vector, and a saddle point is called one (`SADDLE`), not left. `NewtonCG`, in a trust region, is the
    safer choice; unrolled, this one has exact derivatives. Cost a step: one gradient and up to max_products
    products (all of them under `vmap`); memory of a few x.
    Source: Nocedal and Wright 2006, algorithm 7.1.

    >>> import jax.numpy as jnp, nestor
    >>> bowl = lambda x: jnp.sum(jnp.arange(1.0, 101.0) * jnp.cosh(x - 1.0))
    >>> nestor.minimize(bowl, jnp.zeros(100), solver=nestor.LineSearchNewtonCG()).success
    True
    """

    search: Search | Rate = dataclasses.field(default_factory=Backtracking)
    max_products: int | None = None
    solves: ClassVar[type[Problem]] = Minimization

    def init(self, problem: Minimization, x: Tree) -> _descent.DescentState:
        """See `Solver.init`."""
        return _descent.init(_NEWTON, self.search, x)

    def step(
        self, problem: Minimization, x: Tree, state: _descent.DescentState
    ) -> tuple[Tree, _descent.DescentState]:
        """See `Solver.step`."""
        return _descent.step(_NEWTON, self.search, problem, x, state, _descent.Look(self._look, _keep))

    def status(self, problem: Minimization, x: Tree, state: _descent.DescentState) -> jax.Array:
        """See `Solver.status`."""
        return _status(self.search, problem, state)

    def _look(self, problem: Minimization, x: Tree, _: Tree) -> tuple[jax.Array, Tree, _Seen]:
        limit = self.max_products or min(trees.size(x), 20)

        def transform(fun: Callable[[Tree], Any]) -> Callable[[Tree], Any]:
            def at(x: Tree) -> tuple[jax.Array, Tree, _Seen]:
                (value, grad), push = jax.linearize(jax.value_and_grad(fun), x)
                probe = trees.max_norm(trees.stop_gradient(grad)) <= problem.tol
                return value, grad, _truncated(lambda v: push(v)[1], grad, probe, limit)

            return at

        value, grad, seen = problem.evaluate(transform, x)
        return value.astype(trees.float_dtype(x)), grad, seen
