"""dict-minimize's call for dictionaries of JAX's arrays, `minimize`."""

from nestor.minimize._compatible import minimize

__all__ = ["minimize"]
