"""The problem of `nestor demo search`, without a word printed: a net whose every setting is tuned in one study.

    inner   p(h)  = 60 steps of training a net 64-width-10 by an optimizer, on few images
    outer   v(h)  = mean cross-entropy(p(h); validation)

Optimizer and width are chosen by search. The other settings h are real: a rate for each layer, an L2 strength for
each pixel and each class, and how large the first weights of each pixel, and of the last layer, are. v has an exact
gradient by all of them, through the training.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor import search, tuning
from nestor.cli._digits import CLASSES, PIXELS, Digits, Split
from nestor.training import rmsprop, sgd, train

STEPS, BATCH, MOMENTUM = 60, 50, 0.9
TRAIN_SIZE = 200
RUNS = 4  # training runs that a value with its hypergradient counts as
REFINE = 16  # of those in a trial, at most
CHOICES = {
    "optimizer": search.Categorical(("momentum", "rmsprop")),
    "width": search.Categorical((16, 32)),
}
RATE, STRENGTH, SCALE = (0.02, 0.5), (1e-5, 1.0), (0.1, 2.0)
EACH = {
    "rate": {"in": search.Float(*RATE, log=True), "out": search.Float(*RATE, log=True)},
    "l2": {
        "in": search.Array((PIXELS,), *STRENGTH, log=True),
        "out": search.Array((CLASSES,), *STRENGTH, log=True),
    },
    "scale": {"in": search.Array((PIXELS,), *SCALE, log=True), "out": search.Float(*SCALE, log=True)},
}
FEW = {  # the same with one number for each layer, which is what one would search
    "rate": EACH["rate"],
    "l2": {"in": search.Float(*STRENGTH, log=True), "out": search.Float(*STRENGTH, log=True)},
    "scale": {"in": search.Float(*SCALE, log=True), "out": search.Float(*SCALE, log=True)},
}

Model = dict[str, jax.Array]


class Curve(NamedTuple):
    """How good a study was, by what it had cost.

    Attributes:
        runs: training runs so far, with a hypergradient as `RUNS` of them. [n].
        best: the least validation loss so far. [n].
    """

    runs: np.ndarray
    best: np.ndarray

    def runs_to(self, loss: float) -> float:
        """The runs after which the loss was reached; infinite where it was not."""
        reached = np.flatnonzero(self.best <= loss)
        return float(self.runs[reached[0]]) if len(reached) else float("inf")


def start(hyper: Any, width: int) -> Model:
    """A net 64-width-10 with tanh, at random, as large as `hyper["scale"]` says."""
    first, second = jax.random.split(jax.random.key(0))
    drawn = jax.random.normal(first, (PIXELS, width), jnp.float32) * PIXELS**-0.5
    return {
        "w1": drawn * jnp.broadcast_to(hyper["scale"]["in"], (PIXELS,))[:, None],
        "b1": jnp.zeros(width, jnp.float32),
        "w2": jax.random.normal(second, (width, CLASSES), jnp.float32) * width**-0.5 * hyper["scale"]["out"],
        "b2": jnp.zeros(CLASSES, jnp.float32),
    }


def loss(model: Model, split: Split) -> jax.Array:
    """Mean cross-entropy."""
    logits = jnp.tanh(split.images @ model["w1"] + model["b1"][None]) @ model["w2"] + model["b2"][None]
    return -jnp.mean(jnp.sum(split.labels * jax.nn.log_softmax(logits), axis=1))


def trained(hyper: Any, picked: dict[str, Any], digits: Digits) -> Model:
    """The net after training: a function of all its settings."""
    strength_in = jnp.broadcast_to(hyper["l2"]["in"], (PIXELS,))[:, None]
    strength_out = jnp.broadcast_to(hyper["l2"]["out"], (CLASSES,))[None]

    def penalised(model: Model, batch: Split) -> jax.Array:
        squares = jnp.sum(strength_in * model["w1"] ** 2) + jnp.sum(strength_out * model["w2"] ** 2)
        return loss(model, batch) + squares / 2

    layers = {"w1": "in", "b1": "in", "w2": "out", "b2": "out"}
    momentum = picked["optimizer"] == "momentum"
    rate = {name: hyper["rate"][layer] * (1.0 if momentum else 1 / 30) for name, layer in layers.items()}
    optimizer = sgd(rate, momentum=MOMENTUM) if momentum else rmsprop(rate)
    run = train(
        penalised,
        start(hyper, picked["width"]),
        digits.train,
        optimizer=optimizer,
        steps=STEPS,
        batch_size=BATCH,
        key=jax.random.key(1),
        raise_on_failure=False,
    )
    return run.params


def searched(space: Any, runs: int, seed: int, digits: Digits, **options: Any) -> search.Study:
    """A study without gradients: one training run a trial."""
    return tuning.tune(
        lambda hyper, picked: loss(trained(hyper, picked, digits), digits.validation),
        space,
        choices=CHOICES,
        n_trials=runs,
        gradient=False,
        sampler=search.TPESampler(seed),
        **options,
    )


def followed(runs: int, seed: int, digits: Digits, **options: Any) -> search.Study:
    """The same study with the same sampler, whose trials descend along exact hypergradients.

    A descent that is behind the others after four evaluations is ended, and the next trial begins elsewhere.
    """
    posed = tuning.Differentiated(
        lambda hyper, picked: loss(trained(hyper, picked, digits), digits.validation),
        EACH,
        CHOICES,
        refine=REFINE,
    )
    study = search.create_study(
        sampler=search.TPESampler(seed), pruner=search.MedianPruner(n_startup_trials=1, n_warmup_steps=4)
    )
    spent = 0
    while spent < runs:
        study.optimize(posed, 1, catch=tuning.FAILURES, **options)
        spent += runs_of(study.trials[-1])
    return study


def runs_of(trial: search.FrozenTrial) -> int:
    """The training runs that a trial counts as; one that broke off at once, or had no gradients, is one."""
    evaluations = trial.user_attrs.get("evaluations")
    return 1 if evaluations is None else RUNS * evaluations


def curve(study: search.Study, with_gradients: bool) -> Curve:
    """How the best loss of a study fell with the runs that it cost."""
    runs, losses = [], []
    for trial in study.trials:
        if with_gradients:
            losses += [trial.reports[step] for step in sorted(trial.reports)]
        else:
            losses.append(float("inf") if trial.value is None else trial.value)
    runs = np.arange(1, len(losses) + 1) * (RUNS if with_gradients else 1)
    return Curve(runs, np.minimum.accumulate(losses))
