"""By a solver of Nestor's: what was asked for in SciPy's words or on a user's tree, as `nestor.solvers` takes it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor import solvers
from nestor.errors import BadArgument, SolveFailed
from nestor.minimize._box import is_list_of_pairs, pairs_as_sides
from nestor.minimize._constraints import are_given, of_leaves
from nestor.minimize._host import WHERE, Request
from nestor.minimize._layout import Layout
from nestor.minimize._stretches import pace
from nestor.programs import is_traced
from nestor.solution import Solution, Status

Tree = Any


def check_compilable(asked: Request, kinds: set[str]) -> None:
    """Refuse, beside a solver of Nestor's, what is not of JAX, and what belongs to SciPy's methods."""
    name = next(name for name in ("solver", "adjoint", "prox") if getattr(asked, name) is not None)
    if not kinds <= {"jax", "numpy"}:
        raise BadArgument(
            WHERE,
            name,
            got="given with arrays of another framework than JAX",
            want="left out there: compiled solvers run programs of JAX",
            do='pass method="L-BFGS-B" or another of SciPy\'s, or write fun with jax.numpy',
        )
    for other in ("method", "jac", "hess", "hessp", "options"):
        if getattr(asked, other) is not None:
            raise BadArgument(
                WHERE,
                other,
                got=f"given beside {name}",
                want="left out there: a compiled solver takes derivatives by JAX, and has its own settings",
                do=f"leave out {other}, or {name}",
            )


def solve_compiled(asked: Request, leaves: list[Any]) -> Solution:
    """By a solver of Nestor's."""
    fun, args, budget = asked.fun, asked.args, asked.budget
    called = (lambda x: fun(x, *args)) if args and callable(fun) else fun
    steps = 1000 if budget.steps is None else budget.steps
    most = budget.evaluations
    short = most is not None and isinstance(steps, int) and most - 1 < steps
    options: dict[str, Any] = {
        "bounds": _sides(asked, leaves),
        "solver": asked.solver,
        "adjoint": asked.adjoint,
        "tol": asked.tol,
        "max_steps": most - 1 if short and most is not None else steps,
        "history": asked.history,
        "callback": asked.callback,
        "progress": asked.progress,
        "prox": asked.prox,
    }
    if are_given(asked.constraints):
        options["constraints"] = asked.constraints
    if _strange(asked.x0, leaves):
        called, x0, options, back = _through_leaves(asked, called, options)
    else:
        x0, back = asked.x0, None
    paced = asked.checkpoint is not None or budget.seconds is not None
    if paced:
        hand = functools.partial(pace, checkpoint=asked.checkpoint, max_seconds=budget.seconds)
        solution = solvers.minimize_paced(called, x0, hand, raise_on_failure=False, **options)
    elif not short and back is None:
        return solvers.minimize(called, x0, raise_on_failure=asked.raise_on_failure, **options)
    else:
        solution = solvers.minimize(called, x0, raise_on_failure=False, **options)
    if back is not None:
        solution = _in_the_users_tree(solution, back)
    if is_traced(solution.code):
        return solution
    if short and solution.status == Status.OUT_OF_STEPS:
        solution = dataclasses.replace(solution, code=jnp.int32(int(Status.OUT_OF_EVALUATIONS)))
    if asked.raise_on_failure and not solution.success and solution.status != Status.INTERRUPTED:
        raise SolveFailed.of(WHERE, solution, "")
    return solution


def _strange(x0: Tree, leaves: list[Any]) -> bool:
    """Whether JAX sees other leaves in x0 than we: dataclasses and dictionaries of a class that it does not know."""
    try:
        seen = jax.tree.leaves(x0)
    except (TypeError, ValueError):  # keys that cannot be sorted
        return True
    return {id(leaf) for leaf in seen} != {id(leaf) for leaf in leaves}


def _in_the_users_tree(solution: Solution, back: Callable[[list[Any]], Tree]) -> Solution:
    kkt = solution.kkt
    if kkt is not None:
        sides = (side if side is None else back(side) for side in (kkt.lower, kkt.upper))
        kkt = dataclasses.replace(kkt, **dict(zip(("lower", "upper"), sides, strict=True)))
    return dataclasses.replace(solution, x=back(solution.x), kkt=kkt)


def _sides(asked: Request, leaves: list[Any]) -> Any:
    """SciPy's pairs and `Bounds` as lower and upper bounds; all else as it is."""
    bounds = asked.bounds
    if bounds is None:
        return None
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        layout = Layout(WHERE, "x0", asked.x0)
        return layout.cut(bounds.lb), layout.cut(bounds.ub)
    pairs = is_list_of_pairs(bounds, [np.shape(leaf) for leaf in leaves])
    return pairs_as_sides(WHERE, bounds) if pairs else bounds


def _through_leaves(
    asked: Request, called: Any, options: dict[str, Any]
) -> tuple[Any, list[Any], dict[str, Any], Callable[[list[Any]], Tree]]:
    """A tree that JAX does not know as one, solved as the list of its leaves."""
    layout = Layout(WHERE, "x0", asked.x0)
    options, callback = dict(options), asked.callback
    if options["bounds"] is not None and isinstance(options["bounds"], (tuple, list)):
        options["bounds"] = tuple(layout.spread("bounds", side) for side in options["bounds"])
    if callback is not None:
        options["callback"] = lambda report: callback(
            dataclasses.replace(report, x=layout.tree(jax.tree.leaves(report.x)))
        )
    if "constraints" in options:
        given = options["constraints"]
        several = given if isinstance(given, (list, tuple)) else [given]
        options["constraints"] = [of_leaves(one, layout) for one in several]
    if options["prox"] is not None and type(options["prox"]) is type(asked.x0):
        options["prox"] = layout.parts("prox", options["prox"])
    leaves = layout.matched("x0", asked.x0)
    return lambda parts: called(layout.tree(parts)), leaves, options, layout.tree
