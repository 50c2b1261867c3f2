"""Training the training: a schedule of 50 learning rates, tuned by its own hypergradient.

The setting of Hype's `hypertrain` (Baydin and Pearlmutter 2015, feedforward nets): a net 784-300-100-10 with ReLU
is trained on 21 images of digits by plain gradient descent, one rate a step; the loss at the end is a function of
the 50 rates, and RMSProp descends on it. The images are scikit-learn's, enlarged to 28 x 28 pixels.

    python hypertrain.py            writes results/hypertrain.json
    python hypertrain.py --quick    a small net, a few outer steps
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
WIDTHS = (784, 30, 20, 10) if QUICK else (784, 300, 100, 10)
OUTER_STEPS = 10 if QUICK else 50

images, labels = load_digits(return_X_y=True)
images = jax.image.resize(jnp.asarray(images[:21] / 16.0, float).reshape(-1, 8, 8), (21, 28, 28), "bilinear")
labels = jax.nn.one_hot(labels[:21], 10)


def start(key):
    """Weights of variance 2 / (inputs), for ReLU; biases of zero."""
    keys = jax.random.split(key, len(WIDTHS) - 1)
    shapes = zip(keys, WIDTHS[:-1], WIDTHS[1:], strict=True)
    return [(jnp.sqrt(2 / m) * jax.random.normal(k, (m, n)), jnp.zeros(n)) for k, m, n in shapes]


def cross_entropy(net, batch):
    x, y = batch
    for weights, biases in net[:-1]:
        x = jax.nn.relu(x @ weights + biases)
    logits = x @ net[-1][0] + net[-1][1]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.sum(logits * y, axis=1))


def loss(net, batch):
    """With Hype's L2 penalty, in training only."""
    return cross_entropy(net, batch) + 1e-4 / 2 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(net))


net, data = start(jax.random.key(123)), (images.reshape(21, 784), labels)


def trained(rates, _=None):
    """The cross-entropy after training with these rates, all images at every step."""
    run = nestor.train(loss, net, data, optimizer=nestor.sgd(rates), steps=50)
    return cross_entropy(run.params, data)


begin = time.process_time()
flat = jnp.full(50, 0.1)
hypertraining = nestor.train(trained, flat, None, optimizer=nestor.rmsprop(0.01, 0.9), steps=OUTER_STEPS)
first, best = float(hypertraining.history.loss[0]), float(hypertraining.history.loss.min())
print(f"loss after 50 steps: {first:.4f} with rates of 0.1, {best:.4f} at best ({best / first:.0%})")

along = jnp.linspace(1.0, 0.0, 50)  # a longer difference would jump with the kinks of ReLU
slope = float(jnp.vdot(jax.grad(trained)(flat), along))
difference = float(trained(flat + 1e-9 * along) - trained(flat - 1e-9 * along)) / 2e-9
print(f"slope along a ramp: {slope:.4f}, by a difference {difference:.4f}")
assert abs(slope - difference) < 0.02 * abs(slope)
assert best < (1.0 if QUICK else 0.5) * first

if not QUICK:
    rates = [round(rate, 4) for rate in hypertraining.params.tolist()]
    found = {"first_loss": first, "best_loss": best, "last_rates": rates}
    found["cpu_seconds"] = round(time.process_time() - begin, 1)
    path = Path(__file__).parent / "results" / "hypertrain.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
