"""The columns of a study that Optuna keeps: our own where they are ours, else a mirror that follows its trials."""

from __future__ import annotations

import time
import weakref
from typing import Any

from nestor.optuna._records import direction_of, entry_of, state_of
from nestor.search import Ledger, TrialState

_WORKER = "optuna"


class Mirrors:
    """The ledgers of studies of Optuna, by storage and study."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, dict[int, Ledger]] = weakref.WeakKeyDictionary()

    def ledger(self, study: Any) -> Ledger:
        """The columns of a study, with all that is in its storage now."""
        storage, study_id = study._storage, study._study_id
        own = getattr(storage, "nestor_ledger", None)
        if own is not None:
            return own(study_id)
        known = self._known.setdefault(storage, {})
        if study_id not in known:
            directions = [str(direction_of(one)) for one in storage.get_study_directions(study_id)]
            known[study_id] = Ledger({"name": "", "directions": directions})
        _follow(known[study_id], storage.get_all_trials(study_id, deepcopy=False))
        return known[study_id]


def _follow(ledger: Ledger, trials: list[Any]) -> None:
    """Take into account what has happened to trials since the last time."""
    trials = sorted(trials, key=lambda frozen: frozen.number)
    for number in [*ledger.owners, *ledger.waiting, *ledger.paused]:
        _catch_up(ledger, number, trials[number])
    for frozen in trials[ledger.size :]:
        ledger.apply(entry_of(frozen, _WORKER))


def _catch_up(ledger: Ledger, number: int, frozen: Any) -> None:
    """One trial that had not ended when it was looked at last."""
    state = state_of(frozen.state)
    entry = {key: value for key, value in entry_of(frozen).items() if key not in ("do", "fixed", "by")}
    if state.is_finished:
        ledger.apply({**entry, "do": "tell", "number": number})
        return
    now = {"number": number, "at": time.time(), "by": _WORKER}
    if state == TrialState.RUNNING and number in ledger.waiting:
        attempt = int(ledger.attempts[number]) + 1
        ledger.apply({"do": "claim", "attempt": attempt, "lease": 1e18, **now})
    if len(entry["params"]):
        ledger.apply({"do": "set", "params": entry["params"], **now})
    known = ledger.reports.get(number, {})
    for step, value in frozen.intermediate_values.items():
        if step not in known:
            ledger.apply({"do": "report", "step": step, "value": value, **now})
