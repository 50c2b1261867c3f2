"""Tensors become arrays and arrays tensors, in the same memory where it allows."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument
from nestor.programs import is_traced
from nestor.torch._functions import has_64_bits

torch: Any = importlib.import_module("torch")  # not a statement: types are checked without PyTorch, too

_INT32 = (-(2**31), 2**31 - 1)
_OF_32_BITS = {"int64": "int32", "float64": "float32", "complex128": "complex64"}


def array_from(where: str, name: str, tensor: Any) -> jax.Array:
    """A tensor as an array: the same memory for a contiguous, aligned tensor, else a copy.

    64-bit integers become 32-bit ones where JAX has no 64-bit numbers at the moment.

    Args:
        where, name: the public function and what the tensor is, for messages.
        tensor: of PyTorch, on a device that JAX has.

    Raises:
        BadArgument: sparse, quantized, on a device that JAX has not, or integers that do not fit in 32 bits.
    """
    try:
        tensor = tensor.detach()
    except RuntimeError as error:  # a batched tensor of the old kind
        do = "use torch.func.jacrev or torch.func.vmap instead of is_grads_batched or vectorize=True"
        raise BadArgument(where, name, got="a batch of tensors", want="a single tensor", do=do) from error
    if tensor.layout is not torch.strided or tensor.is_quantized:
        got = f"a tensor of layout {tensor.layout}{' (quantized)' if tensor.is_quantized else ''}"
        raise BadArgument(where, name, got=got, want="dense", do="pass tensor.to_dense() or .dequantize()")
    _check_device(where, name, tensor)
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    if tensor.dtype is torch.int64 and not has_64_bits():
        tensor = _narrow(where, name, tensor)
    return jax.dlpack.from_dlpack(tensor)


def tensors_from(arrays: list[Any], held: list[Any]) -> tuple[Any, ...]:
    """Arrays as tensors: the same memory, or a copy where `held`, or another of the arrays, has that memory.

    So nothing that is done to a tensor in place is seen anywhere else.
    """
    jax.block_until_ready(arrays)  # the inputs may be written to from here on
    taken = {_memory(leaf) for leaf in jax.tree.leaves(held)}
    made = []
    for leaf in arrays:
        tensor, memory = torch.from_dlpack(leaf), _memory(leaf)
        made.append(tensor.clone() if memory in taken else tensor)
        taken.add(memory)
    return tuple(made)


def shape_of(tensor: Any, x64: bool) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the array that a tensor becomes.

    Raises:
        BadArgument: quantized.
    """
    if tensor.is_quantized:
        got, do = f"a quantized tensor ({tensor.dtype})", "pass tensor.dequantize()"
        raise BadArgument("torch.layer", "tensor", got=got, want="dense numbers", do=do)
    name = str(tensor.dtype).removeprefix("torch.")
    name = name if x64 else _OF_32_BITS.get(name, name)
    return jax.ShapeDtypeStruct(tuple(tensor.shape), jnp.dtype(name))


def needs_64_bits(tensor: Any) -> bool:
    """Whether a tensor holds 64-bit floating-point numbers."""
    return tensor.dtype in (torch.float64, torch.complex128)


def tensor_from_any(value: Any) -> Any:
    """An array of JAX or NumPy as a tensor."""
    if is_traced(value):
        raise BadArgument(
            "torch.layer",
            "tensor",
            got="a traced array of JAX",
            want="a tensor, or an array with values",
            do="call f itself inside functions that JAX traces; a layer is for PyTorch",
        )
    if not isinstance(value, np.ndarray):
        return torch.from_dlpack(value)
    return torch.tensor(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))


def _memory(leaf: Any) -> Any:
    return leaf.unsafe_buffer_pointer() if isinstance(leaf, jax.Array) else None


def _check_device(where: str, name: str, tensor: Any) -> None:
    kind = tensor.device.type
    if kind == "cpu":
        return
    try:
        has_it = kind == "cuda" and bool(jax.devices("gpu"))
    except RuntimeError:
        has_it = False
    if not has_it:
        raise BadArgument(
            where,
            name,
            got=f"a tensor on the device {str(tensor.device)!r}",
            want="on a device that JAX has, too",
            do="move it with .cpu(), or install JAX for that device (for CUDA: pip install 'jax[cuda13]')",
        )


def _narrow(where: str, name: str, tensor: Any) -> Any:
    if tensor.numel():
        least, most = (int(bound) for bound in torch.aminmax(tensor))
        if least < _INT32[0] or most > _INT32[1]:
            raise BadArgument(
                where,
                name,
                got=f"a tensor of 64-bit integers from {least} to {most}",
                want="within 32 bits",
                do='switch on 64-bit numbers: jax.config.update("jax_enable_x64", True)',
            )
    return tensor.to(torch.int32)
