"""Which labels are wrong? One weight for each training example, tuned on a small clean validation set.

Half of 1000 digits (8 x 8 pixels) get a random label. The weights, sigmoids of 1000 numbers, descend on the loss that a
weighted training run reaches on 200 clean images; the examples whose weight falls below a half are called bad.
Compared with the same training on the noisy set, on the clean images alone, on both together, and on
the examples that really are good (the oracle). (Franceschi et al. 2017, section 5.1.)

    python hyper_cleaning.py            writes results/hyper_cleaning.json
    python hyper_cleaning.py --quick    one seed, fewer outer steps
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

SEEDS, OUTER_STEPS = (1, 30) if "--quick" in sys.argv else (5, 100)
images, labels = load_digits(return_X_y=True)
images = np.hstack([images / 16, np.ones((len(labels), 1))]).astype(np.float32)  # a last column for the biases


def losses(model, x, y):
    log_p = jax.nn.log_softmax(x @ model)
    return -jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]


def trained(x, y, weights):
    """The model of 100 steps of gradient descent with momentum, every example with its weight."""

    def loss(model, batch):
        return jnp.mean(weights * losses(model, x, y)) + 1e-3 * jnp.sum(model**2)

    optimizer = nestor.sgd(0.5, momentum=0.9)
    return nestor.train(loss, jnp.zeros((65, 10)), None, optimizer=optimizer, steps=100).params


def f1(called, bad):
    return float(2 * np.sum(called & bad) / (np.sum(called) + np.sum(bad)))


def experiment(seed):
    """Test error of every way to train, and the F1 of the bad labels that it finds."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(labels))
    (x, y), clean, test = ((images[order[s]], labels[order[s]]) for s in (slice(1000), slice(1000, 1200), slice(1200, None)))
    noisy = np.where(draw.random(1000) < 0.5, draw.integers(0, 10, 1000), y)
    bad = noisy != y

    def outer(numbers, _):
        return jnp.mean(losses(trained(x, noisy, jax.nn.sigmoid(numbers)), *clean))

    run = nestor.train(outer, jnp.zeros(1000), None, optimizer=nestor.adam(OUTER_RATE), steps=OUTER_STEPS)
    weights = jax.nn.sigmoid(run.params)
    both = np.concatenate([x, clean[0]]), np.concatenate([noisy, clean[1]])
    models = {
        "noisy": trained(x, noisy, np.ones(1000)),
        "clean alone": trained(*clean, np.ones(200)),
        "noisy and clean": trained(*both, np.ones(1200)),
        "cleaned": trained(x, noisy, weights),
        "cleaned and clean": trained(*both, np.concatenate([weights, np.ones(200)])),
        "oracle": trained(x, noisy, 1.0 - bad),
    }
    row = {}
    for name, model in models.items():
        called = np.asarray(weights) < 0.5 if name=="cleaned" else np.argmax(x @ model, axis=1) != noisy
        row[name] = float(np.mean(np.argmax(test[0] @ model, axis=1) != test[1])), f1(called, bad)
    return row, run.history.loss[::10]

OUTER_RATE=float(sys.argv[-1])
begin = time.process_time()
for seed in range(2): print(*experiment(seed), sep="\n"); print(time.process_time()-begin,flush=True)
