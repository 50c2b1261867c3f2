"""What `Study.optimize` may call after every trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nestor.search._arguments import whole
from nestor.search._records import FrozenTrial, TrialState


class MaxTrialsCallback:
    """Stops `Study.optimize` when the study has so many trials, whoever made them.

    Args:
        n_trials: how many.
        states: which trials count; None counts all.

    >>> from nestor import search
    >>> study = search.create_study()
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), callbacks=[search.MaxTrialsCallback(5)])
    >>> len(study.trials)
    5
    """

    def __init__(self, n_trials: int, states: Sequence[TrialState] | None = (TrialState.COMPLETE,)):
        self.n_trials = whole("MaxTrialsCallback", "n_trials", n_trials, example=100)
        self.states = None if states is None else tuple(states)

    def __call__(self, study: Any, trial: FrozenTrial) -> None:
        """Count."""
        trials = study.trials if self.states is None else study.trials_with(*self.states)
        if len(trials) >= self.n_trials:
            study.stop()
