"""The settings of the adjoints: what each field may hold, for every room that takes an adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from nestor.adjoints._evolution import Evolution
from nestor.adjoints._finite_difference import FiniteDifference
from nestor.adjoints._implicit import Implicit
from nestor.adjoints._reversible import Reversible
from nestor.adjoints._unrolled import Checkpoint, Truncate
from nestor.errors import BadArgument


class Setting(NamedTuple):
    """What a field may hold.

    Attributes:
        good: (value, the object it belongs to) -> whether it may.
        want: the same in words.
        example: a value that may, as source text.
        names: the choices, where they are strings.
    """

    good: Callable[[Any, Any], bool]
    want: str
    example: str
    names: tuple[str, ...] = ()


def check_adjoint(where: str, adjoint: Any) -> None:
    """Check the fields of an adjoint; one that is not in the table, a user's own, is taken as it is."""
    for field, rule in SETTINGS.get(type(adjoint), {}).items():
        value = getattr(adjoint, field)
        if not rule.good(value, adjoint):
            example = f"nestor.{type(adjoint).__name__}({field}={rule.example})"
            got = f"{value!r} (str)" if isinstance(value, str) else value
            raise BadArgument(where, f"adjoint.{field}", got=got, want=rule.want, do=f"write {example}")


def _count(example: int) -> Setting:
    return Setting(lambda value, _: type(value) is int and value >= 1, "a Python integer >= 1", str(example))


def _positive(example: str) -> Setting:
    return Setting(
        lambda value, _: type(value) in (float, int) and 0 < value < math.inf,
        "a Python finite number > 0",
        example,
    )


def _optional(rule: Setting) -> Setting:
    return rule._replace(
        good=lambda value, owner: value is None or rule.good(value, owner), want=f"None or {rule.want}"
    )


def _choice(*names: str) -> Setting:
    quoted = ", ".join(f'"{name}"' for name in names)
    return Setting(
        lambda value, _: isinstance(value, str) and value in names, f"one of {quoted}", f'"{names[0]}"', names
    )


def _slots_alone(value: Any, owner: Checkpoint) -> bool:
    return value is None or (_count(10).good(value, owner) and owner.levels is None)


_TABLE: dict[type, dict[str, Setting]] = {
    Implicit: {
        "linear_solver": Setting(
            lambda value, _: hasattr(value, "run") and not isinstance(value, type),
            "a linear solver such as CG(), LU() or GMRES(), an object and not its name",
            "nestor.CG()",
        )
    },
    Truncate: {"last": _count(10)},
    Checkpoint: {
        "levels": _optional(_count(2)),
        "slots": _optional(_count(10))._replace(
            good=_slots_alone, want="None, or a Python integer >= 1 and then without levels"
        ),
    },
    Reversible: {
        "snapshots": _optional(_count(20)),
        "bits": _optional(_positive("160")),
        "width": _optional(_choice("int32", "int64")),
        "on_mismatch": _choice("raise", "checkpoint", "nan"),
    },
    Evolution: {
        "sigma": _positive("0.1"),
        "pairs": _count(64),
        "seed": Setting(lambda value, _: type(value) is int, "a Python integer", "0"),
        "segment": _optional(_count(10)),
        "batch": _optional(_count(16)),
    },
    FiniteDifference: {"step": _optional(_positive("1e-3")), "batch": _optional(_count(16))},
}

SETTINGS: Mapping[type, dict[str, Setting]] = MappingProxyType(_TABLE)
