"""One call that minimizes functions of trees of NumPy, PyTorch, TensorFlow and JAX arrays."""

from nestor.minimize._front import minimize

__all__ = ["minimize"]
