"""The problem of `nestor demo schedule`, without a word printed: the step sizes of a short training run.

    inner   p(r)  = 100 steps of SGD with momentum 0.9 at the step sizes exp(r_1) ... exp(r_100)
    outer   v(r)  = mean cross-entropy(p(r); validation), at a fresh start and fresh batches each time

The hypergradient of v is taken by running the training backwards bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor.adjoints import Reversible
from nestor.cli._digits import CLASSES, PIXELS, Digits, Split
from nestor.training import adam, sgd, train

HIDDEN, STEPS, BATCH, MOMENTUM = 50, 100, 50, 0.9
RATES = np.linspace(-4.0, 1.0, 21)  # logarithms of the constant rates that are swept
RUNS = 4  # forward runs that a hypergradient costs, for the budget of the sweep
OUTER_RATE = 0.1  # of Adam on the log rates
JUDGES = 20  # fresh seeds that both schedules are judged with
BITS = STEPS * -float(np.log2(MOMENTUM))  # that a reversed run stores for each parameter

Model = dict[str, jax.Array]


class Outer(NamedTuple):
    """One step of the descent on the schedule: the validation loss before it, and the log rates after it."""

    validation: float
    slope: float
    log_rates: np.ndarray


class Scores(NamedTuple):
    """Losses and errors over the seeds of the judges, each an array of shape (JUDGES,)."""

    train_loss: np.ndarray
    validation_loss: np.ndarray
    test_loss: np.ndarray
    test_error: np.ndarray


def start(key: jax.Array) -> Model:
    """A net 64-50-10 with tanh, at random."""
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (PIXELS, HIDDEN), jnp.float32) * PIXELS**-0.5,
        "b1": jnp.zeros(HIDDEN, jnp.float32),
        "w2": jax.random.normal(second, (HIDDEN, CLASSES), jnp.float32) * HIDDEN**-0.5,
        "b2": jnp.zeros(CLASSES, jnp.float32),
    }


def logits(model: Model, images: jax.Array) -> jax.Array:
    """Shape (n, 10)."""
    return jnp.tanh(images @ model["w1"] + model["b1"][None]) @ model["w2"] + model["b2"][None]


def loss(model: Model, split: Split) -> jax.Array:
    """Mean cross-entropy."""
    return -jnp.mean(jnp.sum(split.labels * jax.nn.log_softmax(logits(model, split.images)), axis=1))


def run(log_rates: jax.Array, key: jax.Array, split: Split) -> Any:
    """One training run: a function of its schedule."""
    model_key, batch_key = jax.random.split(key)
    return train(
        loss,
        start(model_key),
        split,
        optimizer=sgd(jnp.exp(log_rates), momentum=MOMENTUM),
        steps=STEPS,
        batch_size=BATCH,
        key=batch_key,
        adjoint=Reversible(bits=BITS + 8),
        raise_on_failure=False,
    )


def _validation_loss(log_rates: jax.Array, key: jax.Array, digits: Digits) -> jax.Array:
    return loss(run(log_rates, key, digits.train).params, digits.validation)


@jax.jit
def hypergradient(log_rates: jax.Array, key: jax.Array, digits: Digits) -> tuple[jax.Array, jax.Array]:
    """The validation loss and its slope in each of the 100 log rates."""
    return jax.value_and_grad(_validation_loss)(log_rates, key, digits)


@jax.jit
def sweep(log_rates: jax.Array, keys: jax.Array, digits: Digits) -> jax.Array:
    """Mean validation loss of constant rates, shape (k,); NaN where a run diverged."""
    one = lambda rate: jnp.mean(  # noqa: E731
        jax.lax.map(lambda key: _validation_loss(jnp.full(STEPS, rate), key, digits), keys)
    )
    return jax.lax.map(one, log_rates)


@jax.jit
def _judged(log_rates: jax.Array, keys: jax.Array, digits: Digits) -> tuple[jax.Array, ...]:
    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        model = run(log_rates, key, digits.train).params
        wrong = jnp.argmax(logits(model, digits.test.images), 1) != jnp.argmax(digits.test.labels, 1)
        return (*(loss(model, split) for split in digits), jnp.mean(wrong, dtype=jnp.float32))

    return jax.lax.map(one, keys)


def judge(log_rates: np.ndarray, seed: int, digits: Digits) -> Scores:
    """A schedule at seeds that neither the sweep nor the descent has seen."""
    keys = jax.random.split(jax.random.key(seed + 2), JUDGES)
    return Scores(*map(np.asarray, _judged(jnp.asarray(log_rates, jnp.float32), keys, digits)))


def constant_rates(steps: int, seed: int, digits: Digits) -> tuple[np.ndarray, int]:
    """The mean validation loss of each of `RATES`, and the seeds for each that the budget allows."""
    seeds = max(1, steps * RUNS // RATES.size)
    keys = jax.random.split(jax.random.key(seed), seeds)
    return np.asarray(sweep(jnp.asarray(RATES, jnp.float32), keys, digits)), seeds


def descent(log_rate: float, steps: int, seed: int, digits: Digits) -> Iterator[Outer]:
    """Adam on the log rates, from a constant one, with a fresh start and fresh batches at every step."""
    optimizer = adam(OUTER_RATE, b1=0.8)
    log_rates = jnp.full(STEPS, log_rate, jnp.float32)
    slots = optimizer.init(log_rates)
    keys = jax.random.split(jax.random.key(seed + 1), steps)
    for number, key in enumerate(keys):
        value, slope = hypergradient(log_rates, key, digits)
        t = jnp.int32(number)
        log_rates, slots = optimizer.update(optimizer.values(t), t, slope, log_rates, slots)
        yield Outer(float(value), float(jnp.linalg.norm(slope)), np.asarray(log_rates))


def learned(steps: list[Outer]) -> np.ndarray:
    """The schedule: the mean of the second half of the descent, whose steps are noisy."""
    return np.mean([step.log_rates for step in steps[len(steps) // 2 :]], axis=0)
