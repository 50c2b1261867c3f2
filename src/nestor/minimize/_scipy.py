"""One call of `scipy.optimize.minimize`, on the unknowns that are not fixed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.minimize import _threads
from nestor.minimize._methods import Method
from nestor.minimize._stop import Stop
from nestor.minimize._watch import Watch
from nestor.solution import Status

Vector = np.ndarray


def call_scipy(
    watch: Watch,
    method: Method,
    options: dict[str, Any],
    x: Vector,
    free: np.ndarray,
    tol: float | None,
    second: bool,
) -> Vector | None:
    """The point where SciPy stops; None where it fails by itself.

    Args:
        watch: the objective.
        method, options, tol: as SciPy takes them.
        x: the start, all unknowns.
        free: which of them move.
        second: whether to pass second derivatives.
    """
    from scipy.optimize import Bounds, minimize

    widen, narrow = _maps(x, free)
    arguments: dict[str, Any] = {"jac": None}
    fun: Callable[[Vector], Any]
    if method.gradient:
        arguments["jac"] = True
        fun = lambda z: _value_and_grad(watch, widen(z), narrow)  # noqa: E731
    else:
        fun = lambda z: _read(watch, method, widen(z), "value")  # noqa: E731
    if second and method.matrix and not (method.product and watch.objective.hess is None):
        arguments["hess"] = lambda z: narrow(narrow(watch.hessian(widen(z))).T)
    elif second:
        blank = np.zeros(x.size)
        fill = (lambda p: p) if free.all() else (lambda p: _placed(blank, free, p))
        arguments["hessp"] = lambda z, p: narrow(watch.product(widen(z), fill(p)))
    if watch.box.given:
        sides: Any = watch.box.lower[free], watch.box.upper[free]
        arguments["bounds"] = Bounds(*sides, keep_feasible=method.interior)
    if watch.constraints is not None:
        arguments["constraints"] = _constraints(watch, method, widen, free)
    before, start = watch.points, (watch.box.interior(x) if method.interior else x)[free]
    unread = {"TNC": ("maxiter",), "L-BFGS-B": ("disp", "iprint")}.get(method.name, ())  # SciPy's say so, too
    limits = {name: value for name, value in options.items() if name not in unread}
    with warnings.catch_warnings(), _threads.one_thread() as threads:
        warnings.filterwarnings("ignore", module=r"scipy\..*")
        watch.around = threads
        try:
            result = minimize(
                fun,
                start,
                method=method.name,
                tol=tol,
                options=limits,
                callback=lambda z, *_: watch.step(widen(np.asarray(z))),
                **arguments,
            )
        except Stop as stop:
            if stop.status != Status.STALLED:
                raise
            return None  # it walks in circles
        except Exception as error:
            if error is watch.error:
                raise
            if watch.points == before and watch.points <= 1 and isinstance(error, (TypeError, ValueError)):
                raise BadArgument(
                    "minimize",
                    "options",
                    got=f"{options}, of which SciPy says: {error}",
                    want=f"as {method.name} takes them",
                    do="look them up in the documentation of scipy.optimize.minimize",
                ) from error
            return None  # a matrix that is not finite, and the like
        finally:
            watch.around = None
    return widen(np.asarray(result.x, np.float64))


def _read(watch: Watch, method: Method, x: Vector, what: str) -> Any:
    """The value of the objective or the values of the constraints at x.

    COBYLA steps out of the bounds. There it is shown an odd extension, 2 f(nearest point) - f(mirror image), which
    has the slope that f has inside, and for which nothing is evaluated outside.
    """
    inside = watch.box.clip(x)
    at = getattr(watch.at(inside), what)
    if method.name != "COBYLA" or np.array_equal(inside, x):
        return at
    return 2 * at - getattr(watch.at(2 * inside - x), what)


def _value_and_grad(watch: Watch, x: Vector, narrow: Callable[[Vector], Vector]) -> tuple[float, Vector]:
    seen = watch.at(x)
    assert seen.grad is not None
    return seen.value, narrow(seen.grad)


def _maps(x: Vector, free: np.ndarray) -> tuple[Callable[[Vector], Vector], Callable[[Vector], Vector]]:
    """From the free unknowns to all, and from what belongs to all (along the first axis) to the free."""
    if free.all():
        return (lambda z: z), (lambda g: g)
    return (lambda z: _placed(x, free, z)), (lambda g: g[free])


def _placed(x: Vector, free: np.ndarray, z: Vector) -> Vector:
    full = x.copy()
    full[free] = z
    return full


def _constraints(watch: Watch, method: Method, widen: Callable[[Vector], Vector], free: np.ndarray) -> Any:
    from scipy.optimize import NonlinearConstraint

    all_of_them = watch.constraints
    assert all_of_them is not None
    lower, upper, equal = all_of_them.lower, all_of_them.upper, all_of_them.equal

    def values(z: Vector) -> Vector:
        return _read(watch, method, widen(z), "values")

    def jacobian(z: Vector) -> np.ndarray:
        return watch.constraint_jacobian(widen(z))[:, free]

    if method.name != "SLSQP":
        derivative: Any = jacobian if method.gradient else "2-point"
        return NonlinearConstraint(values, lower, upper, jac=derivative)
    has_lower, has_upper = np.isfinite(lower) & ~equal, np.isfinite(upper) & ~equal

    def slack(z: Vector) -> Vector:
        c = values(z)
        return np.concatenate([(c - lower)[has_lower], (upper - c)[has_upper]])

    def slack_jacobian(z: Vector) -> np.ndarray:
        rows = jacobian(z)
        return np.concatenate([rows[has_lower], -rows[has_upper]])

    found = []
    if equal.any():
        found.append(
            {
                "type": "eq",
                "fun": lambda z: (values(z) - lower)[equal],
                "jac": lambda z: jacobian(z)[equal],
            }
        )
    if (has_lower | has_upper).any():
        found.append({"type": "ineq", "fun": slack, "jac": slack_jacobian})
    return found
