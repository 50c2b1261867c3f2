"""Custom forward rules on whole trees, in which only what is really perturbed is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from nestor.trees._arithmetic import all_finite
from nestor.trees._floats import is_float, no_tangent

Tree = Any


def custom_jvp_on_perturbed(function: Callable[[Tree], Tree], rule: Callable[..., Any]) -> Any:
    """A function of one tree with a forward derivative of its own.

    Args:
        function: inputs -> outputs.
        rule: (inputs, perturbed, merge, tangents) -> (outputs, output tangents), where `perturbed` lists the
            input leaves that have a tangent, `tangents` their tangents, and ``merge(new)`` puts a new list of
            such leaves back among the others. A tangent tree of None, anywhere, means zero.

    Data, integers and random keys among the inputs cost nothing: they never appear among the perturbed.
    """
    wrapped = jax.custom_jvp(function)

    def jvp(primals: tuple[Tree], tangents: tuple[Tree]) -> tuple[Tree, Tree]:
        (inputs,), (dots,) = primals, tangents
        leaves, structure = jax.tree.flatten(inputs)
        dot_leaves = structure.flatten_up_to(dots)
        places = [i for i, dot in enumerate(dot_leaves) if not _is_zero(dot)]

        def merge(new: list[Any]) -> Tree:
            merged = list(leaves)
            for place, leaf in zip(places, new, strict=True):
                merged[place] = leaf
            return jax.tree.unflatten(structure, merged)

        if not places:
            out = wrapped(inputs)
            return out, _fill(out, None)
        perturbed = [leaves[i] for i in places]
        out, out_dots = rule(inputs, perturbed, merge, [dot_leaves[i] for i in places])
        return out, _fill(out, out_dots)

    wrapped.defjvp(jvp, symbolic_zeros=True)
    return wrapped


def guarded(function: Callable[[Tree], Tree]) -> Any:
    """The same function of one tree, constant for every derivative wherever its outputs are not all finite.

    A trial that a solver rejects because it met NaN or infinity has no weight in what follows; but in reverse
    mode no weight is a zero times an infinite slope, and that is NaN.
    """

    def rule(inputs: Tree, perturbed: list[Any], merge: Any, tangents: list[Any]) -> Any:
        good = all_finite(jax.lax.stop_gradient(wrapped(inputs)))
        point = [jnp.where(good, p, jax.lax.stop_gradient(p)) for p in perturbed]
        along = [jnp.where(good, t, jnp.zeros_like(t)) for t in tangents]
        return jax.jvp(lambda p: function(merge(p)), (point,), (along,))

    wrapped = custom_jvp_on_perturbed(function, rule)
    return wrapped


def _is_zero(dot: Any) -> bool:
    return isinstance(dot, SymbolicZero) or getattr(dot, "dtype", None) == jax.dtypes.float0


def _fill(out: Tree, dots: Tree) -> Tree:
    """Zeros where a tangent tree says None, and float0 where the output is not a float."""
    if dots is None:
        return jax.tree.map(_zero_tangent, out)
    if isinstance(out, tuple) and isinstance(dots, tuple):
        parts = [_fill(o, d) for o, d in zip(out, dots, strict=True)]
        return type(out)(*parts) if hasattr(out, "_fields") else tuple(parts)
    return dots


def _zero_tangent(leaf: jax.Array) -> Any:
    return jnp.zeros_like(leaf) if is_float(leaf) else no_tangent(leaf)
