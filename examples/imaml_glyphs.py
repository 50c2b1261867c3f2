"""Five new letters, one drawing of each: iMAML on an alphabet of random strokes.

A task is to tell five characters apart, of which one drawing each is known. A net of 144-64-5 units learns from 400
characters where to start from; then it meets 100 others. (Rajeswaran et al. 2019, section 4.3, on Omniglot.)

    python imaml_glyphs.py    writes results/imaml_glyphs.json; with --quick, fewer steps
"""

import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

import nestor
from nestor import levels

QUICK = "--quick" in sys.argv
OUTER_STEPS, TASKS, WAYS, QUERIES, SIDE = (30 if QUICK else 1200), 16, 5, 5, 12
drawn = jax.random.uniform(jax.random.key(0), (500, 3, 3, 2), minval=-1.0)  # three strokes of three points
grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-1.3, 1.3, SIDE)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
labels = jnp.tile(jnp.arange(WAYS), 1 + QUERIES)
curve = jnp.stack([(1 - (t := jnp.linspace(0, 1, 10))) ** 2, 2 * t * (1 - t), t**2])


def picture(key, strokes):
    """One drawing of a character in an unsteady hand: its pixels."""
    keys = jax.random.split(key, 3)
    strokes += 0.08 * jax.random.normal(keys[0], strokes.shape) + 0.15 * jax.random.normal(keys[1], (1, 1, 2))
    angle = 0.2 * jax.random.normal(keys[2])
    turn = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])
    ink = jnp.einsum("kp,skd,de->spe", curve, strokes, turn).reshape(1, -1, 2)
    return jnp.exp(-jnp.sum((ink - grid) ** 2, axis=-1).min(axis=1) / 0.03)


def task(key, characters):  # support and query: images and labels
    which, how = jax.random.split(key)
    chosen = jax.random.choice(which, characters, (WAYS,), replace=False)
    images = jax.vmap(picture)(jax.random.split(how, len(labels)), chosen[labels])
    return (images[:WAYS], labels[:WAYS]), (images[WAYS:], labels[WAYS:])


@functools.partial(jax.jit, static_argnums=1)
def tasks(key, count, characters):
    return jax.vmap(lambda k: task(k, characters))(jax.random.split(key, count))


def logits(net, x):
    return jnp.tanh(x @ net["in"] + net["in bias"]) @ net["out"] + net["out bias"]


def loss(net, part):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(net, part[0])), part[1][:, None], axis=1))


def accuracy(classify, some):
    return float(jnp.mean(jax.jit(jax.vmap(lambda s, q: classify(s, q[0]) == q[1]))(*some)))


cg, sgd = nestor.Implicit(nestor.CG(tol=0.0, max_steps=5)), nestor.sgd(0.3, 0.5)
adapt = functools.partial(levels.imaml, loss, strength=0.5, optimizer=sgd, steps=16, adjoint=cg)
start = {"in": jax.random.normal(jax.random.key(1), (SIDE**2, 64)) / SIDE, "in bias": jnp.zeros(64)}
start |= {"out": jax.random.normal(jax.random.key(2), (64, WAYS)) / 8, "out bias": jnp.zeros(WAYS)}
outer = functools.partial(levels.meta_loss, loss, adapt=adapt)
batch = lambda step: tasks(jax.random.fold_in(jax.random.key(3), step), TASKS, drawn[:400])  # noqa: E731
net = nestor.train(outer, start, batch, optimizer=nestor.adam(2e-3), steps=OUTER_STEPS, clip=1.0).params
new = tasks(jax.random.key(4), 200, drawn[400:])
nearest = lambda s, x: jnp.argmin(jnp.sum((x[:, None] - s[0][None]) ** 2, axis=-1), axis=1)  # noqa: E731
by = lambda net: lambda s, x: jnp.argmax(logits(adapt(net, s), x), axis=1)  # noqa: E731
found = {"imaml": accuracy(by(net), new), "before_meta_learning": accuracy(by(start), new)}
found["nearest_drawing"] = accuracy(nearest, new)
print(json.dumps(found, indent=2))
assert found["imaml"] > found["before_meta_learning"]
if not QUICK:
    assert found["imaml"] > found["nearest_drawing"] + 0.05
    (Path(__file__).parent / "results" / "imaml_glyphs.json").write_text(json.dumps(found, indent=2) + "\n")
