"""How a study speaks to its storage: straight to the columns in memory, or through a log that others write too."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Sequence
from typing import Any

from nestor.search._forks import tell_when_forked
from nestor.search._interrupts import shield
from nestor.search._ledger import Ledger, pack
from nestor.search._spaces import Array, Domain
from nestor.search._storages import HERE, Entry, MemoryStorage, Storage

_SOON = 0.5  # seconds after which others see what a running trial suggested


class Direct:
    """Entries go straight into the columns, which all studies of this process share.

    Attributes:
        ledger: the columns.
        worker: who asks here.
        lease: seconds that a sign of life is good for.
        lock: held by the thread that changes the columns, or must see them at rest; it may be taken again.
    """

    shared = False

    def __init__(self, storage: MemoryStorage, study: str, ledger: Ledger):
        self.storage, self.study = storage, study
        self.ledger = ledger
        self.worker = HERE
        self.lease = float("inf")
        self.lock = storage.lock

    def commit(self, *entries: Entry) -> list[Any]:
        """Take entries into account; what came of each."""
        with shield, self.lock:
            return [self.ledger.apply(entry) for entry in entries]

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sync(self) -> None:
        """Nothing comes from elsewhere."""

    def suggest(
        self, number: int, name: str, domain: Domain, stored: Any, attempt: int | None = None
    ) -> None:
        """Write down a parameter of a running trial; one that has ended stays as it is."""
        with self.lock:
            if self.ledger.runs(number, attempt):
                self.ledger.set_param(number, name, domain, stored)

    def suggest_many(self, first: int, name: str, domain: Domain, stored: Sequence[float]) -> None:
        """Write down a parameter of trials one after another."""
        self.ledger.set_params(first, name, domain, stored)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""


class Shared:
    """Entries go into the log of a storage; the columns follow what the log says.

    Any number of threads may use it, one at a time; a process that is forked goes on as a worker of its own.

    Attributes:
        ledger, worker, lease, lock: as those of `Direct`.
    """

    shared = True

    def __init__(self, storage: Storage, study: str, header: dict[str, Any]):
        self.storage, self.study = storage, study
        self.ledger = Ledger(header)
        self.lease = float(getattr(storage, "lease", 60.0))
        clock = getattr(storage, "now", None)
        self._ahead = 0.0 if clock is None else clock() - time.time()
        self._place = 0
        self._unsaid: dict[int, tuple[int, dict[str, Any]]] = {}  # attempt and parameters, not in the log yet
        self._begin()
        tell_when_forked(self)
        self.sync()

    def _begin(self) -> None:
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.lock = threading.RLock()
        self._saying = threading.Lock()  # nobody thinks while holding this one: signs of life need it
        self._pulse: threading.Thread | None = None
        self._closed = threading.Event()

    def forked(self) -> None:
        """This process is a new worker: what the parent has not said yet, the parent will say."""
        self._unsaid = {}
        self._begin()

    def commit(self, *entries: Entry) -> list[Any]:
        """Append entries in one transaction, and read on; what came of each."""
        with shield, self.lock:
            self._start_pulse(entries)
            last = self._append(entries)
            return self._follow(last)[-len(entries) :]

    def _append(self, entries: Sequence[Entry]) -> int:
        """Append entries, and what the log does not hold yet: with the end of a trial, or else before them all."""
        with self._saying:
            unsaid = dict(self._unsaid)
            whole = []
            for entry in entries:
                _, params = unsaid.pop(entry["number"], (0, {})) if entry["do"] == "tell" else (0, {})
                more = {"params": {**as_json(params), **entry.get("params", {})}} if params else {}
                whole.append({**entry, **more})
            sets = [
                {"do": "set", "number": number, "attempt": attempt, "params": as_json(params)}
                for number, (attempt, params) in unsaid.items()
            ]
            last = self.storage.append(self.study, [*sets, *whole])
            self._unsaid = {}  # not before: what failed has said nothing
        return last

    def now(self) -> float:
        """Seconds since the epoch by the clock of the storage, so that leases hold between machines."""
        return time.time() + self._ahead

    def sync(self) -> None:
        """Read what others have written."""
        with shield, self.lock:
            self._follow(0)

    def suggest(
        self, number: int, name: str, domain: Domain, stored: Any, attempt: int | None = None
    ) -> None:
        """Write down a parameter: in the columns now, in the log with the next change of state, or soon.

        Nothing is written of a trial that has ended, or of an attempt that another worker has taken over.
        """
        with self.lock:
            if self.ledger.runs(number, attempt):
                self.ledger.set_param(number, name, domain, stored)
                with self._saying:
                    self._unsay(number)[name] = (domain, stored)

    def _unsay(self, number: int) -> dict[str, Any]:
        """What the log does not hold yet of the present attempt at a trial."""
        attempt = int(self.ledger.attempts[number])
        before, params = self._unsaid.setdefault(number, (attempt, {}))
        if before != attempt:
            params = {}
            self._unsaid[number] = attempt, params
        return params

    def suggest_many(self, first: int, name: str, domain: Domain, stored: Sequence[float]) -> None:
        """The same for a parameter of trials one after another."""
        self.ledger.set_params(first, name, domain, stored)
        with self._saying:
            for number, one in enumerate(stored, first):
                self._unsay(number)[name] = (domain, one)

    def flush(self) -> None:
        """Tell the log what it does not hold yet."""
        if self._unsaid:
            self._append(())

    def close(self) -> None:
        """End the signs of life."""
        self._closed.set()

    def _follow(self, last: int) -> list[Any]:
        """Apply what the log has to add; the outcomes up to the place `last`."""
        outcomes, lost = [], False
        for place, entry in self.storage.read(self.study, self._place):
            mine = self.ledger.owners.get(entry.get("number", -1)) == self.worker
            lost |= mine and entry["do"] == "claim" and entry["by"] != self.worker
            outcome = self.ledger.apply(entry)
            self._place = place
            if place <= last:
                outcomes.append(outcome)
        if lost:
            self._read_again()
        return outcomes

    def _read_again(self) -> None:
        """Another has taken over a trial of this worker: forget what was written into its columns and not heard."""
        ledger = Ledger(self.ledger.header)
        for place, entry in self.storage.read(self.study, 0):
            if place <= self._place:
                ledger.apply(entry)
        for number, (attempt, params) in self._unsaid.items():
            for name, (domain, stored) in params.items() if ledger.runs(number, attempt) else ():
                ledger.set_param(number, name, domain, stored)
        self.ledger.become(ledger)

    def _start_pulse(self, entries: Sequence[Entry]) -> None:
        if self._pulse is None and any(entry["do"] in ("ask", "claim", "beat") for entry in entries):
            self._pulse = threading.Thread(
                target=_beat, args=(weakref.ref(self), self._closed, self.lease), daemon=True
            )
            self._pulse.start()


def _beat(channel_of: weakref.ref[Shared], closed: threading.Event, lease: float) -> None:
    """Give signs of life while trials run here; it writes to the log alone, never to the columns."""
    heard = time.monotonic()
    while not closed.wait(min(_SOON, lease / 6)):
        due = time.monotonic() - heard > lease / 3
        if due:
            heard = time.monotonic()
        if not _beat_once(channel_of(), due):
            return


def _beat_once(channel: Shared | None, due: bool) -> bool:
    """One sign of life if it is due, and what others do not know yet; False when nobody needs it any more."""
    if channel is None:
        return False
    # When the storage is busy or away, the next one may come through.
    with contextlib.suppress(Exception):
        if due and channel.worker in list(channel.ledger.owners.values()):
            beat = {"do": "beat", "by": channel.worker, "at": channel.now(), "lease": channel.lease}
            channel.storage.append(channel.study, [beat])
        channel.flush()
    return True


def as_json(params: dict[str, Any]) -> dict[str, Any]:
    """Name to (domain, stored value), as an entry holds it."""
    return {
        name: [domain.as_json(), pack(stored) if isinstance(domain, Array) else stored]
        for name, (domain, stored) in params.items()
    }


def channel_to(storage: Storage, study: str, header: dict[str, Any]) -> Direct | Shared:
    """The channel to a study of a storage."""
    if isinstance(storage, MemoryStorage):
        if study not in storage.ledgers:
            storage.ledgers[study] = Ledger(header)
        return Direct(storage, study, storage.ledgers[study])
    return Shared(storage, study, header)
