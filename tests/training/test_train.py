"""What `train` promises of a run: its numbers, its batches, its end, and that it can be interrupted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor.training import Batches, load_state, save_state
from nestor.training._batches import shuffled
from tests.compiles import compilations
from tests.training.runs import data, relative, squared, start

SLOW = pytest.mark.slow


def by_hand(rate=0.1, momentum=0.0, steps=6, size=5):
    """The same run as a loop over consecutive batches."""
    x, y = data()
    params, velocity, losses, norms = start(), jax.tree.map(jnp.zeros_like, start()), [], []
    step = jax.jit(jax.value_and_grad(squared))
    for t in range(steps):
        rows = slice(t * size % 20, t * size % 20 + size)
        loss, grads = step(params, (x[rows], y[rows]))
        velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, grads)
        params = jax.tree.map(lambda p, v: p - rate * v, params, velocity)
        losses.append(float(loss))
        norms.append(float(optax.tree.norm(grads)))
    return params, losses, norms


def test_the_numbers_are_those_of_a_loop():
    run = nestor.train(
        squared, start(), data(), optimizer=nestor.sgd(0.1, momentum=0.5), steps=6, batch_size=5, shuffle=False,
        validation=lambda p: squared(p, data()), validate_every=2,
    )  # fmt: skip
    params, losses, norms = by_hand(momentum=0.5)
    assert relative(run.params, params) < 1e-12
    np.testing.assert_allclose(run.history.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(run.history.gradient_norm, norms, rtol=1e-12)
    seen = np.asarray(run.history.validation)
    assert np.isnan(seen[::2]).all()
    np.testing.assert_allclose(seen[-1], squared(params, data()), rtol=1e-12)
    np.testing.assert_allclose(run.validation_loss, seen[-1], rtol=1e-12)
    assert float(run.best_validation_loss) == np.nanmin(seen)
    np.testing.assert_allclose(squared(run.best, data()), np.nanmin(seen), rtol=1e-12)
    np.testing.assert_allclose(run.history.hyper["rate"], np.full(6, 0.1))
    assert (int(run.steps), run.status.name, run.success) == (6, "FINISHED", True)


def test_single_examples_the_full_batch_and_epochs():
    _params, losses, _ = by_hand(size=1)
    run = nestor.train(
        squared, start(), data(), optimizer=nestor.sgd(0.1), steps=6, batch_size=1, shuffle=False
    )
    np.testing.assert_allclose(run.history.loss, losses, rtol=1e-12)
    run = nestor.train(squared, start(), data(), optimizer=nestor.sgd(0.1), epochs=3)
    assert int(run.steps) == 3
    np.testing.assert_allclose(run.history.loss[0], squared(start(), data()), rtol=1e-12)
    run = nestor.train(squared, start(), data(), optimizer=nestor.sgd(0.1), epochs=2, batch_size=6)
    assert int(run.steps) == 2 * (20 // 6)


def test_every_example_comes_once_an_epoch():
    batches = Batches(rows=23, size=5, shuffle=True)
    rows = jnp.arange(23)
    drawn = np.stack([batches.draw(rows, jax.random.key(2), jnp.int32(t)) for t in range(12)])
    epochs = drawn.reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == 20
        assert (epoch < 23).all()
    assert not (epochs[0] == epochs[1]).all()
    ordered = Batches(23, 5, shuffle=False)
    np.testing.assert_array_equal(ordered.draw(rows, jax.random.key(2), jnp.int32(5)), np.arange(5, 10))


def orders(key, epochs: int, n: int):
    """The permutations of that many epochs."""
    positions = jnp.arange(n, dtype=jnp.int32)
    return jax.jit(jax.vmap(lambda epoch: shuffled(key, epoch, positions, n)))(
        jnp.arange(epochs, dtype=jnp.int32)
    )


@pytest.mark.parametrize(
    "n",
    [pytest.param(n, marks=() if n in (1, 3, 257) else SLOW) for n in (1, 2, 3, 5, 64, 100, 257, 2000, 5000)],
)
def test_a_shuffle_is_a_permutation(n: int):
    for row in orders(jax.random.key(0), 4, n):
        np.testing.assert_array_equal(np.sort(row), np.arange(n))
    halves = [shuffled(jax.random.key(0), jnp.int32(1), jnp.arange(n, dtype=jnp.int32)[part], n) for part in
              (slice(n // 2), slice(n // 2, n))]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(halves), orders(jax.random.key(0), 2, n)[1])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_shuffle_looks_random(seed: int):
    """Where each position goes, and where two neighbours go, by a chi-squared test over many epochs."""
    n, epochs = 7, 8000
    drawn = np.asarray(orders(jax.random.key(seed), epochs, n))
    counts = np.stack([np.bincount(drawn[:, i], minlength=n) for i in range(n)])
    assert ((counts - epochs / n) ** 2 / (epochs / n)).sum() < 36 + 5 * 8.5  # 36 degrees of freedom
    pairs = np.bincount(drawn[:, 0] * n + drawn[:, 1], minlength=n * n).reshape(n, n)
    expected = epochs / (n * (n - 1))
    off = pairs[~np.eye(n, dtype=bool)]
    assert ((off - expected) ** 2 / expected).sum() < 41 + 5 * 9.1


def test_a_long_shuffle_looks_random():
    """The same for the network that shuffles long data: the average place, and that of the next one."""
    n, epochs = 3000, 400
    drawn = np.asarray(orders(jax.random.key(3), epochs, n)) / n
    error = (1 / 12 / epochs) ** 0.5
    assert abs(drawn.mean(axis=0) - 0.5).max() < 5 * error
    together = ((drawn[:, :-1] - 0.5) * (drawn[:, 1:] - 0.5)).mean(axis=0)
    assert abs(together).max() < 5.5 / 12 / epochs**0.5
    across = ((drawn[:-1] - 0.5) * (drawn[1:] - 0.5)).mean(axis=1)  # from one epoch to the next
    assert abs(across).max() < 5 / 12 / n**0.5


def test_data_as_a_function_of_the_step():
    x, y = data()

    def batch(t):
        return jax.lax.dynamic_slice_in_dim(x, 5 * t % 20, 5), jax.lax.dynamic_slice_in_dim(y, 5 * t % 20, 5)

    run = nestor.train(squared, start(), batch, optimizer=nestor.sgd(0.1), steps=6)
    assert relative(run.params, by_hand()[0]) < 1e-12


def test_stochastic_keys_are_fresh_and_repeatable():
    loss = lambda p, _, key: p * 0 + jax.random.normal(key)  # noqa: E731

    def runs(key):
        return nestor.train(
            loss, 1.0, None, optimizer=nestor.sgd(0.1), steps=5, stochastic=True, key=key
        ).history.loss

    first = runs(jax.random.key(0))
    assert len(set(np.asarray(first).tolist())) == 5
    np.testing.assert_array_equal(first, runs(jax.random.key(0)))
    assert not (np.asarray(first) == np.asarray(runs(jax.random.key(1)))).any()


# --- how a run ends ------------------------------------------------------------------------------------


def test_it_stops_when_it_stagnates_or_overfits():
    flat = lambda x, _: jnp.maximum(x, 0.5)  # noqa: E731
    run = nestor.train(flat, 1.0, None, optimizer=nestor.sgd(0.1), steps=50, stagnation=4)
    assert run.status.name == "STAGNATED"
    assert run.success
    assert len(run.history.loss) == int(run.steps) < 15
    run = nestor.train(
        lambda x, _: (x - 1.0) ** 2, 0.0, None, optimizer=nestor.sgd(0.1), steps=50,
        validation=lambda x: (x - 0.5) ** 2, validate_every=1, patience=3,
    )  # fmt: skip
    assert run.status.name == "OVERFITTED"
    assert abs(float(run.best) - 0.5) < 0.1 < float(run.params) - 0.5
    np.testing.assert_allclose(run.best_validation_loss, (run.best - 0.5) ** 2, rtol=1e-12)


def test_it_says_when_numbers_are_lost():
    bad = lambda x, _: jnp.log(x)  # noqa: E731
    with pytest.raises(nestor.SolveFailed, match="train") as caught:
        nestor.train(bad, 0.3, None, optimizer=nestor.sgd(0.1), steps=20)
    run = caught.value.solution
    assert run.status.name == "NOT_FINITE"
    assert np.isfinite(run.params)
    kept = nestor.train(bad, 0.3, None, optimizer=nestor.sgd(0.1), steps=20, raise_on_failure=False)
    assert not kept.success
    inside = jax.jit(lambda x: nestor.train(bad, x, None, optimizer=nestor.sgd(0.1), steps=20).params)
    assert np.isnan(inside(0.3))


def test_gradients_are_clipped():
    run = nestor.train(
        lambda x, _: 50 * jnp.sum(x), jnp.zeros(4), None, optimizer=nestor.sgd(1.0), steps=1, clip=2.0
    )
    np.testing.assert_allclose(jnp.linalg.norm(run.params), 2.0, rtol=1e-12)
    np.testing.assert_allclose(run.history.gradient_norm, 2.0, rtol=1e-12)
    short = nestor.train(
        lambda x, _: jnp.sum(x), jnp.zeros(4), None, optimizer=nestor.sgd(1.0), steps=1, clip=5.0
    )
    np.testing.assert_allclose(short.params, -1.0)


def test_a_callback_sees_the_run_and_can_end_it(capsys):
    seen = []
    go = lambda callback, **more: nestor.train(  # noqa: E731
        lambda x, _: x**2,
        1.0,
        None,
        optimizer=nestor.sgd(0.25),
        steps=8,
        callback=callback,
        report_every=2,
        **more,
    )
    go(lambda report: seen.append((report.step, report.loss)), progress=True)
    assert [step for step, _ in seen] == [1, 3, 5, 7]
    np.testing.assert_allclose([loss for _, loss in seen], [0.25**t for t in (1, 3, 5, 7)])
    assert "train" in capsys.readouterr().err
    run = go(lambda report: report.step >= 3)
    assert (run.status.name, int(run.steps)) == ("STOPPED", 4)
    inside = []
    jitted = jax.jit(
        lambda x: nestor.train(
            lambda x, _: x**2, x, None, optimizer=nestor.sgd(0.25), steps=4, report_every=2,
            callback=lambda report: inside.append(report.step),
        ).params
    )  # fmt: skip
    jax.block_until_ready((jitted(1.0), jitted(2.0)))
    jax.effects_barrier()
    assert sorted(inside) == [1, 1, 3, 3]

    def fails(report):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        go(fails)


@pytest.mark.parametrize("adam", [False, True])
def test_an_interrupted_run_is_resumed_exactly(tmp_path, adam: bool):
    file = tmp_path / "deep" / "run.npz"

    def go(**more):
        optimizer = optax.adam(0.05) if adam else nestor.sgd(0.1, momentum=0.9)
        return nestor.train(
            squared, start(), data(), optimizer=optimizer, steps=20, batch_size=3, validation=data(),
            key=jax.random.key(4), **more,
        )  # fmt: skip

    whole = go(checkpoint=tmp_path / "whole.npz", checkpoint_every=3)

    def kill(report):
        if report.step >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(checkpoint=file, checkpoint_every=3, callback=kill, report_every=1)
    assert file.exists()
    steps = []
    again = go(checkpoint=file, checkpoint_every=3, callback=lambda r: steps.append(r.step), report_every=1)
    assert steps == list(range(11, 20))  # from where it was, and not from the start
    plain = go()
    for other in (again, plain):
        assert relative(other.params, whole.params) < (1e-12 if other is plain else 1e-300)
        np.testing.assert_allclose(other.history.loss, whole.history.loss, rtol=1e-12)
    np.testing.assert_array_equal(again.history.loss, whole.history.loss)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), again.best, whole.best))
    finished = go(checkpoint=file)
    np.testing.assert_array_equal(finished.history.loss, whole.history.loss)
    if not adam:
        same = {
            "steps": 20,
            "batch_size": 3,
            "validation": data(),
            "key": jax.random.key(4),
            "checkpoint": file,
        }
        for optimizer in (nestor.sgd(0.2, momentum=0.9), nestor.sgd(0.1, momentum=0.9, nesterov=True)):
            with pytest.raises(nestor.BadArgument, match="checkpoint"):
                nestor.train(squared, start(), data(), optimizer=optimizer, **same)
        doubled = lambda p, b: 2 * squared(p, b)  # noqa: E731
        with pytest.raises(nestor.BadArgument, match="checkpoint"):
            nestor.train(doubled, start(), data(), optimizer=nestor.sgd(0.1, momentum=0.9), **same)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(nestor.BadArgument, match="cannot be resumed"):
        go(checkpoint=file)


def test_what_is_saved_comes_back(tmp_path):
    """Keys of several kinds, half precision and numbers too; for another run, or another room, it does not."""
    tree = {
        "key": jax.random.key(3, impl="rbg"),
        "keys": jax.random.split(jax.random.key(1), 3),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "one": jnp.bfloat16(2),
        "number": 1.5,
    }
    file = tmp_path / "new" / "state.npz"
    save_state(file, "mine", tree)
    back = load_state("train", file, "mine", tree)
    assert jax.random.key_impl(back["key"]) == "rbg"
    for old, new in zip(jax.tree.leaves(tree), jax.tree.leaves(back), strict=True):
        assert jnp.asarray(old).dtype == new.dtype
        assert bool(jnp.all(old == new))
    with pytest.raises(nestor.BadArgument, match=r"^solve: argument 'checkpoint'"):
        load_state("solve", file, "yours", tree)


# --- transformations of JAX ----------------------------------------------------------------------------


def test_vmap_and_jit():
    def end(rate):
        return nestor.train(
            squared, start(), data(), optimizer=nestor.sgd(rate, momentum=0.5), steps=5, batch_size=4
        ).params

    rates = jnp.array([0.05, 0.1, 0.3])
    many, one = jax.jit(jax.vmap(end))(rates), jax.jit(end)
    for i in range(3):
        assert relative(jax.tree.map(lambda leaf, i=i: leaf[i], many), one(rates[i])) < 1e-12


@pytest.mark.parametrize(
    "adjoint", [nestor.Reversible(), pytest.param(nestor.Checkpoint(slots=2), marks=SLOW)], ids=repr
)
def test_lanes_are_differentiated(adjoint):
    rates = jnp.array([0.05, 0.3])

    def last(adjoint):
        return lambda rate: squared(
            nestor.train(
                squared, start(), data(), optimizer=nestor.sgd(rate, momentum=0.5), steps=5, adjoint=adjoint
            ).params,
            data(),
        )

    want, got = (jax.jit(jax.vmap(jax.grad(last(a))))(rates) for a in (nestor.Unroll(), adjoint))
    np.testing.assert_allclose(got, want, rtol=1e-7)


def test_lanes_end_each_at_its_own_step():
    run = jax.vmap(
        lambda x: (
            nestor.train(
                lambda x, _: jnp.maximum(x, 0.5), x, None, optimizer=nestor.sgd(0.1), steps=30, stagnation=2
            ).steps
        )
    )(jnp.array([0.6, 1.0, 9.0]))
    assert len(set(np.asarray(run).tolist())) == 3


def test_the_second_call_compiles_nothing_and_no_closure_is_stale():
    def end(rate, scale):
        loss = lambda p, b: scale * squared(p, b)  # noqa: E731
        return nestor.train(loss, start(), data(), optimizer=nestor.sgd(rate), steps=4).params

    first = end(0.1, jnp.asarray(1.0))
    with compilations() as count:
        second = end(0.2, jnp.asarray(3.0))
    assert count.number == 0
    assert relative(second, end(0.6, jnp.asarray(1.0))) < 1e-12
    assert relative(second, first) > 1e-3

    def value(scale):
        return squared(end(0.1, scale), data())

    slopes = [float(jax.grad(value)(jnp.asarray(s))) for s in (1.0, 2.0)]
    assert slopes[0] != slopes[1]
    for s, slope in zip((1.0, 2.0), slopes, strict=True):
        difference = (value(jnp.asarray(s + 1e-5)) - value(jnp.asarray(s - 1e-5))) / 2e-5
        np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_parameters_of_every_kind():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(4, 2, 3, 1, key=jax.random.key(0))
    loss = lambda m, b: jnp.mean((jax.vmap(m)(b[0]) - b[1]) ** 2)  # noqa: E731
    run = nestor.train(loss, model, data(), optimizer=nestor.adam(0.05), steps=30)
    assert float(run.history.loss[-1]) < 0.7 * float(run.history.loss[0])
    assert run.params.activation is model.activation
    number = nestor.train(lambda p, _: p["a"] ** 2, {"a": 1.0}, None, optimizer=nestor.sgd(0.25), steps=1)
    assert float(number.params["a"]) == 0.5
    mixed = nestor.train(
        lambda p, _: jnp.sum((p["w"] * p["mask"].astype(float)) ** 2),
        {"w": jnp.ones(2), "mask": jnp.array([0, 1]), "name": "x"},
        None,
        optimizer=nestor.sgd(0.25),
        steps=1,
    )
    np.testing.assert_allclose(mixed.params["w"], [1.0, 0.5])
    assert mixed.params["name"] == "x"
    np.testing.assert_array_equal(mixed.params["mask"], [0, 1])
