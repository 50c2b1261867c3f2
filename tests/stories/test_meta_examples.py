"""What the examples of levels find, against closed forms and searches."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def as_a_user():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def tolls(monkeypatch, as_a_user):
    """The example stackelberg.py as a module."""
    monkeypatch.setattr(sys, "argv", ["stackelberg.py", "--quick"])
    spec = importlib.util.spec_from_file_location("stackelberg", EXAMPLES / "stackelberg.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_drivers_are_in_equilibrium(tolls):
    """At a minimum of the potential, every route costs the same, its toll and the noise of choice included."""
    share, toll = tolls.led_by(tolls.owner, jnp.array([tolls.BRIDGE]), steps=5)
    price = tolls.free + toll + tolls.slope * (share @ tolls.roads)
    costs = tolls.roads @ price + tolls.NOISE * jnp.log(share)
    np.testing.assert_allclose(costs, jnp.broadcast_to(costs[0], 3), atol=1e-8)


def test_the_owner_finds_the_toll_of_a_search(tolls):
    """Against the equilibrium of every toll of a grid, each solved for itself."""
    grid = jnp.linspace(0.05, 0.6, 111)

    def earned(toll):
        all_tolls = jnp.zeros(5).at[tolls.BRIDGE].set(toll)
        share = tolls.shares(nestor.argmin(lambda c: tolls.potential(c, all_tolls), jnp.zeros(2)))
        return -tolls.owner(share, all_tolls)

    income = jax.lax.map(earned, grid)
    found = tolls.led_by(tolls.owner, jnp.array([tolls.BRIDGE]), steps=150)[1][tolls.BRIDGE]
    assert abs(found - grid[jnp.argmax(income)]) < 0.006
    assert abs(earned(found) - income.max()) < 1e-5
