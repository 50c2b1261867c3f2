"""The problem of `nestor demo reweight`, without a word printed: digits of which many have a wrong label.

    lower   the model m moves down   sum_i v_i l_i(m) / sum_i v_i + 0.3 mean l(m; clean),   v_i = small net(l_i(m))
    upper   the small net moves down mean l(m; clean), through one move of the model

l_i is the cross-entropy of noisy image i. The rivals train the same net at the same rates with weights that do not
move: all 1; all 1 and the clean images; the clean images alone; and 0 for the labels that are wrong (the oracle).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor.adjoints import SAMA
from nestor.cli._digits import CLASSES, IMAGES, PIXELS, images_and_labels
from nestor.levels import Graph, Level, LevelsRun
from nestor.schedules import Cosine
from nestor.solution import Status
from nestor.training import adam, sgd

HIDDEN, BATCH, RATE, MOMENTUM = 64, 200, 0.1, 0.9
SMALL, OUTER_RATE = 32, 0.003  # units of the small net, and Adam's rate on it
SHARE = 0.3  # of the loss on the clean images, beside the weighted loss on the noisy ones
REPORTS = 50  # looks at a run
REWEIGHTED = "reweighted"

Model = dict[str, jax.Array]


class Part(NamedTuple):
    """Some images and their digits, shapes (n, 64) and (n,)."""

    images: np.ndarray
    labels: np.ndarray


class Noisy(NamedTuple):
    """The images of the demo; the three parts share none.

    Attributes:
        train: their labels are partly wrong.
        wrong: which, a mask; no training but the oracle's is told.
        clean: a few with labels that are right.
        test: looked at only to report.
    """

    train: Part
    wrong: np.ndarray
    clean: Part
    test: Part


class Look(NamedTuple):
    """A look at a run on its way.

    Attributes:
        step: moves of the model made.
        accuracy: on the test images, by contender.
        weights: of the noisy images, shape (n,), from 0 to 1; None for the rivals.
        loss: of the highest level, at its last move.
    """

    step: int
    accuracy: dict[str, float]
    weights: np.ndarray | None
    loss: float


def load(seed: int, train_size: int, clean_size: int, wrong: float) -> Noisy:
    """The digits in three parts, a share `wrong` of the first with another label, drawn evenly from the nine."""
    images, labels = images_and_labels()
    draw = np.random.default_rng(seed)
    places = np.split(draw.permutation(IMAGES), [train_size, train_size + clean_size])
    train, clean, test = (Part(images[p].astype(np.float32), labels[p].astype(np.int32)) for p in places)
    mask = np.arange(train_size) < round(wrong * train_size)
    shifts = draw.integers(1, CLASSES, train_size, dtype=np.int32)
    return Noisy(
        train._replace(labels=np.where(mask, (train.labels + shifts) % CLASSES, train.labels)),
        mask,
        clean,
        test,
    )


def start(key: jax.Array) -> Model:
    """A net 64-64-10 with rectifiers, at random."""
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (PIXELS, HIDDEN), jnp.float32) * (2 / PIXELS) ** 0.5,
        "b1": jnp.zeros(HIDDEN, jnp.float32),
        "w2": jax.random.normal(second, (HIDDEN, CLASSES), jnp.float32) * HIDDEN**-0.5,
        "b2": jnp.zeros(CLASSES, jnp.float32),
    }


def small_net(key: jax.Array) -> Model:
    """A net 1-32-1 whose weights are all 1/2 at first."""
    slopes, places = jax.random.normal(key, (2, SMALL), jnp.float32)
    return {"slopes": slopes, "places": places, "heights": jnp.zeros(SMALL, jnp.float32)}


def logits(model: Model, images: Any) -> jax.Array:
    """Shape (n, 10)."""
    return jax.nn.relu(images @ model["w1"] + model["b1"][None]) @ model["w2"] + model["b2"][None]


def losses(model: Model, part: Part) -> jax.Array:
    """The cross-entropy of every image, shape (n,), in nats."""
    shares = jax.nn.log_softmax(logits(model, part.images))
    return -jnp.sum(jax.nn.one_hot(part.labels, CLASSES, dtype=shares.dtype) * shares, axis=1)


def log_weights(small: Model, each: jax.Array) -> jax.Array:
    """The logarithms of the weights of images with those losses, below 0."""
    seen = jax.lax.stop_gradient(each)[:, None] * small["slopes"][None] + small["places"][None]
    return jax.nn.log_sigmoid(jnp.tanh(seen) @ small["heights"])


def reweighting(noisy: Noisy, steps: int, seed: int) -> Graph:
    """The two levels: a model, and the weights of what it learns from."""
    first, second = jax.random.split(jax.random.key(seed))

    def lower(p: Any, part: Part) -> jax.Array:
        each = losses(p["model"], part)
        shares = jax.nn.softmax(log_weights(p["weights"], each))
        return jnp.vdot(shares, each) + SHARE * jnp.mean(losses(p["model"], noisy.clean))

    def upper(p: Any, part: Part) -> jax.Array:
        return jnp.mean(losses(p["model"], part))

    model = Level(
        lower,
        start(first),
        sgd(Cosine(RATE, steps), momentum=MOMENTUM),
        data=noisy.train,
        batch_size=min(BATCH, noisy.wrong.size),
        adjoint=SAMA(eps=None),  # the loss that the weights are read off is stopped
    )
    weights = Level(upper, small_net(second), adam(Cosine(OUTER_RATE, steps)), data=noisy.clean)
    return Graph({"model": model, "weights": weights})


def rivals(noisy: Noisy, steps: int, seed: int) -> tuple[Graph, list[str]]:
    """Four trainings with weights that do not move, side by side as one level, and their names."""
    right = ~noisy.wrong
    every = np.ones_like(right)
    recipes = {  # weights of the noisy images, and the shares of both sets
        "noisy": (every, 1.0, 0.0),
        "clean only": (every, 0.0, 1.0),
        "noisy and clean": (every, 1.0, SHARE),
        "oracle": (right, 1.0, SHARE),
    }
    columns = zip(*recipes.values(), strict=True)
    weights, of_noisy, of_clean = (np.stack(column).astype(np.float32) for column in columns)
    first, _ = jax.random.split(jax.random.key(seed))
    models = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(recipes)), start(first))

    def one(model: Model, weights: Any, of_noisy: Any, of_clean: Any, part: Part) -> jax.Array:
        mean = jnp.vdot(weights, losses(model, part)) / jnp.sum(weights)
        return of_noisy * mean + of_clean * jnp.mean(losses(model, noisy.clean))

    def loss(p: Any, batch: Any) -> jax.Array:
        part, weights = batch
        each = jax.vmap(one, in_axes=(0, 1, 0, 0, None))(p["models"], weights, of_noisy, of_clean, part)
        return jnp.sum(each)

    level = Level(
        loss,
        models,
        sgd(Cosine(RATE, steps), momentum=MOMENTUM),
        data=(noisy.train, weights.T),
        batch_size=min(BATCH, right.size),
    )
    return Graph({"models": level}), list(recipes)


def count_looks(steps: int) -> int:
    """How often `looks` looks at a run of so many steps."""
    return -(-steps // _stretch(steps))


def _stretch(steps: int) -> int:
    return -(-steps // REPORTS)


def looks(graph: Graph, names: list[str], noisy: Noisy, steps: int, seed: int) -> Iterator[Look]:
    """Run a graph, and look at it `REPORTS` times on the way."""
    run, done = None, 0
    key = jax.random.key(seed + 1)
    while done < steps:
        run = graph.run(min(_stretch(steps), steps - done), key=key, start=run)
        if run.status is Status.STOPPED:
            raise KeyboardInterrupt("Ctrl-C ended a run of the graph")
        done += int(run.steps)
        yield _look(run, done, names, noisy)


def _look(run: LevelsRun, step: int, names: list[str], noisy: Noisy) -> Look:
    models = run.params.get("models")
    weights = None
    if models is None:
        models = jax.tree.map(lambda leaf: leaf[None], run.params["model"])
        weights = np.asarray(_weights(run.params["model"], run.params["weights"], noisy.train))
    right = np.asarray(_accuracies(models, noisy.test))
    accuracy = dict(zip(names, map(float, right), strict=True))
    return Look(step, accuracy, weights, float(run.history.loss[-1]))


@jax.jit
def _accuracies(models: Model, part: Part) -> jax.Array:
    guesses = jnp.argmax(jax.vmap(logits, in_axes=(0, None))(models, part.images), axis=2).astype(jnp.int32)
    return jnp.mean(guesses == part.labels[None], axis=1, dtype=jnp.float32)


@jax.jit
def _weights(model: Model, small: Model, part: Part) -> jax.Array:
    return jnp.exp(log_weights(small, losses(model, part)))
