"""One trial under way, as an objective sees it."""

from __future__ import annotations

import base64
import math
import pickle
import time
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from nestor.errors import BadArgument
from nestor.search._arguments import plain, reals, whole
from nestor.search._channels import Direct, Shared, as_json
from nestor.search._endings import ending, slopes
from nestor.search._pruners import Curves, Pruner
from nestor.search._records import Direction, TrialState
from nestor.search._samplers import Asked, Sampler
from nestor.search._spaces import Array, Categorical, Domain, Float, Int


class Trial:
    """A trial under way: it suggests parameters, takes reports, and says when to stop.

    Made by `Study.ask` and `Study.optimize`, never directly.

    Attributes:
        number: its place in the study, from 0.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> trial = study.ask()
    >>> kind = trial.suggest_categorical("kind", ["linear", "tree"])
    >>> if kind == "tree":
    ...     depth = trial.suggest_int("depth", 1, 8)
    >>> "depth" in trial.params
    True
    """

    __slots__ = (
        "_asked",
        "_attempt",
        "_begun",
        "_channel",
        "_constraints",
        "_given",
        "_gradient",
        "_horizon",
        "_named",
        "_pruner",
        "_sampler",
        "_verdict",
        "number",
    )

    def __init__(
        self,
        number: int,
        channel: Direct | Shared,
        sampler: Sampler,
        pruner: Pruner | None,
        asked: Asked,
        horizon: int | None,
    ):
        self.number = number
        self._channel, self._sampler, self._pruner, self._asked = channel, sampler, pruner, asked
        self._horizon, self._begun = horizon, time.monotonic()
        self._attempt = int(channel.ledger.attempts[number])
        self._given: dict[str, Any] = {}
        self._verdict = TrialState.RUNNING
        self._constraints: tuple[float, ...] | None = None
        self._named: dict[str, float] = {}
        self._gradient: dict[str, Any] | None = None  # as JSON holds it

    def __repr__(self) -> str:
        return f"Trial(number={self.number}, params={self.params})"

    # --- parameters ---------------------------------------------------------------------------

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A real number from ``low`` to ``high``, both included; see `Float`."""
        return self.suggest(name, Float(low, high, log, step))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``, both included; see `Int`."""
        return self.suggest(name, Int(low, high, log, step))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices; see `Categorical`. A name has the same choices in all trials."""
        return self.suggest(name, Categorical(tuple(choices)))

    def suggest_array(
        self, name: str, shape: int | Sequence[int], low: float, high: float, *, log: bool = False
    ) -> np.ndarray:
        """An array of float64 of a shape, every entry from ``low`` to ``high``; see `Array`."""
        return self.suggest(name, Array(shape, low, high, log))  # type: ignore[arg-type]

    @overload
    def suggest(self, name: str, domain: Float) -> float: ...
    @overload
    def suggest(self, name: str, domain: Int) -> int: ...
    @overload
    def suggest(self, name: str, domain: Categorical) -> Any: ...
    @overload
    def suggest(self, name: str, domain: Array) -> np.ndarray: ...

    def suggest(self, name: str, domain: Domain) -> Any:
        """A value of a domain. Asked for again, a name has the value that it had."""
        if name in self._given:
            return self._again(name, domain)
        with self._channel.lock:
            return self._suggested(name, domain)

    def _again(self, name: str, domain: Domain) -> Any:
        value = self._given[name]
        before = self._asked.given[name][0]
        if domain is not before and not (type(domain) is type(before) and domain.contains(value)):
            raise BadArgument(
                *("suggest", name),
                got=f"{domain}, a second time in this trial",
                want=f"one that holds the value of the first time, {value!r} of {before}",
                do="give the second parameter a name of its own",
            )
        return value

    def _suggested(self, name: str, domain: Domain) -> Any:
        if not isinstance(name, str):
            raise BadArgument("suggest", "name", got=name, want="a string", do="pass a name")
        if not isinstance(domain, Domain):
            want, do = "a Float, Int, Categorical or Array", f"pass {name}=search.Float(0, 1)"
            raise BadArgument("suggest", "domain", got=domain, want=want, do=do)
        ledger = self._channel.ledger
        self._check(name, domain)
        known = ledger.param(self.number, name)
        if known is not None and domain.contains(known[1]):  # an earlier attempt at this trial got so far
            return self._settle(name, domain, known[1], None)
        fixed = ledger.fixed.get(self.number, {})
        if name in fixed:
            value = np.asarray(fixed[name], float) if isinstance(domain, Array) else fixed[name]
            if not domain.contains(value):
                raise BadArgument(
                    *("enqueue_trial", "params"),
                    got=f"{name}={value!r}",
                    want=f"in {domain}",
                    do="mend the value",
                )
            return self._settle(name, domain, value, None)
        place = self._sampler(self._asked, name, domain)
        return self._settle(name, domain, domain.from_unit(place), place)

    def _check(self, name: str, domain: Domain) -> None:
        before = self._channel.ledger.latest.get(name)
        if before is None or before is domain or before == domain:
            return
        alike = type(before) is type(domain) and not isinstance(domain, Categorical)
        if not alike or (
            isinstance(before, Array) and isinstance(domain, Array) and before.shape != domain.shape
        ):
            raise BadArgument(
                "suggest",
                name,
                got=str(domain),
                want=f"of one kind in all trials (it was {before})",
                do="rename it",
            )

    def _settle(self, name: str, domain: Domain, value: Any, place: Any) -> Any:
        if isinstance(domain, Array):
            stored = np.array(value, float)
            stored.flags.writeable = False
        else:
            stored = domain.encode(value)
            value = domain.decode(stored)
        if place is None:
            place = domain.to_unit(np.asarray(stored))
        elif not isinstance(domain, Array) and domain.count is not None:
            place = float(domain.to_unit(np.asarray(stored)))
        self._channel.suggest(self.number, name, domain, stored, self._attempt)
        told = getattr(self._sampler, "told", None)
        if told is not None:
            told(self._asked, name, domain, place)
        self._asked.given[name] = domain, place
        self._given[name] = value
        return value

    @property
    def params(self) -> dict[str, Any]:
        """Parameter name to value, so far."""
        return dict(self._given)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions of the study's objectives."""
        return self._channel.ledger.directions

    # --- what an objective tells --------------------------------------------------------------

    def report(self, value: float | Sequence[float], step: int) -> None:
        """Say how good the trial is at a step (a whole number >= 0: an epoch, a budget).

        Args:
            value: one value an objective; one number alone is of the first.
            step: reported again, the last value counts.
        """
        step = whole("report", "step", step, least=0, example=0)
        count = len(self._channel.ledger.directions)
        each: Any = value if np.ndim(value) else (value,)
        told = reals("report", "value", *each)
        if len(told) not in (1, count):
            want = f"a number, or {count} of them, one an objective"
            raise BadArgument("report", "value", got=value, want=want, do="report one value an objective")
        said = told if len(told) > 1 else told[0]
        self._commit({"do": "report", "number": self.number, "step": step, "value": said})

    def should_prune(self) -> bool:
        """Whether to stop now, with ``raise TrialPruned(...)``; what was reported decides."""
        reports = self._channel.ledger.reports.get(self.number)
        if self._pruner is None or not reports:
            return False
        channel = self._channel
        with channel.lock:
            curves = Curves(channel.ledger, self.number, self._horizon, channel.commit)
            self._verdict = self._pruner(curves, max(reports))
        return self._verdict != TrialState.RUNNING

    def checkpoint(self, state: Any) -> None:
        """Save what a later attempt at this trial needs, by pickle; `restored` gives it back.

        A study file with checkpoints is as trusted as the programs that wrote it.
        """
        data = base64.b64encode(pickle.dumps(state, protocol=5)).decode()
        self._commit({"do": "checkpoint", "number": self.number, "data": data})

    @property
    def restored(self) -> Any:
        """What the last `checkpoint` of an earlier attempt at this trial saved, or None."""
        data = self._channel.ledger.checkpoints.get(self.number)
        return None if data is None else pickle.loads(base64.b64decode(data))

    def add_cost(self, amount: float) -> None:
        """Say what the trial has cost so far, more to what it said before: training runs, epochs, seconds, as you like.

        `Study.cost` adds it up, over studies made inside trials too. A trial that says nothing costs 1, or what the
        studies inside it cost.

        Args:
            amount: finite and at least 0.
        """
        cost = reals("add_cost", "amount", amount)[0]
        if not (math.isfinite(cost) and cost >= 0):
            raise BadArgument("add_cost", "amount", got=amount, want="finite and >= 0", do="pass 1.0")
        self._commit({"do": "cost", "number": self.number, "amount": cost})

    def set_user_attr(self, name: str, value: Any) -> None:
        """Keep a note beside the trial: what JSON can hold, with arrays as lists."""
        attrs = {str(name): plain("set_user_attr", "value", value)}
        self._commit({"do": "attrs", "number": self.number, "attrs": attrs})

    def set_constraints(self, values: Sequence[float]) -> None:
        """Say how far constraints are missed: each holds where its value is <= 0."""
        self._constraints = tuple(reals("set_constraints", "values", *values))

    def set_constraint(self, name: str, value: float) -> None:
        """Say how far one constraint is missed, by its name: it holds where its value is <= 0."""
        missed = reals("set_constraint", "value", value)[0]
        if math.isnan(missed):
            raise BadArgument("set_constraint", "value", got=value, want="a number", do="look into it")
        self._named[name] = missed
        self.set_constraints(list(self._named.values()))
        note = {f"constraints:{name}": missed}
        self._commit({"do": "attrs", "number": self.number, "attrs": {}, "system": note})

    def set_gradient(self, gradient: Mapping[str, Any]) -> None:
        """Say the derivative of the value that will be told, by floats and arrays, each in its own units.

        Args:
            gradient: name of a parameter to the derivative by it; an array's has the shape of the array.
        """
        self._gradient = slopes("set_gradient", self._channel.ledger, self.number, gradient)

    def revise(self, params: Mapping[str, Any]) -> None:
        """Say that the trial has moved: what it will tell belongs to these values of parameters that it has.

        For a trial that improves on what it was given, by a descent inside it. The study remembers, and
        samplers learn from, where it ended.

        Args:
            params: name of a parameter to its new value, within its domain.
        """
        for name, value in params.items():
            domain = self._asked.given[name][0] if name in self._given else None
            value = np.asarray(value, float) if isinstance(domain, Array) else value
            if domain is None or not domain.contains(value):
                want = "a parameter of the trial" if domain is None else f"in {domain}"
                raise BadArgument("revise", "params", got=f"{name}={value!r}", want=want, do="mend the value")
            stored: Any = value.copy() if isinstance(domain, Array) else domain.encode(value)
            if isinstance(domain, Array):
                stored.flags.writeable = False
            place = domain.to_unit(np.asarray(stored))
            self._channel.suggest(self.number, name, domain, stored, self._attempt)
            self._asked.given[name] = domain, place if isinstance(domain, Array) else float(place)
            self._given[name] = stored if isinstance(domain, Array) else domain.decode(stored)

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """The notes beside the trial."""
        return dict(self._channel.ledger.trial_attrs.get(self.number, {}))

    @property
    def ended_as(self) -> TrialState:
        """``PAUSED`` where the last verdict was to pause and there is a checkpoint to go on from, else ``PRUNED``."""
        resumable = self.number in self._channel.ledger.checkpoints
        return TrialState.PAUSED if self._verdict == TrialState.PAUSED and resumable else TrialState.PRUNED

    @property
    def constraints(self) -> tuple[float, ...] | None:
        """What `set_constraints` was told."""
        return self._constraints

    @property
    def gradient(self) -> Mapping[str, Any] | None:
        """What `set_gradient` was told."""
        return self._gradient

    def _ended(
        self,
        values: Any = None,
        *,
        state: TrialState | None = None,
        gradient: Mapping[str, Any] | None = None,
        constraints: Sequence[float] | None = None,
        error: str | None = None,
        returned: bool = False,
    ) -> dict[str, Any]:
        """The entry that ends it; what is not given is what it told before. See `ending`."""
        channel = self._channel
        entry = ending(
            channel.ledger,
            self.number,
            values,
            at=channel.now(),
            state=state,
            gradient=self._gradient if gradient is None and values is not None else gradient,
            constraints=self._constraints if constraints is None else constraints,
            error=error,
            returned=returned,
        )
        if time.monotonic() - self._begun > channel.lease:  # another may have taken it over
            channel.sync()
            if channel.ledger.attempts[self.number] != self._attempt:
                entry |= {"whole": True, "params": as_json(self._stored())}
        return entry

    def _stored(self) -> dict[str, tuple[Domain, Any]]:
        """Name to domain and stored value of its parameters."""
        domains = {name: self._asked.given[name][0] for name in self._given}
        return {
            name: (
                domain,
                self._given[name] if isinstance(domain, Array) else domain.encode(self._given[name]),
            )
            for name, domain in domains.items()
        }

    def _commit(self, entry: dict[str, Any]) -> None:
        self._channel.commit({**entry, "at": self._channel.now()})


def give_back(trials: Sequence[Trial]) -> None:
    """Let others run trials that were cut off; one that has ended after all stays as it is."""
    if trials:
        channel = trials[0]._channel
        channel.commit(*({"do": "release", "number": trial.number, "by": channel.worker} for trial in trials))


def suggest_space(begun: Sequence[Trial], fresh: Sequence[Trial], space: Mapping[str, Domain]) -> None:
    """Suggest the parameters of a space to trials; to fresh ones, whose numbers follow each other, column by column."""
    places = getattr(fresh[0]._sampler, "places", None) if fresh else None
    for name, domain in space.items():
        if not isinstance(domain, Domain):
            want, do = "names and domains", f"pass {{'{name}': search.Float(0, 1)}}"
            raise BadArgument("ask", "space", got=f"{name}: {domain!r}", want=want, do=do)
        at_once = places is not None and not isinstance(domain, Array)
        for trial in begun if at_once else (*begun, *fresh):
            trial.suggest(name, domain)
        if places is None or isinstance(domain, Array):
            continue
        fresh[0]._check(name, domain)
        units = places([trial.number for trial in fresh], name)
        values = [domain.from_unit(unit) for unit in units]
        stored = [domain.encode(value) for value in values]
        if domain.count is not None:
            units = [float(domain.to_unit(np.asarray(one))) for one in stored]
        fresh[0]._channel.suggest_many(fresh[0].number, name, domain, stored)
        for trial, value, unit in zip(fresh, values, units, strict=True):
            trial._asked.given[name] = domain, unit
            trial._given[name] = value
