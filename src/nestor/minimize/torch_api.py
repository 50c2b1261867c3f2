"""dict-minimize's call for dictionaries of PyTorch's tensors, `minimize`."""

from nestor.minimize._compatible import minimize

__all__ = ["minimize"]
