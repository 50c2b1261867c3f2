"""DARTS and SAMA against their definitions: dense mixed derivatives, and the Jacobian of the update itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import Graph, Level

H = jnp.array([0.7, -0.4, 0.2])
C = jnp.array([0.3, -1.0, 0.5])
BOUND = jnp.array([-9.0, 0.5, -9.0])
ROWS = jax.random.normal(jax.random.key(3), (12, 3))
SLOW = pytest.mark.slow


def low(w, h, rows=ROWS):
    return jnp.mean(jnp.cosh(rows @ w - jnp.sum(h))) + jnp.sum(jnp.exp(h) * w**2) + jnp.sum(jnp.sin(h) * w)


def high(w, h):
    return jnp.sum((w - C) ** 2) + 0.1 * jnp.sum(h**2)


def levels(adjoint, optimizer, steps=3, **options):
    lower = lambda p, rows: low(p["w"], p["h"], ROWS if rows is None else rows)  # noqa: E731
    return {
        "w": Level(lower, jnp.full(3, 0.1), optimizer, steps=steps, adjoint=adjoint, **options),
        "h": Level(lambda p, _: high(p["w"], p["h"]), H, nestor.sgd(0.0)),
    }


def found(graph):
    """The hypergradient after one outer step, and where the level below was: params, memory, moves made."""
    once = graph.run(1)
    state = graph.run(1, start=once).state.states[0]
    return graph.hypergradient(start=once).gradient, state.params, state.optimizer.slots, state.t


low_slope = jax.jit(jax.grad(low))


@jax.jit
def by_definition(w, weight, rows=ROWS):
    """direct + (d gradient / d h)' weight' v, with the matrix `weight` = d move / d gradient."""
    mixed = jax.jacobian(jax.grad(low), 1)(w, H, rows)  # (w, h)
    of_w, of_h = jax.grad(high, (0, 1))(w, H)
    return of_h + mixed.T @ (weight.T @ of_w)


@pytest.mark.parametrize("rate", [pytest.param(1.0, marks=pytest.mark.slow), 0.05])
def test_darts(rate: float):
    graph = Graph(levels(nestor.DARTS(eps=1e-4, rate=rate), nestor.sgd(0.05)))
    gradient, w, _, _ = found(graph)
    np.testing.assert_allclose(gradient, by_definition(w, -rate * jnp.eye(3)), rtol=1e-6)


def adam(g, slots, t):
    b1, b2 = 0.9, 0.99
    mean, square = b1 * slots["mean"] + (1 - b1) * g, b2 * slots["square"] + (1 - b2) * g**2
    mean, square = mean / (1 - b1 ** (t + 1)), square / (1 - b2 ** (t + 1))
    return -0.05 * mean / (jnp.sqrt(square) + 1e-3)


OPTAX = optax.adam(0.05, b2=0.99, eps=1e-3)
UPDATES = {
    # name: (optimizer, move from the gradient, the memory and the moves made, by the book)
    "sgd": (lambda: nestor.sgd(0.05), lambda g, slots, t: -0.05 * g),
    "momentum": (
        lambda: nestor.sgd(0.05, momentum=0.8),
        lambda g, slots, t: -0.05 * (0.8 * slots["velocity"] + g),
    ),
    "nesterov": (
        lambda: nestor.sgd(0.05, momentum=0.8, nesterov=True),
        lambda g, slots, t: -0.05 * (g + 0.8 * (0.8 * slots["velocity"] + g)),
    ),
    "rmsprop": (
        lambda: nestor.rmsprop(0.02, 0.9, eps=1e-3),
        lambda g, slots, t: -0.02 * g / (jnp.sqrt(0.9 * slots["square"] + 0.1 * g**2) + 1e-3),
    ),
    "adam": (lambda: nestor.adam(0.05, b2=0.99, eps=1e-3), adam),
    "optax adam": (lambda: OPTAX, lambda g, slots, t: OPTAX.update(g, slots)[0]),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=SLOW if name in ("sgd", "momentum", "nesterov") else ()) for name in UPDATES],
)
def test_sama_takes_the_jacobian_of_the_update(name: str):
    make, move = UPDATES[name]
    graph = Graph(levels(nestor.SAMA(eps=1e-4), make()))
    gradient, w, slots, t = found(graph)
    with jax.numpy_dtype_promotion("standard"):
        weight = jax.jit(jax.jacobian(lambda g: move(g, slots, t)))(low_slope(w, H))
    np.testing.assert_allclose(gradient, by_definition(w, weight), rtol=1e-6)


def test_the_steps_are_those_that_were_told():
    """Both agree where the answer's Hessian is the identity over the rate: one step is the exact derivative."""
    made = lambda adjoint: Graph({  # noqa: E731
        "w": Level(lambda p, _: jnp.sum((p["w"] - jnp.sin(p["h"])) ** 2), C, nestor.sgd(0.5), steps=1, adjoint=adjoint),
        "h": Level(lambda p, _: high(p["w"], p["h"]), H, nestor.sgd(0.0)),
    })  # fmt: skip
    want = made(nestor.Implicit()).hypergradient().gradient
    for adjoint in (nestor.DARTS(rate=0.5), nestor.SAMA()):
        np.testing.assert_allclose(made(adjoint).hypergradient().gradient, want, rtol=1e-10)


def test_a_clipped_move_has_the_jacobian_of_a_clipped_move():
    graph = Graph(levels(nestor.SAMA(eps=1e-4), nestor.sgd(0.05), clip=0.3))
    gradient, w, _, _ = found(graph)
    below = low_slope(w, H)
    assert float(jnp.linalg.norm(below)) > 0.3
    weight = jax.jit(jax.jacobian(lambda g: -0.05 * 0.3 * g / jnp.linalg.norm(g)))(below)
    np.testing.assert_allclose(gradient, by_definition(w, weight), rtol=1e-6)


def test_a_projected_move_has_the_jacobian_of_a_projected_move():
    """What a bound holds does not follow its gradient."""
    graph = Graph(
        levels(nestor.SAMA(eps=1e-4), nestor.sgd(0.05), 60, project=lambda w: jnp.maximum(w, BOUND))
    )
    gradient, w, _, _ = found(graph)
    held = w <= BOUND
    assert held.tolist() == [False, True, False]
    weight = -0.05 * jnp.diag(jnp.where(held, 0.0, 1.0))
    np.testing.assert_allclose(gradient, by_definition(w, weight), rtol=1e-6)


def test_the_batch_is_that_of_the_last_move():
    options = {"data": ROWS, "batch_size": 4, "shuffle": False}
    graph = Graph(levels(nestor.SAMA(eps=1e-4), nestor.sgd(0.05), 2, **options))
    gradient, w, _, _ = found(graph)  # batches 0, 1; 2, 0
    np.testing.assert_allclose(gradient, by_definition(w, -0.05 * jnp.eye(3), ROWS[:4]), rtol=1e-6)


def test_three_levels():
    """c above b above a: first-order derivatives of first-order derivatives, densely."""
    rate_a, rate_b = 0.3, 0.2
    losses = {
        "a": lambda a, b, c: jnp.sum((a - jnp.tanh(b + c)) ** 2) + 0.1 * jnp.sum(a * b),
        "b": lambda a, b, c: jnp.sum(jnp.sin(b) * a) + jnp.sum(b**2 * c) + jnp.sum(a * c),
        "c": lambda a, b, c: jnp.sum((a + b - C) ** 2) + 0.5 * jnp.sum(c**2) + b @ c,
    }
    of = lambda name: lambda p, _: losses[name](p["a"], p["b"], p["c"])  # noqa: E731
    graph = Graph({
        "a": Level(of("a"), jnp.zeros(3), nestor.sgd(0.3), steps=150, adjoint=nestor.DARTS(1e-4, rate_a)),
        "b": Level(of("b"), C, nestor.sgd(0.0), steps=1, adjoint=nestor.DARTS(1e-4, rate_b)),  # stays
        "c": Level(of("c"), H, nestor.sgd(0.0)),
    })  # fmt: skip
    hyper = graph.hypergradient()
    a, b, c = (hyper.params[name] for name in "abc")
    grad_a = jax.grad(losses["a"])

    def answer(k, b, c):
        """-rate (d grad_a / d(b or c)) at the pinned a."""
        return -rate_a * jax.jacobian(grad_a, k)(a, b, c)

    def slope_c(b, c):
        """What b's gradient for c is, through a's answer."""
        of_a, of_c = jax.grad(losses["b"], (0, 2))(a, b, c)
        return of_c + answer(2, b, c).T @ of_a

    on_a, on_b, on_c = jax.grad(losses["c"], (0, 1, 2))(a, b, c)
    v = on_b + answer(1, b, c).T @ on_a
    want = on_c + answer(2, b, c).T @ on_a - rate_b * jax.jacobian(slope_c)(b, c) @ v
    np.testing.assert_allclose(hyper.gradient, want, rtol=1e-6)


@jax.custom_jvp
def marked(x):
    """sin, whose second derivative is computed by a cube root that nothing else needs."""
    return jnp.sin(x)


@jax.custom_jvp
def marked_slope(x):
    return jnp.cos(x)


marked.defjvps(lambda dot, out, x: marked_slope(x) * dot)
marked_slope.defjvps(lambda dot, out, x: -jnp.cbrt(jnp.sin(x) ** 3) * dot)


@pytest.mark.parametrize(
    "adjoint", [nestor.DARTS(), nestor.SAMA(), nestor.Implicit()], ids=["darts", "sama", "implicit"]
)
def test_no_second_derivative_is_computed(adjoint):
    made = lambda h: Graph({  # noqa: E731
        "w": Level(lambda p, _: jnp.sum(marked(p["w"] * p["h"]) + p["w"] ** 2), C, nestor.adam(0.1), adjoint=adjoint),
        "h": Level(lambda p, _: high(p["w"], p["h"]), h, nestor.sgd(0.1)),
    })  # fmt: skip
    text = jax.jit(lambda h: made(h).hypergradient().gradient).lower(H).compile().as_text()
    assert ("cbrt" in text) == isinstance(adjoint, nestor.Implicit)


def test_they_belong_to_levels():
    for adjoint in (nestor.DARTS(), nestor.SAMA()):
        with pytest.raises(nestor.BadArgument, match=r"a level of nestor\.levels"):
            nestor.argmin(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2), adjoint=adjoint)


def test_forward_mode_is_the_dense_derivative():
    """The same rule pushed forward, without differences."""

    def loss(h):
        there = levels(nestor.SAMA(), nestor.adam(0.05, eps=1e-3))
        there["h"] = Level(there["h"].loss, h, nestor.sgd(0.0))
        return Graph(there).hypergradient()

    pushed = jax.jit(jax.jacfwd(lambda h: loss(h).loss))(H)
    np.testing.assert_allclose(pushed, loss(H).gradient, rtol=1e-4)
