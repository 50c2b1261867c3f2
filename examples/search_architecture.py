"""Differentiable architecture search: which operation belongs in each of three layers of a net for digits?

Each layer is a mixture of five operations on maps of 8 x 8 pixels with 8 channels: none, or convolutions of 1 x 1,
3 x 3, every other of 5 x 5, or 5 x 5 pixels. The lower level trains all weights on one half of 300 images, the upper
one the shares of the operations on the other. Those with the largest shares are then trained afresh on all 300, as are
8 random choices out of the 125. (Liu, Simonyan, Yang 2019, "DARTS".)

    python search_architecture.py            writes results/search_architecture.json
    python search_architecture.py --quick    one seed, one way to differentiate, fewer rivals
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import nestor

QUICK = "--quick" in sys.argv
SEEDS, STEPS, RIVALS, LAYERS = (1, 20, 1, 1) if QUICK else (3, 200, 8, 3)
images, labels = load_digits(return_X_y=True)
STEPS_OF = {"1x1": (0,), "3x3": (-1, 0, 1), "3x3 wide": (-2, 0, 2), "5x5": (-2, -1, 0, 1, 2)}


def logits(weights, shares, x):
    maps = x.reshape(-1, 8, 8, 1) * weights["first"]
    for layer, share in zip(weights["layers"], shares, strict=True):
        wide, maps = jnp.pad(maps, ((0, 0), (2, 2), (2, 2), (0, 0))), share[0] * maps
        for part, (name, steps) in zip(share[1:], STEPS_OF.items(), strict=True):
            shifted = [wide[:, 2 + r : 10 + r, 2 + c : 10 + c] for r in steps for c in steps]
            maps = maps + part * jax.nn.relu(jnp.concatenate(shifted, axis=3) @ layer[name])
    return maps.reshape(-1, 2, 4, 2, 4, 8).mean(axis=(2, 4)).reshape(-1, 32) @ weights["last"]


def loss(weights, shares, batch):
    return -jnp.mean(jnp.eye(10)[batch[1]] * jax.nn.log_softmax(logits(weights, shares, batch[0]))) * 10


def experiment(seed) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    parts = np.split(draw.permutation(1797), [150, 300])
    *halves, test = ((np.float32(images[i] / 16), labels[i]) for i in parts)
    both = tuple(map(np.concatenate, zip(*halves, strict=True)))
    kernel = lambda i, o: np.float32(draw.normal(size=(i, o)) * (2 / i) ** 0.5)  # noqa: E731
    layers = [{name: kernel(8 * len(s) ** 2, 8) for name, s in STEPS_OF.items()} for _ in range(LAYERS)]
    start = {"first": kernel(1, 8), "layers": layers, "last": kernel(32, 10)}
    adam = lambda rate: nestor.adam(nestor.schedules.Cosine(rate, STEPS))  # noqa: E731

    def searched(adjoint):
        mixed = lambda p, batch: loss(p["weights"], jax.nn.softmax(p["shares"]), batch)  # noqa: E731
        lower = nestor.Level(mixed, start, adam(0.01), data=halves[0], batch_size=50, adjoint=adjoint)
        upper = nestor.Level(mixed, jnp.zeros((LAYERS, 5)), adam(0.05), data=halves[1], batch_size=50)
        return np.argmax(nestor.Graph({"weights": lower, "shares": upper}).run(STEPS).params["shares"], 1)

    def accuracy(choice):
        chosen = lambda p, batch: loss(p["weights"], jnp.eye(5)[choice], batch)  # noqa: E731
        weights = nestor.Level(chosen, start, adam(0.01), data=both, batch_size=50)
        trained = nestor.Graph({"weights": weights}).run(STEPS).params["weights"]
        return float(np.mean(np.argmax(logits(trained, jnp.eye(5)[choice], test[0]), axis=1) == test[1]))

    found = {type(a).__name__: searched(a) for a in (nestor.DARTS(), nestor.SAMA(), nestor.Unroll())[:LAYERS]}
    row: dict[str, Any] = {name: accuracy(choice) for name, choice in found.items()}
    row["random"] = [accuracy(choice) for choice in draw.integers(0, 5, (RIVALS, LAYERS))]
    row["best of random"] = max(row["random"])
    return row | {"layers": {name: [["none", *STEPS_OF][i] for i in found[name]] for name in found}}


rows = [experiment(seed) for seed in range(SEEDS)]
mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "layers"}
found = {"test_accuracy": mean, "every_seed": rows, "cpu_seconds": round(time.process_time(), 1)}
print(text := json.dumps(found, indent=1))
if not QUICK:
    (Path(__file__).parent / "results" / "search_architecture.json").write_text(text + "\n")
