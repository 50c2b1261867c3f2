"""The problem of the demo, without a word printed: one L2 strength per weight, for scikit-learn's digits.

    inner   m*(s) = argmin_m  mean cross-entropy(m; train) + 1/2 sum_ij exp(s_ij) m_ij^2
    outer   v(s)  = mean cross-entropy(m*(s); validation)

A model m is one array of shape (65, 10): 64 rows of weights, one per pixel, and a last row of biases, which
are not penalised. The log strengths s have shape (64, 10). Arrays take JAX's default precision; the demo
works in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor.adjoints import Implicit
from nestor.errors import BadArgument, MissingExtra
from nestor.linear import CG
from nestor.solvers import LBFGS, argmin

PIXELS, CLASSES, IMAGES = 64, 10, 1797
SMALLEST_SPLIT = 100


class Split(NamedTuple):
    """Some of the images.

    Attributes:
        images: shape (n, 64), intensities from 0 to 1.
        labels: shape (n, 10), one-hot.
    """

    images: jax.Array
    labels: jax.Array


class Digits(NamedTuple):
    """The three splits; they share no image."""

    train: Split
    validation: Split
    test: Split


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """All images, shape (1797, 64), intensities from 0 to 1, and their digits, shape (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "demo", "loading the digits") from error
    images, labels = load_digits(return_X_y=True)
    return images / 16, labels


def load(seed: int = 0, train_size: int = IMAGES // 3) -> Digits:
    """Scikit-learn's 1797 digits, shuffled by `seed`; what is not for training is halved into the other two."""
    largest = IMAGES - 2 * SMALLEST_SPLIT
    if not SMALLEST_SPLIT <= train_size <= largest:
        raise BadArgument(
            "load",
            "train_size",
            got=train_size,
            want=f"from {SMALLEST_SPLIT} to {largest}",
            do=f"pass train_size={IMAGES // 3}",
        )
    images, labels = images_and_labels()
    order = np.random.default_rng(seed).permutation(IMAGES)
    one_hot = np.eye(CLASSES)[labels]
    middle = (train_size + IMAGES) // 2
    places = np.split(order, [train_size, middle])
    return Digits(*(Split(jnp.asarray(images[p]), jnp.asarray(one_hot[p])) for p in places))


def joined(first: Split, second: Split) -> Split:
    """Two splits as one."""
    return Split(*(jnp.concatenate(pair) for pair in zip(first, second, strict=True)))


def no_model() -> jax.Array:
    """The model of zeros: where a first fit starts."""
    return jnp.zeros((PIXELS + 1, CLASSES))


def losses(model: jax.Array, split: Split) -> jax.Array:
    """The cross-entropy of every image, shape (n,), in nats."""
    logits = split.images @ model[:-1] + model[-1][None, :]
    return jax.nn.logsumexp(logits, axis=1) - jnp.sum(logits * split.labels, axis=1)


def loss(model: jax.Array, split: Split) -> jax.Array:
    """The mean cross-entropy, in nats."""
    return jnp.mean(losses(model, split))


def error(model: jax.Array, split: Split) -> jax.Array:
    """The share of images that are taken for another digit."""
    logits = split.images @ model[:-1] + model[-1][None, :]
    wrong = jnp.argmax(logits, axis=1) != jnp.argmax(split.labels, axis=1)
    return jnp.mean(wrong.astype(logits.dtype))


def inner_objective(model: jax.Array, log_strengths: jax.Array, train: Split) -> jax.Array:
    """What training minimizes: the mean cross-entropy and every weight's own penalty."""
    return loss(model, train) + jnp.sum(jnp.exp(log_strengths) * model[:-1] ** 2) / 2


def fit(
    log_strengths: jax.Array,
    start: jax.Array,
    train: Split,
    *,
    solver: Any = None,
    adjoint: Any = None,
    tol: float = 1e-8,
    max_steps: int = 1000,
    on_failure: str = "nan",
) -> jax.Array:
    """The trained model as a differentiable function of the log strengths, from a warm start.

    Args:
        log_strengths: s, shape (64, 10).
        start: the model to start from; with the default adjoint it has no influence on a derivative.
        train: the images to fit.
        solver, adjoint, tol, max_steps, on_failure: as in `nestor.argmin`; L-BFGS and `Implicit(CG())` by
            default. A hypergradient is wrong by about tol times the condition number: the default tol keeps
            that at 1e-5 of its length for strengths of e^-9; to descend, a tol of 1e-5 (an error of 1 %) does.
    """
    return argmin(
        lambda model: inner_objective(model, log_strengths, train),
        start,
        solver=LBFGS() if solver is None else solver,
        adjoint=Implicit(CG(tol=1e-8)) if adjoint is None else adjoint,
        tol=tol,
        max_steps=max_steps,
        on_failure=on_failure,
    )


def validation_loss(
    log_strengths: jax.Array, start: jax.Array, digits: Digits, **options: Any
) -> tuple[jax.Array, jax.Array]:
    """The outer objective v(s), and the trained model: for `jax.value_and_grad(..., has_aux=True)`.

    Args: as in `fit`, whose options are passed on.
    """
    model = fit(log_strengths, start, digits.train, **options)
    return loss(model, digits.validation), model
