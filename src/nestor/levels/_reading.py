"""What the user's functions read: the parameters of all levels by name, and names that are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from nestor.errors import BadArgument
from nestor.programs import Program, trace_function
from nestor.settings import nearest
from nestor.training import check_arity

Tree = Any


class Reader:
    """From trained arrays by level to what the user's functions read: whole trees by level.

    Args:
        wholes: by level, from its trained arrays to the user's whole tree.
    """

    def __init__(self, wholes: Mapping[str, Callable[[Tree], Tree]]):
        self._wholes = wholes
        self._kind: type[dict[str, Tree]] = dict

    def __call__(self, params: dict[str, Tree]) -> dict[str, Tree]:
        """The whole trees."""
        return self._kind({name: self._wholes[name](params[name]) for name in params})

    def unknown_name(self, function: Callable[..., Any], *args: Any) -> str | None:
        """The name that a function looks up though no level is called so; None if that is not what fails."""
        self._kind = _Named
        try:
            jax.eval_shape(function, *args)
        except _NoSuchLevel as error:
            return error.args[0]
        except Exception:  # it fails in another way, which is said as it is
            return None
        finally:
            self._kind = dict
        return None


class _NoSuchLevel(Exception):
    pass


class _Named(dict[str, Any]):
    def __missing__(self, name: Any) -> Any:
        raise _NoSuchLevel(name)


def traced(
    where: str, field: str, function: Callable[..., Any], read: Reader, *args: Any
) -> tuple[Program, list[Any]]:
    """The program of a function of the parameters of all levels, and what it captured.

    Raises:
        BadArgument: it cannot be traced, or reads a level that is not there.
    """
    try:
        return trace_function(where, field, function, *args)[:2]
    except KeyError as error:
        name = read.unknown_name(function, *args)
        if name is None:
            raise
        names = sorted(args[0])
        like = nearest(str(name), names)
        raise BadArgument(
            where,
            field,
            got=f"a function that reads p[{name!r}]",
            want="one that reads levels of this graph: " + ", ".join(map(repr, names)),
            do=f"write p[{like!r}]" if like else "correct the name, or add a level of that name",
        ) from error


def check_function(where: str, field: str, function: Any, count: int, stochastic: bool = False) -> None:
    """Whether the user's function takes that many arguments."""
    takes = {1: "(p), the parameters by level", 2: "(p, batch)", 3: "(p, batch, key)"}[count]
    if field == "project":
        takes = "(params), those of this level"
    if not callable(function):
        raise BadArgument(
            where, field, got=function, want=f"a function of {takes}", do="pass the function, not its result"
        )
    do = "close over the rest" + ("; for a key, pass stochastic=True" if count == 2 else "")
    check_arity(where, field, function, count, takes, do)
