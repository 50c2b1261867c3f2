"""What the demo does with the problem: a grid, hypergradient descent, and when to stop; nothing is printed.

Nothing here is given the test images before the choice is made: `Tuning` holds the training and validation
images only, and `judge` is called afterwards, on the models that were kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor.cli import _digits
from nestor.cli._digits import Digits, Split

FOLDS = 5  # of the validation images, to decide when to stop
LANES = FOLDS + 1  # one descent for each fold that is held out, and one with all images
RATE = 100.0  # of gradient descent on the log strengths
PATIENCE = 10  # steps without a better held-out loss
GRID = np.arange(-12.5, -3.9, 0.5)  # log strengths, three full batches of LANES


class Step(NamedTuple):
    """One hypergradient step: where it stood before it moved.

    Attributes:
        log_strengths, model: of the descent with all validation images.
        validation: its validation loss, the one that it lowers.
        held_out: mean loss of the other descents on the fold that each does not see.
        gradient: length of the hypergradient.
    """

    log_strengths: np.ndarray
    model: np.ndarray
    validation: float
    held_out: float
    gradient: float


class Single(NamedTuple):
    """The best single strength of the grid, by validation loss; `validations` belongs to `GRID`."""

    log_strength: float
    model: np.ndarray
    validations: np.ndarray


def _shared_loss(log_strengths: Any, start: Any, share: Any, train: Split, validation: Split) -> Any:
    """The loss on a part of the validation images, with the losses of all of them."""
    model = _digits.fit(log_strengths, start, train, tol=1e-5)
    every = _digits.losses(model, validation)
    return jnp.vdot(share, every), (model, every)


@jax.jit
def _batch(log_strengths: Any, models: Any, shares: Any, train: Split, validation: Split) -> Any:
    """Fits, validation losses and hypergradients of `LANES` settings at once: the one program of the demo."""
    run = jax.vmap(jax.value_and_grad(_shared_loss, has_aux=True), in_axes=(0, 0, 0, None, None))
    (_, (models, every)), gradients = run(log_strengths, models, shares, train, validation)
    return models, every, gradients


@jax.jit
def judge(models: Any, split: Split) -> tuple[jax.Array, jax.Array]:
    """Loss and error of many models, shape (k, 65, 10), on one split: only to report them."""
    both = lambda model: (_digits.loss(model, split), _digits.error(model, split))  # noqa: E731
    return jax.lax.map(both, models)


@jax.jit
def gain(first: Any, second: Any, split: Split) -> tuple[jax.Array, jax.Array]:
    """How much lower the loss of the second model is, and the standard error of that, image by image."""
    gains = _digits.losses(first, split) - _digits.losses(second, split)
    return jnp.mean(gains), jnp.std(gains) / gains.size**0.5


@jax.jit
def _refit(log_strengths: Any, models: Any, split: Split) -> jax.Array:
    return jax.vmap(_digits.fit, in_axes=(0, 0, None))(log_strengths, models, split)


class Tuning:
    """Both contenders, on the training and validation images of one split."""

    def __init__(self, digits: Digits):
        self.train, self.validation = digits.train, digits.validation
        count = self.validation.labels.shape[0]
        fold = np.arange(count) % FOLDS
        seen = np.stack([*(fold != k for k in range(FOLDS)), np.full(count, True)])
        self._held_out = ~seen[:FOLDS]
        self._shares = seen / seen.sum(axis=1, keepdims=True)

    def _run(self, log_strengths: np.ndarray, models: np.ndarray) -> tuple[np.ndarray, ...]:
        outcome = _batch(log_strengths, models, self._shares, self.train, self.validation)
        models, every, gradients = (np.asarray(part) for part in outcome)
        return models, every, gradients

    def single_strengths(self) -> Iterator[Single]:
        """The best of the grid so far, batch by batch, from the weakest strength up."""
        validations = np.full(GRID.size, np.nan)
        models = np.stack([np.asarray(_digits.no_model())] * LANES)
        best = models[0]
        for first in range(0, GRID.size, LANES):
            chunk = GRID[first : first + LANES]
            shape = (LANES, _digits.PIXELS, _digits.CLASSES)
            models, every, _ = self._run(np.broadcast_to(chunk[:, None, None], shape), models)
            validations[first : first + LANES] = every.mean(axis=1)
            place = int(np.nanargmin(validations))
            best = models[place - first] if place >= first else best
            yield Single(float(GRID[place]), best, validations)

    def hypergradient_steps(self, single: Single, limit: int) -> Iterator[Step]:
        """Gradient descent on the log strengths, from the single strength; ends by the held-out loss.

        Step 0 is the single strength itself. Ends after `limit` moves, after PATIENCE of them without a better
        held-out loss, or where a fit does not converge.
        """
        shape = (LANES, _digits.PIXELS, _digits.CLASSES)
        log_strengths = np.full(shape, single.log_strength)
        models = np.stack([single.model] * LANES)
        best, since = np.inf, 0
        for _ in range(limit + 1):
            models, every, gradients = self._run(log_strengths, models)
            if not (np.all(np.isfinite(every)) and np.all(np.isfinite(gradients))):
                return
            held_out = float(
                np.mean([row[out].mean() for row, out in zip(every, self._held_out, strict=False)])
            )
            gradient = float(np.linalg.norm(gradients[-1]))
            yield Step(log_strengths[-1], models[-1], float(every[-1].mean()), held_out, gradient)
            best, since = (held_out, 0) if held_out < best else (best, since + 1)
            if since >= PATIENCE:
                return
            log_strengths = log_strengths - RATE * gradients

    def refits(self, log_strengths: list[np.ndarray], models: list[np.ndarray]) -> np.ndarray:
        """The same strengths fitted on training and validation images together."""
        together = _digits.joined(self.train, self.validation)
        return np.asarray(_refit(np.stack(log_strengths), np.stack(models), together))


def chosen(steps: list[Step]) -> int:
    """The number of the step with the least held-out loss."""
    return int(np.argmin([step.held_out for step in steps]))
