"""One study: optimizer and width by search; rates, L2 strengths and first weights along exact hypergradients.

A net 64-width-10 on few digits, 60 steps of training a trial. The study whose trials descend along the gradient of
the validation loss through the training is compared with the same sampler without gradients; a run with its
hypergradient counts as 4. `nestor demo search` shows the same with a picture.

    python search_with_gradients.py            writes results/search_with_gradients.json
    python search_with_gradients.py --quick    fewer runs
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import nestor
from nestor import search, tuning

QUICK = "--quick" in sys.argv
BLIND, TRIALS, REFINE, COUNTS = (24, 2, 4, 4) if QUICK else (240, 3, 24, 4)

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))[:600]
images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.eye(10, dtype=jnp.float32)[labels[order]]
train, validation, test = ((images[a:b], labels[a:b]) for a, b in ((0, 200), (200, 400), (400, 600)))
CHOICES = {
    "optimizer": search.Categorical(("momentum", "rmsprop")),
    "width": search.Categorical((16, 32)),
}
SPACE = {
    "rate": (0.02, 0.5, "log"),
    "l2": search.Array((64,), 1e-5, 1.0, log=True),  # one strength a pixel
    "scale": search.Array((64,), 0.1, 2.0, log=True),  # how large its first weights are
}


def loss(model, batch):
    logits = jnp.tanh(batch[0] @ model["in"]) @ model["out"]
    return -jnp.mean(jnp.sum(batch[1] * jax.nn.log_softmax(logits), axis=1))


def trained(hyper, picked):
    keys = jax.random.split(jax.random.key(0))
    drawn = jax.random.normal(keys[0], (64, picked["width"]), jnp.float32) / 8
    start = {
        "in": drawn * hyper["scale"][:, None],
        "out": jax.random.normal(keys[1], (picked["width"], 10), jnp.float32) / picked["width"] ** 0.5,
    }

    def penalised(model, batch):
        return loss(model, batch) + jnp.sum(hyper["l2"][:, None] * model["in"] ** 2) / 2

    momentum = picked["optimizer"] == "momentum"
    optimizer = nestor.sgd(hyper["rate"], 0.9) if momentum else nestor.rmsprop(hyper["rate"] / 30)
    key = jax.random.key(1)
    return nestor.train(penalised, start, train, optimizer=optimizer, steps=60, batch_size=50, key=key).params


def objective(hyper, picked):
    return loss(trained(hyper, picked), validation)


same = {"choices": CHOICES, "sampler": search.TPESampler(seed=0)}
blind = tuning.tune(objective, SPACE, n_trials=BLIND, gradient=False, **same)
guided = tuning.tune(objective, SPACE, n_trials=TRIALS, refine=REFINE, **same)
seen = [value for trial in guided.trials for _, value in sorted(trial.reports.items())]
reached = next((COUNTS * (i + 1) for i, value in enumerate(seen) if value <= blind.best_value), None)
print(f"search alone    {BLIND:4d} training runs   validation loss {blind.best_value:.4f}")
print(f"with gradients  {COUNTS * len(seen):4d} training runs   validation loss {guided.best_value:.4f}")
print(f"what search alone came to was reached after {reached} runs")
if not QUICK:
    found = {"search": [BLIND, blind.best_value], "gradients": [COUNTS * len(seen), guided.best_value]}
    path = Path(__file__).parent / "results" / "search_with_gradients.json"
    path.write_text(json.dumps(found | {"unit": "training runs, validation loss", "reached": reached}) + "\n")
