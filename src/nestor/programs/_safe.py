"""Optimizers' programs that can be differentiated where a gradient entry is exactly zero.

Adam divides by the root of a mean of squared gradients. Where a gradient is always zero the root has an infinite
slope, the square below it the slope zero, and the chain rule makes NaN of them. Branches that are not taken do
the same: their weight is zero, their slope is not finite. Neither has anything to do with the answer.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex
from jax.extend.core import primitives as of_jax
from jax.interpreters import ad, batching, mlir

from nestor.programs._programs import Program

_made: weakref.WeakKeyDictionary[Program, Program] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def safe_roots(program: Program) -> Program:
    """The same program with finite derivatives where it takes roots of zero or divides by zero.

    Its values are the same, bit for bit. In its derivatives the slope of a root, a power or a quotient is zero
    where the true one is infinite because its argument is exactly zero; and in roots, powers, quotients and
    products a derivative that enters with weight zero leaves with weight zero, even where the slope is not
    finite (a branch that was not taken). All other derivatives are the usual ones; NaN that comes from outside
    stays NaN.

    Args:
        program: made by `hoist`. Bodies of `jit`, `scan`, `while`, `cond` and `jax.checkpoint` inside it are
            treated too; a function with a derivative rule of its own keeps that rule.

    Returns:
        The same object for the same program, so that what is compiled for it is found again; the program
        itself if there is nothing in it to treat.

    Cost: one walk over the traced program, once; two cheap elementwise operations for each such derivative.

    >>> import jax, jax.numpy as jnp
    >>> from nestor.programs import hoist, safe_roots
    >>> program, captured = hoist(lambda x: jnp.sqrt(x**2), jnp.float32(0.0))
    >>> float(jax.grad(lambda x: program(captured, x))(0.0))
    nan
    >>> float(jax.grad(lambda x: safe_roots(program)(captured, x))(0.0))
    0.0
    """
    with _lock:
        safe = _made.get(program)
        if safe is None:
            jaxpr = _treated(program._jaxpr, {})
            same = jaxpr is program._jaxpr
            # an entry that held its own key would never go
            safe = program if same else Program(jaxpr, program.out_shape, program._in_tree)
            if not same:
                _made[program] = safe
    return safe


_BODIES = {of_jax.jit_p, of_jax.scan_p, of_jax.while_p, of_jax.cond_p, of_jax.remat_p, of_jax.closed_call_p}


def _treated(jaxpr: Any, done: dict[int, Any]) -> Any:
    """The jaxpr with other primitives in it; itself if there is nothing to replace.

    `done` keeps bodies that occur several times one object: JAX lowers each object once.
    """
    if id(jaxpr) not in done:
        equations = [_treated_equation(eqn, done) for eqn in jaxpr.eqns]
        same = all(new is old for new, old in zip(equations, jaxpr.eqns, strict=True))
        done[id(jaxpr)] = jaxpr if same else jaxpr.replace(eqns=equations)
    return done[id(jaxpr)]


def _treated_equation(eqn: Any, done: dict[int, Any]) -> Any:
    if eqn.primitive in _BODIES:
        params = {name: _treated_parameter(value, done) for name, value in eqn.params.items()}
        same = all(params[name] is value for name, value in eqn.params.items())
        return eqn if same else eqn.replace(params=params)
    safe = _SAFE.get(eqn.primitive)
    if safe is None or not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact):
        return eqn
    if eqn.primitive is of_jax.mul_p and any(isinstance(v, jex.Literal) for v in eqn.invars):
        return eqn  # a number of the program itself is a finite slope
    if eqn.primitive is of_jax.integer_pow_p and eqn.params["y"] >= 0:
        return eqn
    return eqn.replace(primitive=safe)


def _treated_parameter(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, jex.ClosedJaxpr):
        jaxpr = _treated(value.jaxpr, done)
        return value if jaxpr is value.jaxpr else value.replace(jaxpr=jaxpr)
    if isinstance(value, jex.Jaxpr):
        return _treated(value, done)
    if type(value) is tuple:
        new = tuple(_treated_parameter(v, done) for v in value)
        return value if all(a is b for a, b in zip(new, value, strict=True)) else new
    return value


# --- the primitives that stand for those of JAX --------------------------------------------------------


def _stand_in(original: Any, steep: Callable[..., Any]) -> Any:
    """A primitive that computes what `original` does.

    Args:
        original: an elementwise primitive of JAX.
        steep: (*arguments) -> where a slope is infinite because an argument is exactly zero; None for nowhere.
    """
    safe = jex.Primitive(f"nestor_safe_{original.name}")
    safe.def_impl(original.bind)
    safe.def_effectful_abstract_eval(original.abstract_eval)
    mlir.register_lowering(safe, mlir.lower_fun(original.bind, multiple_results=False))
    ad.primitive_jvps[safe] = functools.partial(_derivative, safe, original, steep)
    return safe


def _derivative(safe: Any, original: Any, steep: Any, arguments: Any, tangents: Any, **params: Any) -> Any:
    out = safe.bind(*arguments, **params)
    bad = steep(*arguments)
    points = arguments if bad is None else [jnp.where(bad, jnp.ones_like(a), a) for a in arguments]
    total = None
    for i, tangent in enumerate(tangents):
        if type(tangent) is ad.Zero:
            continue

        def of_one(a: Any, i: int = i) -> Any:
            return original.bind(*points[:i], a, *points[i + 1 :], **params)

        _, slope = jax.jvp(of_one, (points[i],), (jnp.ones_like(points[i]),))
        if bad is not None:
            slope = jnp.where(bad, jnp.zeros_like(slope), slope)
        term = _weighted_p.bind(jnp.broadcast_to(tangent, slope.shape), slope)
        total = term if total is None else total + term
    return out, total


def _weighted(t: jax.Array, slope: jax.Array) -> jax.Array:
    return jnp.where(t == 0, jnp.zeros_like(t), t * slope)


def _weighted_derivative(arguments: Any, tangents: Any) -> Any:
    """That of the plain product: where t is zero, a tangent of t has a weight all the same."""
    t, slope = arguments
    dt, dslope = tangents
    terms = [] if type(dt) is ad.Zero else [_weighted_p.bind(dt, slope)]
    terms += [] if type(dslope) is ad.Zero else [_weighted_p.bind(dslope, t)]
    return _weighted_p.bind(t, slope), functools.reduce(jnp.add, terms)


def _weighted_batched(arguments: Any, places: Any) -> Any:
    size = next(a.shape[d] for a, d in zip(arguments, places, strict=True) if d is not None)
    rows = [batching.bdim_at_front(a, d, size) for a, d in zip(arguments, places, strict=True)]
    return _weighted_p.bind(*rows), 0


# (t, slope) -> t * slope, but zero where t is: linear in t.
_weighted_p = jex.Primitive("nestor_weighted")
_weighted_p.def_impl(_weighted)
_weighted_p.def_abstract_eval(lambda t, slope: t)
mlir.register_lowering(_weighted_p, mlir.lower_fun(_weighted, multiple_results=False))
ad.deflinear2(_weighted_p, lambda cotangent, t, slope: [_weighted_p.bind(cotangent, slope), None])
ad.primitive_jvps[_weighted_p] = _weighted_derivative
batching.primitive_batchers[_weighted_p] = _weighted_batched

_SAFE = {
    of_jax.sqrt_p: _stand_in(of_jax.sqrt_p, lambda x: x == 0),
    of_jax.rsqrt_p: _stand_in(of_jax.rsqrt_p, lambda x: x == 0),
    of_jax.cbrt_p: _stand_in(of_jax.cbrt_p, lambda x: x == 0),
    of_jax.integer_pow_p: _stand_in(of_jax.integer_pow_p, lambda x: x == 0),
    of_jax.pow_p: _stand_in(of_jax.pow_p, lambda x, y: (x == 0) & (y < 1)),
    of_jax.div_p: _stand_in(of_jax.div_p, lambda x, y: y == 0),
    of_jax.mul_p: _stand_in(of_jax.mul_p, lambda x, y: None),
}
for _original, _safe in _SAFE.items():
    _pair = _original in (of_jax.pow_p, of_jax.div_p, of_jax.mul_p)
    (batching.defbroadcasting if _pair else batching.defvectorized)(_safe)
