"""dict-minimize's call for dictionaries of NumPy's arrays, `minimize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nestor.minimize._compatible import minimize_dictionary

__all__ = ["minimize"]


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
        args, method, tol, options: as `scipy.optimize.minimize` takes them.
        callback: called with a dictionary like `x0_dict` after every iteration.

    Returns:
        The point, like `x0_dict`. A warning says so if it is no solution. `nestor.minimize` returns more.
    """
    return minimize_dictionary(
        fun,
        x0_dict,
        lb_dict=lb_dict,
        ub_dict=ub_dict,
        args=args,
        method=method,
        tol=tol,
        callback=callback,
        options=options,
    )
