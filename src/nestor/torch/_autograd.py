"""Where PyTorch's differentiation meets JAX's: one `torch.autograd.Function` for all functions and orders."""

from __future__ import annotations

from typing import Any

from nestor.torch._functions import Function
from nestor.torch._tensors import array_from, tensors_from, torch

WHERE = "torch.layer"


class Call:
    """One call of a function: what it is, and what its reverse pass needs.

    Args:
        function: to be called.
        keep: whether a reverse pass may come.
    """

    def __init__(self, function: Function, keep: bool):
        self.function, self.keep = function, keep
        self.wrt: tuple[int, ...] = ()
        self.pull: Any = None


def call(function: Function, tensors: list[Any]) -> tuple[Any, ...]:
    """The results of a function as tensors, differentiable by PyTorch."""
    return Crossing.apply(Call(function, torch.is_grad_enabled()), *tensors)


class Crossing(torch.autograd.Function):
    """(a `Call`, *tensors) -> tensors.

    A plain reverse pass uses what the forward pass has kept. All that is more (derivatives of derivatives, forward
    mode, `torch.func`) calls the function that the derivative is, which starts from the inputs again.
    """

    @staticmethod
    def forward(call: Call, *tensors: Any) -> tuple[Any, ...]:
        """Compute, and keep what a reverse pass needs if one may come."""
        function = call.function
        arrays = _arrays(function, tensors)
        if call.keep:
            call.wrt = tuple(i for i in function.movable if tensors[i].requires_grad)
        if not call.wrt or not function.floats:
            return tensors_from(function(arrays), [arrays, function.captured])
        results, call.pull = function.with_pull(arrays, call.wrt)
        return tensors_from(results, [arrays, function.captured, call.pull])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Remember the call and its inputs: PyTorch then notices if they are written to."""
        ctx.call, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        floats = ctx.call.function.floats
        ctx.mark_non_differentiable(*(leaf for i, leaf in enumerate(output) if i not in floats))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        """Cotangents of the inputs; None for those that have none."""
        tensors = ctx.saved_tensors
        function, wrt = ctx.call.function, ctx.call.wrt
        cotangents = tuple(cotangents[i] for i in function.floats)
        if ctx.call.pull is not None and not torch.is_grad_enabled():
            with function.precision():
                arrays = [array_from(WHERE, "cotangent", leaf) for leaf in cotangents]
            found = function.pulled(ctx.call.pull, arrays)
            found = tensors_from(found, [arrays, ctx.call.pull])
        else:
            wrt = tuple(i for i in function.movable if ctx.needs_input_grad[i + 1])
            found = call(function.pull(wrt), [*tensors, *cotangents]) if wrt else ()
        slots: list[Any] = [None] * (1 + len(tensors))
        for i, leaf in zip(wrt, found, strict=True):
            slots[i + 1] = leaf
        return tuple(slots)

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> tuple[Any, ...]:
        """Tangents of the results; None for integers."""
        function = ctx.call.function
        moved = tuple(i for i in function.movable if tangents[i] is not None)
        slots: list[Any] = [None] * len(function.outputs)
        found = call(function.push(moved), [*ctx.saved_tensors, *(tangents[i] for i in moved)])
        for i, leaf in zip(function.floats, found, strict=True):
            slots[i] = leaf
        return tuple(slots)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], one: Call, *tensors: Any) -> tuple[Any, Any]:
        """All lanes in one call."""
        places = tuple(None if d is None else d % t.ndim for d, t in zip(in_dims[1:], tensors, strict=True))
        results = call(one.function.batched(places, info.batch_size), list(tensors))
        return results, (0,) * len(results)


def _arrays(function: Function, tensors: tuple[Any, ...]) -> list[Any]:
    with function.precision():
        return [array_from(WHERE, f"tensor {i}", leaf) for i, leaf in enumerate(tensors)]
