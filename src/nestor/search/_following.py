"""Looking on: studies that others write, read without writing, and what changed in them since one looked last."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from nestor.errors import BadArgument, NestorError
from nestor.search._channels import Shared
from nestor.search._register import Register
from nestor.search._samplers import RandomSampler
from nestor.search._storages import Entry, MemoryStorage, Storage, storage_at
from nestor.search._study import Study

_FIRST = 64


class Follower:
    """The studies of a storage, for one who only looks on: nothing here writes to it.

    A study is read once; after that only what was added to its log is. Safe to use from several threads.

    Args:
        storage: a file, a URL or an object with the two verbs of `Storage`; see `create_study`. Not
            `MemoryStorage`, which has no log.

    Raises:
        BadArgument: the storage is in memory, or is none, or there is no such file.

    >>> import pathlib, tempfile
    >>> from nestor import search
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "study.db"
    >>> study = search.create_study(storage=path, study_name="mine", sampler=search.RandomSampler(seed=0))
    >>> follower = search.Follower(path)
    >>> follower.names()
    ['mine']
    >>> followed = follower.study("mine")
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    >>> place, changed = followed.changes(after=0)
    >>> changed
    [0, 1, 2]
    >>> followed.changes(after=place)[1]
    []
    """

    def __init__(self, storage: Any):
        self._register = Register(storage_at(storage, "Follower", reading=True))
        if isinstance(self._register.storage, MemoryStorage):
            raise BadArgument(
                *("Follower", "storage"),
                got=storage,
                want="one that other processes can read",
                do="create the study with storage='study.db', and pass that",
            )
        self._lock = threading.RLock()
        self._studies: dict[str, FollowedStudy] = {}

    def headers(self) -> dict[str, dict[str, Any]]:
        """Name to what was written down when a study was created: ``directions``, and ``created`` in seconds."""
        with self._lock:
            found = self._register.studies().values()
            known = {header["id"] for header in found}
            self._studies = {key: study for key, study in self._studies.items() if key in known}
            return {header["name"]: dict(header) for header in found}

    def names(self) -> list[str]:
        """The names of the studies, in the order in which they were created."""
        return list(self.headers())

    def study(self, name: str) -> FollowedStudy:
        """One study; a NestorError where there is none of this name (any more)."""
        header = self.headers().get(name)
        if header is None:
            raise NestorError(f"There is no study {name!r} here.\nDo this: take one of {self.names()}")
        with self._lock:
            if header["id"] not in self._studies:
                self._studies[header["id"]] = FollowedStudy(self._register.storage, header)
            return self._studies[header["id"]]


class FollowedStudy:
    """A study that others write. Made by `Follower.study`.

    Attributes:
        study: the `Study`; whatever writes raises.
        identity: what tells it from a later study of the same name.
        lock: hold it while you read from ``study`` when several threads look on.

    >>> import pathlib, tempfile
    >>> from nestor import search
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "study.db"
    >>> search.create_study(storage=path, study_name="mine").enqueue_trial({"x": 1.0})
    >>> followed = search.Follower(path).study("mine")
    >>> _ = followed.changes(after=0)
    >>> followed.study.trials[0].state.name
    'WAITING'
    """

    def __init__(self, storage: Storage, header: dict[str, Any]):
        self.identity: str = header["id"]
        self._channel = _Watching(storage, header["id"], dict(header))
        self.lock = self._channel.lock
        self.study = Study(storage, header["id"], dict(header), RandomSampler(seed=0), None, self._channel)

    def changes(self, after: int) -> tuple[int, list[int]]:
        """Read on: the place where the log ends now, and the numbers of the trials that changed after a place.

        The trial whose last change is oldest comes first.

        Args:
            after: a place that an earlier call returned; 0 for all trials.
        """
        with self.lock:
            self._channel.sync()
            touched = self._channel.touched[: self._channel.ledger.size]
            numbers = np.flatnonzero(touched > after)
            return self._channel.last, numbers[np.argsort(touched[numbers], kind="stable")].tolist()

    def place_of(self, number: int) -> int:
        """The place in the log of the last change of a trial."""
        return int(self._channel.touched[number])


class _Watching(Shared):
    """A channel that reads, and remembers at which place of the log each trial changed last."""

    def __init__(self, storage: Storage, study: str, header: dict[str, Any]):
        self.touched = np.zeros(_FIRST, np.int64)
        self.last = 0
        super().__init__(storage, study, header)

    def commit(self, *entries: Entry) -> list[Any]:
        """Refuses: one who looks on does not write."""
        raise NestorError("This study is only looked at.\nDo this: load_study(...), which may write")

    def suggest(self, number: int, name: str, domain: Any, stored: Any, attempt: int | None = None) -> None:
        """Refuses as well."""
        self.commit()

    def _follow(self, last: int) -> list[Any]:
        ledger = self.ledger
        for place, entry in self.storage.read(self.study, self._place):
            orphans = [n for n, worker in ledger.owners.items() if worker == entry.get("worker")]
            outcome = ledger.apply(entry) if entry["do"] != "checkpoint" else None
            self._place = self.last = place
            if ledger.size > len(self.touched):
                more = np.zeros(max(ledger.size, 2 * len(self.touched)) - len(self.touched), np.int64)
                self.touched = np.concatenate([self.touched, more])
            for number in _touched_by(entry, outcome, orphans):
                self.touched[number] = place
        return []


def _touched_by(entry: Entry, outcome: Any, orphans: list[int]) -> list[int]:
    """The trials that an entry changed."""
    if entry["do"] == "ask":
        return outcome or []
    if entry["do"] in ("add", "enqueue"):
        return [outcome]
    if entry["do"] == "orphan":
        return orphans
    if entry["do"] == "fork":
        return [] if outcome is None else [entry["number"], outcome]
    return [entry["number"]] if "number" in entry else []
