"""A study: asks, tells, optimizes, and knows what came out."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from nestor.errors import BadArgument, NestorError
from nestor.search._channels import Direct, Shared, channel_to
from nestor.search._ledger import MOST_ATTEMPTS, History, Ledger
from nestor.search._pool import Pool
from nestor.search._pruners import Pruner
from nestor.search._records import Direction, FrozenTrial, TrialPruned, TrialState
from nestor.search._samplers import Asked, Sampler
from nestor.search._spaces import Domain
from nestor.search._storages import FileStorage, MemoryStorage, Storage
from nestor.search._tpe import non_dominated
from nestor.search._trial import Trial
from nestor.search._view import Trials, frame

Objective = Callable[[Trial], Any]


class Study:
    """An objective's trials, and what samples and prunes them. Made by `create_study` and `load_study`.

    Attributes:
        name: its name in its storage.
        sampler: what suggests parameters.
        pruner: what ends trials early, or None.

    >>> from nestor import search
    >>> study = search.create_study(sampler=search.TPESampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=20)
    >>> study.best_value < 0.05
    True
    """

    def __init__(
        self, storage: Storage, identity: str, header: dict[str, Any], sampler: Sampler, pruner: Pruner | None
    ):
        self.name: str = header["name"]
        self.sampler, self.pruner = sampler, pruner
        self._storage, self._identity, self._header = storage, identity, header
        self._channel: Direct | Shared = channel_to(storage, identity, header)
        self._histories: dict[Any, History] = {}

    def __repr__(self) -> str:
        return f"Study(name={self.name!r}, directions={[str(d) for d in self.directions]})"

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

    @property
    def best_params(self) -> dict[str, Any]:
        """The parameters of `best_trial`."""
        return dict(self.best_trial.params)

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The notes beside the study."""
        return dict(self._ledger.user_attrs)

    def set_user_attr(self, name: str, value: Any) -> None:
        """Keep a note (anything that JSON can hold) beside the study."""
        self._channel.commit({"do": "attrs", "attrs": {name: value}, "at": time.time()})

    def trials_dataframe(self) -> Any:
        """A pandas.DataFrame, one row a trial; needs pandas (``pip install 'nestor[search]'``)."""
        return frame(self._ledger)

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
        if n is not None and (isinstance(n, bool) or int(n) != n or n < 1):
            raise BadArgument("ask", "n", got=n, want="None or a whole number >= 1", do="pass n=8")
        self._channel.sync()
        trials = []
        while len(trials) < (n or 1) and (claimed := self._claim()) is not None:
            trials.append(self._trial(claimed, None))
        if len(trials) < (n or 1):
            numbers = self._channel.commit(self._asking((n or 1) - len(trials)))[0]
            trials += [self._trial(number, None) for number in numbers]
        for trial in trials if space else ():
            for name, domain in (space or {}).items():
                trial.suggest(name, domain)
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
        if isinstance(trial, Trial | int | np.integer):
            slopes: Any = gradient
            self._channel.commit(self._telling(trial, values, state, slopes, constraints))
            return
        count = len(trial)
        columns: list[Any] = [values, gradient, constraints]
        if any(column is not None and len(column) != count for column in columns):
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

    def enqueue_trial(
        self, params: Mapping[str, Any], *, user_attrs: Mapping[str, Any] | None = None
    ) -> None:
        """Have a trial with these parameters run before others; what is not given is sampled."""
        given = {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in params.items()
        }
        self._channel.commit(
            {"do": "enqueue", "params": given, "attrs": dict(user_attrs or {}), "at": time.time()}
        )

    def add_trial(self, trial: FrozenTrial) -> None:
        """Add a trial from elsewhere; it gets the next number."""
        self.add_trials([trial])

    def add_trials(self, trials: Iterable[FrozenTrial]) -> None:
        """Add trials from elsewhere; they get the next numbers."""
        entries = [entry_of(trial, self._header) for trial in trials]
        if entries:
            self._channel.commit(*entries)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the study to a file of JSON lines: a header, then one trial a line; see `import_study`."""
        ledger = self._ledger
        with Path(path).open("w", encoding="utf-8") as file:
            head = {"nestor_study": 1, **self._header, "user_attrs": ledger.user_attrs}
            for line in (head, *(ledger.entry(number) for number in range(ledger.size))):
                file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def _asking(self, count: int, size: int | None = None) -> dict[str, Any]:
        channel = self._channel
        entry = {"do": "ask", "by": channel.worker, "at": time.time(), "lease": channel.lease, "n": count}
        return entry if size is None else {**entry, "if": size}

    def _claim(self) -> int | None:
        """Take over a trial that waits, or the one that the pruner promotes; None when there is none."""
        while True:
            ledger, now = self._channel.ledger, time.time()
            number = ledger.claimable(now) if ledger.waiting or ledger.owners else None
            if number is None and ledger.paused and self._forked(ledger):
                continue
            if number is None and ledger.paused:
                promote = getattr(self.pruner, "promote", None)
                number = None if promote is None else promote(ledger)
            if number is None:
                return None
            if ledger.deaths.get(number, 0) >= MOST_ATTEMPTS:
                error = f"{MOST_ATTEMPTS} workers died of it"
                self._channel.commit(self._telling(number, None, TrialState.FAILED, None, None, error))
                continue
            attempt = int(ledger.attempts[number]) + 1
            channel = self._channel
            entry = {"do": "claim", "number": number, "attempt": attempt, "by": channel.worker, "at": now}
            if channel.commit({**entry, "lease": channel.lease})[0]:
                return number

    def _forked(self, ledger: Ledger) -> bool:
        """Let the pruner put another trial in the place of a paused one; whether there is one to look at now."""
        fork = getattr(self.pruner, "fork", None)
        entry = None if fork is None else fork(ledger)
        if entry is None:
            return False
        self._channel.commit({**entry, "do": "fork", "at": time.time()})
        return True

    def _trial(self, number: int, lag: int | None) -> Trial:
        horizon = None if lag is None else number - lag
        asked = Asked(number, self._history(horizon))
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

    def _telling(
        self,
        trial: Trial | int,
        values: Any,
        state: TrialState | None,
        gradient: Mapping[str, Any] | None,
        constraints: Sequence[float] | None,
        error: str | None = None,
    ) -> dict[str, Any]:
        """The entry that ends a trial, checked."""
        ledger = self._channel.ledger
        number = trial.number if isinstance(trial, Trial) else int(trial)
        if not 0 <= number < ledger.size:
            raise BadArgument(
                "tell", "trial", got=number, want="a trial of this study", do="pass what ask gave"
            )
        entry: dict[str, Any] = {"do": "tell", "number": number, "at": time.time()}
        if values is not None:
            found = [float(value) for value in (values if np.ndim(values) else (values,))]
            if len(found) != len(ledger.directions):
                want = f"{len(ledger.directions)} of them, one an objective"
                raise BadArgument("tell", "values", got=values, want=want, do="return one value an objective")
            if any(math.isnan(value) for value in found):
                state, error = TrialState.FAILED, error or "the value is not a number"
            else:
                entry["values"] = found
        elif state is None or state == TrialState.COMPLETE:
            raise BadArgument(
                "tell", "values", got=None, want="given for a complete trial", do="or pass state="
            )
        entry["state"] = int(TrialState.COMPLETE if state is None else state)
        missed = constraints if constraints is not None or isinstance(trial, int) else trial.constraints
        if missed is not None:
            entry["constraints"] = [float(value) for value in missed]
        if gradient is not None:
            entry["gradient"] = {name: np.asarray(slope, float).tolist() for name, slope in gradient.items()}
        if error:
            entry["error"] = error
        return entry

    # --- optimize -----------------------------------------------------------------------------

    def optimize(
        self,
        objective: Objective,
        n_trials: int | None = None,
        *,
        timeout: float | None = None,
        n_workers: int = 1,
        catch: type[Exception] | tuple[type[Exception], ...] = (),
        callbacks: Sequence[Callable[[Study, FrozenTrial], Any]] = (),
        progress: bool = False,
        ordered: int | None = None,
    ) -> None:
        """Run trials.

        Interrupted (Ctrl-C), it gives back the trials under way, so that whoever goes on with the study runs them
        first, and raises KeyboardInterrupt.

        Args:
            objective: takes a `Trial`; returns the value, or one value an objective.
            n_trials: how many to run now; None for as many as time and sampler allow.
            timeout: seconds after which no more trials begin.
            n_workers: processes. With more than one, the objective must be importable, and JAX is not imported
                unless the objective does.
            catch: exceptions that make a trial FAILED, of which samplers learn; others also end the optimization.
            callbacks: each called with the study and the record of a trial that has just ended.
            progress: whether to show a progress bar.
            ordered: K makes a seeded study the same with any number of workers up to K: a trial learns from those
                that are K or more numbers before it, and begins when these have ended.
        """
        for name, count in (("n_trials", n_trials), ("n_workers", n_workers), ("ordered", ordered)):
            if count is not None and (isinstance(count, bool) or int(count) != count or count < 1):
                raise BadArgument(
                    "optimize", name, got=count, want="a whole number >= 1", do=f"pass {name}=4"
                )
        stop = None if timeout is None else time.monotonic() + timeout
        plan = _Plan(objective, n_trials, stop, catch if isinstance(catch, tuple) else (catch,), ordered)
        watch = _Watch(self, callbacks, n_trials, progress)
        try:
            if n_workers == 1:
                while plan.more(self):
                    number, counted = self._run_one(plan)
                    plan.started += counted
                    watch(number)
            else:
                self._run_many(plan, n_workers, watch)
        except _Exhausted:
            pass
        finally:
            self._channel.flush()
            watch.close()

    def _run_one(self, plan: _Plan) -> tuple[int, bool]:
        """One trial from beginning to end; its number, and whether it was not merely promoted."""
        trial, counted = self._next(plan)
        try:
            values = plan.objective(trial)
            entry = self._telling(trial, values, None, None, None)
        except TrialPruned:
            entry = self._telling(trial, None, trial.ended_as, None, None)
        except KeyboardInterrupt:
            self._channel.commit({"do": "release", "number": trial.number, "by": self._channel.worker})
            raise
        except Exception as error:
            text = "".join(traceback.format_exception_only(error)).strip()
            self._channel.commit(self._telling(trial, None, TrialState.FAILED, None, None, text))
            if not isinstance(error, plan.catch):
                raise
            return trial.number, counted
        self._channel.commit(entry)
        return trial.number, counted

    def _next(self, plan: _Plan) -> tuple[Trial, bool]:
        """The next trial; in the ordered mode it waits until all are finished that it learns from."""
        pause, lag = 0.001, plan.ordered
        while True:
            self._channel.sync()
            ledger = self._channel.ledger
            claimed = self._claim()
            if claimed is not None:
                return self._trial(claimed, lag), not ledger.reports.get(claimed)
            size = ledger.size
            limit = getattr(self.sampler, "limit", None)
            if limit is not None and size >= limit:
                raise _Exhausted
            full = getattr(self.pruner, "full", None)
            if full is not None and full(ledger):
                if not ledger.owners and not ledger.paused:
                    raise _Exhausted
                time.sleep(pause)
                pause = min(2 * pause, 0.05)
                continue
            if lag is None:
                return self._trial(self._channel.commit(self._asking(1))[0][0], None), True
            if bool((ledger.state[: max(size - lag + 1, 0)] >= TrialState.PAUSED).all()):
                numbers = self._channel.commit(self._asking(1, size))[0]
                if numbers is not None:
                    return self._trial(numbers[0], lag), True
                continue
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def _run_many(self, plan: _Plan, n_workers: int, watch: _Watch) -> None:
        """Workers in processes of their own, over a shared storage; memory is put into a file for the while."""
        if plan.ordered is not None and n_workers > plan.ordered:
            raise BadArgument("optimize", "n_workers", got=n_workers, want="<= ordered", do="raise ordered")
        if not isinstance(self._storage, MemoryStorage):
            self._run_pool(self._storage, plan, n_workers, watch)
            return
        direct, ledger = self._channel, self._channel.ledger
        with tempfile.TemporaryDirectory() as folder:
            storage = FileStorage(Path(folder) / "study.db")
            here = {"do": "beat", "by": direct.worker, "at": time.time(), "lease": 1e18}
            notes = {"do": "attrs", "attrs": ledger.user_attrs}
            storage.append(self._identity, [here, notes, *(ledger.entry(n) for n in range(ledger.size))])
            self._channel = Shared(storage, self._identity, self._header)
            try:
                self._run_pool(storage, plan, n_workers, watch)
            finally:
                self._channel.sync()
                self._channel.close()
                ledger.become(self._channel.ledger)
                self._channel, self._histories = direct, {}
                storage.close()

    def _run_pool(self, storage: Storage, plan: _Plan, n_workers: int, watch: _Watch) -> None:
        def allow() -> bool:
            self._channel.sync()
            go = plan.more(self)
            plan.started += go
            return go

        def done(number: int, counted: bool) -> None:
            plan.started -= not counted
            self._channel.sync()
            watch(number)

        def lost(worker: str | None) -> None:
            if worker is not None:
                plan.started -= 1
                self._channel.commit({"do": "orphan", "worker": worker, "at": time.time()})

        share = dataclasses.replace(plan, n_trials=None, stop=None)
        work = _WorkerTask(storage, self._identity, self._header, self.sampler, self.pruner, share)
        Pool(work, n_workers, allow, done, lost).run()


class _Exhausted(NestorError):
    """The sampler has no more points."""


@dataclasses.dataclass
class _Plan:
    """What a call of `optimize` is to do."""

    objective: Objective
    n_trials: int | None
    stop: float | None
    catch: tuple[type[Exception], ...]
    ordered: int | None
    started: int = 0

    def more(self, study: Study) -> bool:
        """Whether another trial may begin."""
        late = self.stop is not None and time.monotonic() >= self.stop
        return not late and (self.n_trials is None or self.started < self.n_trials)


@dataclasses.dataclass
class _WorkerTask:
    """What a worker process does; it opens the storage anew."""

    storage: Storage
    identity: str
    header: dict[str, Any]
    sampler: Sampler
    pruner: Pruner | None
    plan: _Plan

    def __call__(
        self, introduce: Callable[[str], None], leave: Callable[[], bool], done: Callable[..., None]
    ) -> None:
        """Run a trial each time that there is leave."""
        study = Study(self.storage, self.identity, self.header, self.sampler, self.pruner)
        introduce(study._channel.worker)
        while leave():
            try:
                done(*study._run_one(self.plan))
            except _Exhausted:
                return


class _Watch:
    """Calls the callbacks and moves the progress bar."""

    def __init__(
        self, study: Study, callbacks: Sequence[Callable[..., Any]], total: int | None, progress: bool
    ):
        self._study, self._callbacks, self._bar = study, callbacks, None
        if progress:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="trial", dynamic_ncols=True)

    def __call__(self, number: int) -> None:
        study = self._study
        if self._bar is not None:
            if len(study.directions) == 1 and len(study._feasible(study._channel.ledger)):
                self._bar.set_postfix_str(f"best {study.best_value:.6g}", refresh=False)
            self._bar.update(1)
        for callback in self._callbacks:
            callback(study, study._channel.ledger.trial(number))

    def close(self) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.close()


def entry_of(trial: FrozenTrial, header: dict[str, Any]) -> dict[str, Any]:
    """A record as the entry that adds it."""
    scratch = Ledger({**header, "directions": header["directions"]})
    scratch.size = 0
    number = scratch._append_row(trial.state)
    for name, value in trial.params.items():
        domain = trial.domains[name]
        stored = np.asarray(value, float) if hasattr(domain, "shape") else domain.encode(value)
        scratch.set_param(number, name, domain, stored)
    entry = scratch.entry(number)
    more = {
        "values": trial.values,
        "reports": {str(step): value for step, value in trial.reports.items()},
        "attrs": dict(trial.user_attrs),
        "constraints": trial.constraints,
        "gradient": trial.gradient,
        "error": trial.error,
        "started": trial.started,
        "at": trial.ended,
        "attempt": trial.attempt,
    }
    return {**entry, **{key: value for key, value in more.items() if value not in (None, {}, ())}}
