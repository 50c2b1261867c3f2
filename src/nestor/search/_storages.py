"""Where studies are kept. A storage is a log with two verbs, `append` and `read`; everything else is built on those."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nestor.errors import BadArgument, NestorError
from nestor.search._forked import renewed_when_forked
from nestor.search._ledger import Ledger
from nestor.search._sql import DATABASES, SQLStorage, shown

SCHEMA = 1  # raise it with a line in _MIGRATIONS
_MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}  # version -> what makes it the next one

Entry = dict[str, Any]


@runtime_checkable
class Storage(Protocol):
    """What a storage must do: hold lists of entries (dictionaries that JSON can hold), one list a study.

    ``append`` adds entries in one transaction, all or none, and returns the place of the last; ``read`` returns
    what stands after a place, with places that only grow. Entries of several processes must stand in one order
    for all readers. A storage may also have ``lease`` (seconds, see `FileStorage`), ``drop(study)``, which removes
    the entries of a study that was deleted, and ``now()``, the one clock by which leases of several machines are told.

    >>> from nestor import search
    >>> class Listed:
    ...     def __init__(self):
    ...         self.rows = []
    ...     def append(self, study, entries):
    ...         self.rows += [(study, entry) for entry in entries]
    ...         return len(self.rows)
    ...     def read(self, study, after):
    ...         rows = enumerate(self.rows[after:], after + 1)
    ...         return [(place, entry) for place, (name, entry) in rows if name == study]
    >>> study = search.create_study(storage=Listed())
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    >>> len(study.trials)
    3
    """

    def append(self, study: str, entries: Sequence[Entry]) -> int:
        """Add entries to the list of a study, all or none; the place of the last one."""
        ...

    def read(self, study: str, after: int) -> list[tuple[int, Entry]]:
        """The entries of a study that stand after a place, each with its place."""
        ...


class MemoryStorage:
    """Studies in the memory of this process, as columns and nothing else: the default.

    >>> from nestor import search
    >>> storage = search.MemoryStorage()
    >>> study = search.create_study(storage=storage, study_name="first")
    >>> search.study_names(storage)
    ['first']
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, Entry]] = []  # of the register of studies alone
        self.ledgers: dict[str, Ledger] = {}

    def append(self, study: str, entries: Sequence[Entry]) -> int:
        """Add entries to the register."""
        self._rows += [(study, entry) for entry in entries]
        return len(self._rows)

    def read(self, study: str, after: int) -> list[tuple[int, Entry]]:
        """The entries of the register after a place."""
        rows = enumerate(self._rows[after:], after + 1)
        return [(place, entry) for place, (name, entry) in rows if name == study]

    def drop(self, study: str) -> None:
        """Forget what belongs to a study."""
        self.ledgers.pop(study, None)


class FileStorage:
    """Studies in one file, an append-only log in SQLite, for any number of processes of one machine.

    One transaction a change of state, in write-ahead mode. With ``sync="normal"`` what was told survives a killed
    process; with ``sync="full"`` a power cut as well, at the price of waiting for the disk. Not for network disks.

    Args:
        path: the file; it is made when it is not there.
        sync: ``"normal"`` or ``"full"``.
        lease: seconds after which a worker that gave no sign of life is taken for dead, and its trial is run
            again by another; a sign of life is given every third of it.

    >>> import tempfile, pathlib
    >>> from nestor import search
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "study.db"
    >>> study = search.create_study(storage=search.FileStorage(path), study_name="mine")
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    >>> len(search.load_study(study_name="mine", storage=f"sqlite:///{path}").trials)
    2
    """

    def __init__(self, path: str | os.PathLike[str], *, sync: str = "normal", lease: float = 60.0):
        if sync not in ("normal", "full"):
            raise BadArgument(
                "FileStorage", "sync", got=sync, want="'normal' or 'full'", do="pass one of these"
            )
        if not lease > 0:
            raise BadArgument("FileStorage", "lease", got=lease, want="positive seconds", do="pass 60.0")
        self.path, self.sync, self.lease = Path(path).absolute(), sync, float(lease)
        self.renew()
        renewed_when_forked(self)
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._open()

    def renew(self) -> None:
        """A lock that nobody holds; the next use opens the file again where the process is another one."""
        self._lock = threading.RLock()

    def __reduce__(self) -> Any:
        """Another process opens the file anew."""
        return _reopen, (str(self.path), self.sync, self.lease)

    def append(self, study: str, entries: Sequence[Entry]) -> int:
        """Add entries in one transaction; the place of the last one."""
        rows = [(study, json.dumps(entry, separators=(",", ":"))) for entry in entries]
        last = 0
        with self._lock:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                for row in rows:
                    last = connection.execute("INSERT INTO log (study, entry) VALUES (?, ?)", row).lastrowid
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # else Ctrl-C came when it was written already
                    connection.execute("ROLLBACK")
                raise
        return int(last or 0)

    def read(self, study: str, after: int) -> list[tuple[int, Entry]]:
        """The entries of a study after a place."""
        with self._lock:
            rows = self._open().execute(
                "SELECT place, entry FROM log WHERE study = ? AND place > ? ORDER BY place", (study, after)
            )
            found = rows.fetchall()
        return [(place, json.loads(entry)) for place, entry in found]

    def drop(self, study: str) -> None:
        """Remove the entries of a study."""
        with self._lock:
            self._open().execute("DELETE FROM log WHERE study = ?", (study,))

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._process == os.getpid():
            return self._connection
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=120, isolation_level=None, check_same_thread=False)
        try:
            _refuse_others(connection, self.path)
            _patiently(connection, "PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.sync.upper()}")
            _prepare(connection, self.path)
        except BaseException:
            connection.close()
            raise
        self._connection, self._process = connection, os.getpid()
        return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; bring an older one up to date."""
    _patiently(connection, "BEGIN IMMEDIATE")
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL)")
        found = connection.execute("SELECT version FROM schema").fetchone()
        version = found[0] if found else 0
        if version > SCHEMA:
            raise NestorError(
                f"{path} was written by a newer Nestor (schema {version}; this one knows {SCHEMA}).\n"
                "Do this: pip install --upgrade nestor"
            )
        if version == 0:
            connection.execute(
                "CREATE TABLE log (place INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, entry TEXT NOT NULL)"
            )
            connection.execute("CREATE INDEX log_of_study ON log (study, place)")
            connection.execute("INSERT INTO schema VALUES (?)", (SCHEMA,))
        for step in range(version or SCHEMA, SCHEMA):
            _MIGRATIONS[step](connection)
            connection.execute("UPDATE schema SET version = ?", (step + 1,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    """Put no tables into a database that another program made."""
    rows = _patiently(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {name for (name,) in rows}
    if tables and "schema" not in tables:
        theirs = {"studies", "trials"} <= tables
        raise NestorError(
            f"{path} is a database of {'Optuna' if theirs else 'another program'}, and no file of studies.\n"
            + ("Do this: nestor.optuna.import_study" if theirs else "Do this: take another path")
            + (f"('sqlite:///{path}', storage='another.db')" if theirs else "")
        )


def _patiently(connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    """Run a statement for which SQLite does not wait by itself while another process opens the file."""
    for _ in range(2000):
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.005)
    return connection.execute(statement)


def _reopen(path: str, sync: str, lease: float) -> FileStorage:
    return FileStorage(path, sync=sync, lease=lease)


def storage_at(where: Any, function: str) -> Storage:
    """The storage that a user means: None, a storage, a path, ``sqlite:///path``, or the URL of a database."""
    if where is None:
        return MemoryStorage()
    if isinstance(where, os.PathLike):
        return FileStorage(where)
    if isinstance(where, str):
        scheme, separator, rest = where.partition("://")
        if not separator:
            return FileStorage(where)
        if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
            return FileStorage(rest[1:])
        if scheme.partition("+")[0] in DATABASES or "+" in scheme:
            return SQLStorage(where)
        where = shown(where)
    elif isinstance(where, Storage):
        return where
    raise BadArgument(
        *(function, "storage"),
        got=where,
        want="None, a path, 'sqlite:///path', 'postgresql://...', 'mysql://...', or an object with append and read",
        do="pass 'sqlite:///study.db'",
    )
