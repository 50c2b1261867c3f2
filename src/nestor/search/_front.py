"""Studies by name: create, load, copy, delete, import."""

from __future__ import annotations

import difflib
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nestor.errors import BadArgument
from nestor.search._nested import below
from nestor.search._portfolio import PortfolioSampler
from nestor.search._pruners import Pruner
from nestor.search._records import Direction
from nestor.search._register import REGISTER, Register
from nestor.search._samplers import Asked, Sampler
from nestor.search._spaces import Domain
from nestor.search._storages import Storage, path_of, storage_at
from nestor.search._study import Study
from nestor.search._trial import Trial


def create_study(
    *,
    storage: Any = None,
    study_name: str | None = None,
    direction: str | Direction | None = None,
    directions: Sequence[str | Direction] | None = None,
    sampler: Sampler | None = None,
    pruner: Pruner | None = None,
    load_if_exists: bool = False,
    parent: Trial | None = None,
) -> Study:
    """Begin a study.

    Args:
        storage: None for memory, a path or ``"sqlite:///path"`` for a file, or an object with the two verbs of
            `Storage`.
        study_name: its name in the storage; None makes one up.
        direction: ``"minimize"`` (the default) or ``"maximize"``.
        directions: one direction an objective, for several.
        sampler: suggests parameters; None is ``PortfolioSampler()``. Give it a seed to be able to repeat the study.
        pruner: ends trials early; None does not.
        load_if_exists: whether a study of this name is gone on with; else it is an error.
        parent: the trial inside which this study is made. It is kept with that trial's study, under the name
            ``"study/number"``, or ``"study/number/study_name"``; a later attempt at the trial goes on with it;
            `Study.nested` finds it, and `Study.cost` counts it.

    >>> from nestor import search
    >>> study = search.create_study(direction="maximize", sampler=search.RandomSampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=30)
    >>> study.best_value > 0.8
    True

    A study inside each trial of another, and the number of trials in all:

    >>> def outer(trial):
    ...     width = trial.suggest_int("width", 1, 64)
    ...     inner = search.create_study(parent=trial, sampler=search.RandomSampler(seed=0))
    ...     inner.optimize(lambda trial: width * trial.suggest_float("rate", 0.0, 1.0), n_trials=5)
    ...     return inner.best_value
    >>> study = search.create_study(study_name="outer", sampler=search.RandomSampler(seed=0))
    >>> study.optimize(outer, n_trials=3)
    >>> study.nested(), study.cost()
    (['outer/0', 'outer/1', 'outer/2'], 15.0)
    """
    if parent is not None and not isinstance(parent, Trial):
        do = "pass the trial that the objective is given"
        raise BadArgument("create_study", "parent", got=parent, want="a trial under way", do=do)
    if parent is not None and storage is None:
        storage = parent._channel.storage
    kept = storage_at(storage, "create_study")
    if study_name is not None and not isinstance(study_name, str):
        raise BadArgument("create_study", "study_name", got=study_name, want="a string", do="pass 'mine'")
    if direction is not None and directions is not None:
        raise BadArgument("create_study", "directions", got="both", want="alone", do="drop direction")
    names = [direction or "minimize"] if directions is None else list(directions)
    try:
        chosen = [str(Direction(name)) for name in names]
    except ValueError as error:
        want = "'minimize' or 'maximize'"
        raise BadArgument(
            "create_study", "direction", got=names, want=want, do="pass one of these"
        ) from error
    if not chosen:
        raise BadArgument("create_study", "directions", got="empty", want="one an objective", do="name one")
    identity = uuid.uuid4().hex
    name = f"study-{identity[:12]}" if study_name is None else study_name
    header = {"name": name, "directions": chosen, "created": time.time()}
    if parent is not None:
        outer = parent._channel.ledger.header["name"]
        header["parent"] = {"id": parent._channel.study, "study": outer, "number": parent.number}
        header["name"] = "/".join([outer, str(parent.number), *([] if study_name is None else [study_name])])
    found = _register(kept).get(header["name"])
    if found is None:
        kept.append(REGISTER, [{"do": "create", "id": identity, **header}])
        found = _register(kept)[header["name"]]  # another may have been faster
    again = parent is not None and found.get("parent") == header["parent"]
    if found["id"] != identity and not (load_if_exists or again):
        raise BadArgument(
            *("create_study", "study_name"),
            got=header["name"],
            want="a name that is not taken",
            do="pass load_if_exists=True to go on with that study, or another name",
        )
    if found["directions"] != chosen and (direction or directions):
        want = f"those of the study that is there: {found['directions']}"
        raise BadArgument(
            "create_study", "directions", got=chosen, want=want, do="drop it, or take another name"
        )
    return _study(kept, found, sampler, pruner)


def load_study(
    *,
    study_name: str | None = None,
    storage: Any,
    sampler: Sampler | None = None,
    pruner: Pruner | None = None,
) -> Study:
    """Go on with a study. Sampler and pruner are not kept with it: give them again, seeds included.

    Args:
        study_name: its name; None where the storage holds one study.
        storage: where it is kept; see `create_study`.
        sampler: as in `create_study`.
        pruner: as in `create_study`.

    Raises:
        BadArgument: there is no such file, or no study of this name in it.

    >>> from nestor import search
    >>> storage = search.MemoryStorage()
    >>> search.create_study(storage=storage, study_name="mine").add_trials([])
    >>> search.load_study(storage=storage).name
    'mine'
    """
    kept = storage_at(storage, "load_study", reading=True)
    return _study(kept, _find(kept, study_name, "load_study"), sampler, pruner)


def delete_study(*, study_name: str, storage: Any) -> None:
    """Delete a study and its trials, and the studies that were made inside them.

    Args:
        study_name: its name.
        storage: where it is kept; see `create_study`.

    Raises:
        BadArgument: there is no such file, or no study of this name in it.

    >>> from nestor import search
    >>> storage = search.MemoryStorage()
    >>> _ = search.create_study(storage=storage, study_name="mine")
    >>> search.delete_study(study_name="mine", storage=storage)
    >>> search.study_names(storage)
    []
    """
    kept = storage_at(storage, "delete_study", reading=True)
    found = _find(kept, study_name, "delete_study")
    inner = below(Register(kept).inside(), found["id"])
    drop = getattr(kept, "drop", lambda identity: None)
    for header in (*inner, found):
        kept.append(REGISTER, [{"do": "delete", "id": header["id"]}])
        drop(header["id"])


def copy_study(
    *,
    from_study_name: str,
    from_storage: Any,
    to_storage: Any,
    to_study_name: str | None = None,
) -> Study:
    """Copy a study, with all its trials and notes, into another storage or under another name.

    Studies that were made inside its trials are not copied: their cost becomes that of the trials.

    Args:
        from_study_name: the name of what is copied.
        from_storage: where it is kept; see `create_study`.
        to_storage: where the copy is kept.
        to_study_name: the name of the copy; None keeps the name.

    >>> from nestor import search
    >>> storage = search.MemoryStorage()
    >>> search.create_study(storage=storage, study_name="a").optimize(lambda trial: trial.number, n_trials=3)
    >>> copy = search.copy_study(
    ...     from_study_name="a", from_storage=storage, to_storage=storage, to_study_name="b"
    ... )
    >>> len(copy.trials)
    3
    """
    from_where = storage_at(from_storage, "copy_study", reading=True)
    found = _find(from_where, from_study_name, "copy_study")
    source = _study(from_where, found, None, None)
    ledger = source._ledger
    entries = [ledger.entry(number) for number in range(ledger.size)]
    nested = Register(from_where).inside().get(found["id"], {})
    for number in nested:
        entries[number]["cost"] = source.cost(number)
    name = from_study_name if to_study_name is None else to_study_name
    notes = {"attrs": ledger.user_attrs, "system": ledger.system_attrs}
    return _made(storage_at(to_storage, "copy_study"), name, source._header, notes, entries)


def import_study(
    path: str | os.PathLike[str], *, storage: Any = None, study_name: str | None = None
) -> Study:
    """The study that `Study.export` wrote, in a storage.

    Args:
        path: the file of JSON lines.
        storage: where to keep it; see `create_study`.
        study_name: its name there; None keeps the one that it had.

    >>> import tempfile, pathlib
    >>> from nestor import search
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "study.jsonl"
    >>> study = search.create_study()
    >>> study.optimize(lambda trial: trial.suggest_int("n", 1, 5), n_trials=4)
    >>> study.export(path)
    >>> [trial.params for trial in search.import_study(path).trials] == [t.params for t in study.trials]
    True
    """
    lines = _lines(Path(path))
    head = lines[0]
    kept = storage_at(storage, "import_study")
    notes = {"attrs": head.get("user_attrs", {}), "system": head.get("system_attrs", {})}
    return _made(kept, study_name or head["name"], head, notes, lines[1:])


def _lines(path: Path) -> list[dict[str, Any]]:
    """What `Study.export` wrote: the header, and an entry a trial."""
    want = "a file that export wrote"
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
        lines: list[Any] = [json.loads(text) for text in texts if text.strip()]
    except OSError as error:
        got, do = f"{str(path)!r} ({error.strerror})", "check the path"
        raise BadArgument("import_study", "path", got=got, want=want, do=do) from error
    except ValueError as error:
        got, do = f"{str(path)!r} ({error})", "export the study again"
        raise BadArgument("import_study", "path", got=got, want=want, do=do) from error
    version = lines[0].get("nestor_study") if lines and isinstance(lines[0], dict) else None
    if version != 1 or not all(isinstance(line, dict) and line.get("do") == "add" for line in lines[1:]):
        do = "export the study again, or pip install --upgrade nestor"
        raise BadArgument("import_study", "path", got=repr(str(path)), want=want, do=do)
    return lines


def fixed_trial(params: Mapping[str, Any]) -> Trial:
    """A trial with given parameters that belongs to no study, to call an objective by hand, in a test for example.

    Args:
        params: parameter name to value; each must lie in the domain that the objective suggests it from.

    >>> from nestor import search
    >>> def objective(trial):
    ...     return trial.suggest_float("x", -1, 1) ** 2
    >>> objective(search.fixed_trial({"x": 0.5}))
    0.25
    """
    study = create_study(sampler=_Given())
    study.enqueue_trial(params)
    return study.ask()


class _Given:
    """Suggests nothing."""

    def __call__(self, asked: Asked, name: str, domain: Domain) -> Any:
        raise BadArgument("fixed_trial", "params", got="no value", want=f"'{name}' too", do="add it")


def study_names(storage: Any) -> list[str]:
    """The names of the studies in a storage, in the order in which they were created.

    >>> from nestor import search
    >>> search.study_names(search.MemoryStorage())
    []
    """
    path = path_of(storage)
    if path is not None and not path.expanduser().exists():  # to ask makes no file
        return []
    return list(_register(storage_at(storage, "study_names")))


def _made(
    storage: Storage, name: str, header: dict[str, Any], notes: dict[str, Any], entries: list[dict[str, Any]]
) -> Study:
    study = create_study(storage=storage, study_name=name, directions=header["directions"])
    if any(notes.values()):
        study._channel.commit({"do": "attrs", **notes})
    if entries:
        study._channel.commit(*entries)
    return study


def _study(storage: Storage, found: dict[str, Any], sampler: Sampler | None, pruner: Pruner | None) -> Study:
    for name, thing in (("sampler", sampler), ("pruner", pruner)):
        if thing is not None and (isinstance(thing, type) or not callable(thing)):
            do = f"pass an instance, or nestor.optuna.Optuna{name.title()}(...) for one of Optuna's"
            raise BadArgument("create_study", name, got=thing, want=f"a {name}", do=do)
    header = {key: value for key, value in found.items() if key not in ("do", "id")}
    return Study(storage, found["id"], header, sampler or PortfolioSampler(), pruner)


def _register(storage: Storage) -> dict[str, dict[str, Any]]:
    """Name to the entry that created it, of all studies."""
    return {entry["name"]: entry for entry in Register(storage).studies().values()}


def _find(storage: Storage, name: str | None, where: str) -> dict[str, Any]:
    there = _register(storage)
    if name is None and len(there) == 1:
        return next(iter(there.values()))
    if name not in there:
        near = difflib.get_close_matches(str(name), list(there), n=1)
        want = f"one of {list(there)}" if there else "a name; but there is no study here yet"
        do = (
            f"did you mean {near[0]!r}"
            if near
            else "pass a name that is there"
            if there
            else "create_study(...)"
        )
        raise BadArgument(where, "study_name", got=None if name is None else repr(name), want=want, do=do)
    return there[name]
