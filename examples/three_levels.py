"""Three levels: which examples are worth pre-training on, if fine-tuning and a few clean images come after?

"pre-trained" learns from 1050 old digits, every one with its weight. "fine-tuned" learns from 40 new ones without going
far from it. "weights" descend on what the fine-tuned model loses on 200 new digits: through both answers below. Of
the old digits a third are as the new ones, a third have random labels, a third are read from right to left.
(Choe et al. 2023, section 4.3, for the problem; Raghu et al. 2021.)

    python three_levels.py    writes results/three_levels.json; with --quick, fewer steps
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
OUTER_STEPS, OLD, random = (10 if QUICK else 60), 1050, np.random.default_rng(0)
images, labels = load_digits(return_X_y=True)
order = random.permutation(len(labels))
images, labels = jnp.asarray(images[order] / 16, jnp.float32), labels[order]
x_old, y_old, kind = images[:OLD], labels[:OLD].copy(), np.arange(OLD) % 3
y_old[kind == 1] = random.integers(0, 10, OLD // 3)
x_old = jnp.where((kind == 2)[:, None], x_old.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64), x_old)
few, held_out, test = ((images[a:b], labels[a:b]) for a, b in ((1050, 1090), (1090, 1290), (1290, 1797)))


def losses(model, x, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(x @ model), y[:, None], axis=1)[:, 0]


def pre_training(p, _):
    each = jax.nn.sigmoid(p["weights"]) * losses(p["pre-trained"], x_old, y_old)
    return jnp.mean(each) + 1e-3 * jnp.sum(p["pre-trained"] ** 2)


def fine_tuning(p, new):
    apart = jnp.sum((p["fine-tuned"] - p["pre-trained"]) ** 2)
    return jnp.mean(losses(p["fine-tuned"], *new)) + 0.1 * apart


def validation(p, _):
    return jnp.mean(losses(p["fine-tuned"], *held_out))


def trained(weights, rate, new):
    """The three levels, and where they are after so many moves of the weights."""
    zero, sgd, adjoint = jnp.zeros((64, 10)), nestor.sgd(1.0, 0.9), nestor.Implicit(nestor.CG(tol=1e-4))
    levels = {
        "pre-trained": nestor.Level(pre_training, zero, sgd, steps=50, adjoint=adjoint),
        "fine-tuned": nestor.Level(fine_tuning, zero, sgd, data=new, steps=5, adjoint=adjoint),
        "weights": nestor.Level(validation, weights, nestor.adam(rate)),
    }
    return nestor.Graph(levels), nestor.Graph(levels).run(OUTER_STEPS).params


kinds = {"good": 0, "random labels": 1, "mirrored": 2}
alike, good = jnp.zeros(OLD), jnp.where(kind == 0, 9.0, -9.0)
both = tuple(np.concatenate(pair) for pair in zip(few, held_out, strict=True))
ways = {"none": (alike - 20, 0.0, few), "on all": (alike, 0.0, few), "on the good": (good, 0.0, few)}
ways |= {"on all, fine-tuned on 240": (alike, 0.0, both), "learned weights": (alike, 0.2, few)}
found = {}
for name, way in ways.items():
    graph, end = trained(*way)
    wrong = jnp.argmax(test[0] @ end["fine-tuned"], axis=1) != test[1]
    found[name] = {"test_error": float(wrong.mean())}
    found[name]["test_loss"] = float(losses(end["fine-tuned"], *test).mean())
at_the_end = jax.nn.sigmoid(end["weights"])
found["mean_weights"] = {name: float(at_the_end[kind == k].mean()) for name, k in kinds.items()}
print(graph.describe(), json.dumps(found, indent=2), sep="\n")
assert found["learned weights"]["test_error"] < found["on all"]["test_error"]
assert found["mean_weights"]["good"] > found["mean_weights"]["random labels"] + 0.2
if not QUICK:
    (Path(__file__).parent / "results" / "three_levels.json").write_text(json.dumps(found, indent=2) + "\n")
