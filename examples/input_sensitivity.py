"""An objective that contains a derivative: training that punishes sensitivity to the input.

The loss of a small tanh net on digits has a penalty on the gradient of its cross-entropy by the image. How strong it
should be is learned by a hypergradient: the strength that gives the lowest loss on noisy images, after training on
clean ones. That is a third derivative of the net, through every step; it is checked against a difference.

    python input_sensitivity.py            writes results/input_sensitivity.json
    python input_sensitivity.py --quick    fewer steps
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

import nestor

jax.config.update("jax_enable_x64", True)
QUICK = "--quick" in sys.argv
STEPS, OUTER = (20, 3) if QUICK else (150, 25)

images, labels = load_digits(return_X_y=True)
keys = jax.random.split(jax.random.key(0), 4)
order = jax.random.permutation(keys[0], len(labels))
images, labels = jnp.asarray(images / 16)[order], jnp.asarray(labels)[order]
noisy = images + 0.4 * jax.random.normal(keys[1], images.shape)
train = images[:300], labels[:300]
validation, test = (noisy[300:1000], labels[300:1000]), (noisy[1000:], labels[1000:])
net = {"in": jax.random.normal(keys[2], (64, 24)) / 8, "out": jax.random.normal(keys[3], (24, 10)) / 5}


def one_loss(net, image, label):
    return -jax.nn.log_softmax(jnp.tanh(image @ net["in"]) @ net["out"])[label]


def loss(net, part):
    return jnp.mean(jax.vmap(one_loss, (None, 0, 0))(net, *part))


def trained(log_strength):
    """The net after training with the penalty."""

    def objective(net, batch):
        slopes = jax.vmap(jax.grad(one_loss, argnums=1), (None, 0, 0))(net, *batch)
        return loss(net, batch) + jnp.exp(log_strength) * jnp.mean(jnp.sum(slopes**2, axis=1))

    return nestor.train(objective, net, train, optimizer=nestor.sgd(0.3, momentum=0.9), steps=STEPS).params


begin = time.process_time()
hypergradient = jax.jit(jax.value_and_grad(lambda log_strength: loss(trained(log_strength), validation)))
log_strength, values = jnp.array(-4.0), []
for _ in range(OUTER):
    value, slope = hypergradient(log_strength)
    values.append(float(value))
    log_strength = log_strength - 60.0 * slope
(above, _), (below, _) = hypergradient(log_strength + 1e-5), hypergradient(log_strength - 1e-5)
slope, difference = float(hypergradient(log_strength)[1]), float(above - below) / 2e-5
print(f"log strength -4.0 -> {log_strength:.2f}: loss on noisy images {values[0]:.4f} -> {values[-1]:.4f}")
print(f"slope {slope:+.8f}, by a difference {difference:+.8f}")
assert abs(slope - difference) < 1e-5 * abs(difference) + 1e-8
assert values[-1] < values[0]

if not QUICK:
    without, tuned = (float(loss(trained(s), test)) for s in (-jnp.inf, log_strength))
    print(f"test loss on noisy images {without:.4f} without the penalty, {tuned:.4f} with it")
    assert tuned < without
    found = {"test_loss_without": without, "test_loss": tuned, "validation_losses": values}
    found |= {"log_strength": float(log_strength), "slope": slope, "difference": difference}
    found["cpu_seconds"] = round(time.process_time() - begin, 1)
    path = Path(__file__).parent / "results" / "input_sensitivity.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
