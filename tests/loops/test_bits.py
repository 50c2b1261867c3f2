"""Integers multiplied by less than one and divided again: every bit comes back, and no bit too many is kept."""

import functools
import math
from fractions import Fraction
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from nestor.errors import BadArgument
from nestor.loops import (
    INT32,
    INT64,
    Spill,
    Stack,
    Width,
    divide,
    drop,
    multiply,
    restore,
    rows_needed,
    spills,
)

quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)
WIDTHS = pytest.mark.parametrize("width", [INT32, INT64], ids=["int32", "int64"])
BETAS = (0.5, 0.9, 0.98, 0.99)
RATE = 0.1


class State(NamedTuple):
    """A position and a velocity in words, and the bits that left the velocity."""

    x: jax.Array
    v: jax.Array
    stack: Stack


def native(width: Width) -> Any:
    """JAX as the width needs it: 32-bit words run without 64-bit numbers."""
    return jax.enable_x64(width is INT64)


def kick(width: Width, v: jax.Array, unit: jax.Array) -> jax.Array:
    """What a velocity adds to the position, in words."""
    return width.encode(-RATE * width.decode(v, width.v, jnp.float32, unit), width.x)


@functools.partial(jax.jit, static_argnums=0)
def ahead(width: Width, state: State, table: Spill, pushes: jax.Array) -> State:
    """v <- c v + push, x <- x - rate v, for the pushes (T, n) in words."""

    def turn(state: State, given: tuple[Spill, jax.Array]) -> tuple[State, None]:
        spill, push = given
        v, stack = multiply(state.v, state.stack, spill)
        v = v + push
        return State(state.x + kick(width, v, spill.after), v, stack), None

    return jax.lax.scan(turn, state, (table, pushes))[0]


@functools.partial(jax.jit, static_argnums=0)
def back(width: Width, state: State, table: Spill, pushes: jax.Array) -> State:
    def turn(state: State, given: tuple[Spill, jax.Array]) -> tuple[State, None]:
        spill, push = given
        x = state.x - kick(width, state.v, spill.after)
        return State(x, *divide(state.v - push, state.stack, spill)), None

    return jax.lax.scan(turn, state, (table, pushes), reverse=True)[0]


def start(width: Width, size: int, rows: int, seed: int, still: bool = True) -> State:
    rng = np.random.default_rng(seed)
    words = lambda: jnp.asarray(rng.integers(-(2**29), 2**29, size), width.name)  # noqa: E731
    return State(words(), jnp.zeros(size, width.name) if still else words(), Stack.empty(size, rows))


def pushed(width: Width, turns: int, size: int, seed: int) -> jax.Array:
    sizes = np.random.default_rng(seed).normal(size=(turns, size)) * 2.0 ** (width.v - 3)
    return jnp.asarray(np.rint(sizes), width.name)


def came_back(first: State, last: State) -> bool:
    """The check at the end of a reversal: the start, the velocity it started with, and nothing left over."""
    whole = jnp.all(first.x == last.x) & jnp.all(first.v == last.v) & last.stack.is_empty()
    return bool(whole)


# --- every bit comes back ------------------------------------------------------------------------------


@WIDTHS
@given(seed=seeds, coefficients=st.lists(st.floats(2.0**-8, 1.0, width=32), min_size=12, max_size=12))
@quick
def test_any_words_any_coefficients(width: Width, seed: int, coefficients: list[float]):
    with native(width):
        table = spills(jnp.asarray(coefficients, jnp.float32))
        first = start(width, 5, 13, seed, still=False)
        pushes = pushed(width, 12, 5, seed)
        there = ahead(width, first, table, pushes)
        assert came_back(first, back(width, there, table, pushes))


@WIDTHS
@pytest.mark.parametrize("turns", [1000, 3000])
@pytest.mark.parametrize("beta", BETAS)
def test_long_runs(width: Width, beta: float, turns: int):
    with native(width):
        table = spills(jnp.full(turns, beta, jnp.float32))
        first = start(width, 64, rows_needed([beta] * turns), turns)
        assert bool(first.stack.holds(table))
        pushes = pushed(width, turns, 64, 1)
        there = ahead(width, first, table, pushes)
        assert not bool(there.stack.is_empty()) or int(table.end) % 8 == 0
        assert came_back(first, back(width, there, table, pushes))


@functools.cache
def a_run(width: Width) -> tuple[State, State, Spill, jax.Array]:
    """120 turns: the start, the end, the spills, and the pushes."""
    table = spills(jnp.full(120, 0.9, jnp.float32))
    first = start(width, 3, rows_needed([0.9] * 120), 3)
    pushes = pushed(width, 120, 3, 4)
    return first, ahead(width, first, table, pushes), table, pushes


@WIDTHS
@pytest.mark.parametrize("what", ["x", "v", "row", "rest", "push"])
@given(seed=seeds)
@settings(max_examples=12, deadline=None)
def test_one_wrong_bit_is_seen(width: Width, what: str, seed: int):
    rng = np.random.default_rng(seed)
    lane, word = int(rng.integers(3)), 31 if width is INT32 else 63

    def flip(array: jax.Array, place: Any, bits: int) -> jax.Array:
        flipped = np.array(array)
        flipped[place] ^= flipped.dtype.type(1 << int(rng.integers(bits)))
        return jnp.asarray(flipped)

    with native(width):
        first, last, table, pushes = a_run(width)
        (x, v, (rest, rows)) = last
        if what == "x":
            x = flip(x, lane, word)
        elif what == "v":
            v = flip(v, lane, word)
        elif what == "row":  # one of the complete rows; the scratch row is never read
            rows = flip(rows, (int(rng.integers(int(table.end) // 8)), lane), 8)
        elif what == "rest":
            rest = flip(rest, lane, 8)
        else:
            pushes = flip(pushes, (int(rng.integers(120)), lane), word)
        assert not came_back(first, back(width, State(x, v, Stack(rest, rows)), table, pushes))


# --- against integers without a bound ------------------------------------------------------------------


def unbounded(words: int, coefficients: np.ndarray, pushes: list[int]) -> tuple[int, int]:
    """One word and all its bits in Python's integers, one bit at a time: the new word, and the bits."""
    unit, kept, place = np.float32(1), 0, 0
    for c, push in zip(coefficients, pushes, strict=True):
        unit = unit * c
        while unit < 0.5:
            kept |= (words & 1) << place
            words, unit, place = words >> 1, 2 * unit, place + 1
        words += push
    return words, kept


@WIDTHS
@given(
    seed=seeds, coefficients=st.lists(st.floats(2.0**-7, 1 - 2.0**-10, width=32), min_size=40, max_size=40)
)
@quick
def test_the_words_and_the_bits_are_those_of_unbounded_integers(
    width: Width, seed: int, coefficients: list[float]
):
    with native(width):
        c = np.asarray(coefficients, np.float32)
        table = spills(jnp.asarray(c))
        first = start(width, 3, rows_needed(c), seed, still=False)
        pushes = pushed(width, 40, 3, seed)
        there = ahead(width, first, table, pushes)
        rows = np.asarray(there.stack.flush(table.end))
    for lane in range(3):
        words, kept = unbounded(int(first.v[lane]), c, [int(p) for p in pushes[:, lane]])
        assert words == int(there.v[lane])
        assert kept == int.from_bytes(rows[:, lane].tobytes(), "little")


@WIDTHS
@given(seed=seeds, c=st.floats(2.0**-8, 1.0, width=32), scale=st.floats(0.5, 1.0, width=32))
@quick
def test_a_product_is_less_than_one_unit_below(width: Width, seed: int, c: float, scale: float):
    """Rounded down when bits leave, and exact when none do; the unit is rounded to the float32 that says so."""
    with native(width):
        table = spills(jnp.asarray([scale, c], jnp.float32))
        spill = jax.tree.map(lambda a: a[1], table)
        words = jnp.asarray(np.random.default_rng(seed).integers(-(2**29), 2**29, 20), width.name)
        moved, _ = multiply(words, Stack.empty(20, 3), spill)
        exact = Fraction(float(np.float32(c))) * Fraction(float(spill.before))
        after, bits = Fraction(float(spill.after)), int(spill.bits)
    assert Fraction(1, 2) <= after <= 1
    assert abs(after / 2**bits / exact - 1) <= Fraction(1, 2**24)
    for old, new in zip(words.tolist(), moved.tolist(), strict=True):
        below = Fraction(old) / 2**bits - new
        assert 0 <= below < 1
        assert bits > 0 or below == 0


@WIDTHS
def test_a_velocity_is_that_of_floats(width: Width):
    """400 turns stay within a few units of v <- beta v + push in float64, and of x <- x - rate v."""
    turns, size, beta = 400, 50, float(np.float32(0.97))
    with native(width):
        table = spills(jnp.full(turns, beta, jnp.float32))
        first = start(width, size, rows_needed([beta] * turns), 0)
        gradients = np.random.default_rng(1).normal(scale=1 / 16, size=(turns, size)).astype(np.float32)
        units = [table.after[t] for t in range(turns)]
        pushes = jnp.stack([width.encode(g, width.v, u) for g, u in zip(gradients, units, strict=True)])
        there = ahead(width, first, table, pushes)
        v = np.asarray(width.decode(there.v, width.v, jnp.float32, table.after[-1]), np.float64)
        x = np.asarray(there.x, np.float64) * 2.0**-width.x
    v_float, x_float = np.zeros(size), np.asarray(first.x, np.float64) * 2.0**-width.x
    for g in gradients.astype(np.float64):
        v_float = beta * v_float + g
        x_float = x_float - np.float64(np.float32(RATE)) * v_float
    assert np.max(np.abs(v - v_float)) < 1e-6  # a few roundings of 6e-8, of velocities about 1
    assert np.max(np.abs(x - x_float)) < 2e-5


# --- no bit too many -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "stored"), [(0.9, 160), (0.98, 32)])
def test_bits_kept_in_a_thousand_turns(beta: float, stored: int):
    assert 8 * rows_needed([beta] * 1000) <= stored


@WIDTHS
@given(beta=st.floats(2.0**-8, 1.0, width=32), turns=st.sampled_from([1, 10, 200, 3000]))
@quick
def test_the_rows_are_those_that_the_host_counts(width: Width, beta: float, turns: int):
    with native(width):
        end = int(spills(jnp.full(turns, beta, jnp.float32)).end)
    entropy = -turns * math.log2(beta)
    assert entropy - 1 - 1e-3 <= end <= entropy + 1e-3
    assert end // 8 + 1 <= rows_needed([beta] * turns) <= (end + 1) // 8 + 1
    assert 8 * rows_needed([beta] * turns) <= 1.02 * entropy + 64


def test_too_few_rows_are_known_before_the_run():
    table = spills(jnp.full(100, 0.5, jnp.float32))  # 99 bits: twelve bytes and the scratch row
    assert bool(Stack.empty(2, 13).holds(table))
    assert not bool(Stack.empty(2, 12).holds(table))


def test_no_turns_store_nothing():
    table = spills(jnp.zeros(0))
    assert int(table.end) == 0
    assert rows_needed([]) == 1


@given(c=st.floats(allow_nan=False, width=32))
@quick
def test_coefficients_are_clipped(c: float):
    table = spills(jnp.asarray([c, c], jnp.float32))
    assert 0.5 <= float(table.after[1]) <= 1.0
    assert int(table.end) <= 16
    if c >= 1:
        assert int(table.end) == 0


# --- under every transformation ------------------------------------------------------------------------


@WIDTHS
def test_coefficients_of_their_own_under_vmap(width: Width):
    turns, betas = 60, jnp.asarray([0.3, 0.9, 0.98, 1.0], jnp.float32)
    with native(width):
        first = start(width, 6, rows_needed([0.3] * turns), 0)
        pushes = pushed(width, turns, 6, 1)
        table = jax.vmap(lambda b: spills(jnp.full(turns, b)))(betas)
        there = jax.vmap(lambda t: ahead(width, first, t, pushes))(table)
        again = jax.vmap(lambda s, t: back(width, s, t, pushes))(there, table)
        for lane in range(4):
            alone = spills(jnp.full(turns, betas[lane]))
            single = ahead(width, first, alone, pushes)
            assert bool(jnp.all(single.v == there.v[lane]))
            assert bool(jnp.all(single.x == there.x[lane]))
            assert came_back(first, jax.tree.map(lambda a, lane=lane: a[lane], again))


@WIDTHS
def test_a_loop_that_stops_by_itself(width: Width):
    """`while` ahead, `fori` back, from where it stopped: the table serves runs that end early."""

    def at(table: Spill, index: jax.Array) -> Spill:
        return jax.tree.map(lambda a: a[index], table)

    @jax.jit
    def there_and_back(v: jax.Array, table: Spill) -> tuple[jax.Array, jax.Array, Stack]:
        def turn(indexed: Any) -> Any:
            index, v, stack = indexed
            return index + 1, *multiply(v, stack, at(table, index))

        def undo(count: jax.Array, held: Any) -> Any:
            return divide(*held, at(table, stopped - 1 - count))

        begin = (jnp.int32(0), v, Stack.empty(v.size, 20))
        stopped, v, stack = jax.lax.while_loop(lambda s: jnp.max(jnp.abs(s[1])) > 1000, turn, begin)
        place = table.place[stopped]
        stack = Stack.unflush(stack.flush(place), place)
        return stopped, *jax.lax.fori_loop(0, stopped, undo, (v, stack))

    with native(width):
        v = start(width, 4, 1, 0).x
        stopped, again, stack = there_and_back(v, spills(jnp.full(200, 0.8, jnp.float32)))
        assert 0 < int(stopped) < 200
        assert bool(jnp.all(again == v))
        assert bool(stack.is_empty())


@WIDTHS
def test_words_with_their_low_half_dropped(width: Width):
    with native(width):
        first = start(width, 7, 1, 0)
        pushes = pushed(width, 9, 7, 1)
        v, stack = first.x, Stack.empty(7, 9, jnp.uint16 if width is INT32 else jnp.uint32)
        for t in range(9):
            v, stack = jax.jit(drop)(v, stack, t)
            v = v + pushes[t]
        wrong = restore(v ^ jnp.asarray(2 ** (29 if width is INT32 else 50), v.dtype), stack, 8)[1]
        for t in reversed(range(9)):
            v, stack = jax.jit(restore)(v - pushes[t], stack, t)
        assert bool(jnp.all(v == first.x))
        assert bool(stack.is_empty())
        assert not bool(wrong.is_empty())


@WIDTHS
@pytest.mark.parametrize("beta", [0.9, 0.999])
def test_a_training_run_backwards(width: Width, beta: float):
    """The gradient is taken again at every point on the way back: one wrong bit would be chaos."""
    turns, size = 400, 20
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, size))

    def on_host(x: np.ndarray) -> np.ndarray:
        """The gradient of mean log(1 + exp(-a x)) + 0.005 |x|^2."""
        x = np.asarray(x, np.float64)
        return (-a.T @ (1 / (1 + np.exp(a @ x))) / 30 + 0.01 * x).astype(np.float32)

    def push(x: jax.Array, unit: jax.Array) -> jax.Array:
        # On the host, since two programs of XLA may round a gradient differently: that is the caller's care.
        x = width.decode(x, width.x, jnp.float32)
        slope = jax.pure_callback(on_host, jax.ShapeDtypeStruct(x.shape, jnp.float32), x)
        return width.encode(slope, width.v, unit)

    @jax.jit
    def there_and_back(first: State, table: Spill) -> tuple[State, State]:
        def turn(state: State, spill: Spill) -> tuple[State, None]:
            v, stack = multiply(state.v, state.stack, spill)
            v = v + push(state.x, spill.after)
            return State(state.x + kick(width, v, spill.after), v, stack), None

        def undo(state: State, spill: Spill) -> tuple[State, None]:
            x = state.x - kick(width, state.v, spill.after)
            return State(x, *divide(state.v - push(x, spill.after), state.stack, spill)), None

        there = jax.lax.scan(turn, first, table)[0]
        return there, jax.lax.scan(undo, there, table, reverse=True)[0]

    with native(width):
        x = width.encode(jnp.asarray(rng.normal(size=size), jnp.float32), width.x)
        first = State(x, jnp.zeros_like(x), Stack.empty(size, rows_needed([beta] * turns)))
        there, again = there_and_back(first, spills(jnp.full(turns, beta, jnp.float32)))
        assert came_back(first, again)
        moved = width.decode(there.x - first.x, width.x, jnp.float32)
        assert bool(jnp.max(jnp.abs(moved)) > 0.1)


# --- words ---------------------------------------------------------------------------------------------


@WIDTHS
@given(value=st.floats(-16.0, 16.0), unit=st.floats(0.5, 1.0))
@quick
def test_words_are_the_nearest(width: Width, value: float, unit: float):
    values = jnp.asarray([value, -value])
    words = width.encode(values, 20, unit)
    assert words.dtype == width.name
    assert bool(width.fits(values, 20, unit))
    near = width.decode(words, 20, jnp.float64, unit)
    assert bool(jnp.all(jnp.abs(near - values) <= unit * 2.0**-21 * (1 + 1e-9)))


@WIDTHS
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e5])
def test_what_has_no_word_does_not_fit(width: Width, bad: float):
    point = width.x
    assert not bool(width.fits(jnp.asarray([0.0, bad], jnp.float32), point))
    edge = jnp.asarray([2.0 ** (width.room - point)])
    assert not bool(width.fits(edge, point))
    assert bool(width.fits(edge * (1 - 1e-6), point))
    assert not bool(width.fits(edge * (1 - 1e-6), point, 0.5))


def test_64_bits_must_be_switched_on():
    with jax.enable_x64(False), pytest.raises(BadArgument, match="jax_enable_x64"):
        INT64.encode(jnp.ones(2), 40)
