"""How a kit makes what it tests, says what was broken, and counts what is compiled."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.monitoring
import numpy as np

Tree = Any

_COMPILED = "/jax/core/compile/backend_compile_duration"


def made(kit: Any) -> Any:
    """What the kit's `make` makes: a class, a function of nothing, or a method."""
    make = inspect.getattr_static(type(kit), "make", None)
    if isinstance(make, staticmethod):
        make = make.__func__
    if not callable(make):
        raise AssertionError(
            f"{type(kit).__name__} does not say what to test.\n"
            "Do this: write `make = MySolver` (a callable without arguments) in the class body."
        )
    takes_self = inspect.isfunction(make) and len(inspect.signature(make).parameters) > 0
    return make(kit) if takes_self else make()


def require(kept: Any, promise: str, found: str, see: str) -> None:
    """Raise an AssertionError that names the broken promise, what was found, and where it is written.

    Args:
        kept: whether the promise holds.
        promise: the sentence of the contract.
        found: what was seen instead.
        see: where the contract is documented.
    """
    __tracebackhide__ = True
    if not bool(kept):
        raise AssertionError(f"{promise}\nFound: {found}\nSee: {see}")


def shapes(tree: Tree) -> Tree:
    """The structure of a tree with (shape, dtype) for leaves; two such trees compare with ``==``."""
    return jax.tree.map(lambda leaf: (tuple(leaf.shape), str(leaf.dtype)), tree)


def described(tree: Tree) -> str:
    """The shapes and dtypes of a tree as text."""
    text = str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))
    return text if len(text) < 600 else text[:597] + "..."


def distance(a: Tree, b: Tree) -> float:
    """The largest absolute difference of two trees; NaN if one has a NaN, infinite if they are unlike."""
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    if jax.tree.structure(a) != jax.tree.structure(b):
        return float("inf")
    gaps = [
        np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)), initial=0.0)
        for x, y in zip(left, right, strict=True)
    ]
    return float(np.max(gaps))


@contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that grows by one entry with every program that is compiled meanwhile."""
    seen: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILED:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
