"""Do forward mode, reverse mode and finite differences agree?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument

Tree = Any


@dataclasses.dataclass(frozen=True)
class DerivativeReport:
    """What `check_derivatives` found; prints as a table and is true when all derivatives agree.

    Attributes:
        rows: one for each leaf of x: (name, finite difference, forward, reverse, verdict), the derivatives
            being those of a random combination of outputs along a random direction in that leaf alone.
        tol: the relative tolerance that was used.

    >>> import jax.numpy as jnp, nestor
    >>> bool(nestor.check_derivatives(jnp.sin, jnp.float32(0.5)))
    True
    """

    rows: tuple[tuple[str, float, float, float, str], ...]
    tol: float

    @property
    def ok(self) -> bool:
        """Whether every row agrees."""
        return all(row[-1] == "agree" for row in self.rows)

    def __bool__(self) -> bool:
        """Same as `ok`."""
        return self.ok

    def __str__(self) -> str:
        """A table, one row a leaf."""
        head = ("leaf", "finite difference", "forward", "reverse", "verdict")
        body = [(n, f"{d:.9g}", f"{f:.9g}", f"{r:.9g}", v) for n, d, f, r, v in self.rows]
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(5)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in [head, *body]]
        verdict = "All derivatives agree" if self.ok else "Derivatives DISAGREE"
        return "\n".join([f"{verdict} (relative tolerance {self.tol:.1g}).", *map(str.rstrip, lines)])


def check_derivatives(
    f: Callable[[Tree], Tree],
    x: Tree,
    *,
    tol: float | None = None,
    step: float | None = None,
    directions: int = 3,
    seed: int = 0,
) -> DerivativeReport:
    """Compare forward-mode, reverse-mode and finite-difference derivatives of f at x.

    For every leaf of x and some random directions in it, three numbers that should be one are computed:
    w'(J v) by `jax.jvp`, (w'J) v by `jax.vjp`, and a central difference of fourth order of w'f along v.

    Args:
        f: a function from a tree of floating arrays to a tree of floating arrays (a scalar, for example).
        x: where to check, a tree of floating arrays. float64 gives a far sharper check.
        tol: relative tolerance; None is 1e-6 in float64 and 2e-2 in float32.
        step: step of the difference, relative to max(1, |x|); None is eps^(1/5).
        directions: random directions a leaf; the worst of them is reported.
        seed: of the directions.

    Returns:
        A `DerivativeReport`: true if all agree; printed, it says which leaf and which mode disagrees and by
        how much. A mode that cannot be taken at all is reported with its error.

    Raises:
        BadArgument: x has leaves that are not floating arrays.

    Cost: 6 evaluations of f and its derivatives a direction, compiled once.

    >>> import jax, jax.numpy as jnp, nestor
    >>> @jax.custom_jvp
    ... def wrong(x):
    ...     return x**2
    >>> wrong.defjvps(lambda t, out, x: 3 * x * t)
    >>> report = nestor.check_derivatives(wrong, jnp.float32(2.0))
    >>> report.ok, report.rows[0][-1]
    (False, 'forward and reverse are off by 33.3% of the derivative')
    """
    x = jax.tree.map(jnp.asarray, x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise BadArgument(
                "check_derivatives",
                "x",
                got=f"a tree with leaf {_name(path)} of dtype {leaf.dtype}",
                want="a tree of floating-point arrays",
                do="convert it, for example jnp.asarray(x, float), or close over what is not differentiated",
            )
    dtype = trees.float_dtype(x)
    eps = float(jnp.finfo(dtype).eps)
    tol = (1e-6 if eps < 1e-12 else 2e-2) if tol is None else tol
    h = eps**0.2 if step is None else step
    key = jax.random.key(seed)
    weights = _random_like(jax.eval_shape(f, x), key)

    def weighted(x: Tree) -> jax.Array:
        return trees.dot(f(x), weights)

    def difference(v: Tree) -> jax.Array:
        far = trees.max_norm(x)
        step_length = h * jnp.maximum(far, 1) / jnp.maximum(trees.max_norm(v), eps)
        at = lambda multiple: weighted(trees.add_scaled(x, multiple * step_length, v))  # noqa: E731
        return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step_length)

    difference = jax.jit(difference)
    forward, forward_error = _attempt(
        jax.jit(lambda v: trees.dot(jax.jvp(f, (x,), (v,))[1], weights)), trees.zeros_like(x)
    )
    reverse, reverse_error = _attempt(
        jax.jit(lambda v: trees.dot(jax.grad(weighted)(x), v)), trees.zeros_like(x)
    )
    rows = []
    leaves, structure = jax.tree.flatten(x)
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(x)):
        worst: tuple[float, tuple[str, float, float, float, str]] | None = None
        for j in range(directions):
            v = [jnp.zeros_like(other) for other in leaves]
            v[i] = _random_like(leaf, jax.random.fold_in(key, 1 + i * directions + j))
            v = jax.tree.unflatten(structure, v)
            row, error = _row(
                _name(path), float(difference(v)), forward(v), reverse(v), tol, forward_error, reverse_error
            )
            if worst is None or not error <= worst[0]:
                worst = (error, row)
        assert worst is not None
        rows.append(worst[1])
    return DerivativeReport(tuple(rows), tol)


def _attempt(function: Callable[[Tree], Any], example: Tree) -> tuple[Callable[[Tree], float], str]:
    try:
        jax.block_until_ready(function(example))
    except (TypeError, ValueError, NotImplementedError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return lambda v: float("nan"), text[:120]
    return lambda v: float(function(v)), ""


def _row(
    name: str, d: float, f: float, r: float, tol: float, forward_error: str, reverse_error: str
) -> tuple[tuple[str, float, float, float, str], float]:
    size = max(abs(d), abs(f) if np.isfinite(f) else 0, abs(r) if np.isfinite(r) else 0, tol)
    off = {"forward": abs(f - d) / size, "reverse": abs(r - d) / size}
    between = abs(f - r) / size
    notes = []
    for mode, failed in (("forward", forward_error), ("reverse", reverse_error)):
        if failed:
            notes.append(f"{mode} mode failed: {failed}")
            off.pop(mode)
    bad = [mode for mode, value in off.items() if not value <= tol]
    error = max([*off.values(), 0.0], key=lambda v: np.inf if np.isnan(v) else v)
    if not np.isfinite(d):
        notes.append("the function itself is not finite near x")
    elif len(bad) == 2 and between <= tol:
        notes.append(f"forward and reverse are off by {100 * error:.3g}% of the derivative")
    else:
        notes += [f"{mode} is off by {100 * off[mode]:.3g}% of the derivative" for mode in bad]
    if notes:
        return (name, d, f, r, "; ".join(notes)), float("inf") if np.isnan(error) else max(error, tol)
    return (name, d, f, r, "agree"), float(error)


def _random_like(tree: Tree, key: jax.Array) -> Tree:
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(structure, drawn)


def _name(path: Any) -> str:
    return "x" + jax.tree_util.keystr(path)
