"""BLAS on one thread while a sampler thinks: small matrices, and bits that do not depend on threads."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any


@functools.cache
def _controller() -> Any:
    """The BLAS libraries of this process, found once SciPy's are loaded."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS inside; as many as before outside."""
    with _controller().limit(limits=1):
        yield
