"""SciPy's methods: what each wants, what each can honour, and how it is told to go on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.settings import nearest, shown


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of `scipy.optimize.minimize`.

    Attributes:
        name: SciPy's.
        gradient: whether it uses one.
        matrix, product: whether it can use a Hessian, and products with one.
        second: whether it needs one of them.
        bounds, constraints: whether it honours any.
        options: the names that it knows.
        limits: those that bound its work, set so that only the user's budgets end a run.
        tight: what makes it go on, given the gradient that is wanted.
        interior: whether it starts, and stays, between the bounds: from a point on one it does not get away.
    """

    name: str
    gradient: bool = True
    matrix: bool = False
    product: bool = False
    second: bool = False
    bounds: bool = False
    constraints: bool = False
    options: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = (("maxiter", 15000),)
    tight: tuple[tuple[str, float | None], ...] = (("gtol", None),)  # None: the gradient that is wanted
    interior: bool = False

    def tightened(self, target: float) -> dict[str, float]:
        """The options of a second run, from the best point of the first."""
        return {name: target if value is None else value for name, value in self.tight}


_TRUST = ("initial_trust_radius", "max_trust_radius", "eta", "gtol", "maxiter", "disp")

METHODS = {
    method.name: method
    for method in (
        Method(
            "Nelder-Mead",
            gradient=False,
            bounds=True,
            options=(
                *("maxiter", "maxfev", "disp", "initial_simplex"),
                *("xatol", "fatol", "adaptive"),
            ),
            limits=(("maxiter", 10**6), ("maxfev", 10**7)),
            tight=(("xatol", 1e-10), ("fatol", 1e-15)),
        ),
        Method(
            "Powell",
            gradient=False,
            bounds=True,
            options=("xtol", "ftol", "maxiter", "maxfev", "disp", "direc"),
            limits=(("maxiter", 10**5), ("maxfev", 10**7)),
            tight=(("xtol", 1e-10), ("ftol", 1e-15)),
        ),
        Method("CG", options=("gtol", "norm", "maxiter", "disp", "c1", "c2")),
        Method(
            "BFGS",
            options=(
                *("gtol", "norm", "maxiter", "disp"),
                *("xrtol", "c1", "c2", "hess_inv0"),
            ),
        ),
        Method(
            "Newton-CG",
            matrix=True,
            product=True,
            second=True,
            options=("xtol", "maxiter", "disp", "c1", "c2"),
            tight=(("xtol", 1e-13),),
        ),
        Method(
            "L-BFGS-B",
            bounds=True,
            options=(
                *("maxcor", "ftol", "gtol", "maxfun", "maxiter", "maxls"),
                *("disp", "iprint"),
            ),
            limits=(("maxiter", 15000), ("maxfun", 10**7)),
            tight=(("gtol", None), ("ftol", 0.0)),
        ),
        Method(
            "TNC",
            bounds=True,
            options=(
                *("scale", "offset", "mesg_num", "maxCGit", "eta", "stepmx", "accuracy", "minfev", "ftol"),
                *("xtol", "gtol", "rescale", "disp", "maxfun"),
            ),
            limits=(("maxfun", 10**6),),
            tight=(("gtol", 0.0), ("ftol", 0.0), ("xtol", 0.0)),
        ),
        Method(
            "COBYLA",
            gradient=False,
            bounds=True,
            constraints=True,
            options=("rhobeg", "tol", "maxiter", "disp", "catol", "f_target"),
            limits=(("maxiter", 3000),),
            tight=(("tol", 1e-8),),
        ),
        Method(
            "COBYQA",
            gradient=False,
            bounds=True,
            constraints=True,
            options=(
                *("disp", "maxfev", "maxiter", "f_target", "feasibility_tol"),
                *("initial_tr_radius", "final_tr_radius", "scale"),
            ),
            limits=(("maxiter", 3000), ("maxfev", 3000)),
            tight=(("final_tr_radius", 1e-9),),
        ),
        Method(
            "SLSQP",
            bounds=True,
            constraints=True,
            options=("maxiter", "ftol", "iprint", "disp"),
            limits=(("maxiter", 300),),
            tight=(("ftol", 1e-14),),
        ),
        Method(
            "trust-constr",
            matrix=True,
            product=True,
            bounds=True,
            constraints=True,
            options=(
                *(
                    "xtol",
                    "gtol",
                    "barrier_tol",
                    "sparse_jacobian",
                    "maxiter",
                    "verbose",
                    "initial_constr_penalty",
                ),
                *("initial_tr_radius", "initial_barrier_parameter", "initial_barrier_tolerance"),
                *("factorization_method", "disp"),
            ),
            limits=(("maxiter", 3000),),
            # it ends where the gradient of its barrier function is small, which is no solution yet
            tight=(("gtol", 1e-14), ("xtol", 1e-14), ("barrier_tol", 1e-10)),
            interior=True,
        ),
        Method("dogleg", matrix=True, second=True, options=_TRUST),
        Method("trust-ncg", matrix=True, product=True, second=True, options=_TRUST),
        Method("trust-exact", matrix=True, second=True, options=(*_TRUST, "subproblem_maxiter")),
        Method("trust-krylov", matrix=True, product=True, second=True, options=(*_TRUST, "inexact")),
    )
}


def method_called(where: str, name: Any, *, bounds: bool, constraints: bool, size: int) -> Method:
    """The method of that name, in any case; the default where none is named.

    Raises:
        BadArgument: no such method; one that cannot honour what was given.
    """
    if name is None:
        default = "BFGS" if size <= 100 else "L-BFGS-B"
        name = "SLSQP" if constraints else "L-BFGS-B" if bounds else default
    plain = {known.lower(): known for known in METHODS}
    if not isinstance(name, str) or name.lower() not in plain:
        near = nearest(name, METHODS)
        raise BadArgument(
            where,
            "method",
            got=shown(name),
            want=f"one of SciPy's, {', '.join(METHODS)}, or a solver object of Nestor's",
            do=f'write method="{near}"' if near else 'write method="L-BFGS-B", or method=nestor.LBFGS()',
        )
    method = METHODS[plain[name.lower()]]
    for what, given in (("bounds", bounds), ("constraints", constraints)):
        if given and not getattr(method, what):
            raise cannot(where, method, what)
    return method


def cannot(where: str, method: Method, what: str) -> BadArgument:
    """The refusal of what a method cannot honour, with those that can."""
    field = {"jac": "gradient", "hess": "matrix", "hessp": "product"}.get(what, what)
    able = [name for name, other in METHODS.items() if getattr(other, field)]
    return BadArgument(
        where,
        what,
        got=f"given for {method.name}, which cannot honour it",
        want="left out, or given to a method that can",
        do=f"pass one of the methods {', '.join(able)}",
    )


def check_options(where: str, method: Method, options: Any) -> dict[str, Any]:
    """The options of a method, a new dictionary.

    Raises:
        BadArgument: one that the method does not know.
    """
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise BadArgument(
            where, "options", got=shown(options), want="a dictionary", do='write options={"maxiter": 100}'
        )
    for name, value in options.items():
        _check_number(where, name, value)
        if name not in method.options:
            near = nearest(name, method.options)
            if name in _COUNTS:
                near = f"{_COUNTS[name]}=..., an argument of {where},"
            elif near:
                near = repr(near)
            raise BadArgument(
                where,
                "options",
                got=f"with {name!r}, which {method.name} does not know",
                want=f"made of {', '.join(method.options)}",
                do=f"write {near} instead" if near else "leave it out",
            )
    return dict(options)


_COUNTS = {"maxiter": "max_steps", "maxfun": "max_evaluations", "maxfev": "max_evaluations"}
_NUMBERS = (
    *_COUNTS,
    *("gtol", "ftol", "xtol", "xatol", "fatol", "xrtol", "tol", "catol", "barrier_tol", "feasibility_tol"),
    *("c1", "c2", "maxcor", "maxls", "rhobeg", "eta", "stepmx", "f_target", "maxCGit", "minfev"),
    *("initial_trust_radius", "max_trust_radius", "initial_tr_radius", "final_tr_radius"),
)


def _check_number(where: str, name: str, value: Any) -> None:
    """Options that are numbers are numbers: SciPy says no word of which one is not."""
    least = 0 if name in _COUNTS else None
    if name not in _NUMBERS or (value is None and least is not None):  # SciPy's None is no limit
        return
    good = False
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        whole = bool(np.isinf(value)) or float(value).is_integer()
        good = least is None or (value >= least and whole)
    if good:
        return
    want = "a number" if least is None else "a whole number >= 0"
    do = f'write for example options={{"{name}": {"1e-6" if least is None else 100}}}'
    raise BadArgument(where, f"options[{name!r}]", got=shown(value), want=want, do=do)


def check_steps(where: str, steps: Any) -> int | None:
    """The most steps of a method on the host, a Python integer; None for no limit of the user's."""
    if steps is None:
        return None
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 0:
        raise BadArgument(
            where,
            "max_steps",
            got=shown(steps),
            want="a Python integer >= 0",
            do="pass for example max_steps=1000",
        )
    return int(steps)
