"""NumPy arrays: no derivatives of their own."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from nestor.minimize._frameworks import Call, Spec, not_floating


class InNumPy:
    """Arrays, NumPy scalars and Python floats."""

    name: ClassVar[str] = "NumPy"
    differentiates: ClassVar[bool] = False

    def specs(self, where: str, leaves: list[Any], paths: list[str]) -> list[Spec]:
        """Shapes and dtypes."""
        specs = []
        for leaf, path in zip(leaves, paths, strict=True):
            dtype = getattr(leaf, "dtype", np.dtype(float) if isinstance(leaf, float) else None)
            if dtype is None or not _is_floating(dtype) or isinstance(leaf, np.ma.MaskedArray):
                raise not_floating(where, path, leaf)
            specs.append(Spec(np.shape(leaf), dtype, type(leaf)))
        return specs

    def make(self, numbers: np.ndarray, spec: Spec) -> Any:
        """As the user will get it."""
        return self.give(numbers, spec)

    def give(self, numbers: np.ndarray, spec: Spec) -> Any:
        """An array, or a scalar of the kind that it was."""
        if not issubclass(spec.like, np.ndarray):
            return spec.like(numbers[0])
        return numbers.astype(spec.dtype).reshape(spec.shape)

    def value(self, call: Call, leaves: list[Any]) -> Any:
        """The objective."""
        return call(leaves)

    def value_and_grad(self, call: Call, leaves: list[Any]) -> tuple[Any, None]:
        """The objective; its gradient is somebody else's matter."""
        return call(leaves), None

    def hessian(self, call: Call, leaves: list[Any]) -> Any:
        """NumPy has none."""
        raise NotImplementedError("NumPy has no derivatives")

    def product(self, call: Call, leaves: list[Any], direction: list[Any]) -> Any:
        """NumPy has none."""
        raise NotImplementedError("NumPy has no derivatives")

    def jacobian(self, call: Call, leaves: list[Any]) -> Any:
        """NumPy has none."""
        raise NotImplementedError("NumPy has no derivatives")


def _is_floating(dtype: Any) -> bool:
    """NumPy's own of at most 64 bits, in any byte order, and the short ones that other packages add."""
    try:
        return dtype.itemsize <= 8 and jnp.issubdtype(dtype, jnp.floating)
    except TypeError:
        return False


FRAMEWORK = InNumPy()
