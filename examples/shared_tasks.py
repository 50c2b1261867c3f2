"""Learned sharing between related tasks: which tasks should have similar weights, layer by layer?

Six tasks, each to tell eight characters of an alphabet apart from three examples of each: three alphabets of random
strokes, upright and turned by 90 degrees. Each task has its own net; a quadratic penalty pulls the nets of every
two tasks together, with one strength for each layer and pair of tasks. These 36 numbers are learned by the
hypergradient of the validation loss, through the whole training. (Maclaurin, Duvenaud, Adams 2015, section 4.4, with
drawn alphabets in place of Omniglot.)

    python shared_tasks.py            writes results/shared_tasks.json
    python shared_tasks.py --quick    a few steps
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import nestor

QUICK = "--quick" in sys.argv
ALPHABETS, CHARACTERS, SIDE, HIDDEN = 3, 8, 12, 32
TASKS, STEPS, OUTER = 2 * ALPHABETS, 50 if QUICK else 150, 5 if QUICK else 60
PAIRS = np.triu_indices(TASKS, 1)
random = np.random.default_rng(0)


def drawn(strokes):
    """An image of one character: its strokes, unsteadily drawn, as ink that fades with the distance."""
    strokes = strokes + 0.07 * random.normal(size=strokes.shape) + 0.07 * random.normal(size=2)
    t = np.linspace(0, 1, 12)[:, None, None]
    curve = ((1 - t) ** 2 * strokes[:, 0] + 2 * t * (1 - t) * strokes[:, 1] + t**2 * strokes[:, 2]).reshape(-1, 2)
    grid = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, SIDE)] * 2, indexing="ij"), -1)
    return np.exp(-((grid[:, :, None] - curve) ** 2).sum(-1).min(-1) / 0.03)


def sample(count):
    """Images (tasks, characters * count, pixels): the second half of the tasks are the first, turned."""
    upright = np.array([[drawn(strokes) for strokes in alphabet for _ in range(count)] for alphabet in characters])
    turned = np.array([[drawn(strokes) for strokes in alphabet for _ in range(count)] for alphabet in characters])
    images = np.concatenate([upright, np.rot90(turned, axes=(2, 3))])
    return jnp.asarray(images.reshape(TASKS, -1, SIDE**2), jnp.float32), jnp.repeat(jnp.arange(CHARACTERS), count)


characters = random.uniform(-1, 1, size=(ALPHABETS, CHARACTERS, 2, 3, 2))  # two bent strokes of three points each
train, validation, test = sample(3), sample(10), sample(20)


def cross_entropy(nets, part):
    """The mean over the tasks; a net is a list of layers whose first axis are the tasks."""
    images, names = part
    hidden = jnp.tanh(jnp.einsum("tni,tih->tnh", images, nets[0][:, :-1]) + nets[0][:, -1:])
    logits = jnp.einsum("tnh,thc->tnc", hidden, nets[1][:, :-1]) + nets[1][:, -1:]
    return -jnp.mean(jax.nn.log_softmax(logits)[:, jnp.arange(len(names)), names])


def penalty(nets, hyper):
    """Half the sum over layers of size |W|^2 and of strength |W_i - W_j|^2 over the pairs of tasks."""
    total = 0.0
    for weights, size, strength in zip(nets, jnp.exp(hyper["size"]), hyper["strength"], strict=True):
        apart = weights[PAIRS[0]] - weights[PAIRS[1]]
        total += size * jnp.sum(weights**2) + jnp.sum(jnp.exp(strength) * jnp.sum(apart**2, axis=(1, 2)))
    return total / 2


def trained(hyper, tied):
    shapes = [(SIDE**2 + 1, HIDDEN), (HIDDEN + 1, CHARACTERS)]
    keys = jax.random.split(jax.random.key(0), 2)
    start = [jax.random.normal(k, s) / s[0]**0.5 for k, s in zip(keys, shapes)]
    copies = lambda net: [jnp.repeat(w[None], TASKS, 0) for w in net]
    if tied:
        loss = lambda net, batch: cross_entropy(copies(net), batch) + penalty(copies(net), hyper)
    else:
        loss, start = lambda nets, batch: cross_entropy(nets, batch) + penalty(nets, hyper), copies(start)
    nets = nestor.train(loss, start, None if 0 else None, optimizer=nestor.sgd(0.3, 0.9), steps=STEPS).params
    return copies(nets) if tied else nets
