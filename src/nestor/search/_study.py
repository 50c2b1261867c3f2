"""A study: asks, tells, optimizes, and knows what came out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from nestor.errors import BadArgument, NestorError
from nestor.search._arguments import catchable, integer, plain, reals, whole, whole_or_none
from nestor.search._channels import Direct, Shared, channel_to
from nestor.search._endings import ending
from nestor.search._executors import Executor
from nestor.search._given import checked_record, is_there
from nestor.search._interrupts import obeyed, shield
from nestor.search._ledger import MOST_ATTEMPTS, History, Ledger, entry_of
from nestor.search._nested import cost
from nestor.search._pruners import Pruner
from nestor.search._records import Direction, FrozenTrial, TrialState
from nestor.search._register import Register
from nestor.search._runs import Exhausted, Plan, Watch, alone, together
from nestor.search._samplers import Asked, Sampler
from nestor.search._spaces import Domain
from nestor.search._storages import Storage
from nestor.search._tpe import non_dominated
from nestor.search._trial import Trial, give_back, suggest_space
from nestor.search._view import Trials, frame

Objective = Callable[[Trial], Any]
_METRIC_NAMES = "study:metric_names"  # the note that Optuna keeps under this name too


class Study:
    """An objective's trials, and what samples and prunes them. Made by `create_study` and `load_study`.

    Attributes:
        name: its name in its storage.
        sampler: what suggests parameters.
        pruner: what ends trials early, or None.
        storage: where it is kept.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.TPESampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=20)
    >>> study.best_value < 0.05
    True
    """

    def __init__(
        self,
        storage: Storage,
        identity: str,
        header: dict[str, Any],
        sampler: Sampler,
        pruner: Pruner | None,
        channel: Shared | None = None,
    ):
        self.name: str = header["name"]
        self.sampler, self.pruner = sampler, pruner
        self.storage, self._stopped = storage, False
        self._identity, self._header = identity, header
        self._channel: Direct | Shared = channel or channel_to(storage, identity, header)
        self._histories: dict[Any, History] = {}

    def __repr__(self) -> str:
        return f"Study(name={self.name!r}, directions={[str(d) for d in self.directions]})"

    def __reduce__(self) -> Any:
        """Pickled as what opens it anew: over the same file or database, or over a copy of the memory."""
        return Study, (self.storage, self._identity, self._header, self.sampler, self.pruner)

    # --- what there is ------------------------------------------------------------------------

    @property
    def _ledger(self) -> Ledger:
        self._channel.sync()
        return self._channel.ledger

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions of the objectives."""
        return self._channel.ledger.directions

    @property
    def parent(self) -> tuple[str, int] | None:
        """The study and the number of the trial in which this one was made (``create_study(parent=trial)``)."""
        parent = self._header.get("parent")
        return None if parent is None else (parent["study"], parent["number"])

    def nested(self, number: int | None = None) -> list[str]:
        """The names of the studies that were made inside the trials, or inside one of them."""
        inner = Register(self.storage).inside().get(self._identity, {})
        return [header["name"] for at in sorted(inner) if number in (None, at) for header in inner[at]]

    def cost(self, number: int | None = None) -> float:
        """What the trials cost, or one of them: what `Trial.add_cost` said, and what nested studies cost; else 1."""
        ledger = self._ledger
        if number is not None and not 0 <= number < ledger.size:
            want = f"the number of a trial, less than {ledger.size}"
            raise BadArgument("cost", "number", got=number, want=want, do="drop it for the whole study")
        return cost(self.storage, self._identity, ledger, number)

    @property
    def created(self) -> float:
        """When it was created: seconds since the epoch."""
        return float(self._header["created"])

    @property
    def direction(self) -> Direction:
        """The direction of the only objective."""
        self._single("direction")
        return self.directions[0]

    @property
    def trials(self) -> Trials:
        """All trials, as a view: records are made when they are looked at."""
        ledger = self._ledger
        return Trials(ledger, range(ledger.size))

    def trials_with(self, *states: TrialState) -> Trials:
        """The trials in one of some states."""
        ledger = self._ledger
        return Trials(ledger, np.flatnonzero(np.isin(ledger.state[: ledger.size], states)).tolist())

    @property
    def best_trial(self) -> FrozenTrial:
        """The complete trial with the best value, among those that miss no constraint."""
        self._single("best_trial")
        ledger = self._ledger
        rows = self._feasible(ledger)
        if len(rows) == 0:
            raise NestorError(
                f"Study '{self.name}' has no complete trial that meets its constraints.\n"
                "Do this: run more trials, or look at study.trials"
            )
        return ledger.trial(int(rows[np.argmin(ledger.values[rows, 0] * ledger.signs[0])]))

    @property
    def best_trials(self) -> list[FrozenTrial]:
        """The complete trials that no other betters in all objectives (the Pareto front)."""
        ledger = self._ledger
        rows = self._feasible(ledger)
        front = rows[non_dominated(ledger.values[rows] * ledger.signs)]
        return [ledger.trial(int(number)) for number in front]

    @property
    def best_value(self) -> float:
        """The value of `best_trial`."""
        return float(self.best_trial.value or 0.0)

    def _best(self) -> float | None:
        """The value of `best_trial`, or None where there is none."""
        one = len(self.directions) == 1
        return self.best_value if one and len(self._feasible(self._channel.ledger)) else None

    @property
    def best_params(self) -> dict[str, Any]:
        """The parameters of `best_trial`."""
        return dict(self.best_trial.params)

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The notes beside the study."""
        return dict(self._ledger.user_attrs)

    def set_user_attr(self, name: str, value: Any) -> None:
        """Keep a note beside the study: what JSON can hold, with arrays as lists."""
        attrs = {str(name): plain("set_user_attr", "value", value)}
        self._channel.commit({"do": "attrs", "attrs": attrs, "at": self._channel.now()})

    @property
    def system_attrs(self) -> dict[str, Any]:
        """The notes of programs beside the study."""
        return dict(self._ledger.system_attrs)

    @property
    def metric_names(self) -> list[str] | None:
        """What `set_metric_names` was told, or None."""
        return self._ledger.system_attrs.get(_METRIC_NAMES)

    def set_metric_names(self, names: Sequence[str]) -> None:
        """Name the objectives, one name each; tables and pictures show the names."""
        if isinstance(names, str) or len(names) != len(self.directions):
            want = f"{len(self.directions)} names, one an objective"
            raise BadArgument("set_metric_names", "names", got=names, want=want, do="give one name each")
        system = {_METRIC_NAMES: list(names)}
        self._channel.commit({"do": "attrs", "attrs": {}, "system": system, "at": time.time()})

    def trials_dataframe(self) -> Any:
        """A pandas.DataFrame, one row a trial; needs pandas (``pip install 'nestor[search]'``).

        Columns: ``number``, ``value`` (with several objectives ``values_0`` ..., or by the names of
        `set_metric_names`), ``started`` and ``ended`` (local times), ``duration`` in seconds, ``params_NAME``,
        ``user_attrs_NAME``, ``state``.
        """
        return frame(self._ledger, self.metric_names)

    def _single(self, what: str) -> None:
        if len(self.directions) > 1:
            raise NestorError(f"A study of several objectives has no {what}.\nDo this: use study.best_trials")

    def _feasible(self, ledger: Ledger) -> np.ndarray:
        rows = np.flatnonzero(ledger.state[: ledger.size] == TrialState.COMPLETE)
        return rows[ledger.violations(rows) <= 0]

    # --- ask and tell -------------------------------------------------------------------------

    @overload
    def ask(self, n: None = None, *, space: Mapping[str, Domain] | None = None) -> Trial: ...
    @overload
    def ask(self, n: int, *, space: Mapping[str, Domain] | None = None) -> list[Trial]: ...

    def ask(self, n: int | None = None, *, space: Mapping[str, Domain] | None = None) -> Any:
        """The next trial, or a list of the next ``n``.

        What waits comes first: trials that were enqueued, promoted, given back, or left by a dead worker.

        Args:
            n: how many; None for one trial that is not in a list.
            space: parameters to suggest at once, name to domain.
        """
        count = whole_or_none("ask", "n", n, example=8) or 1
        trials: list[Trial] = []
        fresh = 0
        try:
            with shield, self._channel.lock:
                self._channel.sync()
                while len(trials) < count and (claimed := self._claim({})) is not None:
                    trials.append(self._trial(claimed, None))
                if len(trials) < count:
                    numbers = self._channel.commit(self._asking(count - len(trials)))[0]
                    trials += [self._trial(number, None) for number in numbers]
                    fresh = len(numbers)
                if space:
                    suggest_space(trials[: count - fresh], trials[count - fresh :], space)
        except BaseException:
            give_back(trials)
            raise
        return trials[0] if n is None else trials

    def tell(
        self,
        trial: Trial | int | Sequence[Trial | int],
        values: Any = None,
        *,
        state: TrialState | None = None,
        gradient: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        constraints: Sequence[Any] | None = None,
    ) -> None:
        """Say how one trial ended, or, with sequences, how several did; all or none is written down.

        Args:
            trial: what `ask` gave, or its number, or a sequence of those.
            values: the value, or one value an objective; for several trials a sequence of that. NaN means failure.
            state: ``COMPLETE`` (the default), ``PRUNED``, ``FAILED`` or ``PAUSED``.
            gradient: name of a float or an array to the derivative of the value by it, in the parameter's units.
            constraints: values that are <= 0 where a constraint holds.

        A trial that has ended already stays as it is: its worker was slow and another was faster.
        """
        if not isinstance(trial, Sequence | np.ndarray):
            slopes: Any = gradient
            self._channel.commit(self._telling(trial, values, state, slopes, constraints))
            return
        count = len(trial)
        columns: list[Any] = [values, gradient, constraints]
        if any(
            column is not None and (not hasattr(column, "__len__") or len(column) != count)
            for column in columns
        ):
            raise BadArgument(
                "tell", "values", got="another length", want=f"of {count} trials", do="give one each"
            )
        rows: list[Any] = [[None] * count if column is None else column for column in columns]
        entries = [
            self._telling(one, value, state, slope, missed)
            for one, value, slope, missed in zip(trial, *rows, strict=True)
        ]
        if entries:
            self._channel.commit(*entries)

    def _telling(
        self,
        trial: Trial | int,
        values: Any,
        state: TrialState | None,
        gradient: Mapping[str, Any] | None,
        constraints: Sequence[float] | None,
    ) -> dict[str, Any]:
        """The entry that ends a trial, checked; what is not given is what the trial told before."""
        number = trial.number if isinstance(trial, Trial) else integer(trial)
        foreign = isinstance(trial, Trial) and trial._channel.study != self._identity
        if foreign or number is None or not 0 <= number < self._channel.ledger.size:
            want = f"a trial of study '{self.name}', or its number"
            raise BadArgument("tell", "trial", got=trial, want=want, do="pass what ask gave")
        more: dict[str, Any] = {"state": state, "gradient": gradient, "constraints": constraints}
        if isinstance(trial, Trial):
            return trial._ended(values, **more)
        return ending(self._channel.ledger, number, values, at=self._channel.now(), **more)

    def enqueue_trial(
        self,
        params: Mapping[str, Any],
        *,
        user_attrs: Mapping[str, Any] | None = None,
        skip_if_exists: bool = False,
    ) -> None:
        """Have a trial with these parameters run before others; what is not given is sampled.

        Args:
            params: parameter name to value.
            user_attrs: notes beside the trial.
            skip_if_exists: whether nothing happens where a trial with just these parameters is there, in
                whatever state.
        """
        given = plain("enqueue_trial", "params", dict(params))
        if skip_if_exists and is_there(self._ledger, given):
            return
        attrs = plain("enqueue_trial", "user_attrs", dict(user_attrs or {}))
        self._channel.commit({"do": "enqueue", "params": given, "attrs": attrs, "at": self._channel.now()})

    def add_trial(self, trial: FrozenTrial) -> None:
        """Add a trial from elsewhere; it gets the next number."""
        self.add_trials([trial])

    def add_trials(self, trials: Iterable[FrozenTrial]) -> None:
        """Add trials from elsewhere; they get the next numbers."""
        entries = [entry_of(checked_record(self.directions, trial)) for trial in trials]
        if entries:
            self._channel.commit(*entries)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the study to a file of JSON lines: a header, then one trial a line; see `import_study`."""
        with Path(path).open("w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in self.lines())

    def lines(self) -> Iterator[str]:
        """The lines that `export` writes, one by one."""
        ledger = self._ledger
        notes = {"user_attrs": ledger.user_attrs, "system_attrs": ledger.system_attrs}
        yield json.dumps({"nestor_study": 1, **self._header, **notes}, separators=(",", ":"))
        for number in range(ledger.size):
            yield json.dumps(ledger.entry(number), separators=(",", ":"))

    def _asking(self, count: int, size: int | None = None) -> dict[str, Any]:
        channel = self._channel
        entry = {
            "do": "ask",
            "by": channel.worker,
            "at": self._channel.now(),
            "lease": channel.lease,
            "n": count,
        }
        return entry if size is None else {**entry, "if": size}

    def _claim(self, more: Mapping[str, Any], within: str | None = None) -> int | None:
        """Take over a trial that waits, or the one that the pruner promotes; None when there is none.

        Args:
            more: parts of the entry that claims it.
            within: only trials of this call of `optimize`.
        """
        while True:
            ledger, now = self._channel.ledger, self._channel.now()
            number = ledger.claimable(now, within) if ledger.waiting or ledger.owners else None
            if number is None and ledger.paused and within is None:
                if self._forked(ledger):
                    continue
                promote = getattr(self.pruner, "promote", None)
                number = None if promote is None else promote(ledger)
            if number is None:
                return None
            if ledger.deaths.get(number, 0) >= MOST_ATTEMPTS:
                error = f"{MOST_ATTEMPTS} workers died of it"
                failed = ending(ledger, number, at=now, state=TrialState.FAILED, error=error)
                self._channel.commit(failed)
                continue
            attempt = int(ledger.attempts[number]) + 1
            channel = self._channel
            entry = {"do": "claim", "number": number, "attempt": attempt, "by": channel.worker, "at": now}
            if channel.commit({**entry, "lease": channel.lease, **more})[0]:
                return number

    def _forked(self, ledger: Ledger) -> bool:
        """Let the pruner put another trial in the place of a paused one; whether there is one to look at now."""
        fork = getattr(self.pruner, "fork", None)
        entry = None if fork is None else fork(ledger)
        if entry is None:
            return False
        self._channel.commit({**entry, "do": "fork", "at": self._channel.now()})
        return True

    def _trial(self, number: int, lag: int | None) -> Trial:
        horizon = None if lag is None else number - lag
        asked = Asked(number, self._history(horizon), self._channel.commit)
        return Trial(number, self._channel, self.sampler, self.pruner, asked, horizon)

    def _history(self, horizon: int | None) -> History:
        """What a trial may learn from: all that is finished, or in the ordered mode all up to a number."""
        ledger = self._channel.ledger
        key = ledger.finished if horizon is None else ("up to", horizon)
        if key not in self._histories:
            if len(self._histories) > 1:
                self._histories.clear()
            self._histories[key] = History(ledger, horizon)
        return self._histories[key]

    # --- optimize -----------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin no more trials in the `optimize` that runs; those under way end. For callbacks and objectives.

        An objective in a process of its own does not reach the others: call it in a callback there.
        """
        self._stopped = True

    def optimize(
        self,
        objective: Objective,
        n_trials: int | None = None,
        *,
        timeout: float | None = None,
        n_workers: int = 1,
        catch: type[Exception] | Iterable[type[Exception]] = (),
        callbacks: Sequence[Callable[[Study, FrozenTrial], Any]] = (),
        progress: bool = False,
        ordered: int | None = None,
        total: int | None = None,
        batch: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Run trials.

        Interrupted (Ctrl-C), it gives back the trials under way, so that whoever goes on with the study runs them
        first, and raises KeyboardInterrupt.

        Args:
            objective: takes a `Trial`; returns the value, or one value an objective. An exception that it returns
                fails the trial and ends nothing.
            n_trials: how many to run now; None for as many as time and sampler allow.
            timeout: seconds after which no more trials begin.
            n_workers: processes. With more than one, the objective must be importable, and JAX is not imported
                unless the objective does.
            catch: exceptions that make a trial FAILED, of which samplers learn; others also end the optimization.
            callbacks: each called with the study and the record of a trial that has just ended.
            progress: whether to show a progress bar.
            ordered: K makes a seeded study the same with any number of workers up to K: a trial learns from those
                that are K or more numbers before it, and begins when these have ended.
            total: how many trials the study is to have in the end, those of others included. So a program can be
                started again, and many programs share the work: a worker that finds the study full waits for the
                trials that others still run, and takes them over when their workers die.
            batch: calls the objective with lists of so many trials (the last list may be shorter), which all
                learn from the same trials. It returns a list with the value of each, or in its place an
                exception: `TrialPruned`, or anything else for a trial that has failed. In this process alone.
            executor: where the ``n_workers`` workers run instead of in processes of this machine; see `Executor`.
        """
        where = "optimize"
        n_trials, total = whole_or_none(where, "n_trials", n_trials), whole_or_none(where, "total", total)
        ordered, batch = whole_or_none(where, "ordered", ordered), whole_or_none(where, "batch", batch)
        n_workers = whole(where, "n_workers", n_workers)
        if batch is not None and (ordered is not None or n_workers > 1 or executor is not None):
            do = "drop the others, or batch"
            raise BadArgument(
                "optimize", "batch", got=batch, want="alone: one worker, no ordered mode", do=do
            )
        if executor is not None and not isinstance(executor, Executor):
            want, do = "an object with submit", "pass a ThreadPoolExecutor or a DaskExecutor"
            raise BadArgument("optimize", "executor", got=executor, want=want, do=do)
        if timeout is not None and not reals(where, "timeout", timeout)[0] >= 0:
            raise BadArgument(where, "timeout", got=timeout, want="None or seconds >= 0", do="pass 60.0")
        if callable(callbacks) or not all(callable(callback) for callback in callbacks):
            want, do = "a list of functions of the study and the trial", "put it into a list"
            raise BadArgument(where, "callbacks", got=callbacks, want=want, do=do)
        if not callable(objective):
            want = "a function of a trial"
            raise BadArgument(where, "objective", got=objective, want=want, do="pass the function itself")
        until = None if timeout is None else self._channel.now() + timeout
        plan = Plan(objective, n_trials, total, until, catchable(where, catch), ordered, batch)
        left = None if total is None else max(total - self._ledger.size, 0)
        expected = min((count for count in (n_trials, left) if count is not None), default=None)
        watch = Watch(self, callbacks, expected, progress)
        self._stopped = False
        try:
            with obeyed():
                if n_workers == 1 and executor is None:
                    alone(self, plan, watch)
                else:
                    together(self, plan, n_workers, executor, watch)
        except Exhausted:
            pass
        finally:
            self._channel.flush()
            watch.close()
