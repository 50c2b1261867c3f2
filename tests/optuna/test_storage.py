"""Optuna's own tests of a storage, on ours."""

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
