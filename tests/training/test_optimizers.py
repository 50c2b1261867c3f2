"""The optimizers make optax's steps, stay finite where a feature is always zero, and stack into towers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from tests.training.runs import data, relative, squared, start

STEPS = 12
PAIRS = {
    "sgd": (nestor.sgd(0.1), optax.sgd(0.1)),
    "momentum": (nestor.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    "nesterov": (nestor.sgd(0.1, 0.9, nesterov=True), optax.sgd(0.1, momentum=0.9, nesterov=True)),
    "adam": (nestor.adam(0.01), optax.adam(0.01)),
    "adam with large eps": (nestor.adam(0.01, 0.8, 0.95, eps=0.1), optax.adam(0.01, 0.8, 0.95, eps=0.1)),
    "adamw": (nestor.adamw(0.01, weight_decay=0.1), optax.adamw(0.01, weight_decay=0.1)),
    "rmsprop": (
        nestor.rmsprop(0.01, 0.8, eps=1e-3),
        optax.rmsprop(0.01, decay=0.8, eps=1e-3, eps_in_sqrt=False),
    ),
    "adagrad": (nestor.adagrad(0.1, eps=1e-12), optax.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-24)),
}


def by_hand(transformation, steps=STEPS):
    params = start()
    state = transformation.init(params)

    @jax.jit
    def step(params, state):
        updates, state = transformation.update(jax.grad(squared)(params, data()), state, params)
        return optax.apply_updates(params, updates), state

    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counters with floats
        for _ in range(steps):
            params, state = step(params, state)
    return params


@pytest.mark.parametrize("name", PAIRS)
def test_our_steps_are_those_of_optax(name: str):
    ours, theirs = PAIRS[name]
    run = nestor.train(squared, start(), data(), optimizer=ours, steps=STEPS)
    assert relative(run.params, by_hand(theirs)) < 1e-6
    if name in ("momentum", "adamw"):  # and passed in, they are run as they are
        passed = nestor.train(squared, start(), data(), optimizer=theirs, steps=STEPS)
        assert relative(passed.params, by_hand(theirs)) < 1e-12


def test_rmsprop_with_momentum_multiplies_the_rate_last():
    run = nestor.train(
        lambda x, _: x**2, 1.0, None, optimizer=nestor.rmsprop(0.1, 0.5, momentum=0.5, eps=0.0), steps=2
    )
    square = 0.5 * 4.0
    v = 2.0 / square**0.5
    x = 1 - 0.1 * v
    square = 0.5 * square + 0.5 * 4 * x * x
    x -= 0.1 * (0.5 * v + 2 * x / square**0.5)
    np.testing.assert_allclose(run.params, x, rtol=1e-12)


def test_a_long_chain_of_transformations():
    chain = optax.chain(
        optax.clip_by_global_norm(0.5), optax.scale_by_adam(), optax.scale_by_learning_rate(0.03)
    )
    run = nestor.train(squared, start(), data(), optimizer=chain, steps=STEPS)
    assert relative(run.params, by_hand(chain)) < 1e-12
    schedule = optax.adam(optax.cosine_decay_schedule(0.1, STEPS))
    run = nestor.train(squared, start(), data(), optimizer=schedule, steps=STEPS)
    assert relative(run.params, by_hand(schedule)) < 1e-12


DEAD = {
    "adagrad": lambda rate: nestor.adagrad(rate),
    "rmsprop": lambda rate: nestor.rmsprop(rate),
    "rmsprop with momentum": lambda rate: nestor.rmsprop(rate, momentum=0.9),
    "adam": lambda rate: nestor.adam(rate),
    "adamw": lambda rate: nestor.adamw(rate),
    "optax adam": lambda rate: optax.adam(rate),
    "optax adamw": lambda rate: optax.adamw(rate),
    "optax lamb": lambda rate: optax.lamb(rate),
    "optax rmsprop": lambda rate: optax.rmsprop(rate),
    "optax adagrad": lambda rate: optax.adagrad(rate),
}


@pytest.mark.parametrize(
    "name",
    [name if name == "optax adam" else pytest.param(name, marks=pytest.mark.slow) for name in DEAD],
)
def test_a_feature_that_is_always_zero_has_finite_hypergradients(name: str):
    x, y = data()
    x = x.at[:, 0].set(0.0)

    def of(adjoint):
        def value(rate, weight, params):
            loss = lambda p, b: weight * squared(p, b)  # noqa: E731
            run = nestor.train(loss, params, (x, y), optimizer=DEAD[name](rate), steps=6, adjoint=adjoint)
            return squared(run.params, (-x, y))

        return value

    at = (jnp.asarray(0.03), jnp.asarray(1.5), start())
    slopes = jax.grad(of(nestor.Unroll()), argnums=(0, 1, 2))(*at)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(slopes))
    value, h = of(nestor.Forward()), 1e-6
    difference = (value(0.03 + h, *at[1:]) - value(0.03 - h, *at[1:])) / (2 * h)
    np.testing.assert_allclose(slopes[0], difference, rtol=1e-4)
    if not name.startswith("optax"):
        again = jax.grad(of(nestor.Reversible(bits=64)))(*at)
        assert bool(jnp.isfinite(again))


# --- towers --------------------------------------------------------------------------------------------


def test_a_tuned_rate_is_that_of_a_loop():
    """Baydin et al. 2018: the slope of the loss in the rate of the step before is -<g_t, g_(t-1)>."""
    bowl = lambda x, _: jnp.sum(jnp.array([1.0, 5.0]) * x**2)  # noqa: E731
    tower = nestor.sgd(nestor.tuned(0.01, by=nestor.sgd(1e-4)))
    run = nestor.train(bowl, jnp.array([1.0, 1.0]), None, optimizer=tower, steps=10)
    x, rate, before, rates = np.array([1.0, 1.0]), 0.01, np.zeros(2), []
    for _ in range(10):
        g = 2 * np.array([1.0, 5.0]) * x
        rate += 1e-4 * (g @ before)
        rates.append(rate)
        x, before = x - rate * g, g
    np.testing.assert_allclose(run.history.hyper["rate"], rates, rtol=1e-12)
    np.testing.assert_allclose(run.params, x, rtol=1e-12)


def test_a_tuned_logarithm_stays_positive():
    bowl = lambda x, _: jnp.sum(x**2)  # noqa: E731
    tower = nestor.sgd(nestor.tuned(0.3, by=nestor.sgd(0.5), log=True))
    run = nestor.train(bowl, jnp.array([1.0, 2.0]), None, optimizer=tower, steps=15)
    x, log_rate, before = np.array([1.0, 2.0]), np.log(0.3), np.zeros(2)
    for _ in range(15):
        g = 2 * x
        log_rate += 0.5 * np.exp(log_rate) * (g @ before)
        x, before = x - np.exp(log_rate) * g, g
    np.testing.assert_allclose(run.params, x, rtol=1e-10, atol=1e-14)
    assert bool(jnp.all(run.history.hyper["rate"] > 0))


@pytest.mark.slow
def test_a_tower_of_three_moves_every_level_and_is_differentiable():
    def end(top, adjoint=None):
        two = nestor.sgd(nestor.tuned(1e-3, by=nestor.sgd(top)))
        tower = nestor.sgd(nestor.tuned(0.01, by=two), momentum=0.5)
        return nestor.train(squared, start(), data(), optimizer=tower, steps=10, adjoint=adjoint)

    run = end(1e-3)
    rates = np.asarray(run.history.hyper["rate"])
    assert rates[-1] > rates[1] >= rates[0]
    low = nestor.sgd(nestor.tuned(0.01, by=nestor.sgd(1e-3)), momentum=0.5)
    two_levels = nestor.train(squared, start(), data(), optimizer=low, steps=10)
    assert abs(rates[-1] - float(two_levels.history.hyper["rate"][-1])) > 1e-12
    value = lambda top, adjoint=None: squared(end(top, adjoint).params, data())  # noqa: E731
    slope = jax.grad(value)(1e-3)
    np.testing.assert_allclose(slope, (value(1e-3 + 1e-5) - value(1e-3 - 1e-5)) / 2e-5, rtol=1e-4)
    np.testing.assert_allclose(
        jax.grad(lambda t: value(t, nestor.Checkpoint(slots=3)))(1e-3), slope, rtol=1e-9
    )
    with pytest.raises(nestor.BadArgument, match="adjoint"):
        end(1e-3, nestor.Reversible())
