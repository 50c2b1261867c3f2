"""A module, or any function, of PyTorch as a function of JAX."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument
from nestor.settings import shown
from nestor.torch._functions import has_64_bits
from nestor.torch._layer import name_of_leaf, need_torch

_WHERE = "torch.as_jax"
_KEPT = 256  # signatures that a function remembers


def as_jax(module: Callable[..., Any]) -> Any:
    """A module of PyTorch as a function of JAX, differentiable to any order: a model to be optimized here.

    PyTorch computes it, on the host and on the CPU; JAX differentiates, batches and compiles what is around it.

    Args:
        module: a `torch.nn.Module`, or a function of tensors. It must be pure: no dropout in training mode
            (`module.eval()` first), and what it does to its buffers is forgotten.

    Returns:
        For a module a function of the parameters and of what it takes, with an attribute `params`: those of now, a
        dictionary of JAX arrays by name; names that are left out of it are as the module has them.
        `module.load_state_dict(jax.tree.map(torch.from_dlpack, params), strict=False)` is the way back. For a
        function a function with the same arguments. Arrays and tensors among them become tensors, everything else is
        handed on as it is and must be hashable; the result is a tree of arrays.

    Raises:
        BadArgument: no function; a module that is not on the CPU; a result that is no tree of tensors, or that is of
            another shape than on zeros; parameters that the module does not have.
        MissingExtra: PyTorch is not installed.

    Cost: it is run once, on zeros, for every combination of shapes, to know the shapes of its results. A
    visit to the host costs about 0.2 ms, one for a gradient 0.5 ms, and copies what goes there; a gradient starts
    with a forward pass of its own, and a product with a Hessian with two. Under `vmap` the lanes go
    to `torch.func.vmap`, one by one where PyTorch cannot. A derivative that PyTorch lacks (a function
    with a rule of its own that cannot be differentiated again, an operation without forward mode) is an error of
    PyTorch at run time.

    >>> import jax, jax.numpy as jnp, nestor, torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> model = nestor.torch.as_jax(net)
    >>> x = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> loss = lambda params: jnp.mean((model(params, x)[:, 0] - x @ jnp.asarray([2.0, -1.0])) ** 2)
    >>> nestor.minimize(loss, model.params).x["weight"].round(2).tolist()
    [[2.0, -1.0]]
    """
    if not callable(module) or isinstance(module, type):
        raise BadArgument(
            _WHERE,
            "module",
            got=shown(module),
            want="a module or a function of PyTorch",
            do="pass the module itself, an object: module = torch.nn.Linear(2, 1); nestor.torch.as_jax(module)",
        )
    need_torch("nestor.torch.as_jax")
    if isinstance(module, importlib.import_module("torch").nn.Module):
        return _Module(module)
    return _Function(module)


class _Function:
    """What `as_jax` returns for a function."""

    def __init__(self, fun: Callable[..., Any]):
        self._fun = fun
        self._source = functools.lru_cache(maxsize=_KEPT)(functools.partial(_source, fun))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The results as arrays."""
        from nestor.torch._host import torch_p

        leaves, structure = jax.tree.flatten((args, kwargs))
        rest, arrays = _parts(leaves, structure)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in arrays)
        source, results = self._source(structure, rest, shapes, has_64_bits())
        return jax.tree.unflatten(results, torch_p.bind(*arrays, host=source, linear=0))

    def __repr__(self) -> str:
        return f"nestor.torch.as_jax({self._fun!r})"

    def __reduce__(self) -> Any:
        return as_jax, (self._fun,)


class _Module(_Function):
    """What `as_jax` returns for a module.

    Attributes:
        params: its parameters as they were then, a dictionary of JAX arrays by name.
    """

    def __init__(self, module: Any):
        from nestor.torch._host import numpy_from

        torch = importlib.import_module("torch")
        known = {*dict(module.named_parameters(remove_duplicate=False)), *dict(module.named_buffers())}
        values = dict(module.named_parameters())
        for name, value in (*values.items(), *module.named_buffers()):
            if value.device.type != "cpu":
                raise BadArgument(
                    _WHERE,
                    "module",
                    got=f"a {type(module).__name__} whose {name} is on the device {str(value.device)!r}",
                    want="on the CPU",
                    do="move it there: module.cpu(); to stay on the GPU, write the model in JAX",
                )

        def fun(params: Any, *args: Any, **kwargs: Any) -> Any:
            odd = set(params) - known if isinstance(params, dict) else {type(params).__name__}
            if odd:
                raise BadArgument(
                    _WHERE,
                    "params",
                    got=f"with {sorted(odd)}, which {type(module).__name__} does not have",
                    want="a dictionary of arrays by the names of its parameters",
                    do="start from .params of what as_jax returns",
                )
            buffers = {name: value.clone() for name, value in module.named_buffers()}
            return torch.func.functional_call(module, {**buffers, **params}, args, kwargs)

        super().__init__(fun)
        self._module = module
        self.params = {name: jnp.array(numpy_from(value.detach())) for name, value in values.items()}

    def __repr__(self) -> str:
        return f"nestor.torch.as_jax({self._module!r})"

    def __reduce__(self) -> Any:
        return as_jax, (self._module,)


def _parts(leaves: list[Any], structure: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """What is no array, None in the place of one, with its type; and the arrays."""
    from nestor.torch._tensors import array_from, torch

    rest, arrays = [], []
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            arrays.append(jnp.array(array_from(_WHERE, name_of_leaf(structure, i), leaf)))
            rest.append(None)
            continue
        if isinstance(leaf, (jax.Array, np.ndarray)):
            arrays.append(jnp.asarray(leaf))
            rest.append(None)
            continue
        try:
            hash(leaf)
        except TypeError as error:
            raise BadArgument(
                _WHERE,
                name_of_leaf(structure, i),
                got=shown(leaf),
                want="an array or hashable",
                do="make it an array, or a tree of arrays",
            ) from error
        rest.append((type(leaf), leaf))
    return tuple(rest), arrays


def _source(
    fun: Callable[..., Any], structure: Any, rest: tuple[Any, ...], shapes: tuple[Any, ...], x64: bool
) -> tuple[Any, Any]:
    """The function of a flat list of tensors with the shapes of its results, and their structure."""
    from nestor.torch._host import Source, torch_dtype
    from nestor.torch._tensors import shape_of, torch

    def whole(*tensors: Any) -> Any:
        of_arrays = iter(tensors)
        leaves = [next(of_arrays) if known is None else known[1] for known in rest]
        args, kwargs = jax.tree.unflatten(structure, leaves)
        return fun(*args, **kwargs)

    with torch.no_grad():
        results = whole(*(torch.zeros(shape, dtype=torch_dtype(dtype)) for shape, dtype in shapes))
    leaves, out = jax.tree.flatten(results)
    wrong = next((leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)), None)
    if wrong is not None or not leaves:
        raise BadArgument(
            _WHERE,
            "module",
            got=f"a function that returns {'nothing' if wrong is None else shown(wrong)}",
            want="a function to a tensor or a tree of tensors",
            do="return tensors only",
        )
    inputs = tuple(jax.ShapeDtypeStruct(*shape) for shape in shapes)
    found = tuple(shape_of(leaf, x64) for leaf in leaves)
    return Source(lambda *tensors: tuple(_leaves(whole(*tensors), out, found)), inputs, found), out


def _leaves(results: Any, structure: Any, shapes: tuple[Any, ...]) -> list[Any]:
    """The tensors of a result, which must be as it was on zeros."""
    leaves, now = jax.tree.flatten(results)
    if now != structure or any(tuple(leaf.shape) != s.shape for leaf, s in zip(leaves, shapes, strict=True)):
        raise BadArgument(
            _WHERE,
            "module",
            got=f"a function that returned {[s.shape for s in shapes]} on zeros, and something else later",
            want="one whose results have the same structure and shapes whatever the values are",
            do="use torch.where instead of selecting entries",
        )
    return leaves
