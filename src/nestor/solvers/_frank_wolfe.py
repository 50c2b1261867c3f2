"""Frank-Wolfe: towards the point of the set where the linear model is least; no projection."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solution import Status
from nestor.solvers import _progress
from nestor.solvers._contract import (
    Composite,
    Info,
    Problem,
    code,
    converged_at_precision,
    judge,
    no_info,
)

Tree = Any


class FrankWolfeState(NamedTuple):
    """Attributes as named; `base`, `value`, `grad`, `towards` and `gap` are of the last accepted point."""

    info: Info
    base: Tree
    value: jax.Array
    grad: Tree
    towards: Tree  # from base to the least point of the linear model
    gap: jax.Array
    curvature: jax.Array  # an estimate of the largest
    first: jax.Array
    verdict: jax.Array
    progress: _progress.Progress


@trees.record
class FrankWolfe:
    """Frank-Wolfe (conditional gradient): x <- x + a (s - x), with s the least point of the set along the gradient.

    Needs no projection, and an x that is a mixture of few such points: sparse, or of low rank. The optimality is
    the duality gap <grad, x - s>, and fun(x) is at most that much above its minimum. It falls like 1/k, so give a
    `tol` that fits, 1e-3 or so; and expect of implicit derivatives no more than the answer is worth.

    Args:
        curvature: the first guess of the curvature of fun; it is then found from what is met.

    For sets with the verb `lowest`: `Simplex`, `L1Ball`, `L2Ball`, `LInfBall`, `Box`, `NuclearBall`. Cost: one
    gradient and one such point a step. Source: Frank and Wolfe 1956; Jaggi 2013; Pedregosa et al. 2020,
    algorithm 2.

    >>> import jax.numpy as jnp, nestor
    >>> fun = lambda x: jnp.sum((x - jnp.array([3.0, 0.2])) ** 2) / 2
    >>> solver = nestor.FrankWolfe()
    >>> nestor.minimize(fun, jnp.ones(2), prox=nestor.proximal.L1Ball(), solver=solver).x.round(3).tolist()
    [1.0, 0.0]
    """

    curvature: Any = 1.0
    solves: ClassVar[type[Problem]] = Composite
    needs: ClassVar[str] = "lowest"

    def init(self, problem: Composite, x: Tree) -> FrankWolfeState:
        """See `Solver.init`."""
        zero, zeros = jnp.zeros((), trees.float_dtype(x)), trees.zeros_like(x)
        return FrankWolfeState(
            info=no_info(x),
            base=x,
            value=zero,
            grad=zeros,
            towards=zeros,
            gap=zero,
            curvature=jnp.asarray(self.curvature).astype(zero.dtype),
            first=jnp.ones((), bool),
            verdict=code(Status.RUNNING),
            progress=_progress.begin(zero),
        )

    def step(self, problem: Composite, x: Tree, state: FrankWolfeState) -> tuple[Tree, FrankWolfeState]:
        """See `Solver.step`."""
        value, grad = problem.value_and_grad(x)
        eps = float(jnp.finfo(value.dtype).eps)
        towards = trees.subtract(problem.term.lowest(grad), x)
        gap = -trees.dot(grad, towards)
        finite = jnp.isfinite(value) & jnp.isfinite(gap)
        moved = trees.subtract(x, state.base)
        square = trees.squared_norm(moved)
        met = trees.dot(trees.subtract(grad, state.grad), moved)
        noise = 10 * eps * (trees.norm(grad) + trees.norm(state.grad)) * jnp.sqrt(square)
        met = jnp.where(square > 0, jnp.maximum(met - noise, 0) / jnp.where(square > 0, square, 1), 0)
        good = met <= state.curvature
        accepted = state.first | (finite & good)
        info = Info(value, jax.lax.stop_gradient(gap), accepted)
        curvature = jnp.where(accepted, 0.9 * state.curvature, 2 * state.curvature)
        curvature = jnp.where(finite & ~good, jnp.maximum(curvature, met), curvature)
        curvature = jax.lax.stop_gradient(jnp.where(state.first, state.curvature, curvature))
        progress = _progress.advance(
            state.progress, info, merit=value, first=state.first, against=state.value
        )
        base, base_value, base_grad, towards, gap = trees.select(
            accepted,
            (x, value, grad, towards, gap),
            (state.base, state.value, state.grad, state.towards, state.gap),
        )
        reach = curvature * trees.squared_norm(towards)
        length = jnp.clip(jnp.where(reach > 0, gap / jnp.where(reach > 0, reach, 1), 1), 0, 1)
        onward = trees.add_scaled(base, length, towards)
        stuck = (~accepted & (square <= (2 * eps) ** 2 * trees.squared_norm(x))) | (gap <= 0)
        ends = stuck | _progress.exhausted(progress, accepted)
        ending = jnp.where(finite, code(Status.STALLED), code(Status.NOT_FINITE))
        new_state = FrankWolfeState(
            info=info,
            base=base,
            value=base_value,
            grad=base_grad,
            towards=towards,
            gap=gap,
            curvature=curvature,
            first=jnp.zeros((), bool),
            verdict=jnp.where(ends, ending, code(Status.RUNNING)),
            progress=progress,
        )
        return onward, new_state

    def status(self, problem: Composite, x: Tree, state: FrankWolfeState) -> jax.Array:
        """See `Solver.status`."""
        verdict = judge(problem, state.info)
        verdict = jnp.where(state.info.accepted, verdict, code(Status.RUNNING))
        precise = converged_at_precision(problem, state.info, state.progress.first_optimality)
        ended = (state.verdict != int(Status.RUNNING)) & (verdict == int(Status.RUNNING))
        return jnp.where(ended, jnp.where(precise, code(Status.CONVERGED), state.verdict), verdict)
