"""How trials are run: one after another, in batches, by processes of this machine, or by an executor."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from nestor.errors import BadArgument, NestorError
from nestor.search._channels import Direct, Shared
from nestor.search._executors import Executor
from nestor.search._interrupts import shield
from nestor.search._ledger import Ledger
from nestor.search._pool import Pool
from nestor.search._records import TrialPruned, TrialState
from nestor.search._register import REGISTER
from nestor.search._storages import FileStorage, MemoryStorage, Storage
from nestor.search._trial import Trial

_POLL = 0.5  # seconds between looks at what others do, at most


class Study(Protocol):
    """What is needed here of a study."""

    sampler: Any
    pruner: Any
    _storage: Storage
    _identity: str
    _header: dict[str, Any]
    _channel: Direct | Shared
    _histories: dict[Any, Any]
    _stopped: bool
    ask: Callable[..., Any]
    _claim: Callable[..., int | None]
    _asking: Callable[..., dict[str, Any]]
    _trial: Callable[..., Trial]
    _telling: Callable[..., dict[str, Any]]
    _opener: Callable[[Storage], Callable[[], Any]]
    _best: Callable[[], float | None]


class Exhausted(NestorError):
    """There are no more trials to run."""


@dataclasses.dataclass
class Plan:
    """What a call of `optimize` is to do.

    Attributes:
        until: the time (seconds since the epoch) after which no more trials begin, or None.
        call: the name under which the log counts the trials of this call; "" where it need not.
    """

    objective: Callable[[Any], Any]
    n_trials: int | None
    total: int | None
    until: float | None
    catch: tuple[type[Exception], ...]
    ordered: int | None
    batch: int | None
    call: str = ""

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self.until is not None and time.time() >= self.until


def alone(study: Study, plan: Plan, watch: Callable[[int], Any]) -> None:
    """Trials one after another, or batch after batch, in this process."""
    started = 0
    while not (plan.late or study._stopped) and (plan.n_trials is None or started < plan.n_trials):
        if plan.batch is None:
            number, counted = one(study, plan)
            started += counted
            watch(number)
        else:
            most = plan.batch if plan.n_trials is None else min(plan.batch, plan.n_trials - started)
            for number, counted in several(study, plan, most):
                started += counted
                watch(number)


def one(study: Study, plan: Plan) -> tuple[int, bool]:
    """One trial from beginning to end; its number, and whether it was not merely promoted."""
    begun: list[tuple[Trial, bool]] = []
    try:
        _begin(study, plan, begun)
        trial, counted = begun[0]
        try:
            entry = _ending(study, trial, plan.objective(trial))
        except TrialPruned as pruned:
            entry = _ending(study, trial, pruned)
        except Exception as error:
            study._channel.commit(_ending(study, trial, error))
            if not isinstance(error, plan.catch):
                raise
            return trial.number, counted
        study._channel.commit(entry)
        return trial.number, counted
    except KeyboardInterrupt:
        _give_back(study, [trial for trial, _ in begun])
        raise


def several(study: Study, plan: Plan, most: int) -> list[tuple[int, bool]]:
    """Trials that the objective is given as one list; for each its number, and whether it was not merely promoted."""
    limit = _limit(study, plan)
    study._channel.sync()
    ledger = study._channel.ledger
    if limit is not None:
        most = min(most, limit - ledger.size + len(ledger.waiting))
    if most < 1:
        raise Exhausted("there are no more trials to run")
    trials: list[Trial] = []
    try:
        with shield:
            trials += study.ask(most)
        ran = [(trial.number, not ledger.reports.get(trial.number)) for trial in trials]
        try:
            results = list(plan.objective(trials))
            if len(results) != most:
                want = f"a list of {most}, one a trial"
                got = f"{len(results)} values"
                raise BadArgument("optimize", "objective", got=got, want=want, do="return it")
            entries = [_ending(study, *pair) for pair in zip(trials, results, strict=True)]
        except Exception as error:
            study._channel.commit(*(_ending(study, trial, error) for trial in trials))
            if not isinstance(error, plan.catch):
                raise
            return ran
        study._channel.commit(*entries)
        return ran
    except KeyboardInterrupt:
        _give_back(study, trials)
        raise


def _ending(study: Study, trial: Trial, result: Any) -> dict[str, Any]:
    """The entry that ends a trial with what its objective returned or raised."""
    if isinstance(result, TrialPruned):
        return study._telling(trial, None, trial.ended_as, None, None)
    if isinstance(result, Exception):
        text = "".join(traceback.format_exception_only(result)).strip()
        return study._telling(trial, None, TrialState.FAILED, None, None, text)
    return study._telling(trial, result, None, None, None)


def _give_back(study: Study, trials: Sequence[Trial]) -> None:
    """Let others run trials that were interrupted; one that has ended after all stays as it is."""
    worker = study._channel.worker
    if trials:
        study._channel.commit(*({"do": "release", "number": trial.number, "by": worker} for trial in trials))


def _limit(study: Study, plan: Plan) -> int | None:
    """How many trials the study may have, or None."""
    limits = [plan.total, getattr(study.sampler, "limit", None)]
    return min((limit for limit in limits if limit is not None), default=None)


def _begin(study: Study, plan: Plan, begun: list[tuple[Trial, bool]]) -> None:
    """Put the next trial into a list; it waits for those that it learns from, or that it may have to take over."""
    pause = 0.001
    while not begun:
        with shield:  # nobody's trial that has begun and is in no list
            found, most = _next(study, plan)
            if found is not None:
                begun.append(found)
        if found is None and most > 0:
            time.sleep(pause)
            pause = min(2 * pause, most)


def _next(study: Study, plan: Plan) -> tuple[tuple[Trial, bool] | None, float]:
    """The next trial, and whether it was not merely promoted; None, and how long to wait at most, if not yet."""
    lag = plan.ordered
    study._channel.sync()
    ledger = study._channel.ledger
    called = {"call": plan.call} if plan.call else {}
    spent = bool(plan.call) and plan.n_trials is not None and ledger.called(plan.call) >= plan.n_trials
    claimed = study._claim(called, within=plan.call if spent else None)
    if claimed is not None:
        return (study._trial(claimed, lag), not ledger.reports.get(claimed)), 0.0
    populated = getattr(study.pruner, "full", None)
    if populated is not None and populated(ledger):
        if plan.late or plan.call in ledger.stopped or not (ledger.owners or ledger.paused):
            raise Exhausted("the population has come to its end")
        return None, 0.05
    limit, size = _limit(study, plan), ledger.size
    if spent or (limit is not None and size >= limit):
        under_way = ledger.under_way(plan.call if spent else None)
        if not under_way or not (plan.call or plan.total) or plan.late or plan.call in ledger.stopped:
            raise Exhausted("there are no more trials to run")
        return None, _POLL
    if lag is not None and bool((ledger.state[: max(size - lag + 1, 0)] < TrialState.PAUSED).any()):
        return None, 0.05
    conditions = {"limit": limit, "most": plan.n_trials if plan.call else None}
    conditions = {name: value for name, value in conditions.items() if value is not None}
    asking = study._asking(1, None if lag is None else size)
    numbers = study._channel.commit({**asking, **called, **conditions})[0]
    return (None, 0.0) if numbers is None else ((study._trial(numbers[0], lag), True), 0.0)


# --- many workers --------------------------------------------------------------------------------


def together(
    study: Study, plan: Plan, n_workers: int, executor: Executor | None, watch: Callable[[int], Any]
) -> None:
    """Trials by several workers, over a shared storage; memory is put into a file for the while."""
    if plan.ordered is not None and n_workers > plan.ordered:
        raise BadArgument("optimize", "n_workers", got=n_workers, want="<= ordered", do="raise ordered")
    plan = dataclasses.replace(plan, call=uuid.uuid4().hex[:12])
    with _shared(study) as storage:
        follow = _Follower(study, plan.call, watch)
        if executor is None:
            _by_processes(study, storage, plan, n_workers, follow)
        else:
            _by_executor(study, storage, plan, n_workers, executor, follow)


@dataclasses.dataclass
class Work:
    """What a worker does; it opens the storage anew, wherever it is."""

    study: Callable[[], Study]
    plan: Plan

    def __call__(
        self, introduce: Callable[[str], None], leave: Callable[[], bool], done: Callable[..., None]
    ) -> None:
        """Run a trial each time that there is leave."""
        study = self.study()
        introduce(study._channel.worker)
        try:
            while leave() and not self.stopped(study):
                done(*one(study, self.plan))
        except Exhausted:
            return
        finally:
            study._channel.flush()
            study._channel.close()

    def stopped(self, study: Study) -> bool:
        """Whether it is time to go home."""
        return self.plan.late or self.plan.call in study._channel.ledger.stopped

    def by_itself(self) -> str:
        """Run trials until there are no more, where nobody gives leave; who it was."""
        names: list[str] = []
        self(names.append, lambda: True, lambda *done: None)
        return names[0]


class _Follower:
    """Calls `watch` for each trial of a call that has ended, in the order in which they ended."""

    def __init__(self, study: Study, call: str, watch: Callable[[int], Any]):
        self._study, self._call, self._watch = study, call, watch
        self._seen = study._channel.ledger.finished

    def __call__(self) -> None:
        self._study._channel.sync()
        ledger = self._study._channel.ledger
        while self._seen < ledger.finished:
            number = int(ledger.order[self._seen])
            self._seen += 1
            if ledger.is_of(number, self._call):
                self._watch(number)


def _by_processes(study: Study, storage: Storage, plan: Plan, n_workers: int, follow: _Follower) -> None:
    def allow() -> bool:
        follow()
        return not (plan.late or study._stopped)

    def lost(worker: str | None) -> None:
        if worker is not None:
            study._channel.commit({"do": "orphan", "worker": worker, "at": study._channel.now()})

    work = Work(study._opener(storage), dataclasses.replace(plan, until=None))
    try:
        Pool(work, n_workers, allow, lambda number, counted: follow(), lost).run()
    finally:
        follow()


def _by_executor(
    study: Study, storage: Storage, plan: Plan, n_workers: int, executor: Executor, follow: _Follower
) -> None:
    work = Work(study._opener(storage), plan)
    workers = [executor.submit(work.by_itself) for _ in range(n_workers)]
    try:
        while not all(worker.done() for worker in workers):
            follow()
            if study._stopped:
                study._channel.commit({"do": "stop", "call": plan.call})
            time.sleep(0.05)
        for worker in workers:
            worker.result()
    except BaseException:
        study._channel.commit({"do": "stop", "call": plan.call})
        for worker in workers:
            worker.cancel()
        raise
    finally:
        follow()


@contextlib.contextmanager
def _shared(study: Study) -> Iterator[Storage]:
    """A storage that others can open; the study works on it until the end of the block."""
    if not isinstance(study._storage, MemoryStorage):
        yield study._storage
        return
    memory, direct, ledger = study._storage, study._channel, study._channel.ledger
    with tempfile.TemporaryDirectory() as folder:
        storage = FileStorage(Path(folder) / "study.db")
        here = {"do": "beat", "by": direct.worker, "at": time.time(), "lease": 1e18}
        notes = {"do": "attrs", "attrs": ledger.user_attrs, "system": ledger.system_attrs}
        storage.append(study._identity, [here, notes, *(ledger.entry(n) for n in range(ledger.size))])
        study._channel = Shared(storage, study._identity, study._header)
        try:
            yield storage
        finally:
            study._channel.sync()
            study._channel.close()
            ledger.become(study._channel.ledger)
            study._channel, study._histories = direct, {}
            _keep_nested(storage, memory)
            storage.close()


def _keep_nested(storage: Storage, memory: MemoryStorage) -> None:
    """Studies that were made in the meantime, inside trials, come into memory too."""
    for _, entry in storage.read(REGISTER, 0):
        memory.append(REGISTER, [entry])
        if entry["do"] == "create":
            inner = memory.ledgers[entry["id"]] = Ledger(entry)
            for _, change in storage.read(entry["id"], 0):
                inner.apply(change)


class Watch:
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
            best = study._best()
            if best is not None:
                self._bar.set_postfix_str(f"best {best:.6g}", refresh=False)
            self._bar.update(1)
        for callback in self._callbacks:
            callback(study, study._channel.ledger.trial(number))

    def close(self) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.close()
