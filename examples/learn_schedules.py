"""A rate and a momentum for every layer and step of a training run, learned through its exact reversal.

A net 784-50-50-50-10 trains for 100 steps on the digits, from 8 x 8 enlarged to 28 x 28 pixels. Where they lead is a
function of 1608 numbers: for each matrix and bias 100 rates, 100 momenta, the scale of its start. These take 50
steps of Adam, each with a fresh start and fresh batches. (Maclaurin, Duvenaud, Adams 2015, section 3.1.)

    python learn_schedules.py            writes results/learn_schedules.json
    python learn_schedules.py --quick    a net 64-50-10, shorter runs
"""

import itertools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

import nestor

QUICK = "--quick" in sys.argv
WIDTHS = (64, 50, 10) if QUICK else (784, 50, 50, 50, 10)
STEPS, OUTER_STEPS, RATE = (20, 15, 0.15) if QUICK else (100, 50, 0.06)

images, labels = load_digits(return_X_y=True)
order, side = np.random.default_rng(0).permutation(len(labels)), round(WIDTHS[0] ** 0.5)
images = jax.image.resize(images[order].reshape(-1, 8, 8) / 16, (len(labels), side, side), "bilinear")
images, labels = images.reshape(len(labels), -1), jnp.eye(10)[labels[order]]
train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])
EMPTY = [(jnp.zeros((n, m)), jnp.zeros(m)) for n, m in itertools.pairwise(WIDTHS)]
FLAT, unflatten = ravel_pytree(EMPTY)


def logits(net, x):
    for weights, biases in net[:-1]:
        x = jnp.tanh(x @ weights + biases)
    return x @ net[-1][0] + net[-1][1]


def loss(net, batch):
    return -jnp.mean(jnp.sum(batch[1] * jax.nn.log_softmax(logits(net, batch[0])), axis=1))


def trained(hyper, key):
    """The net after the run. The key draws its start and its batches."""
    drawn = unflatten(jax.random.normal(key, FLAT.shape))
    start = jax.tree.map(lambda leaf, scale: jnp.exp(scale) * leaf, drawn, hyper["log scales"])
    rates, momenta = jax.tree.map(jnp.exp, hyper["log rates"]), jax.tree.map(jax.nn.sigmoid, hyper["momenta"])
    options = {"steps": STEPS, "batch_size": 200, "key": key, "adjoint": nestor.Reversible(bits=4 * STEPS)}
    return nestor.train(loss, start, train, optimizer=nestor.sgd(rates, momenta), **options).params


@jax.jit
def outcome(hyper, key):
    net = trained(hyper, key)
    return loss(net, train), jnp.mean(jnp.argmax(logits(net, test[0]), 1) != jnp.argmax(test[1], 1))


each = lambda value, *shape: jax.tree.map(lambda _: jnp.full(shape, value), EMPTY)  # noqa: E731
hyper = {"log rates": each(np.log(0.06), STEPS), "momenta": each(0.0, STEPS), "log scales": each(np.log(0.1))}
outer = nestor.adam(nestor.schedules.Cosine(RATE, 60), b2=0.99)
begin = time.process_time()
final_loss = lambda hyper, _, key: loss(trained(hyper, key), train)  # noqa: E731
run = nestor.train(final_loss, hyper, None, optimizer=outer, steps=OUTER_STEPS, stochastic=True, clip=0.02)
found = {"hyperparameters": len(ravel_pytree(hyper)[0]), "fresh_seeds": 5}
for name, value in (("before", hyper), ("after", run.params)):
    ends = np.array([outcome(value, key) for key in jax.random.split(jax.random.key(1000), 5)])
    found[name] = {"training_loss": float(ends[:, 0].mean()), "test_error": float(ends[:, 1].mean())}
found["outer_losses"] = run.history.loss[::7].tolist()
found["cpu_seconds"] = round(time.process_time() - begin, 1)
print(json.dumps(found, indent=2))
assert found["after"]["training_loss"] < (0.25 * found["before"]["training_loss"] if QUICK else 0.02)
if not QUICK:
    assert found["after"]["test_error"] < 0.04
    (Path(__file__).parent / "results/learn_schedules.json").write_text(json.dumps(found, indent=2) + "\n")
