"""Cone programs on the host, in NumPy: the form that the packages want, the calls, and proofs checked again.

minimize ½ x'P x + q'x  where  rows x + s = right,  s in a product of cones
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.optimize
import scipy.sparse

from nestor.errors import MissingExtra
from nestor.proximal import PositiveSemidefinite, SecondOrderCone
from nestor.solution import Status
from nestor.solvers._cone_programs import ConePoint

_PROOF = 1e-7  # how far what should vanish in a proof may be from zero, where the right-hand side is one


class Block(NamedTuple):
    """Some rows of the form, in one cone.

    Attributes:
        kind: "zero", "nonnegative", "second order" or "semidefinite".
        size: the number of rows; of a matrix its order.
    """

    kind: str
    size: int

    @property
    def rows(self) -> int:
        """How many rows it takes."""
        return self.size * (self.size + 1) // 2 if self.kind == "semidefinite" else self.size


class Form(NamedTuple):
    """A program as the packages want it, with the way back.

    Attributes:
        P: shape (n, n), or None for zero.
        q: shape (n,).
        rows, right: shapes (m, n) and (m,).
        blocks: the cones, in order.
    """

    P: np.ndarray | None
    q: np.ndarray
    rows: np.ndarray
    right: np.ndarray
    blocks: list[Block]


class Found(NamedTuple):
    """x, and z, the multipliers of the rows; what was proved, a `Status`; RUNNING for nothing."""

    x: np.ndarray
    z: np.ndarray
    said: Status


# --- lanes -------------------------------------------------------------------------------------------


def over_lanes(solve: Callable[..., Any], cones: tuple[Any, ...], data: Any, box: Any) -> Any:
    """Solve for every lane of a batch: (the point, the code), with the lanes first.

    Args:
        solve: a `Form` -> a `Found`.
        cones: a set of `nestor.proximal` for each block.
        data, box: arrays with the lanes in front, one lane where they are the same for all.
    """
    P, q, A, b, G, h = (_doubles(part) for part in data)
    sides = (_doubles(box[0]), _doubles(box[1])) if box is not None else None
    dtype = np.asarray(data[1]).dtype
    own = [(P, 2), (q, 1), (A, 2), (b, 1)]
    depth = q.ndim - 1  # under `vmap` every array has as many axes in front
    own += [(g, g.ndim - depth) for g in (*G, *h)]
    own += [] if sides is None else [(side, 1) for side in sides]
    given = [(array, core) for array, core in own if array is not None]
    lanes = np.broadcast_shapes(*[array.shape[: array.ndim - core] for array, core in given])

    def lane(array: np.ndarray | None, core: int, at: tuple[int, ...]) -> Any:
        if array is None:
            return None
        return np.broadcast_to(array, lanes + array.shape[array.ndim - core :])[at]

    results = []
    for at in np.ndindex(*lanes):
        parts = [lane(array, core, at) for array, core in own]
        p, c, a, right = parts[:4]
        blocks = parts[4 : 4 + len(G)], parts[4 + len(G) : 4 + 2 * len(G)]
        results.append(_one(solve, cones, p, c, a, right, *blocks, parts[4 + 2 * len(G) :] or None))
    joined = [np.stack(same).reshape(lanes + same[0].shape) for same in zip(*results, strict=True)]
    x, *rest = [cast(Any, array.astype(dtype)) for array in joined[:-1]]
    u, ys = ((), rest) if A is None else (rest[0], rest[1:])
    return ConePoint(x, u, tuple(ys)), joined[-1].astype(np.int32)


def _doubles(part: Any) -> Any:
    if part is None:
        return None
    return (
        tuple(_doubles(p) for p in part) if isinstance(part, (tuple, list)) else np.asarray(part, np.float64)
    )


def _one(
    solve: Callable[[Form], Found], cones: Any, P: Any, q: Any, A: Any, b: Any, G: Any, h: Any, box: Any
) -> list[np.ndarray]:
    A, b = (np.zeros((0, q.size)), np.zeros(0)) if A is None else (A, b)
    form = _form(cones, P, q, A, b, G, h, box)
    if all(np.isfinite(part).all() for part in (form.q, form.rows, form.right)) and (
        P is None or np.isfinite(P).all()
    ):
        found = solve(form)
    else:
        found = Found(np.full(q.size, np.nan), np.zeros(form.right.size), Status.RUNNING)
    x = found.x if box is None else np.clip(found.x, *box)
    left = found.z[b.size :]
    ys = [found.z[: b.size]] if b.size else []
    for cone, at in zip(cones, h, strict=True):
        y, left = _from_rows(cone, at, left)
        ys.append(y)
    return [x, *ys, np.asarray(int(found.said))]


# --- the form ----------------------------------------------------------------------------------------


def _form(cones: Any, P: Any, q: Any, A: Any, b: Any, G: Any, h: Any, box: Any) -> Form:
    rows, right, blocks = [A], [b], [Block("zero", b.size)]
    for cone, matrix, at in zip(cones, G, h, strict=True):
        wide = np.concatenate([matrix, at[..., None]], axis=-1)
        part, kinds = _to_rows(cone, wide)
        rows.append(part[:, :-1])
        right.append(part[:, -1])
        blocks += kinds
    if box is not None:
        eye = np.eye(q.size)
        low, high = np.isfinite(box[0]), np.isfinite(box[1])
        rows += [-eye[low], eye[high]]
        right += [-box[0][low], box[1][high]]
        blocks.append(Block("nonnegative", int(low.sum() + high.sum())))
    kept = [block for block in blocks if block.size]
    return Form(P, q, np.concatenate(rows), np.concatenate(right), kept)


def _to_rows(cone: Any, wide: np.ndarray) -> tuple[np.ndarray, list[Block]]:
    """The rows of a block (..., n + 1) and their cones."""
    width = wide.shape[-1]
    if isinstance(cone, PositiveSemidefinite):
        order = wide.shape[-2]
        lanes = wide.reshape(-1, order, order, width)
        i, j, scale = _triangle(order)
        part = (lanes[:, i, j] + lanes[:, j, i]) / 2 * scale[:, None]
        return part.reshape(-1, width), [Block("semidefinite", order)] * len(lanes)
    if isinstance(cone, SecondOrderCone):
        lanes = wide.reshape(1, -1, width) if cone.axis is None else _last(wide, cone.axis)
        return lanes.reshape(-1, width), [Block("second order", lanes.shape[1])] * len(lanes)
    return wide.reshape(-1, width), [Block("nonnegative", math.prod(wide.shape[:-1]))]


def _last(wide: np.ndarray, axis: int) -> np.ndarray:
    """The vectors along an axis of the leading ones, shape (lanes, size, width)."""
    moved = np.moveaxis(wide, axis if axis >= 0 else axis - 1, -2)
    return moved.reshape(-1, *moved.shape[-2:])


def _from_rows(cone: Any, like: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The multipliers of a block, in its shape, and the rows that are left."""
    if isinstance(cone, PositiveSemidefinite):
        order = like.shape[-1]
        i, j, scale = _triangle(order)
        count = like.size // order**2 if order else 0
        own = z[: count * i.size].reshape(count, i.size) / scale
        y = np.zeros((count, order, order))
        y[:, i, j] = own
        y[:, j, i] = own
        return y.reshape(like.shape), z[count * i.size :]
    own, left = z[: like.size], z[like.size :]
    if isinstance(cone, SecondOrderCone) and cone.axis is not None:
        shape = np.moveaxis(like, cone.axis, -1).shape
        return np.moveaxis(own.reshape(shape), -1, cone.axis), left
    return own.reshape(like.shape), left


def _triangle(order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the upper triangle, column by column, and the scale that keeps inner products."""
    j, i = np.tril_indices(order)
    return i, j, np.where(i == j, 1.0, math.sqrt(2.0))


def _matrices(block: Block, z: np.ndarray) -> np.ndarray:
    i, j, scale = _triangle(block.size)
    full = np.zeros((block.size, block.size))
    full[i, j] = full[j, i] = z / scale
    return full


# --- proofs ------------------------------------------------------------------------------------------


def _pieces(form: Form, z: np.ndarray) -> Iterator[tuple[Block, slice]]:
    start = 0
    for block in form.blocks:
        yield block, slice(start, start + block.rows)
        start += block.rows


def onto_dual(form: Form, z: np.ndarray, equalities: bool = True) -> np.ndarray:
    """z, moved into the dual cones (of s = 0 everything, or, without `equalities`, zero as in the cones)."""
    moved = z.copy()
    for block, at in _pieces(form, z):
        v = z[at]
        if block.kind == "zero":
            moved[at] = v if equalities else 0
        elif block.kind == "nonnegative":
            moved[at] = np.maximum(v, 0)
        elif block.kind == "second order":
            length = np.linalg.norm(v[1:])
            if length > v[0]:
                moved[at] = 0 if length <= -v[0] else (v[0] + length) / 2 * np.append(1, v[1:] / length)
        else:
            values, vectors = np.linalg.eigh(_matrices(block, v))
            full = (vectors * np.maximum(values, 0)) @ vectors.T
            i, j, scale = _triangle(block.size)
            moved[at] = full[i, j] * scale
    return moved


def proves_infeasible(form: Form, z: np.ndarray) -> bool:
    """Whether z shows that no x of reasonable size is feasible.

    For z in the dual cones with right.z = -1, a feasible x would have  0 <= z.s = -1 - (rows'z).x,  so the sum of
    its absolute entries is more than 1 / |rows'z|.
    """
    if not np.isfinite(z).all():
        return False
    z = onto_dual(form, z)
    price = -float(form.right @ z)
    return price > 0 and bool(np.max(np.abs(form.rows.T @ z), initial=0.0) <= _PROOF * price)


def proves_unbounded(form: Form, d: np.ndarray) -> bool:
    """Whether d is a direction that leads down for ever, if there is a feasible point."""
    if not np.isfinite(d).all():
        return False
    fall = -float(form.q @ d)
    if fall <= 0:
        return False
    s = -form.rows @ d
    off = np.max(np.abs(s - onto_dual(form, s, equalities=False)), initial=0.0)
    bent = 0.0 if form.P is None else np.max(np.abs(form.P @ d), initial=0.0)
    return bool(max(off, bent) <= _PROOF * fall)


# --- the packages ------------------------------------------------------------------------------------


def by_clarabel(form: Form, accuracy: float, iterations: int) -> Found:
    """An answer by Clarabel, an interior-point method."""
    try:
        clarabel: Any = importlib.import_module("clarabel")
    except ImportError as error:
        raise MissingExtra("clarabel", "cones", "nestor.Clarabel()") from error
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_iter, settings.max_threads = False, iterations, 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = accuracy
    kinds = {
        "zero": clarabel.ZeroConeT,
        "nonnegative": clarabel.NonnegativeConeT,
        "second order": clarabel.SecondOrderConeT,
        "semidefinite": clarabel.PSDTriangleConeT,
    }

    def solved(P: Any, q: np.ndarray, right: np.ndarray) -> Any:
        n = form.q.size
        square = scipy.sparse.csc_matrix((n, n)) if P is None else scipy.sparse.triu(P, format="csc")
        rows = scipy.sparse.csc_matrix(form.rows)
        cones = [kinds[block.kind](block.size) for block in form.blocks]
        answer = clarabel.DefaultSolver(square, q, rows, right, cones, settings).solve()
        return np.asarray(answer.x), np.asarray(answer.z), str(answer.status)

    x, z, name = solved(form.P, form.q, form.right)
    right, slope = (max(np.max(np.abs(part), initial=0.0), 1e-300) for part in (form.right, form.q))
    unproved = "PrimalInfeasible" in name and not proves_infeasible(form, z)
    if unproved and np.isfinite(right) and np.isfinite(slope):  # its tests take data for of size one
        P = None if form.P is None else form.P * (right / slope)
        x, z, name = solved(P, form.q / slope, form.right / right)
        x, z = (x, z) if "Infeasible" in name else (right * x, slope * z)
    if "PrimalInfeasible" in name and proves_infeasible(form, z):
        return Found(x, z, Status.INFEASIBLE)
    if "DualInfeasible" in name and proves_unbounded(form, x):
        # A way down is no more than that where nothing is feasible.
        inside, proof, _ = solved(None, np.zeros_like(form.q), form.right)
        if proves_infeasible(form, proof):
            return Found(x, z, Status.INFEASIBLE)
        return Found(inside, z, Status.UNBOUNDED)
    return Found(x, z, Status.RUNNING)


def by_highs(form: Form, method: str) -> Found:
    """An answer by HiGHS, as SciPy brings it; all cones are zero or non-negative."""
    equal = sum(block.size for block in form.blocks if block.kind == "zero")

    def solved(q: np.ndarray, rows: np.ndarray, right: np.ndarray, bounds: Any = (None, None)) -> Any:
        given: dict[str, Any] = {}
        if equal:
            given |= {"A_eq": rows[:equal], "b_eq": right[:equal]}
        if rows.shape[0] > equal:
            given |= {"A_ub": rows[equal:], "b_ub": right[equal:]}
        return scipy.optimize.linprog(q, **given, bounds=bounds, method=method)

    answer = solved(form.q, form.rows, form.right)
    n, m = form.q.size, form.right.size
    if answer.status == 0:
        parts = [answer[name].marginals for name in ("eqlin", "ineqlin")]
        return Found(answer.x, -np.concatenate(parts), Status.RUNNING)
    nothing = np.zeros(m)
    # How far all constraints must be loosened: zero, or the multipliers of that prove that none meets them.
    loose = np.concatenate([form.rows[equal:], form.rows[:equal], -form.rows[:equal]])
    right = np.concatenate([form.right[equal:], form.right[:equal], -form.right[:equal]])
    phase = scipy.optimize.linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=np.concatenate([loose, -np.ones((loose.shape[0], 1))], axis=1),
        b_ub=right,
        bounds=[(None, None)] * n + [(0, None)],
        method=method,
    )
    if phase.status == 0:
        dual = -phase.ineqlin.marginals
        free = m - equal
        z = np.concatenate([dual[free : free + equal] - dual[free + equal :], dual[:free]])
        if proves_infeasible(form, z):
            return Found(phase.x[:n], z, Status.INFEASIBLE)
        way = solved(form.q, form.rows, np.zeros(m), (-1, 1))
        if way.status == 0 and proves_unbounded(form, way.x):
            return Found(phase.x[:n], nothing, Status.UNBOUNDED)
        return Found(phase.x[:n], nothing, Status.RUNNING)
    return Found(np.zeros(n), nothing, Status.RUNNING)
