"""A study as columns, and the entries of a log that make it: the same entries in the same order, the same study."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence, Set
from typing import Any

import numpy as np

from nestor.errors import NestorError
from nestor.search._records import Direction, FrozenTrial, TrialState
from nestor.search._spaces import Array, Domain, domain_from_json

# As plain numbers: NumPy compares with those ten times as fast.
_WAITING, _RUNNING, _PAUSED, _COMPLETE, _PRUNED, _ = map(int, TrialState)
_FIRST = 64  # rows of a new table
_GROWTH = 1.3
MOST_ATTEMPTS = 5  # a trial that so many workers died of has failed


class Column:
    """The stored values of one parameter, and for every trial its domain (its place in a list, from 1; 0: none)."""

    __slots__ = ("arrays", "kinds", "values")

    def __init__(self, rows: int):
        self.values = np.zeros(rows)
        self.kinds = np.zeros(rows, np.uint32)
        self.arrays: dict[int, np.ndarray] = {}


class Ledger:
    """Everything a study knows, in columns; it changes by `apply` alone.

    What reads it (a sampler, a page, a bridge) gets it from `History.ledger` or `Register.open`. The first
    ``size`` rows count.

    Attributes:
        size: how many trials there are.
        finished: how many of them are finished.
        state: [rows] their `TrialState`.
        values: [rows, objectives] what was told, or reported last; NaN for nothing.
        columns: parameter name to column: ``values`` [rows], as stored, and ``kinds`` [rows], a place in
            ``domains`` counted from 1, with 0 for a trial without this parameter.
        domains: all domains that were suggested from.

    >>> from nestor import search
    >>> study = search.create_study()
    >>> study.optimize(lambda trial: trial.suggest_int("x", 2, 2), n_trials=3)
    >>> ledger = search.Register(study.storage).open(0).ledger
    >>> ledger.values[: ledger.size, 0].tolist()
    [2.0, 2.0, 2.0]
    """

    def __init__(self, header: dict[str, Any]):
        self.header = header
        self.directions = tuple(Direction(name) for name in header["directions"])
        self.signs = np.array([direction.sign for direction in self.directions])
        self.size = self.finished = 0
        self.state = np.zeros(_FIRST, np.int8)
        self.values = np.full((_FIRST, len(self.directions)), math.nan)
        self.started = np.full(_FIRST, math.nan)
        self.ended = np.full(_FIRST, math.nan)
        self.attempts = np.zeros(_FIRST, np.int16)
        self.order = np.zeros(_FIRST, np.int32)  # numbers of finished trials, as they finished
        self.calls = np.zeros(_FIRST, np.int32)  # which call of `optimize` ran a trial (its place, from 1)
        self._call_places: dict[str, int] = {}
        self._call_sizes: dict[str, int] = {}
        self.stopped: set[str] = set()  # calls of which no more trials begin
        self.columns: dict[str, Column] = {}
        self.domains: list[Domain] = []
        self._domain_places: dict[Domain, int] = {}
        self.latest: dict[str, Domain] = {}
        self.user_attrs: dict[str, Any] = {}
        self.system_attrs: dict[str, Any] = {}
        self.trial_attrs: dict[int, dict[str, Any]] = {}
        self.trial_system_attrs: dict[int, dict[str, Any]] = {}
        self.reports: dict[int, dict[int, Any]] = {}  # number -> step -> a value, or one an objective
        self.steps: dict[int, dict[int, Any]] = {}  # the same by step: step -> number -> value
        self.constraints: dict[int, tuple[float, ...]] = {}
        self.gradients: dict[int, dict[str, Any]] = {}
        self.errors: dict[int, str] = {}
        self.checkpoints: dict[int, str] = {}
        self.costs: dict[int, float] = {}  # of trials that told theirs
        self.fixed: dict[int, dict[str, Any]] = {}  # what an enqueued trial was given
        self.owners: dict[int, str] = {}  # of running trials
        self.deaths: dict[int, int] = {}  # how many workers a trial has outlived
        self.waiting: dict[int, None] = {}
        self.paused: dict[int, None] = {}
        self.leases: dict[str, tuple[float, float]] = {}  # worker -> (last heartbeat, seconds it is good for)

    def become(self, other: Ledger) -> None:
        """Hold what another one holds."""
        self.__dict__.update(other.__dict__)

    def apply(self, entry: dict[str, Any]) -> Any:
        """Take one entry of the log into account; what came of it (a number, or whether it held)."""
        verb = _VERBS.get(entry["do"])
        if verb is None:
            raise NestorError(
                f"A study holds an entry of a kind that this Nestor does not know: {entry['do']!r}.\n"
                "Do this: pip install --upgrade nestor"
            )
        return verb(self, entry)

    # --- entries ------------------------------------------------------------------------------

    def _ask(self, entry: dict[str, Any]) -> list[int] | None:
        """New running trials: their numbers, or None where a condition does not hold.

        With `if`: only when the study has that many trials. With `limit`: it shall have at most so many. With
        `call` and `most`: that call of `optimize` shall have begun at most so many.
        """
        worker, now, count = entry["by"], entry["at"], entry["n"]
        call = entry.get("call")
        if entry.get("if", self.size) != self.size or self.size + count > entry.get("limit", math.inf):
            return None
        if call is not None and self.called(call) + count > entry.get("most", math.inf):
            return None
        first = self.size
        numbers = list(range(first, first + count))
        self._grow(first + count)
        self.state[first : first + count] = _RUNNING
        self.started[first : first + count] = now
        self.attempts[first : first + count] = 1
        self.size = first + count
        self.owners.update({number: worker for number in numbers})
        if call is not None:
            for number in numbers:
                self._call(number, call)
        self._beat(entry)
        return numbers

    def _claim(self, entry: dict[str, Any]) -> bool:
        """Run a trial that waits, is paused, or whose worker's lease is over. The first to claim has it."""
        number, worker, now = entry["number"], entry["by"], entry["at"]
        if self.attempts[number] != entry["attempt"] - 1:
            return False
        state = self.state[number]
        if state == _RUNNING:
            if not self.is_orphan(number, now):
                return False
            self.deaths[number] = self.deaths.get(number, 0) + 1
        elif state not in (_WAITING, _PAUSED):
            return False
        self.waiting.pop(number, None)
        self.paused.pop(number, None)
        self.state[number] = _RUNNING
        if math.isnan(self.started[number]):
            self.started[number] = now
        self.attempts[number] += 1
        self.owners[number] = worker
        if entry.get("call") is not None:
            self._call(number, entry["call"], counted=not self.reports.get(number))
        self._beat(entry)
        return True

    def _call(self, number: int, call: str, counted: bool = True) -> None:
        """A trial is run by a call of `optimize`, which counts it once."""
        place = self._call_places.setdefault(call, len(self._call_places) + 1)
        if self.calls[number] != place:
            self.calls[number] = place
            self._call_sizes[call] = self._call_sizes.get(call, 0) + counted

    def _stop(self, entry: dict[str, Any]) -> None:
        """A call of `optimize` is over: its workers begin no more trials."""
        self.stopped.add(entry["call"])

    def _beat(self, entry: dict[str, Any]) -> None:
        worker = entry["by"]
        known = self.leases.get(worker)
        lease = entry.get("lease") or (known[1] if known else 60.0)
        self.leases[worker] = (max(entry["at"], known[0] if known else -math.inf), lease)

    def _orphan(self, entry: dict[str, Any]) -> None:
        """A worker is known to be dead: what it ran waits for another."""
        for number in [number for number, worker in self.owners.items() if worker == entry["worker"]]:
            self.deaths[number] = self.deaths.get(number, 0) + 1
            self._wait(number)

    def _release(self, entry: dict[str, Any]) -> bool:
        """A worker gives a trial back, to be run again."""
        number = entry["number"]
        if self.state[number] != _RUNNING or self.owners.get(number) != entry["by"]:
            return False
        self._wait(number)
        return True

    def _wait(self, number: int) -> None:
        self.owners.pop(number, None)
        self.state[number] = _WAITING
        self.waiting[number] = None

    def _enqueue(self, entry: dict[str, Any]) -> int:
        number = self._append_row(_WAITING)
        self.waiting[number] = None
        self.fixed[number] = entry["params"]
        if entry.get("attrs"):
            self.trial_attrs[number] = dict(entry["attrs"])
        return number

    def _fork(self, entry: dict[str, Any]) -> int | None:
        """A paused trial ends, and a new one takes its place: it goes on from the checkpoint of another one."""
        number, parent = entry["number"], entry["of"]
        if self.state[number] != _PAUSED or self.state[parent] >= _COMPLETE:
            return None
        del self.paused[number]
        self._finish(number, _PRUNED, {"at": entry["at"]})
        fork = self._enqueue(entry)
        if parent in self.checkpoints:  # one who only looks on keeps none
            self.checkpoints[fork] = self.checkpoints[parent]
        return fork

    def _set(self, entry: dict[str, Any]) -> None:
        """Parameters of a trial: name -> [domain, stored value]; not of an attempt that another has taken over."""
        number = entry["number"]
        if self.runs(number, entry.get("attempt")):
            self._set_params(number, entry["params"])

    def _report(self, entry: dict[str, Any]) -> None:
        number = entry["number"]
        if self.state[number] == _RUNNING:
            if "params" in entry:
                self._set_params(number, entry["params"])
            self._set_report(number, entry["step"], entry["value"])

    def _checkpoint(self, entry: dict[str, Any]) -> None:
        if self.state[entry["number"]] == _RUNNING:
            self.checkpoints[entry["number"]] = entry["data"]

    def _cost(self, entry: dict[str, Any]) -> None:
        number = entry["number"]
        self.costs[number] = self.costs.get(number, 0.0) + entry["amount"]

    def _attrs(self, entry: dict[str, Any]) -> None:
        number = entry.get("number")
        if number is None:
            self.user_attrs = {**self.user_attrs, **entry.get("attrs", {})}
            self.system_attrs = {**self.system_attrs, **entry.get("system", {})}
        else:
            self._set_attrs(number, entry)

    def _tell(self, entry: dict[str, Any]) -> bool:
        """How a trial ended. The first to tell is heard; a late worker, whose trial has ended, is not.

        One whose trial another has taken over says `whole`: what it tells belongs to its own parameters, and no others.
        """
        number, state = entry["number"], entry["state"]
        if self.state[number] >= _COMPLETE:
            return False
        if number in self.waiting:
            del self.waiting[number]
        self.paused.pop(number, None)
        if entry.get("whole"):
            for column in self.columns.values():
                column.kinds[number] = 0
                column.arrays.pop(number, None)
        self._finish(number, state, entry)
        return True

    def _add(self, entry: dict[str, Any]) -> int:
        """A whole trial, from elsewhere."""
        number = self._append_row(entry["state"])
        self.started[number] = _or_nan(entry.get("started"))
        self.attempts[number] = entry.get("attempt", 0)
        if entry.get("checkpoint"):
            self.checkpoints[number] = entry["checkpoint"]
        if entry.get("cost") is not None:
            self.costs[number] = entry["cost"]
        if entry.get("fixed") is not None:
            self.fixed[number] = entry["fixed"]
        if entry["state"] == _RUNNING:
            self.owners[number] = entry.get("by") or ""
        if entry["state"] == _WAITING:
            self.waiting[number] = None
        self._finish(number, entry["state"], entry)
        return number

    # --- parts of entries ---------------------------------------------------------------------

    def _finish(self, number: int, state: int, entry: dict[str, Any]) -> None:
        if entry.get("params"):
            self._set_params(number, entry["params"])
        for step, value in (entry.get("reports") or {}).items():
            self._set_report(number, int(step), value)
        values = entry.get("values")
        if values is not None:  # none of them: it has ended without a value, whatever it reported
            self.values[number] = values if len(values) else math.nan
        self._set_attrs(number, entry)
        if entry.get("constraints") is not None:
            self.constraints[number] = tuple(entry["constraints"])
        if entry.get("gradient") is not None:
            self.gradients[number] = entry["gradient"]
        if entry.get("error"):
            self.errors[number] = entry["error"]
        self.state[number] = state
        if state in (_RUNNING, _WAITING):
            return
        self.owners.pop(number, None)
        self.ended[number] = _or_nan(entry.get("at"))
        if state == _PAUSED:
            self.paused[number] = None
            return
        self.checkpoints.pop(number, None)
        self.order[self.finished] = number
        self.finished += 1

    def _set_params(self, number: int, params: dict[str, Any]) -> None:
        for name, (written, stored) in params.items():
            domain = written if isinstance(written, Domain) else domain_from_json(written)
            self.set_param(number, name, domain, stored)

    def set_param(self, number: int, name: str, domain: Domain, stored: Any) -> None:
        """Write one parameter into its column; doing it twice is doing it once."""
        column, place = self._column(name, domain)
        if isinstance(domain, Array):
            column.arrays[number] = stored if isinstance(stored, np.ndarray) else unpack(stored, domain.shape)
        else:
            column.values[number] = stored
        column.kinds[number] = place

    def set_params(self, first: int, name: str, domain: Domain, stored: Sequence[float]) -> None:
        """The same for one parameter, not an array, of trials one after another."""
        column, place = self._column(name, domain)
        column.values[first : first + len(stored)] = stored
        column.kinds[first : first + len(stored)] = place

    def _column(self, name: str, domain: Domain) -> tuple[Column, int]:
        """The column of a name, and the place of a domain in the list of domains."""
        place = self._domain_places.get(domain)
        if place is None:
            self.domains.append(domain)
            place = self._domain_places[domain] = len(self.domains)
        column = self.columns.get(name)
        if column is None:
            column = self.columns[name] = Column(len(self.state))
        self.latest[name] = domain
        return column, place

    def _set_attrs(self, number: int, entry: dict[str, Any]) -> None:
        """Notes of a trial, always in a new dictionary: whoever has the old one keeps what it was."""
        if entry.get("attrs"):
            self.trial_attrs[number] = {**self.trial_attrs.get(number, {}), **entry["attrs"]}
        if entry.get("system"):
            self.trial_system_attrs[number] = {
                **self.trial_system_attrs.get(number, {}),
                **entry["system"],
            }

    def _set_report(self, number: int, step: int, value: Any) -> None:
        several = isinstance(value, list | tuple)
        value = tuple(value) if several else value
        self.values[number, : len(value) if several else 1] = value
        self.reports.setdefault(number, {})[step] = value
        self.steps.setdefault(step, {})[number] = value

    def _append_row(self, state: int) -> int:
        number = self.size
        self._grow(number + 1)
        self.state[number] = state
        self.size = number + 1
        return number

    def _grow(self, rows: int) -> None:
        before = len(self.state)
        if rows <= before:
            return
        more = max(rows, int(before * _GROWTH)) - before
        self.state = np.concatenate([self.state, np.zeros(more, np.int8)])
        self.values = np.concatenate([self.values, np.full((more, self.values.shape[1]), math.nan)])
        self.started = np.concatenate([self.started, np.full(more, math.nan)])
        self.ended = np.concatenate([self.ended, np.full(more, math.nan)])
        self.attempts = np.concatenate([self.attempts, np.zeros(more, np.int16)])
        self.order = np.concatenate([self.order, np.zeros(more, np.int32)])
        self.calls = np.concatenate([self.calls, np.zeros(more, np.int32)])
        for column in self.columns.values():
            column.values = np.concatenate([column.values, np.zeros(more)])
            column.kinds = np.concatenate([column.kinds, np.zeros(more, np.uint32)])

    # --- reading ------------------------------------------------------------------------------

    def is_over(self, number: int) -> bool:
        """Whether a trial has ended for good."""
        return self.state[number] >= _COMPLETE

    def runs(self, number: int, attempt: int | None = None) -> bool:
        """Whether a trial is running, in this attempt."""
        return self.state[number] == _RUNNING and attempt in (None, self.attempts[number])

    def is_orphan(self, number: int, now: float) -> bool:
        """Whether a running trial's worker has not been heard of for longer than its lease."""
        seen, lease = self.leases.get(self.owners.get(number, ""), (-math.inf, 0.0))
        return now > seen + lease

    def claimable(self, now: float, call: str | None = None) -> int | None:
        """The first trial (of a call of `optimize`) that waits for a worker, or whose worker is gone."""
        orphans = [number for number in self.owners if self.is_orphan(number, now)]
        found = [*self.waiting, *orphans]
        if call is not None:
            found = [number for number in found if self.is_of(number, call)]
        return min(found, default=None)

    def called(self, call: str) -> int:
        """How many trials a call of `optimize` has begun."""
        return self._call_sizes.get(call, 0)

    def is_of(self, number: int, call: str) -> bool:
        """Whether a trial was begun by a call of `optimize`."""
        return self._call_places.get(call) == self.calls[number]

    def under_way(self, call: str | None = None, but: Set[str] = frozenset()) -> bool:
        """Whether a trial (of a call of `optimize`) waits, or runs with others than some workers."""
        numbers = [*self.waiting, *(number for number, worker in self.owners.items() if worker not in but)]
        return bool(numbers) if call is None else any(self.is_of(number, call) for number in numbers)

    def param(self, number: int, name: str) -> tuple[Domain, Any] | None:
        """The domain and the value of a parameter of a trial; None if it has none of that name."""
        column = self.columns.get(name)
        place = 0 if column is None else int(column.kinds[number])
        if column is None or place == 0:
            return None
        domain = self.domains[place - 1]
        if isinstance(domain, Array):
            return domain, column.arrays[number]
        return domain, domain.decode(column.values[number])

    def trial(self, number: int) -> FrozenTrial:
        """One trial as a record."""
        names = list(self.columns)  # another thread may add to them
        found = {name: found for name in names if (found := self.param(number, name)) is not None}
        values = self.values[number]
        told = self.state[number] in (_COMPLETE, _PRUNED) and not np.isnan(values).any()
        return FrozenTrial(
            number=number,
            state=TrialState(int(self.state[number])),
            values=tuple(values.tolist()) if told else None,
            params={name: value for name, (_, value) in found.items()},
            domains={name: domain for name, (domain, _) in found.items()},
            user_attrs=dict(self.trial_attrs.get(number, ())),
            reports={step: _first(value) for step, value in self.reports.get(number, {}).items()},
            constraints=self.constraints.get(number),
            gradient=self.gradients.get(number),
            error=self.errors.get(number),
            started=_or_none(self.started[number]),
            ended=_or_none(self.ended[number]),
            attempt=int(self.attempts[number]),
            system_attrs=dict(self.trial_system_attrs.get(number, ())),
        )

    def entry(self, number: int) -> dict[str, Any]:
        """One trial as the entry that adds it to another study."""
        trial = self.trial(number)
        more = {
            "reports": {str(step): value for step, value in self.reports.get(number, {}).items()},
            "by": self.owners.get(number),
            "checkpoint": self.checkpoints.get(number),
            "cost": self.costs.get(number),
        }
        kept = {key: value for key, value in more.items() if value not in (None, {}, ())}
        if number in self.fixed:
            kept["fixed"] = self.fixed[number]
        return {**entry_of(trial), **kept}

    def violations(self, rows: np.ndarray) -> np.ndarray:
        """By how much the constraints of trials are missed, in all; 0 for those that have none."""
        missed = np.zeros(len(rows))
        if self.constraints:
            for place, number in enumerate(rows.tolist()):
                missed[place] = sum(max(value, 0.0) for value in self.constraints.get(number, ()))
        return missed


class History:
    """What a sampler may look at: the trials that were finished when a trial began, and those under way.

    Attributes:
        ledger: the columns.
        watched: whether trials under way may be looked at (not in the ordered mode).
        memo: for what samplers derive from it; it is forgotten with it.

    >>> from nestor import search
    >>> class Longest:
    ...     def __call__(self, asked, name, domain):
    ...         return min(0.1 * len(asked.history.rows), 1.0)
    >>> study = search.create_study(sampler=Longest())
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 10), n_trials=3)
    >>> [round(trial.value, 6) for trial in study.trials]
    [0.0, 1.0, 2.0]
    """

    __slots__ = ("_finished", "_horizon", "_rows", "ledger", "memo", "watched")

    def __init__(self, ledger: Ledger, horizon: int | None = None):
        self.ledger, self.watched = ledger, horizon is None
        self.memo: dict[Any, Any] = {}
        self._finished, self._horizon = ledger.finished, horizon
        self._rows: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """The numbers of the finished trials, ascending."""
        if self._rows is None:
            rows = np.sort(self.ledger.order[: self._finished])
            self._rows = rows if self._horizon is None else rows[rows <= self._horizon]
        return self._rows

    def pending(self, number: int) -> list[int]:
        """The other trials that run or pause."""
        if not self.watched:
            return []
        return [other for other in (*self.ledger.owners, *self.ledger.paused) if other != number]


def entry_of(trial: FrozenTrial) -> dict[str, Any]:
    """A record as the entry that adds it to a study."""
    params = {}
    for name, value in trial.params.items():
        domain = trial.domains[name]
        stored = pack(value) if isinstance(domain, Array) else domain.encode(value)
        params[name] = [domain.as_json(), stored]
    silent = trial.values is None and trial.state == TrialState.PRUNED and trial.reports
    written = {
        "do": "add",
        "state": int(trial.state),
        "values": trial.values,
        "params": params,
        "system": dict(trial.system_attrs),
        "reports": {str(step): value for step, value in trial.reports.items()},
        "attrs": dict(trial.user_attrs),
        "constraints": trial.constraints,
        "gradient": trial.gradient,
        "error": trial.error,
        "started": trial.started,
        "at": trial.ended,
        "attempt": trial.attempt,
    }
    kept = {key: value for key, value in written.items() if value not in (None, {}, ())}
    return {**kept, "values": []} if silent else kept


def pack(values: np.ndarray | Sequence[float]) -> str:
    """An array of reals as text."""
    return base64.b64encode(np.ascontiguousarray(values, "<f8").tobytes()).decode()


def unpack(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array that `pack` wrote; it cannot be written to."""
    return np.frombuffer(base64.b64decode(text), "<f8").reshape(shape)


def _first(value: Any) -> float:
    """What was reported, of the first objective."""
    return value[0] if isinstance(value, tuple) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


_VERBS = {
    "ask": Ledger._ask,
    "claim": Ledger._claim,
    "stop": Ledger._stop,
    "beat": Ledger._beat,
    "orphan": Ledger._orphan,
    "release": Ledger._release,
    "enqueue": Ledger._enqueue,
    "fork": Ledger._fork,
    "set": Ledger._set,
    "report": Ledger._report,
    "checkpoint": Ledger._checkpoint,
    "attrs": Ledger._attrs,
    "cost": Ledger._cost,
    "tell": Ledger._tell,
    "add": Ledger._add,
}
