"""The data of linear, quadratic and cone programs: checked, and made arrays of one dtype."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument
from nestor.proximal import NonNegative, PositiveSemidefinite, SecondOrderCone
from nestor.settings import shown
from nestor.solvers import _checks
from nestor.solvers._cone_programs import ConeProgram
from nestor.solvers._host_solvers import HiGHS

_CONES = (NonNegative, SecondOrderCone, PositiveSemidefinite)


class Given(NamedTuple):
    """The data, as arrays of one dtype; None for what is not there."""

    P: Any
    q: jax.Array
    A: Any
    b: Any
    G: Any
    h: Any

    @classmethod
    def of(cls, where: str, P: Any, q: Any, A: Any, b: Any, G: Any, h: Any, name: str) -> Given:
        """Check shapes, and make arrays."""
        linear = as_array(where, name, q, None)
        if linear.ndim != 1:
            raise BadArgument(
                where,
                name,
                got=f"of shape {linear.shape}",
                want="a vector, shape (n,)",
                do=f"write jnp.ravel({name})",
            )
        n, dtype = linear.size, linear.dtype
        square = None if P is None else fitting(where, "P", as_array(where, "P", P, dtype), (n, n), name)
        pairs: list[Any] = []
        for names, matrix, side in ((("A", "b"), A, b), (("G", "h"), G, h)):
            if (matrix is None) != (side is None):
                there = names[0] if side is None else names[1]
                raise BadArgument(
                    where,
                    names[1] if side is None else names[0],
                    got="None",
                    want=f"an array, as {there} is given",
                    do=f"pass {names[0]} and {names[1]} together",
                )
            if matrix is None:
                pairs += [None, None]
                continue
            rows = as_array(where, names[0], matrix, dtype)
            rows = fitting(where, names[0], rows, (rows.shape[0] if rows.ndim else 0, n), name)
            pairs += [
                rows,
                fitting(where, names[1], as_array(where, names[1], side, dtype), (rows.shape[0],), name),
            ]
        return cls(square, linear, *pairs)


def check_solver(where: str, solver: Any, given: Given, cones: tuple[Any, ...]) -> None:
    """Whether a solver is one for such programs."""
    want = "nestor.Clarabel() or nestor.HiGHS()" if where == "solve_cone" else "a solver for such programs"
    names = {"solve_lp": "HiGHS(), Clarabel() or SQP()", "solve_qp": "SQP() or Clarabel()"}
    names = names.get(where, "Clarabel() or HiGHS()")
    if isinstance(solver, type) or getattr(solver, "solves", None) is not ConeProgram:
        raise BadArgument(
            where, "solver", got=shown(solver), want=want, do=f"pass one of {names} from nestor"
        )
    if isinstance(solver, HiGHS) and (given.P is not None or not all(type(c) is NonNegative for c in cones)):
        raise BadArgument(
            where,
            "solver",
            got="HiGHS(), which solves linear programs here",
            want="one for curved objectives and cones",
            do="pass solver=nestor.Clarabel()",
        )
    _checks.check_solver(where, solver, ConeProgram, {}, ConeProgram.kind)
    if hasattr(solver, "check"):
        solver.check(where)


def check_convex(where: str, P: Any) -> None:
    """Of a matrix whose numbers are known, that it is positive semidefinite."""
    if P is None or isinstance(P, jax.core.Tracer) or not P.size:
        return
    values = np.linalg.eigvalsh(np.asarray(P, np.float64))
    size = max(abs(values[0]), abs(values[-1]))
    if values[0] < -1e3 * float(jnp.finfo(P.dtype).eps) * size:
        raise BadArgument(
            where,
            "P",
            got=f"with the eigenvalue {values[0]:.3g}",
            want="positive semidefinite",
            do="check its sign, or call nestor.solve_qp with SQP(), which finds stationary points",
        )


def with_blocks(where: str, G: Any, h: Any, cones: Any, given: Given) -> Given:
    """The data with the blocks of all cones, checked."""
    for name, many in (("G", G), ("h", h), ("cones", cones)):
        if not isinstance(many, (list, tuple)):
            raise BadArgument(
                where,
                name,
                got=shown(many),
                want="a list, one entry for every cone",
                do=f"write {name}=[...]",
            )
    if not len(G) == len(h) == len(cones):
        got = f"{len(cones)} cones, with {len(G)} entries of G and {len(h)} of h"
        raise BadArgument(
            where, "cones", got=got, want="as many of each", do="give every cone its G and its h"
        )
    rights, rows = [], []
    for i, (matrix, side, cone) in enumerate(zip(G, h, cones, strict=True)):
        if not isinstance(cone, _CONES):
            do = "pass NonNegative(), SecondOrderCone() or PositiveSemidefinite() from nestor.proximal"
            got = f"the class {cone.__name__}" if isinstance(cone, type) else shown(cone)
            raise BadArgument(where, f"cones[{i}]", got=got, want="a cone", do=do)
        right = as_array(where, f"h[{i}]", side, given.q.dtype)
        _check_cone(where, f"h[{i}]", cone, right)
        block = as_array(where, f"G[{i}]", matrix, given.q.dtype)
        rights.append(right)
        rows.append(fitting(where, f"G[{i}]", block, (*right.shape, given.q.size), f"h[{i}] and q"))
    return given._replace(G=tuple(rows), h=tuple(rights))


def _check_cone(where: str, name: str, cone: Any, right: jax.Array) -> None:
    """Whether a shape is that of a cone's elements."""
    good, want = right.size > 0, "an array with entries"
    if isinstance(cone, PositiveSemidefinite):
        good = right.ndim >= 2 and right.shape[-1] == right.shape[-2]
        want = "of shape (..., d, d), symmetric matrices"
    elif isinstance(cone, SecondOrderCone):
        axis = 0 if cone.axis is None else cone.axis
        good = -right.ndim <= axis < right.ndim and right.size > 0
        want = "vectors, first the bound and then what it bounds"
    if not good:
        do = f"check the shape that {type(cone).__name__} is about"
        raise BadArgument(where, name, got=f"of shape {right.shape}", want=want, do=do)


def as_array(where: str, name: str, value: Any, dtype: Any) -> jax.Array:
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


def fitting(where: str, name: str, array: jax.Array, shape: tuple[int, ...], other: str) -> jax.Array:
    """The array, of that shape."""
    if array.shape != shape:
        raise BadArgument(
            where,
            name,
            got=f"of shape {array.shape}",
            want=f"of shape {shape}",
            do=f"check it against {other}, which has an entry for every unknown",
        )
    return array
