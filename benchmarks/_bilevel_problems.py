"""Two problems with two levels, as arrays, so that every library is given the same numbers.

Both are what Betty shows first in its examples, at sizes where the work of a library can be seen, in float32:

`logistic`: one L2 strength a feature, chosen on held-out examples. Sizes, 500 examples on each side, 20 features and
100 inner steps, are those of Betty's example; the features have different scales, so that 20 steps of CG are not more
than the system needs (without that, a recursion that does not stop divides nothing by nothing in float32).

    lower   w(s) = argmin  mean_i [log(1 + exp(z_i)) - y_i z_i] + 1/2 sum_j exp(s_j) w_j^2,   z = x w
    upper   minimize over s  mean_i [log(1 + exp(z_i)) - y_i z_i]  at w(s), on the held-out examples

    An outer step, the same for all: `inner_steps` steps of gradient descent at `inner_rate` from where the last outer
    step left w; -(d2 lower / ds dw) v at that w, with (d2 lower / dw2) v = d upper / dw by exactly `cg_steps` steps of
    CG from zero; one step of gradient descent in s at `outer_rate`. No derivative goes through the inner steps.

`reweighting`: Meta-Weight-Net on the 8x8 digits with wrong labels. A net from an example's loss to its weight is
trained so that the model that learns from weighted examples does well on clean ones.

    lower   L(w, m) = mean_i weight(loss_i(w), m) loss_i(w)      over a batch of noisy examples, loss_i(w) inside
            `weight` being a constant
    upper   C(w) = mean_i loss_i(w)                             over a batch of clean examples

    An outer step: one step of SGD in w with `momentum` on the noisy batch (w' = w - rate (momentum u + dL/dw)); the
    hypergradient; one step of Adam in m at `outer_rate`. The hypergradient, with v = dC/dw at w':
    "darts": -[dL/dm(w' + e v) - dL/dm(w' - e v)] / 2e, with e = 0.01 / |v|, on the same noisy batch: what Betty's
    example does. The inverse Hessian is the identity, its product with the mixed derivative a difference quotient,
    which sees the weights change with the losses, although they are constants in the step, and steps over ReLU's
    corners: at the start it is 13 % away from the exact product with the same matrix, and 34 % from the one with
    constant losses.
    "unroll": -rate (d2 L/dm dw) v, with L at w, before the step: exact differentiation through the step, T1-T2.

    Sizes: 64-128-10, 1-100-1, 1200 noisy examples of which 40 % are wrong, 200 clean ones, batches of 100. Betty's
    example decays the inner weights (5e-4), and its reverse mode sets momentum and decay to zero without a word
    (`HigherIterativeProblem`); so nobody decays here, and "unroll" has no momentum.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits

Layers = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Logistic:
    """The arrays and settings of `logistic`."""

    x: np.ndarray
    y: np.ndarray
    x_held_out: np.ndarray
    y_held_out: np.ndarray
    weights: np.ndarray
    log_strengths: np.ndarray
    outer_steps: int
    inner_steps: int = 100
    cg_steps: int = 20
    inner_rate: float = 1.0
    outer_rate: float = 5.0


@dataclass(frozen=True)
class Reweighting:
    """The arrays and settings of `reweighting`; the batches are rows of numbers of examples, one row a step."""

    x: np.ndarray
    y: np.ndarray
    wrong: np.ndarray
    x_clean: np.ndarray
    y_clean: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    batches: np.ndarray
    clean_batches: np.ndarray
    model: Layers
    weigher: Layers
    hypergradient: str
    outer_steps: int
    inner_rate: float = 0.1
    momentum: float = 0.9
    outer_rate: float = 1e-3
    darts_alpha: float = 0.01


def logistic(outer_steps: int = 100, *, examples: int = 500, features: int = 20) -> Logistic:
    """Half of the features say nothing; their scales go from 1 to 0.2."""
    draw = np.random.default_rng(0)
    scales = np.geomspace(1.0, 0.2, features)
    x = draw.normal(size=(2 * examples, features)) * scales
    truth = draw.normal(size=features) / scales * (np.arange(features) % 2 == 0)
    y = x @ truth + draw.normal(size=2 * examples) > 0
    x, y = x.astype(np.float32), y.astype(np.float32)
    return Logistic(
        x=x[:examples],
        y=y[:examples],
        x_held_out=x[examples:],
        y_held_out=y[examples:],
        weights=np.zeros(features, np.float32),
        log_strengths=np.full(features, -4.0, np.float32),
        outer_steps=outer_steps,
    )


def reweighting(
    outer_steps: int = 100,
    *,
    hypergradient: str = "darts",
    noise: float = 0.4,
    batch: int = 100,
    hidden: int = 128,
) -> Reweighting:
    """The digits, in an order of their own, with a share of the labels replaced by another digit."""
    draw = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    order = draw.permutation(len(labels))
    images, labels = (images[order] / 16.0).astype(np.float32), labels[order].astype(np.int32)
    noisy, clean = slice(0, 1200), slice(1200, 1400)
    wrong = draw.random(1200) < noise
    shifted = (labels[noisy] + draw.integers(1, 10, 1200)) % 10
    return Reweighting(
        x=images[noisy],
        y=np.where(wrong, shifted, labels[noisy]).astype(np.int32),
        wrong=wrong,
        x_clean=images[clean],
        y_clean=labels[clean],
        x_test=images[1400:],
        y_test=labels[1400:],
        batches=_batches(draw, 1200, outer_steps, batch),
        clean_batches=_batches(draw, 200, outer_steps, batch),
        model=_layers(draw, 64, hidden, 10),
        weigher=_layers(draw, 1, 100, 1),
        hypergradient=hypergradient,
        outer_steps=outer_steps,
        momentum=0.9 if hypergradient == "darts" else 0.0,
    )


def _batches(draw: np.random.Generator, examples: int, steps: int, batch: int) -> np.ndarray:
    """Epoch after epoch, each in an order of its own."""
    epochs = -(-steps * batch // examples)
    order = np.concatenate([draw.permutation(examples) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch).astype(np.int32)


def _layers(draw: np.random.Generator, *widths: int) -> Layers:
    """Uniform within 1 / sqrt(width), the start of PyTorch's layers; weights from the left, x @ w + b."""
    layers = []
    for m, n in itertools.pairwise(widths):
        bound = m**-0.5
        w, b = draw.uniform(-bound, bound, (m, n)), draw.uniform(-bound, bound, n)
        layers.append((w.astype(np.float32), b.astype(np.float32)))
    return layers
