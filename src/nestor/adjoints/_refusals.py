"""Identities that refuse a derivative: what meets one on its way is told why, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from nestor import trees
from nestor.errors import CannotDifferentiate

Tree = Any


def refusing(what: Literal["any", "reverse"], name: str, message: str) -> Callable[[Tree], Tree]:
    """The identity on trees, without a derivative of its floating-point leaves.

    Args:
        what: whether any derivative is refused, or that in reverse mode only: then it is linear, and its
            transpose refuses.
        name: of the primitive, as a jaxpr shows it.
        message: of the `CannotDifferentiate`.
    """

    def refuse(*_: Any) -> Any:
        raise CannotDifferentiate(message)

    identity = Primitive(name)
    identity.def_impl(lambda leaf: leaf)
    identity.def_abstract_eval(lambda aval: aval)
    if what == "reverse":
        ad.deflinear2(identity, refuse)
    else:
        ad.primitive_jvps[identity] = refuse
    batching.defvectorized(identity)
    mlir.register_lowering(identity, lambda ctx, leaf: [leaf])
    return lambda tree: jax.tree.map(lambda leaf: identity.bind(leaf) if trees.is_float(leaf) else leaf, tree)
