"""Penalties that act entry by entry, or group by group."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.core
import jax.numpy as jnp

from nestor import trees
from nestor.errors import BadArgument
from nestor.proximal._contract import along, direction, length, scalar, size, strengths, units

Tree = Any


def shrink(x: jax.Array, by: jax.Array) -> jax.Array:
    """The soft threshold: sign(x) max(|x| - by, 0)."""
    return jnp.where(x > by, x - by, jnp.where(x < -by, x + by, 0))


def _total(x: Tree, function: Any, *settings: Tree) -> jax.Array:
    """The sum over all entries of a function of an entry and its settings."""
    dtype = trees.float_dtype(x)
    leaves = jax.tree.map(lambda *pieces: jnp.sum(function(*pieces)).astype(dtype), x, *settings)
    return sum(jax.tree.leaves(leaves), jnp.zeros((), dtype))


def _entrywise(x: Tree, step: Any, function: Any, *settings: Tree) -> Tree:
    """A function of an entry, the step and the entry's settings, everywhere."""
    return jax.tree.map(
        lambda leaf, *others: function(leaf, jnp.asarray(step).astype(leaf.dtype), *others), x, *settings
    )


@trees.record
class Lasso:
    """g(x) = sum of strength |x|; prox: the soft threshold sign(x) max(|x| - step strength, 0).

    Args:
        strength: a number >= 0, or a tree like x (or a prefix of it) of numbers and arrays.

    Source: Tibshirani 1996; Daubechies, Defrise, De Mol 2004.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Lasso(1.0).prox(jnp.array([3.0, -0.5]), step=2.0).tolist()
    [1.0, 0.0]
    """

    strength: Any = 1.0
    entrywise: ClassVar[bool] = True

    def value(self, x: Tree) -> jax.Array:
        """g(x)."""
        return _total(x, lambda v, s: s * jnp.abs(v), strengths("Lasso", "strength", self.strength, x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The soft threshold."""
        strength = strengths("Lasso", "strength", self.strength, x)
        return _entrywise(x, step, lambda v, t, s: shrink(v, t * s), strength)


@trees.record
class NonNegativeLasso:
    """g(x) = sum of strength x where x >= 0, infinite elsewhere; prox: max(x - step strength, 0).

    Args:
        strength: as of `Lasso`.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.NonNegativeLasso(1.0).prox(jnp.array([3.0, -5.0])).tolist()
    [2.0, 0.0]
    """

    strength: Any = 1.0
    entrywise: ClassVar[bool] = True
    from_zero: ClassVar[bool] = True

    def value(self, x: Tree) -> jax.Array:
        """g(x), as if every entry were >= 0."""
        return _total(x, lambda v, s: s * v, strengths("NonNegativeLasso", "strength", self.strength, x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The one-sided soft threshold."""
        strength = strengths("NonNegativeLasso", "strength", self.strength, x)
        return _entrywise(x, step, lambda v, t, s: jnp.where(v > t * s, v - t * s, 0), strength)


@trees.record
class Ridge:
    """g(x) = sum of strength x² / 2; prox: x / (1 + step strength).

    Args:
        strength: as of `Lasso`.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Ridge(1.0).prox(jnp.array([3.0])).tolist()
    [1.5]
    """

    strength: Any = 1.0
    entrywise: ClassVar[bool] = True

    def value(self, x: Tree) -> jax.Array:
        """g(x)."""
        return _total(x, lambda v, s: s * v**2 / 2, strengths("Ridge", "strength", self.strength, x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """x, shortened."""
        strength = strengths("Ridge", "strength", self.strength, x)
        return _entrywise(x, step, lambda v, t, s: v / (1 + t * s), strength)


@trees.record
class NonNegativeRidge:
    """g(x) = sum of strength x² / 2 where x >= 0, infinite elsewhere; prox: max(x, 0) / (1 + step strength).

    Args:
        strength: as of `Lasso`.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.NonNegativeRidge(1.0).prox(jnp.array([3.0, -1.0])).tolist()
    [1.5, 0.0]
    """

    strength: Any = 1.0
    entrywise: ClassVar[bool] = True
    from_zero: ClassVar[bool] = True

    def value(self, x: Tree) -> jax.Array:
        """g(x), as if every entry were >= 0."""
        return _total(
            x, lambda v, s: s * v**2 / 2, strengths("NonNegativeRidge", "strength", self.strength, x)
        )

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The non-negative part, shortened."""
        strength = strengths("NonNegativeRidge", "strength", self.strength, x)
        return _entrywise(x, step, lambda v, t, s: jnp.where(v > 0, v / (1 + t * s), 0), strength)


@trees.record
class ElasticNet:
    """g(x) = sum of l1 |x| + l2 x² / 2; prox: the soft threshold by step l1, over 1 + step l2.

    Args:
        l1, l2: numbers >= 0, or trees like x (or prefixes of it).

    Source: Zou and Hastie 2005.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.ElasticNet(1.0, 1.0).prox(jnp.array([3.0, 0.5])).tolist()
    [1.0, 0.0]
    """

    l1: Any = 1.0
    l2: Any = 1.0
    entrywise: ClassVar[bool] = True

    def _settings(self, x: Tree) -> tuple[Tree, Tree]:
        return strengths("ElasticNet", "l1", self.l1, x), strengths("ElasticNet", "l2", self.l2, x)

    def value(self, x: Tree) -> jax.Array:
        """g(x)."""
        return _total(x, lambda v, a, b: a * jnp.abs(v) + b * v**2 / 2, *self._settings(x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The soft threshold, shortened."""
        return _entrywise(x, step, lambda v, t, a, b: shrink(v, t * a) / (1 + t * b), *self._settings(x))


@trees.record
class GroupLasso:
    """g(x) = strength times the sum of the lengths of groups; prox: x max(1 - step strength / |x|, 0) for each.

    Args:
        strength: a number >= 0.
        axis: None, the whole tree is one group; or the axis of every leaf, each slice along it a group. For
            groups that are branches of a tree, give each its own: ``prox={"a": GroupLasso(s), "b": ...}``.

    Source: Yuan and Lin 2006.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.GroupLasso(5.0, axis=1).prox(jnp.array([[6.0, 8.0], [3.0, 4.0]])).tolist()
    [[3.0, 4.0], [0.0, 0.0]]
    """

    strength: Any = 1.0
    axis: int | None = dataclasses.field(default=None, metadata={"static": True})

    def value(self, x: Tree) -> jax.Array:
        """g(x)."""
        dtype = trees.float_dtype(x)
        strength = size("GroupLasso", "strength", self.strength, dtype)
        if self.axis is None:
            return strength * jnp.sum(length(trees.ravel(x)[0]))
        lengths = [
            jnp.sum(length(jnp.moveaxis(leaf, self.axis, -1))).astype(dtype) for leaf in jax.tree.leaves(x)
        ]
        return strength * sum(lengths[1:], lengths[0])

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """Every group, shortened or zero."""

        def shorten(v: jax.Array) -> jax.Array:
            by = scalar(step, v.dtype) * size("GroupLasso", "strength", self.strength, v.dtype)
            return jnp.where(length(v) <= by, 0, v - by * direction(v))

        return along(shorten, x, self.axis)


@trees.record
class Logarithm:
    """g(x) = - sum of strength log x, a barrier; prox: (x + sqrt(x² + 4 step strength)) / 2, always > 0.

    Args:
        strength: a number > 0, or a tree like x (or a prefix of it).

    Source: Parikh and Boyd 2014, section 6.1.3.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Logarithm(2.0).prox(jnp.array([-1.0])).tolist()
    [1.0]
    """

    strength: Any = 1.0
    entrywise: ClassVar[bool] = True
    from_zero: ClassVar[bool] = True

    def value(self, x: Tree) -> jax.Array:
        """g(x); infinite where an entry is not positive."""

        def entry(v: jax.Array, s: jax.Array) -> jax.Array:
            return jnp.where(v > 0, -s * jnp.log(jnp.where(v > 0, v, 1)), jnp.inf)

        return _total(x, entry, strengths("Logarithm", "strength", self.strength, x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The positive root of z² - x z = step strength."""

        def root(v: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            unit = units(jnp.abs(v))
            wide = unit * jnp.sqrt((v / unit) ** 2 + 4 * t * s / unit / unit)
            away = jnp.where(v >= 0, v, -v) + wide  # v + wide would cancel at a large negative v
            return jnp.where(v >= 0, away / 2, 2 * t * s / away)

        return _entrywise(x, step, root, strengths("Logarithm", "strength", self.strength, x))


@trees.record
class Huber:
    """g(x) = strength times the sum of x²/2 where |x| <= knee, knee (|x| - knee/2) beyond.

    prox: x / (1 + step strength) near zero, x - step strength knee sign(x) beyond.

    Args:
        strength: a number >= 0, or a tree like x (or a prefix of it).
        knee: a number >= 0.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Huber(1.0, knee=1.0).prox(jnp.array([1.0, 4.0])).tolist()
    [0.5, 3.0]
    """

    strength: Any = 1.0
    knee: Any = 1.0
    entrywise: ClassVar[bool] = True

    def value(self, x: Tree) -> jax.Array:
        """g(x)."""

        def entry(v: jax.Array, s: jax.Array) -> jax.Array:
            knee = size("Huber", "knee", self.knee, v.dtype)
            return s * jnp.where(jnp.abs(v) <= knee, v**2 / 2, knee * (jnp.abs(v) - knee / 2))

        return _total(x, entry, strengths("Huber", "strength", self.strength, x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """Shortened near zero, moved by a constant beyond."""

        def entry(v: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            knee = size("Huber", "knee", self.knee, v.dtype)
            beyond = v - t * s * knee * jnp.where(v >= 0, 1, -1).astype(v.dtype)
            return jnp.where(jnp.abs(v) <= knee * (1 + t * s), v / (1 + t * s), beyond)

        return _entrywise(x, step, entry, strengths("Huber", "strength", self.strength, x))


@trees.record
class Quantile:
    """g(x) = strength times the sum of level x where x > 0, (level - 1) x where x < 0: the pinball loss.

    prox: x - step strength level above, x + step strength (1 - level) below, and zero in between.

    Args:
        level: the quantile, a number between 0 and 1.
        strength: a number >= 0, or a tree like x (or a prefix of it).

    Source: Koenker and Bassett 1978.

    >>> import jax.numpy as jnp
    >>> from nestor import proximal
    >>> proximal.Quantile(0.75).prox(jnp.array([2.0, 0.5, -2.0])).tolist()
    [1.25, 0.0, -1.75]
    """

    level: Any = 0.5
    strength: Any = 1.0
    entrywise: ClassVar[bool] = True

    def _levels(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """The slopes above and below zero."""
        above = size("Quantile", "level", self.level, dtype)
        if not isinstance(self.level, jax.core.Tracer) and self.level > 1:
            got, want = f"{self.level}", "a number >= 0 and <= 1"
            raise BadArgument("Quantile", "level", got=got, want=want, do="write 0.9 for the ninth decile")
        return above, 1 - above

    def value(self, x: Tree) -> jax.Array:
        """g(x)."""

        def entry(v: jax.Array, s: jax.Array) -> jax.Array:
            above, below = self._levels(v.dtype)
            return s * jnp.where(v > 0, above * v, -below * v)

        return _total(x, entry, strengths("Quantile", "strength", self.strength, x))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The soft threshold with two sides of their own."""

        def entry(v: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            above, below = self._levels(v.dtype)
            up, down = t * s * above, t * s * below
            return jnp.where(v > up, v - up, jnp.where(v < -down, v + down, 0))

        return _entrywise(x, step, entry, strengths("Quantile", "strength", self.strength, x))
