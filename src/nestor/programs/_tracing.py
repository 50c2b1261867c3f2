"""Trace the user's function, and say what to do where it cannot be traced.

Errors that JAX raises because a value is traced become a `BadArgument` with the remedy first and JAX's own
error as its cause. The user's own exceptions pass through as they are, with a note of where they arose.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument, NestorError
from nestor.programs._programs import Program, hoist

Tree = Any


def trace_function(
    where: str, name: str, fun: Callable[..., Any], *args: Tree, takes: str = "one argument, the tree x"
) -> tuple[Program, list[Any], Any]:
    """Trace the user's function; its program, what it captured, and the shapes of its result.

    Args:
        where, name: the public function and its argument, for messages.
        fun: the user's function.
        *args: example arguments.
        takes: in words, what the function is called with.

    Raises:
        BadArgument: it cannot be traced, or called with these arguments; JAX's error is the cause.
    """

    def called(*args: Tree) -> Tree:  # new at each call: JAX keeps traces by function, globals may be rebound
        result = fun(*args)
        _check_result(where, name, result)
        return result

    try:
        program, captured = hoist(called, *args)
    except NestorError:  # of a solve inside fun, or of the check above
        raise
    except Exception as error:
        if isinstance(error, TypeError):
            _check_arity(where, name, fun, len(args), takes, error)
        hint = _hint(error)
        if hint is not None:
            got, remedy = hint
            raise BadArgument(
                where, name, got=f"a function that {got}", want="traceable by JAX", do=remedy
            ) from error
        _add_note(where, name, args, error)
        raise
    return program, captured, program.out_shape


def is_traced(tree: Tree) -> bool:
    """Whether a traced array is among the leaves of a tree."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def inside_jit() -> bool:
    """Whether this runs inside a `jit` (or a loop of JAX), also one that none of the values at hand come from."""
    return is_traced(jnp.array(0))


def in_trace(tree: Tree) -> bool:
    """Whether what is computed from a tree here is traced: by what it comes from, or by where this runs."""
    return is_traced(tree) or inside_jit()


_HINTS: tuple[tuple[type[Exception], str, str, str], ...] = (  # the first that fits: class, text, got, remedy
    (
        jax.errors.TracerBoolConversionError,
        "",
        "branches on the value of a traced array (if, while, and, not, max, assert)",
        "use jnp.where or jax.lax.cond for a branch, jax.lax.while_loop for a loop, jnp.maximum for max",
    ),
    (
        jax.errors.TracerArrayConversionError,
        "",
        "turns a traced array into a NumPy array (numpy or scipy was called on it)",
        "use jax.numpy and jax.scipy in it, or jax.pure_callback around what has no JAX version",
    ),
    (
        jax.errors.TracerIntegerConversionError,
        "",
        "uses a traced value as a Python integer (an index of a list, range)",
        "index an array instead of a list, or use jax.lax.fori_loop for the loop",
    ),
    (
        jax.errors.NonConcreteBooleanIndexError,
        "",
        "selects entries by a traced mask, x[mask]",
        "keep the shape: use jnp.where(mask, x, 0.0)",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "",
        "turns a traced value into a Python number (float, int, .item(), math.*)",
        "leave it an array: use jnp.sin for math.sin, no float(...); shapes and sizes must be Python numbers",
    ),
    (
        TypeError,
        "arrays are immutable",
        "assigns to entries of a JAX array in place",
        "write x = x.at[i].set(value) instead of x[i] = value",
    ),
    (
        TypeError,
        "Tracer",
        "hands a traced array to code that does not know JAX (torch, string formatting, a C extension)",
        "use jax.numpy in it, jax.debug.print to print, or jax.pure_callback around foreign code",
    ),
)


def _hint(error: Exception) -> tuple[str, str] | None:
    for kind, text, got, remedy in _HINTS:
        if isinstance(error, kind) and text in str(error):
            return got, remedy
    return None


def _add_note(where: str, name: str, args: tuple[Tree, ...], error: Exception) -> None:
    if any(note.startswith("nestor.") for note in getattr(error, "__notes__", ())):
        return  # an inner solve has said it
    if len(args) != 1:
        shapes = "; ".join(shape_text(part) for part in args)
        error.add_note(f"nestor.{where} was tracing {name} with arguments of shapes {shapes}.")
        return
    x = args[0]
    note = f"nestor.{where} was tracing {name}(x) with x like x0: {shape_text(x)}."
    if isinstance(x, (list, tuple)) and not any(leaf.ndim for leaf in jax.tree.leaves(x)):
        note += f" For one array instead of a {type(x).__name__}, pass x0 = jnp.asarray(x0)."
    error.add_note(note)


def _check_result(where: str, name: str, result: Tree) -> None:
    for leaf in jax.tree.leaves(result):
        known = isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, int, complex))
        if not known and not hasattr(leaf, "__jax_array__"):
            raise BadArgument(
                where,
                name,
                got=f"a function that returns a {type(leaf).__name__}",
                want="a function that returns arrays or numbers",
                do="return what was computed with jax.numpy, for example jnp.sum(...)",
            )


def _check_arity(
    where: str, name: str, fun: Callable[..., Any], count: int, takes: str, error: TypeError
) -> None:
    """Whether a TypeError came about because the function does not take that many arguments."""
    signature = signature_that_refuses(fun, count)
    if signature is None:
        return
    called = getattr(fun, "__name__", "fun")
    called = "fun" if called == "<lambda>" else called
    close = f"lambda x: {called}(x, data)" if count == 1 else f"lambda x, data: {called}(x, data, extra)"
    few = len(signature.parameters) < count  # and none of them is *args, which refuses no number
    raise BadArgument(
        where,
        name,
        got=f"a function with signature {called}{signature}",
        want=f"callable with {takes}",
        do="let it take what it is called with, used or not" if few else f"close over the rest: {close}",
    ) from error


def signature_that_refuses(fun: Callable[..., Any], count: int = 1) -> inspect.Signature | None:
    """The signature of a function that cannot be called with that many arguments; None for all others."""
    try:
        signature = inspect.signature(fun)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return signature
    return None


def shape_text(shape: Any) -> str:
    """The dtypes and shapes of a tree in one short line."""

    def leaf(x: Any) -> str:
        return f"{x.dtype}{list(x.shape)}"

    leaves = jax.tree.leaves(shape)
    if not leaves:
        return "nothing"
    if is_one_array(shape):
        return leaf(leaves[0])
    text = str(jax.tree.map(leaf, shape)).replace("'", "")
    return text if len(text) < 100 else text[:97] + "..."


def structure_text(tree: Tree, is_leaf: Callable[[Any], bool] | None = None) -> str:
    """The structure of a tree in one short line, with a star for each leaf: ``{'a': *, 'b': [*, *]}``."""
    text = str(jax.tree.structure(tree, is_leaf=is_leaf)).removeprefix("PyTreeDef(").removesuffix(")")
    text = "one array" if text == "*" else text
    return text if len(text) < 100 else text[:97] + "..."


def is_one_array(shape: Any) -> bool:
    """Whether a tree is a single leaf and nothing around it."""
    return jax.tree.structure(shape) == jax.tree.structure(0)
