"""Methods for roots: Newton with backtracking, and Broyden."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl

from nestor import linear, trees
from nestor.solution import Status
from nestor.solvers import _trust
from nestor.solvers._contract import Info, Problem, RootFinding, code, info_at, judge, no_info

Tree = Any


@trees.record
class NewtonRoot:
    """Newton's method for F(z) = 0, damped: a step is shortened until |F| falls.

    Args:
        linear_solver: how J p = -F is solved: None is dense LU; GMRES() or BiCGStab() use products with J only.

    Quadratic convergence near a root with an invertible Jacobian; SINGULAR where it is not invertible,
    STALLED or OUT_OF_STEPS at a local minimum of |F| that is no root. Cost a step: one Jacobian and one linear solve.
    Source: Nocedal and Wright 2006, algorithm 11.4.

    >>> import nestor
    >>> round(float(nestor.find_root(lambda z: z**2 - 2.0, 1.0, solver=nestor.NewtonRoot()).x), 4)
    1.4142
    """

    linear_solver: Any = None
    solves: ClassVar[type[Problem]] = RootFinding

    def init(self, problem: RootFinding, x: Tree) -> _trust.TrustState:
        """See `Solver.init`."""
        return _trust.init(x)

    def step(self, problem: RootFinding, x: Tree, state: _trust.TrustState) -> tuple[Tree, _trust.TrustState]:
        """See `Solver.step`."""
        if self.linear_solver is None:
            residual, matrix = problem.evaluate(_with_jacobian, x)
            _, back = trees.ravel(residual)
            operator = linear.Operator(lambda v: back(matrix @ trees.ravel(v)[0]), x)
        else:
            residual, push = jax.linearize(problem.fun, x)
            operator = linear.Operator(push, x)
        method = linear.LU() if self.linear_solver is None else self.linear_solver
        merit = trees.squared_norm(residual) / 2

        def propose(radius: jax.Array) -> _trust.Proposal:
            p = linear.solve(operator, trees.negative(residual), method)
            return _trust.Proposal(p, jax.lax.stop_gradient(merit))

        return _trust.step(
            x,
            state,
            merit=merit,
            residual=residual,
            propose=propose,
            first_radius=jnp.ones_like(merit),
            value=trees.norm(residual),
        )

    def status(self, problem: RootFinding, x: Tree, state: _trust.TrustState) -> jax.Array:
        """See `Solver.status`."""
        return _trust.status(problem, state)


def _with_jacobian(fun: Any) -> Any:
    def at(x: Tree) -> tuple[Tree, jax.Array]:
        residual, push = jax.linearize(fun, x)
        return residual, linear.Operator(push, x).dense()

    return at


def _inverse_jacobian(problem: RootFinding, x: Tree) -> jax.Array:
    _, jacobian = problem.evaluate(_with_jacobian, x)
    return jsl.lu_solve(jsl.lu_factor(jacobian), jnp.eye(len(jacobian), dtype=jacobian.dtype))


_REFRESH = 4  # rejected steps in a row after which Broyden's model is made anew


class _BroydenState(NamedTuple):
    info: Info
    x: Tree  # the last accepted point
    residual: Tree  # F there
    step: Tree  # from x to the trial
    inverse: jax.Array  # (n, n), the model of the inverse Jacobian
    tries: jax.Array
    first: jax.Array


@trees.record
class Broyden:
    """Broyden's (good) method for F(z) = 0: one Jacobian at the start, rank-one updates after.

    When four steps in a row were rejected, the Jacobian is computed anew (for ``jacobian="exact"``).

    Args:
        jacobian: "exact" inverts the Jacobian at the start once (n forward derivatives, n^3 operations);
            "identity" takes the identity for it, which needs no derivative and suits F(z) close to z - c.
        max_tries: halvings of one step before it gives up (LINE_SEARCH_FAILED).

    Superlinear convergence. Every evaluation improves the model, also of a rejected step. Cost a step: one
    F, 6 n^2 operations, n^2 numbers. Source: Broyden 1965; Nocedal and Wright 2006, (11.21), by
    Sherman and Morrison; acceptance by Griewank 1986.

    >>> import nestor
    >>> round(float(nestor.find_root(lambda z: z**2 - 2.0, 1.0, solver=nestor.Broyden()).x), 4)
    1.4142
    """

    jacobian: str = "exact"
    max_tries: int = 30
    solves: ClassVar[type[Problem]] = RootFinding

    def init(self, problem: RootFinding, x: Tree) -> _BroydenState:
        """See `Solver.init`; evaluates the Jacobian at x for ``jacobian="exact"``."""
        if self.jacobian == "exact":
            inverse = _inverse_jacobian(problem, x)
        else:
            vector, _ = trees.ravel(x)
            inverse = jnp.eye(vector.size, dtype=vector.dtype)
        zeros = trees.zeros_like(x)
        return _BroydenState(
            no_info(x), x, zeros, zeros, inverse, jnp.zeros((), jnp.int32), jnp.ones((), bool)
        )

    def step(self, problem: RootFinding, x: Tree, state: _BroydenState) -> tuple[Tree, _BroydenState]:
        """See `Solver.step`."""
        residual = problem.evaluate(lambda fun: fun, x)
        new, old = trees.norm(residual), trees.norm(state.residual)
        finite = jnp.isfinite(new)
        falls = finite & (new <= (1 - 1e-4) * old)
        accepted = state.first | falls
        s, back = trees.ravel(trees.subtract(x, state.x))
        y, _ = trees.ravel(trees.subtract(residual, state.residual))
        hy = state.inverse @ y
        scale = jnp.vdot(s, hy)
        ss = jnp.vdot(s, s)
        use = ~state.first & finite & (jnp.abs(scale) > 1e-8 * ss)
        update = jnp.outer(s - hy, s @ state.inverse) / jnp.where(use, scale, 1)
        inverse = jnp.where(use, state.inverse + jnp.where(use, update, 0), state.inverse)

        base_x, base_f = trees.select(accepted, (x, residual), (state.x, state.residual))
        stuck = ~accepted & (state.tries + 1 == _REFRESH)
        if self.jacobian == "exact":
            inverse = jax.lax.cond(stuck, lambda: _inverse_jacobian(problem, base_x), lambda: inverse)
        f, _ = trees.ravel(base_f)
        full = back(-(inverse @ f))
        tries = jnp.where(accepted, 0, state.tries + 1)
        # The first retries trust the improved model; later ones shorten the step.
        shorter = trees.scale(0.5, state.step)
        next_step = trees.select(accepted | (finite & (tries == 1)) | stuck, full, shorter)
        new_state = _BroydenState(
            info_at(new, residual, accepted),
            base_x,
            base_f,
            next_step,
            inverse,
            tries,
            jnp.zeros((), bool),
        )
        return trees.add(base_x, next_step), new_state

    def status(self, problem: RootFinding, x: Tree, state: _BroydenState) -> jax.Array:
        """See `Solver.status`."""
        verdict = jnp.where(state.info.accepted, judge(problem, state.info), code(Status.RUNNING))
        lost = ~trees.all_finite(trees.stop_gradient(state.step))
        verdict = jnp.where((verdict == int(Status.RUNNING)) & lost, code(Status.SINGULAR), verdict)
        gave_up = state.tries >= self.max_tries
        return jnp.where((verdict == int(Status.RUNNING)) & gave_up, code(Status.LINE_SEARCH_FAILED), verdict)
