"""Optuna's storage over our log: its eighteen verbs are entries and columns. Imported only where Optuna is."""

from __future__ import annotations

import copy
import importlib
import threading
import time
import uuid
from collections.abc import Callable, Container, Sequence
from typing import Any, cast

import numpy as np

from nestor import search
from nestor.errors import BadArgument
from nestor.optuna._records import (
    constraints_of,
    direction_of,
    distribution_of,
    domain_of,
    entry_of,
    frozen_of,
    state_of,
    values_of,
)
from nestor.search import TrialState

optuna: Any = importlib.import_module("optuna")
_PREFIX: str = importlib.import_module("optuna.storages._base").DEFAULT_STUDY_NAME_PREFIX
_FrozenStudy: Any = importlib.import_module("optuna.study._frozen").FrozenStudy
_Base: Any = optuna.storages.BaseStorage
_States: Any = optuna.trial.TrialState

_TRIALS = 2**32  # a trial's id is this times the place of its study, plus its number


class NestorStorage(_Base):
    """A storage of Nestor as Optuna sees it. Made by `nestor.optuna.Storage`."""

    def __init__(self, register: search.Register):
        self._register = register
        self._lock = threading.RLock()
        self._channels: dict[int, Any] = {}
        self._finished: dict[int, dict[int, tuple[Any, Any, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self._register.storage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(search.Register(state["storage"]))

    def remove_session(self) -> None:
        """Close what is open."""
        with self._lock:
            for channel in self._channels.values():
                channel.flush()
                channel.close()
            self._channels.clear()

    # --- studies ------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[Any], study_name: str | None = None) -> int:
        """Begin a study; its place in the register is its id."""
        name = f"{_PREFIX}{uuid.uuid4()}" if study_name is None else study_name
        names = [direction_of(direction) for direction in directions]
        with self._lock:
            taken = optuna.exceptions.DuplicatedStudyError(f"Another study is named '{name}'.")
            if any(found["name"] == name for found in self._register.studies().values()):
                raise taken
            try:
                search.create_study(storage=self._register.storage, study_name=name, directions=names)
            except BadArgument as error:  # another process was faster
                if error.argument != "study_name":
                    raise
                raise taken from error
            return self.get_study_id_from_name(name)

    def delete_study(self, study_id: int) -> None:
        """Delete a study and its trials."""
        with self._lock:
            name = self._header(study_id)["name"]
            channel = self._channels.pop(study_id, None)
            if channel is not None:
                channel.close()
            self._finished.pop(study_id, None)
            search.delete_study(study_name=name, storage=self._register.storage)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keep a note of the user."""
        self._commit(study_id, {"do": "attrs", "attrs": {key: value}})

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keep a note of a program."""
        self._commit(study_id, {"do": "attrs", "attrs": {}, "system": {key: value}})

    def get_study_id_from_name(self, study_name: str) -> int:
        """The id of a study."""
        with self._lock:
            for place, found in self._register.studies().items():
                if found["name"] == study_name:
                    return place
        raise KeyError(f"No study is named '{study_name}'.")

    def get_study_name_from_id(self, study_id: int) -> str:
        """The name of a study."""
        with self._lock:
            return self._header(study_id)["name"]

    def get_study_directions(self, study_id: int) -> list[Any]:
        """One direction an objective."""
        with self._lock:
            names = self._header(study_id)["directions"]
        return [optuna.study.StudyDirection[name.upper()] for name in names]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """The user's notes beside a study."""
        with self._lock:
            return dict(self._ledger(study_id).user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """The notes of programs beside a study."""
        with self._lock:
            return dict(self._ledger(study_id).system_attrs)

    def get_all_studies(self) -> list[Any]:
        """All studies as records, by id."""
        with self._lock:
            return [
                _FrozenStudy(
                    study_name=found["name"],
                    direction=None,
                    directions=self.get_study_directions(place),
                    user_attrs=copy.deepcopy(self.get_study_user_attrs(place)),
                    system_attrs=copy.deepcopy(self.get_study_system_attrs(place)),
                    study_id=place,
                )
                for place, found in sorted(self._register.studies().items())
            ]

    # --- what happens to a trial --------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: Any = None) -> int:
        """A new trial, running or as the template has it; its id."""
        with self._lock:
            channel = self._channel(study_id)
            now = {"by": channel.worker, "at": channel.now(), "lease": channel.lease}
            if template_trial is None:
                number = channel.commit({"do": "ask", "n": 1, **now})[0][0]
            else:
                entry = entry_of(template_trial, channel.worker)
                alive = [{"do": "beat", **now}] if entry["state"] == TrialState.RUNNING else []
                number = channel.commit(*alive, entry)[-1]
            return study_id * _TRIALS + number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: Any
    ) -> None:
        """Write down a parameter; a name has one kind of domain, and one list of choices, in all trials."""
        with self._lock:
            channel, number = self._open(trial_id)
            domain = domain_of(distribution)
            before = channel.ledger.latest.get(param_name)
            if before is not None and before is not domain and not isinstance(before, search.Array):
                known = distribution_of(before)
                optuna.distributions.check_distribution_compatibility(known, distribution)
            channel.suggest(number, param_name, domain, float(param_value_internal))

    def set_trial_state_values(
        self, trial_id: int, state: Any, values: Sequence[float] | None = None
    ) -> bool:
        """Begin a trial that waits, give it back, or end it; whether that held."""
        with self._lock:
            channel, number = self._open(trial_id)
            ledger, now = channel.ledger, {"number": number, "by": channel.worker, "at": channel.now()}
            wanted = state_of(state)
            if wanted == TrialState.RUNNING:
                if number not in _claimable(channel):
                    return False
                attempt = int(ledger.attempts[number]) + 1
                claim = {"do": "claim", "attempt": attempt, "lease": channel.lease, **now}
                return bool(channel.commit(claim)[0])
            if wanted == TrialState.WAITING:
                return bool(channel.commit({"do": "release", **now})[0])
            told = values_of(wanted, values, number in ledger.reports)
            missed = constraints_of(ledger.trial_system_attrs.get(number, {}))
            tell = {"do": "tell", "state": int(wanted), **now, **told}
            if not channel.commit({**tell, "constraints": missed})[0]:
                self.check_trial_is_updatable(trial_id, state)
            return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Report a value at a step."""
        entry = {"do": "report", "step": int(step), "value": float(intermediate_value)}
        self._note(trial_id, entry)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keep a note of the user beside a trial."""
        self._note(trial_id, {"do": "attrs", "attrs": {key: value}})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keep a note of a program beside a trial."""
        self._note(trial_id, {"do": "attrs", "attrs": {}, "system": {key: value}})

    # --- what there is to know of trials ------------------------------------------------------

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """The id of a trial."""
        with self._lock:
            if not 0 <= trial_number < self._ledger(study_id).size:
                raise KeyError(f"Study {study_id} has no trial {trial_number}.")
        return study_id * _TRIALS + trial_number

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """The number of a trial."""
        with self._lock:
            return self._place(trial_id)[1]

    def get_trial_param(self, trial_id: int, param_name: str) -> float:
        """The stored number of a parameter."""
        with self._lock:
            study_id, number = self._place(trial_id)
            column = self._ledger(study_id).columns.get(param_name)
            if column is not None and column.kinds[number] > 0 and number not in column.arrays:
                return float(column.values[number])
            trial = self.get_trial(trial_id)
        return trial.distributions[param_name].to_internal_repr(trial.params[param_name])

    def get_trial(self, trial_id: int) -> Any:
        """A trial as a record."""
        with self._lock:
            study_id, number = self._place(trial_id)
            return self._frozen(study_id, self._ledger(study_id), number)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[Any] | None = None
    ) -> list[Any]:
        """The trials of a study, by number."""
        with self._lock:
            channel = self._channel(study_id)
            ledger, numbers = channel.ledger, self._numbers(channel, states)
            kept = self._finished.setdefault(study_id, {})
            notes, system = ledger.trial_attrs, ledger.trial_system_attrs
            trials = []
            for number in numbers:
                known = kept.get(number)
                if known is None or known[0] is not notes.get(number) or known[1] is not system.get(number):
                    trials.append(self._frozen(study_id, ledger, number))
                else:
                    trials.append(known[2])
        return copy.deepcopy(trials) if deepcopy else trials

    def get_best_trial(self, study_id: int) -> Any:
        """The complete trial with the best value, among those that miss no constraint if there are any."""
        with self._lock:
            ledger = self._ledger(study_id)
            rows = np.flatnonzero(ledger.state[: ledger.size] == TrialState.COMPLETE)
            if len(rows) == 0:
                raise ValueError("No trials are completed yet.")
            if len(ledger.directions) > 1:
                raise RuntimeError("A study of several objectives has no best trial.")
            feasible = rows[ledger.violations(rows) <= 0]
            rows = feasible if len(feasible) else rows
            best = rows[np.argmin(ledger.values[rows, 0] * ledger.signs[0])]
            return self._frozen(study_id, ledger, int(best))

    def nestor_ledger(self, study_id: int) -> search.Ledger:
        """The columns of a study, for our samplers and pruners."""
        with self._lock:
            return self._ledger(study_id)

    # --- inside -------------------------------------------------------------------------------

    def _header(self, study_id: int) -> dict[str, Any]:
        found = self._register.studies().get(study_id)
        if found is None:
            raise KeyError(f"There is no study with the id {study_id}.")
        return found

    def _channel(self, study_id: int) -> Any:
        """The log of a study, with what others have written read."""
        self._header(study_id)
        if study_id not in self._channels:
            self._channels[study_id] = self._register.open(study_id)
        channel = self._channels[study_id]
        channel.sync()
        return channel

    def _ledger(self, study_id: int) -> search.Ledger:
        return self._channel(study_id).ledger

    def _place(self, trial_id: int) -> tuple[int, int]:
        """The study and the number of a trial."""
        study_id, number = divmod(trial_id, _TRIALS)
        if study_id not in self._register.studies() or number >= self._ledger(study_id).size:
            raise KeyError(f"There is no trial with the id {trial_id}.")
        return study_id, number

    def _open(self, trial_id: int) -> tuple[Any, int]:
        """The log and the number of a trial that has not ended."""
        study_id, number = self._place(trial_id)
        channel = self._channels[study_id]
        if channel.ledger.state[number] >= TrialState.COMPLETE:
            text = f"Trial {number} has ended and stays as it is."
            raise optuna.exceptions.UpdateFinishedTrialError(text)
        return channel, number

    def _commit(self, study_id: int, entry: dict[str, Any]) -> None:
        with self._lock:
            channel = self._channel(study_id)
            channel.commit({**entry, "at": channel.now()})

    def _note(self, trial_id: int, entry: dict[str, Any]) -> None:
        with self._lock:
            channel, number = self._open(trial_id)
            channel.commit({**entry, "number": number, "at": channel.now()})

    def _numbers(self, channel: Any, states: Container[Any] | None) -> Sequence[int]:
        """The trials in some states; among those that wait are those whose worker is dead."""
        ledger = channel.ledger
        if states is None:
            return range(ledger.size)
        if isinstance(states, tuple) and states == (_States.WAITING,):
            return sorted(_claimable(channel))
        chosen = [state for state in TrialState if _named(state) in states]
        return np.flatnonzero(np.isin(ledger.state[: ledger.size], chosen)).tolist()

    def _frozen(self, study_id: int, ledger: search.Ledger, number: int) -> Any:
        """A new record; that of a finished trial is kept, and good for as long as its notes do not change."""
        frozen = frozen_of(ledger, number, study_id * _TRIALS + number)
        if ledger.state[number] >= TrialState.COMPLETE:
            notes = ledger.trial_attrs.get(number), ledger.trial_system_attrs.get(number)
            self._finished.setdefault(study_id, {})[number] = (*notes, frozen)
        return frozen


class View(NestorStorage):
    """One study of ours, as a sampler or a pruner of Optuna sees it while a trial is under way.

    Attributes:
        visible: the numbers of the trials that it may look at; None for all.
    """

    def __init__(self, ledger: search.Ledger, commit: Callable[..., Any] | None):
        super().__init__(cast(search.Register, _Single(ledger, commit)))
        self.visible: set[int] | None = None

    def study(self, **parts: Any) -> Any:
        """A new study of Optuna over it, with a sampler or a pruner."""
        return optuna.study.Study(study_name=self._header(0)["name"], storage=self, **parts)

    def _numbers(self, channel: Any, states: Container[Any] | None) -> Sequence[int]:
        numbers = super()._numbers(channel, states)
        return numbers if self.visible is None else [n for n in numbers if n in self.visible]


class _Single:
    """A register that holds one study, and that study's channel."""

    storage, worker, lease = None, "optuna", 60.0

    def __init__(self, ledger: search.Ledger, commit: Callable[..., Any] | None):
        self.ledger = ledger
        self.commit = commit or (lambda *entries: [ledger.apply(entry) for entry in entries])

    def studies(self) -> dict[int, dict[str, Any]]:
        return {0: self.ledger.header}

    def open(self, place: int) -> _Single:
        return self

    def now(self) -> float:
        return time.time()

    def sync(self) -> None:
        """The study does that."""


def _claimable(channel: Any) -> set[int]:
    """The trials that wait for a worker, and those whose worker is dead; one of which too many died fails."""
    ledger, now = channel.ledger, channel.now()
    found = {*ledger.waiting, *ledger.orphans(now)}
    endings = [ending for number in found if (ending := ledger.given_up(number, now)) is not None]
    if endings:
        channel.commit(*endings)
    return found - {ending["number"] for ending in endings}


def _named(state: TrialState) -> Any:
    """Optuna's state for one of ours."""
    name = {"PAUSED": "RUNNING", "FAILED": "FAIL"}.get(state.name, state.name)
    return _States[name]
