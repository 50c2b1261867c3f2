"""Training at large rates is chaotic: the exact gradient is astronomical, the slope of the smoothed loss is not.

A small tanh net on digits, 100 steps of gradient descent; the hyperparameter is the logarithm of the rate. What
`nestor.Evolution` finds agrees with the slope of the loss smoothed by a Gaussian, integrated on a fine grid of rates.
(Maclaurin, Duvenaud, Adams 2015, section 4; Vicol, Metz, Sohl-Dickstein 2021.) With --quick: fewer rates and runs.
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
REPEATS, POINTS, PAIRS, WIDTH, STEPS = 16, 24 if QUICK else 500, 32 if QUICK else 250, 0.1, 100

images, labels = load_digits(return_X_y=True)  # 100 of them, 4 x 4 pixels
images = jnp.asarray(images[:100].reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 16 - 0.3)
data = images, jnp.eye(10)[labels[:100]]
keys = jax.random.split(jax.random.key(0), 2 + REPEATS)
net = {"in": jax.random.normal(keys[0], (16, 8)) / 2, "out": jax.random.normal(keys[1], (8, 10)) / 3}


def loss(net, batch):
    logits = jnp.tanh(batch[0] @ net["in"]) @ net["out"]
    return -jnp.mean(jnp.sum(batch[1] * jax.nn.log_softmax(logits), axis=1))


def losses(log_rate, adjoint, key=keys[0]):
    """The losses of all steps; the key only makes the noise of `Evolution` fresh."""
    optimizer = nestor.sgd(lambda step: jnp.exp(log_rate))  # what the run reads, the logarithm, is perturbed
    options = dict(steps=STEPS, shuffle=False, key=key, adjoint=adjoint, raise_on_failure=False)
    return nestor.train(loss, net, data, optimizer=optimizer, **options).history.loss


@jax.jit
def evolved(log_rate):
    """Independent estimates of the smoothed slope, from perturbed runs."""
    evolution = nestor.Evolution(sigma=WIDTH, pairs=PAIRS, batch=min(PAIRS, 50))
    return jax.lax.map(lambda key: jax.grad(lambda m: losses(m, evolution, key)[-1])(log_rate), keys[2:])


@jax.jit
def integrated(log_rate):
    """As many from combs of rates that interleave: the integral of the loss times the slope of the Gaussian."""
    z = jnp.linspace(-4.5, 4.5, REPEATS * POINTS).reshape(POINTS, REPEATS)
    values = jax.lax.map(lambda e: losses(log_rate + WIDTH * e, None)[-1], z.ravel(), batch_size=100)
    weights = z * jnp.exp(-(z**2) / 2) - jnp.mean(z * jnp.exp(-(z**2) / 2), axis=0)
    return jnp.sum(weights * values.reshape(z.shape), axis=0) / jnp.sum(weights * z, axis=0) / WIDTH


begin, found = time.process_time(), {}
for log_rate in LOG_RATES:
    diagnosis = nestor.diagnose(lambda log_rate: losses(log_rate, nestor.Checkpoint())[-1], log_rate)
    chaos = any(finding.kind == "chaos" for finding in diagnosis.findings)
    exact, growth = float(diagnosis.gradient), diagnosis.rates[0]
    estimates = jnp.stack([evolved(log_rate), integrated(log_rate)])
    mean, error = estimates.mean(axis=1), estimates.std(axis=1, ddof=1) / REPEATS**0.5
    apart = float(abs(mean[0] - mean[1]) / jnp.linalg.norm(error))
    print(f"log rate {log_rate}: exact gradient {exact:+.3g}, chaos: {chaos}")
    print(f"  Evolution {mean[0]:+.2f} +- {error[0]:.2f}, smoothed {mean[1]:+.2f} +- {error[1]:.2f}")
    assert apart < 2
    assert chaos == (abs(exact) > 1e6) == (log_rate > 2)
    found[log_rate] = dict(exact=exact, chaos=chaos, growth=growth, errors_apart=apart)
    found[log_rate] |= dict(evolution_and_smoothed=mean.tolist(), standard_errors=error.tolist())
if not QUICK:
    found["cpu_seconds"] = round(time.process_time() - begin, 1)
    path = Path(__file__).parent / "results" / "chaos.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
