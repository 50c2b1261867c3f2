"""A compiled solve in stretches: saved as it goes, ended by the clock or by Ctrl-C, and resumed.

A stretch is as long as fits into a fifth of a second. One program makes all of them, so neither their lengths nor an
interruption change a bit of the result. A save replaces the file in one move, so a killed process leaves the old one
or the new one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from nestor.solution import Status
from nestor.solvers import Pacer

_STRETCH = 0.2  # seconds between two looks at the clock
_SAVE_EVERY = 1.0  # seconds


def pace(pacer: Pacer, checkpoint: Any, max_seconds: float | None) -> tuple[Any, Status | None]:
    """Run the solve; what is made, and why it was cut short, if it was."""
    until_time = None if max_seconds is None else time.monotonic() + max_seconds
    made, saved = pacer.made, _Saved(pacer, checkpoint)
    length = 1
    try:
        made = saved.restored(made)
        while pacer.running(made):
            before = time.monotonic()
            if until_time is not None and before >= until_time:
                return made, Status.OUT_OF_TIME
            made = pacer.onward(made, int(made[0]) + length)
            took = time.monotonic() - before
            length = length * 2 if took < _STRETCH / 2 else max(1, length // 2) if took > _STRETCH else length
            saved.save(made)
    except KeyboardInterrupt:
        return made, Status.INTERRUPTED
    finally:
        saved.save(made, now=True)
    return made, None


class _Saved:
    """The file of a solve; without a path, none."""

    def __init__(self, pacer: Pacer, checkpoint: Any):
        self.pacer, self.path, self.last = pacer, None if checkpoint is None else Path(checkpoint), 0.0
        if self.path is not None:
            from nestor.training import signature

            self.sign = signature(pacer.turn, pacer.facts, pacer.inputs)

    def restored(self, made: Any) -> Any:
        """What the file holds, or what is given where there is none."""
        if self.path is None or not self.path.exists():
            return made
        from nestor.training import load_state

        return self.pacer.resumed(load_state("minimize", self.path, self.sign, made))

    def save(self, made: Any, now: bool = False) -> None:
        """Write the file, at most once a second unless now."""
        if self.path is None or (not now and time.monotonic() - self.last < _SAVE_EVERY):
            return
        from nestor.training import save_state

        save_state(self.path, self.sign, made)
        self.last = time.monotonic()
