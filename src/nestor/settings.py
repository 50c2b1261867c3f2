"""What the fields of solvers, adjoints and their parts may hold: kinds of settings, and their check.

A room that has such objects keeps a table, class -> field -> `Setting`; a class that is in no table (a user's
own) is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument

__all__ = [
    "Setting",
    "as_count",
    "as_optional_count",
    "check_setting",
    "check_settings",
    "choice",
    "count",
    "nearest",
    "number",
    "optional",
    "part",
    "plain_number",
    "shown",
]


class Setting(NamedTuple):
    """What a field may hold.

    Attributes:
        good: (value, the object it belongs to) -> whether it may.
        want: the same in words.
        example: a value that may, as source text.
        names: the choices, where they are strings.
    """

    good: Callable[[Any, Any], bool]
    want: str
    example: str
    names: tuple[str, ...] = ()


def check_settings(
    where: str, argument: str, thing: Any, table: Mapping[type, Mapping[str, Setting]]
) -> None:
    """Check the fields of an object by a table, and those of the parts that it holds.

    Cost: a few microseconds; the values of arrays, which may still be on their way, are not waited for.
    """
    for field, setting in table.get(type(thing), {}).items():
        value = getattr(thing, field)
        write = f"nestor.{type(thing).__name__}({{}})"
        check_setting(where, f"{argument}.{field}", value, setting, owner=thing, write=write)
        if type(value) in table:
            check_settings(where, f"{argument}.{field}", value, table)


def check_setting(
    where: str, argument: str, value: Any, setting: Setting, *, owner: Any = None, write: str = "{}"
) -> None:
    """Check one value.

    Args:
        where, argument: the public function or class and its argument, for messages.
        value: what was passed.
        setting: what may be.
        owner: the object that the value belongs to.
        write: where an example of an assignment stands, in the message.
    """
    if setting.good(value, owner):
        return
    near = nearest(value, setting.names)
    example = f'"{near}"' if near else setting.example
    said = write.format(f"{argument.rpartition('.')[2]}={example}")
    raise BadArgument(where, argument, got=shown(value), want=setting.want, do=f"write {said}")


def as_count(where: str, name: str, value: Any) -> int:
    """A number of things that is the argument of a call, as a Python integer; NumPy's are fine there."""
    plain = int(value) if isinstance(value, np.integer) else value
    check_setting(where, name, plain, count(100))
    return plain


def as_optional_count(where: str, name: str, value: Any) -> int | None:
    """None, or the same."""
    return None if value is None else as_count(where, name, value)


def shown(value: Any) -> Any:
    """A value as a `BadArgument` shows it: strings in quotes, which are else taken for a description."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"{value!r} (str)" if isinstance(value, str) else value


def nearest(text: Any, names: Iterable[str]) -> str | None:
    """The name that was probably meant, if any: without regard to case and punctuation, then by likeness."""
    if not isinstance(text, str):
        return None
    plain = {_plain(name): name for name in names}
    if _plain(text) in plain:
        return plain[_plain(text)]
    import difflib  # needed by mistakes only

    close = difflib.get_close_matches(_plain(text), plain, n=1)
    return plain[close[0]] if close else None


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


# --- kinds of settings -------------------------------------------------------------------------------


def count(example: int, least: int = 1) -> Setting:
    """A number of things: it shapes the program, so nothing but a Python integer will do."""
    good = lambda value, _: type(value) is int and value >= least  # noqa: E731
    return Setting(good, f"a Python integer >= {least}", str(example))


def number(good: Callable[[float], bool], want: str, example: str) -> Setting:
    """A real number; a traced or NumPy scalar too, which is then an input of the solve."""

    def check(value: Any, _: Any) -> bool:
        if isinstance(value, jax.Array):
            return value.shape == () and jnp.issubdtype(value.dtype, jnp.floating)
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.item() if value.size == 1 and value.ndim == 0 else None
        return type(value) in (float, int) and good(value)

    return Setting(check, want, example)


def plain_number(good: Callable[[float], bool], want: str, example: str) -> Setting:
    """A Python number, where something is decided by it while the program is traced."""
    return Setting(lambda value, _: type(value) in (float, int) and good(value), f"a Python {want}", example)


def optional(setting: Setting) -> Setting:
    """None, or what the setting says."""
    return setting._replace(
        good=lambda value, owner: value is None or setting.good(value, owner), want=f"None or {setting.want}"
    )


def choice(*names: str) -> Setting:
    """One of some strings."""
    quoted = ", ".join(f'"{name}"' for name in names)
    return Setting(
        lambda value, _: isinstance(value, str) and value in names, f"one of {quoted}", f'"{names[0]}"', names
    )


def part(verb: str, want: str, example: str) -> Setting:
    """An object with that verb; its own settings are checked in turn, where the table has its class."""
    return Setting(lambda value, _: hasattr(value, verb) and not isinstance(value, type), want, example)
