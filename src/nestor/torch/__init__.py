"""PyTorch on both sides: functions of JAX as differentiable functions of tensors, and modules as functions of JAX."""

from nestor.torch._as_jax import as_jax
from nestor.torch._layer import layer

__all__ = ["as_jax", "layer"]
