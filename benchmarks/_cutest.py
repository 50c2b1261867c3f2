"""Single problems of CUTEst, as the package sif2jax writes them in JAX, and the frozen list of those we trust.

Importing sif2jax runs every one of its 849 problems; here its packages are entered without running what is in
their `__init__`, so that a problem costs its own file and no more.
"""

import functools
import importlib
import importlib.util
import json
import pathlib
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

HERE = pathlib.Path(__file__).parent
LISTS = HERE / "cutest"
FOLDERS = ("_unconstrained_minimisation", "_bounded_minimisation", "_quadratic_problems")


class Problem(NamedTuple):
    """A problem on vectors.

    Attributes:
        name: as in CUTEst.
        fun: from a vector (n,) to a scalar.
        x0: the default start, (n,), float64.
        lower, upper: bounds, (n,), or None.
    """

    name: str
    fun: Callable[[Any], Any]
    x0: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None


@functools.cache
def _enter() -> pathlib.Path:
    """Make sif2jax's packages importable without running them."""
    spec = importlib.util.find_spec("sif2jax")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("sif2jax is not installed: pip install 'nestor[cutest]'")
    root = pathlib.Path(next(iter(spec.submodule_search_locations)))
    for name, folder in (("sif2jax", root), ("sif2jax.cutest", root / "cutest")):
        _shell(name, folder)
    for folder in FOLDERS:
        _shell(f"sif2jax.cutest.{folder}", root / "cutest" / folder)
    return root


def _shell(name: str, folder: pathlib.Path) -> None:
    if name not in sys.modules:
        shell = types.ModuleType(name)
        shell.__path__ = [str(folder)]
        sys.modules[name] = shell


def shown(folder: str) -> Iterator[tuple[str, str]]:
    """(module, class) of every problem that a folder of sif2jax shows; those it keeps back are left out."""
    text = (_enter() / "cutest" / folder / "__init__.py").read_text()
    for module, classes in re.findall(r"^from \.(\w+) import (\([^)]*\)|.*)", text, flags=re.M):
        for name in re.findall(r"(\w+) as \w+", classes):
            yield module, name


def load(folder: str, module: str, name: str) -> Problem:
    """One problem, as a function of a vector."""
    _enter()
    its = getattr(importlib.import_module(f"sif2jax.cutest.{folder}.{module}"), name)()
    y0 = its.y0
    x0, back = ravel_pytree(y0)
    bounds = getattr(its, "bounds", None)
    sides = (None, None) if bounds is None else tuple(np.asarray(ravel_pytree(b)[0], float) for b in bounds)

    def fun(x: Any) -> Any:
        return jnp.asarray(its.objective(back(x), its.args)).reshape(())

    return Problem(name, fun, np.asarray(x0, float), *sides)


def frozen(which: str) -> list[dict[str, Any]]:
    """The verified list: `unconstrained` or `bounded`."""
    return json.loads((LISTS / f"{which}.json").read_text())["problems"]
