"""What a callback of a solve is shown, and the progress line."""

from __future__ import annotations

import dataclasses
from typing import Any

from nestor.solvers._contract import Point

Tree = Any


@dataclasses.dataclass(frozen=True)
class Report:
    """What a callback is shown after every evaluation.

    Attributes:
        step: number of the evaluation, from 0 (the start).
        fun: the objective there.
        optimality: the residual of the condition there.
        accepted: whether the point was kept.
        x: the point, a tree like x0 of JAX arrays.

    >>> import nestor
    >>> seen = []
    >>> _ = nestor.minimize(lambda x: x**2, 1.0, callback=lambda report: seen.append(report.fun))
    >>> float(seen[0])
    1.0
    """

    step: int
    fun: float
    optimality: float
    accepted: bool
    x: Tree


def report(turn: Any, value: Any, optimality: Any, accepted: Any, x: Any) -> Report:
    """A report from the values of a compiled loop."""
    point = x.x if isinstance(x, Point) else x
    return Report(int(turn), float(value), float(optimality), bool(accepted), point)


class ProgressBar:
    """A progress line on stderr, by tqdm: evaluations, objective, optimality.

    Args:
        name: stands before it.
        total: evaluations at most; None where nobody knows.
    """

    def __init__(self, name: str, total: int | None):
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc=name, unit="eval", leave=True, mininterval=0.1)

    def __call__(self, report: Report) -> None:
        """Show a report."""
        self._bar.set_postfix_str(f"f={report.fun:.6g} optimality={report.optimality:.2e}", refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()
