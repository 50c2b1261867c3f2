"""A function of JAX as a function of PyTorch."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nestor.errors import BadArgument, MissingExtra
from nestor.programs import trace_function
from nestor.settings import shown
from nestor.torch._functions import Function, has_64_bits

_WHERE = "torch.layer"
_KEPT = 256  # signatures that a layer remembers


def layer(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of JAX as a differentiable function of PyTorch: an `argmin` as a part of a module.

    Args:
        f: from trees of arrays to a tree of arrays, traceable by JAX. It is compiled at its first call with
            tensors of some shapes and dtypes; what it closes over is read then, as `jax.jit` does.

    Returns:
        A function with the same arguments. Tensors in them (parameters too, and arrays of JAX and NumPy) become
        arrays; everything else (numbers, strings, None) is handed on as it is, must be hashable, and another
        value is compiled again. The result is the tree of `f` with tensors in it. Gradients reach every floating
        tensor that `f` reads; the others get None. Derivatives of any order in both modes, `torch.func` and its
        `vmap` included, as far as JAX can differentiate `f`. Tensors of 64 bits are computed with in 64 bits
        whatever JAX's settings are; 64-bit integers become 32-bit ones unless JAX has 64-bit numbers switched on.
        Tensors must be on the CPU, or on a GPU that JAX has, too.

    Raises:
        BadArgument: f is not a function, cannot be traced, or an argument cannot be handed on.
        MissingExtra: PyTorch is not installed.

    A solve inside that does not converge cannot raise, since it is compiled: an `argmin` is then NaN. To look,
    return `nestor.minimize(...)` itself: its `.success` and `.status` work on tensors.

    Cost: nothing is copied where a tensor is contiguous and aligned as PyTorch aligns new ones (64 bytes); about
    0.1 ms for a tensor and 0.2 ms for a call. A gradient uses what the forward pass has kept; with
    `create_graph=True`, and in `torch.func`, it starts from the inputs again, with one more forward pass.

    >>> import nestor, torch
    >>> smooth = nestor.torch.layer(lambda x: nestor.argmin(lambda y: (y - x) ** 2 + y**2, 0.0))
    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> smooth(x).backward()
    >>> round(float(x.grad), 5)
    0.5
    """
    if not callable(f):
        raise BadArgument(
            _WHERE,
            "f",
            got=shown(f),
            want="a function from arrays to arrays",
            do="pass the function itself: nestor.torch.layer(f), and call the result with tensors",
        )
    need_torch("nestor.torch.layer")
    _refuse_module(_WHERE, "f", f, "nestor.torch.as_jax turns a module into a function of JAX")
    return _Layer(f)


def need_torch(purpose: str) -> None:
    """Raise where PyTorch is not installed."""
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise MissingExtra("torch", "torch", purpose) from error


class _Layer:
    """What `layer` returns; it can be copied, and pickled if `f` can."""

    def __init__(self, f: Callable[..., Any]):
        self.f = f
        self._function = functools.lru_cache(maxsize=_KEPT)(functools.partial(_trace, f))
        functools.update_wrapper(self, f, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The results of f, as tensors."""
        torch = importlib.import_module("torch")
        if (
            torch.compiler.is_compiling()
        ):  # PyTorch's compiler cannot look into JAX: it stops before and goes on after
            return torch.compiler.disable(self.run)(*args, **kwargs)
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """A call that PyTorch's compiler does not see."""
        from nestor.torch._autograd import call
        from nestor.torch._tensors import needs_64_bits, shape_of

        leaves, structure = jax.tree.flatten((args, kwargs))
        rest, tensors = _parts(leaves, structure)
        x64 = has_64_bits() or any(needs_64_bits(leaf) for leaf in tensors)
        function, results = self._function(
            structure, rest, tuple((s.shape, s.dtype) for s in (shape_of(leaf, x64) for leaf in tensors)), x64
        )
        return jax.tree.unflatten(results, call(function, tensors))

    def __repr__(self) -> str:
        return f"nestor.torch.layer({self.f!r})"

    def __reduce__(self) -> Any:
        return layer, (self.f,)


def _parts(leaves: list[Any], structure: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """What is no tensor, None in the place of one, with its type; and the tensors."""
    from nestor.torch._tensors import tensor_from_any, torch

    rest, tensors = [], []
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, (torch.Tensor, jax.Array, np.ndarray)):
            tensors.append(leaf if isinstance(leaf, torch.Tensor) else tensor_from_any(leaf))
            rest.append(None)
            continue
        name = name_of_leaf(structure, i)
        do = "pass its parameters and buffers: dict(module.named_parameters()), and compute in JAX"
        _refuse_module(_WHERE, name, leaf, do)
        try:
            hash(leaf)
        except TypeError as error:
            raise BadArgument(
                _WHERE,
                name,
                got=shown(leaf),
                want="a tensor, an array, or hashable",
                do="make it a tensor, or a tree of tensors (dictionaries, lists, registered dataclasses)",
            ) from error
        rest.append((type(leaf), leaf))
    return tuple(rest), tensors


def _trace(
    f: Callable[..., Any], structure: Any, rest: tuple[Any, ...], shapes: tuple[Any, ...], x64: bool
) -> tuple[Function, Any]:
    """The traced function of a flat list of arrays, and the structure of its result."""

    def flat(*arrays: Any) -> Any:
        of_tensors = iter(arrays)
        leaves = [next(of_tensors) if known is None else known[1] for known in rest]
        args, kwargs = jax.tree.unflatten(structure, leaves)
        return f(*args, **kwargs)

    inputs = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    with jax.enable_x64(x64):
        program, captured, results = trace_function(_WHERE, "f", flat, *inputs)
    return Function(program, captured, inputs, x64), jax.tree.structure(results)


def name_of_leaf(structure: Any, i: int) -> str:
    """How the user would write that leaf: args[0]['a']."""
    args, kwargs = jax.tree.unflatten(structure, range(structure.num_leaves))
    for name, part in (("args", args), ("kwargs", kwargs)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(part):
            if leaf == i:
                return f"{name}{jax.tree_util.keystr(path)}"
    return "args"


def _refuse_module(where: str, name: str, value: Any, do: str) -> None:
    if isinstance(value, importlib.import_module("torch").nn.Module):
        raise BadArgument(
            where, name, got=f"a module ({type(value).__name__})", want="a function of JAX or tensors", do=do
        )
