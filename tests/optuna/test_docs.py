"""The examples of the room and its page run wherever the extra is; without Optuna it says what to do."""

import doctest
import importlib
import inspect

import pytest

import nestor.optuna
from nestor import search
from nestor.errors import MissingExtra
from tests.house.source import REPO
from tests.house.test_pages import run


@pytest.fixture
def quiet():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("name", nestor.optuna.__all__)
def test_an_example_runs(name, quiet):
    text = inspect.getdoc(getattr(nestor.optuna, name)) or ""
    assert ">>>" in text
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    said = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)


def test_its_page_runs(quiet):
    page = "docs/how-to/coming-from-optuna.md"
    wrong = run((REPO / page).read_text(encoding="utf-8"), page)
    assert not wrong, wrong[0]


@pytest.mark.parametrize("name", nestor.optuna.__all__)
def test_the_reference_lists_it(name):
    page = (REPO / "docs" / "reference" / "optuna.md").read_text(encoding="utf-8")
    assert f"nestor.optuna.{name}\n" in page


@pytest.mark.parametrize(
    "use",
    [
        nestor.optuna.Storage,
        lambda: nestor.optuna.Sampler(search.RandomSampler()),
        lambda: nestor.optuna.Pruner(search.MedianPruner()),
        lambda: nestor.optuna.OptunaSampler(print),
        lambda: nestor.optuna.OptunaPruner(None),
        lambda: nestor.optuna.import_study("sqlite:///theirs.db"),
        lambda: nestor.optuna.export_study(search.create_study(), None),
    ],
)
def test_without_optuna_the_remedy_is_named(use, monkeypatch):
    found = importlib.import_module

    def without(module, *rest):
        if module == "optuna":
            raise ImportError("No module named 'optuna'")
        return found(module, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtra, match=r"nestor\[optuna\]"):
        use()
