"""Equinox models, trained as they are: a plain RNN, an LSTM and a GRU learn which letter comes next.

The loss at the end of training is a function of the learning rate and the momentum; its gradient goes back through
every step of training, and in each through every letter, and is checked against a difference. (--quick: fewer steps)
"""

import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp

import nestor

jax.config.update("jax_enable_x64", True)
QUICK = "--quick" in sys.argv
STEPS, WIDTH = 20 if QUICK else 300, 24
TEXT = "she sells sea shells by the sea shore. the shells she sells are sea shells, i am sure. " * 2
LETTERS = sorted(set(TEXT))


class PlainCell(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x, state):
        return jnp.tanh(self.linear(jnp.concatenate([x, state])))


class Reader(eqx.Module):
    """Reads letters (one-hot) in a row, and says after each how likely every letter is to come next."""

    cell: eqx.Module
    out: eqx.nn.Linear

    def __call__(self, letters):
        zero, two = jnp.zeros(WIDTH), isinstance(self.cell, eqx.nn.LSTMCell)

        def read(state, letter):
            state = self.cell(letter, state)
            return state, jax.nn.log_softmax(self.out(state[0] if two else state))

        return jax.lax.scan(read, (zero, zero) if two else zero, letters)[1]


def loss(model, batch):
    letters, following = batch
    return -jnp.mean(jnp.sum(following * jax.vmap(model)(letters), axis=-1))


codes = jnp.eye(len(LETTERS))[jnp.array([LETTERS.index(letter) for letter in TEXT])]
windows = jnp.arange(len(TEXT) // 2)[:, None] + jnp.arange(16)
data, keys, n = (codes[windows], codes[windows + 1]), jax.random.split(jax.random.key(0), 4), len(LETTERS)
plain = PlainCell(eqx.nn.Linear(n + WIDTH, WIDTH, key=keys[0]))
lstm, gru = eqx.nn.LSTMCell(n, WIDTH, key=keys[1]), eqx.nn.GRUCell(n, WIDTH, key=keys[2])
begin, found = time.process_time(), {}
for name, cell in {"plain RNN": plain, "LSTM": lstm, "GRU": gru}.items():
    model = Reader(cell, eqx.nn.Linear(WIDTH, n, key=keys[3]))

    def trained(hyper, model=model):
        optimizer = nestor.sgd(jnp.exp(hyper[0]), hyper[1])
        run = nestor.train(loss, model, data, optimizer=optimizer, steps=STEPS)
        return run.history.loss[-1]

    hypergradient = jax.jit(jax.value_and_grad(trained))
    at, along = jnp.array([jnp.log(0.1), 0.9]), jnp.array([1.0, 0.1])
    (after, slopes), (above, _), (below, _) = (hypergradient(at + d * along) for d in (0.0, 1e-6, -1e-6))
    before, slope, difference = float(loss(model, data)), float(slopes @ along), float(above - below) / 2e-6
    print(f"{name}: loss {before:.3f} -> {after:.3f}; slope {slope:+.6f}, by a difference {difference:+.6f}")
    assert after < (0.95 if QUICK else 0.2) * before
    assert abs(slope - difference) < 1e-4 * abs(difference) + 1e-6
    found[name] = {"before": before, "after": float(after), "slope": slope, "difference": difference}
if not QUICK:
    found["cpu_seconds"] = round(time.process_time() - begin, 1)
    path = Path(__file__).parent / "results" / "equinox_letters.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
