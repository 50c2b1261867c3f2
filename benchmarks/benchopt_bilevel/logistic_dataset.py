"""Strengths of L2 chosen on held-out samples, for the suite benchmark_bilevel; see README.md in this folder.

    inner   y(x) = argmin_y  mean_i log(1 + exp(-b_i a_i'y)) + 1/2 sum_j exp(x_j) y_j^2   over training samples
    outer   minimize over x  mean_i log(1 + exp(-b_i a_i'y(x)))                           over held-out samples

The suite's own problem of this kind, with the start it has there, on samples that need no download.
"""

import functools
from typing import ClassVar

from benchopt import BaseDataset, safe_import_context

with safe_import_context() as import_ctx:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from sklearn.datasets import load_breast_cancer


class Dataset(BaseDataset):
    """`breast_cancer`: 256 and 256 samples, 30 features. `like_ijcnn1`: generated, 49,984 and 91,712, 22 features."""

    name = "logistic_selection"
    requirements: ClassVar = ["scikit-learn"]
    parameters: ClassVar = {"data": ["breast_cancer"], "random_state": [2442]}

    def get_data(self):
        draw = np.random.default_rng(self.random_state)
        if self.data == "breast_cancer":
            train, held_out = _breast_cancer(draw)
        elif self.data == "like_ijcnn1":
            train, held_out = _generated(draw)
        else:
            raise ValueError(f"data is 'breast_cancer' or 'like_ijcnn1', not {self.data!r}")
        features = train[0].shape[1]

        def start(key):
            below, above = jax.random.split(key)
            return jax.random.normal(below, (features,)), jnp.log(jax.random.uniform(above, (features,)))

        def level(samples, penalized):
            rows = len(samples[1])
            loss = _loss(*map(functools.partial(jnp.asarray, dtype=jnp.float32), samples), penalized)
            return loss, rows, features, functools.partial(loss, start=0, batch_size=rows)

        return {
            "pb_inner": level(train, True),
            "pb_outer": level(held_out, False),
            "metrics": functools.partial(measured, train, held_out),
            "init_var": start,
        }


def _breast_cancer(draw):
    a, b = load_breast_cancer(return_X_y=True)
    order = draw.permutation(len(b))[:512]
    a, b = a[order], 2.0 * b[order] - 1.0
    a = (a - a[:256].mean(0)) / a[:256].std(0)
    return (a[:256], b[:256]), (a[256:], b[256:])


def _generated(draw, train=49_984, held_out=91_712, features=22):
    """About one sample in ten is positive, half of the features say nothing."""
    a = draw.uniform(-1.0, 1.0, (train + held_out, features))
    a[:, 0] = 1.0
    truth = 3.0 * draw.normal(size=features) * (np.arange(features) % 2 == 0)
    truth[0] = -4.0
    b = np.where(a @ truth + draw.logistic(size=len(a)) > 0, 1.0, -1.0)
    return (a[:train], b[:train]), (a[train:], b[train:])


def _loss(a, b, penalized):
    @functools.partial(jax.jit, static_argnames="batch_size")
    def loss(inner_var, outer_var, start=0, batch_size=1):
        some_a = jax.lax.dynamic_slice_in_dim(a, start, batch_size)
        some_b = jax.lax.dynamic_slice_in_dim(b, start, batch_size)
        value = jnp.mean(jax.nn.softplus(-some_b * (some_a @ inner_var)))
        return value + jnp.sum(jnp.exp(outer_var) * inner_var**2) / 2 if penalized else value

    return loss


def measured(train, held_out, inner_var, outer_var):
    """`value` is |grad h|^2, with the answer of the inner level by Newton's method, all in double precision."""
    x = np.asarray(outer_var, np.float64)
    y = answer(train, np.exp(x))
    value, gradient, _ = _mean_loss(held_out, y)
    _, _, hessian = _mean_loss(train, y)
    v = np.linalg.solve(hessian + np.diag(np.exp(x)), gradient)
    return {
        "value": float(np.sum((np.exp(x) * y * v) ** 2)),
        "value_func": float(value),
        "inner_distance": float(np.sum((np.asarray(inner_var, np.float64) - y) ** 2)),
    }


def answer(train, strengths):
    """The minimizer of the inner level."""
    objective = lambda y: _mean_loss(train, y)[0] + np.sum(strengths * y**2) / 2  # noqa: E731
    y = np.zeros(len(strengths))
    for _ in range(100):
        _, gradient, hessian = _mean_loss(train, y)
        gradient = gradient + strengths * y
        if np.max(np.abs(gradient)) < 1e-12:
            break
        step, length, here = np.linalg.solve(hessian + np.diag(strengths), gradient), 1.0, objective(y)
        while length > 1e-6 and objective(y - length * step) > here + 1e-12:
            length /= 2
        y = y - length * step
    return y


def _mean_loss(samples, y):
    """The value, gradient and Hessian of the mean loss of all samples."""
    a, b = samples
    margin = b * (a @ y)
    wrong = 0.5 * (1.0 - np.tanh(margin / 2))
    hessian = a.T @ ((wrong * (1.0 - wrong))[:, None] * a) / len(b)
    return np.mean(np.logaddexp(0.0, -margin)), -(a.T @ (b * wrong)) / len(b), hessian
