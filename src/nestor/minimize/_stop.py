"""How a solve is ended from inside the objective."""

from __future__ import annotations

from nestor.solution import Status


class Stop(BaseException):  # no Exception: a solver must not take it for a failed evaluation
    """Ends a solve with that status."""

    def __init__(self, status: Status):
        self.status = status
        super().__init__(status.name)
