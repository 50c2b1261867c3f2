"""`nestor.minimize`: looks at what it is given, and sends it to the compiled solvers or to the host."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument
from nestor.minimize import _frameworks
from nestor.minimize._compiled import check_compilable, solve_compiled
from nestor.minimize._host import WHERE, Request, solve
from nestor.minimize._layout import Layout, _look
from nestor.minimize._stop import is_inside
from nestor.minimize._watch import Budget
from nestor.programs import is_traced, signature_that_refuses
from nestor.settings import shown
from nestor.solution import Solution, Status
from nestor.solvers import Report

Tree = Any


def minimize(
    fun: Callable[..., Any],
    x0: Tree,
    args: Any = (),
    *,
    method: Any = None,
    solver: Any = None,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    prox: Any = None,
    tol: float | None = None,
    adjoint: Any = None,
    max_steps: int | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    history: bool = False,
    callback: Callable[[Report], Any] | None = None,
    progress: bool = False,
    checkpoint: Any = None,
    raise_on_failure: bool = True,
    options: dict[str, Any] | None = None,
) -> Solution:
    """Minimize a scalar function of a tree of JAX, NumPy, PyTorch or TensorFlow arrays.

    JAX arrays, and no method of SciPy's: a solver of Nestor's, compiled, and the solution is differentiable in all
    that `fun` reads. All else runs on the host, by SciPy's solvers in float64 on the entries of the tree: gradients
    come from PyTorch, TensorFlow or JAX; with NumPy from you or by finite differences.

    Args:
        fun: from a tree like `x0` (and `args`) to a real scalar, or to the pair (scalar, gradient), the gradient a
            tree like `x0`. A function written in JAX may close over anything, traced values included.
        x0: the start: a dictionary, list, tuple, named tuple, dataclass ... of floating-point arrays and floats, of
            one framework; `.x` is like it in structure, types, dtypes and devices. NumPy's arrays are taken for
            JAX's where `fun` returns a JAX array, so a function written in JAX is differentiated.
        args: further arguments of `fun`, `jac`, `hess` and `hessp`.
        method: a method of SciPy's by name, in any case: "L-BFGS-B" (the default with bounds, and above 100
            unknowns), "BFGS" (the default else), "SLSQP" (the default with constraints), "CG", "Newton-CG",
            "trust-ncg", "trust-exact", "trust-krylov", "dogleg", "TNC", "trust-constr", "COBYLA", "COBYQA",
            "Nelder-Mead", "Powell"; or a solver object, as `solver`.
        solver: for JAX: `BFGS()` (the default up to 100 unknowns), `LBFGS()` (the default above, and with bounds),
            `Newton()`, `NewtonCG()`, `NonlinearCG()`, `GradientDescent()`, `LineSearchNewton()`,
            `LineSearchNewtonCG()`, or any optax transformation.
        jac: the gradient, a function to a tree like `x0`; True where `fun` returns a pair (seen without it too);
            "2-point" or "3-point" for finite differences, whatever the framework could do.
        hess, hessp: second derivatives, (n, n) in the order of the leaves or a tree of trees; and a function
            of (x, p) to the Hessian times p. Without them the framework makes them where a method wants them,
            and differences of gradients with NumPy.
        bounds: None, or a pair (lower, upper), each None, a number, or a tree like `x0` (or a prefix of it) of
            numbers, arrays and None; or SciPy's list of pairs or `Bounds`. No point where `fun` is evaluated is
            outside, rounding to the dtype of a leaf and finite differences included.
        constraints: one or several of `nestor.Constraint`, SciPy's dictionaries and constraint objects; their
            functions take the tree. On the host, one that the framework cannot follow is differenced.
        prox: for JAX: None, or g, so that fun + g is minimized: a penalty or a set of `nestor.proximal`, or a tree
            of them. The solution is differentiable in their settings.
        tol: converged when the largest entry of the projected gradient (of the Lagrangian) is at most
            tol * max(1, that at the start), and constraints are violated by at most tol. None is 1e-5 with gradients,
            1e-4 with finite differences or a method without, and at least three roots of the coarsest precision
            (1e-3 in float32). SciPy is told a given `tol` too. For compiled solvers: an absolute bound on the
            gradient, the root of the precision by default.
        adjoint: for JAX: how derivatives cross the solution; None is `Implicit()`.
        max_steps: steps of the solver at most; None is 1000 compiled, generous on the host.
        max_evaluations, max_seconds: calls of `fun` at most, and time; checked between evaluations.
        history: record value and optimality of every evaluation in `Solution.history`.
        callback: called with a `Report` after every evaluation; a true value or StopIteration stops the solve.
        progress: show a progress line on stderr.
        checkpoint: a file. A solve that was killed, called again with that file, ends in the same bits as if it
            had not been: the host replays the answers of `fun` from it (two are asked again, to see whether the data
            are the same), a compiled solve goes on from its last save. Remove the file to start anew.
        raise_on_failure: raise `SolveFailed` unless converged (but not after Ctrl-C, which returns the best point so
            far; a compiled solve hears it at the next turn with `progress` or `callback`, else within about 0.2 s,
            and not inside a trace. One that comes before a first turn is made raises KeyboardInterrupt, and so does
            one in a solve inside the objective of another, which then returns).
        options: of SciPy's method; one that it does not know is refused.

    Returns:
        A `Solution`. Its status is Nestor's own verdict on `.x`, the residual of which is in `.kkt`; a solver's word is
        not taken for it. Where SciPy stops at a point that is no solution, it is run once more from there with its
        stopping rules tightened.

    Raises:
        BadArgument: an argument cannot be used, or not by that method.
        SolveFailed: the solve did not converge (see raise_on_failure).

    Cost: on the host, SciPy's, with BLAS on one thread while it thinks (more make it many times slower); a
    method without gradients asks for one at its end. Compiled: once for a program and its shapes; calls with other
    arrays, closed over or not, reuse it (another Python number in the closure is another program).

    >>> import jax.numpy as jnp, numpy as np, nestor
    >>> solution = nestor.minimize(lambda x: jnp.sum((x - 3.0) ** 2), jnp.zeros(2))
    >>> solution.x.round(4).tolist(), solution.status.name
    ([3.0, 3.0], 'CONVERGED')
    >>> def fun(p):
    ...     return np.sum((p["a"] - 3.0) ** 2) + p["b"] ** 2
    >>> fit = nestor.minimize(fun, {"a": np.zeros(2), "b": np.float64(1.0)}, bounds=(None, 2.0))
    >>> fit.x["a"].tolist(), fit.status.name
    ([2.0, 2.0], 'CONVERGED')
    """
    return _passed_on(_sent(_asked(**locals())))


def minimize_with_steps(fun: Any, x0: Tree, args: Any, on_step: Any, **options: Any) -> Solution:
    """`minimize` on the host, with a function that is called with the tree after every iteration."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(minimize).parameters.items()}
    return _passed_on(
        _sent(_asked(**(defaults | {"fun": fun, "x0": x0, "args": args} | options), on_step=on_step))
    )


def _passed_on(solution: Solution) -> Solution:
    """The solution; after Ctrl-C in a solve inside another one's objective, the outer one is to hear it, too."""
    if is_inside() and not is_traced(solution.code) and solution.status == Status.INTERRUPTED:
        raise KeyboardInterrupt("Ctrl-C in a solve inside the objective of another one")
    return solution


def _asked(
    *,
    method: Any,
    solver: Any,
    args: Any,
    max_steps: Any,
    max_evaluations: Any,
    max_seconds: Any,
    **others: Any,
) -> Request:
    """The arguments of `minimize`, looked at one by one."""
    method, solver = _which(method, solver)
    args = args if isinstance(args, tuple) else (args,)
    _check_args(others["fun"], args)
    _check_file(others["checkpoint"])
    return Request(
        args=args,
        method=method,
        solver=solver,
        budget=Budget(
            max_steps,  # what is wrong with it is said by those who count
            _whole("max_evaluations", max_evaluations, 1),
            _seconds(max_seconds),
        ),
        **others,
    )


class _WrittenInJAX(BaseException):
    """An objective of NumPy arrays that returns a JAX array."""


def _sent(asked: Request) -> Solution:
    """To the compiled solvers or to the host."""
    leaves: list[Any] = []
    _look(asked.x0, "x0", leaves, [])
    try:
        return _sent_by_leaves(asked, leaves)
    except BadArgument as error:
        of_numpy = isinstance(error.__cause__, jax.errors.TracerArrayConversionError)
        if not (of_numpy and error.argument == "fun" and all(type(leaf) in (int, float) for leaf in leaves)):
            raise
        do = f"write x0 = np.asarray(x0) for a function of NumPy, because bare numbers are JAX's; or {error.do}"
        raise BadArgument(WHERE, "fun", got=error.got, want=error.want, do=do) from error.__cause__


def _sent_by_leaves(asked: Request, leaves: list[Any]) -> Solution:
    scipys = any(x is not None for x in (asked.method, asked.jac, asked.hess, asked.hessp, asked.options))
    _frameworks.refuse_holders(WHERE, leaves)
    scalars = any(isinstance(leaf, np.generic) for leaf in leaves)
    kinds = {_frameworks.kind(leaf) for leaf in leaves if not isinstance(leaf, np.generic)} - {""}
    if any(x is not None for x in (asked.solver, asked.adjoint, asked.prox)):
        check_compilable(asked, kinds)
        return solve_compiled(asked, leaves)
    if kinds <= {"jax"} and not scipys and (kinds or not scalars):
        return solve_compiled(asked, leaves)
    if not callable(asked.fun):
        raise BadArgument(
            WHERE,
            "fun",
            got=shown(asked.fun),
            want="a function of one tree",
            do=f"pass the function itself, not its value, and pass it first: nestor.{WHERE}(fun, x0)",
        )
    if not kinds <= {"numpy"} or not (kinds or scalars):
        return _hosted(asked, leaves)
    try:
        return _hosted(dataclasses.replace(asked, fun=_Probe(asked.fun)), leaves)
    except _WrittenInJAX:
        asked = dataclasses.replace(asked, x0=_in_jax(asked.x0))
    return _sent(asked)


class _Probe:
    """The user's function, which is looked at once: does it return a JAX array?"""

    def __init__(self, fun: Any):
        self.fun, self.looked = fun, False

    def __call__(self, *args: Any) -> Any:
        result = self.fun(*args)
        if not self.looked:
            self.looked = True
            value = result[0] if isinstance(result, tuple) and result else result
            if isinstance(value, jax.Array):
                raise _WrittenInJAX("an objective of NumPy arrays that returns a JAX array")
        return result


def _in_jax(x0: Tree) -> Tree:
    layout = Layout(WHERE, "x0", x0)
    return layout.tree([jnp.asarray(leaf) for leaf in layout.matched("x0", x0)])


# --- on the host -------------------------------------------------------------------------------------


def _hosted(asked: Request, leaves: list[Any]) -> Solution:
    """By a method of SciPy's."""
    if is_traced(leaves):
        raise BadArgument(
            WHERE,
            "method",
            got="a method of SciPy, inside a traced function",
            want="left away inside jit, grad and vmap, for SciPy runs on the host",
            do="leave method out, or pass a solver of Nestor's: solver=nestor.LBFGS()",
        )
    for name in ("jac", "hess", "hessp"):
        _check_derivative(name, getattr(asked, name))
    if asked.callback is not None and not callable(asked.callback):
        raise BadArgument(
            WHERE,
            "callback",
            got=shown(asked.callback),
            want="a function of one Report",
            do="pass a function",
        )
    asked = dataclasses.replace(asked, tol=_tolerance(asked.tol))
    return solve(asked, Layout(WHERE, "x0", asked.x0))


# --- checks ------------------------------------------------------------------------------------------


def _which(method: Any, solver: Any) -> tuple[str | None, Any]:
    """The name of a method of SciPy's, or a solver object."""
    if method is not None and solver is not None:
        raise BadArgument(
            WHERE, "method", got="given beside solver", want="one of the two", do="leave one of them out"
        )
    if method is None or isinstance(method, str):
        return method, solver
    if isinstance(method, type) or all(hasattr(method, verb) for verb in ("init", "update")):
        return None, method  # an optax transformation, or a class, which is refused with its remedy
    if all(hasattr(method, verb) for verb in ("init", "step", "status")):
        return None, method
    raise BadArgument(
        WHERE,
        "method",
        got=shown(method),
        want="the name of a method of SciPy's, or a solver object of Nestor's",
        do='write method="L-BFGS-B", or method=nestor.LBFGS()',
    )


def _check_args(fun: Any, args: tuple[Any, ...]) -> None:
    """Whether a function can be called with the tree and `args`."""
    signature = signature_that_refuses(fun, 1 + len(args)) if args and callable(fun) else None
    if signature is None:
        return
    raise BadArgument(
        WHERE,
        "args",
        got=f"of length {len(args)}, for a function with signature fun{signature}",
        want=f"what fun takes after the tree; fun must take {1 + len(args)} arguments",
        do="leave args out where fun reads its data by itself; a single argument is args=(data,)",
    )


def _check_file(path: Any) -> None:
    """Whether a checkpoint is the name of a file."""
    if path is None or (isinstance(path, (str, os.PathLike)) and path != "" and not os.path.isdir(path)):
        return
    raise BadArgument(
        WHERE,
        "checkpoint",
        got=f"{shown(path)}, a folder" if isinstance(path, (str, os.PathLike)) else shown(path),
        want="None, or the name of a file",
        do='pass for example checkpoint="fit.journal"',
    )


def _check_derivative(name: str, given: Any) -> None:
    words = {"jac": (None, True, False, "2-point", "3-point")}.get(name, (None,))
    if callable(given) or given in words:
        return
    want = "a function, True, False, '2-point' or '3-point'" if name == "jac" else "a function"
    raise BadArgument(
        WHERE, name, got=shown(given), want=want, do=f"pass a function of the tree, or leave {name} out"
    )


def _tolerance(tol: Any) -> float | None:
    if tol is None:
        return None
    number = isinstance(tol, (int, float, np.integer, np.floating)) and not isinstance(tol, bool)
    if not number or not 0 <= tol < math.inf:
        raise BadArgument(
            WHERE, "tol", got=shown(tol), want="a finite number >= 0", do="pass for example tol=1e-6"
        )
    return float(tol)


def _whole(name: str, value: Any, least: int) -> Any:
    """A count, or None."""
    if value is None:
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least:
        return int(value)
    raise BadArgument(
        WHERE, name, got=shown(value), want=f"a Python integer >= {least}", do=f"pass for example {name}=1000"
    )


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and value > 0:
        return float(value)
    raise BadArgument(
        WHERE, "max_seconds", got=shown(value), want="a number of seconds > 0", do="pass for example 60.0"
    )
