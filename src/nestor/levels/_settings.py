"""The numbers of the stochastic methods: what they are at a step, and what they may be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor import schedules
from nestor.errors import BadArgument
from nestor.levels._oracles import TwoLevels

Tree = Any


def rate_at(rate: Any, decay: Any, t: jax.Array) -> Any:
    """rate / (1 + t)^decay; a schedule is taken as it is, and its values may be a tree for groups."""
    if callable(rate):
        return rate(t)
    value = jnp.asarray(rate)
    dtype = value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else jnp.zeros(()).dtype
    return value.astype(dtype) / power(t, decay, dtype)


def power(t: jax.Array, exponent: Any, dtype: Any) -> jax.Array:
    """(1 + t)^exponent."""
    return (1 + t.astype(dtype)) ** jnp.asarray(exponent).astype(dtype)


def make_schedules(method: Any) -> None:
    """Functions among the rates of a method become schedules, so that the method is a tree of arrays."""
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if field.name in _RATES and callable(value):
            made = schedules.as_schedule(value, type(method).__name__, field.name)
            object.__setattr__(method, field.name, made)


# --- checks --------------------------------------------------------------------------------------------


class _Rule(NamedTuple):
    """What a field may hold."""

    good: Callable[[Any], bool]
    want: str
    example: str


def check_method(method: Any) -> None:
    """Check the fields that a method shares with ours; the values of arrays are not looked at."""
    where = type(method).__name__
    for field in dataclasses.fields(method) if dataclasses.is_dataclass(method) else ():
        rule, value = _RULES.get(field.name), getattr(method, field.name)
        if rule is None or (value is None and field.default is None):
            continue
        if not rule.good(value):
            want = f"None or {rule.want}" if field.default is None else rule.want
            raise _bad(where, field.name, value, want, f"write {where}({field.name}={rule.example})")


def check_problem(problem: TwoLevels) -> None:
    """Check the numbers of rows and batches."""
    for name in ("inner", "outer"):
        function, rows, batch = (getattr(problem, name + end) for end in ("", "_rows", "_batch"))
        if not callable(function):
            raise _bad("TwoLevels", name, function, "a function (inputs, y, x, rows, key) -> scalar", _PASS)
        if type(rows) is not int or rows < 1:
            raise _bad("TwoLevels", f"{name}_rows", rows, "a Python integer >= 1", "count the examples")
        if type(batch) is not int or not 1 <= batch <= rows:
            want = f"a Python integer from 1 to {name}_rows, {rows}"
            raise _bad("TwoLevels", f"{name}_batch", batch, want, f"pass {name}_batch={min(rows, 32)}")


def check_count(where: str, name: str, value: Any, least: int, do: str) -> None:
    """A number of things is a Python integer."""
    if type(value) is not int or value < least:
        raise _bad(where, name, value, f"a Python integer >= {least}", do)


_PASS = "pass the function itself, not its value"


def _bad(where: str, name: str, got: Any, want: str, do: str) -> BadArgument:
    shown = f"{got!r} (str)" if isinstance(got, str) else got
    return BadArgument(where, name, got=shown, want=want, do=do)


def _number(good: Callable[[float], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if isinstance(value, jax.Array):
            return value.shape == () and jnp.issubdtype(value.dtype, jnp.floating)
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.item() if value.ndim == 0 else None
        return type(value) in (float, int) and good(value)

    return check


def _is_rate(value: Any) -> bool:
    return (callable(value) and not isinstance(value, type)) or _positive(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


_positive = _number(lambda v: 0 < v < math.inf)
_RATES = ("inner_rate", "outer_rate", "linear_rate")
_RATE = _Rule(_is_rate, "a finite number > 0 or a schedule", "0.1")
_DECAY = _Rule(_number(lambda v: 0 <= v <= 1), "a number from 0 to 1", "0.5")
_COUNT = _Rule(_is_count, "a Python integer >= 1", "10")
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(_RATES, _RATE),
    **dict.fromkeys(("inner_decay", "outer_decay", "decay"), _DECAY),
    **dict.fromkeys(("inner_steps", "linear_steps", "terms", "period"), _COUNT),
    "renewal": _Rule(_number(lambda v: 0 < v <= 1), "a number > 0 and <= 1", "0.5"),
    "penalty": _Rule(_positive, "a finite number > 0", "10.0"),
}
