"""How a run ended, and what it shows on the way: the same for every kind of run."""

from __future__ import annotations

from typing import Any

from nestor.solution import Status


class Outcome:
    """What has the code of a status."""

    code: Any

    @property
    def status(self) -> Status:
        """Why the run ended; outside a trace only."""
        return Status(int(self.code))

    @property
    def success(self) -> bool:
        """Whether the run ended as it was told to: all steps made, or stopped early by its own rule."""
        return self.status.success


class Bar:
    """A progress bar of steps on stderr, by tqdm.

    Args:
        steps: how many there will be.
        name: stands before the bar.
    """

    def __init__(self, steps: int, name: str):
        from tqdm import tqdm

        self._bar = tqdm(total=steps, desc=name, unit="step", mininterval=0.1)

    def show(self, made: int, text: str) -> None:
        """Move to that many steps, with a text behind."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(made - self._bar.n)

    def close(self) -> None:
        """Leave it as it is."""
        self._bar.close()
