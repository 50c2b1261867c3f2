"""A rate and a momentum for every layer and step of a training run, learned through its exact reversal.

A net 784-50-50-50-10 is trained on the digits for 100 steps. What those steps lead to is a function of 1608
numbers: for each weight matrix and each bias 100 rates, 100 momenta and the scale of its start. Fifty
steps of Adam on them, each with another start and other batches. After Maclaurin, Duvenaud, Adams 2015, section 3.1.

    pip install 'nestor[demo]' && python learn_schedules.py [--quick]
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
SIDE, STEPS, OUTER, RATE = (8, 20, 15, 0.1) if QUICK else (28, 100, 50, 0.04)
LAYERS = [SIDE * SIDE, 50, 50, 50, 10]

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images = jax.image.resize(images.reshape(-1, 8, 8)[order] / 16, (len(labels), SIDE, SIDE), "bilinear")
images, labels = images.reshape(len(labels), -1), jnp.asarray(labels[order])
train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])


def logits(net, x):
    for weights, biases in net[:-1]:
        x = jnp.tanh(x @ weights + biases)
    return x @ net[-1][0] + net[-1][1]


def loss(net, batch):
    log_p = jax.nn.log_softmax(logits(net, batch[0]))
    return -jnp.mean(jnp.take_along_axis(log_p, batch[1][:, None], axis=1))


def trained(hyper, key):
    """The net after the run; start and batches are drawn by the key."""
    keys = jax.random.split(key, 2 * len(LAYERS))
    shapes = [((n, m), (m,)) for n, m in zip(LAYERS, LAYERS[1:], strict=False)]
    scales = jax.tree.leaves(hyper["log scale"])
    drawn = [jnp.exp(s) * jax.random.normal(k, shape) for s, k, shape in zip(scales, keys, sum(shapes, ()), strict=False)]
    start = jax.tree.unflatten(jax.tree.structure(hyper["log scale"]), drawn)
    optimizer = nestor.sgd(jax.tree.map(jnp.exp, hyper["log rate"]), jax.tree.map(jax.nn.sigmoid, hyper["logit momentum"]))
    adjoint = nestor.Reversible(bits=4 * STEPS)
    return nestor.train(loss, start, train, optimizer=optimizer, steps=STEPS, batch_size=200, key=keys[-1], adjoint=adjoint)


def final_loss(hyper, _, key):
    return loss(trained(hyper, key).params, train)


@jax.jit
def outcome(hyper):
    """Mean training loss and test error over five seeds that tuning has not seen."""

    def one(key):
        net = trained(hyper, key).params
        return loss(net, train), jnp.mean(jnp.argmax(logits(net, test[0]), axis=1) != test[1])

    return jax.tree.map(jnp.mean, jax.lax.map(one, jax.random.split(jax.random.key(1000), 5)))


everywhere = lambda value, *shape: [(jnp.full(shape, value),) * 2] * 4  # noqa: E731
hyper = {
    "log rate": everywhere(np.log(0.1), STEPS),
    "logit momentum": everywhere(0.0, STEPS),
    "log scale": everywhere(np.log(0.1)),
}
begun = time.time()
outer = nestor.train(final_loss, hyper, None, optimizer=nestor.adam(RATE), steps=OUTER, stochastic=True, callback=lambda r: print(r.step, r.loss, time.time()-begun), report_every=1)
print(time.time()-begun)
print(outcome(hyper), outcome(outer.params), time.time()-begun)
