"""Block coordinate descent: one part of the unknowns at a time, each with a step length of its own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

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
    info_at,
    judge,
    no_info,
)

Tree = Any
Order = Literal["greedy", "cyclic"]
Blocks = Literal["leaves", "rows"]


class BlockState(NamedTuple):
    """Attributes as named; `base`, `value`, `grad` and `sizes` are of the last accepted point."""

    info: Info
    base: Tree
    value: jax.Array
    grad: Tree
    sizes: jax.Array  # how far each block is from its condition, shape (blocks,)
    lengths: jax.Array  # the step of each block, shape (blocks,)
    block: jax.Array  # the one that moved
    first: jax.Array
    verdict: jax.Array
    progress: _progress.Progress


@trees.record
class BlockCoordinateDescent:
    """Proximal block coordinate descent: one block moves at a time, by a step as long as its own curvature allows.

    For blocks of very different curvature, where one length for all is too short for most. The penalty must be a
    sum over the blocks, such as `Lasso`, a tree of penalties, or `GroupLasso` over the same rows.

    Args:
        blocks: "leaves" (every leaf of x is a block) or "rows" (every leaf's slices along its first axis).
        order: "greedy" (the block that is furthest from its condition) or "cyclic".
        first: the length of the first step of every block.

    Cost: a step takes the gradient of all of fun, although one block moves; nothing is known of fun's structure.
    Source: Tseng 2001; Nutini et al. 2015 for the greedy order.

    >>> import jax.numpy as jnp, nestor
    >>> fun = lambda t: (t["a"] - 1.0) ** 2 + 1e4 * (t["b"] - 2.0) ** 2
    >>> prox, solver = {"a": nestor.proximal.Lasso(0.1), "b": None}, nestor.BlockCoordinateDescent()
    >>> fit = nestor.minimize(fun, {"a": 0.0, "b": 0.0}, prox=prox, solver=solver)
    >>> round(float(fit.x["a"]), 3), round(float(fit.x["b"]), 3)
    (0.95, 2.0)
    """

    blocks: Blocks = "leaves"
    order: Order = "greedy"
    first: Any = 1.0
    solves: ClassVar[type[Problem]] = Composite

    def init(self, problem: Composite, x: Tree) -> BlockState:
        """See `Solver.init`."""
        zero, zeros = jnp.zeros((), trees.float_dtype(x)), trees.zeros_like(x)
        each = jnp.zeros_like(self._sizes(x))
        return BlockState(
            info=no_info(x),
            base=x,
            value=zero,
            grad=zeros,
            sizes=each,
            lengths=each + jnp.asarray(self.first).astype(zero.dtype),
            block=jnp.int32(0),
            first=jnp.ones((), bool),
            verdict=code(Status.RUNNING),
            progress=_progress.begin(zero),
        )

    def step(self, problem: Composite, x: Tree, state: BlockState) -> tuple[Tree, BlockState]:
        """See `Solver.step`."""
        smooth, grad = problem.value_and_grad(x)
        residual = problem.residual(x, grad)
        info = info_at(smooth + problem.term.value(x).astype(smooth.dtype), residual)
        finite = jnp.isfinite(info.value) & jnp.isfinite(info.optimality)
        eps = float(jnp.finfo(smooth.dtype).eps)
        change = trees.subtract(x, state.base)
        square = trees.squared_norm(change)
        bend = trees.dot(trees.subtract(grad, state.grad), change)
        bent = bend > 10 * eps * (trees.norm(grad) + trees.norm(state.grad)) * jnp.sqrt(square)
        own = jax.lax.stop_gradient(jnp.where(bent, square / jnp.where(bent, bend, 1), jnp.inf))
        length = state.lengths[state.block]
        accepted = state.first | (finite & (own >= length))
        info = info._replace(accepted=accepted)
        progress = _progress.advance(
            state.progress, info, merit=info.value, first=state.first, against=state.value
        )
        kept = jnp.where(own >= 2 * length, 1.5 * length, length)
        shorter = jnp.where(finite, jnp.minimum(0.9 * own, length / 2), length / 4)
        new = jnp.where(state.first, length, jnp.where(accepted, kept, shorter))
        lengths = state.lengths.at[state.block].set(new)
        base, value, base_grad, sizes = trees.select(
            accepted,
            (x, info.value, grad, self._sizes(trees.stop_gradient(residual))),
            (state.base, state.value, state.grad, state.sizes),
        )
        following = jnp.argmax(sizes) if self.order == "greedy" else (state.block + 1) % sizes.size
        block = jnp.where(accepted, following.astype(jnp.int32), state.block)
        length = lengths[block]
        moved = problem.term.prox(trees.add_scaled(base, -length, base_grad), length)
        onward = self._only(block, moved, base)
        stuck = ~accepted & (square <= (2 * eps) ** 2 * trees.squared_norm(x))
        ends = stuck | ((progress.idle >= 10 * sizes.size) & accepted)
        ending = jnp.where(finite, code(Status.STALLED), code(Status.NOT_FINITE))
        new_state = BlockState(
            info=info,
            base=base,
            value=value,
            grad=base_grad,
            sizes=sizes,
            lengths=lengths,
            block=block,
            first=jnp.zeros((), bool),
            verdict=jnp.where(ends, ending, code(Status.RUNNING)),
            progress=progress,
        )
        return onward, new_state

    def status(self, problem: Composite, x: Tree, state: BlockState) -> jax.Array:
        """See `Solver.status`."""
        verdict = judge(problem, state.info)
        counts = state.info.accepted | (verdict == int(Status.UNBOUNDED))
        verdict = jnp.where(counts, verdict, code(Status.RUNNING))
        precise = converged_at_precision(problem, state.info, state.progress.first_optimality)
        ended = (state.verdict != int(Status.RUNNING)) & (verdict == int(Status.RUNNING))
        return jnp.where(ended, jnp.where(precise, code(Status.CONVERGED), state.verdict), verdict)

    def _sizes(self, residual: Tree) -> jax.Array:
        """The length of each block, shape (blocks,)."""
        dtype = trees.float_dtype(residual)
        squares = [
            jnp.sum(leaf.astype(dtype) ** 2, axis=tuple(range(self._depth(leaf), leaf.ndim))).reshape(-1)
            for leaf in jax.tree.leaves(residual)
        ]
        return jnp.sqrt(jnp.concatenate(squares))

    def _depth(self, leaf: jax.Array) -> int:
        return 1 if self.blocks == "rows" and leaf.ndim else 0

    def _only(self, block: jax.Array, moved: Tree, base: Tree) -> Tree:
        """`moved` in one block, `base` in the others."""
        leaves, structure = jax.tree.flatten(base)
        out, count = [], 0
        for leaf, new in zip(leaves, jax.tree.leaves(moved), strict=True):
            depth = self._depth(leaf)
            own = leaf.shape[0] if depth else 1
            chosen = jnp.arange(count, count + own, dtype=jnp.int32) == block
            shape = (own, *(1,) * (leaf.ndim - 1)) if depth else ()
            out.append(jnp.where(jnp.broadcast_to(chosen.reshape(shape), leaf.shape), new, leaf))
            count += own
        return jax.tree.unflatten(structure, out)
