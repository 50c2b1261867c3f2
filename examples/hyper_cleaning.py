"""Which labels are wrong? One weight for each training example, tuned on a small clean validation set.

Half of 1000 digits (8 x 8 pixels) get a random label. The weights, sigmoids of 1000 numbers, descend on the loss that
a weighted run reaches on 200 clean images. Beside it: the noisy set, the clean images, both, and only the good
examples (the oracle). A model calls bad the labels that it would not have given. (Franceschi et al. 2017, 5.1.)

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

QUICK = "--quick" in sys.argv
SEEDS, OUTER_STEPS = (1, 30) if QUICK else (5, 100)
images, labels = load_digits(return_X_y=True)
images = jnp.hstack([images / 16, np.ones((len(labels), 1))])  # the last column carries the biases


def losses(model, x, y):
    return -jnp.sum(jnp.eye(10)[y] * jax.nn.log_softmax(x @ model), axis=1)


def trained(x, y, weights):
    """The model of 100 steps of gradient descent with momentum, every example with its weight."""

    def loss(model, batch):
        return jnp.mean(weights * losses(model, x, y)) + 3e-4 * jnp.sum(model**2)

    return nestor.train(loss, jnp.zeros((65, 10)), None, optimizer=nestor.sgd(0.5, 0.9), steps=100).params


def experiment(seed):
    """Test error of every way to train, and the F1 of the bad labels that it finds."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(labels))
    (x, y), clean, test = ((images[i], labels[i]) for i in np.split(order, [1000, 1200]))
    noisy = np.where(draw.random(1000) < 0.5, draw.integers(0, 10, 1000), y)
    bad = noisy != y

    def outer(numbers, _):
        return jnp.mean(losses(trained(x, noisy, jax.nn.sigmoid(numbers)), *clean))

    run = nestor.train(outer, jnp.zeros(1000), None, optimizer=nestor.adam(0.3), steps=OUTER_STEPS)
    weights = jax.nn.sigmoid(run.params)
    both = np.concatenate([x, clean[0]]), np.concatenate([noisy, clean[1]])
    models = {
        "noisy": trained(x, noisy, np.ones(1000)),
        "clean": trained(*clean, np.ones(200)),
        "noisy and clean": trained(*both, np.ones(1200)),
        "cleaned": trained(x, noisy, weights),
        "cleaned and clean": trained(*both, np.concatenate([weights, np.ones(200)])),
        "oracle": trained(x, noisy, 1.0 - bad),
    }
    called = {name: np.argmax(x @ model, axis=1) != noisy for name, model in models.items()}
    called["weight below 0.5"] = np.asarray(weights) < 0.5
    wrong = {name: np.mean(np.argmax(test[0] @ model, axis=1) != test[1]) for name, model in models.items()}
    return wrong, {name: 2 * np.sum(c & bad) / (np.sum(c) + np.sum(bad)) for name, c in called.items()}


begin = time.process_time()
runs = [experiment(seed) for seed in range(SEEDS)]
error, f1 = ({name: float(np.mean([row[i][name] for row in runs])) for name in runs[0][i]} for i in range(2))
found = {"test_error": error, "f1": f1, "gap_to_the_oracle": error["cleaned"] - error["oracle"]}
found |= {"seeds": SEEDS, "cpu_seconds": round(time.process_time() - begin, 1)}
print(json.dumps(found, indent=2))
assert error["cleaned"] < error["noisy"]
assert f1["cleaned"] > f1["noisy"]
if not QUICK:
    (Path(__file__).parent / "results" / "hyper_cleaning.json").write_text(json.dumps(found, indent=2) + "\n")
