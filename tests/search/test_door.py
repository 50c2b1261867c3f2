"""The wing's names have examples that run, and it comes without JAX."""

import doctest
import inspect
import subprocess
import sys

import pytest

from nestor import search


@pytest.mark.parametrize("name", search.__all__)
def test_an_example_runs(name):
    text = inspect.getdoc(getattr(search, name)) or ""
    assert ">>>" in text, f"nestor.search.{name} has no example (>>>) in its docstring"
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    said = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not said, "".join(said)


def test_it_comes_without_jax():
    """Neither JAX nor SciPy; with a study, SQLite and a sampler that learns in use."""
    code = """
import sys, tempfile, pathlib
import nestor.search as search
folder = tempfile.TemporaryDirectory()
study = search.create_study(storage=pathlib.Path(folder.name) / "s.db", sampler=search.TPESampler(seed=0))
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=12)
study.storage.close()
print([name for name in ("jax", "scipy", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
