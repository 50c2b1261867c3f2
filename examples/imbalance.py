"""Learning to reweight imbalanced classes: 100 images of each of the digits 0 to 4, 4 of each of 5 to 9.

Two levels in turns: the lower one trains a net 64-64-10, every class with a weight of its own; the upper one moves
these ten weights down the loss of the model on 10 images of each digit, through one step of the lower (after Ren et
al. 2018). Those images are in every training, at a small share. Beside it: these images alone, weights all alike, and
the reciprocal frequencies. Judged on 60 more images of each digit, by seeds 0 to 4 (settings: by 10 and 11).

    python imbalance.py            writes results/imbalance.json
    python imbalance.py --quick    one seed, fewer steps
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
SEEDS, STEPS = ([0], 300) if QUICK else (range(5), 600)
SHARE, DECAY = 0.1, 0.003  # of the balanced images, and of the squares of the weights, in the lower loss
FREQUENCY = np.repeat([100, 4], 5)
images, labels = load_digits(return_X_y=True)
images = np.float32(images / 16)


def shares(model, x):
    (w1, b1), (w2, b2) = model
    return jax.nn.log_softmax(jax.nn.relu(x @ w1 + b1) @ w2 + b2)


def losses(p, batch):
    return -jnp.sum(jnp.eye(10)[batch[1]] * shares(p["model"], batch[0]), axis=1)


def experiment(seed):
    """Test accuracy of every way to train, on all digits and on the rare ones; and the learned class weights."""
    draw = np.random.default_rng(seed)
    each = [draw.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    cuts = [[own[:10], own[10:70], own[70 : 70 + n]] for own, n in zip(each, FREQUENCY, strict=True)]
    balanced, test, train = ((images[i], labels[i]) for i in map(np.concatenate, zip(*cuts, strict=True)))
    start = [(np.float32(draw.normal(size=(64, n)) / 8), jnp.zeros(n)) for n in (64, 10)]

    def trained(scores, adjoint=None, data=train):
        def lower(p, batch):
            weights = jax.nn.softmax(p["weights"] if adjoint else scores)[batch[1]]
            loss = jnp.average(losses(p, batch), weights=weights) + SHARE * jnp.mean(losses(p, balanced))
            return loss + DECAY * sum(jnp.sum(w**2) for w, _ in p["model"])

        sgd = nestor.sgd(nestor.schedules.Cosine(0.1, STEPS), momentum=0.9)
        levels = {"model": nestor.Level(lower, start, sgd, data=data, batch_size=100, adjoint=adjoint)}
        if adjoint:
            adam, upper = nestor.adam(0.03), lambda p, batch: jnp.mean(losses(p, batch))
            levels["weights"] = nestor.Level(upper, scores, adam, data=balanced)
        found = nestor.Graph(levels).run(STEPS).params
        hit = np.asarray(shares(found["model"], test[0]).argmax(axis=1) == test[1])
        return [float(hit.mean()), float(hit[test[1] >= 5].mean())], found.get("weights")

    alike, frequent = jnp.zeros(10), jnp.log(np.float32(FREQUENCY))
    ways = {"balanced alone": (alike, None, balanced), "alike": (alike,), "by frequency": (-frequent,)}
    ways["learned"] = (alike, nestor.SAMA(None))
    done = {name: trained(*way) for name, way in ways.items()}
    return {name: done[name][0] for name in done}, jax.nn.softmax(done["learned"][1]) * 10


rows, weights = zip(*map(experiment, SEEDS), strict=True)
mean = {way: np.mean([row[way] for row in rows], axis=0).round(4).tolist() for way in rows[0]}
found = {"accuracy, of all and of rare": mean, "weights": np.mean(weights, axis=0).round(3).tolist()}
found["cpu_seconds"] = round(time.process_time(), 1)
print(json.dumps(found))
assert mean["learned"][0] > max(mean["balanced alone"][0], mean["alike"][0])
if not QUICK:
    (Path(__file__).parent / "results" / "imbalance.json").write_text(json.dumps(found, indent=2) + "\n")
