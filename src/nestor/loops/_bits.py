"""Numbers that can be multiplied by less than one and divided again, bit for bit.

A state word is an integer in fixed point, and one scalar, the *unit*, says what a word of 1 is worth:
x = word * unit * 2^-point. Adding and subtracting integers can be undone. Multiplying by c < 1 multiplies
the unit and leaves the words alone; only when the unit falls below 1/2 do the words lose their low bits,
which are pushed onto a stack of bytes, and the unit is doubled as often. So T turns store sum log2(1/c)
bits a word, rounded down: the information that the products destroy. (Maclaurin, Duvenaud and Adams 2015 divide
integers by a rational d/n instead, which rounds c, moves a word by up to n, and stores a few bits more.)

Which turn stores how many bits, and where, depends on the coefficients alone: `spills` finds out before the
run, and both directions read it. No branch depends on data.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor import errors

Scalar = jax.Array | float


@dataclasses.dataclass(frozen=True)
class Width:
    """How wide the words of a state are, and where their binary point stands.

    64-bit words need JAX's 64-bit numbers switched on, and IEEE float64 arithmetic.

    Args:
        name: the name of the dtype of a word.
        x: bits after the point for positions.
        v: bits after the point for velocities, while the unit is 1.
        room: words up to 2^room fit; twice as much does not wrap round or lose a bit.

    >>> import jax.numpy as jnp
    >>> from nestor.loops import INT32
    >>> words = INT32.encode(jnp.array([0.5, -3.0]), 4)
    >>> words, INT32.decode(words, 4, jnp.float32)
    (Array([  8, -48], dtype=int32), Array([ 0.5, -3. ], dtype=float32))
    """

    name: str
    x: int
    v: int
    room: int

    @property
    def half(self) -> int:
        """Bits of half a word."""
        return 16 if self.name == "int32" else 32

    def encode(self, values: jax.Array, point: int, unit: Scalar = 1.0) -> jax.Array:
        """The nearest words: round(values * 2^point / unit). Wrong where `fits` is false.

        The same values give the same words in every program: XLA fuses products into sums and sums of
        constants into one another, but not across a rounding. How the values come about is the caller's care.
        """
        if self.name == "int32":
            wide = values.dtype if values.dtype.itemsize >= 4 else jnp.float32
            return _scaled(values, point, unit, wide).astype(jnp.int32)
        _want_x64()
        # Twice as fast as a conversion, which would saturate. The sum is exact: its low 52 bits are the word.
        big = jnp.float64(1.5 * 2.0**52)
        bits = jax.lax.bitcast_convert_type(_scaled(values, point, unit, jnp.float64) + big, jnp.int64)
        return bits - jax.lax.bitcast_convert_type(big, jnp.int64)

    def decode(self, words: jax.Array, point: int, dtype: Any, unit: Scalar = 1.0) -> jax.Array:
        """What words are worth: words * unit * 2^-point, of the shape of `words`."""
        return words.astype(dtype) * (jnp.asarray(unit, dtype) * 2.0**-point)

    def fits(self, values: jax.Array, point: int, unit: Scalar = 1.0) -> jax.Array:
        """Whether all values have words; a bool scalar, False for NaN. The sum of two that fit is exact."""
        largest = jnp.asarray(unit, values.dtype) * 2.0 ** (self.room - point)
        return jnp.all(jnp.abs(values) < largest)


INT32 = Width("int32", x=25, v=24, room=30)
INT64 = Width("int64", x=40, v=40, room=50)


class Spill(NamedTuple):
    """Which bits leave the words at which turn: arrays of shape (T,), or the scalars of one turn.

    Attributes:
        before: the unit of the words before the turn; `before[0]` is 1.
        after: their unit after it, between 1/2 and 1.
        bits: how many low bits leave a word, 0 to 8; int32.
        place: how many bits of a word are stored already; int32.

    >>> import jax.numpy as jnp
    >>> from nestor.loops import spills
    >>> table = spills(jnp.array([0.6, 0.6, 0.5, 1.0]))
    >>> table.bits, table.place, table.end
    (Array([0, 1, 1, 0], dtype=int32), Array([0, 0, 1, 2], dtype=int32), Array(2, dtype=int32))
    """

    before: jax.Array
    after: jax.Array
    bits: jax.Array
    place: jax.Array

    @property
    def end(self) -> jax.Array:
        """How many bits of a word are stored after all turns; an int32 scalar."""
        return jnp.sum(self.bits, dtype=jnp.int32)


class Stack(NamedTuple):
    """The bits that have left n words, oldest first.

    Attributes:
        rest: uint8 (n,), the last bits, fewer than 8. The highest bit says that bits were lost on the way
            back: these words never came from here.
        rows: uint8 (capacity, n), the complete bytes, and one row that is scratch.

    >>> import jax, jax.numpy as jnp
    >>> from nestor.loops import Stack, multiply, rows_needed, spills
    >>> c = jnp.array([0.25, 0.25])
    >>> stack = Stack.empty(2, rows_needed(c))
    >>> words, stack = multiply(jnp.array([7, 8]), stack, jax.tree.map(lambda a: a[1], spills(c)))
    >>> words, bool(stack.is_empty())
    (Array([1, 2], dtype=int32), False)
    """

    rest: jax.Array
    rows: jax.Array

    @staticmethod
    def empty(size: int, rows: int, dtype: Any = jnp.uint8) -> Stack:
        """No bits of `size` words, and memory for `rows` rows (see `rows_needed`)."""
        return Stack(jnp.zeros(size, jnp.uint8), jnp.zeros((rows, size), dtype))

    def is_empty(self) -> jax.Array:
        """Whether all bits went back, and all of them fitted: the check at the end; a bool scalar."""
        return jnp.all(self.rest == 0)

    def holds(self, table: Spill) -> jax.Array:
        """Whether there are rows enough for all turns of a table of spills; a bool scalar."""
        return table.end // 8 < self.rows.shape[0]

    def flush(self, place: jax.Array) -> jax.Array:
        """The rows with the rest in the scratch row: all that must be kept after `place` bits."""
        return jax.lax.dynamic_update_index_in_dim(self.rows, self.rest, place // 8, 0)

    @staticmethod
    def unflush(rows: jax.Array, place: jax.Array) -> Stack:
        """The stack that `flush` made `rows` of."""
        return Stack(jax.lax.dynamic_index_in_dim(rows, place // 8, 0, keepdims=False), rows)


def spills(coefficients: jax.Array) -> Spill:
    """What T multiplications will do to the words and the stack.

    Args:
        coefficients: (T,), of a floating dtype. They are clipped to [1/256, 1].

    Returns:
        A table of T spills, for both directions; its units are of the dtype of the coefficients. Cost: a
        scan over scalars, about a microsecond a turn.
    """
    start = jnp.ones((), coefficients.dtype), jnp.int32(0)
    return jax.lax.scan(_spill, start, coefficients)[1]


def rows_needed(coefficients: Any) -> int:
    """The rows that a stack needs for turns with these coefficients, one byte a word each; on the host.

    >>> from nestor.loops import rows_needed
    >>> rows_needed([0.9] * 1000), rows_needed([0.98] * 1000)
    (20, 4)
    """
    clipped = np.clip(np.asarray(coefficients, np.float64), 2.0**-8, 1.0)
    rounding = clipped.size * 2.0**-22  # of a unit in float32, a turn
    return int(-np.log2(clipped).sum() + rounding) // 8 + 1


def multiply(words: jax.Array, stack: Stack, spill: Spill) -> tuple[jax.Array, Stack]:
    """One multiplication: exact but for bits that leave the words, which go onto the stack.

    Args:
        words: (n,), int32 or int64, worth `spill.before` each.
        stack: where the bits go.
        spill: the entry of this turn in the table of `spills`.

    Returns:
        words: worth `spill.after` each; rounded down, so less than one unit below the exact product.
        stack: with `spill.bits` more bits of each word.

    >>> import jax, jax.numpy as jnp
    >>> from nestor.loops import Stack, divide, multiply, spills
    >>> spill = jax.tree.map(lambda a: a[0], spills(jnp.array([0.25])))
    >>> words, stack = multiply(jnp.array([7, -5]), Stack.empty(2, 1), spill)
    >>> words, float(spill.after)  # 1.75 and -1.25, in halves, rounded down
    (Array([ 3, -3], dtype=int32), 0.5)
    >>> words, stack = divide(words, stack, spill)
    >>> words, bool(stack.is_empty())
    (Array([ 7, -5], dtype=int32), True)
    """
    row, fill, shift = _place(spill)
    low = words.astype(jnp.int32) & _ones(spill.bits)
    held = stack.rest.astype(jnp.int32) | (low << fill)
    # Always written; a row that is not complete is written again.
    rows = jax.lax.dynamic_update_index_in_dim(stack.rows, held.astype(jnp.uint8), row, 0)
    return words >> spill.bits.astype(words.dtype), Stack((held >> shift).astype(jnp.uint8), rows)


def divide(words: jax.Array, stack: Stack, spill: Spill) -> tuple[jax.Array, Stack]:
    """The exact inverse of `multiply`, given the same spill.

    Words or bits that no multiplication left behind either give another start or mark the stack, which then
    never counts as empty: an injective map, so one wrong bit anywhere is seen at the start of the run.
    """
    row, fill, shift = _place(spill)
    kept = jax.lax.dynamic_index_in_dim(stack.rows, row, 0, keepdims=False).astype(jnp.int32) & _ones(shift)
    rest = stack.rest.astype(jnp.int32)
    held = ((rest & 127) << shift) | kept
    low = held >> fill
    bits = spill.bits.astype(words.dtype)
    high = words << bits
    lost = (high >> bits != words) | (low > _ones(spill.bits))
    rest = (held & _ones(fill)) | (rest & 128) | jnp.where(lost, jnp.int32(128), 0)
    return high | low.astype(words.dtype), Stack(rest.astype(jnp.uint8), stack.rows)


def drop(words: jax.Array, stack: Stack, index: jax.Array) -> tuple[jax.Array, Stack]:
    """Move the high half of words into the low one: for turns that should remember nothing of the last one.

    Args:
        words: (n,), int32 or int64.
        stack: with rows of half that width (uint16 or uint32), one a spill.
        index: the row of this spill.

    >>> import jax.numpy as jnp
    >>> from nestor.loops import Stack, drop, restore
    >>> words, stack = drop(jnp.array([2**20 + 7, -1]), Stack.empty(2, 1, jnp.uint16), 0)
    >>> words, restore(words, stack, 0)[0]
    (Array([16, -1], dtype=int32), Array([1048583,      -1], dtype=int32))
    """
    rows = jax.lax.dynamic_update_index_in_dim(stack.rows, words.astype(stack.rows.dtype), index, 0)
    return words >> _half(words), Stack(stack.rest, rows)


def restore(words: jax.Array, stack: Stack, index: jax.Array) -> tuple[jax.Array, Stack]:
    """The exact inverse of `drop`; words that did not come from there mark the stack."""
    low = jax.lax.dynamic_index_in_dim(stack.rows, index, 0, keepdims=False)
    high = words << _half(words)
    mark = jnp.where(high >> _half(words) != words, jnp.uint8(128), jnp.uint8(0))
    return high | low.astype(words.dtype), Stack(stack.rest | mark, stack.rows)


def _half(words: jax.Array) -> jax.Array:
    """Half the bits of a word, as a shift of its dtype."""
    return jnp.asarray(words.dtype.itemsize * 4, words.dtype)


def _spill(held: tuple[jax.Array, jax.Array], c: jax.Array) -> tuple[tuple[jax.Array, jax.Array], Spill]:
    before, place = held
    after = before * jnp.clip(c, 2.0**-8, 1.0)
    bits = jnp.sum(after < jnp.asarray([2.0**-k for k in range(1, 9)], after.dtype), dtype=jnp.int32)
    after = after * (jnp.int32(1) << bits).astype(after.dtype)
    return (after, place + bits), Spill(before, after, bits, place)


def _place(spill: Spill) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The row in progress, the bits in it, and by how many bits the rest moves: 8 when it is complete."""
    fill = spill.place & 7
    return spill.place >> 3, fill, jnp.where(fill + spill.bits >= 8, jnp.int32(8), 0)


def _ones(count: jax.Array) -> jax.Array:
    return (jnp.int32(1) << count) - 1


def _scaled(values: jax.Array, point: int, unit: Scalar, dtype: Any) -> jax.Array:
    return jnp.round(values.astype(dtype) * (2.0**point / jnp.asarray(unit, dtype)))


def _want_x64() -> None:
    if jax.dtypes.canonicalize_dtype(np.int64) != np.int64:
        raise errors.BadArgument(
            "encode",
            "width",
            got="INT64 without 64-bit numbers",
            want="a width that JAX has switched on",
            do="jax.config.update('jax_enable_x64', True), or take INT32",
        )
