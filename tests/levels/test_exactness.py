"""Hypergradients of graphs against closed forms and dense differences, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import Graph, Level, linear

N = 4
KEY = jax.random.key(0)


def spd(i: int, n: int = N) -> jax.Array:
    """A symmetric matrix with eigenvalues between 1/2 and about 2."""
    a = jax.random.normal(jax.random.fold_in(KEY, i), (n, n))
    return a @ a.T / (2 * n) + 0.5 * jnp.eye(n)


def matrix(i: int, n: int = N) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(KEY, i), (n, n))


def vector(i: int, n: int = N) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(KEY, i), (n,))


def hypergradient(levels, name=None):
    return nestor.Graph(levels).hypergradient(name)


def ridge():
    """x, y, and the same held out."""
    x, noise = jax.random.normal(KEY, (30, 6)), vector(1, 30)
    truth = vector(2, 6)
    held = jax.random.normal(jax.random.key(5), (20, 6))
    return x, x @ truth + 0.5 * noise, held, held @ truth


def ridge_levels(adjoint, steps=600, strengths=None, optimizer=None):
    """One L2 strength a weight; the closed form by autodiff of the normal equations."""
    x, y, held, target = ridge()
    strengths = jnp.full(6, 0.1) if strengths is None else strengths
    lower = lambda p, _: jnp.mean((x @ p["w"] - y) ** 2) / 2 + 0.5 * jnp.sum(jnp.exp(p["s"]) * p["w"] ** 2)  # noqa: E731
    upper = lambda p, _: jnp.mean((held @ p["w"] - target) ** 2)  # noqa: E731

    def closed(s):
        w = jnp.linalg.solve(x.T @ x / len(x) + jnp.diag(jnp.exp(s)), x.T @ y / len(x))
        return jnp.mean((held @ w - target) ** 2)

    levels = {
        "w": Level(lower, jnp.zeros(6), optimizer or nestor.sgd(0.3), steps=steps, adjoint=adjoint),
        "s": Level(upper, strengths, nestor.sgd(0.1)),
    }
    return levels, jax.value_and_grad(closed)(strengths)


EXACT = {
    "dense": nestor.Implicit(),
    "cholesky": nestor.Implicit(linear.Cholesky()),
    "lu": nestor.Implicit(linear.LU()),
    "cg": nestor.Implicit(linear.CG()),
    "gmres": nestor.Implicit(linear.GMRES()),
    "bicgstab": nestor.Implicit(linear.BiCGStab()),
    "neumann": nestor.Implicit(linear.Neumann(400)),
    "nystrom": nestor.Implicit(linear.Nystrom(6)),
    "unroll": nestor.Unroll(),
    "checkpoint": nestor.Checkpoint(),
    "binomial": nestor.Checkpoint(slots=5),
    "truncate": nestor.Truncate(300),
}
SLOW = pytest.mark.slow
DAILY = ("gmres", "nystrom", "binomial")  # the others meet the table of test_combinations daily


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in DAILY else SLOW) for name in EXACT])
def test_ridge(name: str):
    levels, (value, slope) = ridge_levels(EXACT[name])
    found = hypergradient(levels)
    np.testing.assert_allclose(found.loss, value, rtol=1e-10)
    np.testing.assert_allclose(found.gradient, slope, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-4, pytest.param(1.0, marks=SLOW), 1e4])
def test_cg_at_any_scale_of_the_lower_loss(scale: float):
    """The answer does not change when the lower loss is multiplied; no more may its derivative."""
    levels, (_, slope) = ridge_levels(nestor.Implicit(linear.CG()))
    lower = levels["w"].loss
    levels["w"] = Level(
        lambda p, b: scale * lower(p, b),
        jnp.zeros(6),
        nestor.sgd(0.3 / scale),
        steps=600,
        adjoint=nestor.Implicit(linear.CG()),
    )
    np.testing.assert_allclose(hypergradient(levels).gradient, slope, rtol=1e-8)


def chain(adjoint, direct: bool):
    """c is a quadratic of b's answer (and a's, if direct), b of a's answer and c, a of b (and c).

    All losses are quadratic, so that answers are linear and the closed form is autodiff of linear solves.
    """
    qa, qb, qc = spd(10), spd(11), spd(12)
    mab, mac, mbc = matrix(13), matrix(14), matrix(15)

    def a_loss(a, b, c):
        return 0.5 * a @ qa @ a - a @ (mab @ b + float(direct) * mac @ c)

    def b_loss(a, b, c):
        return 0.5 * b @ qb @ b + 0.5 * jnp.sum((a - b) ** 2) - b @ mbc @ c + a @ b / 3

    def c_loss(a, b, c):
        return 0.5 * c @ qc @ c + jnp.sum((b - 1) ** 2) + float(direct) * jnp.sum((a - c) ** 2 + a * c)

    def a_answer(b, c):
        return jnp.linalg.solve(qa, mab @ b + float(direct) * mac @ c)

    def b_answer(c):
        slope = jax.grad(lambda b: b_loss(a_answer(b, c), b, c))
        zero = jnp.zeros(N)
        return jnp.linalg.solve(jax.jacobian(slope)(zero), -slope(zero))

    def closed(c):
        b = b_answer(c)
        return c_loss(a_answer(b, c), b, c)

    start = vector(16)
    of = lambda loss: lambda p, _: loss(p["a"], p["b"], p["c"])  # noqa: E731
    levels = {
        "a": Level(of(a_loss), jnp.zeros(N), nestor.sgd(0.5), steps=150, adjoint=adjoint),
        "b": Level(of(b_loss), jnp.zeros(N), nestor.sgd(0.05), steps=600, adjoint=adjoint),
        "c": Level(of(c_loss), start, nestor.sgd(0.1)),
    }
    return levels, jax.value_and_grad(closed)(start), (a_answer, b_answer, start)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    "adjoint", [nestor.Implicit(), pytest.param(nestor.Implicit(linear.GMRES()), marks=SLOW)]
)
def test_a_chain_of_three(adjoint, direct: bool):
    levels, (value, slope), (a_answer, b_answer, c) = chain(adjoint, direct)
    found = hypergradient(levels)
    b = b_answer(c)
    np.testing.assert_allclose(found.params["b"], b, rtol=1e-9)
    if direct:
        np.testing.assert_allclose(found.params["a"], a_answer(b, c), rtol=1e-9)
    np.testing.assert_allclose(found.loss, value, rtol=1e-9)
    np.testing.assert_allclose(found.gradient, slope, rtol=1e-8, atol=1e-9)


def diamond(adjoint):
    """d sets b and c, which both set a; d's loss reads a, and c: two paths, and one more."""
    qa, qb, qc, qd = (spd(i) for i in range(20, 24))
    mab, mac, mbd, mcd = (matrix(i) for i in range(24, 28))
    losses = {
        "a": lambda p: 0.5 * p["a"] @ qa @ p["a"] - p["a"] @ (mab @ p["b"] + mac @ p["c"]),
        "b": lambda p: 0.5 * p["b"] @ qb @ p["b"] - p["b"] @ mbd @ p["d"],
        "c": lambda p: 0.5 * p["c"] @ qc @ p["c"] - p["c"] @ mcd @ jnp.tanh(p["d"]),
        "d": lambda p: 0.5 * p["d"] @ qd @ p["d"] + jnp.sum((p["a"] - 1) ** 4) + jnp.sum(p["c"] ** 2),
    }

    def closed(d):
        b, c = jnp.linalg.solve(qb, mbd @ d), jnp.linalg.solve(qc, mcd @ jnp.tanh(d))
        a = jnp.linalg.solve(qa, mab @ b + mac @ c)
        return losses["d"]({"a": a, "b": b, "c": c, "d": d})

    start = vector(30) / 2
    levels = {
        name: Level(
            lambda p, _, loss=loss: loss(p),
            start if name == "d" else jnp.zeros(N),
            nestor.sgd(0.5),
            steps=1 if name == "d" else 200,
            adjoint=adjoint,
        )
        for name, loss in losses.items()
    }
    return levels, jax.value_and_grad(closed)(start)


@pytest.mark.parametrize(
    "adjoint", [nestor.Implicit(), nestor.Unroll(), pytest.param(nestor.Checkpoint(), marks=SLOW)]
)
def test_a_diamond(adjoint):
    levels, (value, slope) = diamond(adjoint)
    graph = Graph(levels)
    assert graph.needs["d"] == ("a", "b", "c")
    assert graph.feels["a"] == ("b", "c")
    found = graph.hypergradient()
    np.testing.assert_allclose(found.loss, value, rtol=1e-10)
    np.testing.assert_allclose(found.gradient, slope, rtol=1e-8, atol=1e-10)


OPTIMIZERS = {
    "momentum": lambda: nestor.sgd(0.05, momentum=0.9),
    "nesterov": lambda: nestor.sgd(0.05, momentum=0.9, nesterov=True),
    "adagrad": lambda: nestor.adagrad(0.3),
    "rmsprop": lambda: nestor.rmsprop(0.02, 0.9, eps=1e-3),
    "adam": lambda: nestor.adam(0.1, eps=1e-3),
    "adamw": lambda: nestor.adamw(0.1, weight_decay=0.01, eps=1e-3),
    "optax adam": lambda: optax.adam(0.1, eps=1e-3),
    "optax rmsprop": lambda: optax.rmsprop(0.02, eps=1e-3),
}
THROUGH_STEPS = {
    "unroll": nestor.Unroll(),
    "checkpoint": nestor.Checkpoint(),
    "binomial": nestor.Checkpoint(slots=3),
    "truncate": nestor.Truncate(12),
    "differences": nestor.FiniteDifference(),
}


# Daily: ours on a diagonal; optax's are differentiated step by step in test_combinations.
OURS = [optimizer for optimizer in OPTIMIZERS if not optimizer.startswith("optax")]
DIAGONAL = {(list(THROUGH_STEPS)[i % 5], optimizer) for i, optimizer in enumerate(OURS)}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        pytest.param(name, optimizer, marks=[] if (name, optimizer) in DIAGONAL else SLOW)
        for name in THROUGH_STEPS
        for optimizer in OPTIMIZERS
    ],
)
def test_through_twelve_steps(name: str, optimizer: str):
    """Against central differences of the run itself: the Jacobian of an adaptive optimizer is right."""
    levels, _ = ridge_levels(THROUGH_STEPS[name], 12, vector(40, 6), OPTIMIZERS[optimizer]())
    found = hypergradient(levels).gradient

    def loss(strengths):
        levels, _ = ridge_levels(nestor.Unroll(), 12, strengths, OPTIMIZERS[optimizer]())
        return hypergradient(levels).loss

    s, h = vector(40, 6), 1e-4
    for i in range(2):
        unit = jnp.zeros(6).at[i].set(h)
        near, far = loss(s + unit) - loss(s - unit), loss(s + 2 * unit) - loss(s - 2 * unit)
        np.testing.assert_allclose(found[i], (8 * near - far) / (12 * h), rtol=1e-6, atol=1e-9)
