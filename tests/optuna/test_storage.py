"""Optuna's own tests of a storage, on ours: in memory, in a file, and on any other of two verbs."""

import json

import pytest

import nestor.optuna
from nestor import search

optuna = pytest.importorskip("optuna")

from optuna.testing.pytest_storages import StorageTestCase  # noqa: E402  (where Optuna is)


class TestMemory(StorageTestCase):
    @pytest.fixture
    def storage(self):
        return nestor.optuna.Storage()


class TestFile(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path):
        storage = nestor.optuna.Storage(search.FileStorage(tmp_path / "study.db"))
        yield storage
        storage.remove_session()


class Listed:
    """A storage of two verbs and nothing else, that holds text as a database does."""

    def __init__(self):
        self.rows = []

    def append(self, study, entries):
        self.rows += [(study, json.dumps(entry)) for entry in entries]
        return len(self.rows)

    def read(self, study, after):
        rows = enumerate(self.rows[after:], after + 1)
        return [(place, json.loads(text)) for place, (name, text) in rows if name == study]


class TestTwoVerbs(StorageTestCase):
    @pytest.fixture
    def storage(self):
        storage = nestor.optuna.Storage(Listed())
        yield storage
        storage.remove_session()


def test_its_functions_of_studies():
    storage = nestor.optuna.Storage()
    study = optuna.create_study(storage=storage, study_name="first", directions=["minimize", "maximize"])
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), trial.number), n_trials=5)
    study.set_user_attr("a", 1)
    optuna.copy_study(
        from_study_name="first", from_storage=storage, to_storage=storage, to_study_name="second"
    )
    assert optuna.get_all_study_names(storage) == ["first", "second"]
    summaries = optuna.get_all_study_summaries(storage)
    assert [(s.study_name, s.n_trials, s.user_attrs) for s in summaries] == [
        ("first", 5, {"a": 1}),
        ("second", 5, {"a": 1}),
    ]
    optuna.delete_study(study_name="first", storage=storage)
    again = optuna.load_study(study_name="second", storage=storage)
    assert [trial.values for trial in again.best_trials]
    with pytest.raises(KeyError):
        optuna.load_study(study_name="first", storage=storage)
