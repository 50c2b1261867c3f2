"""Training at large rates is chaotic: the exact gradient is astronomical, the slope of the smoothed loss is not.

A small tanh net on digits, 100 steps of gradient descent; the hyperparameter is the logarithm of the rate. Beside
the exact gradient of the last loss stands what `nestor.Evolution` finds, and the slope of the loss smoothed by a
Gaussian of width 0.1, integrated on a fine grid of rates: they agree within their standard errors.
(The setting of Maclaurin, Duvenaud, Adams 2015, section 4; Vicol, Metz, Sohl-Dickstein 2021.)

    python chaos.py            writes results/chaos.json
    python chaos.py --quick    one calm rate and one chaotic rate, fewer runs
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

import nestor

jax.config.update("jax_enable_x64", True)
QUICK = "--quick" in sys.argv
LOG_RATES = (0.0, 3.0) if QUICK else (0.0, 1.0, 2.75, 3.0, 3.5, 4.0)
REPEATS, POINTS, PAIRS, WIDTH, STEPS = 16, 24 if QUICK else 500, 8 if QUICK else 250, 0.1, 100

images, labels = load_digits(return_X_y=True)  # 100 of them, 4 x 4 pixels
images = jnp.asarray(images[:100].reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 16 - 0.3)
data = images, jnp.eye(10)[labels[:100]]
keys = jax.random.split(jax.random.key(0), 2 + REPEATS)
net = {"in": jax.random.normal(keys[0], (16, 8)) / 2, "out": jax.random.normal(keys[1], (8, 10)) / 3}


def loss(net, batch):
    images, names = batch
    logits = jnp.tanh(images @ net["in"]) @ net["out"]
    return -jnp.mean(jnp.sum(names * jax.nn.log_softmax(logits), axis=1))


def losses(log_rate, adjoint, key=keys[0]):
    """The losses of all steps; the key only makes the noise of `Evolution` fresh."""
    options = dict(steps=STEPS, shuffle=False, key=key, adjoint=adjoint, raise_on_failure=False)
    optimizer = nestor.sgd(lambda step: jnp.exp(log_rate))  # the run reads the logarithm: that is what is perturbed
    return nestor.train(loss, net, data, optimizer=optimizer, **options).history.loss


def mean_and_error(estimates):
    return float(jnp.mean(estimates)), float(jnp.std(estimates, ddof=1) / len(estimates) ** 0.5)


@jax.jit
def forwards(log_rate):
    return jax.jvp(lambda m: losses(m, nestor.Forward()), (log_rate,), (1.0,))[1]


@jax.jit
def evolved(log_rate):
    """Independent estimates of the smoothed slope, from perturbed runs."""
    evolution = nestor.Evolution(sigma=WIDTH, pairs=PAIRS, batch=min(PAIRS, 50))
    return jax.lax.map(lambda key: jax.grad(lambda m: losses(m, evolution, key)[-1])(log_rate), keys[2:])


@jax.jit
def integrated(log_rate):
    """As many estimates from combs of rates that interleave: the integral of loss times Gaussian slope."""
    z = jnp.linspace(-4.5, 4.5, REPEATS * POINTS).reshape(POINTS, REPEATS)
    one = lambda e: losses(log_rate + WIDTH * e, nestor.Checkpoint())[-1]  # noqa: E731
    values = jax.lax.map(one, z.ravel(), batch_size=100).reshape(z.shape)
    weights = z * jnp.exp(-(z**2) / 2)
    weights = weights - jnp.mean(weights, axis=0)
    return jnp.sum(weights * values, axis=0) / jnp.sum(weights * z, axis=0) / WIDTH


begin, rows = time.process_time(), []
for log_rate in LOG_RATES:
    slopes = forwards(log_rate)  # of the loss of every step: how a change of the rate has grown by then
    growth = float(jnp.log(jnp.abs(slopes[-1] / slopes[1])) / STEPS)
    (evolution, error), (smooth, smooth_error) = mean_and_error(evolved(log_rate)), mean_and_error(integrated(log_rate))
    apart = abs(evolution - smooth) / (error**2 + smooth_error**2) ** 0.5
    print(f"log rate {log_rate}: exact {slopes[-1]:+.3g}, growing by e^{growth:.2f} a step; smoothed {smooth:+.2f} "
          f"+- {smooth_error:.2f}, Evolution {evolution:+.2f} +- {error:.2f}, {apart:.1f} standard errors apart")
