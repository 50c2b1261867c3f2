"""An identity whose transpose tells the host how large the cotangent is; for runs that are diagnosed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from nestor import trees
from nestor.programs import show

Tree = Any

# What a report is about: the parameters that a step and the record of its loss read, those that the step reads,
# what the loss closes over, the settings of the optimizer, the end of the run, how far it is from converged.
PARAMS, STEP, LOSS, OPTIMIZER, STATUS, RESIDUAL = range(6)


def reported(tree: Tree, tag: jax.Array, place: int, t: jax.Array) -> Tree:
    """The same tree; its cotangents are reported as (run, place, t, log of the norm, is it finite).

    Args:
        tree: floating-point leaves are watched, others pass.
        tag: the numbers of a watcher and of a run, int32 of shape (2,).
        place: what the tree is.
        t: the step, int32 scalar.
    """
    label = jnp.concatenate([tag, jnp.stack([jnp.int32(place), t])])
    watch = lambda leaf: _reported_p.bind(leaf, label)  # noqa: E731
    return jax.tree.map(lambda leaf: watch(leaf) if _floating(leaf) else leaf, tree)


def reported_together(tree: Tree, tag: jax.Array, place: int, t: jax.Array) -> Tree:
    """The same with one report, of the norm of all leaves."""
    flat, back = trees.ravel(tree)
    return back(reported(flat, tag, place, t))


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _report(cotangent: jax.Array, label: jax.Array) -> jax.Array:
    finite = jnp.all(jnp.isfinite(cotangent))
    size = jnp.max(jnp.abs(cotangent), initial=0.0)
    scale = jnp.where(finite & (size > 0), size, jnp.ones_like(size))
    log_norm = jnp.log(size) + 0.5 * jnp.log(jnp.sum((cotangent / scale) ** 2))
    told = show(label[0], jnp.ones((), bool), label[1], label[2], label[3], log_norm, finite)
    return jnp.where(told, jnp.zeros_like(cotangent), cotangent)


def _jvp(primals: Any, tangents: Any) -> Any:
    dot = tangents[0]
    out = _reported_p.bind(*primals)
    return out, dot if isinstance(dot, ad.Zero) else _reported_p.bind(dot, primals[1])


def _transpose(cotangent: Any, _: Any, label: Any) -> Any:
    if isinstance(cotangent, ad.Zero):
        return cotangent, None
    report = _report
    for _axis in range(np.ndim(label) - 1):
        report = jax.vmap(report)
    return report(cotangent, label), None


def _batch(operands: Any, axes: Any) -> Any:
    (leaf, label), (at, label_at) = operands, axes
    size = leaf.shape[at] if at is not None else label.shape[label_at]
    whole = [
        jnp.broadcast_to(x[None], (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in ((leaf, at), (label, label_at))
    ]
    return _reported_p.bind(*whole), 0


_reported_p = Primitive("nestor_reported")
_reported_p.def_impl(lambda leaf, label: leaf)
_reported_p.def_abstract_eval(lambda leaf, label: leaf)
ad.primitive_jvps[_reported_p] = _jvp
ad.primitive_transposes[_reported_p] = _transpose
batching.primitive_batchers[_reported_p] = _batch
mlir.register_lowering(_reported_p, lambda ctx, leaf, label: [leaf])
