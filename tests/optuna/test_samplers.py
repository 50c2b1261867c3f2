"""Optuna's own tests of samplers, on every one of ours."""

import pytest

import nestor.optuna
from nestor import search
from nestor.errors import MissingExtra

optuna = pytest.importorskip("optuna")

from optuna.testing.pytest_samplers import (  # noqa: E402  (where Optuna is)
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

OURS = {name for name in search.__all__ if name.endswith("Sampler")}
NOT_FOR_EVERY_SPACE = {"GridSampler", "Sampler"}  # one point after another; the protocol


class Every(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """All three classes; every sampler of ours claims several objectives."""


def of_all(name):
    """Those tests, on one sampler."""

    class Of(Every):
        @pytest.fixture
        def sampler(self):
            make = getattr(search, name)
            try:
                make(seed=0)
            except MissingExtra as error:
                pytest.skip(str(error))
            return lambda: nestor.optuna.Sampler(make(seed=0))

    Of.__name__ = Of.__qualname__ = f"Test{name}"
    return Of


for one in sorted(OURS - NOT_FOR_EVERY_SPACE):
    globals()[f"Test{one}"] = of_all(one)


def test_none_is_left_out():
    assert {"TPESampler", "GPSampler", "RandomSampler", "QuasiRandomSampler"} <= OURS - NOT_FOR_EVERY_SPACE
