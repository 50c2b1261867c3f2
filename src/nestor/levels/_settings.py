"""The numbers of the stochastic methods: what they are at a step, and what they may be."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from nestor import schedules
from nestor.settings import Setting, check_setting, count, number, optional

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


def check_method(method: Any) -> None:
    """Check the fields that a method shares with ours; the values of arrays are not looked at."""
    where = type(method).__name__
    for field in dataclasses.fields(method) if dataclasses.is_dataclass(method) else ():
        setting = _SETTINGS.get(field.name)
        if setting is not None:
            setting = optional(setting) if field.default is None else setting
            write = f"nestor.levels.{where}({{}})"
            check_setting(where, field.name, getattr(method, field.name), setting, write=write)


_POSITIVE = number(lambda v: 0 < v < math.inf, "a finite number > 0", "10.0")
_RATES = ("inner_rate", "outer_rate", "linear_rate")
_RATE = Setting(
    lambda value, _: (callable(value) and not isinstance(value, type)) or _POSITIVE.good(value, None),
    "a finite number > 0 or a schedule",
    "0.1",
)
_DECAY = number(lambda v: 0 <= v <= 1, "a number from 0 to 1", "0.5")
_SETTINGS: dict[str, Setting] = {
    **dict.fromkeys(_RATES, _RATE),
    **dict.fromkeys(("inner_decay", "outer_decay", "decay"), _DECAY),
    **dict.fromkeys(("inner_steps", "linear_steps", "terms", "period"), count(10)),
    "renewal": number(lambda v: 0 < v <= 1, "a number > 0 and <= 1", "0.5"),
    "penalty": _POSITIVE,
}
