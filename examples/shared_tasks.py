"""Learned sharing: which tasks should have similar weights, layer by layer?

Nine tasks, each to tell eight characters apart from two drawings of each: three alphabets of random strokes, each in
three rotations. A quadratic penalty pulls the nets of every two tasks together; its strengths, by layer and pair,
are learned by hypergradients of the validation loss (Maclaurin, Duvenaud, Adams 2015, section 4.4, on Omniglot).
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
KINDS, STEPS, OUTER = (("shared",), 50, 8) if QUICK else (("separate", "tied", "shared"), 100, 40)
ALPHABETS, TASKS, CHARACTERS, SIDE, HIDDEN = 3, 9, 8, 12, 32  # task i is about alphabet i % ALPHABETS
(ONE, OTHER), random = np.triu_indices(TASKS, 1), np.random.default_rng(0)
characters = random.uniform(-1, 1, size=(ALPHABETS, CHARACTERS, 1, 2, 3, 2))  # two strokes of three points


def drawings(count):
    """So many of each character, in an unsteady hand: images (tasks, characters * count, pixels), and labels."""
    turned = [
        characters @ [[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]] for a in np.deg2rad([-15, 0, 15])
    ]
    strokes = np.repeat(np.concatenate(turned), count, axis=2)
    shaken = strokes + 0.15 * random.normal(size=strokes.shape)
    moved, t = shaken + 0.15 * random.normal(size=(*shaken.shape[:3], 1, 1, 2)), np.linspace(0, 1, 10)
    ink = np.einsum("kp,...kd->...pd", [(1 - t) ** 2, 2 * t * (1 - t), t**2], moved)
    grid = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, SIDE)] * 2, indexing="ij"), -1).reshape(-1, 1, 1, 2)
    images = np.exp(-np.sum((ink[:, :, :, None] - grid) ** 2, axis=-1).min(axis=(-2, -1)) / 0.03)
    return jnp.asarray(images.reshape(TASKS, -1, SIDE**2), float), jnp.repeat(jnp.arange(CHARACTERS), count)


def cross_entropy(nets, part):  # the mean over the tasks; the last rows of layers are biases
    hidden = jnp.tanh(part[0] @ nets[0][:, :-1] + nets[0][:, -1:])
    logits = hidden @ nets[1][:, :-1] + nets[1][:, -1:]
    return -jnp.mean(jax.nn.log_softmax(logits)[:, jnp.arange(len(part[1])), part[1]])


def trained(hyper, kind):
    """The nets of all tasks: one for all of them, each for itself, or pulled together."""
    net_of = np.zeros(TASKS, int) if kind == "tied" else np.arange(TASKS)

    def loss(nets, _):
        nets = [layer[net_of] for layer in nets]
        penalty = jnp.exp(hyper["size"]) @ jnp.stack([jnp.sum(layer**2) for layer in nets])
        apart = jnp.stack([jnp.sum((layer[ONE] - layer[OTHER]) ** 2, axis=(1, 2)) for layer in nets])
        penalty += jnp.sum(jnp.exp(hyper["pull"]) * apart) if kind == "shared" else 0.0
        return cross_entropy(nets, train) + penalty / (2 * TASKS)

    own = [jnp.repeat(layer[None], net_of.max() + 1, axis=0) for layer in start]
    sgd = nestor.sgd(0.2 if kind == "tied" else 1.0, momentum=0.9)
    return [layer[net_of] for layer in nestor.train(loss, own, None, optimizer=sgd, steps=STEPS).params]


train, validation, test = drawings(2), drawings(10), drawings(20)
shapes = (SIDE**2 + 1, HIDDEN), (HIDDEN + 1, CHARACTERS)
start = [jax.random.normal(jax.random.key(rows), (rows, columns)) / rows**0.5 for rows, columns in shapes]
begin, found = time.process_time(), {}
for kind in KINDS:
    held_out = lambda hyper, _, kind=kind: cross_entropy(trained(hyper, kind), validation)  # noqa: E731
    hyper = {"size": jnp.full(2, -5.0), "pull": jnp.full((2, len(ONE)), -6.0)}  # logarithms
    outer = nestor.train(held_out, hyper, None, optimizer=nestor.adam(0.3), steps=OUTER)
    found[kind] = float(cross_entropy(trained(outer.params, kind), test))
    print(f"{kind}: test loss {found[kind]:.3f}, validation loss from {outer.history.loss[0]:.3f}")
same = ONE % ALPHABETS == OTHER % ALPHABETS
within, across = outer.params["pull"][:, same].mean(axis=1), outer.params["pull"][:, ~same].mean(axis=1)
print(f"mean log strength in the two layers: {within} within an alphabet, {across} across")
assert jnp.all(within > across + 0.5)
if not QUICK:
    assert found["shared"] < 0.85 * min(found["separate"], found["tied"])
    found |= {"log_strengths": [within.tolist(), across.tolist()], "cpu_seconds": time.process_time() - begin}
    (Path(__file__).parent / "results" / "shared_tasks.json").write_text(json.dumps(found, indent=2) + "\n")
