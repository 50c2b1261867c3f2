"""Which framework a leaf belongs to, and what a host solver needs of one; none is imported for the asking."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from nestor.errors import BadArgument
from nestor.settings import shown

Call = Callable[[list[Any]], Any]  # the user's function, of the list of leaves


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a leaf is.

    Attributes:
        shape, size: of the array.
        dtype: NumPy's dtype of the same precision.
        like: what its framework wants to know to make another.
    """

    shape: tuple[int, ...]
    dtype: Any
    like: Any

    @property
    def size(self) -> int:
        """The number of entries."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def eps(self) -> float:
        """The spacing of numbers at 1."""
        return float(jax.numpy.finfo(self.dtype).eps)


class Framework(Protocol):
    """What a host solver needs of a framework.

    Attributes:
        name: as people write it.
        differentiates: whether gradients come from the framework; else by finite differences.
    """

    name: ClassVar[str]
    differentiates: ClassVar[bool]

    def specs(self, where: str, leaves: list[Any], paths: list[str]) -> list[Spec]:
        """What the leaves are."""
        ...

    def make(self, numbers: np.ndarray, spec: Spec) -> Any:
        """A leaf for the user's function from its entries, a float64 vector; never a view of it."""
        ...

    def give(self, numbers: np.ndarray, spec: Spec) -> Any:
        """A leaf for the user to keep."""
        ...

    def value(self, call: Call, leaves: list[Any]) -> Any:
        """``call(leaves)``, and no derivative of it."""
        ...

    def value_and_grad(self, call: Call, leaves: list[Any]) -> tuple[Any, list[Any] | None]:
        """The same with the gradient in every leaf; None in its place where `call` returned a pair."""
        ...

    def hessian(self, call: Call, leaves: list[Any]) -> list[list[np.ndarray]]:
        """Second derivatives, [i][j] of shape (size of leaf i, size of leaf j)."""
        ...

    def product(self, call: Call, leaves: list[Any], direction: list[Any]) -> list[Any]:
        """The Hessian times a direction, leaf by leaf."""
        ...

    def jacobian(self, call: Call, leaves: list[Any]) -> list[np.ndarray]:
        """The derivative of one array, for every leaf of shape (size of the array, size of the leaf)."""
        ...


_PLACES = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX", "numpy": "NumPy"}


def is_leaf(value: Any) -> bool:
    """Whether something is an array or a scalar of a framework, or a Python float."""
    return isinstance(value, float) or kind(value) != ""


def kind(value: Any) -> str:
    """The package an array comes from; empty for what is no array."""
    if isinstance(value, (np.ndarray, np.generic)):
        return "numpy"
    if isinstance(value, jax.Array):
        return "jax"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return "torch"
    if type(value).__module__.partition(".")[0] == "tensorflow":
        tensorflow = sys.modules["tensorflow"]
        if isinstance(value, (tensorflow.Tensor, tensorflow.Variable)):
            return "tensorflow"
    return ""


def refuse_holders(where: str, leaves: list[Any]) -> None:
    """Say how the arrays are got out of an object that holds some: a module of PyTorch, a variable of Keras.

    Raises:
        BadArgument: there is one among the leaves.
    """
    torch = sys.modules.get("torch")
    for leaf in leaves:
        do = ""
        if torch is not None and isinstance(leaf, torch.nn.Module):
            do = "pass dict(module.named_parameters()), and call torch.func.functional_call in fun"
        elif type(leaf).__module__.partition(".")[0] == "keras" and hasattr(leaf, "value"):
            do = "pass the values of Keras variables: [variable.value for variable in model.trainable_variables]"
        if do:
            kept = f"a {type(leaf).__name__}, which holds arrays"
            raise BadArgument(where, "x0", got=kept, want="made of arrays", do=do)


def framework_of(where: str, leaves: list[Any], paths: list[str]) -> Framework:
    """The one framework of all leaves; Python and NumPy scalars go with any.

    Raises:
        BadArgument: leaves of two frameworks.
    """
    found: dict[str, str] = {}
    for leaf, path in zip(leaves, paths, strict=True):
        of = kind(leaf)
        if of and not isinstance(leaf, np.generic):
            found.setdefault(of, path)
    if len(found) > 1:
        (one, here), (other, there) = [*found.items()][:2]
        raise BadArgument(
            where,
            "x0",
            got=f"of two frameworks, {_PLACES[one]} at {here} and {_PLACES[other]} at {there}",
            want="a tree of arrays of one framework",
            do=f"convert one of them, for instance {there} to {_PLACES[one]}",
        )
    scalars = [leaf for leaf in leaves if isinstance(leaf, np.generic)]
    of = next(iter(found), "numpy" if scalars else "jax")
    module = importlib.import_module(f"nestor.minimize._in_{of}")
    return module.FRAMEWORK


def numbers(leaf: Any) -> np.ndarray:
    """The entries of anybody's array or number as float64.

    Raises:
        TypeError, ValueError: complex numbers, text, None, and what else is no array of real numbers.
    """
    of = kind(leaf)
    if leaf is None or isinstance(leaf, (str, bytes, complex)) or is_complex(leaf):
        raise TypeError(f"{shown(leaf)} is no real number")
    if of == "torch":
        leaf = leaf.detach()
        leaf = (leaf if leaf.device.type == "cpu" else leaf.cpu()).double().numpy()
    elif of == "tensorflow":
        leaf = leaf.numpy()
    elif leaf is not None and "IndexedSlices" in type(leaf).__name__:  # TensorFlow's gradient of a lookup
        leaf = sys.modules["tensorflow"].convert_to_tensor(leaf).numpy()
    return np.asarray(leaf, np.float64)


def is_complex(leaf: Any) -> bool:
    """Whether the entries of something are complex numbers."""
    return isinstance(leaf, complex) or "complex" in str(getattr(leaf, "dtype", ""))


def shape_of(leaf: Any) -> tuple[int, ...]:
    """The shape of anybody's array or number."""
    shape = getattr(leaf, "shape", None)
    return tuple(int(n) for n in (np.shape(leaf) if shape is None else shape))


class NotFollowed(BadArgument):
    """A framework cannot differentiate a function, since what it returns is not computed by that framework."""


def not_followed(value: Any, name: str, operations: str, leave_out: str) -> NotFollowed:
    """Why a value has no derivative.

    Args:
        value: what the function returned.
        name: of what would follow it.
        operations: what the value has to be computed by.
        leave_out: what breaks the thread.
    """
    return NotFollowed(
        "minimize",
        "fun",
        got=f"a function whose value {name} cannot follow back to x (a {type(value).__name__})",
        want=f"computed from x by {operations}",
        do=f"leave out {leave_out}, return (value, gradient), or pass jac=, which may be '2-point'",
    )


def no_number(value: Any) -> bool:
    """Whether a value is NaN or infinite: then nothing is asked of its derivative."""
    try:
        entries = numbers(value)
    except (TypeError, ValueError):
        return False
    return entries.size == 1 and not np.isfinite(entries).all()


def not_floating(where: str, path: str, leaf: Any) -> BadArgument:
    """Why a leaf cannot be moved."""
    dtype = getattr(leaf, "dtype", None)
    got = f"a {type(leaf).__name__}" if dtype is None else f"of dtype {dtype}"
    got = "a masked array" if isinstance(leaf, np.ma.MaskedArray) else got
    do = "convert it, as x.astype(float) does, or leave it out of x0 and close over it"
    if isinstance(leaf, (int, np.integer)) and not isinstance(leaf, bool):
        got, do = f"the integer {leaf}", f"write {float(leaf)!r}, or leave it out of x0 and close over it"
    return BadArgument(where, path, got=got, want="real and floating-point, of at most 64 bits", do=do)
