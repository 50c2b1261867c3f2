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
from nestor.search._arguments import seconds
from nestor.search._forks import tell_when_forked
from nestor.search._ledger import Ledger
from nestor.search._sql import DATABASES, SQLStorage, shown

SCHEMA = 1  # raise it with a line in _MIGRATIONS
_MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}  # version -> what makes it the next one

HERE = "here"  # who works on studies in memory

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
        self.lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied: the studies."""
        return {"_rows": self._rows, "ledgers": self.ledgers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy: what ran when it was made waits in it, for nobody there runs it."""
        self.__init__()
        self.__dict__.update(state)
        for ledger in self.ledgers.values():
            for number, worker in list(ledger.owners.items()):
                ledger.apply({"do": "release", "number": number, "by": worker})

    def append(self, study: str, entries: Sequence[Entry]) -> int:
        """Add entries to the register."""
        with self.lock:
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
        self.path, self.sync = Path(path).expanduser().absolute(), sync
        self.lease = seconds("FileStorage", "lease", lease)
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection] = []  # of the process that this one was forked from
        tell_when_forked(self)
        self._open()

    def forked(self) -> None:
        """This process must not use the connection of its parent, nor close it."""
        self._lock = threading.RLock()
        if self._connection is not None:
            self._inherited.append(self._connection)
        self._connection = None

    def __reduce__(self) -> Any:
        """Another process opens the file anew."""
        return _reopen, (str(self.path), self.sync, self.lease)

    def append(self, study: str, entries: Sequence[Entry]) -> int:
        """Add entries in one transaction; the place of the last one."""
        rows = [(study, json.dumps(entry, separators=(",", ":"))) for entry in entries]
        last = 0
        with self._lock:
            connection = self._open()
            try:
                connection.execute("BEGIN IMMEDIATE")
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
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        try:
            self._connection = self._opened()
        except (OSError, sqlite3.DatabaseError) as error:
            raise BadArgument(
                *("FileStorage", "path"),
                got=f"{str(self.path)!r} ({error})",
                want="a file of studies, or a new one, that this program may write to",
                do="pass another path, or mend the permissions",
            ) from error
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=120, isolation_level=None, check_same_thread=False)
        try:
            ready = _is_ready(connection, self.path)
            connection.execute(f"PRAGMA synchronous = {self.sync.upper()}")
            if not ready:
                _patiently(connection, "PRAGMA journal_mode = WAL")
                _prepare(connection, self.path)
        except BaseException:
            connection.close()
            raise
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


def _is_ready(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether a file needs no table, so that one who only reads does not write; that of another program is refused."""
    rows = _patiently(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {name for (name,) in rows}
    if tables and not {"schema", "log"} <= tables:
        theirs = {"studies", "trials"} <= tables
        raise NestorError(
            f"{path} is a database of {'Optuna' if theirs else 'another program'}, and no file of studies.\n"
            + ("Do this: nestor.optuna.import_study" if theirs else "Do this: take another path")
            + (f"('sqlite:///{path}', storage='another.db')" if theirs else "")
        )
    return bool(tables) and _patiently(connection, "SELECT version FROM schema").fetchone() == (SCHEMA,)


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


def storage_at(where: Any, function: str, *, reading: bool = False) -> Storage:
    """The storage that a user means: None, a storage, a path, ``sqlite:///path``, or the URL of a database.

    Args:
        where: what the user passed.
        function: the public function, for messages.
        reading: whether a file must be there already.
    """
    path = path_of(where)
    if where is None or (path is not None and path.name == ":memory:"):
        return MemoryStorage()
    if path is not None:
        if reading and not path.expanduser().exists():
            want, do = "a file that is there", "check the path; create_study makes a new one"
            raise BadArgument(function, "storage", got=repr(str(path)), want=want, do=do)
        return FileStorage(path)
    if isinstance(where, str):
        scheme = where.partition("://")[0]
        if scheme.partition("+")[0] in DATABASES or "+" in scheme:
            return SQLStorage(where)
        where = shown(where)
    elif isinstance(where, Storage) and not isinstance(where, type):
        return where
    raise BadArgument(
        *(function, "storage"),
        got=where,
        want="None, a path, 'sqlite:///path', 'postgresql://...', 'mysql://...', or an object with append and read",
        do="pass 'sqlite:///study.db'",
    )


def path_of(where: Any) -> Path | None:
    """The file that a storage is, by its path or ``sqlite:///path``; None where it is none."""
    if isinstance(where, os.PathLike):
        return Path(where)
    if not isinstance(where, str):
        return None
    scheme, separator, rest = where.partition("://")
    if not separator:
        return Path(where)
    return Path(rest[1:]) if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1 else None
