"""Constraints: what a user may pass, and one traced function of the objective with all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

Tree = Any


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A constraint on a function of the unknowns: ``fun(x) == equal``, or ``lower <= fun(x) <= upper``.

    Args:
        fun: from a tree like `x0` to a tree of real floating-point arrays; it may close over anything, and the
            solution is differentiable in all of it.
        equal: a scalar, or a tree like the value of `fun` (or a prefix of it): what the value has to be.
        lower, upper: likewise, what it may not be below or above; None for no limit. An entry may be infinite.

    Raises:
        BadArgument: (by the function it is passed to) neither `equal` nor a limit; both; limits that are crossed.

    >>> import jax.numpy as jnp, nestor
    >>> on_circle = nestor.Constraint(lambda x: jnp.sum(x**2), equal=1.0)
    >>> nestor.minimize(jnp.sum, jnp.array([-1.0, 0.0]), constraints=on_circle).x.round(4).tolist()
    [-0.7071, -0.7071]
    """

    fun: Callable[[Tree], Tree]
    equal: Any = None
    lower: Any = None
    upper: Any = None
