"""A rate and a momentum for every layer and step of a training run, learned through its exact reversal.

A net 784-50-50-50-10 is trained on the digits for 100 steps. Where those steps lead is a function of 1608
numbers: for each weight matrix and each bias 100 rates, 100 momenta, and the scale of its start. They take
50 steps of Adam, each with a fresh start and fresh batches, towards a lower training loss.
After Maclaurin, Duvenaud, Adams 2015, section 3.1; digits of 8x8 pixels, enlarged, in place of MNIST.

    pip install 'nestor[demo]' && python learn_schedules.py [--quick]
"""

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

QUICK = "--quick" in sys.argv  # a smaller net, shorter runs
SIDE, STEPS, OUTER, RATE = (8, 20, 15, 0.1) if QUICK else (28, 100, 50, 0.06)
LAYERS = [SIDE * SIDE, 50, 50, 50, 10]

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images = jax.image.resize(images.reshape(-1, 8, 8)[order] / 16, (len(labels), SIDE, SIDE), "bilinear")
images, labels = images.reshape(len(labels), -1), jnp.asarray(labels[order])
train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])
EMPTY = [(jnp.zeros((n, m)), jnp.zeros(m)) for n, m in zip(LAYERS[:-1], LAYERS[1:], strict=True)]
FLAT, unflatten = ravel_pytree(EMPTY)


def logits(net, x):
    for weights, biases in net[:-1]:
        x = jnp.tanh(x @ weights + biases)
    return x @ net[-1][0] + net[-1][1]


def loss(net, batch):
    log_p = jax.nn.log_softmax(logits(net, batch[0]))
    return -jnp.mean(jnp.take_along_axis(log_p, batch[1][:, None], axis=1))


def trained(hyper, key):
    """The net after the run. The key draws its start and its batches."""
    drawn = unflatten(jax.random.normal(key, FLAT.shape))
    start = jax.tree.map(lambda leaf, scale: jnp.exp(scale) * leaf, drawn, hyper["log scales"])
    rates, momenta = jax.tree.map(jnp.exp, hyper["log rates"]), jax.tree.map(jax.nn.sigmoid, hyper["momenta"])
    optimizer, adjoint = nestor.sgd(rates, momenta), nestor.Reversible(bits=4 * STEPS)
    options = {"optimizer": optimizer, "steps": STEPS, "batch_size": 200, "key": key, "adjoint": adjoint}
    return nestor.train(loss, start, train, **options).params


@jax.jit
def outcome(hyper):
    """Mean training loss and test error of five runs with keys that tuning has not seen."""

    def one(key):
        net = trained(hyper, key)
        return loss(net, train), jnp.mean(jnp.argmax(logits(net, test[0]), axis=1) != test[1])

    return jax.tree.map(jnp.mean, jax.lax.map(one, jax.random.split(jax.random.key(1000), 5)))


each = lambda value, *shape: jax.tree.map(lambda _: jnp.full(shape, value), EMPTY)  # noqa: E731
hyper = {"log rates": each(np.log(0.06), STEPS), "momenta": each(0.0, STEPS), "log scales": each(np.log(0.1))}
begun = time.time()
outer = nestor.train(
    lambda hyper, _, key: loss(trained(hyper, key), train),
    hyper, None, optimizer=nestor.adam(RATE), steps=OUTER, stochastic=True, callback=print, report_every=10,
)  # fmt: skip
(before, error), (after, tuned_error) = outcome(hyper), outcome(outer.params)
result = {
    "hyperparameters": len(ravel_pytree(hyper)[0]),
    "outer steps": OUTER,
    "training loss": {"before": round(float(before), 4), "after": round(float(after), 4)},
    "test error": {"before": round(float(error), 4), "after": round(float(tuned_error), 4)},
    "seeds": "tuned with those of jax.random.key(0), measured with five from jax.random.key(1000)",
    "seconds": round(time.time() - begun),
}
print(json.dumps(result, indent=1))
assert after < before / 3
if not QUICK:
    assert after <= 0.02 and tuned_error <= 0.04
    Path(__file__).with_name("results").joinpath("learn_schedules.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )
