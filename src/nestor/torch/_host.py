"""Functions of PyTorch as operations of JAX: the host computes them, JAX differentiates, batches and compiles around.

A derivative of such a function is such a function again, so derivatives exist to any order and in both modes.
Every one starts from the inputs again: nothing is kept between two visits to the host.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jax.interpreters import ad, batching, mlir

from nestor.torch._functions import inexact
from nestor.torch._tensors import torch

Shapes = tuple[jax.ShapeDtypeStruct, ...]
Tensors = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """The user's function.

    Attributes:
        fun: from tensors to a tuple of tensors.
        inputs, results: shapes and dtypes.
    """

    fun: Callable[..., Tensors]
    inputs: Shapes
    results: Shapes

    def evaluate(self, *tensors: Any) -> Tensors:
        """Its results, in the dtypes that JAX expects."""
        found = self.fun(*tensors)
        return tuple(
            leaf.to(torch_dtype(shape.dtype)) for leaf, shape in zip(found, self.results, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Push:
    """(*inputs, *tangents of the inputs in `moved`) -> tangents of the floating results; linear in the tangents."""

    of: Host
    moved: tuple[int, ...]

    @property
    def results(self) -> Shapes:
        """Shapes and dtypes of the tangents."""
        return _floats(self.of.results)

    @property
    def inputs(self) -> Shapes:
        """Shapes and dtypes of inputs and tangents."""
        return (*self.of.inputs, *(self.of.inputs[i] for i in self.moved))

    def evaluate(self, *tensors: Any) -> Tensors:
        """By PyTorch's forward mode."""
        inputs, tangents = tensors[: len(self.of.inputs)], tensors[len(self.of.inputs) :]
        some, at = _of_some(self.of, self.moved, inputs)
        return torch.func.jvp(some, at, tangents)[1]

    @property
    def known(self) -> int:
        """How many inputs come before those it is linear in."""
        return len(self.of.inputs)

    def transposed(self) -> Pull:
        """The same linear map, backwards."""
        return Pull(self.of, self.moved)


@dataclasses.dataclass(frozen=True)
class Pull:
    """(*inputs, *cotangents of the floating results) -> cotangents of the inputs in `wrt`; linear in the cotangents."""

    of: Host
    wrt: tuple[int, ...]

    @property
    def results(self) -> Shapes:
        """Shapes and dtypes of the cotangents of the inputs."""
        return tuple(self.of.inputs[i] for i in self.wrt)

    @property
    def inputs(self) -> Shapes:
        """Shapes and dtypes of inputs and cotangents."""
        return (*self.of.inputs, *_floats(self.of.results))

    def evaluate(self, *tensors: Any) -> Tensors:
        """By PyTorch's reverse mode; its gradients are the conjugates of JAX's."""
        inputs, cotangents = tensors[: len(self.of.inputs)], tensors[len(self.of.inputs) :]
        some, at = _of_some(self.of, self.wrt, inputs)
        _, pull = torch.func.vjp(some, *at)
        return tuple(leaf.conj() for leaf in pull(tuple(leaf.conj() for leaf in cotangents)))

    @property
    def known(self) -> int:
        """How many inputs come before those it is linear in."""
        return len(self.of.inputs)

    def transposed(self) -> Push:
        """The same linear map, forwards."""
        return Push(self.of, self.wrt)


@dataclasses.dataclass(frozen=True)
class Batch:
    """The same for a batch: inputs have a batch axis at their place, or None; results have it in front."""

    of: Any  # a `Host`; one that is linear in something where `known` and `transposed` are asked for
    places: tuple[int | None, ...]
    size: int

    @property
    def results(self) -> Shapes:
        """Shapes and dtypes with the batch axis."""
        return tuple(_wider(leaf, 0, self.size) for leaf in self.of.results)

    @property
    def inputs(self) -> Shapes:
        """Shapes and dtypes with the batch axis."""
        return tuple(_wider(*pair, self.size) for pair in zip(self.of.inputs, self.places, strict=True))

    def evaluate(self, *tensors: Any) -> Tensors:
        """By `torch.func.vmap`; lane by lane where PyTorch cannot."""
        try:
            return torch.func.vmap(self.of.evaluate, self.places, randomness="different")(*tensors)
        except RuntimeError:  # a branch on a value, or an operation without a batching rule
            lanes = [
                self.of.evaluate(
                    *(t if d is None else t.select(d, i) for t, d in zip(tensors, self.places, strict=True))
                )
                for i in range(self.size)
            ]
            return tuple(torch.stack(column) for column in zip(*lanes, strict=True))

    def transposed(self) -> Batch:
        """The same linear maps, turned; what they are linear in stands in front of the batch."""
        turned = self.of.transposed()
        places = (*self.places[: self.known], *(0,) * (len(turned.inputs) - self.known))
        return Batch(turned, places, self.size)

    @property
    def known(self) -> int:
        """How many inputs come before those it is linear in."""
        return self.of.known


Host = Source | Push | Pull | Batch


def _of_some(host: Host, chosen: tuple[int, ...], inputs: Tensors) -> tuple[Callable[..., Tensors], Tensors]:
    """The floating results as a function of some of the inputs, and where to look."""

    def of(*some: Any) -> Tensors:
        everything = list(inputs)
        for i, leaf in zip(chosen, some, strict=True):
            everything[i] = leaf
        found = host.evaluate(*everything)
        return tuple(leaf for leaf, shape in zip(found, host.results, strict=True) if inexact(shape.dtype))

    return of, tuple(inputs[i] for i in chosen)


def _floats(shapes: Shapes) -> Shapes:
    return tuple(leaf for leaf in shapes if inexact(leaf.dtype))


def _wider(leaf: jax.ShapeDtypeStruct, place: int | None, size: int) -> jax.ShapeDtypeStruct:
    shape = leaf.shape if place is None else (*leaf.shape[:place], size, *leaf.shape[place:])
    return jax.ShapeDtypeStruct(shape, leaf.dtype)


def torch_dtype(dtype: Any) -> Any:
    """PyTorch's name of a dtype."""
    return getattr(torch, np.dtype(dtype).name)


def on_host(host: Host, arrays: tuple[Any, ...]) -> list[np.ndarray]:
    """Evaluate on arrays of NumPy, which are copied, since they may not be written to; 64-bit results in halves."""
    with torch.no_grad():
        found = host.evaluate(*(_tensor(np.asarray(leaf)) for leaf in arrays))
    made = [numpy_from(leaf.detach().resolve_conj().resolve_neg().contiguous()) for leaf in found]
    return [_halves(leaf) if _is_wide(leaf.dtype) else leaf for leaf in made]


def _tensor(leaf: np.ndarray) -> Any:
    if leaf.dtype == jnp.bfloat16:  # which NumPy does not know by itself
        return torch.tensor(leaf.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(leaf)


def numpy_from(leaf: Any) -> np.ndarray:
    """A tensor on the CPU as an array of NumPy, in the same memory."""
    if leaf.dtype is torch.bfloat16:
        return leaf.view(torch.int16).numpy().view(jnp.bfloat16)
    return leaf.resolve_conj().resolve_neg().numpy()


# JAX makes 64-bit results of a callback 32-bit ones where the thread that calls back does not know that 64-bit
# numbers are switched on (by a context, in another thread). So they travel in halves, which look like nothing.


def _is_wide(dtype: Any) -> bool:
    return np.dtype(dtype).itemsize >= 8 and dtype != np.complex64


def _halves(leaf: np.ndarray) -> np.ndarray:
    return leaf[..., None].view(np.uint32)


def _whole(halves: Any, dtype: Any) -> Any:
    if dtype == np.complex128:
        pair = jax.lax.bitcast_convert_type(halves.reshape(*halves.shape[:-1], 2, 2), np.float64)
        return jax.lax.complex(pair[..., 0], pair[..., 1])
    return jax.lax.bitcast_convert_type(halves, dtype)


# --- the operation of JAX ----------------------------------------------------------------------------------

# (*arrays) -> list of arrays; linear in the last `linear` of them.
torch_p = jex.Primitive("nestor_torch")
torch_p.multiple_results = True
visit_p = jex.Primitive("nestor_torch_visit")  # what it is compiled to: 64-bit results come in halves
visit_p.multiple_results = True


@functools.lru_cache(maxsize=512)
def _compiled(host: Host, linear: int) -> Callable[..., list[Any]]:
    return jax.jit(lambda *arrays: torch_p.bind(*arrays, host=host, linear=linear))


def _computed(*arrays: Any, host: Host, linear: int) -> list[Any]:
    halved = visit_p.bind(*arrays, host=host)
    return [
        _whole(leaf, shape.dtype) if _is_wide(shape.dtype) else leaf
        for leaf, shape in zip(halved, host.results, strict=True)
    ]


def _travelling(shape: jax.ShapeDtypeStruct) -> jax.core.ShapedArray:
    if not _is_wide(shape.dtype):
        return jax.core.ShapedArray(shape.shape, shape.dtype)
    return jax.core.ShapedArray((*shape.shape, np.dtype(shape.dtype).itemsize // 4), np.dtype(np.uint32))


def _lower(ctx: Any, *operands: Any, host: Host) -> Any:
    results, _, _ = mlir.emit_python_callback(
        ctx,
        lambda *arrays: tuple(on_host(host, arrays)),
        None,
        list(operands),
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return results


def _derivative(primals: Any, tangents: Any, *, host: Host, linear: int) -> tuple[Any, Any]:
    results = torch_p.bind(*primals, host=host, linear=linear)
    moved = tuple(
        i
        for i, (x, t) in enumerate(zip(primals, tangents, strict=True))
        if type(t) is not ad.Zero and inexact(x.dtype)
    )
    first = len(primals) - linear
    if linear and all(i >= first for i in moved):  # its own derivative
        changes = [ad.instantiate_zeros(t) for t in tangents[first:]]
        return results, torch_p.bind(*primals[:first], *changes, host=host, linear=linear)
    push = Push(host, moved)
    changes = iter(torch_p.bind(*primals, *(tangents[i] for i in moved), host=push, linear=len(moved)))
    zero = lambda leaf: ad.Zero(jax.core.ShapedArray(leaf.shape, jax.dtypes.float0))  # noqa: E731
    return results, [next(changes) if inexact(leaf.dtype) else zero(leaf) for leaf in results]


def _transposed(cotangents: Any, *arguments: Any, host: Any, linear: int) -> list[Any]:
    first = len(arguments) - linear
    filled = [ad.instantiate_zeros(leaf) for leaf in cotangents]
    found = torch_p.bind(*arguments[:first], *filled, host=host.transposed(), linear=len(filled))
    wanted = [
        leaf if ad.is_undefined_primal(argument) else None
        for leaf, argument in zip(found, arguments[first:], strict=True)
    ]
    return [None] * first + wanted


def _batched(arguments: Any, places: Any, *, host: Host, linear: int) -> tuple[Any, Any]:
    size = next(a.shape[d] for a, d in zip(arguments, places, strict=True) if d is not None)
    first = len(arguments) - linear
    front = [
        batching.bdim_at_front(a, d, size) for a, d in zip(arguments[first:], places[first:], strict=True)
    ]
    batch = Batch(host, (*places[:first], *(0,) * linear), size)
    results = torch_p.bind(*arguments[:first], *front, host=batch, linear=linear)
    return results, (0,) * len(results)


torch_p.def_impl(lambda *arrays, host, linear: _compiled(host, linear)(*arrays))
torch_p.def_abstract_eval(
    lambda *_, host, linear: [jax.core.ShapedArray(leaf.shape, leaf.dtype) for leaf in host.results]
)
visit_p.def_abstract_eval(lambda *_, host: [_travelling(leaf) for leaf in host.results])
mlir.register_lowering(visit_p, _lower)
mlir.register_lowering(torch_p, mlir.lower_fun(_computed, multiple_results=True))
ad.primitive_jvps[torch_p] = _derivative
ad.primitive_transposes[torch_p] = _transposed
batching.primitive_batchers[torch_p] = _batched
