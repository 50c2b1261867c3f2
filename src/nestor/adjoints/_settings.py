"""The settings of the adjoints: what each field may hold, for every room that takes an adjoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nestor.adjoints._evolution import Evolution
from nestor.adjoints._finite_difference import FiniteDifference
from nestor.adjoints._first_order import DARTS, SAMA
from nestor.adjoints._implicit import Implicit
from nestor.adjoints._reversible import Reversible
from nestor.adjoints._unrolled import Checkpoint, Truncate
from nestor.errors import BadArgument
from nestor.settings import Setting, check_settings, choice, count, optional, part, plain_number, shown


def check_adjoint(where: str, adjoint: Any) -> None:
    """Check an adjoint and its fields; those of one that is not in the table, a user's own, are taken as they are."""
    if not hasattr(adjoint, "attach") or isinstance(adjoint, type):
        raise BadArgument(
            where,
            "adjoint",
            got=shown(adjoint),
            want="an adjoint, or None",
            do="write adjoint=nestor.Implicit(nestor.CG()), nestor.Unroll(), nestor.Reversible() or another",
        )
    check_settings(where, "adjoint", adjoint, SETTINGS)


def _slots_alone(value: Any, owner: Checkpoint) -> bool:
    return value is None or (count(10).good(value, owner) and owner.levels is None)


_POSITIVE = plain_number(lambda value: 0 < value < math.inf, "finite number > 0", "0.1")

_TABLE: dict[type, dict[str, Setting]] = {
    Implicit: {
        "linear_solver": part(
            "run", "a linear solver such as CG(), LU() or GMRES(), an object and not its name", "nestor.CG()"
        )
    },
    Truncate: {"last": count(10)},
    Checkpoint: {
        "levels": optional(count(2)),
        "slots": optional(count(10))._replace(
            good=_slots_alone, want="None, or a Python integer >= 1 and then without levels"
        ),
    },
    Reversible: {
        "snapshots": optional(count(20)),
        "bits": optional(_POSITIVE._replace(example="160")),
        "width": optional(choice("int32", "int64")),
        "on_mismatch": choice("raise", "checkpoint", "nan"),
    },
    Evolution: {
        "sigma": _POSITIVE,
        "pairs": count(64),
        "seed": Setting(lambda value, _: type(value) is int, "a Python integer", "0"),
        "segment": optional(count(10)),
        "batch": optional(count(16)),
    },
    DARTS: {"eps": optional(_POSITIVE._replace(example="1e-2")), "rate": _POSITIVE},
    SAMA: {"eps": optional(_POSITIVE._replace(example="1e-2"))},
    FiniteDifference: {"step": optional(_POSITIVE._replace(example="1e-3")), "batch": optional(count(16))},
}

SETTINGS: Mapping[type, dict[str, Setting]] = MappingProxyType(_TABLE)
