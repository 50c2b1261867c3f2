"""Functions of a flat list of arrays, and the functions that their derivatives are.

A derivative of a `Function` is a `Function` again, so derivatives of any order, in any order of modes, are the
same few lines. Complex numbers follow PyTorch: its gradients are the conjugates of JAX's.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.programs import Program, hoist

Arrays = list[Any]


class Function:
    """A traced function from a list of arrays to a list of arrays.

    Args:
        program: what it computes, a function of (captured, *arrays); its result, flattened, is the list.
        captured: what the traced function closed over.
        inputs: shapes and dtypes of the arrays.
        x64: whether it runs with 64-bit numbers.
    """

    def __init__(self, program: Program, captured: Arrays, inputs: Sequence[jax.ShapeDtypeStruct], x64: bool):
        self.program, self.captured, self.inputs, self.x64 = program, captured, tuple(inputs), x64
        self.outputs = tuple(jax.tree.leaves(program.out_shape))
        self.floats = tuple(i for i, leaf in enumerate(self.outputs) if inexact(leaf.dtype))
        self.movable = tuple(
            i
            for i, (leaf, read) in enumerate(zip(self.inputs, program.reads(), strict=True))
            if read and inexact(leaf.dtype)
        )
        self._made: dict[Any, Function] = {}

    def __call__(self, arrays: Arrays) -> Arrays:
        """The results, compiled."""
        with self.precision():
            return _run(self.program)(self.captured, arrays)

    def with_pull(self, arrays: Arrays, wrt: tuple[int, ...]) -> tuple[Arrays, Any]:
        """The results, and what `pulled` turns cotangents with: all that the reverse pass needs."""
        with self.precision():
            return _with_pull(self.program, wrt)(self.captured, arrays)

    def pulled(self, pull: Any, cotangents: Arrays) -> Arrays:
        """Cotangents of the inputs in `wrt`, from those of the floating results."""
        with self.precision():
            return _pulled(pull, cotangents)

    def pull(self, wrt: tuple[int, ...]) -> Function:
        """(*inputs, *cotangents of the floating results) -> cotangents of the inputs in `wrt`."""

        def fun(*arrays: Any) -> Arrays:
            inputs, cotangents = list(arrays[: len(self.inputs)]), list(arrays[len(self.inputs) :])
            _, pull = _linearised(self.program, wrt, self.captured, inputs)
            return _turned(pull, cotangents)

        return self._derived(("pull", wrt), fun, [*self.inputs, *(self.outputs[i] for i in self.floats)])

    def push(self, moved: tuple[int, ...]) -> Function:
        """(*inputs, *tangents of the inputs in `moved`) -> tangents of the floating results."""

        def fun(*arrays: Any) -> Arrays:
            inputs, tangents = list(arrays[: len(self.inputs)]), list(arrays[len(self.inputs) :])
            of, at = _of_some(self.program, moved, self.captured, inputs)
            return jax.jvp(lambda some: of(some)[0], (at,), (tangents,))[1]

        return self._derived(("push", moved), fun, [*self.inputs, *(self.inputs[i] for i in moved)])

    def batched(self, places: tuple[int | None, ...], size: int) -> Function:
        """The same for a batch: inputs have a batch axis at their place, or None; results have it in front."""

        def fun(*arrays: Any) -> Arrays:
            one = lambda *some: jax.tree.leaves(self.program(self.captured, *some))  # noqa: E731
            return jax.vmap(one, in_axes=places, axis_size=size)(*arrays)

        def wider(leaf: Any, place: int | None) -> jax.ShapeDtypeStruct:
            shape = leaf.shape if place is None else (*leaf.shape[:place], size, *leaf.shape[place:])
            return jax.ShapeDtypeStruct(shape, leaf.dtype)

        inputs = [wider(leaf, place) for leaf, place in zip(self.inputs, places, strict=True)]
        return self._derived(("batched", places, size), fun, inputs)

    def precision(self) -> Any:
        """A context in which 64-bit numbers are what this function needs them to be."""
        return contextlib.nullcontext() if self.x64 == has_64_bits() else jax.enable_x64(self.x64)

    def _derived(self, key: Any, fun: Callable[..., Arrays], inputs: Sequence[Any]) -> Function:
        if key not in self._made:
            with self.precision():
                program, captured = hoist(fun, *inputs)
            self._made[key] = Function(program, captured, inputs, self.x64)
        return self._made[key]


def has_64_bits() -> bool:
    """Whether JAX has 64-bit numbers switched on, at the moment and in this thread."""
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def inexact(dtype: Any) -> bool:
    """Whether numbers of that dtype have derivatives."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


@functools.lru_cache(maxsize=512)
def _run(program: Program) -> Callable[[Arrays, Arrays], Arrays]:
    return jax.jit(lambda captured, arrays: jax.tree.leaves(program(captured, *arrays)))


@functools.lru_cache(maxsize=512)
def _with_pull(program: Program, wrt: tuple[int, ...]) -> Callable[[Arrays, Arrays], tuple[Arrays, Any]]:
    return jax.jit(functools.partial(_linearised, program, wrt))


def _of_some(
    program: Program, chosen: tuple[int, ...], captured: Arrays, arrays: Arrays
) -> tuple[Callable[[Arrays], tuple[Arrays, Arrays]], Arrays]:
    """The program as a function of some of its inputs, to (floating results, all results), and where to look."""

    def of(some: Arrays) -> tuple[Arrays, Arrays]:
        everything = list(arrays)
        for i, leaf in zip(chosen, some, strict=True):
            everything[i] = leaf
        results = jax.tree.leaves(program(captured, *everything))
        return [leaf for leaf in results if inexact(leaf.dtype)], results

    return of, [arrays[i] for i in chosen]


def _linearised(
    program: Program, wrt: tuple[int, ...], captured: Arrays, arrays: Arrays
) -> tuple[Arrays, Any]:
    of, at = _of_some(program, wrt, captured, arrays)
    _, pull, results = jax.vjp(of, at, has_aux=True)
    return results, pull


def _turned(pull: Any, cotangents: Arrays) -> Arrays:
    (found,) = pull([_conjugate(leaf) for leaf in cotangents])
    return [_conjugate(leaf) for leaf in found]


_pulled = jax.jit(_turned)


def _conjugate(leaf: Any) -> Any:
    return jnp.conj(leaf) if np.issubdtype(leaf.dtype, np.complexfloating) else leaf
