import pytest

from nestor import search


@pytest.fixture(params=["memory", "file"])
def storage(request, tmp_path):
    """A storage of every kind."""
    return search.MemoryStorage() if request.param == "memory" else search.FileStorage(tmp_path / "study.db")
