"""Checks of arguments, shared by all front functions; every message says what, which value, and the remedy.

Here are the arguments themselves; `_settings` checks what is inside a solver or an adjoint.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.programs import is_one_array, shape_text, signature_that_refuses
from nestor.programs import trace_function as trace_function
from nestor.settings import nearest, shown
from nestor.solvers._contract import Composite
from nestor.solvers._rates import Rate
from nestor.solvers._settings import check_settings

Tree = Any

POLICIES = ("nan", "keep", "raise")
_KEEP_BOUNDS = ("LBFGS", "Newton", "NewtonCG", "GradientDescent")

# --- the function and the start ----------------------------------------------------------------------


def check_function(where: str, name: str, fun: Any) -> None:
    """A function must be callable."""
    if not callable(fun):
        raise BadArgument(
            where,
            name,
            got=shown(fun),
            want="a function of one tree",
            do=f"pass the function itself, not its value, and pass it first: nestor.{where}({name}, x0)",
        )


def check_start(where: str, name: str, x: Tree) -> Tree:
    """The start as a tree of floating JAX arrays without weak types."""
    leaves, structure = jax.tree.flatten(x)
    if not leaves:
        raise BadArgument(
            where,
            name,
            got=x,
            want="a tree with at least one array",
            do=f"pass the start of the solve as {name}",
        )
    for i, leaf in enumerate(leaves):
        if not _is_floating(leaf):
            raise _not_floating(where, name, x, i)
    if trees.size(x) == 0:
        raise BadArgument(
            where,
            name,
            got=f"without a single entry: {shape_text(jax.tree.map(jnp.asarray, x))}",
            want="at least one number",
            do="check the shapes of what it was made from",
        )
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    return jax.tree.unflatten(structure, [jax.lax.convert_element_type(a, a.dtype) for a in arrays])


def _is_floating(leaf: Any) -> bool:
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize <= 8
    return isinstance(leaf, float)


def _not_floating(where: str, name: str, x: Tree, i: int) -> BadArgument:
    """Why that leaf cannot be moved, and what to write instead."""
    path, leaf = jax.tree_util.tree_leaves_with_path(x)[i]
    place = f"{name}{jax.tree_util.keystr(path)}"
    got, kind = shown(leaf), {bool: "b", int: "i", complex: "c"}.get(type(leaf), "")
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        got, kind = f"of dtype {leaf.dtype} and shape {leaf.shape}", getattr(leaf.dtype, "kind", "")
    want = "real and floating-point"
    if kind == "c":
        do = "split it into real and imaginary parts, a tree of two arrays, and join them inside fun"
    elif isinstance(leaf, int) and isinstance(x, (list, tuple)):
        do = f"pass one array, jnp.asarray({name}, float), or write {float(leaf)!r}"
    elif isinstance(leaf, int):
        do = f"write {float(leaf)!r}"
    elif kind == "f":
        want, do = "floating-point of at most 64 bits", "convert it with .astype(float)"
    elif kind and kind in "biu":
        do = "convert it with .astype(float)"
    else:
        want, do = "a floating-point array or a float", f"leave it out of {name} and close over it"
        if hasattr(leaf, "__array__") and not kind:
            do = f"convert it with jnp.asarray(np.asarray(...), float), or {do}"
    return BadArgument(where, place, got=got, want=want, do=do)


# --- the solver and the adjoint ----------------------------------------------------------------------

_OPTAX_NAMES = ("adam", "adamw", "sgd", "rmsprop", "adagrad", "lion")
_OTHER_NAMES = {  # what scipy and others call them
    "CG": "NonlinearCG",
    "gd": "GradientDescent",
    "L-BFGS-B": "LBFGS",
    "SLSQP": "SQP",
    "trust-constr": "SQP",
    "trust-exact": "Newton",
    "trust-ncg": "NewtonCG",
    "lm": "LevenbergMarquardt",
    "trf": "LevenbergMarquardt",
    "dogbox": "Dogleg",
    "hybr": "NewtonRoot",
    "broyden1": "Broyden",
}
_CALLS = {
    "minimization": "minimize",
    "root finding": "find_root",
    "fixed point": "fixed_point",
    "least squares": "least_squares",
}
_ADJOINTS = ("Implicit()", "Unroll()", "Truncate(last=10)", "Checkpoint()", "OneStep()", "Forward()")
_ADJOINTS += ("FiniteDifference()", "Evolution()")


def check_solver(where: str, solver: Any, wanted: Any, defaults: dict[str, str], kind: str) -> None:
    """A solver must be a solver, an instance, of the right kind, with settings that make sense."""
    is_solver = all(hasattr(solver, verb) for verb in ("init", "step", "status", "solves"))
    if not is_solver or isinstance(solver, type) or not isinstance(solver.solves, type):
        got, remedy = _not_a_solver(solver, defaults, kind)
        raise BadArgument(where, "solver", got=got, want="a solver object", do=remedy)
    fits = issubclass(wanted, solver.solves) and issubclass(wanted, Composite) == issubclass(
        solver.solves, Composite
    )
    if not fits:
        problem = getattr(solver.solves, "kind", "other")
        other = problem in _CALLS and _CALLS[problem] != where
        instead = f", or call nestor.{_CALLS[problem]}" if other else ""
        if problem == "constrained minimization":
            instead = ", or pass constraints="
        raise BadArgument(
            where,
            "solver",
            got=f"{type(solver).__name__}, a solver for {problem} problems",
            want=f"a solver for {kind} problems",
            do=f"pass one of {_calls(defaults)}{instead}",
        )
    check_settings(where, "solver", solver)


def _calls(names: Any) -> str:
    return ", ".join(f"{name}()" for name in names)


def _not_a_solver(solver: Any, defaults: dict[str, str], kind: str) -> tuple[Any, str]:
    """What was passed for a solver, and what was probably meant."""
    any_of_them = f"pass one of {_calls(defaults)}"
    if isinstance(solver, type):
        name = solver.__name__
        return shown(solver), f"write solver=nestor.{name}()" if name in defaults else any_of_them
    if isinstance(solver, str):
        return shown(solver), _solver_called(solver, defaults, kind) or any_of_them
    if isinstance(solver, (int, float)) and kind == "minimization":
        return (
            solver,
            f"for a learning rate write nestor.GradientDescent(nestor.FixedStep({float(solver)!r}))",
        )
    if hasattr(solver, "advance"):  # a search
        return solver, f"give the search to a solver: solver=nestor.BFGS({solver!r})"
    if isinstance(solver, Rate) and kind == "minimization":
        return (
            solver,
            f"give the step to a solver: solver=nestor.GradientDescent(nestor.{type(solver).__name__}(...))",
        )
    if hasattr(solver, "attach"):
        return solver, f"pass it as adjoint={solver!r}; for the solver, {any_of_them}"
    if hasattr(solver, "run"):
        return solver, f"this one solves linear systems: {any_of_them}"
    if isinstance(solver, tuple) and hasattr(solver, "update"):
        return f"an optax transformation, which can only minimize: {solver!r}", any_of_them
    if callable(solver):
        name = getattr(solver, "__name__", solver)
        return (
            f"the function {name}",
            "call what makes the solver, optax.adam(1e-2); a schedule goes in it, optax.sgd(schedule)",
        )
    return solver, f"{any_of_them}, an optax transformation, or an object with init, step, status and solves"


def _solver_called(text: str, defaults: dict[str, str], kind: str) -> str | None:
    """The solver that goes by that name here, or, in another package, by another."""
    if kind == "minimization" and text.lower() in _OPTAX_NAMES:
        return f"import optax and write solver=optax.{text.lower()}(1e-2)"
    others = {other: ours for other, ours in _OTHER_NAMES.items() if ours in defaults}
    near = nearest(text, [*defaults, *others])
    return f"write solver=nestor.{others.get(near, near)}()" if near else None


def check_adjoint(where: str, adjoint: Any) -> None:
    """An adjoint must be an adjoint, an instance, hashable, with plain numbers in it."""
    if isinstance(adjoint, type) or not hasattr(adjoint, "attach"):
        got, remedy = _not_an_adjoint(adjoint)
        raise BadArgument(where, "adjoint", got=got, want="an adjoint object", do=remedy)
    check_settings(where, "adjoint", adjoint)
    arrays, _ = trees.split(adjoint)
    if arrays:
        raise BadArgument(
            where,
            "adjoint",
            got=adjoint,
            want="built from plain Python numbers",
            do="convert its arrays with float(...); an adjoint's settings are not differentiated",
        )
    try:
        hash(adjoint)
    except TypeError as error:
        raise BadArgument(
            where,
            "adjoint",
            got=adjoint,
            want="hashable, so that what is compiled for it can be found again",
            do="make its class a frozen dataclass of numbers and strings",
        ) from error


def _not_an_adjoint(adjoint: Any) -> tuple[Any, str]:
    any_of_them = f"pass one of {', '.join(_ADJOINTS)} from nestor"
    names = {call.partition("(")[0]: call for call in _ADJOINTS}
    if isinstance(adjoint, type):
        name = adjoint.__name__
        return shown(adjoint), f"write adjoint=nestor.{names[name]}" if name in names else any_of_them
    if hasattr(adjoint, "run"):
        return adjoint, f"write adjoint=nestor.Implicit({adjoint!r})"
    if hasattr(adjoint, "step"):
        return adjoint, f"pass it as solver={adjoint!r}; for the adjoint, {any_of_them}"
    near = nearest(adjoint, names)
    return shown(adjoint), f"write adjoint=nestor.{names[near]}" if near else any_of_them


# --- numbers and policies ----------------------------------------------------------------------------


def check_tol(where: str, tol: Any, dtype: Any) -> float:
    """The tolerance as a Python float; None is the root of the precision."""
    if tol is None:
        return float(jnp.finfo(dtype).eps) ** 0.5
    if isinstance(tol, jax.core.Tracer):
        raise BadArgument(
            where,
            "tol",
            got=tol,
            want="a Python number",
            do="pass a float; tol is not differentiated or batched",
        )
    is_number = not isinstance(tol, (str, bytes, bool)) and np.ndim(tol) == 0
    try:
        value = float(tol) if is_number else math.nan
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise BadArgument(
            where, "tol", got=shown(tol), want="a finite number >= 0", do="pass for example tol=1e-6"
        )
    return value


_MOST_STEPS = 2**31 - 2  # the loop counts turns, one more than steps, in int32


def check_max_steps(where: str, max_steps: Any) -> int:
    """The bound on the number of steps, a Python int."""
    good = isinstance(max_steps, (int, np.integer)) and not isinstance(max_steps, bool)
    if not good or not 0 <= max_steps <= _MOST_STEPS:
        whole = isinstance(max_steps, float) and 0 < max_steps <= _MOST_STEPS
        raise BadArgument(
            where,
            "max_steps",
            got=shown(max_steps),
            want="a Python integer, at least 0 and below 2**31 - 1",
            do=f"pass for example max_steps={math.ceil(max_steps) if whole else 1000}",
        )
    return int(max_steps)


def check_policy(where: str, on_failure: Any) -> None:
    """A policy must be one of the three."""
    if on_failure is not None and not (isinstance(on_failure, str) and on_failure in POLICIES):
        near = nearest(on_failure, POLICIES)
        remedy = (
            f'pass on_failure="{near}"'
            if near
            else 'pass "keep" for x as it is, "nan" to mark it, or "raise"'
        )
        raise BadArgument(
            where, "on_failure", got=shown(on_failure), want=f"None or one of {POLICIES}", do=remedy
        )


def check_callback(where: str, callback: Any) -> str:
    """How much a callback is shown."""
    if callback is None:
        return ""
    want, do = "a function of one Report", "pass for example lambda report: print(report.step, report.fun)"
    if not callable(callback):
        raise BadArgument(where, "callback", got=shown(callback), want=want, do=do)
    signature = signature_that_refuses(callback)
    if signature is not None:
        raise BadArgument(where, "callback", got=f"a function with signature {signature}", want=want, do=do)
    return "points"


# --- what the function returns -----------------------------------------------------------------------


def check_scalar(where: str, name: str, shape: Any) -> None:
    """An objective must return one real floating-point scalar."""
    if not is_one_array(shape):
        raise _bad_result(
            where,
            name,
            shape,
            want="a scalar-valued function",
            do="return the value alone (write return; close over what else is needed)",
        )
    if shape.shape != ():
        do = "sum or average the result, jnp.sum(...) or jnp.mean(...), or use nestor.least_squares for residuals"
        raise _bad_result(where, name, shape, want="scalar-valued (shape ())", do=do)
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        is_complex = jnp.issubdtype(shape.dtype, jnp.complexfloating)
        do = "return its real part or its size: .real, jnp.abs(...)" if is_complex else "return a float"
        raise _bad_result(where, name, shape, want="real floating-point valued", do=do)


def check_same_tree(where: str, name: str, shape: Any, x: Tree) -> None:
    """A residual or map must return a tree like its argument."""
    ours, theirs = jax.tree.leaves(x), jax.tree.leaves(shape)
    same_structure = jax.tree.structure(shape) == jax.tree.structure(x)
    same_shapes = [leaf.shape for leaf in ours] == [leaf.shape for leaf in theirs]
    if same_structure and same_shapes and [a.dtype for a in ours] == [a.dtype for a in theirs]:
        return
    if same_structure and same_shapes:
        do = "convert the result to the dtype of the argument, .astype(x.dtype)"
    elif theirs and trees.size(shape) > trees.size(x):
        do = "return one entry for each unknown; for more equations than unknowns use nestor.least_squares"
    else:
        do = "return the same structure, shapes and dtypes, one entry for each unknown"
    raise BadArgument(
        where,
        name,
        got=f"a function from {shape_text(x)} to {shape_text(shape)}",
        want="a function that returns a tree like its argument",
        do=do,
    )


def check_residuals(where: str, name: str, shape: Any, x: Tree) -> None:
    """Residuals must be a tree of real floating-point arrays."""
    leaves = jax.tree.leaves(shape)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        is_complex = any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in leaves)
        parts = "return the real and imaginary parts, a tuple of two arrays"
        do = parts if is_complex else "return the residuals r, not ½|r|², as float arrays: .astype(float)"
        raise _bad_result(
            where, name, shape, want="a function that returns a tree of floating-point residuals", do=do
        )


def _bad_result(where: str, name: str, shape: Any, want: str, do: str) -> BadArgument:
    return BadArgument(where, name, got=f"a function that returns {shape_text(shape)}", want=want, do=do)


def check_keeps_bounds(where: str, solver: Any, names: tuple[str, ...] = _KEEP_BOUNDS) -> None:
    """A solver that is given bounds must be one that keeps them."""
    if not getattr(solver, "bounds", False):
        raise BadArgument(
            where,
            "solver",
            got=f"{type(solver).__name__}, which knows no bounds",
            want="a solver that keeps bounds",
            do=f"leave solver out, or pass one of {_calls(names)}",
        )


def check_alone(where: str, prox: Any) -> None:
    """A penalty does not go with constraints."""
    if prox is not None:
        raise BadArgument(
            where,
            "prox",
            got="both constraints and prox",
            want="one of them",
            do="write a smooth penalty into fun, or the set of a prox as a Constraint",
        )
