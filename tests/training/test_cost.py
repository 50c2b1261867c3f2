"""What a gradient takes, said before it is taken: held against what XLA allocates."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor

T, WIDTH, BATCH = 200, 64, 20


def data():
    x, y = jax.random.key(0), jax.random.key(1)
    return jax.random.normal(x, (200, 20), jnp.float32), jax.random.normal(y, (200, 5), jnp.float32)


def start():
    first, second = jax.random.split(jax.random.key(3))
    return {
        "a": jax.random.normal(first, (20, WIDTH), jnp.float32) / 5,
        "b": jax.random.normal(second, (WIDTH, 5), jnp.float32) / 8,
    }


def loss(params, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ params["a"]) @ params["b"] - y) ** 2)


def optimizer(rates):
    return nestor.sgd(rates, momentum=0.9)


def predicted(adjoint, **settings):
    settings = {"optimizer": optimizer(0.05), "steps": T, "batch_size": BATCH, **settings}
    return nestor.predict_cost(loss, start(), data(), adjoints=[adjoint], **settings).rows[0]


ADJOINTS = [
    nestor.Unroll(),
    pytest.param(nestor.Checkpoint(levels=1), marks=pytest.mark.slow),
    nestor.Checkpoint(levels=2),
    pytest.param(nestor.Checkpoint(slots=17), marks=pytest.mark.slow),
    nestor.Reversible(width="int32"),
    pytest.param(nestor.Reversible(width="int32", snapshots=4), marks=pytest.mark.slow),
    pytest.param(nestor.Truncate(20), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_the_memory_is_what_xla_allocates(adjoint):
    def objective(rates):
        run = nestor.train(
            loss, start(), data(), optimizer=optimizer(rates), steps=T, batch_size=BATCH, adjoint=adjoint
        )
        return loss(run.params, data())

    with jax.enable_x64(False):
        compiled = jax.jit(jax.grad(objective)).lower(jnp.full(T, 0.05)).compile()
        measured = compiled.memory_analysis().temp_size_in_bytes
        stored = predicted(adjoint).stored
    assert 0.5 < stored / measured < 2, (stored, measured)


def test_what_a_step_needs_from_the_one_before_is_stored_and_nothing_else():
    """One state a step, no copy of the data or of the rates for each step."""
    count = 20 * WIDTH + WIDTH * 5

    def objective(rates, steps):
        run = nestor.train(
            loss,
            start(),
            data(),
            optimizer=optimizer(rates),
            steps=steps,
            adjoint=nestor.Checkpoint(levels=1),
        )
        return loss(run.params, data())

    def measured(steps):
        compiled = jax.jit(jax.grad(lambda r: objective(r, steps))).lower(jnp.full(steps, 0.05)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    with jax.enable_x64(False):
        a_step = (measured(200) - measured(100)) / 100
    assert a_step < 1.05 * (2 * 4 * count), a_step / (8 * count)


def test_the_table():
    table = nestor.predict_cost(loss, start(), data(), optimizer=optimizer(0.05), steps=T, batch_size=BATCH)
    named = {row.name: row for row in table.rows}
    assert table.chosen == nestor.Checkpoint(levels=1)
    assert named["Unroll()"].stored > named["Checkpoint(levels=1)"].stored > named["Reversible()"].stored
    assert named["Checkpoint(slots=44)"].time == 5.0
    assert named["Checkpoint(slots=5)"].remark == "recomputes a step 5 times"
    assert named["Truncate(last=20)"].remark == "biased"
    assert named["Evolution()"].time == 129.0
    text = str(table)
    assert repr(table) == text
    assert all(row.name in text for row in table.rows)
    assert table.within(1e9).__class__ is nestor.Reversible
    with pytest.raises(nestor.BadArgument, match="at least"):
        table.within(1000)


def test_hyperparameters_count_in_forward_mode_only():
    one, ten = predicted(nestor.Forward()), predicted(nestor.Forward(), hyperparameters=10)
    assert (one.time, ten.time) == (3.0, 21.0)
    assert ten.stored > 4 * one.stored
    implicit = [predicted(nestor.Implicit(), hyperparameters=h) for h in (1, 10)]
    assert implicit[0] == implicit[1]


def test_what_does_not_go_with_a_run_has_no_numbers():
    import optax

    row = predicted(nestor.Reversible(), optimizer=optax.sgd(0.1))
    assert math.isnan(row.stored)
    assert "cannot be run backwards" in row.remark
    table = nestor.predict_cost(
        lambda p, t: jnp.sum(p**2) * t,
        jnp.ones(3),
        lambda t: jnp.ones(()),
        optimizer=nestor.sgd(0.1),
        steps=5,
    )
    row = next(row for row in table.rows if isinstance(row.adjoint, nestor.Implicit))
    assert math.isnan(row.time)
    assert "-" in str(table)


def test_momentum_is_what_makes_reversal_cheap():
    with_momentum, without = (
        predicted(nestor.Reversible(), optimizer=o) for o in (optimizer(0.1), nestor.sgd(0.1))
    )
    assert without.stored > 2 * with_momentum.stored
    assert "needs momentum > 0" in without.remark


def test_reversal_has_room_for_the_stretch_that_loses_most():
    burst = jnp.concatenate([jnp.full(T - 20, 0.999), jnp.full(20, 0.01)])
    even = jnp.full(T, jnp.exp(jnp.mean(jnp.log(burst))))
    whole, stretches = (
        [predicted(adjoint, optimizer=nestor.sgd(0.1, momentum=m)).stored for m in (burst, even)]
        for adjoint in (nestor.Reversible(), nestor.Reversible(snapshots=10))
    )
    count = 20 * WIDTH + WIDTH * 5
    np.testing.assert_allclose(*whole, rtol=1e-6)
    assert stretches[0] - stretches[1] > 0.85 * count * 20 * math.log2(100) / 8
    roomy = predicted(nestor.Reversible(bits=8000.0)).stored - predicted(nestor.Reversible()).stored
    assert 900 * count < roomy < 1000 * count
    decays, not_at_all = (
        predicted(nestor.Reversible(), optimizer=nestor.adamw(0.1, weight_decay=w)).stored for w in (5.0, 0.0)
    )
    np.testing.assert_allclose(decays - not_at_all, count * T / 8, rtol=1e-6)


def test_wrong_arguments():
    with pytest.raises(nestor.BadArgument, match="hyperparameters"):
        predicted(nestor.Unroll(), hyperparameters=0)
    with pytest.raises(nestor.BadArgument, match="adjoints"):
        predicted("Unroll")
    with pytest.raises(nestor.BadArgument, match="slots"):
        predicted(nestor.Checkpoint(slots=0))


def run(rate=0.1, **settings):
    return nestor.train(lambda x, _: jnp.sum(x**2), jnp.ones(3), None, optimizer=optimizer(rate), **settings)


def test_a_run_says_what_it_took():
    cost = run(steps=10).cost
    assert cost.adjoint == "Checkpoint(levels=1)"
    assert cost.stored == 10 * 2 * 3 * 8
    assert np.isnan(cost.bits)
    assert 0 < cost.seconds < 600
    cost = run(steps=100, adjoint=nestor.Reversible()).cost
    assert cost.adjoint.startswith("Reversible(bits=")
    assert 100 * 0.152 <= cost.bits <= 100 * 0.152 + 100
    assert run(steps=10, adjoint=nestor.Unroll()).cost.stored >= 10 * 2 * 3 * 8
    assert run(steps=10, adjoint=nestor.Implicit()).cost.stored == 0


def test_the_cost_passes_through_every_transformation():
    one = jax.jit(run, static_argnames="steps")(0.1, steps=3).cost
    assert np.isnan(one.seconds)
    assert one.adjoint == "Checkpoint(levels=1)"
    many = jax.vmap(lambda rate: run(rate, steps=3))(jnp.array([0.1, 0.2]))
    assert many.cost.stored.shape == (2,)
    _, aux = jax.grad(lambda rate: (lambda r: (r.params.sum(), r))(run(rate, steps=3)), has_aux=True)(0.1)
    assert aux.cost.stored == one.stored
