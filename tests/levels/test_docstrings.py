"""The examples of the room run as they are printed, those of its methods too."""

import doctest
import inspect

import jax
import pytest

import nestor
from nestor import levels

PLACES = {name: getattr(levels, name) for name in levels.__all__}
PLACES |= {
    f"{name}.{method}": function
    for name, kind in list(PLACES.items())
    for method, function in vars(kind).items()
    if inspect.isfunction(function) and ">>>" in (function.__doc__ or "")
}
# Those that are shown at the top run there: tests/house/test_docs.py.
PLACES = {name: place for name, place in PLACES.items() if name not in nestor.__all__}
WITHOUT = {"Hypergradient", "Logger"}  # what is handed out, and a protocol: shown where they are used


@pytest.mark.parametrize("name", PLACES)
def test_an_example_runs(name: str):
    """In JAX as a user finds it: float32, ordinary promotion."""
    text = inspect.getdoc(PLACES[name]) or ""
    assert (">>>" in text) != (name in WITHOUT), f"nestor.levels.{name} has no example (>>>) in its docstring"
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    said: list[str] = []
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        doctest.DocTestRunner(optionflags=flags).run(example, out=said.append)
    assert not said, "".join(said)
