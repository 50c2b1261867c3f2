"""A line that says where a study stands, while it runs."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import Any

from nestor.search import Study, TrialState

_BLINK, _SAY = (
    0.2,
    10.0,
)  # seconds between two states of the line; between two lines where there is no terminal


class Progress:
    """The state of a study on one line of a terminal, or on a line every ten seconds elsewhere.

    Args:
        study: what is watched; `note` is its callback.
        total: how many trials it will have, or None.
        quiet: to say nothing.
    """

    def __init__(self, study: Study, total: int | None, quiet: bool):
        self._study, self._total, self._quiet = study, total, quiet
        self._terminal = sys.stderr.isatty()
        self._began, self._shown, self._ended = time.monotonic(), -1e9, 0
        self._text, self._lock, self._over = "", threading.Lock(), threading.Event()
        self._best: float | None = None
        self._best_number = -1
        self._counts: dict[str, int] = {}
        for trial in study.trials:
            self._count(trial)
        self._before = sum(self._counts.values())
        if self._terminal and not quiet:
            threading.Thread(target=self._tick, daemon=True).start()

    def note(self, study: Study, trial: Any) -> None:
        """A trial has ended."""
        self._ended += 1
        self._count(trial)
        self._show()

    def close(self) -> None:
        """The last state, and the end of the line."""
        if not self._over.is_set():
            self._over.set()
            self._show(last=True)

    def _count(self, trial: Any) -> None:
        if not trial.state.is_finished:
            return
        self._counts[trial.state.name.lower()] = self._counts.get(trial.state.name.lower(), 0) + 1
        if trial.state == TrialState.COMPLETE and len(self._study.directions) == 1:
            sign = self._study.direction.sign
            feasible = all(value <= 0 for value in trial.constraints or ())
            if feasible and (self._best is None or sign * trial.value < sign * self._best):
                self._best, self._best_number = trial.value, trial.number

    def _tick(self) -> None:
        """The clock runs on while a trial takes its time."""
        while not self._over.wait(1.0):
            self._show()

    def _show(self, last: bool = False) -> None:
        now = time.monotonic()
        with self._lock:
            if self._quiet or (not last and now - self._shown < (_BLINK if self._terminal else _SAY)):
                return
            self._shown = now
            text = self._line(now - self._began)
            if self._terminal:
                width = shutil.get_terminal_size((100, 20)).columns - 1
                blank = " " * max(len(self._text) - len(text), 0)
                sys.stderr.write(f"\r{text[:width]}{blank[:width]}" + ("\n" if last else ""))
                self._text = text[:width]
            else:
                sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _line(self, seconds: float) -> str:
        done = sum(self._counts.values())
        words = [f"{done}/{self._total} trials" if self._total else f"{done} trials"]
        if self._best is not None:
            words.append(f"best {self._best:.6g} (trial {self._best_number})")
        words += [f"{self._counts[name]} {name}" for name in ("pruned", "failed") if self._counts.get(name)]
        if self._ended:
            rate = self._ended / max(seconds, 1e-3)
            words.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
        minutes, rest = divmod(int(seconds), 60)
        return "  ".join([*words, f"{minutes}:{rest:02d}"])
