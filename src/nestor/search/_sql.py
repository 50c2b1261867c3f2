"""Studies in PostgreSQL, MySQL, or whatever else SQLAlchemy reaches, for workers of many machines."""

from __future__ import annotations

import contextlib
import importlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from nestor.errors import BadArgument, MissingExtra, NestorError
from nestor.search._arguments import seconds
from nestor.search._forks import tell_when_forked

SCHEMA = 1  # raise it with a line in _MIGRATIONS
_MIGRATIONS: dict[
    int, Callable[[Any], None]
] = {}  # version -> what makes it the next one, given a connection

_DRIVERS = {  # what `nestor[sql]` brings
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
DATABASES = {*_DRIVERS, "oracle", "mssql"}
_TRIES = 20  # of what another writer may be in the way of


class SQLStorage:
    """Studies in a database by its URL, for any number of processes on any number of machines.

    An append-only log as in `FileStorage`; one transaction a change of state, durable when it returns. Writers of one
    study stand in line for its row in the table of heads, so their entries have one order for all readers. Leases
    are by the clock of the database. Needs ``pip install 'nestor[sql]'`` (SQLAlchemy, psycopg, PyMySQL).

    Args:
        url: ``"postgresql://user:password@host:5432/database"``, ``"mysql://..."``, or any URL of SQLAlchemy.
        lease: seconds after which a worker that gave no sign of life is taken for dead, and its trial is run
            again by another; a sign of life is given every third of it.

    >>> import nestor
    >>> try:
    ...     nestor.search.SQLStorage("postgresql://127.0.0.1:1/studies")
    ... except nestor.NestorError:
    ...     print("no database there (or no nestor[sql] here)")
    no database there (or no nestor[sql] here)
    """

    def __init__(self, url: str, *, lease: float = 60.0):
        self.lease = seconds("SQLStorage", "lease", lease)
        try:
            self._sql = importlib.import_module("sqlalchemy")
        except ImportError as error:
            raise MissingExtra("sqlalchemy", "sql", "a study in a database") from error
        self._url = url
        self._lock = threading.RLock()
        self._engine: Any = None
        self._tables()
        tell_when_forked(self)
        self._open()

    def forked(self) -> None:
        """This process must not use the connections of its parent, nor close them."""
        self._lock = threading.RLock()
        if self._engine is not None:
            self._engine.dispose(close=False)
        self._engine = None

    def __repr__(self) -> str:
        return f"SQLStorage({shown(self._url)!r})"

    def __reduce__(self) -> Any:
        """Another process connects anew."""
        return _reopen, (self._url, self.lease)

    def __del__(self) -> None:
        """Close what is open; when Python ends there may be nothing left to close it with."""
        with contextlib.suppress(Exception):
            self.close()

    # --- the contract -------------------------------------------------------------------------

    def append(self, study: str, entries: Sequence[dict[str, Any]]) -> int:
        """Add entries in one transaction; the place of the last one."""
        texts = [json.dumps(entry, separators=(",", ":")) for entry in entries]
        for attempt in range(_TRIES):
            try:
                with self._open().begin() as connection:
                    return self._append(connection, study, texts)
            except self._sql.exc.DBAPIError as error:
                # A first row that another made in the meantime, or a deadlock: nothing of ours was written.
                if attempt == _TRIES - 1 or not self._may_try_again(error):
                    raise
            time.sleep(0.002 * 2 ** min(attempt, 7))
        raise NestorError("A database refused what was told to it again and again.")

    def _append(self, connection: Any, study: str, texts: list[str]) -> int:
        heads, log = self._heads, self._log
        move = heads.update().where(heads.c.study == study).values(last=heads.c.last + len(texts))
        if self._engine.dialect.update_returning:
            last = connection.execute(move.returning(heads.c.last)).scalar()
        else:
            connection.execute(move)
            last = connection.execute(self._sql.select(heads.c.last).where(heads.c.study == study)).scalar()
        if last is None:
            last = len(texts)
            connection.execute(heads.insert().values(study=study, last=last))
        if texts:
            places = range(last - len(texts) + 1, last + 1)
            rows = [
                {"study": study, "place": place, "entry": text}
                for place, text in zip(places, texts, strict=True)
            ]
            connection.execute(log.insert(), rows)
        return int(last)

    def read(self, study: str, after: int) -> list[tuple[int, dict[str, Any]]]:
        """The entries of a study after a place."""
        log = self._log
        query = (
            self._sql.select(log.c.place, log.c.entry)
            .where(log.c.study == study, log.c.place > after)
            .order_by(log.c.place)
        )
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [(int(place), json.loads(entry)) for place, entry in rows]

    def drop(self, study: str) -> None:
        """Remove the entries of a study; its places are not given again."""
        with self._open().begin() as connection:
            connection.execute(self._log.delete().where(self._log.c.study == study))

    def now(self) -> float:
        """Seconds since the epoch by the clock of the database."""
        clocks = {
            "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
            "mysql": "SELECT UNIX_TIMESTAMP(NOW(6))",
        }
        kind = self._open().dialect.name
        clock = clocks.get("mysql" if kind == "mariadb" else kind)
        if clock is None:
            return time.time()
        with self._reading() as connection:
            return float(connection.execute(self._sql.text(clock)).scalar())

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    # --- what stands behind it ----------------------------------------------------------------

    def _tables(self) -> None:
        sql = self._sql
        mysql = importlib.import_module("sqlalchemy.dialects.mysql")
        long = sql.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
        self._metadata = sql.MetaData()
        self._schema = sql.Table(
            "nestor_schema",
            self._metadata,
            sql.Column("one", sql.Integer, primary_key=True, autoincrement=False),
            sql.Column("version", sql.Integer, nullable=False),
        )
        self._heads = sql.Table(
            "nestor_heads",
            self._metadata,
            sql.Column("study", sql.String(64), primary_key=True),
            sql.Column("last", sql.BigInteger, nullable=False),
        )
        self._log = sql.Table(
            "nestor_log",
            self._metadata,
            sql.Column("study", sql.String(64), primary_key=True),
            sql.Column("place", sql.BigInteger, primary_key=True, autoincrement=False),
            sql.Column("entry", long, nullable=False),
        )

    def _open(self) -> Any:
        """The engine of this process, over tables that are up to date."""
        with self._lock:
            if self._engine is None:
                engine = self._connected()
                self._prepare(engine)
                self._engine = engine
            return self._engine

    def _connected(self) -> Any:
        try:
            url = self._sql.make_url(self._url)
            engine = self._sql.create_engine(
                url.set(drivername=_DRIVERS.get(url.drivername, url.drivername)), pool_pre_ping=True
            )
        except ImportError as error:
            raise MissingExtra(error.name or "a driver", "sql", f"a study at {shown(self._url)}") from error
        except (self._sql.exc.ArgumentError, ValueError) as error:
            self._refuse("a URL of SQLAlchemy", str(error), error)
        try:
            with engine.connect():
                return engine
        except self._sql.exc.OperationalError as error:
            self._refuse("one that answers", str(error.orig), error)

    def _refuse(self, want: str, why: str, error: Exception) -> NoReturn:
        got, do = f"{shown(self._url)!r} ({why.splitlines()[0]})", "check host, port, database and password"
        raise BadArgument("SQLStorage", "url", got=got, want=want, do=do) from error

    def _prepare(self, engine: Any) -> None:
        """Make the tables of a new database; bring older ones up to date. Several processes may do so at once."""
        sql, schema = self._sql, self._schema
        for attempt in range(_TRIES):
            try:
                self._metadata.create_all(engine)
                with engine.begin() as connection:
                    query = sql.select(schema.c.version).with_for_update()
                    version = connection.execute(query).scalar()
                    if version is None:
                        connection.execute(schema.insert().values(one=1, version=SCHEMA))
                        version = SCHEMA
                    if version > SCHEMA:
                        raise NestorError(
                            f"{shown(self._url)} was written by a newer Nestor (schema {version}; this one knows "
                            f"{SCHEMA}).\nDo this: pip install --upgrade nestor"
                        )
                    for step in range(version, SCHEMA):
                        _MIGRATIONS[step](connection)
                        connection.execute(schema.update().values(version=step + 1))
                return
            except sql.exc.DBAPIError:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(0.02 * (attempt + 1))

    def _reading(self) -> Any:
        """A connection for one statement, without a transaction around it."""
        return self._open().connect().execution_options(isolation_level="AUTOCOMMIT")

    def _may_try_again(self, error: Any) -> bool:
        """Whether a transaction failed for what others did, and was rolled back."""
        if isinstance(error, self._sql.exc.IntegrityError):
            return True
        state = getattr(error.orig, "sqlstate", None)
        number = (error.orig.args or (None,))[0]
        return state in ("40001", "40P01") or number in (1205, 1213) or "database is locked" in str(error)


def shown(url: str) -> str:
    """A URL without its password."""
    scheme, separator, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    name = user.partition(":")[0]
    return f"{scheme}{separator}{name + ':***' if ':' in user else user}{at}{place}"


def _reopen(url: str, lease: float) -> SQLStorage:
    return SQLStorage(url, lease=lease)
