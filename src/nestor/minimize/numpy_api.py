"""dict-minimize's call for dictionaries of NumPy's arrays, `minimize`."""

from nestor.minimize._compatible import minimize

__all__ = ["minimize"]
