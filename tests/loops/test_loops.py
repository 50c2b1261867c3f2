"""One loop, four ways to run it: the same numbers everywhere, and the derivatives that each promises."""

import functools
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from nestor import loops

quick = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)
N = 3


class Carry(NamedTuple):
    x: jax.Array
    count: jax.Array


def contraction(bound: int) -> loops.Loop:
    """x <- sin(A x + b) until it moves by less than tol; inputs are (A, b, tol)."""

    def start(inputs: Any) -> Any:
        return (
            Carry(jnp.zeros_like(inputs[1]), jnp.int32(0)),
            jnp.full((), jnp.inf, inputs[1].dtype),
            inputs[2],
        )

    def turn(inputs: Any, carry: Any) -> Any:
        (x, count), _, tol = carry
        x_next = jnp.sin(jnp.matmul(inputs[0], x, precision="highest") + inputs[1])
        moved = jax.lax.stop_gradient(jnp.max(jnp.abs(x_next - x)))
        return Carry(x_next, count + 1), moved, tol

    return loops.Loop(
        start=start,
        turn=turn,
        running=lambda carry: carry[1] > carry[2],
        bound=bound,
        ahead=lambda carry: (carry[0].x, carry[1] <= carry[2]),
    )


RUNS = {
    "to_the_end": loops.to_the_end,
    "every_turn": loops.every_turn,
    "last_turns": lambda loop, inputs: loops.last_turns(loop, inputs, 4),
    **{
        f"rematerialised_{levels}": functools.partial(loops.rematerialised, levels=levels)
        for levels in (1, 2, 3, 4)
    },
}


def end_of(run: Any) -> Any:
    """The same way to run, without the record."""
    return lambda loop, inputs: run(loop, inputs)[0]


WAYS = {name: end_of(run) for name, run in RUNS.items()}
WHOLE = ["every_turn", "rematerialised_1", "rematerialised_3"]  # one deep nest stands for the others


@functools.cache
def run_by(name: str, bound: int) -> Any:
    return jax.jit(functools.partial(WAYS[name], contraction(bound)))


@functools.cache
def slope_by(name: str, bound: int) -> Any:
    def total(inputs: Any) -> jax.Array:
        return jnp.sum(WAYS[name](contraction(bound), inputs)[0].x ** 2)

    return jax.jit(jax.grad(total))


def by_numpy(inputs: Any, bound: int) -> tuple[np.ndarray, int]:
    a, b, tol = map(np.asarray, inputs)
    x, count, moved = np.zeros(N), 0, np.inf
    while moved > tol and count < bound:
        x_next = np.sin(a @ x + b)
        moved, x, count = np.max(np.abs(x_next - x)), x_next, count + 1
    return x, count


def inputs_of(seed: int, tol: float = 1e-3) -> Any:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(N, N))
    a *= rng.uniform(0.1, 0.8) / np.linalg.norm(a, 2)
    return jnp.asarray(a), jnp.asarray(rng.normal(size=N)), jnp.asarray(tol)


# --- the same numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("bound", [5, 30])
@quick
@given(seeds)
def test_all_ways_give_the_same_numbers(name: str, bound: int, seed: int):
    inputs = inputs_of(seed)
    wanted, count = by_numpy(inputs, bound)
    (x, turns), _, _ = run_by(name, bound)(inputs)
    assert int(turns) == count <= bound
    np.testing.assert_allclose(x, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", WAYS)
def test_a_bound_of_zero_and_a_loop_that_is_over_at_once(name: str):
    for bound, tol in ((0, 1e-3), (6, np.inf)):
        inputs = inputs_of(0, tol)
        (x, turns), _, _ = WAYS[name](contraction(bound), inputs)
        assert int(turns) == 0, "not one turn"
        np.testing.assert_array_equal(x, np.zeros(N))


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("bound", [1, 2, 7, 16, 30])
def test_rematerialised_counts_right(levels: int, bound: int):
    """Neither a turn too few nor one too many, whatever the roots of the bound."""
    loop = loops.Loop(
        start=lambda inputs: jnp.int32(0),
        turn=lambda inputs, carry: carry + 1,
        running=lambda carry: carry < 1000,
        bound=bound,
        ahead=lambda carry: (carry, jnp.asarray(False)),
    )
    assert int(jax.jit(lambda: loops.rematerialised(loop, (), levels)[0])()) == bound


# --- their derivatives -------------------------------------------------------------------------------


def unrolled(inputs: Any, turns: int, since: int = 0) -> jax.Array:
    """The turns written out in Python; those before `since` are constants."""
    x = jnp.zeros(N)
    for k in range(turns):
        a, b, _ = jax.lax.stop_gradient(inputs) if k < since else inputs
        x = jnp.sin(jnp.matmul(a, x, precision="highest") + b)
    return jnp.sum(x**2)


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=3, deadline=None)
@given(st.sampled_from([0, 1, 2]))
def test_derivatives_are_those_of_the_turns(name: str, seed: int):
    inputs = inputs_of(seed)
    _, count = by_numpy(inputs, 30)
    found = slope_by(name, 30)(inputs)
    wanted = jax.jit(jax.grad(unrolled), static_argnums=1)(inputs, count)
    for left, right in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_forward_mode_through_the_while_loop():
    inputs = inputs_of(1)
    _, count = by_numpy(inputs, 30)
    tangents = jax.tree.map(jnp.ones_like, inputs)
    total = lambda inputs: jnp.sum(loops.to_the_end(contraction(30), inputs)[0][0].x ** 2)  # noqa: E731
    _, found = jax.jit(lambda i, t: jax.jvp(total, (i,), (t,)))(inputs, tangents)
    _, wanted = jax.jvp(lambda i: unrolled(i, count), (inputs,), (tangents,))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("name", ["every_turn", "rematerialised_2"])
def test_second_derivatives(name: str):
    a, b, tol = inputs_of(2, tol=0.0)
    total = lambda t: jnp.sum(WAYS[name](contraction(6), (a, t * b, tol))[0].x ** 2)  # noqa: E731
    exact = lambda t: unrolled((a, t * b, tol), 6)  # noqa: E731
    t = jnp.asarray(0.7)
    np.testing.assert_allclose(
        jax.jit(jax.grad(jax.grad(total)))(t), jax.jit(jax.grad(jax.grad(exact)))(t), rtol=1e-8
    )


@pytest.mark.parametrize("last", [1, 2, 6, 11])
def test_the_last_turns(last: int):
    """Exactly the last turns, all of them where there are fewer."""
    inputs = inputs_of(3, tol=0.0)
    bound = 6
    total = lambda i: jnp.sum(loops.last_turns(contraction(bound), i, last)[0][0].x ** 2)  # noqa: E731
    value, found = jax.jit(jax.value_and_grad(total))(inputs)
    exact = jax.jit(jax.value_and_grad(functools.partial(unrolled, turns=bound, since=bound - last)))
    wanted_value, wanted = exact(inputs)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    for left, right in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-14)


def test_the_last_turns_of_a_loop_that_is_over_at_once():
    inputs = inputs_of(3, tol=np.inf)
    total = lambda i: jnp.sum(loops.last_turns(contraction(6), i, 2)[0][0].x ** 2)  # noqa: E731
    for leaf in jax.tree.leaves(jax.grad(total)(inputs)):
        np.testing.assert_array_equal(leaf, jnp.zeros_like(leaf))


# --- lanes -------------------------------------------------------------------------------------------


def arriving(bound: int) -> loops.Loop:
    """Walk to c by at most one: arrives exactly, and a further turn would divide zero by zero."""

    def turn(c: jax.Array, carry: Any) -> Any:
        x, goal = carry
        distance = jnp.sqrt((x - c) ** 2)
        return x + jnp.minimum(1.0, distance) * (c - x) / distance, goal

    return loops.Loop(
        start=lambda c: (0.0 * c, jax.lax.stop_gradient(c)),
        turn=turn,
        running=lambda carry: carry[0] != carry[1],
        bound=bound,
        ahead=lambda carry: (carry[0], carry[0] == carry[1]),
    )


@pytest.mark.parametrize("name", ["every_turn", "last_turns", "rematerialised_2"])
def test_a_lane_that_has_arrived_takes_no_harm(name: str):
    """A batched `cond` computes both branches: a further turn there would be 0/0."""
    goals = jnp.asarray([1.0, 3.0, 2.0])

    def end(c: jax.Array) -> jax.Array:
        return WAYS[name](arriving(5), c)[0]

    ends, slopes = jax.jit(jax.vmap(jax.value_and_grad(end)))(goals)
    np.testing.assert_array_equal(ends, goals)
    assert jnp.all(jnp.isfinite(slopes)), slopes
    alone = [jax.jit(jax.grad(end))(c) for c in goals]
    np.testing.assert_allclose(slopes, alone, rtol=1e-12)
    tangents = jax.jit(jax.vmap(jax.jacfwd(end)))(goals)
    np.testing.assert_allclose(tangents, slopes, rtol=1e-12)


def test_lanes_of_a_while_loop_end_by_themselves():
    goals = jnp.asarray([1.0, 3.0, 2.0])
    ends = jax.jit(jax.vmap(lambda c: loops.to_the_end(arriving(5), c)[0][0]))(goals)
    np.testing.assert_array_equal(ends, goals)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("bound", [3, 7])
def test_every_way_records_the_same(name: str, bound: int):
    loop = contraction(bound)._replace(seen=lambda carry: {"x": carry[0].x, "count": carry[0].count})
    inputs = (0.5 * jnp.eye(N), jnp.arange(1.0, 1.0 + N), jnp.asarray(0.0))
    rows = jax.jit(functools.partial(RUNS[name], loop))(inputs)[1]
    x = np.zeros(N)
    for turn in range(bound):
        x = np.sin(0.5 * x + np.arange(1.0, 1.0 + N))
        np.testing.assert_allclose(rows["x"][turn], x, rtol=1e-12)
    np.testing.assert_array_equal(rows["count"], np.arange(1, bound + 1))


@pytest.mark.parametrize("name", ["every_turn", "rematerialised_2"])
def test_the_record_is_differentiable(name: str):
    loop = contraction(6)._replace(seen=lambda carry: carry[0].x)
    inputs = (0.5 * jnp.eye(N), jnp.arange(1.0, 1.0 + N), jnp.asarray(0.0))

    def by_hand(b: jax.Array) -> jax.Array:
        x, rows = jnp.zeros(N), []
        for _ in range(6):
            x = jnp.sin(0.5 * x + b)
            rows.append(x)
        return jnp.sum(jnp.stack(rows) ** 2)

    total = lambda b: jnp.sum(RUNS[name](loop, (inputs[0], b, inputs[2]))[1] ** 2)  # noqa: E731
    np.testing.assert_allclose(jax.grad(total)(inputs[1]), jax.grad(by_hand)(inputs[1]), rtol=1e-12)
