"""dict-minimize's call for dictionaries of TensorFlow's tensors, `minimize`."""

from nestor.minimize._compatible import minimize

__all__ = ["minimize"]
