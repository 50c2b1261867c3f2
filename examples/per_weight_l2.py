"""One L2 strength for each weight of a classifier, tuned by implicit hypergradients.

Training is a function of the 640 strengths, so the validation loss has a gradient in all of them. Fifteen
steps of gradient descent beat the best single strength on images that neither of them has seen.

    pip install 'nestor[demo]' && python per_weight_l2.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import nestor

jax.config.update("jax_enable_x64", True)

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
ones = np.ones((len(labels), 1))
images = jnp.asarray(np.hstack([images / 16, ones])[order])  # the last column carries the biases
labels = jnp.asarray(np.eye(10)[labels[order]])  # one-hot
train, validation, test = (slice(0, 599), slice(599, 1198), slice(1198, 1797))


def loss(model, part):
    """Mean cross-entropy of a model, shape (65, 10), on a part of the images."""
    logits = images[part] @ model
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.sum(logits * labels[part], axis=1))


def trained(log_strengths, start):
    """The model that training gives; biases are not penalised."""

    def objective(model):
        return loss(model, train) + jnp.sum(jnp.exp(log_strengths) * model[:-1] ** 2) / 2

    return nestor.argmin(
        objective, start, solver=nestor.LBFGS(), adjoint=nestor.Implicit(nestor.CG(tol=1e-6)), tol=1e-5
    )


@jax.jit
@lambda function: jax.value_and_grad(function, has_aux=True)
def validation_loss(log_strengths, start):
    model = trained(log_strengths, start)
    return loss(model, validation), model


model = jnp.zeros((65, 10))
best_value, single, single_model = np.inf, 0.0, model
for log_strength in np.arange(-11.0, -5.9, 0.5):  # weakest penalty first; each fit starts at the last
    (value, model), _ = validation_loss(jnp.full((64, 10), log_strength), model)
    if value < best_value:
        best_value, single, single_model = value, log_strength, model

log_strengths, model = jnp.full((64, 10), single), single_model
for step in range(16):
    (value, model), hypergradient = validation_loss(log_strengths, model)
    if step % 5 == 0:
        print(f"step {step:2d}: validation loss {value:.4f}")
    log_strengths = log_strengths - 100.0 * hypergradient

single_loss, tuned_loss = float(loss(single_model, test)), float(loss(model, test))
print(f"test loss, best single strength e^{single:g}: {single_loss:.4f}")
print(f"test loss, one strength per weight:     {tuned_loss:.4f}")
assert tuned_loss < single_loss
