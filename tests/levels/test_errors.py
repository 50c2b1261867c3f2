"""What happens to somebody who makes a mistake in a graph: the level, the field, the value, the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import BadArgument, Graph, Level, linear
from nestor.levels import Reinforce, Smoothed

W = jnp.ones(3)
X = jnp.ones((8, 3))
SGD = nestor.sgd(0.1)


def below(p, batch):
    return jnp.sum((p["w"] - p["h"]) ** 2)


def above(p, batch):
    return jnp.sum(p["w"] ** 2)


def unmoved():
    """A run of a graph whose only level has no optimizer."""
    return Graph({"w": Level(lambda p, _: jnp.sum(p["w"] ** 2), W)}).run(2)


def w(loss=below, params=W, optimizer=SGD, **options):
    """A graph whose lower level "w" has one thing that is wrong."""
    return lambda: Graph({"w": Level(loss, params, optimizer, **options), "h": Level(above, W, SGD)})


def h(loss=above, params=W, optimizer=SGD, **options):
    """The same for the highest level, "h"."""
    return lambda: Graph({"w": Level(below, W, SGD), "h": Level(loss, params, optimizer, **options)})


def run(steps=2, **options):
    """A run of a graph that is right."""
    return lambda: w()().run(steps, **options)


class Method:
    """What looks like a single-loop method."""

    def init(self, *_):
        raise NotImplementedError

    step = init


def three():
    return Graph({
        "v": Level(lambda p, _: jnp.sum((p["v"] - p["w"]) ** 2), W, SGD),
        "w": Level(below, W, SGD),
        "h": Level(lambda p, _: jnp.sum(p["v"] + p["w"]), W, SGD),
    })  # fmt: skip


MISTAKES = {
    # name: (the call, where, the argument, words of the first line, words of the second)
    "no dictionary": (lambda: Graph([Level(above, W, SGD)]), "Graph", "levels", "list", "nestor.Graph({"),
    "no levels": (lambda: Graph({}), "Graph", "levels", "{}", "nestor.Graph({"),
    "a loss for a level": (lambda: Graph({"w": above}), "Graph", "levels['w']", "above", "nestor.Level("),
    "a number for a name": (lambda: Graph({1: Level(above, W, SGD)}), "Graph", "levels[1]", "1", "nestor.Level("),
    "a misspelt level": (h(lambda p, _: p["weights"]), 'level "h"', "loss", "p['weights']", "correct the name"),
    "a level misspelt by a letter": (h(lambda p, _: p["ww"]), 'level "h"', "loss", "p['ww']", "write p['w']"),
    "a start that misspells": (w(start=lambda p: p["common"]), 'level "w"', "start", "p['common']", "add a level"),
    "an optimizer that misspells": (
        w(optimizer=lambda p: nestor.sgd(p["rate"])), 'level "w"', "optimizer", "p['rate']", "add a level",
    ),
    "a validation that misspells": (
        run(validation=lambda p: p["x"]), "Graph.run", "validation", "p['x']", "add a level",
    ),
    "levels in the wrong order": (
        lambda: Graph({"h": Level(above, W, SGD), "w": Level(below, W, SGD)}),
        'level "h"', "loss", "own parameters do not reach", "lowest first (h, w)",
    ),
    "an answer that nobody reads": (
        lambda: Graph({"w": Level(below, W, SGD), "h": Level(lambda p, _: jnp.sum(p["h"]), W, SGD)}),
        'level "w"', "loss", "no level above it reads", "leave this level out",
    ),
    "parameters that reach no loss": (
        lambda: Graph({"w": Level(lambda p, _: jnp.sum(p["w"] ** 2), W, SGD), "h": Level(above, W, SGD)}),
        'level "h"', "loss", "own parameters do not reach", "check the loss",
    ),
    "a start that reads below": (
        lambda: Graph({
            "v": Level(lambda p, _: jnp.sum((p["v"] - p["w"]) ** 2), W, SGD),
            "w": Level(below, W, SGD, start=lambda p: p["v"]),
            "h": Level(lambda p, _: jnp.sum(p["v"] + p["w"]), W, SGD),
        }),
        'level "w"', "start", "reads 'v'", "after this one",
    ),
    "a start that reads itself": (w(start=lambda p: p["w"]), 'level "w"', "start", "reads 'w'", "after this one"),
    "a rate from below": (
        h(optimizer=lambda p: nestor.sgd(jnp.sum(p["w"]))), 'level "h"', "optimizer", "reads 'w'", "after this one",
    ),
    "a start of another shape": (w(start=lambda p: p["h"][:2]), 'level "w"', "start", "shape (2,)", "same shapes"),
    "a start of another structure": (w(start=lambda p: {"a": p["h"]}), 'level "w"', "start", "'a'", "same structure"),
    "a projection of another shape": (w(project=lambda w: w[0]), 'level "w"', "project", "shape ()", "same shapes"),
    "no optimizer": (unmoved, 'level "w"', "optimizer", "missing", "nestor.sgd(0.1)"),
    "an optimizer's name": (w(optimizer="adam"), 'level "w"', "optimizer", "adam", "nestor.sgd(0.1)"),
    "a rate for an optimizer": (w(optimizer=0.1), 'level "w"', "optimizer", "0.1", "nestor.sgd(0.1)"),
    "an optimizer not called": (w(optimizer=nestor.sgd), 'level "w"', "optimizer", "sgd", "call it"),
    "optax not called": (w(optimizer=optax.adam), 'level "w"', "optimizer", "adam", "call it"),
    "a function to a number": (w(optimizer=lambda p: 0.1), 'level "w"', "optimizer", "0.1", "nestor.sgd(0.1"),
    "groups that do not fit": (
        lambda: Graph({"h": Level(lambda p, _: p["h"]["a"][0], {"a": W}, nestor.sgd({"b": 0.1}))}),
        'level "h"', "optimizer.rate", "groups", "same keys",
    ),
    "steps at the top": (h(steps=5), 'level "h"', "steps", "5", "run(steps=...)"),
    "no steps": (w(steps=0), 'level "w"', "steps", "0", "steps=10"),
    "half a step": (w(steps=2.5), 'level "w"', "steps", "2.5", "steps=10"),
    "a closed form at the top": (h(answer=lambda p: W), 'level "h"', "answer", "function", "an optimizer"),
    "a start of the top": (h(start=lambda p: W), 'level "h"', "start", "function", "leave start away"),
    "a restart of the top": (h(restart=True), 'level "h"', "restart", "True", "leave restart away"),
    "an optimizer of a closed form": (w(answer=lambda p: p["h"]), 'level "w"', "optimizer", "Optimizer", "or answer"),
    "a projection of a closed form": (
        w(optimizer=None, answer=lambda p: p["h"], project=lambda w: w),
        'level "w"', "project", "function", "or answer",
    ),
    "a batch too large": (w(data=X, batch_size=9), 'level "w"', "batch_size", "9", "pass 8"),
    "a batch of nothing": (w(data=X, batch_size=0), 'level "w"', "batch_size", "0", "batch_size=10"),
    "a batch of no data": (w(batch_size=4), 'level "w"', "batch_size", "4", "return batches"),
    "ragged data": (w(data=(X, X[:5])), 'level "w"', "data", "float64[5", "one row"),
    "parts that do not divide": (w(data=X, accumulate=3), 'level "w"', "accumulate", "3", "batch_size"),
    "parts of no data": (w(accumulate=2), 'level "w"', "accumulate", "2", "batch_size"),
    "a loss of one argument": (w(lambda p: 0.0), 'level "w"', "loss", "(p)", "close over"),
    "a loss that wants a key": (w(lambda p, b, key: 0.0), 'level "w"', "loss", "(p, b, key)", "stochastic=True"),
    "a stochastic loss without a key": (w(stochastic=True), 'level "w"', "loss", "(p, batch)", "close over"),
    "a loss per example": (w(lambda p, b: b @ p["w"], data=X), 'level "w"', "loss", "float64[8]", "jnp.mean"),
    "a loss of integers": (w(lambda p, b: jnp.argmax(p["w"])), 'level "w"', "loss", "int64[]", "jnp.mean"),
    "a loss that branches": (
        w(lambda p, b: 0.0 if p["w"][0] > 0 else 1.0), 'level "w"', "loss", "branches", "jnp.where",
    ),
    "a number for a loss": (w(3.0), 'level "w"', "loss", "3.0", "pass the function"),
    "integer parameters": (w(params=jnp.arange(3)), 'level "w"', "params", "Array", ".astype(float)"),
    "an adjoint's class": (w(adjoint=nestor.Implicit), 'level "w"', "adjoint", "class Implicit", "nestor.Implicit("),
    "an adjoint's name": (w(adjoint="darts"), 'level "w"', "adjoint", "darts", "nestor.Implicit("),
    "a linear solver's class": (
        w(adjoint=nestor.Implicit(linear.CG)), 'level "w"', "adjoint.linear_solver", "CG", "nestor.CG()",
    ),
    "no length": (w(adjoint=nestor.DARTS(eps=0.0)), 'level "w"', "adjoint.eps", "0.0", "eps=1e-2"),
    "an array for a rate": (w(adjoint=nestor.DARTS(rate=W)), 'level "w"', "adjoint.rate", "Array", "rate=0.1"),
    "SAMA's length": (w(adjoint=nestor.SAMA(eps=-1.0)), 'level "w"', "adjoint.eps", "-1.0", "eps=1e-2"),
    "optax backwards": (
        w(optimizer=optax.sgd(0.1), adjoint=nestor.Reversible()),
        'level "w"', "adjoint", "Reversible", "nestor.Checkpoint()",
    ),
    "tuned backwards": (
        w(optimizer=nestor.sgd(nestor.tuned(0.1, by=SGD)), adjoint=nestor.Reversible()),
        'level "w"', "adjoint", "Reversible", "nestor.Checkpoint()",
    ),
    "a projection backwards": (
        w(project=lambda w: w, adjoint=nestor.Reversible()), 'level "w"', "adjoint", "projection", "nestor.Unroll()",
    ),
    "a middle level backwards": (
        lambda: Graph({
            "v": Level(lambda p, _: jnp.sum((p["v"] - p["w"]) ** 2), W, SGD),
            "w": Level(lambda p, _: jnp.sum(p["v"] * p["w"] - p["h"]), W, SGD, adjoint=nestor.Reversible()),
            "h": Level(above, W, SGD),
        }),
        'level "w"', "adjoint", "waits for levels below", "nestor.Checkpoint()",
    ),
    "a restart that is a number": (w(restart=0.5), 'level "w"', "restart", "0.5", "restart=True"),
    "a start and no restart": (
        w(start=lambda p: p["h"], restart=False), 'level "w"', "restart", "False", "leave it away",
    ),
    "a negative clip": (w(clip=-1.0), 'level "w"', "clip", "-1.0", "clip=1.0"),
    "a precision of integers": (w(precision="int8"), 'level "w"', "precision", "int8", "bfloat16"),
    "a precision that is none": (w(precision="half-ish"), 'level "w"', "precision", "half-ish", "bfloat16"),
    "a gradient's name": (w(gradient="es"), 'level "w"', "gradient", "es", "leave it away"),
    "a gradient's class": (w(gradient=Smoothed), 'level "w"', "gradient", "Smoothed", "leave it away"),
    "no smoothing": (lambda: Smoothed(sigma=0.0), "Smoothed", "sigma", "0.0", "sigma=0.1"),
    "one draw": (
        lambda: Reinforce(lambda a, k: a, lambda a, b: 0.0, samples=1), "Reinforce", "samples", "1", "samples=16",
    ),
    "another level's gradient": (
        lambda: w()().hypergradient("x"), "Graph.hypergradient", "level", "x", "leave it away",
    ),
    "a seed as key": (run(key=0), "Graph.run", "key", "0", "jax.random.key(0)"),
    "no outer steps": (run(0), "Graph.run", "steps", "0", "steps=100"),
    "patience without validation": (run(patience=3), "Graph.run", "patience", "3", "validation"),
    "a validation of arrays": (run(validation=lambda p: p["w"]), "Graph.run", "validation", "scalar", "jnp.mean"),
    "a validation of two": (run(validation=lambda p, b: 0.0), "Graph.run", "validation", "(p, b)", "close over"),
    "data as validation": (run(validation=X), "Graph.run", "validation", "Array", "validation=lambda p:"),
    "a callback of text": (run(callback="print"), "Graph.run", "callback", "print", "function"),
    "a path for a logger": (run(logger="run.csv"), "Graph.run", "logger", "run.csv", "CSVLogger"),
    "compiler options in words": (
        run(compiler_options="--xla_flag"), "Graph.run", "compiler_options", "--xla_flag", "compiler_options={",
    ),
    "no reports": (run(report_every=0), "Graph.run", "report_every", "0", "report_every=100"),
    "a start of nothing": (run(start=W), "Graph.run", "start", "Array", "an earlier run"),
    "too many devices": (run(devices=999), "Graph.run", "devices", "999", "jax.devices()"),
    "no devices": (run(devices=[]), "Graph.run", "devices", "[]", "jax.devices()"),
    "a device's name": (run(devices="cpu"), "Graph.run", "devices", "cpu", "jax.devices()"),
    "a method's name": (run(method="soba"), "Graph.run", "method", "soba", "SOBA("),
    "a method for three levels": (
        lambda: three().run(2, method=Method()), "Graph.run", "method", "Method", "leave it away",
    ),
    "a file in a trace": (
        lambda: jax.jit(lambda x: h(params=x)().run(2, checkpoint="a").params["h"])(W),
        "Graph.run", "checkpoint", "a", "outside the traced function",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_with_a_remedy(name: str):
    call, where, argument, value, remedy = MISTAKES[name]
    with jax.numpy_dtype_promotion("standard"), pytest.raises(BadArgument) as raised:
        call()
    message = str(raised.value)
    first, second, *_ = [*message.splitlines(), "", ""]
    assert first.startswith(f"{where}: argument '{argument}' "), message
    assert value in first, message
    assert second.startswith("Do this: "), message
    assert remedy in second, message
    assert max(map(len, message.splitlines())) < 300, message


def test_a_key_of_the_users_own_is_not_taken_for_a_level():
    """A misspelt parameter inside a level's tree is the user's own KeyError."""
    with pytest.raises(KeyError, match="bais") as raised:
        Graph({"w": Level(lambda p, _: p["w"]["bais"], {"bias": W}, SGD)})
    assert not isinstance(raised.value, BadArgument)
    with pytest.raises(KeyError, match="mine"):
        Graph({"w": Level(lambda p, _: {"other": p["w"]}["mine"], W, SGD)})


def test_an_exception_of_the_users_own_passes():
    def fails(p, batch):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as raised:
        w(fails)()
    assert any('level "w"' in note for note in raised.value.__notes__)


def test_second_derivatives_of_an_adjoint_without_them_are_refused():
    """Forwards where only backwards works, and the other way round, by name."""

    def slope(x, adjoint):
        levels = {"w": Level(below, W, SGD, steps=2, adjoint=adjoint), "h": Level(above, x, SGD)}
        return Graph(levels).hypergradient().gradient[0]

    with pytest.raises(nestor.CannotDifferentiate, match=r"Evolution\(\)"):
        jax.grad(slope)(W, nestor.Evolution(pairs=2))
    assert np.isfinite(jax.grad(slope)(W, nestor.Unroll())).all()


def test_implicit_is_refused_for_decoupled_decay():
    """Such an optimizer does not come to rest where the gradient is zero."""
    levels = {
        "w": Level(
            lambda p, _: jnp.sum((p["w"] - p["h"]) ** 2),
            jnp.zeros(2),
            nestor.adamw(0.1),
            adjoint=nestor.Implicit(),
        ),
        "h": Level(lambda p, _: jnp.sum(p["w"] ** 2), jnp.ones(2), nestor.sgd(0.1)),
    }
    with pytest.raises(nestor.BadArgument, match=r'level "w".*\n.*put the decay into the loss'):
        Graph(levels)
    with pytest.raises(nestor.BadArgument, match="decoupled decay"):
        nestor.train(
            lambda x, _: x**2, 1.0, None, optimizer=nestor.adamw(0.1), steps=3, adjoint=nestor.Implicit()
        )


def test_a_method_needs_no_optimizers():
    levels = {
        "w": Level(lambda p, _: jnp.sum((p["w"] - p["h"]) ** 2), jnp.zeros(2)),
        "h": Level(lambda p, _: jnp.sum((p["w"] - 3.0) ** 2), jnp.ones(2)),
    }
    run = Graph(levels).run(300, method=nestor.levels.SOBA(0.3, 0.1, inner_decay=0.0, outer_decay=0.0))
    np.testing.assert_allclose(run.params["h"], [3.0, 3.0], rtol=1e-3)
    with pytest.raises(nestor.BadArgument, match="optimizer"):
        Graph(levels).hypergradient()
