"""Equinox models, trained as they are: feed-forward, convolutional, and three recurrent nets.

A model is the tree of parameters; `nestor.train` moves its floating-point arrays and leaves the rest. The loss at
the end is a function of the learning rate and the momentum, and its gradient is checked against differences.

    python equinox_models.py            writes results/equinox_models.json
    python equinox_models.py --quick    fewer steps
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
TEXT = "she sells sea shells by the sea shore. the shells she sells are sea shells, i am sure. " * 3
LETTERS = sorted(set(TEXT))


class PlainCell(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x, state):
        return jnp.tanh(self.linear(jnp.concatenate([x, state])))


class Reader(eqx.Module):
    """Reads letters (one-hot, in a row) and says at each which comes next."""

    cell: eqx.Module
    out: eqx.nn.Linear

    def __call__(self, letters):
        zero, lstm = jnp.zeros(24), isinstance(self.cell, eqx.nn.LSTMCell)

        def step(state, letter):
            state = self.cell(letter, state)
            return state, self.out(state[0] if lstm else state)

        return jax.lax.scan(step, (zero, zero) if lstm else zero, letters)[1]


def loss(model, batch):
    inputs, targets = batch  # targets are one-hot, of the shape of the outputs
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(jax.vmap(model)(inputs)), axis=-1))


key, many = jax.random.key(0), len(LETTERS)
pixels, names = load_digits(return_X_y=True)
pixels, classes = jnp.asarray(pixels[:400] / 16), jax.nn.one_hot(jnp.asarray(names[:400]), 10)
codes = jax.nn.one_hot(jnp.asarray([LETTERS.index(letter) for letter in TEXT]), many)
windows = jnp.arange(len(TEXT) - 20)[:, None] + jnp.arange(20)
flat, square, text = (pixels, classes), (pixels.reshape(-1, 1, 8, 8), classes), (codes[windows], codes[windows + 1])

middle = [eqx.nn.Lambda(jax.nn.relu), eqx.nn.AvgPool2d(2, 2), eqx.nn.Lambda(jnp.ravel)]
conv = eqx.nn.Sequential([eqx.nn.Conv2d(1, 6, 3, key=key), *middle, eqx.nn.Linear(54, 10, key=key)])
plain, out = PlainCell(eqx.nn.Linear(many + 24, 24, key=key)), eqx.nn.Linear(24, many, key=key)
lstm, gru = eqx.nn.LSTMCell(many, 24, key=key), eqx.nn.GRUCell(many, 24, key=key)
tasks = {"feed-forward": (eqx.nn.MLP(64, 10, 32, 1, key=key), flat), "convolutional": (conv, square)}
tasks |= {name: (Reader(cell, out), text) for name, cell in {"plain RNN": plain, "LSTM": lstm, "GRU": gru}.items()}

begin, found, steps = time.process_time(), {}, 20 if QUICK else 200
for name, (model, data) in tasks.items():

    @jax.jit
    def end(hyper, model=model, data=data):
        optimizer = nestor.sgd(jnp.exp(hyper[0]), hyper[1])
        return loss(nestor.train(loss, model, data, optimizer=optimizer, steps=steps, batch_size=32).params, data)

    at, along = jnp.array([jnp.log(0.1), 0.9]), jnp.array([1.0, 0.1])
    before, (after, slopes) = float(loss(model, data)), jax.value_and_grad(end)(at)
    difference = float(end(at + 1e-5 * along) - end(at - 1e-5 * along)) / 2e-5
    error = abs(float(slopes @ along) / difference - 1)
    found[name] = {"before": before, "after": float(after), "slopes": slopes.tolist(), "error": error}
    print(f"{name:14s} loss {before:.3f} -> {after:.3f}, by log rate {slopes[0]:+.3f}, by momentum {slopes[1]:+.3f}")
    assert after < (0.95 if QUICK else 0.5) * before
    assert error < 1e-3
if not QUICK:
    found["cpu_seconds"] = round(time.process_time() - begin, 1)
    (Path(__file__).parent / "results" / "equinox_models.json").write_text(json.dumps(found, indent=2) + "\n")
