"""Where workers run: any executor of `concurrent.futures`, Dask, or Ray, behind one verb."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from nestor.errors import MissingExtra


class Future(Protocol):
    """A call under way, as `concurrent.futures.Future` has it."""

    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def result(self) -> Any:
        """What it returned; raises what it raised."""
        ...

    def cancel(self) -> Any:
        """Not to begin it, if it has not begun."""
        ...


@runtime_checkable
class Executor(Protocol):
    """What an executor must do: begin a call somewhere, and return a future (`done`, `result`, `cancel`).

    Every executor of `concurrent.futures` does. A worker opens the study's storage where it runs, so the storage
    must be reachable from there: a file for workers of one machine, PostgreSQL or MySQL for others. A study in
    memory is put into a file of this machine for the while.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from nestor import search
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> with ThreadPoolExecutor(2) as threads:
    ...     study.optimize(
    ...         lambda trial: trial.suggest_float("x", 0, 1), n_trials=8, n_workers=2, executor=threads
    ...     )
    >>> len(study.trials)
    8
    """

    def submit(self, call: Callable[[], Any], /) -> Future:
        """Begin a call."""
        ...


class DaskExecutor:
    """Workers on a Dask cluster (``pip install 'nestor[dask]'``).

    Args:
        client: a ``dask.distributed.Client``, the address of a scheduler, or None for a cluster of this machine
            that ends with this object's `close`.

    >>> from nestor import search
    >>> hasattr(search.DaskExecutor, "submit")
    True
    """

    def __init__(self, client: Any = None):
        try:
            distributed = importlib.import_module("distributed")
        except ImportError as error:
            raise MissingExtra("distributed", "dask", "an executor on Dask") from error
        self._own = client is None or isinstance(client, str)
        self.client: Any = distributed.Client(client) if self._own else client

    def submit(self, call: Callable[[], Any], /) -> Future:
        """Begin a call on a worker; Dask begins it again elsewhere when that worker dies."""
        return self.client.submit(call, pure=False, retries=0)

    def close(self) -> None:
        """Leave the cluster, if it was this object that joined it."""
        if self._own:
            self.client.close()


class RayExecutor:
    """Workers on a Ray cluster (``pip install 'nestor[ray]'``).

    Args:
        address: of a cluster, as for ``ray.init``; None joins the one that this process has, or starts one here.
        options: for each worker, as for ``ray.remote``: ``num_cpus=1``, ``num_gpus=1`` ...

    >>> from nestor import search
    >>> hasattr(search.RayExecutor, "submit")
    True
    """

    def __init__(self, address: str | None = None, **options: Any):
        try:
            self._ray = importlib.import_module("ray")
        except ImportError as error:
            raise MissingExtra("ray", "ray", "an executor on Ray") from error
        if not self._ray.is_initialized():
            self._ray.init(address=address)
        self._options = {"num_cpus": 1, **options}

    def submit(self, call: Callable[[], Any], /) -> Future:
        """Begin a call on a worker; Ray begins it again elsewhere when that worker dies."""
        return _RayFuture(self._ray, self._ray.remote(**self._options)(lambda: call()).remote())


class _RayFuture:
    """A call on Ray, with the verbs of a future."""

    def __init__(self, ray: Any, reference: Any):
        self._ray, self._reference = ray, reference

    def done(self) -> bool:
        """Whether it has ended."""
        return bool(self._ray.wait([self._reference], timeout=0)[0])

    def result(self) -> Any:
        """What it returned; an error of the objective as it was raised."""
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from error

    def cancel(self) -> Any:
        """Not to begin it."""
        return self._ray.cancel(self._reference)
