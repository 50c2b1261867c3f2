"""Our samplers and pruners as children of Optuna's classes. Imported only where Optuna is."""

from __future__ import annotations

import collections
import contextlib
import importlib
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from nestor.optuna._mirror import Mirrors
from nestor.optuna._records import domain_of, stored_of
from nestor.search import Asked, Curves, History, Ledger, TrialState

optuna: Any = importlib.import_module("optuna")
_BaseSampler: Any = optuna.samplers.BaseSampler
_BasePruner: Any = optuna.pruners.BasePruner

_MOST_ASKED = 1024  # trials under way at the same time


class NestorSampler(_BaseSampler):
    """A sampler of Nestor as Optuna sees it. Made by `nestor.optuna.Sampler`."""

    def __init__(self, sampler: Any):
        self.sampler = sampler
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._mirrors = Mirrors()
        self._asked: collections.OrderedDict[Any, Asked] = collections.OrderedDict()
        self._history: tuple[Ledger, int, History] | None = None

    def __str__(self) -> str:
        return f"{type(self.sampler).__name__} of Nestor"

    def __getstate__(self) -> dict[str, Any]:
        return {"sampler": self.sampler}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["sampler"])

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        """Empty: a parameter is suggested when it is asked for, given those that the trial has already."""
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        """A value for every name of a space, one after the other."""
        return {name: self.sample_independent(study, trial, name, one) for name, one in search_space.items()}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """A value for one parameter, given those that the trial has already."""
        domain = domain_of(param_distribution)
        with self._lock:
            asked = self._asking(study, trial)
            for name, value in trial.params.items():
                if name not in asked.given and name in trial.distributions:
                    distribution = trial.distributions[name]
                    known = domain_of(distribution)
                    self._take(asked, name, known, stored_of(known, distribution, value))
            place = self.sampler(asked, param_name, domain)
            stored = domain.encode(domain.from_unit(place))
            self._take(asked, param_name, domain, stored, None if domain.count else place)
            return domain.decode(stored)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Sequence[float] | None) -> None:
        """Forget what was given to the trial; stop where the sampler has no more points."""
        with self._lock:
            self._asked.pop(_key(study, trial), None)
        limit = getattr(self.sampler, "limit", None)
        if limit is not None and trial.number + 1 >= limit:
            with contextlib.suppress(RuntimeError):  # outside of `optimize` there is nothing to stop
                study.stop()

    def _asking(self, study: Any, trial: Any) -> Asked:
        """What the sampler knows of a trial: what had ended when it first suggested something."""
        key = _key(study, trial)
        if key not in self._asked:
            self._asked[key] = Asked(trial.number, self._what_ended(study))
            if len(self._asked) > _MOST_ASKED:
                self._asked.popitem(last=False)
        return self._asked[key]

    def _what_ended(self, study: Any) -> History:
        ledger = self._mirrors.ledger(study)
        known = self._history
        if known is None or known[0] is not ledger or known[1] != ledger.finished:
            known = self._history = ledger, ledger.finished, History(ledger)
        return known[2]

    def _take(self, asked: Asked, name: str, domain: Any, stored: float, place: Any = None) -> None:
        """A parameter of a trial is settled."""
        if place is None:
            place = float(domain.to_unit(np.asarray(stored, float)))
        told = getattr(self.sampler, "told", None)
        if told is not None:
            told(asked, name, domain, place)
        asked.given[name] = domain, place


class NestorPruner(_BasePruner):
    """A pruner of Nestor as Optuna sees it. Made by `nestor.optuna.Pruner`."""

    def __init__(self, pruner: Any):
        self.pruner = pruner
        self._lock, self._mirrors = threading.RLock(), Mirrors()

    def __getstate__(self) -> dict[str, Any]:
        return {"pruner": self.pruner}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["pruner"])

    def prune(self, study: Any, trial: Any) -> bool:
        """Whether the trial should end now."""
        if trial.last_step is None:
            return False
        with self._lock:
            curves = Curves(self._mirrors.ledger(study), trial.number)
            return self.pruner(curves, trial.last_step) != TrialState.RUNNING


def _key(study: Any, trial: Any) -> tuple[Any, int]:
    return weakref.ref(study._storage), trial._trial_id  # a later storage may have the same id()
