"""Runs made backwards: bit for bit, with the bits that the entropy asks for, and never wrong in silence."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import nestor
from nestor.loops._words import Words
from nestor.training._checks import Settings, prepare
from nestor.training._run import pieces, run_map
from tests.training.runs import data, relative, squared, start

SIZES = (784, 50, 50, 50, 10)  # 44,860 parameters


def digits() -> tuple[jax.Array, jax.Array]:
    """The digits enlarged to 28x28, float32."""
    images, labels = load_digits(return_X_y=True)
    small = (images / 16).reshape(-1, 8, 8).astype(np.float32)
    return jax.image.resize(small, (len(small), 28, 28), "bilinear").reshape(-1, 784), jnp.asarray(labels)


def reference_net() -> list[Any]:
    random = np.random.default_rng(0)
    pairs = itertools.pairwise(SIZES)
    return [
        (jnp.asarray(random.normal(size=p) / p[0] ** 0.5, jnp.float32), jnp.zeros(p[1], jnp.float32))
        for p in pairs
    ]


def cross_entropy(params: Any, batch: Any) -> jax.Array:
    x, labels = batch
    for w, b in params[:-1]:
        x = jnp.tanh(x @ w + b[None])
    logits = jax.nn.log_softmax(x @ params[-1][0] + params[-1][1][None])
    return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))


def machine(loss: Any, params: Any, rows: Any, adjoint: Any, **options: Any) -> tuple[Any, Any]:
    """The machine that `train` would use, and the inputs of the run."""
    names = Settings.__dataclass_fields__
    defaults = {name: None for name in names} | {"shuffle": True, "stochastic": False, "progress": False}
    plan, inputs, _ = prepare("train", loss, params, rows, Settings(**(defaults | options)))
    return adjoint._machine(pieces(plan)[0]), inputs


def there_and_back(
    loss: Any, params: Any, rows: Any, adjoint: Any, gradient: Any = None, **options: Any
) -> tuple[dict[str, Any], Any]:
    """Make the run and unmake it; whether it came back, and what it stored. `gradient` is that of the way back."""
    ahead, inputs = machine(loss, params, rows, adjoint, **options)
    back, _ = machine(loss, params, rows, adjoint, **options)
    if gradient is not None:
        back.reversal = back.reversal._replace(gradient=gradient(back.reversal.gradient))
    params = inputs.params

    @jax.jit
    def run(inputs: Any) -> Any:
        return ahead.forward(inputs)

    def like(leaf: Any) -> Any:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.ones_like(leaf) if floating else np.zeros(leaf.shape, jax.dtypes.float0)

    @jax.jit
    def unmake(inputs: Any, outcome: Any, extra: Any = None) -> Any:
        if gradient is not None:
            back.reversal = back.reversal._replace(gradient=gradient(ahead.reversal.gradient, extra))
        cotangent = jax.tree.map(like, outcome)
        return back.backward([inputs.params], lambda p: inputs._replace(params=p[0]), outcome, cotangent)

    outcome = run(inputs)
    _, _, residue = outcome
    found = {
        "fits": bool(residue.fits),
        "made": int(residue.made),
        "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residue))
        / sum(leaf.size for leaf in jax.tree.leaves(params)),
        "rows": sum(tape.stack.rows.shape[0] for tape in residue.tapes),
    }
    if gradient is not None:
        return found, lambda extra: unmake(inputs, outcome, extra)
    slopes, good = unmake(inputs, outcome)
    return {**found, "good": bool(good), "slopes": slopes}, outcome


@pytest.mark.parametrize(
    ("steps", "momentum", "width"),
    [
        (150, 0.9, "int64"),
        pytest.param(150, 0.98, "int32", marks=pytest.mark.slow),
        *(
            pytest.param(steps, momentum, width, marks=pytest.mark.slow)
            for steps in (1000, 3000)
            for momentum in (0.9, 0.98, 0.99)
            for width in ("int32", "int64")
        ),
    ],
)
def test_the_reference_net_comes_back(steps: int, momentum: float, width: str):
    limit = steps * math.log2(1 / momentum)
    adjoint = nestor.Reversible(bits=limit + 1, width=width)
    optimizer = nestor.sgd(0.05, momentum=momentum)
    found, _ = there_and_back(
        cross_entropy, reference_net(), digits(), adjoint, optimizer=optimizer, steps=steps, batch_size=200
    )
    assert found["fits"]
    assert found["good"]  # every word of the start and of the zero velocity, and an empty stack
    assert found["made"] == steps
    stored = 8 * found["rows"]  # the last row holds the bits of the rest too
    assert stored / steps <= 1.02 * math.log2(1 / momentum) + 64 / steps
    if steps == 1000:
        assert 32 * steps / stored >= {0.9: 200, 0.98: 900}.get(momentum, 0)


@pytest.mark.parametrize("steps", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_adamw_comes_back(steps: int):
    bits = steps * (math.log2(1 / 0.9) + math.log2(1 / 0.999)) + 1
    optimizer = nestor.adamw(1e-3, weight_decay=1e-2)
    keep = -steps * math.log2(1 - 1e-5)
    found, _ = there_and_back(
        cross_entropy, reference_net(), digits(), nestor.Reversible(bits=bits + keep),
        optimizer=optimizer, steps=steps, batch_size=200,
    )  # fmt: skip
    assert found["fits"]
    assert found["good"]
    if steps == 500:
        assert 8 * found["rows"] / steps <= 0.17


@pytest.mark.parametrize(
    ("steps", "snapshots"), [(2000, 20), pytest.param(100_000, 15, marks=pytest.mark.slow)]
)
def test_the_hybrid_comes_back(steps: int, snapshots: int):
    bits = steps * math.log2(1 / 0.9)
    adjoint = nestor.Reversible(snapshots=snapshots, bits=bits, width="int32")
    x, y = (a.astype(jnp.float32) for a in data())
    params = jax.tree.map(lambda a: a.astype(jnp.float32), start())
    found, _ = there_and_back(
        squared, params, (x, y), adjoint, optimizer=nestor.sgd(0.02, momentum=0.9), steps=steps, batch_size=5
    )
    assert found["good"]


def test_a_short_last_segment_and_more_snapshots_than_steps():
    for steps, snapshots in ((7, 3), (5, 9), (1, 1)):
        found, _ = there_and_back(
            squared, start(), data(), nestor.Reversible(snapshots=snapshots, bits=64),
            optimizer=nestor.sgd(0.2, momentum=0.5), steps=steps,
        )  # fmt: skip
        assert found["good"]
        assert found["made"] == steps


def test_a_stretch_that_loses_more_bits_than_the_others_has_room():
    momenta = jnp.concatenate([jnp.full(80, 0.99), jnp.full(20, 0.01)])

    def value(adjoint: Any) -> Any:
        def end(rate: jax.Array) -> jax.Array:
            optimizer = nestor.sgd(rate, momentum=momenta)
            run = nestor.train(squared, start(), data(), optimizer=optimizer, steps=100, adjoint=adjoint)
            return squared(run.params, data())

        return end

    got = jax.grad(value(nestor.Reversible(snapshots=5)))(0.01)
    np.testing.assert_allclose(got, jax.grad(value(nestor.Checkpoint()))(0.01), rtol=1e-6)


@pytest.mark.parametrize("traced", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_decay_of_the_weights_has_room(traced: bool):
    """0.15 bits a step for the averages of AdamW, and here 0.06 more, or 0.62 more, for the weights."""
    decay, steps = (4.0, 1500) if traced else (35.0, 300)

    def value(adjoint: Any) -> Any:
        def end(decay: jax.Array) -> jax.Array:
            optimizer = nestor.adamw(0.01, weight_decay=decay)
            loss = lambda x, _: jnp.sum((x - 1) ** 2)  # noqa: E731
            run = nestor.train(loss, jnp.ones(2), None, optimizer=optimizer, steps=steps, adjoint=adjoint)
            return jnp.sum(run.params)

        return end

    slope = jax.grad(value(nestor.Reversible()))
    got = jax.vmap(slope)(jnp.array([decay]))[0] if traced else slope(decay)
    np.testing.assert_allclose(got, jax.grad(value(nestor.Checkpoint()))(decay), rtol=1e-4)


def flipped(gradient: Any, where: Any = None) -> Any:
    """A gradient with one flipped bit: `where` is (step, entry of the first weights, bit)."""

    def wrong(inputs: Any, t: jax.Array, params: Any) -> Any:
        loss, grads = gradient(inputs, t, params)
        w = grads["one"]["w"]
        words = jax.lax.bitcast_convert_type(w, jnp.uint64).reshape(-1)
        step, entry, bit = where
        mask = jnp.where(t == step, jnp.uint64(1) << bit.astype(jnp.uint64), jnp.uint64(0))
        words = words.at[entry].set(words[entry] ^ mask)
        w = jax.lax.bitcast_convert_type(words, jnp.float64).reshape(w.shape)
        return loss, {**grads, "one": {**grads["one"], "w": jax.lax.stop_gradient(w)}}

    return wrong


@pytest.fixture(scope="module")
def unmake_with_a_flip():
    _, unmake = there_and_back(
        squared, start(), data(), nestor.Reversible(bits=64), gradient=flipped,
        optimizer=nestor.sgd(0.2, momentum=0.9), steps=30,
    )  # fmt: skip
    return unmake


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(0, 29), entry=st.integers(0, 11), bit=st.integers(30, 62))
def test_one_flipped_bit_is_always_detected(unmake_with_a_flip, step: int, entry: int, bit: int):
    """Bits from the 22nd of the mantissa up; lower ones are below the resolution and change no word."""
    where = (jnp.int32(step), jnp.int32(entry), jnp.int32(bit))
    _, good = unmake_with_a_flip(where)
    assert not bool(good)


def test_no_flip_is_no_mismatch(unmake_with_a_flip):
    _, good = unmake_with_a_flip((jnp.int32(99), jnp.int32(0), jnp.int32(60)))
    assert bool(good)


# --- what happens then ---------------------------------------------------------------------------------


def end(adjoint: Any, steps: int) -> Any:
    def value(rate: jax.Array) -> jax.Array:
        optimizer = nestor.sgd(rate, momentum=0.9)
        return squared(
            nestor.train(squared, start(), data(), optimizer=optimizer, steps=steps, adjoint=adjoint).params,
            data(),
        )

    return value


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch):
    """The gradient comes out differently on the way back."""
    unkick = Words.unkick

    def wrong(self: Any, tape: Any, turn: Any, g: Any) -> Any:
        return unkick(self, tape, turn, g.at[3].add(jnp.where(turn.number == 4, 1e-9, 0.0)))

    monkeypatch.setattr(Words, "unkick", wrong)
    yield
    run_map.cache_clear()


@pytest.mark.parametrize("snapshots", [None, pytest.param(3, marks=pytest.mark.slow)])
def test_a_mismatch_raises(broken: None, snapshots: int | None):
    with pytest.raises(jax.errors.JaxRuntimeError, match="ReversalFailed") as caught:
        jax.grad(end(nestor.Reversible(snapshots=snapshots), 17))(0.1)
    assert "on_mismatch" in str(caught.value)


@pytest.mark.parametrize("snapshots", [pytest.param(None, marks=pytest.mark.slow), 3])
def test_a_mismatch_falls_back(broken: None, snapshots: int | None):
    adjoint = nestor.Reversible(snapshots=snapshots, on_mismatch="checkpoint")
    want = jax.grad(end(nestor.Unroll(), 17))(0.1)
    np.testing.assert_allclose(jax.grad(end(adjoint, 17))(0.1), want, rtol=1e-8)


def test_a_mismatch_gives_nan(broken: None):
    assert jnp.isnan(jax.grad(end(nestor.Reversible(on_mismatch="nan"), 17))(0.1))


def test_a_stack_without_room_is_a_mismatch():
    with pytest.raises(jax.errors.JaxRuntimeError, match="ReversalFailed"):
        jax.grad(end(nestor.Reversible(bits=1), 120))(0.1)


@pytest.mark.slow
def test_it_works_in_32_bits():
    """Without x64, as most people run JAX."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        x, y = (jnp.asarray(a, jnp.float32) for a in data())
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), start())

        def of(adjoint: Any) -> Any:
            def value(rates: jax.Array, params: Any) -> jax.Array:
                optimizer = nestor.sgd(rates, momentum=0.9)
                run = nestor.train(squared, params, (x, y), optimizer=optimizer, steps=15, adjoint=adjoint)
                return squared(run.params, (-x, y))

            return jax.grad(value, argnums=(0, 1))

        rates = jnp.full(15, 0.1, jnp.float32)
        want = of(nestor.Unroll())(rates, params)
        assert relative(of(nestor.Reversible())(rates, params), want) < 1e-4
        assert relative(of(nestor.Reversible(snapshots=4))(rates, params), want) < 1e-4


def test_numbers_out_of_range_are_a_status():
    blown = lambda adjoint: nestor.train(  # noqa: E731
        lambda x, _: jnp.sum(x**2), jnp.ones(3), None, optimizer=nestor.sgd(2.0, momentum=0.9), steps=60,
        adjoint=adjoint, raise_on_failure=False,
    )  # fmt: skip
    assert blown(nestor.Reversible()).status.name == "OUT_OF_RANGE"
    assert not blown(nestor.Reversible()).success
    assert blown(nestor.Unroll()).status.name == "FINISHED"
