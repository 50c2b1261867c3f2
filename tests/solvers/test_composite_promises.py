"""The solvers for composite problems keep the promises of every solver, with no penalty at all."""

import pytest

import nestor
from nestor.testing import SolverChecks

pytestmark = pytest.mark.slow


class TestMomentum(SolverChecks):
    make = nestor.ProximalGradient


class TestSpectral(SolverChecks):
    make = staticmethod(lambda: nestor.ProximalGradient("spectral"))


class TestProjected(SolverChecks):
    make = nestor.ProjectedGradient


class TestBlocks(SolverChecks):
    make = staticmethod(lambda: nestor.BlockCoordinateDescent("rows"))
