"""A convex quadratic model of the Lagrangian that agrees with it on the directions that constraints leave."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_CURVED = 1e-3  # of the largest entry of the Hessian


def convexify(
    hessian: jax.Array, rows: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """A positive semidefinite matrix K and a vector c, to be added to the gradient.

    On the directions d with  rows d = targets  the model  c.d + ½ d'K d  is  ½ d'H d  plus a constant, if H is
    positive there; where it is not, its negative eigenvalues on those directions change their sign. In all other
    directions K is as much larger as it takes. So Newton's method stays Newton's method near a solution.

    Args:
        hessian: H, shape (n, n), symmetric.
        rows: shape (r, n), one for every constraint that is expected to hold with equality; zero for others.
        targets: shape (r,), zero for others.

    Returns:
        K, c, the least eigenvalue of H on those directions (infinite where there are none), and a unit vector
        there that has it.

    Cost: three eigenvalue decompositions.
    Source: Debreu 1952, theorem 3 (a large enough multiple of the projector makes K positive).
    """
    n = hessian.shape[0]
    dtype = hessian.dtype
    eye = jnp.eye(n, dtype=dtype)
    sizes = jnp.sqrt(jnp.sum(rows**2, axis=1))
    over = jnp.where(sizes > 0, sizes, 1.0)
    unit, aims = rows / over[:, None], targets / over
    weights, axes = jnp.linalg.eigh(unit.T @ unit)
    tiny = max(1e-8, 32 * float(jnp.finfo(dtype).eps))  # above what rows that say something twice leave
    spanned = weights > tiny
    inverse = jnp.where(spanned, 1 / jnp.where(spanned, weights, 1.0), 0.0)
    nearest = axes @ (inverse * (axes.T @ (unit.T @ aims)))  # the shortest d with rows d = targets
    across = (axes * spanned.astype(dtype)[None, :]) @ axes.T  # projects on the rows
    along = eye - across
    size = jnp.maximum(jnp.max(jnp.abs(hessian)), 1e-30)
    curvatures, ways = jnp.linalg.eigh(along @ (hessian / size) @ along + 4 * n * across)
    least = curvatures[0]
    floor = 1e-10 if dtype == jnp.float64 else 1e-5
    made = jnp.maximum(jnp.abs(curvatures), floor)
    reduced = along @ ((ways * made[None, :]) @ ways.T) @ along
    inverted = along @ ((ways / made[None, :]) @ ways.T) @ along
    # What is mixed matters less and less near a solution; along ways of hardly any curvature it would make the
    # rest of K enormous, so there it is made smaller.
    shrunk = jnp.minimum(1.0, jnp.sqrt(made / _CURVED))
    mixed = along @ ((ways * shrunk[None, :]) @ ways.T) @ (hessian / size) @ across
    own = across @ (hessian / size) @ across
    lacking = mixed.T @ inverted @ mixed - own
    most = jnp.linalg.eigvalsh((lacking + lacking.T) / 2)[-1]
    weight = jnp.where(most > tiny, 2 * most + 0.1, 0.0)
    convex = reduced + mixed + mixed.T + own + weight * across
    least = jnp.where(jnp.all(spanned), jnp.inf, least * size)
    return size * (convex + convex.T) / 2, -size * weight * nearest, least, along @ ways[:, 0]
