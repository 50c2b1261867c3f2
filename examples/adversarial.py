"""Digits that stay digits when somebody moves every pixel a little: training as a game of min and max.

The lower level moves the pixels of every image, inside a box, so that the net is wrong; the level above trains the
net on what it made. By Danskin's theorem the derivative does not go through the attack, so `stop_gradient` is exact.
The attack goes on from where it was, three steps for each of the net. (Madry et al. 2018; Shafahi et al. 2019.)

    python adversarial.py    writes results/adversarial.json; with --quick, fewer steps
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import nestor

QUICK = "--quick" in sys.argv
STEPS, BOX = (60 if QUICK else 400), 0.15
images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.eye(10)[labels[order]]
train, test = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])
keys = jax.random.split(jax.random.key(0), 3)
start = {"in": jax.random.normal(keys[0], (64, 64)) / 8, "in bias": jnp.zeros(64)}
start |= {"out": jax.random.normal(keys[1], (64, 10)) / 80, "out bias": jnp.zeros(10)}


def logits(net, x):
    return jax.nn.relu(x @ net["in"] + net["in bias"]) @ net["out"] + net["out bias"]


def losses(net, x, y):
    return -jnp.sum(y * jax.nn.log_softmax(logits(net, x)), axis=1)


def accuracy(net, x, y):
    return float(jnp.mean(jnp.argmax(logits(net, x), axis=1) == jnp.argmax(y, axis=1)))


def attack_on(part, net_of, **more):
    """The level that moves the pixels of these images; Adam moves them all alike, as signs of gradients do."""
    return nestor.Level(
        lambda p, _: -jnp.sum(losses(net_of(p), part[0] + p["attack"], part[1])),
        jax.random.uniform(keys[2], part[0].shape, minval=-BOX, maxval=BOX),
        nestor.adam(BOX / 5),
        project=lambda moved: jnp.clip(part[0] + jnp.clip(moved, -BOX, BOX), 0.0, 1.0) - part[0],
        **more,
    )


def trained(robust):
    """The net after training on the attacked images, or on the images as they are."""

    def defence(p, _):
        moved = jax.lax.stop_gradient(p["attack"]) if robust else 0.0
        return jnp.mean(losses(p["net"], train[0] + moved, train[1]))

    net = nestor.Level(defence, start, nestor.adam(3e-3))
    lower = (
        {"attack": attack_on(train, lambda p: p["net"], steps=3, adjoint=nestor.OneStep())} if robust else {}
    )
    return nestor.Graph({**lower, "net": net}).run(STEPS).params["net"]


found = {}
for name in ("plain", "adversarial"):
    net = trained(name == "adversarial")
    attack = nestor.Graph({"attack": attack_on(test, lambda p, net=net: net)}).run(100).params["attack"]
    found[name] = {"clean_accuracy": accuracy(net, *test)}
    found[name]["accuracy_under_attack"] = accuracy(net, test[0] + attack, test[1])
print(json.dumps(found | {"box": BOX}, indent=2))
assert found["adversarial"]["accuracy_under_attack"] > found["plain"]["accuracy_under_attack"] + 0.1
if not QUICK:
    (Path(__file__).parent / "results" / "adversarial.json").write_text(json.dumps(found, indent=2) + "\n")
