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
    # The slope of the loss of every step: how far a change of the rate has grown by then.
    slopes = jax.jvp(lambda m: losses(m, nestor.Forward()), (log_rate,), (1.0,))[1]
    exact, growth = float(slopes[-1]), float(jnp.log(jnp.abs(slopes[-1] / slopes[1]))) / STEPS
    estimates = jnp.stack([evolved(log_rate), integrated(log_rate)])
    (slope, smooth), (error, other) = (
        estimates.mean(1).tolist(),
        (estimates.std(1, ddof=1) / REPEATS**0.5).tolist(),
    )
    apart = abs(slope - smooth) / (error**2 + other**2) ** 0.5
    print(f"log rate {log_rate}: exact gradient {exact:+.3g}, growing by e^{growth:.2f} a step")
    print(
        f"  smoothed {smooth:+.2f} +- {other:.2f}, Evolution {slope:+.2f} +- {error:.2f}, {apart:.1f} errors apart"
    )
    assert apart < 2
    assert (growth > 0.1) == (abs(exact) > 1e6) == (log_rate > 2)
    found[log_rate] = dict(exact=exact, growth=growth, smoothed=[smooth, other], evolution=[slope, error])
if not QUICK:
    found["cpu_seconds"] = round(time.process_time() - begin, 1)
    path = Path(__file__).parent / "results" / "chaos.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
