"""Balls and spheres of the usual norms."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.proximal._contract import Set, along, not_negative
from nestor.proximal._simplex import project_simplex

Tree = Any


def _length(v: jax.Array) -> jax.Array:
    return trees.root(jnp.sum(v**2, axis=-1, keepdims=True))


def _sign(v: jax.Array) -> jax.Array:
    """1 or -1, also at zero."""
    return jax.lax.stop_gradient(jnp.where(v >= 0, jnp.ones_like(v), -jnp.ones_like(v)))


def _on_l1_sphere(v: jax.Array, radius: jax.Array) -> jax.Array:
    sign = _sign(v)
    return sign * project_simplex(sign * v, radius)


def project_l1_ball(v: jax.Array, radius: jax.Array) -> jax.Array:
    """The nearest point with |v|₁ <= radius, along the last axis."""
    inside = jnp.sum(jnp.abs(v), axis=-1, keepdims=True) <= radius
    return jnp.where(jax.lax.stop_gradient(inside), v, _on_l1_sphere(v, radius))


@trees.record
class L1Ball(Set):
    """|x|₁ <= radius.

    The nearest point of an x outside is sign(x) max(|x| - t, 0) with the t that makes the norm right.

    Args:
        radius: a number > 0.
        axis: None, the norm is that of the whole tree; or the axis of every leaf, each slice by itself.

    Cost: a sort, n log n. Source: Duchi et al. 2008, section 4.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.L1Ball(1.0).project(jnp.array([-2.0, 1.5])).tolist()
    [-0.75, 0.25]
    """

    radius: Any = 1.0
    axis: int | None = dataclasses.field(default=None, metadata={"static": True})

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        return along(lambda v: project_l1_ball(v, not_negative(self, "radius", v.dtype)), x, self.axis)

    def lowest(self, slope: Tree) -> Tree:
        """The vertex where <slope, .> is least: all of the radius against the largest entry."""

        def vertex(v: jax.Array) -> jax.Array:
            hot = jax.nn.one_hot(jnp.argmax(jnp.abs(v), axis=-1), v.shape[-1], dtype=v.dtype)
            return -not_negative(self, "radius", v.dtype) * _sign(v) * hot

        return along(vertex, slope, self.axis)


@trees.record
class L1Sphere(Set):
    """|x|₁ = radius; not convex.

    Args:
        radius, axis: as of `L1Ball`.

    Cost: a sort.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.L1Sphere(2.0).project(jnp.array([-0.5, 0.5])).tolist()
    [-1.0, 1.0]
    """

    radius: Any = 1.0
    axis: int | None = dataclasses.field(default=None, metadata={"static": True})

    def project(self, x: Tree) -> Tree:
        """The nearest point."""
        return along(lambda v: _on_l1_sphere(v, not_negative(self, "radius", v.dtype)), x, self.axis)


@trees.record
class L2Ball(Set):
    """|x|₂ <= radius.

    The nearest point is x min(1, radius / |x|).

    Args:
        radius: a number > 0.
        axis: None, the norm is that of the whole tree; or the axis of every leaf, each slice by itself.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.L2Ball(1.0).project(jnp.array([3.0, 4.0])).round(3).tolist()
    [0.6000000238418579, 0.800000011920929]
    """

    radius: Any = 1.0
    axis: int | None = dataclasses.field(default=None, metadata={"static": True})

    def project(self, x: Tree) -> Tree:
        """The nearest point."""

        def inside(v: jax.Array) -> jax.Array:
            radius, length = not_negative(self, "radius", v.dtype), _length(v)
            beyond = length > radius
            return jnp.where(beyond, v * (radius / jnp.where(beyond, length, 1)), v)

        return along(inside, x, self.axis)

    def lowest(self, slope: Tree) -> Tree:
        """The point where <slope, .> is least, -radius slope / |slope|."""

        def against(v: jax.Array) -> jax.Array:
            length = _length(v)
            return -not_negative(self, "radius", v.dtype) * v / jnp.where(length > 0, length, 1)

        return along(against, slope, self.axis)


@trees.record
class L2Sphere(Set):
    """|x|₂ = radius; not convex. The nearest point is radius x / |x|; of zero, one of the nearest points.

    Args:
        radius, axis: as of `L2Ball`.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.L2Sphere(10.0).project(jnp.array([3.0, 4.0])).tolist()
    [6.0, 8.0]
    """

    radius: Any = 1.0
    axis: int | None = dataclasses.field(default=None, metadata={"static": True})

    def project(self, x: Tree) -> Tree:
        """The nearest point."""

        def onto(v: jax.Array) -> jax.Array:
            length = _length(v)
            first = jnp.broadcast_to(jnp.arange(v.shape[-1]) == 0, v.shape).astype(v.dtype)
            unit = jnp.where(length > 0, v / jnp.where(length > 0, length, 1), first)
            return not_negative(self, "radius", v.dtype) * unit

        return along(onto, x, self.axis)


@trees.record
class LInfBall(Set):
    """Every |entry| <= radius: the nearest point is x clipped.

    Args:
        radius: a number > 0.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.LInfBall(1.0).project(jnp.array([-3.0, 0.5])).tolist()
    [-1.0, 0.5]
    """

    radius: Any = 1.0

    def project(self, x: Tree) -> Tree:
        """The nearest point."""

        def clip(leaf: jax.Array) -> jax.Array:
            radius = not_negative(self, "radius", leaf.dtype)
            return jnp.where(leaf > radius, radius, jnp.where(leaf < -radius, -radius, leaf))

        return jax.tree.map(clip, x)

    def lowest(self, slope: Tree) -> Tree:
        """The corner where <slope, .> is least."""
        return jax.tree.map(lambda leaf: -not_negative(self, "radius", leaf.dtype) * _sign(leaf), slope)
