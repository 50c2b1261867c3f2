"""One study that searches and descends, against the same search without gradients: a third of the training runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nestor.cli import _digits, _search


@pytest.fixture
def in_single_precision():
    """As the demo runs."""
    with jax.enable_x64(False):
        yield


@pytest.mark.slow
def test_a_third_of_the_runs_reach_what_search_alone_comes_to(in_single_precision: None):
    """Optimizer and width are searched by the same sampler in both; a value with a hypergradient counts as four runs.

    The median over seeds: one bad first descent alone costs a quarter of the runs.
    """
    runs, shares = 240, []
    for seed in range(3):
        digits = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float32), _digits.load(0, _search.TRAIN_SIZE)
        )
        blind = _search.curve(_search.searched(_search.EACH, runs, seed, digits), False)
        study = _search.followed(runs, seed, digits)
        shares.append(_search.curve(study, True).runs_to(blind.best[-1]) / runs)
        assert {trial.params["optimizer"] for trial in study.trials} <= {"momentum", "rmsprop"}
        assert all(trial.user_attrs["evaluations"] <= _search.REFINE for trial in study.trials)
    assert np.median(shares) <= 1 / 3, shares


@pytest.mark.slow
def test_the_hypergradient_through_the_training_is_exact():
    """Against central differences, in float64, by the two rates and a strength."""
    digits = jax.tree.map(lambda leaf: leaf[:60], _digits.load(0, 100))
    space = tuple(
        np.sqrt(np.array(bounds).prod()) for bounds in (_search.RATE, _search.STRENGTH, _search.SCALE)
    )

    def value(log_moves):
        rate, strength, scale = space
        hyper = {
            "rate": {"in": rate * jnp.exp(log_moves[0]), "out": rate * jnp.exp(log_moves[1])},
            "l2": {"in": strength * jnp.exp(log_moves[2]), "out": jnp.asarray(strength)},
            "scale": {"in": jnp.asarray(scale), "out": jnp.asarray(scale)},
        }
        hyper = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), hyper)
        small = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), digits)
        net = _search.trained(hyper, {"optimizer": "momentum", "width": 16}, small)
        return _search.loss(net, small.validation)

    at = jnp.zeros(3)
    exact = jax.grad(value)(at)
    for place in range(3):
        step = 0.01 * jnp.eye(3)[place]
        difference = (value(at + step) - value(at - step)) / 0.02
        np.testing.assert_allclose(exact[place], difference, rtol=0.05, atol=2e-4)
