"""Independent answers by NumPy and SciPy: finite differences, dense algebra, reference solvers.

Functions here take and return float64 NumPy arrays of any shape and import nothing of the
library under test.  ``jax_flat`` turns a JAX function into such a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize

NDArray = np.ndarray[Any, np.dtype[Any]]
VectorFunction = Callable[[NDArray], Any]


def ravel(tree: Any) -> tuple[NDArray, Callable[[NDArray], Any]]:
    """Flatten a pytree to a float64 NumPy vector, and say how to go back (to NumPy leaves)."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf, dtype=np.float64) for leaf in leaves]
    cuts = np.cumsum([array.size for array in arrays])[:-1]

    def unravel(flat: NDArray) -> Any:
        parts = np.split(np.asarray(flat, dtype=np.float64), cuts)
        shaped = [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]
        return jax.tree.unflatten(structure, shaped)

    flat = np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0)
    return flat, unravel


def _flat_function(fun: Callable[[Any], Any], like: Any) -> Callable[[Any], Any]:
    leaves, structure = jax.tree.flatten(like)
    shapes = [np.shape(leaf) for leaf in leaves]
    cuts = [int(cut) for cut in np.cumsum([math.prod(shape) for shape in shapes])[:-1]]

    def flat_fun(flat: Any) -> Any:
        parts = jnp.split(flat, cuts)
        shaped = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        out = fun(jax.tree.unflatten(structure, shaped))
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(out)])

    return flat_fun


def _compiled(fun: Callable[[Any], Any]) -> Callable[[NDArray], NDArray]:
    compiled = jax.jit(fun)

    def call(flat: NDArray) -> NDArray:
        with jax.enable_x64(True):
            return np.asarray(compiled(jnp.asarray(flat, dtype=jnp.float64)))

    return call


def jax_flat(fun: Callable[[Any], Any], like: Any) -> Callable[[NDArray], NDArray]:
    """Turn a JAX function of pytrees shaped as ``like`` into a float64 function of flat vectors."""
    return _compiled(_flat_function(fun, like))


def jax_flat_jacobian(fun: Callable[[Any], Any], like: Any) -> Callable[[NDArray], NDArray]:
    """The (outputs, inputs) matrix of ``fun`` as a float64 function of flat vectors."""
    return _compiled(jax.jacfwd(_flat_function(fun, like)))


def fd_jacobian(fun: VectorFunction, x: NDArray, *, step: float = 1e-2, levels: int = 5) -> NDArray:
    """Central-difference Jacobian with Richardson extrapolation (Ridders).

    ``fun`` maps an array to an array of any shape; the result has shape ``fun(x).shape +
    x.shape``.  Steps are ``step * max(1, |x_i|)``, halved ``levels - 1`` times; for each column
    the table entry with the smallest estimated error is taken.  Smooth functions reach a
    relative error near 1e-11.
    """
    x = np.asarray(x, dtype=np.float64)
    out_shape = np.shape(fun(x))
    columns = []
    for i in range(x.size):
        h = step * max(1.0, abs(float(x.flat[i])))
        table: list[list[NDArray]] = []
        best, best_error = np.zeros(out_shape), np.inf
        for level in range(levels):
            forward, backward = x.copy(), x.copy()
            forward.flat[i] += h
            backward.flat[i] -= h
            width = float(forward.flat[i] - backward.flat[i])
            rise = np.asarray(fun(forward), dtype=np.float64) - np.asarray(fun(backward))
            row = [np.asarray(rise / width)]
            for k in range(level):
                factor = 4.0 ** (k + 1)
                row.append(np.asarray(row[k] + (row[k] - table[-1][k]) / (factor - 1.0)))
                error = max(
                    float(np.max(np.abs(row[-1] - row[-2]), initial=0.0)),
                    float(np.max(np.abs(row[-1] - table[-1][k]), initial=0.0)),
                )
                if error < best_error:
                    best, best_error = row[-1], error
            table.append(row)
            h *= 0.5
        columns.append(best if levels > 1 else table[0][0])
    stacked = np.stack(columns, axis=-1) if columns else np.zeros((*out_shape, 0))
    return stacked.reshape(out_shape + x.shape)


def fd_gradient(fun: VectorFunction, x: NDArray, **options: Any) -> NDArray:
    """Finite-difference gradient of a scalar function."""
    return fd_jacobian(lambda z: np.asarray(fun(z), dtype=np.float64).reshape(()), x, **options)


def tree_fd_jacobian(fun: Callable[[Any], NDArray], theta: Any, **options: Any) -> Any:
    """Finite-difference Jacobian of an array in a pytree: leaves ``out.shape + leaf.shape``."""
    flat, unravel = ravel(theta)
    out_shape = np.shape(fun(theta))
    dense = fd_jacobian(lambda z: fun(unravel(z)), flat, **options)
    leaves, structure = jax.tree.flatten(theta)
    cuts = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]
    blocks = np.split(dense, cuts, axis=-1)
    shaped = [block.reshape(out_shape + np.shape(leaf)) for block, leaf in zip(blocks, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def dense_jacobian(fun: Callable[[Any], Any], x: Any) -> NDArray:
    """The (outputs, inputs) matrix of a JAX function of pytrees, by ``jacfwd`` in float64."""
    return jax_flat_jacobian(fun, x)(ravel(x)[0])


def dense_hessian(fun: Callable[[Any], Any], x: Any) -> NDArray:
    """The Hessian matrix of a scalar JAX function of a pytree, in float64."""
    return dense_jacobian(jax.grad(fun), x)


def implicit_jacobian(
    optimality: Callable[[Any, Any], Any], x: Any, theta: Any, *, by_differences: bool = False
) -> NDArray:
    """The matrix dx/dtheta = -(F_x)^{-1} F_theta at a zero x of ``optimality(x, theta)``.

    With ``by_differences`` the two Jacobians come from finite differences and owe nothing to
    JAX's differentiation of ``optimality``.
    """
    (x_flat, _), (theta_flat, _) = ravel(x), ravel(theta)
    both, split = np.concatenate([x_flat, theta_flat]), x_flat.size
    if by_differences:
        matrix = fd_jacobian(jax_flat(lambda pair: optimality(*pair), (x, theta)), both)
    else:
        matrix = dense_jacobian(lambda pair: optimality(*pair), (x, theta))
    f_x, f_theta = matrix[:, :split], matrix[:, split:]
    return -scipy.linalg.solve(f_x, f_theta)


def tree_matrix(jacobian: Any, out_size: int) -> NDArray:
    """Flatten a pytree Jacobian (leaves ``out.shape + leaf.shape``) to an (out, in) matrix."""
    blocks = [np.asarray(leaf).reshape(out_size, -1) for leaf in jax.tree.leaves(jacobian)]
    return np.concatenate(blocks, axis=1)


def scipy_minimize(fun: Callable[[Any], Any], start: Any, method: str = "trust-exact") -> Any:
    """Minimize a scalar JAX function of a pytree with SciPy; returns the point as NumPy leaves."""
    flat, unravel = ravel(start)
    value = jax_flat(fun, start)
    hessian = jax_flat_jacobian(jax.grad(fun), start)
    extra: dict[str, Any] = {"hess": hessian} if method.startswith("trust") else {}
    with np.errstate(all="ignore"):
        result = scipy.optimize.minimize(
            lambda z: float(value(z)[0]),
            flat,
            jac=jax_flat(jax.grad(fun), start),
            method=method,
            options={"maxiter": 5000, "gtol": 1e-9},
            **extra,
        )
    return unravel(result.x)


def scipy_root(fun: Callable[[Any], Any], start: Any) -> Any:
    """Solve ``fun(x) = 0`` with MINPACK's hybrid Powell method."""
    flat, unravel = ravel(start)
    jacobian = jax_flat_jacobian(fun, start)
    result = scipy.optimize.root(jax_flat(fun, start), flat, jac=jacobian, method="hybr", tol=1e-13)
    return unravel(result.x)


def scipy_fixed_point(fun: Callable[[Any], Any], start: Any, steps: int = 5000) -> Any:
    """Iterate ``x <- fun(x)`` in float64 until it stops moving."""
    x, unravel = ravel(start)
    flat_fun = jax_flat(fun, start)
    for _ in range(steps):
        following = flat_fun(x)
        if np.max(np.abs(following - x)) == 0.0:
            break
        x = following
    return unravel(x)


def scipy_least_squares(residual: Callable[[Any], Any], start: Any) -> Any:
    """Minimize half the squared residual with MINPACK's Levenberg-Marquardt."""
    flat, unravel = ravel(start)
    jacobian: Any = jax_flat_jacobian(residual, start)
    result = scipy.optimize.least_squares(
        jax_flat(residual, start),
        flat,
        jac=jacobian,
        method="lm",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    return unravel(result.x)
