"""Penalties that act entry by entry, or group by group."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.proximal._contract import along, check_number, not_negative, scalar, spread

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
        return _total(x, lambda v, s: s * jnp.abs(v), spread("Lasso", "strength", self.strength, x, 0.0))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The soft threshold."""
        strength = spread("Lasso", "strength", self.strength, x, 0.0)
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
        return _total(x, lambda v, s: s * v, spread("NonNegativeLasso", "strength", self.strength, x, 0.0))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The one-sided soft threshold."""
        strength = spread("NonNegativeLasso", "strength", self.strength, x, 0.0)
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
        return _total(x, lambda v, s: s * v**2 / 2, spread("Ridge", "strength", self.strength, x, 0.0))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """x, shortened."""
        strength = spread("Ridge", "strength", self.strength, x, 0.0)
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
            x, lambda v, s: s * v**2 / 2, spread("NonNegativeRidge", "strength", self.strength, x, 0.0)
        )

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The non-negative part, shortened."""
        strength = spread("NonNegativeRidge", "strength", self.strength, x, 0.0)
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
        return spread("ElasticNet", "l1", self.l1, x, 0.0), spread("ElasticNet", "l2", self.l2, x, 0.0)

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
        strength = not_negative(self, "strength", dtype)
        if self.axis is None:
            return strength * trees.norm(x)
        lengths = [
            jnp.sum(trees.root(jnp.sum(leaf**2, axis=self.axis))).astype(dtype) for leaf in jax.tree.leaves(x)
        ]
        return strength * sum(lengths[1:], lengths[0])

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """Every group, shortened or zero."""

        def shorten(v: jax.Array) -> jax.Array:
            by = jnp.asarray(step).astype(v.dtype) * not_negative(self, "strength", v.dtype)
            length = trees.root(jnp.sum(v**2, axis=-1, keepdims=True))
            kept = length > by
            return jnp.where(kept, v * (1 - by / jnp.where(kept, length, 1)), 0)

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

        return _total(x, entry, spread("Logarithm", "strength", self.strength, x, 0.0))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The positive root of z² - x z = step strength."""

        def root(v: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            wide = jnp.sqrt(v**2 + 4 * t * s)
            away = (
                jnp.where(v >= 0, v, -v) + wide
            )  # without the cancellation of v + wide at a large negative v
            return jnp.where(v >= 0, away / 2, 2 * t * s / away)

        return _entrywise(x, step, root, spread("Logarithm", "strength", self.strength, x, 0.0))


@trees.record
class Huber:
    """g(x) = strength times the sum of x²/2 where |x| <= knee, knee (|x| - knee/2) beyond.

    prox: x / (1 + step strength) near zero, x - step strength knee sign(x) beyond.

    Args:
        strength: a number >= 0, or a tree like x (or a prefix of it).
        knee: a number > 0.

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
            knee = not_negative(self, "knee", v.dtype)
            return s * jnp.where(jnp.abs(v) <= knee, v**2 / 2, knee * (jnp.abs(v) - knee / 2))

        return _total(x, entry, spread("Huber", "strength", self.strength, x, 0.0))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """Shortened near zero, moved by a constant beyond."""

        def entry(v: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            knee = not_negative(self, "knee", v.dtype)
            beyond = v - t * s * knee * jnp.where(v >= 0, 1, -1).astype(v.dtype)
            return jnp.where(jnp.abs(v) <= knee * (1 + t * s), v / (1 + t * s), beyond)

        return _entrywise(x, step, entry, spread("Huber", "strength", self.strength, x, 0.0))


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

    def value(self, x: Tree) -> jax.Array:
        """g(x)."""
        check_number("Quantile", "level", self.level, 0.0, 1.0)

        def entry(v: jax.Array, s: jax.Array) -> jax.Array:
            level = scalar(self.level, v.dtype)
            return s * jnp.where(v > 0, level * v, (level - 1) * v)

        return _total(x, entry, spread("Quantile", "strength", self.strength, x, 0.0))

    def prox(self, x: Tree, step: Any = 1.0) -> Tree:
        """The soft threshold with two sides of their own."""
        check_number("Quantile", "level", self.level, 0.0, 1.0)

        def entry(v: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            level = scalar(self.level, v.dtype)
            up, down = t * s * level, t * s * (1 - level)
            return jnp.where(v > up, v - up, jnp.where(v < -down, v + down, 0))

        return _entrywise(x, step, entry, spread("Quantile", "strength", self.strength, x, 0.0))
