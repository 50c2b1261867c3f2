"""PyTorch tensors: derivatives by autograd, on the device where the tensors are."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from nestor.errors import BadArgument
from nestor.minimize._frameworks import Call, Spec, is_complex, no_number, not_floating, not_followed

torch: Any = importlib.import_module("torch")  # optional: this file is imported when tensors have come

_PRECISIONS = {torch.float64: np.float64, torch.float32: np.float32, torch.float16: np.float16}


class InTorch:
    """Tensors, parameters, and Python floats, which are 0-dimensional tensors on the way."""

    name: ClassVar[str] = "PyTorch"
    differentiates: ClassVar[bool] = True

    def specs(self, where: str, leaves: list[Any], paths: list[str]) -> list[Spec]:
        """Shapes, dtypes, devices."""
        device = next(leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor))
        specs = []
        for leaf, path in zip(leaves, paths, strict=True):
            if isinstance(leaf, (float, np.floating)):
                specs.append(Spec((), np.dtype(float), (torch.float64, device, type(leaf))))
                continue
            if not isinstance(leaf, torch.Tensor) or not leaf.dtype.is_floating_point:
                raise not_floating(where, path, leaf)
            if leaf.layout is not torch.strided:
                raise BadArgument(
                    where, path, got=f"of layout {leaf.layout}", want="dense", do="pass its .to_dense()"
                )
            again = torch.Tensor
            if isinstance(leaf, torch.nn.Parameter):
                again = functools.partial(torch.nn.Parameter, requires_grad=leaf.requires_grad)
            specs.append(Spec(tuple(leaf.shape), _precision(leaf.dtype), (leaf.dtype, leaf.device, again)))
        return specs

    def make(self, numbers: np.ndarray, spec: Spec) -> Any:
        """A tensor that autograd follows."""
        with torch.inference_mode(False):
            return self._tensor(numbers, spec).requires_grad_(True)

    def give(self, numbers: np.ndarray, spec: Spec) -> Any:
        """A detached tensor, a parameter or a number, as it was."""
        again = spec.like[2]
        if isinstance(again, type) and issubclass(again, (float, np.floating)):
            return again(numbers[0])
        tensor = self._tensor(numbers, spec)
        return tensor if again is torch.Tensor else again(tensor)

    def _tensor(self, numbers: np.ndarray, spec: Spec) -> Any:
        dtype, device, _ = spec.like
        return torch.from_numpy(numbers).to(device=device, dtype=dtype, copy=True).reshape(spec.shape)

    def value(self, call: Call, leaves: list[Any]) -> Any:
        """The objective."""
        with _following():  # the function may differentiate by itself
            return call(leaves)

    def value_and_grad(self, call: Call, leaves: list[Any]) -> tuple[Any, list[Any] | None]:
        """One backward pass."""
        with _following():
            result = call(leaves)
            if isinstance(result, (tuple, list)):
                return result, None
            if isinstance(result, torch.Tensor) and (result.numel() != 1 or is_complex(result)):
                return result, leaves  # refused by whoever reads the value
            if not getattr(result, "requires_grad", False) and no_number(result):
                return result, [torch.full_like(leaf, torch.nan) for leaf in leaves]
            grads = _slopes(result, leaves)
            return result, [_or_zero(grad, leaf) for grad, leaf in zip(grads, leaves, strict=True)]

    def hessian(self, call: Call, leaves: list[Any]) -> list[list[np.ndarray]]:
        """A backward pass for every unknown, all at once where every operation can be batched."""
        with _following():
            grads = self._tracked(call, leaves)
            return [_rows(grad.reshape(-1), leaves) for grad in grads]

    def product(self, call: Call, leaves: list[Any], direction: list[Any]) -> list[Any]:
        """A backward pass through a backward pass."""
        with _following():
            grads = self._tracked(call, leaves)
            kept = [(g, v.detach()) for g, v in zip(grads, direction, strict=True) if g.requires_grad]
            if not kept:
                return [torch.zeros_like(leaf) for leaf in leaves]
            seconds = torch.autograd.grad(
                [g for g, _ in kept], leaves, [v.to(g.dtype) for g, v in kept], allow_unused=True
            )
        return [_or_zero(second, leaf) for second, leaf in zip(seconds, leaves, strict=True)]

    def jacobian(self, call: Call, leaves: list[Any]) -> list[np.ndarray]:
        """A backward pass for every entry."""
        with _following():
            result = call(leaves)
            if not getattr(result, "requires_grad", False):
                raise _lost(result)
            return _rows(result.reshape(-1), leaves)

    def _tracked(self, call: Call, leaves: list[Any]) -> list[Any]:
        result = call(leaves)
        if isinstance(result, (tuple, list)):  # the user's gradient may not be one that can be followed
            result = result[0]
        grads = _slopes(result, leaves, create_graph=True)
        return [_or_zero(grad, leaf) for grad, leaf in zip(grads, leaves, strict=True)]


def _rows(result: Any, leaves: list[Any]) -> list[np.ndarray]:
    """The Jacobian of a vector."""
    count = result.shape[0]
    if not result.requires_grad or count == 0:
        return [np.zeros((count, leaf.numel())) for leaf in leaves]
    units = torch.eye(count, dtype=result.dtype, device=result.device)
    try:
        rows = torch.autograd.grad(
            result, leaves, units, allow_unused=True, retain_graph=True, is_grads_batched=True
        )
    except RuntimeError:  # an operation without a rule for batches
        each = [
            torch.autograd.grad(result, leaves, unit, allow_unused=True, retain_graph=True) for unit in units
        ]
        rows = [
            None
            if all(row[i] is None for row in each)
            else torch.stack([_or_zero(row[i], leaf) for row in each])
            for i, leaf in enumerate(leaves)
        ]
    return [
        np.zeros((count, leaf.numel()))
        if row is None
        else row.detach().reshape(count, -1).double().cpu().numpy()
        for row, leaf in zip(rows, leaves, strict=True)
    ]


def _or_zero(grad: Any, leaf: Any) -> Any:
    return torch.zeros_like(leaf) if grad is None else grad


@contextlib.contextmanager
def _following() -> Iterator[None]:
    """Autograd listens, whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _slopes(result: Any, leaves: list[Any], create_graph: bool = False) -> Any:
    """The derivatives of a value; None for leaves that it does not depend on."""
    if not isinstance(result, torch.Tensor) or not result.requires_grad:
        raise _lost(result)
    try:
        return torch.autograd.grad(
            result.reshape(()),
            leaves,
            create_graph=create_graph,
            allow_unused=True,
            retain_graph=create_graph,
        )
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        raise BadArgument(
            "minimize",
            "fun",
            got="a function that has called .backward(), which frees what the gradient is computed from",
            want="one that returns its value, and is differentiated here",
            do="leave .backward() out; or return (value, gradient), or detach what is computed outside fun",
        ) from error


def _lost(result: Any) -> Exception:
    return not_followed(
        result, "autograd", "PyTorch operations", ".detach(), .item(), .numpy() and torch.no_grad()"
    )


def _precision(dtype: Any) -> Any:
    if dtype in _PRECISIONS:
        return np.dtype(_PRECISIONS[dtype])
    import ml_dtypes  # comes with JAX

    return np.dtype(getattr(ml_dtypes, str(dtype).removeprefix("torch.")))


FRAMEWORK = InTorch()
