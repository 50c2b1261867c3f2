"""The user's functions of the parameters of all levels: traced, and read for whose parameters they use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.errors import BadArgument
from nestor.levels._level import Level
from nestor.programs import Program, shape_text, signature_that_refuses, trace_function

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
        like = difflib.get_close_matches(str(name), names, 1)
        raise BadArgument(
            where,
            field,
            got=f"a function that reads p[{name!r}]",
            want="one that reads levels of this graph: " + ", ".join(map(repr, names)),
            do=f"write p[{like[0]!r}]" if like else "correct the name, or add a level of that name",
        ) from error


def read_by(program: Program, names: list[str], trained: dict[str, Tree], skip: int = 0) -> frozenset[int]:
    """The levels whose parameters a program reads; they are its first argument but `skip`."""
    used = iter(program.reads()[skip:])
    read = {name: any([next(used) for _ in jax.tree.leaves(trained[name])]) for name in sorted(trained)}
    return frozenset(i for i, name in enumerate(names) if read[name])


def reading_above(
    where: str,
    field: str,
    function: Callable[..., Any],
    i: int,
    names: list[str],
    trained: dict[str, Tree],
    seen: Reader,
) -> tuple[Program, list[Any], frozenset[int]]:
    """The program of a function of the parameters above a level."""
    check_arity(where, field, function, 1)
    program, captured = traced(where, field, lambda params: function(seen(params)), seen, trained)
    read = read_by(program, names, trained)
    low = [names[k] for k in sorted(read) if k <= i]
    if low:
        raise BadArgument(
            where,
            field,
            got=f"a function that reads {', '.join(map(repr, low))}",
            want="a function of the levels above this one alone: anything else would be a cycle",
            do="put the level that it reads after this one, or do without it",
        )
    return program, captured, read


def loss_of(level: Level, seen: Reader) -> Callable[..., Any]:
    def plain(params: dict[str, Tree], batch: Tree, key: jax.Array) -> Any:
        extra = (key,) if level.stochastic else ()
        if level.precision is None:
            return level.loss(seen(params), batch, *extra)
        low = jnp.dtype(level.precision)
        value = level.loss(seen(_cast(params, low)), _cast(batch, low), *extra)
        return jnp.asarray(value).astype(trees.float_dtype(params))

    return plain


def in_parts(plain: Callable[..., Any], m: int) -> Callable[..., Any]:
    """The mean of a loss over m parts of its batch, one after the other."""

    def dealt(leaf: jax.Array) -> jax.Array:
        """(m, n/m, ...): part k has the rows k, k + m, ...; of a batch on many devices each part is, too."""
        return jnp.moveaxis(leaf.reshape(leaf.shape[0] // m, m, *leaf.shape[1:]), 1, 0)

    def averaged(params: dict[str, Tree], batch: Tree, key: jax.Array) -> Any:
        cut = jax.tree.map(dealt, batch)

        @jax.checkpoint
        def part(params: dict[str, Tree], rows: Tree, number: jax.Array) -> Any:
            return plain(params, rows, jax.random.fold_in(key, number))

        def add(total: jax.Array, rest: Any) -> tuple[jax.Array, None]:
            return total + part(params, *rest) / m, None

        zero = jnp.zeros(
            (), jax.eval_shape(part, params, jax.tree.map(lambda c: c[0], cut), jnp.int32(0)).dtype
        )
        return jax.lax.scan(add, zero, (cut, jnp.arange(m, dtype=jnp.int32)))[0]

    return averaged


def _cast(tree: Tree, dtype: Any) -> Tree:
    def cast(leaf: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf).astype(dtype) if floating else leaf

    return jax.tree.map(cast, tree)


def check_arity(where: str, field: str, function: Any, count: int, stochastic: bool = False) -> None:
    """Whether the user's function takes that many arguments."""
    takes = {1: "(p), the parameters by level", 2: "(p, batch)", 3: "(p, batch, key)"}[count]
    if field == "project":
        takes = "(params), those of this level"
    if not callable(function):
        raise BadArgument(
            where, field, got=function, want=f"a function of {takes}", do="pass the function, not its result"
        )
    signature = signature_that_refuses(function, count)
    if signature is not None:
        raise BadArgument(
            where,
            field,
            got=f"a function with signature {getattr(function, '__name__', 'f')}{signature}",
            want=f"callable with {takes}",
            do="close over the rest" + ("; for a key, pass stochastic=True" if count == 2 else ""),
        )


def check_scalar(where: str, shape: Any) -> None:
    one = isinstance(shape, jax.ShapeDtypeStruct) and shape.shape == ()
    if not (one and jnp.issubdtype(shape.dtype, jnp.floating)):
        raise BadArgument(
            where,
            "loss",
            got=f"a function that returns {shape_text(shape)}",
            want="a function that returns one floating-point number",
            do="reduce it, for example with jnp.mean(...)",
        )
