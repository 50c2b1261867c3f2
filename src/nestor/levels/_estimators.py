"""Gradients of a level whose loss is only evaluated: smoothed differences, and the score function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.settings import check_setting, count, plain_number

Tree = Any
# (x, given) -> (loss, states of the levels below, which have moved on)
Value = Callable[[Tree, Any], tuple[jax.Array, Any]]
_WIDTH = plain_number(lambda v: v > 0, "number > 0", "0.1")


@trees.record
class Smoothed:
    """The gradient of a level's loss smoothed by a Gaussian, from pairs of evaluations with opposite noise.

    The mean over the pairs of  (L(x + sigma e) - L(x - sigma e)) / (2 sigma) e,  where every evaluation lets the
    levels below answer anew from where they are. Nothing is differentiated: the loss, or the training below it,
    may be discontinuous or chaotic.

    Args:
        sigma: the width of the smoothing.
        pairs: of evaluations, run at once.

    Cost: 2 pairs + 1 evaluations with the runs of the levels below. Source: Salimans et al. 2017, section 2.

    >>> import nestor
    >>> nestor.levels.Smoothed(sigma=0.1, pairs=16).pairs
    16
    """

    sigma: float = 0.1
    pairs: int = 16

    def __post_init__(self) -> None:
        check_setting("Smoothed", "pairs", self.pairs, count(16))
        check_setting("Smoothed", "sigma", self.sigma, _WIDTH)

    def estimate(self, value: Value, given: Any, x: Tree, key: jax.Array) -> tuple[jax.Array, Any, Tree]:
        """The loss at x, the states of the levels below after it, and the gradient."""
        flat, back = trees.ravel(x)
        noise = jax.random.normal(key, (self.pairs, flat.size), flat.dtype)
        loss, lower = value(x, given)

        def difference(e: jax.Array) -> jax.Array:
            ahead = value(back(flat + self.sigma * e), given)[0]
            behind = value(back(flat - self.sigma * e), given)[0]
            return (ahead - behind) / (2 * self.sigma)

        slopes = jax.vmap(difference)(noise).astype(flat.dtype)
        return loss, lower, back(slopes @ noise / self.pairs)


@trees.record
class Reinforce:
    """The score-function gradient: what other levels see of this one is a draw, and draws that do well grow likelier.

    The parameters phi of the level describe a distribution. At each move `samples` draws a are made, each takes
    the place of the parameters in every loss (also in that of this level), and the gradient of the mean loss is
    the mean of  (L(a) - baseline) grad log p(a; phi),  with the mean loss of the other draws as the baseline.
    Draws may be discrete, losses need no derivative.

    Args:
        sample: ``sample(phi, key) -> a``, a tree like phi.
        log_prob: ``log_prob(phi, a) -> scalar``, the logarithm of its probability, differentiable in phi.
        samples: draws a move, at least 2. The levels below go on from their answer to the first of them.

    Cost: `samples` evaluations at once, each with the runs of the levels below.
    Source: Williams 1992; Kool, van Hoof, Welling 2019 for the baseline.

    >>> import jax, nestor
    >>> coin = nestor.levels.Reinforce(
    ...     sample=lambda phi, key: (jax.random.uniform(key, phi.shape) < jax.nn.sigmoid(phi)).astype(phi.dtype),
    ...     log_prob=lambda phi, a: (a * jax.nn.log_sigmoid(phi) + (1 - a) * jax.nn.log_sigmoid(-phi)).sum())
    >>> coin.samples
    8
    """

    sample: Callable[[Tree, jax.Array], Tree] = dataclasses.field(metadata={"static": True})
    log_prob: Callable[[Tree, Tree], jax.Array] = dataclasses.field(metadata={"static": True})
    samples: int = dataclasses.field(default=8, metadata={"static": True})

    def __post_init__(self) -> None:
        check_setting("Reinforce", "samples", self.samples, count(16, least=2))

    def estimate(self, value: Value, given: Any, x: Tree, key: jax.Array) -> tuple[jax.Array, Any, Tree]:
        """The mean loss, the states of the levels below after the first draw, and the gradient."""
        draws = jax.vmap(lambda k: self.sample(x, k))(jax.random.split(key, self.samples))
        draws = trees.stop_gradient(draws)
        losses, lower = jax.vmap(lambda a: value(a, given))(draws)
        others = (jnp.sum(losses) - losses) / (self.samples - 1)
        weights = losses - others

        def surrogate(phi: Tree) -> jax.Array:
            scores = jax.vmap(lambda a: self.log_prob(phi, a))(draws)
            return jnp.mean(weights * scores.astype(weights.dtype))

        first = jax.tree.map(lambda leaf: leaf[0], lower)
        return jnp.mean(losses), first, jax.grad(surrogate)(x)
