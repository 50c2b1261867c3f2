"""Optuna's own tests of a storage, on ours in a database: `make test-servers` gives it one."""

import os

import pytest

import nestor.optuna
from nestor import search

pytest.importorskip("optuna")
pytestmark = pytest.mark.skipif(
    "NESTOR_TEST_DATABASE" not in os.environ, reason="needs a database: make test-servers"
)

from optuna.testing.pytest_storages import StorageTestCase  # noqa: E402  (where Optuna is)


class TestDatabase(StorageTestCase):
    @pytest.fixture
    def storage(self):
        kept = search.SQLStorage(os.environ["NESTOR_TEST_DATABASE"])
        for name in search.study_names(kept):  # they count all studies that are there
            search.delete_study(study_name=name, storage=kept)
        storage = nestor.optuna.Storage(kept)
        yield storage
        storage.remove_session()
        kept.close()
