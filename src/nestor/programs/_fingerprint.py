"""A hashable value that two traced programs share exactly when they compute and differentiate alike.

Where this file cannot be sure (an unknown kind of parameter, a differentiation rule it cannot identify) it
falls back to the identity of the object: a program is then merely compiled again, never confused with another.
"""

from __future__ import annotations

import contextlib
import struct
import weakref
from collections.abc import Hashable
from types import FunctionType
from typing import Any

import numpy as np
from jax.extend import core as jex

_known: weakref.WeakKeyDictionary[Any, Hashable] = weakref.WeakKeyDictionary()


class Identity:
    """Equal only to itself; keeps its object alive so that the identity stays unique."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Digest:
    """A tuple whose hash is computed once: programs nest, and their keys with them."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: tuple[Hashable, ...]):
        self.parts = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Digest) and self._hash == other._hash and self.parts == other.parts


def fingerprint(jaxpr: Any) -> Hashable:
    """The key of an open jaxpr: inputs, equations and outputs with variables numbered in order."""
    try:
        known = _known.get(jaxpr)
    except TypeError:  # not weakly referable
        known = None
    if known is not None:
        return known
    numbers: dict[Any, int] = {}

    def number(var: Any) -> Hashable:
        if isinstance(var, jex.Literal):
            return ("literal", _parameter(var.val), _aval(var.aval))
        return numbers.setdefault(var, len(numbers))

    inputs = tuple((number(v), _aval(v.aval)) for v in (*jaxpr.constvars, *jaxpr.invars))
    equations = tuple(
        (
            Identity(eqn.primitive),
            tuple(number(v) for v in eqn.invars),
            tuple((number(v), _aval(v.aval)) for v in eqn.outvars),
            tuple((k, _parameter(p)) for k, p in sorted(_parameters(eqn), key=lambda kp: kp[0])),
            _context(eqn),
        )
        for eqn in jaxpr.eqns
    )
    outputs = tuple(number(v) for v in jaxpr.outvars)
    key = Digest((len(jaxpr.constvars), inputs, equations, outputs, _effects(jaxpr)))
    with contextlib.suppress(TypeError):
        _known[jaxpr] = key
    return key


_UNSIGNED_NAMES = {"debug_info"}


def _parameters(eqn: Any) -> list[tuple[str, Any]]:
    skipped = _UNSIGNED_NAMES
    if "fwd_jaxpr_thunk" in eqn.params:  # custom_vjp: the trees follow from the rules and the shapes
        skipped = skipped | {"out_trees"}
    return [(k, v) for k, v in eqn.params.items() if k not in skipped]


def _aval(aval: Any) -> Hashable:
    return (aval, getattr(aval, "weak_type", None))


def _context(eqn: Any) -> Hashable:
    context = getattr(eqn, "ctx", None)  # JAX interns contexts, so identity is equality
    return None if context is None else Identity(context)


def _effects(jaxpr: Any) -> Hashable:
    return tuple(sorted(repr(effect) for effect in jaxpr.effects))


def _parameter(value: Any) -> Hashable:
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return (type(value).__name__, value)
    if isinstance(value, float):
        return ("float", struct.pack("d", value))
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            return Identity(value)
        return ("array", str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, jex.ClosedJaxpr):
        return ("closed", fingerprint(value.jaxpr), tuple(Identity(c) for c in value.consts))
    if isinstance(value, jex.Jaxpr):
        return ("open", fingerprint(value))
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, *(_parameter(v) for v in value))
    if isinstance(value, dict):
        return ("dict", *((str(k), _parameter(v)) for k, v in sorted(value.items(), key=str)))
    if hasattr(value, "call_wrapped") or (callable(value) and not isinstance(value, type)):
        return _rule(value)
    try:
        hash(value)
    except TypeError:
        return Identity(value)
    return (type(value).__qualname__, value)


# Differentiation rules reach an equation wrapped in closures that JAX makes anew at every trace. These are
# the wrappers that add nothing but what is in the equation already; by name of the inner function: the free
# variable that holds the rule itself.
_WRAPPERS = {
    "_memoize.<locals>.memoized": "fn",
    "DynamicJaxprTrace.process_custom_jvp_call.<locals>.jvp_jaxpr_thunk": "jvp",
    "DynamicJaxprTrace.process_custom_vjp_call.<locals>.fwd_jaxpr_from_zeros": "fwd",
    "lift_jvp.<locals>.jvp": "jvp_jaxpr_fun",
}


def _rule(function: Any) -> Hashable:
    """The identity of the user's rule below JAX's per-trace wrappers; that of the wrapper if unsure."""
    if hasattr(function, "transforms") and hasattr(function, "f"):  # a wrapped function of JAX
        transforms = tuple(
            (Identity(transform[0]), *(_static(s) for s in transform[1:]))
            for transform in function.transforms
        )
        return ("wrapped", _rule(function.f), transforms, _static(tuple(function.params)))
    if isinstance(function, FunctionType) and (function.__module__ or "").startswith("jax."):
        wanted = _WRAPPERS.get(function.__qualname__)
        free = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if wanted in free:
            return ("rule", function.__qualname__, _rule(free[wanted].cell_contents))
    return Identity(function)


def _static(value: Any) -> Hashable:
    """Static arguments of a wrapper: by value where that is safe; result stores are left out."""
    if isinstance(value, (tuple, list)):
        return tuple(_static(v) for v in value)
    kind = type(value).__name__
    if kind in {"Store", "EqualStore", "DebugInfo", "TraceTag"}:
        return kind
    if kind == "AxisData":  # a batch axis of vmap: made anew at every trace
        fields = ("name", "size", "spmd_name", "explicit_mesh_axis")
        return (kind, *(_static(getattr(value, field, None)) for field in fields))
    if getattr(value, "__qualname__", "") == "transformation_with_aux2.<locals>.<lambda>":
        return "Store"  # a thunk that reads a store
    if value is None or isinstance(value, (bool, int, str)) or kind == "PyTreeDef":
        return (kind, value)
    return Identity(value)
