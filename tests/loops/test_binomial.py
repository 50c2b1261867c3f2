"""Binomial checkpointing: the fewest forward turns there are, the right derivative, the memory of the slots."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nestor import loops

# --- the schedule ------------------------------------------------------------------------------------


@functools.cache
def fewest_turns(length: int, slots: int) -> int:
    """The optimum by dynamic programming: where to store next, over all places."""
    if length <= 1:
        return 0
    if slots == 1:
        return length * (length - 1) // 2
    return min(
        turns + fewest_turns(length - turns, slots - 1) + fewest_turns(turns, slots)
        for turns in range(1, length)
    )


def followed(length: int, slots: int) -> tuple[list[int], list[int]]:
    """What a schedule does: the turns it reverses in order, and how often each is made forward."""
    stored, reversed_, made = [0], [], [0] * length
    for action in loops.binomial_schedule(length, slots).tolist():
        place = stored[-1] + abs(action)
        for turn in range(stored[-1], place):
            made[turn] += 1
        if action < 0:
            stored.append(place)
            assert len(stored) <= slots
            continue
        reversed_.append(place)
        if action == 0:
            stored.pop()
    assert stored == []
    return reversed_, made


def sweeps(length: int, slots: int) -> int:
    return next(r for r in range(length) if math.comb(slots + r, r) >= length)


def by_formula(length: int, slots: int) -> int:
    r = sweeps(length, slots)
    return r * length - (math.comb(slots + r, r - 1) if r else 0)


@pytest.mark.parametrize("slots", range(1, 9))
def test_no_schedule_makes_fewer_turns(slots: int):
    for length in range(1, 41):
        reversed_, made = followed(length, slots)
        assert reversed_ == list(reversed(range(length)))
        assert sum(made) == fewest_turns(length, slots) == by_formula(length, slots)


@pytest.mark.parametrize(("slots", "published"), [(44, 2), (17, 3), (10, 4), (5, 8)])
def test_a_thousand_turns(slots: int, published: int):
    _, made = followed(1000, slots)
    assert max(made) == sweeps(1000, slots) == published
    assert sum(made) == by_formula(1000, slots)


@pytest.mark.parametrize(("length", "slots"), [(10**5, 1), (10**5, 2), (10**5, 64), (10**5, 10**5), (0, 3)])
def test_a_schedule_is_short(length: int, slots: int):
    schedule = loops.binomial_schedule(length, slots)
    assert schedule.dtype == np.int32
    assert length <= schedule.size <= 2 * length
    assert np.sum(schedule >= 0) == length
    assert np.abs(schedule).sum(dtype=np.int64) == (by_formula(length, slots) if length else 0)


# --- the derivative ----------------------------------------------------------------------------------


class Carry(NamedTuple):
    x: jax.Array
    speed: jax.Array
    count: jax.Array
    key: jax.Array
    odd: jax.Array
    limit: jax.Array


def noisy(bound: int, counter: Any = None) -> loops.Loop:
    """Noisy momentum with everything a carry can hold; inputs (start, weight, rate, limit); ends at the limit."""

    def start(inputs: Any) -> Carry:
        x, _, _, limit = inputs
        return Carry(
            x**2, jnp.zeros_like(x), jnp.int32(0), jax.random.key(3), jnp.asarray(False), 1.0 * limit
        )

    def turn(inputs: Any, carry: Carry) -> Carry:
        if counter is not None:
            jax.debug.callback(counter)
        _, weight, rate, _ = inputs
        key, sub = jax.random.split(carry.key)
        noise = 0.1 * jax.random.normal(sub, carry.x.shape, carry.x.dtype)
        slope = jnp.where(carry.odd, jnp.cos(weight * carry.x), jnp.sin(weight * carry.x))
        speed = 0.8 * carry.speed - rate * (slope + noise * carry.x)
        return Carry(carry.x + speed, speed, carry.count + 1, key, ~carry.odd, carry.limit)

    return loops.Loop(
        start=start,
        turn=turn,
        running=lambda carry: carry.count < carry.limit.astype(jnp.int32),
        bound=bound,
        seen=lambda carry: {"size": jnp.sum(carry.x**2), "count": carry.count, "speed": carry.speed},
    )


def inputs_of(limit: float = 1e6) -> Any:
    draw = np.random.default_rng(0)
    x, weight = jnp.asarray(draw.normal(size=(2, 3)))
    return x, weight, jnp.asarray(0.3), jnp.asarray(limit)


def cotangents(loop: loops.Loop, inputs: Any, limit: float) -> tuple[Any, Any]:
    """Random ones for all that is a float, zero in the rows of turns that are not made."""
    draw = np.random.default_rng(1)
    zeros = lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0)  # noqa: E731
    made = (np.arange(loop.bound) < limit).astype(float)

    def entry(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return zeros(leaf)
        return jnp.asarray(draw.normal(size=leaf.shape))

    carry, rows = jax.eval_shape(lambda i: loops.every_turn(loop, i), inputs)
    end = jax.tree.map(entry, carry)
    seen = jax.tree.map(entry, rows)
    mask = lambda leaf: leaf * made.reshape(-1, *[1] * (leaf.ndim - 1))  # noqa: E731
    return end, {"size": mask(seen["size"]), "speed": mask(seen["speed"]), "count": seen["count"]}


@functools.cache
def exact(bound: int, limit: float) -> Any:
    loop, inputs = noisy(bound), inputs_of(limit)

    def pulled(inputs: Any, both: Any) -> Any:
        return jax.vjp(lambda i: loops.every_turn(loop, i), inputs)[1](both)[0]

    return jax.jit(lambda i: pulled(i, cotangents(loop, inputs, limit)))(inputs)


def reversed_by(loop: loops.Loop, slots: int, limit: float) -> Any:
    both = cotangents(loop, inputs_of(limit), limit)
    return jax.jit(lambda inputs: loops.reverse_binomially(loop, inputs, slots, *both))


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("slots", [1, 2, 3, 5, 64])
def test_it_is_the_derivative_of_every_turn(bound: int, slots: int):
    found = reversed_by(noisy(bound), slots, 1e6)(inputs_of())
    for left, right in zip(found, exact(bound, 1e6), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("limit", [0.0, 1.0, 4.0, 6.0])
def test_a_loop_that_ends_early(limit: float):
    found = reversed_by(noisy(7), 3, limit)(inputs_of(limit))
    for left, right in zip(found, exact(7, limit), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


def test_lanes_that_end_at_different_turns():
    loop, limits = noisy(7), jnp.asarray([0.0, 3.0, 7.0, 5.0])
    x, weight, rate, _ = inputs_of()
    end, seen = cotangents(loop, inputs_of(), 0.0)  # no cotangents of rows, which differ from lane to lane
    pull = lambda limit: loops.reverse_binomially(loop, (x, weight, rate, limit), 3, end, seen)  # noqa: E731
    lanes = jax.jit(jax.vmap(pull))(limits)
    alone = jax.jit(pull)
    for lane, limit in enumerate(limits):
        for left, right in zip(lanes, alone(limit), strict=True):
            np.testing.assert_allclose(left[lane], right, rtol=1e-12, atol=1e-14)


def test_lanes_that_have_arrived_take_no_harm():
    """A turn after the end divides zero by zero here."""

    def turn(c: jax.Array, carry: Any) -> Any:
        x, goal = carry
        distance = jnp.sqrt((x - c) ** 2)
        return x + jnp.minimum(1.0, distance) * (c - x) / distance, goal

    loop = loops.Loop(
        start=lambda c: (0.0 * c, jax.lax.stop_gradient(c)),
        turn=turn,
        running=lambda carry: carry[0] != carry[1],
        bound=6,
    )
    one = jnp.asarray(1.0)
    slope = lambda c: loops.reverse_binomially(loop, c, 2, (one, 0.0 * one), ())  # noqa: E731
    goals = jnp.asarray([1.0, 3.0, 2.0])
    exact = jax.jit(jax.grad(lambda c: loops.every_turn(loop, c)[0][0]))
    np.testing.assert_allclose(jax.jit(jax.vmap(slope))(goals), [exact(c) for c in goals], rtol=1e-12)


def test_a_bound_of_zero():
    loop = noisy(0)
    end, seen = cotangents(loop, inputs_of(), 0.0)
    found = loops.reverse_binomially(loop, inputs_of(), 3, end, seen)
    np.testing.assert_allclose(found[0], 2 * inputs_of()[0] * end.x, rtol=1e-15)
    np.testing.assert_array_equal(found[1], jnp.zeros(3))


# --- its cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "slots"), [(20, 3), (30, 5), (12, 1), (5, 64)])
def test_the_turns_made_are_those_of_the_schedule(bound: int, slots: int):
    made = []
    loop = noisy(bound, lambda: made.append(1))
    pull = reversed_by(loop, slots, 1e6)
    made.clear()
    jax.block_until_ready(pull(inputs_of()))
    jax.effects_barrier()
    assert len(made) == fewest_turns(bound, slots) + bound  # each reversal makes its turn once more


def cost(bound: int, slots: int) -> tuple[int, int]:
    """Bytes of temporaries, and the length of the program."""
    size = 4000

    def pulled(x: jax.Array, rate: jax.Array) -> Any:
        loop = loops.Loop(
            start=lambda inputs: inputs[0],
            turn=lambda inputs, x: x - inputs[1] * jnp.sin(x),
            running=lambda x: jnp.asarray(True),
            bound=bound,
        )
        return loops.reverse_binomially(loop, (x, rate), slots, jnp.ones(size), ())

    lowered = jax.jit(pulled).lower(jnp.ones(size), jnp.asarray(0.1))
    length = len(str(jax.make_jaxpr(pulled)(jnp.ones(size), jnp.asarray(0.1))).splitlines())
    return lowered.compile().memory_analysis().temp_size_in_bytes, length


def test_memory_is_that_of_the_slots_whatever_the_length():
    state = 4000 * 8
    short, length = cost(100, 5)
    long, same_length = cost(100_000, 5)
    assert length == same_length
    assert long - short <= 4 * 2 * 100_000  # the schedule, if anything
    assert 5 * state <= short <= 15 * state
    assert 15 * state <= cost(100, 20)[0] - short + state <= 20 * state


def test_it_runs_a_hundred_thousand_turns():
    loop = loops.Loop(
        start=lambda rate: jnp.ones_like(rate),
        turn=lambda rate, x: x * (1.0 - rate),
        running=lambda x: x > 0,
        bound=100_000,
    )
    found = jax.jit(lambda rate: loops.reverse_binomially(loop, rate, 12, jnp.asarray(1.0), ()))(1e-5)
    np.testing.assert_allclose(found, -1e5 * (1 - 1e-5) ** 99_999, rtol=1e-9)
