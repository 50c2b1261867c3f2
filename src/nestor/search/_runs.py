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

import numpy as np

from nestor.errors import BadArgument, NestorError
from nestor.search._channels import Direct, Shared
from nestor.search._executors import Executor
from nestor.search._interrupts import shield
from nestor.search._ledger import Ledger
from nestor.search._pool import Pool
from nestor.search._records import TrialPruned, TrialState
from nestor.search._register import REGISTER
from nestor.search._storages import FileStorage, MemoryStorage, Storage
from nestor.search._trial import Trial, give_back

_POLL = 0.5  # seconds between looks at what others do, at most


class Study(Protocol):
    """What is needed here of a study."""

    sampler: Any
    pruner: Any
    storage: Storage
    _identity: str
    _header: dict[str, Any]
    _channel: Direct | Shared
    _histories: dict[Any, Any]
    _stopped: bool
    _claim: Callable[..., int | None]
    _asking: Callable[..., dict[str, Any]]
    _trial: Callable[..., Trial]
    _best: Callable[[], float | None]


class Exhausted(NestorError):
    """There are no more trials to run."""


@dataclasses.dataclass
class Plan:
    """What a call of `optimize` is to do.

    Attributes:
        until: the time, by the clock of the storage, after which no more trials begin, or None.
        call: the name under which the log counts the trials of this call; "" where it need not.
        caller: who called, where others do the work.
    """

    objective: Callable[[Any], Any]
    n_trials: int | None
    total: int | None
    until: float | None
    catch: tuple[type[Exception], ...]
    ordered: int | None
    batch: int | None
    call: str = ""
    caller: str = ""

    def late(self, study: Study) -> bool:
        """Whether the time is over."""
        return self.until is not None and study._channel.now() >= self.until

    def over(self, study: Study) -> bool:
        """Whether no more trials begin: for the time, or because somebody said so."""
        return self.late(study) or self.call in study._channel.ledger.stopped

    def results(self, trials: list[Trial]) -> list[Any]:
        """What the objective returns for some trials: a batch, or one alone."""
        if self.batch is None:
            return [self.objective(trials[0])]
        results = list(self.objective(trials))
        if len(results) != len(trials):
            want, got = (
                f"a list of {len(trials)}, one a trial",
                f"a function that returned {len(results)} values",
            )
            raise BadArgument("optimize", "objective", got=got, want=want, do="return it")
        return results


def alone(study: Study, plan: Plan, watch: Callable[[int], Any]) -> None:
    """Trials one after another, or batch after batch, in this process."""
    started = 0
    while not (plan.late(study) or study._stopped) and (plan.n_trials is None or started < plan.n_trials):
        most = 1 if plan.batch is None else plan.batch
        most = most if plan.n_trials is None else min(most, plan.n_trials - started)
        for number, counted in ran(study, plan, most):
            started += counted
            if study._channel.ledger.is_over(number):  # else it waits to be promoted
                watch(number)


def ran(study: Study, plan: Plan, most: int = 1) -> list[tuple[int, bool]]:
    """Some trials from beginning to end; for each its number, and whether it was not merely promoted."""
    begun: list[tuple[Trial, bool]] = []
    try:
        _begin(study, plan, most, begun)
        trials = [trial for trial, _ in begun]
        try:
            results = plan.results(trials)
            entries = [_ending(*pair) for pair in zip(trials, results, strict=True)]
        except Exception as error:
            study._channel.commit(*(_ending(trial, error) for trial in trials))
            if not isinstance(error, (TrialPruned, *plan.catch)):
                raise
        else:
            study._channel.commit(*entries)
    except BaseException:  # Ctrl-C, sys.exit, a storage that is away
        with contextlib.suppress(Exception):
            give_back([trial for trial, _ in begun])
        raise
    return [(trial.number, counted) for trial, counted in begun]


def _ending(trial: Trial, result: Any) -> dict[str, Any]:
    """The entry that ends a trial with what its objective returned or raised."""
    if isinstance(result, TrialPruned):
        return trial._ended(state=trial.ended_as)
    if isinstance(result, Exception):
        text = "".join(traceback.format_exception_only(result)).strip()
        return trial._ended(state=TrialState.FAILED, error=text)
    return trial._ended(result, returned=True)


def _limit(study: Study, plan: Plan) -> int | None:
    """How many trials the study may have, or None."""
    limits = [plan.total, getattr(study.sampler, "limit", None)]
    return min((limit for limit in limits if limit is not None), default=None)


def _begin(study: Study, plan: Plan, most: int, begun: list[tuple[Trial, bool]]) -> None:
    """Put the next trials into a list; it waits for those that they learn from, or that it may have to take over."""
    pause = 0.001
    while not begun:
        with shield, study._channel.lock:  # nobody's trial that has begun and is in no list
            longest = _next(study, plan, most, begun)
        if not begun and longest > 0:
            time.sleep(pause)
            pause = min(2 * pause, longest)


def _next(study: Study, plan: Plan, most: int, begun: list[tuple[Trial, bool]]) -> float:
    """Put the next trials into a list, with whether they were not merely promoted; how long to wait for one."""
    study._channel.sync()
    ledger, lag = study._channel.ledger, plan.ordered
    called = {"call": plan.call} if plan.call else {}
    spent = bool(plan.call) and plan.n_trials is not None and ledger.called(plan.call) >= plan.n_trials
    within = plan.call if spent else None
    while len(begun) < most and (claimed := study._claim(called, within=within)) is not None:
        begun.append((study._trial(claimed, lag), not ledger.reports.get(claimed)))
    if len(begun) == most:
        return 0.0
    mine = {plan.caller, study._channel.worker}  # of theirs nothing runs: it was asked for, and not told
    populated = getattr(study.pruner, "full", None)
    if populated is not None and populated(ledger):
        if not begun and (plan.over(study) or not (ledger.under_way(but=mine) or ledger.paused)):
            raise Exhausted("the population has come to its end")
        return 0.05
    limit, size = _limit(study, plan), ledger.size
    if spent or (limit is not None and size >= limit):
        others = (plan.call or plan.total) and ledger.under_way(within, but=mine)
        if not begun and (not others or plan.over(study)):
            raise Exhausted("there are no more trials to run")
        return _POLL
    if lag is not None and _must_wait(study, lag, mine):
        return 0.05
    conditions = {"limit": limit, "most": plan.n_trials if plan.call else None}
    conditions = {name: value for name, value in conditions.items() if value is not None}
    room = most - len(begun)
    room = room if limit is None else min(room, limit - size)
    asking = study._asking(room, None if lag is None else size)
    numbers = study._channel.commit({**asking, **called, **conditions})[0]
    begun += [(study._trial(number, lag), True) for number in numbers or ()]
    return 0.0


def _must_wait(study: Study, lag: int, mine: set[str]) -> bool:
    """In the ordered mode: whether a trial that the next one learns from is under way."""
    ledger = study._channel.ledger
    before = np.flatnonzero(ledger.state[: max(ledger.size - lag + 1, 0)] < TrialState.PAUSED)
    for number in before.tolist():
        if ledger.owners.get(number) in mine:
            raise NestorError(
                f"The ordered mode waits for trial {number}, which this program asked for and has not told.\n"
                f"Do this: study.tell({number}, ...) first"
            )
    return len(before) > 0


# --- many workers --------------------------------------------------------------------------------


def together(
    study: Study, plan: Plan, n_workers: int, executor: Executor | None, watch: Callable[[int], Any]
) -> None:
    """Trials by several workers, over a shared storage; memory is put into a file for the while."""
    if plan.ordered is not None and n_workers > plan.ordered:
        raise BadArgument("optimize", "n_workers", got=n_workers, want="<= ordered", do="raise ordered")
    plan = dataclasses.replace(plan, call=uuid.uuid4().hex[:12], caller=study._channel.worker)
    with _shared(study) as storage:
        follow = _Follower(study, plan.call, watch)
        if executor is None:
            _by_processes(study, storage, plan, n_workers, follow)
        else:
            _by_executor(study, storage, plan, n_workers, executor, follow)


@dataclasses.dataclass
class Work:
    """What a worker does; it opens the storage anew, wherever it is."""

    study: tuple[Callable[..., Study], tuple[Any, ...]]  # what makes it, and of what
    plan: Plan

    def __call__(
        self, introduce: Callable[[str], None], leave: Callable[[], bool], done: Callable[..., None]
    ) -> None:
        """Run a trial each time that there is leave."""
        make, parts = self.study
        study = make(*parts)
        introduce(study._channel.worker)
        try:
            while leave() and not self.plan.over(study):
                done(*ran(study, self.plan)[0])
        except Exhausted:
            return
        finally:
            study._channel.flush()
            study._channel.close()

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
        return not (plan.late(study) or study._stopped)

    def lost(worker: str | None) -> None:
        if worker is not None:
            study._channel.commit({"do": "orphan", "worker": worker, "at": study._channel.now()})

    work = Work(_parts(study, storage), dataclasses.replace(plan, until=None))
    try:
        Pool(work, n_workers, allow, lambda number, counted: follow(), lost).run()
    finally:
        follow()


def _by_executor(
    study: Study, storage: Storage, plan: Plan, n_workers: int, executor: Executor, follow: _Follower
) -> None:
    work = Work(_parts(study, storage), plan)
    working = [executor.submit(work.by_itself) for _ in range(n_workers)]
    try:
        while working:
            follow()
            if study._stopped:
                study._channel.commit({"do": "stop", "call": plan.call})
            for worker in [worker for worker in working if worker.done()]:
                working.remove(worker)
                worker.result()  # raises what it raised, at once
            time.sleep(0.05)
    except BaseException:
        study._channel.commit({"do": "stop", "call": plan.call})
        for worker in working:
            worker.cancel()
        while not all(
            worker.done() for worker in working
        ):  # a thread ends its trial; the study must be there
            time.sleep(0.05)
        raise
    finally:
        follow()


def _parts(study: Study, storage: Storage) -> tuple[Callable[..., Study], tuple[Any, ...]]:
    """What makes the study where a worker is, over a storage that it can open there."""
    return type(study), (storage, study._identity, study._header, study.sampler, study.pruner)


@contextlib.contextmanager
def _shared(study: Study) -> Iterator[Storage]:
    """A storage that others can open; the study works on it until the end of the block."""
    if not isinstance(study.storage, MemoryStorage):
        yield study.storage
        return
    memory, direct, ledger = study.storage, study._channel, study._channel.ledger
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
