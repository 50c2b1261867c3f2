"""The settings of everything that a solve can be built from: one table of fields, ranges and examples.

A class that is not in the table (a user's own solver, search or adjoint) is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from nestor import linear
from nestor.adjoints import SETTINGS
from nestor.errors import BadArgument
from nestor.solvers._bfgs import BFGS, LBFGS
from nestor.solvers._fixed_points import Anderson, Picard
from nestor.solvers._gradient_descent import GradientDescent
from nestor.solvers._line_newton import LineSearchNewton, LineSearchNewtonCG
from nestor.solvers._newton import Newton, NewtonCG
from nestor.solvers._nonlinear_cg import Direction, NonlinearCG
from nestor.solvers._rates import AdaGradStep, Rate, RMSPropStep
from nestor.solvers._roots import Broyden, NewtonRoot
from nestor.solvers._searches import Backtracking, FixedStep, StrongWolfe
from nestor.solvers._squares import Dogleg, LevenbergMarquardt


class Rule(NamedTuple):
    """What a field may hold.

    Attributes:
        good: (value, the object it belongs to) -> whether it may.
        want: the same in words.
        example: a value that may, as source text.
        names: the choices, where they are strings.
    """

    good: Callable[[Any, Any], bool]
    want: str
    example: str
    names: tuple[str, ...] = ()


def check_settings(where: str, argument: str, thing: Any) -> None:
    """Check the fields of a solver, search, linear solver or adjoint, and of those that it holds.

    Cost: a few microseconds; the values of arrays, which may still be on their way, are not waited for.
    """
    for field, rule in _RULES.get(type(thing), {}).items():
        value = getattr(thing, field)
        if not rule.good(value, thing):
            example = f"nestor.{type(thing).__name__}({field}={_example(rule, value)})"
            raise BadArgument(
                where, f"{argument}.{field}", got=shown(value), want=rule.want, do=f"write {example}"
            )
        if type(value) in _RULES:
            check_settings(where, f"{argument}.{field}", value)


def shown(value: Any) -> Any:
    """A value as a `BadArgument` shows it: strings in quotes, which are else taken for a description."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"{value!r} (str)" if isinstance(value, str) else value


def _example(rule: Rule, value: Any) -> str:
    near = nearest(value, rule.names)
    return f'"{near}"' if near else rule.example


def nearest(text: Any, names: Any) -> str | None:
    """The name that was probably meant, if any: without regard to case and punctuation, then by likeness."""
    if not isinstance(text, str):
        return None
    plain = {_plain(name): name for name in names}
    if _plain(text) in plain:
        return plain[_plain(text)]
    import difflib  # needed by mistakes only

    close = difflib.get_close_matches(_plain(text), plain, n=1)
    return plain[close[0]] if close else None


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


# --- kinds of rules ----------------------------------------------------------------------------------


def _count(example: int) -> Rule:
    """A number of things: it shapes the program, so nothing but a Python integer will do."""
    return Rule(lambda value, _: type(value) is int and value >= 1, "a Python integer >= 1", str(example))


def _number(good: Callable[[float], bool], want: str, example: str) -> Rule:
    """A real number; a traced or NumPy scalar too, which is then an input of the solve."""

    def check(value: Any, _: Any) -> bool:
        if isinstance(value, jax.Array):
            return value.shape == () and jnp.issubdtype(value.dtype, jnp.floating)
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.item() if value.size == 1 and value.ndim == 0 else None
        return type(value) in (float, int) and good(value)

    return Rule(check, want, example)


def _plain_number(good: Callable[[float], bool], want: str, example: str) -> Rule:
    """A Python number, where the solver decides something by it while it is traced."""
    return Rule(lambda value, _: type(value) in (float, int) and good(value), f"a Python {want}", example)


def _optional(rule: Rule) -> Rule:
    return rule._replace(
        good=lambda value, owner: value is None or rule.good(value, owner), want=f"None or {rule.want}"
    )


def _choice(*names: str) -> Rule:
    quoted = ", ".join(f'"{name}"' for name in names)
    return Rule(
        lambda value, _: isinstance(value, str) and value in names, f"one of {quoted}", f'"{names[0]}"', names
    )


def _part(verb: str, want: str, example: str) -> Rule:
    """An object with that verb; its own settings are checked in turn."""
    return Rule(lambda value, _: hasattr(value, verb) and not isinstance(value, type), want, example)


def _wolfe_decrease(value: Any, owner: StrongWolfe) -> bool:
    return _FRACTION.good(value, owner) and (isinstance(value, jax.Array) or value < owner.curvature)


# --- the table ---------------------------------------------------------------------------------------

_POSITIVE = _number(lambda v: 0 < v < math.inf, "a finite number > 0", "0.1")
_FRACTION = _number(lambda v: 0 < v < 1, "a number between 0 and 1, both excluded", "0.5")
_SMALL = _FRACTION._replace(example="1e-4")
_NOT_ZERO = _number(lambda v: v != 0 and math.isfinite(v), "a finite number other than 0", "0.5")
_NOT_NEGATIVE = _number(lambda v: 0 <= v < math.inf, "a finite number >= 0", "1e-8")
_FIRST = _optional(_POSITIVE._replace(example="1.0"))
_TOL = _optional(_plain_number(lambda v: 0 <= v < math.inf, "number >= 0", "1e-6"))
_SEARCH = Rule(
    lambda value, _: not isinstance(value, type) and (hasattr(value, "advance") or isinstance(value, Rate)),
    "a search, Backtracking() or StrongWolfe(), or a step such as FixedStep(length)",
    "nestor.StrongWolfe()",
)

_LINEAR = _part(
    "run", "a linear solver such as CG(), LU() or GMRES(), an object and not its name", "nestor.CG()"
)

_RULES: dict[type, dict[str, Rule]] = {
    # searches
    FixedStep: {"length": _POSITIVE},
    Backtracking: {"decrease": _SMALL, "shrink": _FRACTION, "max_tries": _count(40), "first": _FIRST},
    StrongWolfe: {
        "curvature": _plain_number(lambda v: 0 < v < 1, "number between 0 and 1, both excluded", "0.9"),
        "decrease": _SMALL._replace(
            good=_wolfe_decrease, want="a number between 0 and curvature, both excluded"
        ),
        "max_tries": _count(30),
        "first": _FIRST,
    },
    AdaGradStep: {"eps": _NOT_NEGATIVE},
    RMSPropStep: {
        "decay": _number(lambda v: 0 <= v < 1, "a number >= 0 and < 1", "0.9"),
        "eps": _NOT_NEGATIVE,
    },
    # minimization
    GradientDescent: {"search": _SEARCH},
    BFGS: {"search": _SEARCH},
    LBFGS: {"memory": _count(10), "search": _SEARCH},
    NonlinearCG: {"direction": _choice(*get_args(Direction)), "search": _SEARCH},
    Newton: {"radius": _optional(_POSITIVE)},
    LineSearchNewton: {"search": _SEARCH},
    LineSearchNewtonCG: {"search": _SEARCH, "max_products": _optional(_count(20))},
    NewtonCG: {"radius": _optional(_POSITIVE), "max_products": _optional(_count(100))},
    # roots, fixed points, least squares
    NewtonRoot: {"linear_solver": _optional(_LINEAR)},
    Broyden: {"jacobian": _choice("exact", "identity"), "max_tries": _count(30)},
    Anderson: {"memory": _count(5), "regularization": _optional(_NOT_NEGATIVE)},
    Picard: {"damping": _NOT_ZERO},
    LevenbergMarquardt: {"damping": _POSITIVE._replace(example="1e-3")},
    Dogleg: {"radius": _optional(_POSITIVE)},
    # linear solvers
    linear.CG: {"tol": _TOL, "max_steps": _optional(_count(100))},
    linear.BiCGStab: {"tol": _TOL, "max_steps": _optional(_count(100))},
    linear.GMRES: {"tol": _TOL, "restart": _count(20), "max_steps": _optional(_count(10))},
    linear.Neumann: {"terms": _count(20), "scale": _optional(_NOT_ZERO)},
    linear.Nystrom: {"rank": _count(10), "shift": _optional(_POSITIVE)},
    **{part: {name: Rule(*rule) for name, rule in fields.items()} for part, fields in SETTINGS.items()},
}
