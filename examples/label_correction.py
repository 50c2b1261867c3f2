"""Label correction and reweighting: wrong labels are not only trusted less, they are replaced.

The digits of `reweight.py`, 60 % of them with a wrong label here. A small net reads an example's loss and says two
things: how much the example counts, and how far its label is moved towards what the model itself believes (stopped).
The model learns from such labels; the small net moves down the loss of the model on 100 clean digits. The rivals are
the same without the moving of labels, and training on the noisy, on the clean digits. Settings are those of
`reweight.py`. (Zheng, Awadallah, Dumais 2021, "Meta label correction".) Seen: on these digits moving the labels adds
nothing to weighting them.

    python label_correction.py    writes results/label_correction.json; with --quick, one seed and fewer steps
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import nestor

SEEDS, STEPS = (1, 300) if "--quick" in sys.argv else (5, 1000)
images, labels = load_digits(return_X_y=True)
images = np.float32(images / 16)


def log_shares(model, x):
    return jax.nn.log_softmax(jax.nn.relu(x @ model["w1"] + model["b1"]) @ model["w2"] + model["b2"])


def loss(p, batch):
    x, y = batch
    return -jnp.mean(jnp.sum(jnp.eye(10)[y] * log_shares(p["model"], x), axis=1))


def corrected(p, batch, moving):
    """The weighted loss of the noisy digits, with labels that the small net has moved (or not)."""
    x, y = batch
    logs = log_shares(p["model"], x)
    given, believed = jnp.eye(10)[y], jax.lax.stop_gradient(jnp.exp(logs))
    off = jax.lax.stop_gradient(-jnp.sum(given * logs, axis=1))
    said = jnp.tanh(off[:, None] * p["small"]["a"] + p["small"]["b"]) @ p["small"]["c"]
    weights, moved = jax.nn.softmax(jax.nn.log_sigmoid(said[:, 0])), jax.nn.sigmoid(said[:, 1:] - 2) * moving
    target = (1 - moved) * given + moved * believed
    return -jnp.sum(weights * jnp.sum(target * logs, axis=1))


def experiment(seed):
    """Test accuracy of every way to train."""
    draw = np.random.default_rng(seed)
    (x, y), clean, test = ((images[i], labels[i]) for i in np.split(draw.permutation(1797), [1000, 1100]))
    bad = draw.random(1000) < 0.6
    noisy = np.where(bad, (y + draw.integers(1, 10, 1000)) % 10, y)
    normal = lambda *shape: np.float32(draw.normal(size=shape))  # noqa: E731
    start = {"w1": normal(64, 64) / 6, "b1": jnp.zeros(64), "w2": normal(64, 10) / 8, "b2": jnp.zeros(10)}
    small = {"a": normal(32), "b": normal(32), "c": jnp.zeros((32, 2))}

    def accuracy(lower, data, meta=True):
        sgd = nestor.sgd(nestor.schedules.Cosine(0.1, STEPS), momentum=0.9)
        levels = {"model": nestor.Level(lower, start, sgd, data=data, batch_size=min(200, len(data[1])))}
        adam = nestor.adam(nestor.schedules.Cosine(0.003, STEPS))
        levels |= {"small": nestor.Level(loss, small, adam, data=clean)} if meta else {}
        found = nestor.Graph(levels).run(STEPS).params["model"]
        return float(np.mean(np.argmax(log_shares(found, test[0]), axis=1) == test[1]))

    with_clean = lambda moving: lambda p, b: corrected(p, b, moving) + 0.3 * loss(p, clean)  # noqa: E731
    ways = {"noisy": (loss, (x, noisy), False), "clean": (loss, clean, False)}
    ways |= {name: (with_clean(m), (x, noisy)) for name, m in (("reweighted", 0.0), ("corrected too", 1.0))}
    return {name: accuracy(*way) for name, way in ways.items()}


rows = [experiment(seed) for seed in range(SEEDS)]
mean = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}
print(json.dumps(mean, indent=2))
if SEEDS > 1:
    found = json.dumps({"test_accuracy": mean, "every_seed": rows}, indent=2)
    (Path(__file__).parent / "results" / "label_correction.json").write_text(found + "\n")
