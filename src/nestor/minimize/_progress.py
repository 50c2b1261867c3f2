"""A progress line on stderr for solves on the host."""

from __future__ import annotations

from typing import Any

from nestor.solvers import Report


class ProgressBar:
    """A line by tqdm: points evaluated, objective, optimality."""

    def __init__(self, name: str, total: int | None):
        from tqdm import tqdm

        self._bar: Any = tqdm(total=total, desc=name, unit="eval", leave=True, mininterval=0.1)

    def __call__(self, report: Report) -> None:
        """Show a report."""
        text = f"f={report.fun:.6g} optimality={report.optimality:.2e}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()
