"""Equinox models, trained as they are: a feed-forward and a convolutional net on images of digits.

A model is the tree of parameters: `nestor.train` moves its floating-point arrays and leaves the rest. The loss at
the end is a function of the learning rate and the momentum; its gradient is checked against a difference.

    python equinox_images.py            writes results/equinox_images.json
    python equinox_images.py --quick    fewer steps
"""

import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

import nestor

jax.config.update("jax_enable_x64", True)
QUICK = "--quick" in sys.argv
STEPS = 40 if QUICK else 300

pixels, labels = load_digits(return_X_y=True)
order = jax.random.permutation(jax.random.key(0), len(labels))
pixels, labels = jnp.asarray(pixels / 16)[order].reshape(-1, 1, 8, 8), jnp.asarray(labels)[order]
train, test = (pixels[:1200], labels[:1200]), (pixels[1200:], labels[1200:])

silu, flat = eqx.nn.Lambda(jax.nn.silu), eqx.nn.Lambda(jnp.ravel)  # smooth: differences do not jump
keys = jax.random.split(jax.random.key(1), 5)
nets = {
    "feed-forward": [flat, eqx.nn.Linear(64, 32, key=keys[0]), silu, eqx.nn.Linear(32, 10, key=keys[1])],
    "convolutional": [
        *(eqx.nn.Conv2d(1, 8, 3, padding=1, key=keys[2]), silu, eqx.nn.AvgPool2d(2, 2)),
        *(eqx.nn.Conv2d(8, 16, 3, key=keys[3]), silu, flat, eqx.nn.Linear(64, 10, key=keys[4])),
    ],
}


def loss(model, batch):
    images, names = batch
    return -jnp.mean(jax.vmap(lambda x, n: jax.nn.log_softmax(model(x))[n])(images, names))


begin, found = time.process_time(), {}
for name, layers in nets.items():
    model = eqx.nn.Sequential(layers)

    def trained(hyper, model=model):
        """The loss on the test images and the errors after training, from the log rate and the momentum."""
        optimizer = nestor.sgd(jnp.exp(hyper[0]), hyper[1])
        end = nestor.train(loss, model, train, optimizer=optimizer, steps=STEPS, batch_size=50).params
        wrong = jnp.argmax(jax.vmap(end)(test[0]), axis=1) != test[1]
        return loss(end, test), jnp.mean(wrong)

    hypergradient = jax.jit(jax.value_and_grad(trained, has_aux=True))
    at, along = jnp.array([jnp.log(0.1), 0.8]), jnp.array([1.0, 0.1])
    (after, wrong), slopes = hypergradient(at)
    (above, _), _ = hypergradient(at + 1e-6 * along)
    (below, _), _ = hypergradient(at - 1e-6 * along)
    slope, difference = float(slopes @ along), float(above - below) / 2e-6
    before, after, wrong = float(loss(model, test)), float(after), float(wrong)
    found[name] = {"loss_before": before, "loss_after": after, "error": wrong, "slopes": slopes.tolist()}
    print(f"{name}: test loss {before:.3f} -> {after:.3f}, {wrong:.1%} wrong")
    print(f"  slope by log rate {slopes[0]:+.4f}, by momentum {slopes[1]:+.4f}; along (1, 0.1): {slope:+.6f}")
    print(f"  by a difference {difference:+.6f}")
    assert after < (0.9 if QUICK else 0.2) * before
    assert abs(slope - difference) < 1e-4 * abs(difference) + 1e-7
    found[name] |= {"slope": slope, "difference": difference}

if not QUICK:
    found["cpu_seconds"] = round(time.process_time() - begin, 1)
    path = Path(__file__).parent / "results" / "equinox_images.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
