"""Towers of optimizers: two levels above it rescue gradient descent that starts at a hopeless rate.

A small net, 300 steps of plain stochastic gradient descent on the digits (8 x 8 pixels). At a rate of 1e-3 it learns
nothing. One level above moves the rate while the run goes on, two levels move the rate of the rate as well;
all three towers start every step size within a factor of ten of 1e-3.
(Chandra, Xie, Ragan-Kelley, Meijer 2022, "Gradient descent: the ultimate optimizer".)

    python towers.py            writes results/towers.json
    python towers.py --quick    one seed
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import nestor

QUICK = "--quick" in sys.argv
SEEDS = 1 if QUICK else 5

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.eye(10)[labels[order]]
train, held_out = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])


def logits(net, x):
    return jnp.tanh(x @ net["in"] + net["in bias"]) @ net["out"] + net["out bias"]


def loss(net, batch):
    return -jnp.mean(jnp.sum(batch[1] * jax.nn.log_softmax(logits(net, batch[0])), axis=1))


def trained(optimizer, key):
    """Held-out loss and error of one run, and its last rate."""
    first, second, order = jax.random.split(key, 3)
    start = {"in": jax.random.normal(first, (64, 64)) / 8, "in bias": jnp.zeros(64)}
    start |= {"out": jax.random.normal(second, (64, 10)) / 80, "out bias": jnp.zeros(10)}
    run = nestor.train(loss, start, train, optimizer=optimizer, steps=300, batch_size=100, key=order)
    wrong = jnp.argmax(logits(run.params, held_out[0]), axis=1) != jnp.argmax(held_out[1], axis=1)
    return loss(run.params, held_out), jnp.mean(wrong), run.history.hyper["rate"][-1]


sgd, tuned = nestor.sgd, nestor.tuned
towers = {
    "plain": sgd(1e-3),
    "one level": sgd(tuned(1e-3, by=sgd(1e-3))),
    "two levels": sgd(tuned(1e-3, by=sgd(tuned(1e-3, by=sgd(1e-2))))),
    "plain at the best rate of a sweep": None,
}
begin = time.process_time()
keys = jax.random.split(jax.random.key(0), SEEDS)
over_seeds = jax.jit(lambda optimizer: jax.vmap(lambda key: trained(optimizer, key))(keys))
sweep = {rate: over_seeds(sgd(rate)) for rate in (0.03, 0.1, 0.3, 1.0, 3.0)}
found = {}
for name, optimizer in towers.items():
    measured = over_seeds(optimizer) if optimizer else min(sweep.values(), key=lambda m: float(m[0].mean()))
    value, error, rate = (float(jnp.mean(column)) for column in measured)
    found[name] = {"held_out_loss": value, "error": error, "last_rate": rate}
    print(f"{name:34s} held-out loss {value:.3f}, error {error:.1%}, last rate {rate:.4f}")

assert found["plain"]["held_out_loss"] > 2.2
assert found["two levels"]["held_out_loss"] < 0.25
found |= {"seeds": SEEDS, "steps": 300, "cpu_seconds": round(time.process_time() - begin, 1)}
if not QUICK:
    path = Path(__file__).parent / "results" / "towers.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
