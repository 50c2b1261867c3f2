"""What is named on a command line: objectives, samplers, pruners, exceptions, storages."""

from __future__ import annotations

import ast
import builtins
import difflib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nestor import search
from nestor.errors import BadArgument, NestorError

SAMPLER = "portfolio"  # what a study is run with that says nothing else
STORAGE = "NESTOR_STORAGE"  # the variable of the environment that --storage falls back to


def storage_of(given: str | None, where: str, *, reading: bool) -> str:
    """The storage that --storage, or else the environment, names; with `reading` it must be there already."""
    storage = given or os.environ.get(STORAGE)
    if not storage:
        raise BadArgument(
            *(where, "--storage"),
            got="missing",
            want="a file or the URL of a database",
            do=f"pass --storage study.db, or set {STORAGE}",
        )
    path = storage.removeprefix("sqlite:///")
    if reading and "://" not in path and not Path(path).is_file():
        raise BadArgument(
            where, "--storage", got=repr(storage), want="a file that is there", do="check the path"
        )
    return storage


def objective_of(text: str, where: str) -> tuple[Callable[[Any], Any], str]:
    """The objective that `file.py:function` or `package.module:function` names, and a name for its study."""
    place, _, name = text.rpartition(":") if ":" in text else (text, "", "objective")
    found = _attribute(place, name, where)
    if not callable(found):
        raise BadArgument(
            where, "objective", got=text, want="a function of a trial", do="name a function in the file"
        )
    return found, Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]


def sampler_of(text: str | None, seed: int | None, where: str) -> Any:
    """A sampler by name, `tpe` or `tpe(n_startup=20)`, or one of the user's, `file.py:MySampler(3)`."""
    more = {} if seed is None else {"seed": seed}
    return _made(text or SAMPLER, "Sampler", where, "--sampler", more)


def pruner_of(text: str | None, where: str) -> Any:
    """A pruner by name, as `sampler_of`; None for none."""
    return None if text in (None, "none") else _made(text or "", "Pruner", where, "--pruner", {})


def exceptions_of(texts: Sequence[str], where: str) -> tuple[type[Exception], ...]:
    """Exceptions by name: Python's, or `package.module:Name`."""
    found = []
    for text in [part for words in texts for part in words.split(",") if part]:
        place, _, name = text.rpartition(":")
        kind = _attribute(place, name, where) if place else getattr(builtins, name, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise BadArgument(
                *(where, "--catch"),
                got=text,
                want="an exception of Python, or module:Name",
                do="pass --catch MemoryError",
            )
        found.append(kind)
    return tuple(found)


def _made(text: str, kind: str, where: str, option: str, more: dict[str, Any]) -> Any:
    """An object by its name, with settings in parentheses."""
    place, separator, call = text.rpartition(":") if re.match(r"[^(]*:", text) else ("", "", text)
    name, arguments, settings = _call(call, text, where, option)
    if separator:
        make = _attribute(place, name, where)
    else:
        there = _kinds(kind)
        make = there.get(_plain(name, kind))
        if make is None:
            near = difflib.get_close_matches(_plain(name, kind), list(there), n=1)
            do = f"did you mean {near[0]!r}" if near else "pass one of these"
            want = f"one of {', '.join(there)}, or file.py:Name"
            raise BadArgument(where, option, got=repr(text), want=want, do=do)
    if not callable(make):
        raise BadArgument(where, option, got=repr(text), want=f"a {kind.lower()}", do="name its class")
    takes = inspect.signature(make).parameters
    more = {key: value for key, value in more.items() if key in takes and key not in settings}
    try:
        return make(*arguments, **settings, **more)
    except BadArgument:
        raise
    except TypeError as error:
        want = f"{name}{inspect.signature(make)}"
        raise BadArgument(where, option, got=f"{text!r} ({error})", want=want, do="mend it") from error


def _call(text: str, whole: str, where: str, option: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name, the arguments and the settings of `name(1, key=2)`."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, [], {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            values = [ast.literal_eval(value) for value in node.args]
            return node.func.id, values, {key.arg or "": ast.literal_eval(key.value) for key in node.keywords}
    except (SyntaxError, ValueError):
        pass
    want, do = "a name, with settings in parentheses", "quote it: 'tpe(n_startup=20)'"
    raise BadArgument(where, option, got=repr(whole), want=want, do=do)


def _kinds(kind: str) -> dict[str, Any]:
    """Short name to class, of all samplers or pruners of the wing."""
    names = [name for name in search.__all__ if name.endswith(kind) and name != kind]
    return {_plain(name, kind): getattr(search, name) for name in names}


def _plain(name: str, kind: str) -> str:
    return name.removesuffix(kind).lower().replace("_", "").replace("-", "")


def _attribute(place: str, name: str, where: str) -> Any:
    module = _module(place, where)
    found = getattr(module, name, None)
    if found is None:
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, there, n=1)
        do = f"did you mean {near[0]!r}" if near else f"it has {', '.join(there) or 'no functions'}"
        raise BadArgument(where, "objective", got=f"{place}:{name}", want="a name in that file", do=do)
    return found


def _module(place: str, where: str) -> Any:
    """A module by the path of its file, or by name. Worker processes import it by the same name."""
    want, do = "file.py:function or module:function", "check the path"
    path = Path(place).resolve()
    if place.endswith(".py"):
        if not path.is_file():
            raise BadArgument(where, "objective", got=f"{place!r}, which is no file", want=want, do=do)
        folder, name = str(path.parent), path.stem
    else:
        folder, name = os.getcwd(), place
    if not all(part.isidentifier() for part in name.split(".")):
        raise BadArgument(where, "objective", got=place, want=want, do="give the file a name of letters")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name.partition(".")[0]:
            raise BadArgument(
                where, "objective", got=f"{place!r}, which is no module", want=want, do=do
            ) from error
        raise NestorError(_why(place, error)) from error
    except Exception as error:
        raise NestorError(_why(place, error)) from error
    if place.endswith(".py") and Path(module.__file__ or "").resolve() != path:
        raise BadArgument(
            *(where, "objective"),
            got=f"{place}, whose name is taken by {module.__file__}",
            want="a name of its own",
            do="rename the file",
        )
    return module


def _why(place: str, error: Exception) -> str:
    words = "".join(traceback.format_exception(error)[-2:]).strip()
    return f"{place} could not be imported:\n{words}"
