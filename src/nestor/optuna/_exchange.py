"""Whole studies from Optuna's databases and journals, and back."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from nestor import search
from nestor.errors import BadArgument
from nestor.optuna._need import inside, need
from nestor.optuna._records import direction_of, entry_of

_MOST_ENTRIES = 1000  # in one transaction


def import_study(
    source: Any, *, study_name: str | None = None, storage: Any = None, new_name: str | None = None
) -> search.Study:
    """A study of Optuna's as a study of Nestor: every trial of every state, and all notes.

    A trial that was running when its study was copied has no worker here: whoever goes on with the study runs it
    again, with the parameters that it had.

    Args:
        source: an ``optuna.Study``, a storage of Optuna's, a URL such as ``"sqlite:///theirs.db"``, or the path of
            an SQLite database or a journal file of Optuna's.
        study_name: which study; None where there is one.
        storage: where to keep it; see `nestor.search.create_study`.
        new_name: its name there; None keeps the name.

    Returns:
        The study, with our default sampler; `nestor.search.load_study` takes another.

    Raises:
        BadArgument: there is no such study; its name is taken; a choice among categories is no None, boolean,
            number or string; a range of integers reaches beyond 2**53.
        MissingExtra: Optuna is not installed.

    Where it fails, no part of the study is left behind.

    >>> import optuna, nestor.optuna
    >>> theirs = optuna.create_study(study_name="mine")
    >>> theirs.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=5)
    >>> ours = nestor.optuna.import_study(theirs)
    >>> ours.best_value == theirs.best_value, ours.name
    (True, 'mine')
    """
    optuna = need("nestor.optuna.import_study")
    if isinstance(source, optuna.study.Study):
        return _imported(source._storage, source._study_id, storage, new_name)
    theirs = _storage_of(source, "import_study", optuna)
    try:
        return _imported(theirs, _found(theirs, study_name, "import_study"), storage, new_name)
    finally:
        if theirs is not source:
            _close(theirs)


def _imported(theirs: Any, study_id: int, storage: Any, new_name: str | None) -> search.Study:
    name = theirs.get_study_name_from_id(study_id) if new_name is None else new_name
    directions = [direction_of(one) for one in theirs.get_study_directions(study_id)]
    entries = [entry_of(trial) for trial in theirs.get_all_trials(study_id, deepcopy=False)]
    notes = {
        "attrs": theirs.get_study_user_attrs(study_id),
        "system": theirs.get_study_system_attrs(study_id),
    }
    if any(notes.values()):
        entries.insert(0, {"do": "attrs", **notes})
    register = search.Register(storage)
    study = search.create_study(storage=register.storage, study_name=name, directions=directions)
    place = next(place for place, found in register.studies().items() if found["name"] == name)
    channel = register.open(place)
    try:
        for first in range(0, len(entries), _MOST_ENTRIES):
            channel.commit(*entries[first : first + _MOST_ENTRIES])
    except BaseException:
        search.delete_study(study_name=name, storage=register.storage)
        raise
    finally:
        channel.close()
    return study


def export_study(study: search.Study, target: Any, *, study_name: str | None = None) -> Any:
    """A study of Nestor as a study of Optuna, in a database or a journal of its own.

    What came from Optuna is equal to what it was, trial by trial. What its record has no field for is kept as
    `Storage` shows it: as notes in ``system_attrs``; the values of an array of more than 256 entries are not.

    Args:
        study: the study.
        target: a storage of Optuna's, a URL such as ``"sqlite:///theirs.db"``, or the path of a journal file; None
            for its memory.
        study_name: its name there; None keeps the name.

    Returns:
        The ``optuna.Study``.

    Raises:
        BadArgument: the target is a file of something else.
        MissingExtra: Optuna is not installed.
        optuna.exceptions.DuplicatedStudyError: the name is taken.

    Where it fails, no part of the study is left in the target.

    >>> import nestor.optuna
    >>> from nestor import search
    >>> ours = search.create_study(study_name="mine")
    >>> ours.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=5)
    >>> theirs = nestor.optuna.export_study(ours, None)
    >>> theirs.best_value == ours.best_value, theirs.study_name
    (True, 'mine')
    """
    optuna = need("nestor.optuna.export_study")
    if not isinstance(study, search.Study):
        want, do = "a study of nestor.search", "pass what search.load_study returns"
        raise BadArgument("nestor.optuna.export_study", "study", got=study, want=want, do=do)
    seen = inside("_stored", "nestor.optuna.export_study").NestorStorage(search.Register(study.storage))
    place = seen.get_study_id_from_name(study.name)
    theirs = optuna.storages.get_storage(_storage_of(target, "export_study", optuna))
    name = study.name if study_name is None else study_name
    study_id = theirs.create_new_study(seen.get_study_directions(place), name)
    try:
        for key, value in seen.get_study_user_attrs(place).items():
            theirs.set_study_user_attr(study_id, key, value)
        for key, value in seen.get_study_system_attrs(place).items():
            theirs.set_study_system_attr(study_id, key, value)
        for trial in seen.get_all_trials(place, deepcopy=False):
            theirs.create_new_trial(study_id, template_trial=trial)
    except BaseException:
        theirs.delete_study(study_id)
        raise
    finally:
        seen.remove_session()
    return optuna.load_study(study_name=name, storage=theirs)


def _storage_of(where: Any, function: str, optuna: Any) -> Any:
    """The storage of Optuna's that a user means."""
    if where is None and function == "export_study":
        return optuna.storages.InMemoryStorage()
    if isinstance(where, optuna.storages.BaseStorage):
        return where
    if isinstance(where, str) and "://" in where:
        path = Path(where.removeprefix("sqlite:///"))
        ours = where.startswith("sqlite:///") and _is_sqlite(path) and not _is_theirs(path)
        absent = where.startswith("sqlite:///") and function == "import_study" and not path.is_file()
        if not (ours or absent):
            return optuna.storages.RDBStorage(where)
    elif isinstance(where, str | os.PathLike):
        path = Path(where)
        if _is_sqlite(path) and _is_theirs(path):
            return optuna.storages.RDBStorage(f"sqlite:///{path}")
        absent = function == "export_study" and not (path.exists() and path.stat().st_size)
        if not _is_sqlite(path) and (absent or _is_journal(path)):
            journal = optuna.storages.journal
            return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path)))
    raise BadArgument(
        *(f"nestor.optuna.{function}", "source" if function == "import_study" else "target"),
        got=where,
        want="a storage of Optuna's, its URL, or the path of its database or journal",
        do="pass 'sqlite:///theirs.db'",
    )


def _close(theirs: Any) -> None:
    """Close the connections of a storage of Optuna's that was opened here."""
    theirs.remove_session()
    engine = getattr(theirs, "engine", None)
    if engine is not None:
        engine.dispose()


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


def _is_theirs(path: Path) -> bool:
    """Whether a database is Optuna's, or empty; into any other it would put its tables."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    return not tables or {"studies", "trials"} <= tables


def _is_journal(path: Path) -> bool:
    """Whether the first line of a file is an entry of Optuna's journal."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            return "op_code" in json.loads(file.readline())
        except (ValueError, TypeError):
            return False


def _found(storage: Any, name: str | None, function: str) -> int:
    """The id of the study of a name, or of the only one."""
    there = {study.study_name: study._study_id for study in storage.get_all_studies()}
    if name is None and len(there) == 1:
        return next(iter(there.values()))
    if name not in there:
        want = f"one of {list(there)}"
        do = "pass a name that is there"
        raise BadArgument(f"nestor.optuna.{function}", "study_name", got=name, want=want, do=do)
    return there[name]
