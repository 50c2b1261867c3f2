"""The packages of the host as solvers: Clarabel for cones, HiGHS for linear programs."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

from nestor import settings, trees
from nestor.errors import MissingExtra
from nestor.settings import Setting, choice, count, plain_number
from nestor.solvers._cone_programs import AsksHost, Data
from nestor.solvers._host_programs import by_clarabel, by_highs, over_lanes


def _static(default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


@trees.record
class Clarabel(AsksHost):
    """Linear, quadratic and cone programs by the package Clarabel, on the host, in float64.

    An interior-point method on a homogeneous embedding, written in Rust. What it says is not believed: the
    conditions are computed again at its answer, in the dtype of the data, and where it says that there is no
    solution its proof is checked. Needs ``pip install 'nestor[cones]'``.

    Args:
        accuracy: what it is asked for, relative; `tol` is what is held against the answer.
        max_iterations: of its own.

    Cost: one call of the host for all lanes of a `vmap`, some 10 to 30 sparse factorisations a lane.
    Source: Goulart and Chen 2024.

    >>> import nestor
    >>> nestor.Clarabel().accuracy
    1e-10
    """

    accuracy: float = _static(1e-10)
    max_iterations: int = _static(200)

    def answers(self, cones: tuple[Any, ...], data: Data, box: Any) -> Any:
        """See `AsksHost`."""
        return over_lanes(
            lambda form: by_clarabel(form, self.accuracy, self.max_iterations), cones, data, box
        )

    def check(self, where: str) -> None:
        """Its settings are good, and the package is installed; else `BadArgument` or `MissingExtra`."""
        settings.check_settings(where, "solver", self, RULES)
        if importlib.util.find_spec("clarabel") is None:
            raise MissingExtra("clarabel", "cones", f"nestor.{where} with nestor.Clarabel()")


@trees.record
class HiGHS(AsksHost):
    """Linear programs by HiGHS, which SciPy brings, on the host, in float64.

    The answer is a vertex, so it and its multipliers are exact to rounding. INFEASIBLE and UNBOUNDED come with
    proofs, from two further linear programs, that are checked.

    Args:
        method: "highs" (the package chooses), "highs-ds" (dual simplex) or "highs-ipm" (interior point).

    Cost: one call of the host for all lanes of a `vmap`.
    Source: Huangfu and Hall 2018.

    >>> import nestor
    >>> nestor.HiGHS().method
    'highs'
    """

    method: str = _static("highs")

    def answers(self, cones: tuple[Any, ...], data: Data, box: Any) -> Any:
        """See `AsksHost`."""
        return over_lanes(lambda form: by_highs(form, self.method), cones, data, box)

    def check(self, where: str) -> None:
        """Its settings are good; else `BadArgument`. SciPy is always there."""
        settings.check_settings(where, "solver", self, RULES)


RULES: Mapping[type, dict[str, Setting]] = {
    Clarabel: {
        "accuracy": plain_number(lambda v: 0 < v < 1, "number between 0 and 1, both excluded", "1e-10"),
        "max_iterations": count(200),
    },
    HiGHS: {"method": choice("highs", "highs-ds", "highs-ipm")},
}
