"""A program is a traced function with everything it closed over made an explicit input.

Two traces of the same code with other data give the *same* `Program` object, so whatever is built once per
program (compiled solves, derivative rules) is found again by JAX's own caches, which go by identity. The key
is the structure of the traced program, never the identity of the Python function: a function whose globals
or closure changed gives another program or other inputs, never a stale result. (As for `jax.jit`, a custom
derivative rule is known by its function object: a rule that reads a global sees that global's first value.)
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax.extend import core as jex

from nestor.programs._fingerprint import fingerprint

_KEPT = 1024  # programs remembered; the least recently used goes first
_interned: OrderedDict[Hashable, Program] = OrderedDict()
_lock = threading.Lock()


class Program:
    """A traced function of ``(captured, *args)``; made by `hoist`, compared by identity.

    Attributes:
        out_shape: the shapes and dtypes of the result, a tree of `jax.ShapeDtypeStruct`.
    """

    def __init__(self, jaxpr: Any, out_shape: Any, in_tree: Any):
        self._jaxpr = jaxpr
        self.out_shape = out_shape
        self._out_tree = jax.tree.structure(out_shape)
        self._in_tree = in_tree

    def __call__(self, captured: list[Any], *args: Any) -> Any:
        """Evaluate the program: `captured` stands for what the function closed over."""
        flat, tree = jax.tree.flatten(args)
        if tree != self._in_tree:
            raise TypeError(f"the program was traced for {self._in_tree}, not {tree}")
        out = jex.jaxpr_as_fun(jex.ClosedJaxpr(self._jaxpr, list(captured)))(*flat)
        return jax.tree.unflatten(self._out_tree, out)

    def reads(self) -> list[bool]:
        """For each leaf of the arguments after `captured`, in order, whether the result depends on it."""
        return _used(self._jaxpr, [True] * len(self._jaxpr.outvars))


_INSIDE = ("jit", "pjit", "closed_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call")


def _used(jaxpr: Any, wanted: list[bool]) -> list[bool]:
    """Which inputs of a traced program its wanted outputs depend on.

    Looked into are calls that hand their arguments on one to one; of any other nested program (loops, branches)
    all inputs count as used.
    """
    live = {v for v, want in zip(jaxpr.outvars, wanted, strict=True) if want and isinstance(v, jex.Var)}
    for eqn in reversed(jaxpr.eqns):
        asked = [v in live for v in eqn.outvars]
        if not any(asked) and not eqn.effects:
            continue
        inside = next((eqn.params[k] for k in ("jaxpr", "call_jaxpr") if k in eqn.params), None)
        used = [True] * len(eqn.invars)
        if eqn.primitive.name in _INSIDE and inside is not None:
            inner = getattr(inside, "jaxpr", inside)
            if len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(asked):
                used = _used(inner, asked)
        live |= {v for v, use in zip(eqn.invars, used, strict=True) if use and isinstance(v, jex.Var)}
    return [v in live for v in jaxpr.invars]


def hoist(fun: Callable[..., Any], *args: Any) -> tuple[Program, list[Any]]:
    """Trace `fun` at `args` and make what it closes over explicit.

    Args:
        fun: any traceable function; it may close over arrays and over tracers of an enclosing trace.
        *args: example arguments (trees of arrays); only shapes and dtypes matter.

    Returns:
        program: the interned `Program`; ``program(captured, *args)`` equals ``fun(*args)``.
        captured: the arrays and tracers that `fun` closed over, to be passed back (or replaced).

    Cost: one trace of `fun`, and a walk over the traced program.
    """
    avals = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
    # A fresh function each time: JAX remembers traces by the identity of the function, which a rebound global
    # or closure does not change.
    closed, out_shape = jax.make_jaxpr(lambda *args: fun(*args), return_shape=True)(*avals)
    in_tree = jax.tree.structure(args)
    key = (fingerprint(closed.jaxpr), in_tree, jax.tree.structure(out_shape))
    with _lock:
        program = _interned.get(key)
        if program is None:
            program = _interned[key] = Program(closed.jaxpr, out_shape, in_tree)
            if len(_interned) > _KEPT:
                _interned.popitem(last=False)
        else:
            _interned.move_to_end(key)
    return program, list(closed.consts)
