"""JAX arrays on the host's side: the traced objective, compiled once for a program whatever it closes over."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument
from nestor.minimize._frameworks import Call, NotFollowed, Spec, not_floating
from nestor.programs import Program, is_traced, trace_function


class _Compiled(NamedTuple):
    """What is compiled of a program, each at its first call; all take (captured, leaves)."""

    value: Any
    value_and_grad: Any
    hessian: Any
    product: Any
    jacobian: Any


class InJAX:
    """Arrays and Python floats, which come back as arrays."""

    name: ClassVar[str] = "JAX"
    differentiates: ClassVar[bool] = True

    def specs(self, where: str, leaves: list[Any], paths: list[str]) -> list[Spec]:
        """Shapes and dtypes."""
        specs = []
        for leaf, path in zip(leaves, paths, strict=True):
            known = isinstance(leaf, (float, jax.Array, np.generic))
            if not known or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise not_floating(where, path, leaf)
            dtype = jax.dtypes.canonicalize_dtype(jnp.result_type(leaf))
            specs.append(Spec(np.shape(leaf), np.dtype(dtype), None))
        return specs

    def make(self, numbers: np.ndarray, spec: Spec) -> Any:
        """An array."""
        return jnp.asarray(numbers.astype(spec.dtype).reshape(spec.shape))

    give = make

    def value(self, call: Call, leaves: list[Any]) -> Any:
        """The objective, compiled."""
        return self._run("value", call, leaves)

    def value_and_grad(self, call: Call, leaves: list[Any]) -> tuple[Any, list[Any] | None]:
        """The objective and its gradient in one program."""
        prepared = _prepared(call, leaves)
        if isinstance(prepared, BadArgument):
            result = call(leaves)
            if isinstance(result, (tuple, list)):
                return result, None
            raise _untraceable(prepared) from prepared.__cause__
        program, captured, _ = prepared
        if isinstance(program.out_shape, (tuple, list)):
            return _compiled(program).value(captured, leaves), None
        if int(np.prod(getattr(program.out_shape, "shape", (0,)))) != 1:  # refused by whoever reads the value
            return _compiled(program).value(captured, leaves), leaves
        return _compiled(program).value_and_grad(captured, leaves)

    def hessian(self, call: Call, leaves: list[Any]) -> list[list[np.ndarray]]:
        """Forward over reverse."""
        blocks = self._run("hessian", call, leaves)
        sizes = [int(np.prod(leaf.shape, dtype=int)) for leaf in leaves]
        return [
            [
                np.asarray(block, np.float64).reshape(size, other)
                for block, other in zip(row, sizes, strict=True)
            ]
            for row, size in zip(blocks, sizes, strict=True)
        ]

    def product(self, call: Call, leaves: list[Any], direction: list[Any]) -> list[Any]:
        """Forward over reverse along one direction."""
        return self._run("product", call, leaves, direction)

    def jacobian(self, call: Call, leaves: list[Any]) -> list[np.ndarray]:
        """Reverse mode."""
        blocks = self._run("jacobian", call, leaves)
        sizes = [int(np.prod(leaf.shape, dtype=int)) for leaf in leaves]
        return [
            np.asarray(block, np.float64).reshape(-1, size) for block, size in zip(blocks, sizes, strict=True)
        ]

    def _run(self, what: str, call: Call, leaves: list[Any], *more: Any) -> Any:
        prepared = _prepared(call, leaves)
        if isinstance(prepared, BadArgument):
            if what == "value":
                return call(leaves)
            raise _untraceable(prepared) from prepared.__cause__
        program, captured, _ = prepared
        return getattr(_compiled(program), what)(captured, leaves, *more)


def _prepared(call: Any, leaves: list[Any]) -> tuple[Program, list[Any], Any] | BadArgument:
    """The traced program of a call, kept beside it; why not, for a function that can only be called."""
    kept = getattr(call, "prepared", None)
    if kept is None:
        kept = _trace(call, leaves)
        call.prepared = kept
    return kept


def _untraceable(why: BadArgument) -> NotFollowed:
    do = f"{why.do}; or pass jac=, which may be '2-point'"
    return NotFollowed(why.where, why.argument, got=why.shown, want=why.want, do=do)


def _trace(call: Any, leaves: list[Any]) -> Any:
    try:
        prepared = trace_function("minimize", "fun", call, leaves)
    except BadArgument as error:
        if error.__cause__ is None:
            raise
        return error  # it may bring its own gradient, or need none: then it runs as it is
    if is_traced(prepared[1]):
        raise BadArgument(
            "minimize",
            "method",
            got="a method of SciPy, inside a traced function",
            want="left away inside jit, grad and vmap, for SciPy runs on the host",
            do="leave method out, or pass a solver of Nestor's: solver=nestor.LBFGS()",
        )
    return prepared


@functools.lru_cache(maxsize=256)
def _compiled(program: Program) -> _Compiled:
    def value(captured: list[Any], leaves: list[Any]) -> Any:
        result = program(captured, leaves)
        return jnp.reshape(result[0] if isinstance(result, (tuple, list)) else result, ())

    grad = jax.grad(value, argnums=1)

    def product(captured: list[Any], leaves: list[Any], direction: list[Any]) -> list[Any]:
        return jax.jvp(lambda at: grad(captured, at), (leaves,), (direction,))[1]

    return _Compiled(
        value=jax.jit(program),
        value_and_grad=jax.jit(jax.value_and_grad(value, argnums=1)),
        hessian=jax.jit(jax.jacfwd(grad, argnums=1)),
        product=jax.jit(product),
        jacobian=jax.jit(jax.jacrev(program, argnums=1)),
    )


FRAMEWORK = InJAX()
