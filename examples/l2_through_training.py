"""One L2 strength for each of 7840 weights, tuned by the gradient of the validation loss through a training run.

A logistic model 784-10 on the digits, enlarged to 28 x 28 pixels; 200 steps of gradient descent with momentum,
differentiated step by step. `per_weight_l2.py` does the like at a converged optimum, by the implicit
function theorem; here the run may be stopped before. (Maclaurin, Duvenaud, Adams 2015, section 3.2.)

    python l2_through_training.py            writes results/l2_through_training.json
    python l2_through_training.py --quick    8 x 8 pixels, shorter runs
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import nestor

QUICK = "--quick" in sys.argv
SIDE, STEPS, OUTER_STEPS, RATE, START = (8, 50, 20, 0.5, -4.0) if QUICK else (28, 200, 50, 0.05, -2.8)

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images = jax.image.resize(images[order].reshape(-1, 8, 8) / 16, (len(labels), SIDE, SIDE), "bilinear")
images, labels = images.reshape(len(labels), -1), jnp.eye(10)[labels[order]]
train, validation, test = ((images[i::3], labels[i::3]) for i in range(3))
start = {"weights": jnp.zeros((SIDE**2, 10)), "biases": jnp.zeros(10)}


def logits(model, x):
    return x @ model["weights"] + model["biases"]


def loss(model, batch):
    return -jnp.mean(jnp.sum(batch[1] * jax.nn.log_softmax(logits(model, batch[0])), axis=1))


def trained(log_strengths):
    def penalised(model, batch):
        return loss(model, batch) + jnp.sum(jnp.exp(log_strengths) * model["weights"] ** 2) / 2

    return nestor.train(penalised, start, train, optimizer=nestor.sgd(RATE, 0.9), steps=STEPS).params


@jax.jit
def measured(log_strengths):
    """Validation loss, test loss, test error."""
    model = trained(log_strengths)
    wrong = jnp.argmax(logits(model, test[0]), axis=1) != jnp.argmax(test[1], axis=1)
    return loss(model, validation), loss(model, test), jnp.mean(wrong)


begin = time.process_time()
same = lambda log_strength: jnp.full((SIDE**2, 10), log_strength)  # noqa: E731
singles = [measured(same(log_strength)) for log_strength in np.arange(-12.0, -1.9)]
outer = nestor.adam(
    nestor.schedules.Cosine(0.25, OUTER_STEPS)
)  # ends before a strength is too stiff for RATE
final_loss = lambda log_strengths, _: loss(trained(log_strengths), validation)  # noqa: E731
run = nestor.train(final_loss, same(START), None, optimizer=outer, steps=OUTER_STEPS)
found = {"validation_loss_at_every_tenth_outer_step": [float(x) for x in run.history.loss[::10]]}
ends = {"start": measured(same(START)), "best_single": min(singles), "per_weight": measured(run.params)}
for name, columns in ends.items():
    found[name] = dict(zip(("validation_loss", "test_loss", "test_error"), map(float, columns), strict=True))
found |= {"outer_steps": OUTER_STEPS, "cpu_seconds": round(time.process_time() - begin, 1)}
print(json.dumps(found, indent=2))
assert found["per_weight"]["test_loss"] < (found["start"]["test_loss"] if QUICK else 0.17)
if not QUICK:
    assert run.history.loss[10] < 0.25
    path = Path(__file__).parent / "results" / "l2_through_training.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
