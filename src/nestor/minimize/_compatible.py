"""dict-minimize's call, which its four front ends show: the point alone comes back, and a warning where it is none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from nestor.minimize._front import minimize_with_steps
from nestor.solution import Status


def minimize(
    fun: Callable[..., Any],
    x0_dict: Any,
    *,
    lb_dict: Any = None,
    ub_dict: Any = None,
    args: Any = (),
    method: str | None = None,
    tol: float | None = None,
    callback: Callable[[Any], Any] | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """Minimize a function of a dictionary of arrays; a program written for dict-minimize runs by changing its import.

    Args:
        fun: (x, *args) -> (value, gradient), a dictionary like `x0_dict`, or the value alone.
        x0_dict: the start, a dictionary, ordered or not (or any other tree).
        lb_dict, ub_dict: bounds, likewise; None, or with entries None, where there are none.
        args, method, tol, options: as `scipy.optimize.minimize` takes them; the method is "BFGS" where none is named,
            with bounds "L-BFGS-B".
        callback: called with a dictionary like `x0_dict` after every iteration.

    Returns:
        The point, like `x0_dict`. A warning says so if it is no solution. `nestor.minimize` returns more.

    Raises:
        BadArgument: as `nestor.minimize`; bounds for a method that keeps none, too.

    Cost: as `nestor.minimize` on the host: evaluations are those of SciPy on the flattened problem.

    >>> import numpy as np
    >>> from nestor.minimize.numpy_api import minimize
    >>> def fun(p, shift):
    ...     return np.sum((p["a"] - shift) ** 2), {"a": 2.0 * (p["a"] - shift)}
    >>> minimize(fun, {"a": np.zeros(2)}, args=(3.0,), ub_dict={"a": np.array([9.0, 1.0])})["a"].tolist()
    [3.0, 1.0]
    """
    method = method or ("BFGS" if lb_dict is None and ub_dict is None else "L-BFGS-B")
    options, max_steps = dict(options or {}), None
    if method.lower() == "tnc":  # SciPy gave it `maxiter` once, and dict-minimize gives it to all
        max_steps = options.pop("maxiter", None)
    solution = minimize_with_steps(
        fun,
        x0_dict,
        tuple(args) if isinstance(args, (list, tuple)) else (args,),
        callback,
        method=method,
        bounds=None if lb_dict is None and ub_dict is None else (lb_dict, ub_dict),
        tol=tol,
        max_steps=max_steps,
        raise_on_failure=False,
        options=options or None,
    )
    if solution.status == Status.INTERRUPTED:
        raise KeyboardInterrupt("Ctrl-C during minimize; nestor.minimize returns the best point so far")
    if not solution.success:
        warnings.warn(
            f"minimize: {solution.status.message} (status {solution.status.name}, optimality "
            f"{float(solution.stats.optimality):.3g} against {float(solution.stats.tol):.3g}). "
            "nestor.minimize returns the status with the point.",
            stacklevel=2,
        )
    return solution.x
