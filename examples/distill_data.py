"""Twenty images that teach any fresh net what 1300 digits know: dataset distillation as two levels.

"nets" are trained from 24 random starts on the images alone, for 30 steps at a learned rate; "taught", images and
rate, descends on what the trained nets lose on real digits. It then teaches nets of other starts. (Wang et al. 2018.)

    python distill_data.py    writes results/distill_data.json; with --quick, fewer steps
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
(OUTER_STEPS, NETS), STEPS, EACH = (20, 2) if QUICK else (150, 24), 30, 2  # EACH: images of a digit
images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.eye(10)[labels[order]]
real, test = (images[:1300], labels[:1300]), (images[1300:], labels[1300:])
RATES = jnp.array([0.03, 0.1, 0.3])
of_images = jnp.repeat(jnp.eye(10), EACH, axis=0)  # the labels of what is learned


def logits(nets, x):  # (nets, images, 10); the last rows of layers are biases
    hidden = jnp.tanh(x @ nets["in"][:, :-1] + nets["in"][:, -1:])
    return hidden @ nets["out"][:, :-1] + nets["out"][:, -1:]


def loss(nets, batch):  # the sum over nets
    return -jnp.sum(jnp.sum(batch[1] * jax.nn.log_softmax(logits(nets, batch[0])), axis=2).mean(axis=1))


def fresh(seed, count):
    draw = lambda key, *shape: jax.random.normal(key, (count, *shape)) / shape[0] ** 0.5  # noqa: E731
    keys = jax.random.split(jax.random.key(seed))
    return {"in": draw(keys[0], 65, 32), "out": draw(keys[1], 33, 10)}


training = lambda p, _: loss(p["nets"], (p["taught"]["images"], of_images))  # noqa: E731
teaching = lambda p, batch: loss(p["nets"], batch) / NETS  # noqa: E731
by_taught = lambda p: nestor.sgd(jnp.exp(p["taught"]["log rate"]), momentum=0.9)  # noqa: E731
adam = nestor.adam(nestor.schedules.Cosine(0.03, OUTER_STEPS))
grey = {"images": 0.5 * jnp.ones((10 * EACH, 64)), "log rate": jnp.log(0.1)}
nets = nestor.Level(training, fresh(0, NETS), by_taught, steps=STEPS, restart=True, adjoint=nestor.Unroll())
taught = nestor.Level(teaching, grey, adam, data=real, batch_size=325)
end = nestor.Graph({"nets": nets, "taught": taught}).run(OUTER_STEPS).params["taught"]


@jax.jit
def error(x, y=of_images, *, rates=RATES):
    """Mean test error of new nets after training on these images, at the best rate for the test images."""

    def at(rate):
        on, sgd = (lambda nets, _: loss(nets, (x, y))), nestor.sgd(rate, momentum=0.9)
        nets = nestor.train(on, fresh(1, NETS), None, optimizer=sgd, steps=STEPS).params
        return jnp.mean(jnp.argmax(logits(nets, test[0]), axis=2) != jnp.argmax(test[1], axis=1))

    return jnp.min(jax.vmap(at)(rates))


random = np.random.default_rng(1)
draws = [[random.choice(np.flatnonzero(column), EACH) for column in real[1].T] for _ in range(10)]
means = (real[1].T @ real[0]) / real[1].sum(axis=0)[:, None]
found = {
    "learned images": error(end["images"], rates=jnp.exp(end["log rate"]).repeat(3)),
    "as many real images": sum(error(real[0][np.concatenate(d)]) for d in draws) / 10,
    "mean images": error(jnp.repeat(means, EACH, axis=0)),
} | ({} if QUICK else {"all 1300 real images": error(*real)})
found = {name: round(float(value), 4) for name, value in found.items()}
print(json.dumps(found, indent=2))
assert found["learned images"] < found["as many real images"]
if not QUICK:
    (Path(__file__).parent / "results" / "distill_data.json").write_text(json.dumps(found, indent=2) + "\n")
