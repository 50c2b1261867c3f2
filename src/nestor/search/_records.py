"""The ground floor of the wing: states, directions, and what a finished trial looks like from outside."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from nestor.errors import NestorError


class TrialState(enum.IntEnum):
    """Where a trial stands.

    ``WAITING`` (enqueued, or given back by a worker), ``RUNNING``, ``PAUSED`` (may be promoted and resumed
    from its checkpoint), and the four that are final but for a promotion: ``COMPLETE``, ``PRUNED``, ``FAILED``.

    >>> from nestor import search
    >>> search.TrialState.COMPLETE.is_finished
    True
    """

    WAITING = 0
    RUNNING = 1
    PAUSED = 2
    COMPLETE = 3
    PRUNED = 4
    FAILED = 5

    @property
    def is_finished(self) -> bool:
        """Whether nothing more happens to such a trial."""
        return self >= TrialState.COMPLETE


class Direction(enum.StrEnum):
    """Which way an objective is better; the strings ``"minimize"`` and ``"maximize"`` are the same.

    >>> from nestor import search
    >>> search.Direction.MINIMIZE == "minimize"
    True
    """

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    @property
    def sign(self) -> float:
        """What a value is multiplied by to make less better."""
        return 1.0 if self is Direction.MINIMIZE else -1.0


class TrialPruned(NestorError):
    """Raised by an objective to end its trial early, after ``trial.should_prune()`` said so.

    >>> from nestor import search
    >>> def objective(trial):
    ...     trial.report(1.0, step=0)
    ...     raise search.TrialPruned("it leads nowhere")
    >>> study = search.create_study()
    >>> study.optimize(objective, n_trials=1)
    >>> study.trials[0].state.name
    'PRUNED'
    """


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenTrial:
    """What there is to know about one trial, as it was when it was asked for.

    Attributes:
        number: its place in the study, from 0.
        state: where it stands.
        values: one value an objective, or None.
        params: parameter name to value, in the order in which they were suggested.
        domains: parameter name to the domain that it was suggested from.
        user_attrs: what `Trial.set_user_attr` was told.
        reports: step to the value reported at it (of the first objective).
        constraints: each satisfied where it is <= 0, or None.
        gradient: parameter name to the derivative of the value, or None.
        error: what a failed trial raised, as text.
        started: seconds since the epoch, or None.
        ended: seconds since the epoch, or None.
        attempt: how many workers have worked on it.
        system_attrs: notes of programs (a sampler, a bridge to another library), not of the user.

    >>> from nestor import search
    >>> study = search.create_study()
    >>> study.optimize(lambda trial: trial.suggest_int("n", 2, 2) ** 2, n_trials=1)
    >>> study.trials[0].params, study.trials[0].value
    ({'n': 2}, 4.0)
    """

    number: int
    state: TrialState
    values: tuple[float, ...] | None
    params: Mapping[str, Any]
    domains: Mapping[str, Any]
    user_attrs: Mapping[str, Any]
    reports: Mapping[int, float]
    constraints: tuple[float, ...] | None
    gradient: Mapping[str, Any] | None
    error: str | None
    started: float | None
    ended: float | None
    attempt: int
    system_attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """The value of the only objective, or of the first of several."""
        return None if self.values is None else self.values[0]

    @property
    def duration(self) -> float | None:
        """Seconds from start to end, or None."""
        return None if self.started is None or self.ended is None else self.ended - self.started
