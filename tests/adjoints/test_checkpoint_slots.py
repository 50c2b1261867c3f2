"""`Checkpoint(slots=c)`: the derivatives of `Unroll`, of any order and in any mode, in the memory of c states."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import loops
from nestor.adjoints import Answer, Condition
from nestor.testing import AdjointChecks

NOTHING = Condition(residual=lambda x, inputs: x)


@pytest.mark.slow
class TestConformance(AdjointChecks):
    make = staticmethod(lambda: nestor.Checkpoint(slots=5))


class Carry(NamedTuple):
    x: jax.Array
    count: jax.Array
    key: jax.Array


def noisy(bound: int, limit: int = 10**6) -> loops.Loop:
    """Noisy descent; inputs {"x0", "rate", "data"}; the record is (size, count)."""

    def turn(inputs: Any, carry: Carry) -> Carry:
        key, sub = jax.random.split(carry.key)
        noise = jax.random.normal(sub, carry.x.shape, carry.x.dtype)
        slope = jnp.sin(carry.x * inputs["rate"]) + 0.1 * noise * carry.x - jnp.mean(inputs["data"])
        return Carry(carry.x - inputs["rate"] * slope, carry.count + 1, key)

    return loops.Loop(
        start=lambda inputs: Carry(inputs["x0"], jnp.int32(0), inputs["key"]),
        turn=turn,
        running=lambda carry: carry.count < limit,
        bound=bound,
        seen=lambda carry: (jnp.sum(carry.x**2), carry.count),
    )


def total(adjoint: Any, loop: loops.Loop) -> Any:
    """A scalar of the last point, of the record and of the inputs, as a function of (x0, rate)."""

    def read(inputs: Any, carry: Carry, seen: Any) -> Answer:
        made = jnp.arange(loop.bound, dtype=jnp.int32) < carry.count
        curve = jnp.where(made, seen[0], 0.0)
        return Answer(carry.x * inputs["rate"], jnp.sum(curve), {"count": seen[1], "end": carry.count})

    solve = adjoint.attach(loop, read, NOTHING)

    def value(t: Any) -> jax.Array:
        data = jnp.linspace(0.0, 1.0, 5)
        answer = solve({"x0": t[:2], "rate": t[2], "data": data, "key": jax.random.key(1)})
        return jnp.sum(jnp.sin(answer.x)) + answer.value

    return value


T = jnp.asarray([0.7, -0.4, 0.3])
ORDERS = {
    "value": lambda f: f,
    "forward": jax.jacfwd,
    "reverse": jax.jacrev,
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f)),
    "forward over reverse": lambda f: jax.jacfwd(jax.jacrev(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
}


DAILY = ("value", "forward", "reverse", "forward over reverse")  # the rest is slow to compile


@pytest.mark.parametrize(
    ("order", "limit"),
    [
        *(pytest.param(order, 5, marks=() if order in DAILY else pytest.mark.slow) for order in ORDERS),
        ("reverse", 100),
    ],
)
def test_derivatives_of_any_order_are_those_of_unroll(order: str, limit: int):
    derivative, loop = ORDERS[order], noisy(7, limit)
    found = jax.jit(derivative(total(nestor.Checkpoint(slots=2), loop)))(T)
    wanted = jax.jit(derivative(total(nestor.Unroll(), loop)))(T)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "order",
    ["reverse", *(pytest.param(o, marks=pytest.mark.slow) for o in ("forward", "forward over reverse"))],
)
def test_lanes(order: str):
    derivative, loop = ORDERS[order], noisy(5)
    many = jnp.stack([T, 0.5 * T, -T])
    found = jax.jit(jax.vmap(derivative(total(nestor.Checkpoint(slots=2), loop))))(many)
    alone = jax.jit(derivative(total(nestor.Unroll(), loop)))
    np.testing.assert_allclose(found, jnp.stack([alone(t) for t in many]), rtol=1e-11, atol=1e-12)


def test_a_row_of_no_turn_has_no_derivative_in_any_mode():
    def value(t: jax.Array) -> jax.Array:
        solve = nestor.Checkpoint(slots=2).attach(
            noisy(7, 3), lambda _, carry, seen: Answer(carry.x, seen[0], ()), NOTHING
        )
        return solve({"x0": t[:2], "rate": t[2], "data": jnp.ones(1), "key": jax.random.key(1)}).value

    forward, reverse = jax.jit(lambda t: (jax.jacfwd(value)(t), jax.jacrev(value)(t)))(T)
    np.testing.assert_allclose(forward, reverse, rtol=1e-12)
    assert np.all(np.any(np.asarray(reverse) != 0, axis=1) == (np.arange(7) < 3))


@pytest.mark.slow
def test_through_argmin():
    def solve(theta: jax.Array, adjoint: Any) -> jax.Array:
        fun = lambda x: jnp.sum(theta * x**2) + 0.5 * jnp.sum(jnp.cosh(x - theta))  # noqa: E731
        options = {"max_steps": 30, "tol": 1e-6, "on_failure": "keep"}
        return jnp.sum(nestor.argmin(fun, jnp.ones(2), solver=nestor.BFGS(), adjoint=adjoint, **options) ** 3)

    slope = jax.jit(jax.grad(solve), static_argnums=1)
    theta = jnp.asarray([0.5, 1.3])
    np.testing.assert_allclose(
        slope(theta, nestor.Checkpoint(slots=5)), slope(theta, nestor.Unroll()), rtol=1e-10
    )


def temporary_memory(max_steps: int, slots: int, data: int = 1) -> int:
    def loss(b: jax.Array, data: jax.Array) -> jax.Array:
        x = nestor.fixed_point(
            lambda x: 0.9 * jnp.sin(x) + b + jnp.mean(data), jnp.zeros(4000), solver=nestor.Picard(),
            adjoint=nestor.Checkpoint(slots=slots), max_steps=max_steps,
        ).x  # fmt: skip
        return jnp.sum(x**2)

    compiled = jax.jit(jax.grad(loss)).lower(jnp.zeros(4000), jnp.zeros(data)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_a_reverse_pass():
    state = 4000 * 8
    short = temporary_memory(100, 5)
    assert temporary_memory(4000, 5) <= short + 8 * 4000, "it grows by the schedule at most"
    assert temporary_memory(100, 25) > short + 20 * state
    assert temporary_memory(100, 5, data=10**6) < short + 10**6, "data without a cotangent take no room"


def test_complex_numbers_are_refused():
    loop = noisy(3)._replace(start=lambda inputs: inputs * (1 + 1j), turn=lambda _, c: c, seen=None)
    loop = loop._replace(running=lambda carry: jnp.asarray(True))
    read = lambda inputs, carry, seen: Answer(jnp.real(carry), jnp.zeros(()), ())  # noqa: E731
    solve = nestor.Checkpoint(slots=2).attach(loop, read, NOTHING)
    with pytest.raises(nestor.CannotDifferentiate, match="complex"):
        jax.grad(lambda t: solve(t).x)(1.0)
