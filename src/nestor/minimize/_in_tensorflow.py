"""TensorFlow tensors and variables: derivatives by GradientTape."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import numpy as np

from nestor.minimize._frameworks import Call, Spec, is_complex, no_number, not_floating, not_followed

tf: Any = importlib.import_module("tensorflow")  # optional: this file is imported when tensors have come

_ZERO = tf.UnconnectedGradients.ZERO


class InTensorFlow:
    """Tensors, variables, and Python floats, which take the dtype of the first tensor on the way."""

    name: ClassVar[str] = "TensorFlow"
    differentiates: ClassVar[bool] = True

    def specs(self, where: str, leaves: list[Any], paths: list[str]) -> list[Spec]:
        """Shapes and dtypes."""
        first = next(leaf.dtype for leaf in leaves if isinstance(leaf, (tf.Tensor, tf.Variable)))
        specs = []
        for leaf, path in zip(leaves, paths, strict=True):
            if isinstance(leaf, (float, np.floating)):
                specs.append(Spec((), np.dtype(first.as_numpy_dtype), (first, type(leaf))))
                continue
            if not isinstance(leaf, (tf.Tensor, tf.Variable)) or not leaf.dtype.is_floating:
                raise not_floating(where, path, leaf)
            kind = tf.Variable if isinstance(leaf, tf.Variable) else tf.Tensor
            specs.append(Spec(tuple(leaf.shape), np.dtype(leaf.dtype.as_numpy_dtype), (leaf.dtype, kind)))
        return specs

    def make(self, numbers: np.ndarray, spec: Spec) -> Any:
        """A tensor."""
        return tf.convert_to_tensor(numbers.astype(spec.dtype).reshape(spec.shape), dtype=spec.like[0])

    def give(self, numbers: np.ndarray, spec: Spec) -> Any:
        """A tensor, a variable or a number, as it was."""
        if issubclass(spec.like[1], (float, np.floating)):
            return spec.like[1](numbers[0])
        tensor = self.make(numbers, spec)
        return tf.Variable(tensor) if spec.like[1] is tf.Variable else tensor

    def value(self, call: Call, leaves: list[Any]) -> Any:
        """The objective."""
        return call(leaves)

    def value_and_grad(self, call: Call, leaves: list[Any]) -> tuple[Any, list[Any] | None]:
        """One tape."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(leaves)
            result = call(leaves)
        if isinstance(result, (tuple, list)):
            return result, None
        if result is None or is_complex(result) or tf.size(result) != 1:
            return result, leaves  # refused by whoever reads the value
        grads = _slopes(tape, result, leaves)
        if grads is not None:
            return result, grads
        if no_number(result):
            return result, [tf.fill(leaf.shape, tf.constant(np.nan, leaf.dtype)) for leaf in leaves]
        raise _lost(result)

    def hessian(self, call: Call, leaves: list[Any]) -> list[list[np.ndarray]]:
        """The Jacobian of the gradient, tape around tape."""
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
            outer.watch(leaves)
            grads = [tf.reshape(grad, [-1]) for grad in self._grads(call, leaves)]
        return [_rows(outer, grad, leaves) for grad in grads]

    def product(self, call: Call, leaves: list[Any], direction: list[Any]) -> list[Any]:
        """The gradient of the slope along a direction."""
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(leaves)
            grads = self._grads(call, leaves)
        return outer.gradient(grads, leaves, output_gradients=direction, unconnected_gradients=_ZERO)

    def jacobian(self, call: Call, leaves: list[Any]) -> list[np.ndarray]:
        """One tape, and its Jacobian."""
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(leaves)
            found = call(leaves)
            result = tf.reshape(found, [-1])
        if not tf.is_tensor(found) or all(grad is None for grad in tape.gradient(result, leaves)):
            raise _lost(found)
        return _rows(tape, result, leaves)

    def _grads(self, call: Call, leaves: list[Any]) -> list[Any]:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(leaves)
            result = call(leaves)
            result = result[0] if isinstance(result, (tuple, list)) else result
        grads = _slopes(inner, result, leaves)
        if grads is None:
            raise _lost(result)
        return [tf.convert_to_tensor(grad) for grad in grads]


def _slopes(tape: Any, result: Any, leaves: list[Any]) -> list[Any] | None:
    """The derivatives of a value, zero for leaves that it does not depend on; None where it depends on none."""
    grads = tape.gradient(result, leaves) if tf.is_tensor(result) else [None]
    if all(grad is None for grad in grads):
        return None
    return [tf.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True)]


def _lost(result: Any) -> Exception:
    return not_followed(
        result, "GradientTape", "TensorFlow operations", ".numpy(), float() and tf.stop_gradient"
    )


def _rows(tape: Any, result: Any, leaves: list[Any]) -> list[np.ndarray]:
    blocks = tape.jacobian(result, leaves, unconnected_gradients=_ZERO, experimental_use_pfor=False)
    count = int(result.shape[0])
    return [np.asarray(block.numpy(), np.float64).reshape(count, -1) for block in blocks]


FRAMEWORK = InTensorFlow()
