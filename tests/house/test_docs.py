"""Every public name has a docstring with an example that runs, and a line in the reference."""

import doctest
import inspect
import re

import jax
import pytest

import nestor
from tests.house.source import REPO

REFERENCE = REPO / "docs" / "reference"
DIRECTIVE = re.compile(r"^\.\. auto(?:function|class|exception|data)::\s+nestor\.([\w.]+)", re.M)

PUBLIC = sorted(getattr(nestor, "__all__", ()))
DOCUMENTED = [  # a room shown whole has a sentence, and a version needs none
    name for name in PUBLIC if not inspect.ismodule(getattr(nestor, name)) and name[0] != "_"
]


@pytest.fixture
def as_a_user():
    """JAX as a user finds it: float32, ordinary promotion."""
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.mark.parametrize("name", DOCUMENTED)
def test_an_example_runs(name: str, as_a_user: None):
    text = inspect.getdoc(getattr(nestor, name)) or ""
    assert ">>>" in text, f"nestor.{name} has no example (>>>) in its docstring"
    example = doctest.DocTestParser().get_doctest(text, {}, f"nestor.{name}", None, None)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    said: list[str] = []
    doctest.DocTestRunner(optionflags=flags).run(example, out=said.append)
    assert not said, "".join(said)


def listed_names() -> dict[str, str]:
    """The names that the pages of the reference document, and the page of each."""
    return {
        name: page.name
        for page in sorted(REFERENCE.glob("*.md"))
        for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_reference_lists_it(name: str):
    assert name in listed_names(), f"no page under docs/reference/ has `autoclass:: nestor.{name}`"


def test_the_reference_lists_nothing_else():
    gone = {
        name: page
        for name, page in listed_names().items()
        if name.partition(".")[0] not in PUBLIC and not hasattr(nestor, name.partition(".")[0])
    }
    assert not gone, f"in the reference, but not in nestor.__all__: {gone}"
