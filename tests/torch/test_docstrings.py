"""The examples of the room run as they are printed, in JAX as a user finds it; without PyTorch it says what to do."""

import doctest
import importlib
import inspect

import jax
import pytest

import nestor


@pytest.mark.parametrize("name", ["layer", "as_jax"])
def test_an_example_runs(name: str):
    pytest.importorskip("torch")
    text = inspect.getdoc(getattr(nestor.torch, name)) or ""
    assert ">>>" in text
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    said: list[str] = []
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", ["layer", "as_jax"])
def test_without_pytorch_the_remedy_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    found = importlib.import_module

    def without(module: str, *rest: object) -> object:
        if module == "torch":
            raise ImportError("No module named 'torch'")
        return found(module, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(nestor.MissingExtra, match=r"nestor\[torch\]"):
        getattr(nestor.torch, name)(abs)
