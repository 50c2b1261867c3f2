"""What one parameter may be, and its place in the unit interval, where every sampler works."""

from __future__ import annotations

import dataclasses
import decimal
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.search._arguments import integer, reals, whole

_EXACT = 2**53  # integers up to here are floats without loss


@dataclasses.dataclass(frozen=True, slots=True)
class Float:
    """Real numbers from ``low`` to ``high``, both included.

    Args:
        low: the least value.
        high: the largest value.
        log: whether it is the logarithm that is uniform a priori; needs ``low > 0`` and no ``step``.
        step: the distance of the values, counted from ``low``; None for all real numbers.

    >>> from nestor import search
    >>> round(search.Float(1e-4, 1.0, log=True).from_unit(0.5), 6)
    0.01
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _check_range("Float", self.low, self.high, self.log)
        if self.step is not None:
            if self.log or not self.step > 0:
                raise BadArgument(
                    *("Float", "step"),
                    got=self.step,
                    want="positive, and absent with log=True",
                    do="drop one",
                )
            object.__setattr__(self, "step", float(self.step))
            object.__setattr__(self, "high", _last_step(self.low, self.high, self.step))
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    @property
    def count(self) -> int | None:
        """How many values there are; None for a continuum."""
        if self.low == self.high:
            return 1
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def contains(self, value: Any) -> bool:
        """Whether a value is one of these numbers, up to rounding of a step."""
        try:
            value = float(value)
        except (TypeError, ValueError):
            return False
        if not self.low <= value <= self.high:
            return False
        cells = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(cells - round(cells)) < 1e-6

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        """Places in [0, 1], any shape; the middle of its cell for a value of a stepped domain."""
        if self.low == self.high:
            return np.full_like(values, 0.5)
        if self.step is not None:
            cells = (self.high - self.low) / self.step + 1
            return ((values - self.low) / self.step + 0.5) / cells
        if self.log:
            low = math.log(self.low)
            return (np.log(np.maximum(values, 1e-320)) - low) / (math.log(self.high) - low)
        return (values - self.low) / (self.high - self.low)

    def from_unit(self, place: float) -> float:
        """The value at a place in [0, 1]."""
        if self.low == self.high:
            return self.low
        if self.step is not None:
            count = round((self.high - self.low) / self.step) + 1
            return min(self.low + min(int(place * count), count - 1) * self.step, self.high)
        if self.log:
            low = math.log(self.low)
            value = math.exp(low + place * (math.log(self.high) - low))
        else:
            value = self.low + place * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def encode(self, value: Any) -> float:
        """A value as the number that is stored."""
        return float(value)

    def decode(self, stored: float) -> float:
        """The value that a stored number stands for."""
        return float(stored)

    def as_json(self) -> list[Any]:
        """Itself as a list that JSON can hold."""
        return ["float", self.low, self.high, self.log, self.step]


@dataclasses.dataclass(frozen=True, slots=True)
class Int:
    """Whole numbers from ``low`` to ``high``, both included, ``step`` apart.

    Args:
        low: the least value.
        high: the largest value; lowered to the last one that the steps reach.
        log: whether it is the logarithm that is uniform a priori; needs ``low >= 1`` and ``step=1``.
        step: the distance of the values.

    >>> from nestor import search
    >>> search.Int(1, 10, step=3).high
    10
    >>> search.Int(0, 1).from_unit(0.7)
    1
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            given = getattr(self, name)
            number = integer(given)
            if number is None or abs(number) > _EXACT:
                want, do = "a whole number, at most 2**53", "use Float for others"
                raise BadArgument("Int", name, got=given, want=want, do=do)
            object.__setattr__(self, name, number)
        _check_range("Int", self.low, self.high, self.log)
        if self.step < 1 or (self.log and self.step != 1):
            raise BadArgument(
                "Int", "step", got=self.step, want="positive, and 1 with log=True", do="drop one"
            )
        object.__setattr__(self, "high", self.low + (self.high - self.low) // self.step * self.step)

    @property
    def count(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def contains(self, value: Any) -> bool:
        """Whether a value is one of these numbers."""
        try:
            whole = int(value)
        except (TypeError, ValueError, OverflowError):
            return False
        return whole == value and self.low <= whole <= self.high and (whole - self.low) % self.step == 0

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        """Places in [0, 1], any shape: the middle of each value's cell."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (np.log(np.maximum(values, 0.5)) - low) / (high - low)
        return ((values - self.low) / self.step + 0.5) / self.count

    def from_unit(self, place: float) -> int:
        """The value in whose cell a place in [0, 1] lies."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            value = round(math.exp(low + place * (high - low)))
        else:
            value = self.low + int(place * self.count) * self.step
        return min(max(value, self.low), self.high)

    def encode(self, value: Any) -> float:
        """A value as the number that is stored."""
        return float(value)

    def decode(self, stored: float) -> int:
        """The value that a stored number stands for."""
        return int(stored)

    def as_json(self) -> list[Any]:
        """Itself as a list that JSON can hold."""
        return ["int", self.low, self.high, self.log, self.step]


@dataclasses.dataclass(frozen=True, slots=True)
class Categorical:
    """One of several choices without an order.

    Args:
        choices: the values: None, booleans, numbers and strings, which a file can hold too. Those of NumPy, and
            members of enumerations that are strings or integers, become Python's own.

    >>> from nestor import search
    >>> search.Categorical(("relu", "tanh")).from_unit(0.9)
    'tanh'
    """

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(_as_read_again(choice) for choice in self.choices))
        if not self.choices:
            raise BadArgument(
                "Categorical", "choices", got="empty", want="at least one", do="give the choices"
            )
        for choice in self.choices:
            if not (choice is None or isinstance(choice, bool | int | float | str)):
                raise BadArgument(
                    *("Categorical", "choices"),
                    got=choice,
                    want="None, booleans, numbers or strings",
                    do="suggest a name, and look the object up by it",
                )

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.choices)

    def __eq__(self, other: object) -> bool:
        """By value and type: 1, 1.0 and True are three choices."""
        return isinstance(other, Categorical) and repr(self.choices) == repr(other.choices)

    def __hash__(self) -> int:
        return hash(repr(self.choices))

    def contains(self, value: Any) -> bool:
        """Whether a value is one of the choices."""
        return self._index(value) is not None

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        """Places in [0, 1] of indices, any shape."""
        return (values + 0.5) / len(self.choices)

    def from_unit(self, place: float) -> Any:
        """The choice in whose cell a place in [0, 1] lies."""
        return self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)]

    def encode(self, value: Any) -> float:
        """The index of a choice, as the number that is stored."""
        return float(self._index(value) or 0)

    def decode(self, stored: float) -> Any:
        """The choice that a stored number stands for."""
        return self.choices[int(stored)]

    def as_json(self) -> list[Any]:
        """Itself as a list that JSON can hold."""
        return ["categorical", *self.choices]

    def _index(self, value: Any) -> int | None:
        loose = None
        for index, choice in enumerate(self.choices):
            same = choice is value or choice == value or (choice != choice and value != value)
            if same and type(choice) is type(value):
                return index
            if same and loose is None:
                loose = index
        return loose


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """An array of real numbers, each from ``low`` to ``high``, as one parameter.

    Args:
        shape: the shape.
        low: the least value of an entry.
        high: the largest value of an entry.
        log: whether it is the logarithm that is uniform a priori; needs ``low > 0``.

    >>> from nestor import search
    >>> search.Array((2, 3), -1.0, 1.0).size
    6
    """

    shape: tuple[int, ...]
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range("Array", self.low, self.high, self.log)
        each: Any = self.shape if isinstance(self.shape, Iterable) else (self.shape,)
        shape = tuple(whole("Array", "shape", size, least=0) for size in each)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    @property
    def size(self) -> int:
        """How many entries there are."""
        return math.prod(self.shape)

    @property
    def count(self) -> int | None:
        """How many values there are; None for a continuum."""
        return 1 if self.low == self.high else None

    def contains(self, value: Any) -> bool:
        """Whether a value has this shape and lies within the range."""
        value = np.asarray(value)
        return value.shape == self.shape and bool(np.all((value >= self.low) & (value <= self.high)))

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        """Places in [0, 1] of all entries, any shape."""
        return Float(self.low, self.high, self.log).to_unit(values)

    def from_unit(self, place: np.ndarray) -> np.ndarray:
        """The values at places in [0, 1], any shape."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            values = np.exp(low + place * (high - low))
        else:
            values = self.low + place * (self.high - self.low)
        return np.clip(values, self.low, self.high)

    def as_json(self) -> list[Any]:
        """Itself as a list that JSON can hold."""
        return ["array", list(self.shape), self.low, self.high, self.log]


Domain = Float | Int | Categorical | Array
_KINDS = {"float": Float, "int": Int, "array": Array}


def domain_from_json(written: list[Any]) -> Domain:
    """The domain that `as_json` wrote."""
    kind, *rest = written
    return Categorical(tuple(rest)) if kind == "categorical" else _KINDS[kind](*rest)


def _as_read_again(choice: Any) -> Any:
    """A choice as it comes back from a file: a subclass of a plain type is not told from it there."""
    if isinstance(choice, np.generic):
        choice = choice.item()
    if isinstance(choice, str):
        return str.__str__(choice)
    if isinstance(choice, int) and not isinstance(choice, bool):
        return int.__int__(choice)
    return float.__float__(choice) if isinstance(choice, float) else choice


def _last_step(low: float, high: float, step: float) -> float:
    """The last number at or below ``high`` that steps from ``low`` reach, in decimals: 0.1 and 0.2 are 0.3."""
    first, last, width = (decimal.Decimal(repr(float(number))) for number in (low, high, step))
    count = math.floor((last - first) / width + decimal.Decimal("1e-8"))
    return float(first + count * width)


def _check_range(where: str, low: float, high: float, log: bool) -> None:
    reals(where, "low, high", low, high)
    if not math.isfinite(float(high) - float(low)):
        raise BadArgument(where, "low, high", got=f"{low}, {high}", want="finite", do="give a finite range")
    if low > high:
        raise BadArgument(where, "low", got=low, want=f"at most high, which is {high}", do="swap the two")
    if log and not low > 0:
        raise BadArgument(where, "low", got=low, want="positive with log=True", do="raise it or drop log")
