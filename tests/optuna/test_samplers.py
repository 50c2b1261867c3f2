"""Optuna's own tests of samplers, on ours."""

import pytest

import nestor.optuna
from nestor import search

optuna = pytest.importorskip("optuna")

from optuna.testing.pytest_samplers import (  # noqa: E402  (where Optuna is)
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)


class Every(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """All three classes; every sampler of ours claims several objectives."""


class TestTPE(Every):
    @pytest.fixture
    def sampler(self):
        return lambda: nestor.optuna.Sampler(search.TPESampler(seed=0))


class TestRandom(Every):
    @pytest.fixture
    def sampler(self):
        return lambda: nestor.optuna.Sampler(search.RandomSampler(seed=0))


class TestQuasiRandom(Every):
    @pytest.fixture
    def sampler(self):
        return lambda: nestor.optuna.Sampler(search.QuasiRandomSampler(seed=0))


class TestGP(Every):
    @pytest.fixture
    def sampler(self):
        return lambda: nestor.optuna.Sampler(search.GPSampler(seed=0))
