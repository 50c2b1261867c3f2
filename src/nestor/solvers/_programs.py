"""Linear and quadratic programs: their data are matrices instead of functions."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

from nestor.errors import BadArgument
from nestor.solution import Solution
from nestor.solvers._constraints import Constraint
from nestor.solvers._front import minimize
from nestor.solvers._sqp import SQP

_RADIUS = 1e6  # the model is exact, so a first step may go far


def solve_qp(
    P: Any,
    q: Any,
    A: Any = None,
    b: Any = None,
    G: Any = None,
    h: Any = None,
    *,
    bounds: Any = None,
    x0: Any = None,
    adjoint: Any = None,
    tol: float | None = None,
    max_steps: int = 100,
    raise_on_failure: bool = True,
) -> Solution:
    """Minimize  ½ x'P x + q'x  where  A x = b  and  G x <= h, in bounds.

    Args:
        P: shape (n, n), positive semidefinite (of one that is not, the symmetric part counts, and the answer is a
            stationary point); None for a linear program.
        q: shape (n,).
        A, b: shapes (k, n) and (k,), or None for no equalities.
        G, h: shapes (m, n) and (m,), or None for no inequalities.
        bounds: as in `minimize`: None, or a pair (lower, upper).
        x0: the start, shape (n,); None is zero.
        adjoint, tol, max_steps, raise_on_failure: as in `minimize`; steps are few, for the model of `SQP()` is exact.

    Returns:
        A `Solution`, differentiable in all of the data by the conditions that hold at the answer; in `.kkt` the
        multipliers of A x = b (any sign) and of G x <= h (>= 0), in this order.

    Raises:
        BadArgument: shapes that do not fit, or half of a pair.
        SolveFailed: as `minimize`; INFEASIBLE where no x meets the constraints, UNBOUNDED where the value has no
            least one.

    Cost: two or three steps of `SQP`, each about 15 factorisations of a dense matrix of n + k + m rows. Other data
    of the same shapes compile nothing.
    Source: Mehrotra 1992; Amos and Kolter 2017 (derivatives).

    >>> import jax.numpy as jnp, nestor
    >>> solution = nestor.solve_qp(2 * jnp.eye(2), jnp.zeros(2), A=jnp.ones((1, 2)), b=jnp.ones(1))
    >>> solution.x.round(4).tolist(), solution.kkt.constraints[0].round(4).tolist()
    ([0.5, 0.5], [-1.0])
    """
    where = "solve_qp"
    linear = _array(where, "q", q, None)
    if linear.ndim != 1:
        raise BadArgument(
            where, "q", got=f"of shape {linear.shape}", want="a vector, shape (n,)", do="write jnp.ravel(q)"
        )
    n, dtype = linear.size, linear.dtype
    square = None if P is None else _fitting(where, "P", _array(where, "P", P, dtype), (n, n))
    constraints: list[Constraint] = []
    for names, matrix, side, limit in ((("A", "b"), A, b, "equal"), (("G", "h"), G, h, "upper")):
        if (matrix is None) != (side is None):
            given = names[0] if side is None else names[1]
            raise BadArgument(
                where,
                names[1] if side is None else names[0],
                got="None",
                want=f"an array, as {given} is given",
                do=f"pass {names[0]} and {names[1]} together",
            )
        if matrix is None:
            continue
        rows = _array(where, names[0], matrix, dtype)
        rows = _fitting(where, names[0], rows, (rows.shape[0] if rows.ndim else 0, n))
        right = _fitting(where, names[1], _array(where, names[1], side, dtype), (rows.shape[0],))
        constraints.append(Constraint(_product(rows), **{limit: right}))

    def objective(x: jax.Array) -> jax.Array:
        value = jnp.vdot(linear, x, precision="highest")
        if square is None:
            return value
        return value + jnp.vdot(x, jnp.matmul(square, x, precision="highest"), precision="highest") / 2

    return minimize(
        objective,
        jnp.zeros((n,), dtype) if x0 is None else _fitting(where, "x0", _array(where, "x0", x0, dtype), (n,)),
        bounds=bounds,
        constraints=constraints,
        solver=SQP(radius=_RADIUS),
        adjoint=adjoint,
        tol=tol,
        max_steps=max_steps,
        raise_on_failure=raise_on_failure,
    )


def _product(rows: jax.Array) -> Any:
    return lambda x: jnp.matmul(rows, x, precision="highest")


def _array(where: str, name: str, value: Any, dtype: Any) -> jax.Array:
    """A floating array; sparse matrices of SciPy become dense."""
    array = None
    with contextlib.suppress(TypeError, ValueError):
        array = jnp.asarray(value.toarray() if hasattr(value, "toarray") else value)
    if array is None or not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise BadArgument(
            where,
            name,
            got=f"a {type(value).__name__}",
            want="an array of real numbers",
            do="convert it with jnp.asarray(..., float)",
        )
    if jnp.issubdtype(array.dtype, jnp.floating) and dtype is None:
        return array
    return array.astype(jnp.zeros(()).dtype if dtype is None else dtype)


def _fitting(where: str, name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if array.shape != shape:
        raise BadArgument(
            where,
            name,
            got=f"of shape {array.shape}",
            want=f"of shape {shape}",
            do="check it against q, which has an entry for every unknown",
        )
    return array
