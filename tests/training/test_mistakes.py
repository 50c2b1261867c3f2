"""What happens to somebody who makes a mistake in a training run: the argument, the value, the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import BadArgument

W = jnp.ones(3)
X, Y = jnp.ones((8, 3)), jnp.zeros(8)


def loss(w, batch):
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def train(fun=loss, params=W, data=(X, Y), **options):
    """A run with one thing that is wrong."""
    return lambda: nestor.train(fun, params, data, **({"optimizer": nestor.sgd(0.1), "steps": 4} | options))


def with_adjoint(adjoint, **options):
    return train(adjoint=adjoint, **options)


R, E = nestor.Reversible, nestor.Evolution
MISTAKES = {
    # name: (the call, the argument, words of the first line, words of the second)
    "arguments swapped": (train(W, loss), "loss", "Array", "first"),
    "a loss of one argument": (train(lambda w: 0.0), "loss", "(w)", "close over"),
    "a loss of three": (train(lambda w, b, k: 0.0), "loss", "(w, b, k)", "stochastic=True"),
    "a loss per example": (train(lambda w, b: b[0] @ w), "loss", "float64[8]", "jnp.mean"),
    "a loss of integers": (train(lambda w, b: jnp.argmax(w)), "loss", "int64[]", ""),
    "integer parameters": (train(params=jnp.arange(3)), "params", "Array", ".astype(float)"),
    "no parameters": (train(params={}), "params", "{}", "start from"),
    "ragged data": (train(data=(X, Y[:5])), "data", "float64[5]", "shapes"),
    "a list as data": (train(data=[1.0, 2.0]), "data", "1.0", "arrays"),
    "no rows": (train(data=(X[:0], Y[:0])), "data", "float64[0", "shapes"),
    "an optimizer's name": (train(optimizer="adam"), "optimizer", "adam", "nestor.sgd(0.1"),
    "an optimizer's function": (train(optimizer=nestor.sgd), "optimizer", "sgd", "call it"),
    "optax not called": (train(optimizer=optax.adam), "optimizer", "adam", "call it"),
    "groups that do not fit": (
        train(lambda p, _: p["a"][0], {"a": W, "b": W}, optimizer=nestor.sgd({"a": 0.1, "c": 0.1})),
        "optimizer.rate", "groups", "same keys",
    ),
    "no length": (train(steps=None), "steps", "missing", "epochs=10"),
    "two lengths": (train(epochs=2), "steps", "together with epochs", "epochs=10"),
    "no steps": (train(steps=0), "steps", "0", "steps=100"),
    "half a step": (train(steps=2.5), "steps", "2.5", "steps=100"),
    "epochs of nothing": (train(lambda w, _: w[0], data=None, steps=None, epochs=2), "epochs", "2", "steps="),
    "a batch too large": (train(batch_size=9), "batch_size", "9", "pass 8"),
    "a batch of nothing": (train(batch_size=0), "batch_size", "0", "batch_size=100"),
    "a batch of a function": (train(data=lambda t: (X, Y), batch_size=4), "batch_size", "4", "return batches"),
    "a seed as key": (train(key=0), "key", "0", "jax.random.key(0)"),
    "many keys": (train(key=jax.random.split(jax.random.key(0))), "key", "Array", "one key"),
    "a negative clip": (train(clip=-1.0), "clip", "-1.0", "clip=1.0"),
    "patience without validation": (train(patience=3), "patience", "3", "validation"),
    "no stagnation": (train(stagnation=0), "stagnation", "0", "stagnation=100"),
    "a validation of arrays": (train(validation=lambda w: w), "validation", "float64[3]", "jnp.mean"),
    "a validation of two": (train(validation=lambda w, b: 0.0), "validation", "", "Do this"),
    "a callback of text": (train(callback="print"), "callback", "print", "function"),
    "a file in a trace": (lambda: jax.jit(lambda w: train(params=w, checkpoint="a")())(W), "checkpoint", "a", "out"),
    "an adjoint's name": (with_adjoint("reversible"), "adjoint", "reversible", "nestor.Unroll()"),
    "an adjoint's class": (with_adjoint(R), "adjoint", "class Reversible", "nestor.Unroll()"),
    "reversed optax": (with_adjoint(R(), optimizer=optax.sgd(0.1)), "adjoint", "Reversible", "nestor.Checkpoint()"),
    "implicit with a function": (
        with_adjoint(nestor.Implicit(), data=lambda t: (X, Y)), "adjoint", "Implicit", "arrays",
    ),
    "no snapshots": (with_adjoint(R(snapshots=0)), "adjoint.snapshots", "0", "snapshots=20"),
    "negative bits": (with_adjoint(R(bits=-1)), "adjoint.bits", "-1", "bits=160"),
    "a width": (with_adjoint(R(width="int16")), "adjoint.width", "int16", 'width="int64"'),
    "a number as width": (with_adjoint(R(width=32)), "adjoint.width", "32", 'width="int32"'),
    "what on mismatch": (with_adjoint(R(on_mismatch="ignore")), "adjoint.on_mismatch", "ignore", '"raise"'),
    "no smoothing": (with_adjoint(E(sigma=0.0)), "adjoint.sigma", "0.0", "sigma=0.1"),
    "half a pair": (with_adjoint(E(pairs=1.5)), "adjoint.pairs", "1.5", "pairs=64"),
    "no last steps": (with_adjoint(nestor.Truncate(last=0)), "adjoint.last", "0", "last=10"),
    "no slots": (with_adjoint(nestor.Checkpoint(slots=0)), "adjoint.slots", "0", "slots=10"),
    "slots and levels": (with_adjoint(nestor.Checkpoint(levels=2, slots=3)), "adjoint.slots", "3", "slots=10"),
    "Nesterov's momentum": (lambda: nestor.sgd(0.1, nesterov=0.9), "nesterov", "0.9", "nesterov=True"),
    "a rate of text": (lambda: nestor.sgd("fast"), "rate", "fast", "number"),
    "a rate that is no number": (lambda: nestor.adam(np.nan), "rate", "nan", "number"),
    "a matrix of rates": (lambda: nestor.adamw(jnp.ones((2, 3))), "rate", "(2, 3)", "(T,)"),
    "tuned by a number": (lambda: nestor.tuned(0.1, by=0.01), "by", "0.01", "nestor.sgd"),
    "tuned text": (lambda: nestor.tuned("a", by=nestor.sgd(0.1)), "start", "a", "tuned(0.1"),
}  # fmt: skip


def test_there_are_many():
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_with_a_remedy(name: str):
    call, argument, value, remedy = MISTAKES[name]
    with jax.numpy_dtype_promotion("standard"), pytest.raises(BadArgument) as raised:
        call()
    message = str(raised.value)
    first, second, *_ = [*message.splitlines(), "", ""]
    assert f"argument '{argument}" in first, message
    assert value in first, message
    assert second.startswith("Do this: "), message
    assert remedy in second, message
    assert max(map(len, message.splitlines())) < 300, message


def test_a_mistake_in_a_prediction_names_it():
    with pytest.raises(BadArgument, match=r"^predict_cost: argument 'steps' is missing"):
        nestor.predict_cost(loss, W, (X, Y), optimizer=nestor.sgd(0.1))


def test_a_reversed_run_without_a_reversal_names_the_remedy():
    with pytest.raises(BadArgument, match="Implicit"):
        nestor.argmin(lambda x: jnp.sum(x**2), W, adjoint=nestor.Reversible())
