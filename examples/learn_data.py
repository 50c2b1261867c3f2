"""Ten images, learned from nothing, that teach a classifier what 1300 photographed digits know.

A logistic model 784-10 is trained for 20 steps on ten images, one for each label. The images start black;
their 7840 pixels and the learning rate descend on the loss of that model on real digits.
(Maclaurin, Duvenaud, Adams 2015, section 3.3; scikit-learn's digits, enlarged to 28 x 28, in place of MNIST.)

    python learn_data.py            writes results/learn_data.json
    python learn_data.py --quick    8 x 8 pixels, fewer outer steps
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
SIDE, OUTER_STEPS, OUTER_RATE = (8, 100, 0.06) if QUICK else (28, 400, 0.02)

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images = jax.image.resize(images[order].reshape(-1, 8, 8) / 16, (len(labels), SIDE, SIDE), "bilinear")
images, labels = images.reshape(len(labels), -1), jnp.eye(10)[labels[order]]
real, test = (images[:1300], labels[:1300]), (images[1300:], labels[1300:])
blank = {"weights": jnp.zeros((SIDE**2, 10)), "biases": jnp.zeros(10)}


def logits(model, x):
    return x @ model["weights"] + model["biases"]


def loss(model, batch):
    return -jnp.mean(jnp.sum(batch[1] * jax.nn.log_softmax(logits(model, batch[0])), axis=1))


def measured(model):
    wrong = jnp.argmax(logits(model, test[0]), axis=1) != jnp.argmax(test[1], axis=1)
    return {"test_error": float(jnp.mean(wrong)), "test_loss": float(loss(model, test))}


def taught(images, rate):
    """The model after training on ten images, one of each digit in order."""
    return nestor.train(loss, blank, (images, jnp.eye(10)), optimizer=nestor.sgd(rate, 0.5), steps=20).params


def outer(hyper, batch):
    return loss(taught(hyper["images"], jnp.exp(hyper["log rate"])), batch)


begin = time.process_time()
hyper = {"images": jnp.zeros((10, SIDE**2)), "log rate": jnp.log(0.1)}
rates = nestor.schedules.Cosine(OUTER_RATE, OUTER_STEPS)
run = nestor.train(outer, hyper, real, optimizer=nestor.adam(rates), steps=OUTER_STEPS)
model = taught(run.params["images"], jnp.exp(run.params["log rate"]))

means = (real[1].T @ real[0]) / real[1].sum(axis=0)[:, None]
by_means = [measured(taught(means, rate)) for rate in (0.01, 0.1, 1.0)]  # the best is chosen on the test
by_all = nestor.train(loss, blank, real, optimizer=nestor.sgd(0.1, 0.9), steps=1000).params
found = {
    "learned_images": measured(model),
    "mean_images": min(by_means, key=lambda m: m["test_error"]),
    "all_1300_real_images": measured(by_all),
    "outer_losses": [float(run.history.loss[i]) for i in (0, -1)],
    "outer_steps": OUTER_STEPS,
    "cpu_seconds": round(time.process_time() - begin, 1),
}
print(json.dumps(found, indent=2))
assert found["learned_images"]["test_error"] < (0.06 if QUICK else 0.04)
if not QUICK:
    path = Path(__file__).parent / "results" / "learn_data.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
