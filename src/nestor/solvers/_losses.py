"""Robust losses of least squares: 0.5 * sum of scale² rho((r / scale)²), by SciPy's names."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.settings import nearest, shown

Tree = Any

NAMES = ("linear", "soft_l1", "huber", "cauchy", "arctan")
_LEAST_CURVATURE = 0.01  # of that of reweighted least squares: keeps the scaled residuals near the others


class _Shape(NamedTuple):
    """rho and its two derivatives at z."""

    value: jax.Array
    slope: jax.Array
    bend: jax.Array


@trees.record
class Loss:
    """A robust loss.

    Attributes:
        scale: residuals much below it count by their square, those above by less.
        name: one of `NAMES`.
    """

    scale: Any
    name: str = dataclasses.field(metadata={"static": True})

    def cost(self, residual: Tree) -> jax.Array:
        """0.5 * sum of scale² rho((r / scale)²)."""
        vector, _ = trees.ravel(residual)
        scale = jnp.asarray(self.scale).astype(vector.dtype)
        return scale**2 * jnp.sum(_shape(self.name, (vector / scale) ** 2).value) / 2

    def weighted(self, residual: jax.Array, least: float = _LEAST_CURVATURE) -> tuple[jax.Array, ...]:
        """How a residual vector counts at a point.

        Returns:
            The cost; rho' r, which J' turns into the gradient; the factors of the rows of J for which J'J is the
            Gauss-Newton Hessian of the cost; and the residuals that make J'r the gradient with these factors.

        Source: Triggs et al. 2000, section 4.3.
        """
        scale = jnp.asarray(self.scale).astype(residual.dtype)
        z = (residual / scale) ** 2
        shape = _shape(self.name, z)
        curvature = jnp.maximum(shape.slope + 2 * shape.bend * z, least * shape.slope)
        factor = jnp.sqrt(curvature)
        pull = shape.slope * residual
        return scale**2 * jnp.sum(shape.value) / 2, pull, factor, pull / factor


def _shape(name: str, z: jax.Array) -> _Shape:
    if name == "soft_l1":
        root = jnp.sqrt(1 + z)
        return _Shape(2 * z / (1 + root), 1 / root, -0.5 / root**3)  # 2 (root - 1), without its cancellation
    if name == "huber":
        near = z <= 1
        root = jnp.sqrt(jnp.where(near, 1, z))
        one = jnp.ones_like(z)
        return _Shape(
            jnp.where(near, z, 2 * root - 1),
            jnp.where(near, one, 1 / root),
            jnp.where(near, 0, -0.5 / root**3),
        )
    if name == "cauchy":
        return _Shape(jnp.log1p(z), 1 / (1 + z), -1 / (1 + z) ** 2)
    return _Shape(jnp.arctan(z), 1 / (1 + z**2), -2 * z / (1 + z**2) ** 2)  # arctan


def check_loss(where: str, loss: Any, f_scale: Any, dtype: Any) -> Loss | None:
    """The loss, checked; None for squares."""
    if not isinstance(loss, str) or loss not in NAMES:
        near = nearest(loss, NAMES)
        raise BadArgument(
            where,
            "loss",
            got=shown(loss),
            want=f"one of {NAMES}",
            do=f'pass loss="{near or "soft_l1"}"',
        )
    traced = isinstance(f_scale, jax.core.Tracer)
    good = traced or (not isinstance(f_scale, (str, bool)) and np.ndim(f_scale) == 0)
    if good and not traced:
        try:
            good = 0 < float(f_scale) < float("inf")
        except (TypeError, ValueError):
            good = False
    if not good:
        raise BadArgument(
            where,
            "f_scale",
            got=shown(f_scale),
            want="a finite number > 0",
            do="pass the size of a residual that is no outlier, for example f_scale=0.1",
        )
    return None if loss == "linear" else Loss(jnp.asarray(f_scale, dtype), loss)
