"""dict-minimize's call, which its four front ends share: the point alone comes back, and a warning where it is none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from nestor.minimize._front import minimize_with_steps
from nestor.solution import Status


def minimize_dictionary(
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
    """See the modules that show it."""
    method = method or ("BFGS" if lb_dict is None and ub_dict is None else "L-BFGS-B")
    solution = minimize_with_steps(
        fun,
        x0_dict,
        tuple(args) if isinstance(args, (list, tuple)) else (args,),
        callback,
        method=method,
        bounds=None if lb_dict is None and ub_dict is None else (lb_dict, ub_dict),
        tol=tol,
        raise_on_failure=False,
        options=options,
    )
    if solution.status == Status.INTERRUPTED:
        raise KeyboardInterrupt("Ctrl-C during minimize; nestor.minimize returns the best point so far")
    if not solution.success:
        warnings.warn(
            f"minimize: {solution.status.message} (status {solution.status.name}, optimality "
            f"{float(solution.stats.optimality):.3g} against {float(solution.stats.tol):.3g}). "
            "nestor.minimize returns the status with the point.",
            stacklevel=3,
        )
    return solution.x
