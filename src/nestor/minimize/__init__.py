"""One call that minimizes functions of trees of NumPy, PyTorch, TensorFlow and JAX arrays."""

from nestor.minimize import jax_api, numpy_api, tensorflow_api, torch_api
from nestor.minimize._front import minimize

__all__ = ["jax_api", "minimize", "numpy_api", "tensorflow_api", "torch_api"]

for _module in (
    jax_api,
    numpy_api,
    tensorflow_api,
    torch_api,
):  # nestor.minimize is the function: they go with it
    setattr(minimize, _module.__name__.rpartition(".")[2], _module)
