"""BLAS on one thread while a host solver runs, for its vectors are short; the objective keeps its threads.

SciPy's solvers call BLAS thousands of times on vectors and small matrices. With more than one thread each call waits
for all of them, and a run of L-BFGS-B takes 7 to 100 times as long. The limit is lifted while the objective runs.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any


@functools.cache
def _controller() -> Any:
    """The BLAS libraries of this process, found once SciPy's are loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_thread() -> Iterator[Callable[[], Any]]:
    """One thread for BLAS inside; what is yielded makes contexts with as many as there were."""
    controller = _controller()
    before = [(library, library.num_threads) for library in controller.lib_controllers]
    many = [(library, count) for library, count in before if count is not None and count > 1]
    if not many:
        yield contextlib.nullcontext
        return

    def limit() -> None:
        for library, _ in many:
            library.set_num_threads(1)

    @contextlib.contextmanager
    def lifted() -> Iterator[None]:
        for library, count in many:
            library.set_num_threads(count)
        try:
            yield
        finally:
            limit()

    limit()
    try:
        yield lifted
    finally:
        for library, count in many:
            library.set_num_threads(count)
