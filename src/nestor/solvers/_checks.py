"""Checks of arguments, shared by all front functions; every message says what, which value, and the remedy."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.programs import Program, hoist

Tree = Any

POLICIES = ("nan", "keep", "raise")


def check_function(where: str, name: str, fun: Any) -> None:
    """A function must be callable."""
    if not callable(fun):
        raise BadArgument(
            where, name, got=fun, want="a function", do=f"pass a function of one tree, {name}(x)"
        )


def check_start(where: str, name: str, x: Tree) -> Tree:
    """The start as a tree of floating JAX arrays without weak types."""
    if not jax.tree.leaves(x):
        raise BadArgument(
            where, name, got=x, want="a tree with at least one array", do="pass the start of the solve"
        )

    def leaf(path: Any, value: Any) -> jax.Array:
        place = f"{name}{jax.tree_util.keystr(path)}"
        if not isinstance(value, (jax.Array, np.ndarray, np.generic, float, int, complex)):
            raise BadArgument(
                where,
                name,
                got=f"a tree whose leaf {place} is a {type(value).__name__}",
                want="a tree of floating-point arrays or floats",
                do="convert that leaf with jnp.asarray, or leave it out of x0 and close over it",
            )
        dtype = jnp.result_type(value)
        if not jnp.issubdtype(dtype, jnp.floating):
            is_array = isinstance(value, (jax.Array, np.ndarray))
            about = f"of dtype {dtype} and shape {np.shape(value)}" if is_array else f"= {value!r}"
            complex_ = jnp.issubdtype(dtype, jnp.complexfloating)
            remedy = (
                "split it into real and imaginary parts" if complex_ else "convert it with .astype(float)"
            )
            if isinstance(value, int):
                remedy = f"write {float(value)!r}"
            raise BadArgument(where, name, got=f"{place} {about}", want="real and floating-point", do=remedy)
        array = jnp.asarray(value)
        return jax.lax.convert_element_type(array, array.dtype)

    start = jax.tree_util.tree_map_with_path(leaf, x)
    if trees.size(start) == 0:
        raise BadArgument(
            where,
            name,
            got="a tree without a single entry",
            want="at least one number",
            do="check its shapes",
        )
    return start


def check_solver(where: str, solver: Any, wanted: Any, defaults: dict[str, str], kind: str) -> None:
    """A solver must be a solver, an instance, and of the right kind."""
    classes = ", ".join(defaults)
    if isinstance(solver, type):
        raise BadArgument(
            where,
            "solver",
            got=f"the class {solver.__name__}",
            want="a solver object",
            do=f"write solver=nestor.{solver.__name__}()",
        )
    if isinstance(solver, str):
        near = [name for name in defaults if name.lower() == solver.lower().replace("-", "")]
        remedy = f"write solver=nestor.{near[0]}()" if near else f"pass one of {classes}"
        raise BadArgument(
            where, "solver", got=solver.__repr__() + " (str)", want="a solver object", do=remedy
        )
    if not all(hasattr(solver, verb) for verb in ("init", "step", "status", "solves")):
        raise BadArgument(
            where,
            "solver",
            got=solver,
            want="a solver with init, step, status and solves, or an optax transformation",
            do=f"pass one of {classes}",
        )
    if not issubclass(wanted, solver.solves):
        raise BadArgument(
            where,
            "solver",
            got=f"{type(solver).__name__}, a solver for {solver.solves.kind} problems",
            want=f"a solver for {kind} problems",
            do=f"pass one of {classes}, or call nestor.{_CALLS.get(solver.solves.kind, 'minimize')}",
        )


_CALLS = {
    "minimization": "minimize",
    "root finding": "find_root",
    "fixed point": "fixed_point",
    "least squares": "least_squares",
}


def check_adjoint(where: str, adjoint: Any) -> None:
    """An adjoint must be an adjoint, an instance, with plain numbers in it."""
    remedy = "pass nestor.Implicit(), Unroll(), Truncate(last=k), Checkpoint(), OneStep(), Forward() "
    remedy += "or FiniteDifference()"
    if isinstance(adjoint, type) or not hasattr(adjoint, "attach"):
        shown = f"the class {adjoint.__name__}" if isinstance(adjoint, type) else adjoint
        raise BadArgument(where, "adjoint", got=shown, want="an adjoint object", do=remedy)
    arrays, _ = trees.split(adjoint)
    if arrays:
        raise BadArgument(
            where,
            "adjoint",
            got=adjoint,
            want="built from plain Python numbers",
            do="convert its arrays with float(...); an adjoint's settings are not differentiated",
        )
    linear_solver = getattr(adjoint, "linear_solver", None)
    if hasattr(adjoint, "linear_solver") and not hasattr(linear_solver, "run"):
        raise BadArgument(
            where,
            "adjoint",
            got=f"Implicit({linear_solver!r})",
            want="an Implicit with a linear solver object",
            do="pass Implicit(nestor.CG()), Implicit(nestor.LU()) or Implicit()",
        )
    for field in ("last", "levels", "batch"):
        count = getattr(adjoint, field, None)
        if count is not None and (not isinstance(count, int) or count < 1):
            raise BadArgument(
                where,
                "adjoint",
                got=adjoint,
                want=f"one with a positive integer {field}",
                do=f"pass {type(adjoint).__name__}({field}=2)",
            )


def check_tol(where: str, tol: Any, dtype: Any) -> float:
    """The tolerance as a Python float; None is the root of the precision."""
    if tol is None:
        return float(jnp.finfo(dtype).eps) ** 0.5
    if isinstance(tol, jax.core.Tracer):
        raise BadArgument(
            where,
            "tol",
            got="a traced value",
            want="a Python number",
            do="pass a float; tol is not differentiated",
        )
    try:
        value = float(tol)
    except (TypeError, ValueError):
        value = math.nan
    if not (value >= 0 and math.isfinite(value)):
        raise BadArgument(where, "tol", got=tol, want="a finite number >= 0", do="pass for example tol=1e-6")
    return value


def check_max_steps(where: str, max_steps: Any) -> int:
    """The bound on the number of steps, a Python int."""
    good = isinstance(max_steps, (int, np.integer)) and not isinstance(max_steps, bool)
    if not good or max_steps < 0:
        raise BadArgument(
            where, "max_steps", got=max_steps, want="an integer >= 0", do="pass for example max_steps=1000"
        )
    return int(max_steps)


def check_policy(where: str, on_failure: Any) -> None:
    """A policy must be one of the three."""
    if on_failure not in (None, *POLICIES):
        raise BadArgument(
            where, "on_failure", got=on_failure, want=f"one of {POLICIES}", do='pass on_failure="nan"'
        )


def check_callback(where: str, callback: Any) -> str:
    """How much a callback is shown."""
    if callback is None:
        return ""
    if not callable(callback):
        raise BadArgument(
            where, "callback", got=callback, want="a function of one Report", do="pass lambda report: ..."
        )
    return "points"


def trace_function(where: str, name: str, fun: Callable[..., Any], x: Tree) -> tuple[Program, list[Any], Any]:
    """Trace the user's function at x; its program, what it captured, and the shapes of its result."""
    _check_arity(where, name, fun)
    program, captured = hoist(fun, x)
    return program, captured, program.out_shape


def check_scalar(where: str, name: str, shape: Any) -> None:
    """An objective must return one real floating-point scalar."""
    leaves = jax.tree.leaves(shape)
    is_array = len(leaves) == 1 and jax.tree.structure(shape) == jax.tree.structure(0)
    if not is_array:
        tuple_hint = "return the value alone (close over what else is needed)"
        raise BadArgument(
            where,
            name,
            got=f"a function that returns {_shape_text(shape)}",
            want="a scalar-valued function",
            do=tuple_hint,
        )
    (leaf,) = leaves
    if leaf.shape != ():
        remedy = "sum or average the result: jnp.sum(...), jnp.mean(...)"
        if where in ("minimize", "argmin", "minimum"):
            remedy += ", or use nestor.least_squares for residuals"
        raise BadArgument(
            where,
            name,
            got=f"a function that returns shape {leaf.shape}",
            want="scalar-valued (shape ())",
            do=remedy,
        )
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise BadArgument(
            where,
            name,
            got=f"a function that returns dtype {leaf.dtype}",
            want="real floating-point valued",
            do="return a float: take .real, or .astype(float)",
        )


def check_same_tree(where: str, name: str, shape: Any, x: Tree) -> None:
    """A residual or map must return a tree like its argument."""
    wanted = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), x)
    got = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shape)
    if jax.tree.structure(shape) != jax.tree.structure(x) or wanted != got:
        raise BadArgument(
            where,
            name,
            got=f"a function from {_shape_text(x)} to {_shape_text(shape)}",
            want="a function that returns a tree like its argument",
            do="return the same structure, shapes and dtypes; for more equations than unknowns use least_squares",
        )


def check_residuals(where: str, name: str, shape: Any, x: Tree) -> None:
    """Residuals must be a tree of real floating-point arrays."""
    leaves = jax.tree.leaves(shape)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise BadArgument(
            where,
            name,
            got=f"a function that returns {_shape_text(shape)}",
            want="a function that returns a tree of floating-point residuals",
            do="return the residuals r, not ½|r|², as float arrays",
        )


def _check_arity(where: str, name: str, fun: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(fun)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise BadArgument(
            where,
            name,
            got=f"a function with signature {getattr(fun, '__name__', 'fun')}{signature}",
            want="callable with one argument, the tree x",
            do=f"close over the rest: lambda x: {getattr(fun, '__name__', 'fun')}(x, data)",
        ) from error


def _shape_text(shape: Any) -> str:
    def leaf(x: Any) -> str:
        return f"{x.dtype}{list(x.shape)}"

    leaves = jax.tree.leaves(shape)
    if not leaves:
        return "nothing"
    if len(leaves) == 1 and jax.tree.structure(shape) == jax.tree.structure(0):
        return leaf(leaves[0])
    text = str(jax.tree.map(leaf, shape)).replace("'", "")
    return text if len(text) < 200 else text[:197] + "..."
