"""Every adjoint with every optimizer, on two levels: right to a stated accuracy, or refused by name.

A diagonal of the table is tested daily, the rest among the slow tests.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import Graph, Level, linear

H = jnp.array([0.7, -0.4, 0.2])
Q = jnp.array([[1.0, 0.2, 0.1], [0.2, 0.8, -0.1], [0.1, -0.1, 1.2]])
C = jnp.array([0.3, -1.0, 0.5])

OPTIMIZERS = {
    "sgd": lambda: nestor.sgd(0.3),
    "momentum": lambda: nestor.sgd(0.1, momentum=0.6),
    "adam": lambda: nestor.adam(0.1, b1=0.8, b2=0.9, eps=1e-1),
    "rmsprop": lambda: nestor.rmsprop(0.05, 0.8, eps=1e-1),
    "optax": lambda: optax.adam(0.1, b1=0.8, b2=0.9, eps=1e-1),
}

AT_THE_ANSWER, THROUGH_THE_STEPS, ONE_STEP = "the answer", "the steps", "one step"
A_DIRECTION = "the direction of the part through the answer"
ADJOINTS = {
    # name: (adjoint, what it is compared with, relative error; of a direction the cosine)
    "implicit": (nestor.Implicit(), AT_THE_ANSWER, 1e-8),
    "implicit CG": (nestor.Implicit(linear.CG()), AT_THE_ANSWER, 1e-7),
    "implicit LU": (nestor.Implicit(linear.LU()), AT_THE_ANSWER, 1e-8),
    "implicit Neumann": (nestor.Implicit(linear.Neumann(200)), AT_THE_ANSWER, 1e-7),
    "implicit Nystrom": (nestor.Implicit(linear.Nystrom(3)), AT_THE_ANSWER, 1e-5),
    "unroll": (nestor.Unroll(), THROUGH_THE_STEPS, 1e-8),
    "checkpoint": (nestor.Checkpoint(levels=1), THROUGH_THE_STEPS, 1e-8),
    "checkpoint slots": (nestor.Checkpoint(slots=2), THROUGH_THE_STEPS, 1e-8),
    "reversible": (nestor.Reversible(), THROUGH_THE_STEPS, 1e-6),
    "truncate": (nestor.Truncate(6), THROUGH_THE_STEPS, 1e-8),
    "one step": (nestor.OneStep(), ONE_STEP, 1e-8),
    "forward": (nestor.Forward(), THROUGH_THE_STEPS, 1e-8),
    "differences": (nestor.FiniteDifference(), THROUGH_THE_STEPS, 1e-7),
    "evolution": (nestor.Evolution(sigma=0.01, pairs=3000), THROUGH_THE_STEPS, 0.2),
    "darts": (nestor.DARTS(), A_DIRECTION, 0.9),
    "sama": (nestor.SAMA(), A_DIRECTION, 0.9),
}
REFUSED = {("reversible", "optax")}
LESS = {("reversible", "sgd"): 1e-4, ("reversible", "rmsprop"): 1e-4}  # their steps have no memory
DAILY = {(name, list(OPTIMIZERS)[i % 5]) for i, name in enumerate(ADJOINTS)}
TABLE = [
    pytest.param(name, optimizer, marks=() if (name, optimizer) in DAILY else pytest.mark.slow)
    for name in ADJOINTS
    for optimizer in OPTIMIZERS
]


def low(w, h):
    return 0.5 * w @ Q @ w - w @ jnp.sin(h) + 0.1 * jnp.sum(jnp.exp(h) * w**4)


def high(w, h):
    return jnp.sum((w - C) ** 2) + 0.1 * jnp.sum(h**2)


def graph(adjoint, optimizer: str, steps: int, h=H) -> Graph:
    return Graph({
        "w": Level(
            lambda p, _: low(p["w"], p["h"]), jnp.zeros(3), OPTIMIZERS[optimizer](), steps=steps, adjoint=adjoint,
        ),
        "h": Level(lambda p, _: high(p["w"], p["h"]), h, nestor.sgd(0.1)),
    })  # fmt: skip


@functools.cache
def at_the_answer():
    """The derivative of the minimizer, by Newton's method and a dense solve."""
    w = jnp.zeros(3)
    newton = jax.jit(lambda w: w - jnp.linalg.solve(jax.hessian(low)(w, H), jax.grad(low)(w, H)))
    for _ in range(12):
        w = newton(w)
    mixed = jax.jacobian(jax.grad(low), 1)(w, H)
    of_w, of_h = jax.grad(high, (0, 1))(w, H)
    return of_h - mixed.T @ jnp.linalg.solve(jax.hessian(low)(w, H), of_w)


@functools.cache
def through_the_steps(optimizer: str, steps: int):
    """The derivative of the run, by central differences of it."""

    def loss(h):
        return graph(nestor.Unroll(), optimizer, steps, h).hypergradient().loss

    at = lambda k: jnp.stack([H + k * 1e-3 * e for e in jnp.eye(3)])  # noqa: E731
    values = jax.jit(jax.vmap(loss))(jnp.concatenate([at(1), at(-1), at(2), at(-2)])).reshape(4, 3)
    return (8 * (values[0] - values[1]) - (values[2] - values[3])) / 12e-3


@functools.cache
def one_step(optimizer: str, steps: int):
    """The derivative of the last step alone, from where the others lead."""
    before = graph(nestor.Unroll(), optimizer, steps - 1).run(1)
    level = before.state.states[0]
    made, slots, t = OPTIMIZERS[optimizer](), level.optimizer.slots, jnp.int32(steps - 1)

    def moved(gradient):
        if optimizer == "optax":
            return level.params + made.update(gradient, slots, level.params)[0]
        return made.update(made.values(t), t, gradient, level.params, slots)[0]

    def loss(h):
        return high(moved(jax.grad(low)(level.params, h)), h)

    with jax.numpy_dtype_promotion("standard"):
        return jax.jit(jax.grad(loss))(H)


@pytest.mark.parametrize(("name", "optimizer"), TABLE)
def test_an_adjoint_with_an_optimizer(name: str, optimizer: str):
    adjoint, against, tol = ADJOINTS[name]
    tol = LESS.get((name, optimizer), tol)
    if (name, optimizer) in REFUSED:
        with pytest.raises(nestor.BadArgument, match=r'level "w": argument .adjoint. is Reversible'):
            graph(adjoint, optimizer, 6)
        return
    steps = 6 if against in (THROUGH_THE_STEPS, ONE_STEP) else 400
    found = graph(adjoint, optimizer, steps).hypergradient().gradient
    if against == THROUGH_THE_STEPS:
        want = through_the_steps(optimizer, steps)
    elif against == ONE_STEP:
        want = one_step(optimizer, steps)
    else:
        want = at_the_answer()
    if against == A_DIRECTION:
        direct = 0.2 * H
        one, other = found - direct, want - direct
        assert one @ other > tol * jnp.linalg.norm(one) * jnp.linalg.norm(other)
    else:
        assert float(jnp.linalg.norm(found - want) / jnp.linalg.norm(want)) < tol, (found, want)


def test_the_table_is_whole():
    """Every adjoint that Nestor has stands in it."""
    import nestor.adjoints as room

    ours = {getattr(room, name) for name in room.__all__ if isinstance(getattr(room, name), type)}
    ours = {kind for kind in ours if hasattr(kind, "attach") and not getattr(kind, "_is_protocol", False)}
    assert ours == {type(adjoint) for adjoint, *_ in ADJOINTS.values()}
    assert {optimizer for _, optimizer in DAILY} == set(OPTIMIZERS)
    np.testing.assert_array_equal(len(TABLE), len(ADJOINTS) * len(OPTIMIZERS))
