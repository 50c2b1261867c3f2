"""Every exact adjoint gives the hypergradient of the run: of one another, of forward mode, of finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from tests.training.runs import STEPS, data, direction, dot, hypers, outer, relative, squared, start

EXACT = {
    "checkpoint 1": nestor.Checkpoint(levels=1),
    "checkpoint 2": nestor.Checkpoint(levels=2),
    "binomial": nestor.Checkpoint(slots=7),
    "reversible": nestor.Reversible(bits=64),
    "hybrid": nestor.Reversible(snapshots=4, bits=64),
}
RATES, MOMENTA = jnp.linspace(0.3, 0.1, STEPS), jnp.linspace(0.5, 0.9, STEPS)

# name: (the optimizer as a function of hyperparameters, the hyperparameters).
OPTIMIZERS = {
    "sgd": (lambda h: nestor.sgd(h["rate"]), {"rate": RATES}),
    "momentum": (lambda h: nestor.sgd(h["rate"], momentum=h["m"]), {"rate": RATES, "m": MOMENTA}),
    "nesterov": (
        lambda h: nestor.sgd(h["rate"], momentum=h["m"], nesterov=True),
        {"rate": RATES, "m": MOMENTA},
    ),
    "adagrad": (
        lambda h: nestor.adagrad(h["rate"], eps=h["eps"]),
        {"rate": RATES, "eps": jnp.asarray(1e-3)},
    ),
    "rmsprop": (
        lambda h: nestor.rmsprop(h["rate"], h["decay of squares"], eps=1e-2),
        {"rate": RATES / 5, "decay of squares": MOMENTA},
    ),
    "rmsprop with momentum": (
        lambda h: nestor.rmsprop(h["rate"], 0.8, momentum=h["m"], eps=1e-2),
        {"rate": RATES / 10, "m": MOMENTA},
    ),
    "adam": (
        lambda h: nestor.adam(h["rate"], h["b1"], h["b2"], eps=1e-2),
        {"rate": RATES / 5, "b1": jnp.asarray(0.8), "b2": jnp.asarray(0.95)},
    ),
    "adamw": (
        lambda h: nestor.adamw(h["rate"], weight_decay=h["wd"], eps=1e-2),
        {"rate": RATES / 5, "wd": jnp.asarray(0.1)},
    ),
    "leapfrog": (
        lambda h: nestor.leapfrog(h["rate"], mass=h["mass"]),
        {"rate": RATES, "mass": jnp.asarray(1.5)},
    ),
    "groups": (
        lambda h: nestor.sgd({"one": h["rate"], "two": 0.1}, momentum={"one": 0.5, "two": h["m"]}),
        {"rate": RATES, "m": MOMENTA},
    ),
}

# Daily: reversal between snapshots, which is both of the ways back, with an optimizer that has memory.
DAILY = {"momentum": ["hybrid"]}


@pytest.mark.parametrize(
    ("name", "adjoints"),
    [pytest.param(name, labels, id=name) for name, labels in DAILY.items()]
    + [pytest.param(name, list(EXACT), id=f"{name}-all", marks=pytest.mark.slow) for name in OPTIMIZERS],
)
def test_the_adjoints_agree(name: str, adjoints: list[str]):
    optimizer, more = OPTIMIZERS[name]
    hyper = hypers(**more)
    of = lambda adjoint: lambda h: outer(h, optimizer, adjoint)  # noqa: E731
    want_value, want = jax.jit(jax.value_and_grad(of(nestor.Unroll())))(hyper)
    assert all(float(jnp.max(jnp.abs(leaf))) > 1e-8 for leaf in jax.tree.leaves(want))
    along = direction(hyper)

    def moved(distance):
        return of(nestor.Forward())(jax.tree.map(lambda a, d: a + distance * d, hyper, along))

    ahead = jax.jit(lambda at: jax.jvp(moved, (at,), (jnp.ones(()),)))
    np.testing.assert_allclose(float(ahead(0.0)[1]), dot(want, along), rtol=1e-9)
    difference = (ahead(1e-5)[0] - ahead(-1e-5)[0]) / 2e-5
    np.testing.assert_allclose(difference, ahead(0.0)[1], rtol=2e-5)
    for label in adjoints:
        adjoint = EXACT[label]
        value, got = jax.jit(jax.value_and_grad(of(adjoint)))(hyper)
        integers = isinstance(adjoint, nestor.Reversible)
        np.testing.assert_allclose(float(value), float(want_value), rtol=1e-6 if integers else 1e-12)
        assert relative(got, want) < (1e-6 if integers else 1e-9), label


@pytest.mark.slow
def test_optax_transformations_too():
    optimizer = lambda h: optax.adam(h["rate"], eps=1e-2)  # noqa: E731
    hyper = hypers(rate=jnp.asarray(0.05))
    of = lambda adjoint: lambda h: outer(h, optimizer, adjoint)  # noqa: E731
    want = jax.grad(of(nestor.Unroll()))(hyper)
    assert relative(jax.grad(of(nestor.Checkpoint(slots=3)))(hyper), want) < 1e-9
    ours = lambda h: outer(h, lambda h: nestor.adam(h["rate"], eps=1e-2), nestor.Unroll())  # noqa: E731
    assert relative(jax.grad(ours)(hyper), want) < 1e-6
    along = direction(hyper)
    np.testing.assert_allclose(
        float(jax.jvp(of(nestor.Forward()), (hyper,), (along,))[1]), dot(want, along), rtol=1e-9
    )


@pytest.mark.parametrize("name", ["binomial", "reversible"])
@pytest.mark.parametrize("second", [jax.jacfwd, jax.jacrev])
@pytest.mark.slow
def test_second_derivatives(name: str, second):
    x, y = data()

    def of(adjoint):
        def value(h):
            loss = lambda p, b: squared(p, b) + h[1] * jnp.sum(p["one"]["w"] ** 2)  # noqa: E731
            optimizer = nestor.sgd(h[0] * RATES[:6], momentum=h[2])
            run = nestor.train(loss, start(), (x, y), optimizer=optimizer, steps=6, adjoint=adjoint)
            return squared(run.params, (-x, y))

        return value

    hyper = jnp.array([1.0, 0.01, 0.8])
    want = jax.hessian(of(nestor.Unroll()))(hyper)
    assert float(jnp.min(jnp.abs(want))) > 1e-6
    got = second(jax.grad(of(EXACT[name])))(hyper)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_the_best_parameters_are_differentiable():
    """The run that validates best in its middle: the derivative is that of a run that ends there."""
    x, y = data()

    def trained(rates, steps, **options):
        optimizer = nestor.sgd(rates[:steps], momentum=0.8)
        return nestor.train(squared, start(), (x, y), optimizer=optimizer, steps=steps, **options)

    middle = trained(RATES, STEPS // 2).params

    def far(params):
        return sum(
            jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (params, middle)), strict=True)
        )

    def of(adjoint, steps, name):
        def value(rates):
            run = trained(rates, steps, adjoint=adjoint, validation=far, validate_every=1)
            return squared(getattr(run, name), (-x, y)), run.history.validation

        return jax.jit(jax.value_and_grad(value, has_aux=True))

    (want, seen), slope = of(nestor.Unroll(), STEPS, "best")(RATES)
    least = int(jnp.argmin(seen)) + 1
    assert least == STEPS // 2
    (shorter, _), short_slope = of(nestor.Unroll(), least, "params")(RATES)
    np.testing.assert_allclose(want, shorter, rtol=1e-12)
    np.testing.assert_allclose(slope, short_slope, rtol=1e-10, atol=1e-14)
    for adjoint in (nestor.Checkpoint(slots=3), nestor.Reversible(), nestor.Reversible(snapshots=3)):
        (value, _), got = of(adjoint, STEPS, "best")(RATES)
        np.testing.assert_allclose(value, want, rtol=1e-9)
        np.testing.assert_allclose(got, slope, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_the_inexact_adjoints_keep_their_promises():
    x, y = data()
    features = jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1)

    def of(adjoint, steps):
        def value(decay):
            loss = lambda w, b: jnp.mean((b[0] @ w - b[1]) ** 2) + decay * jnp.sum(w**2)  # noqa: E731
            run = nestor.train(
                loss, jnp.zeros((5, 2)), (features, y), optimizer=nestor.sgd(0.2), steps=steps, adjoint=adjoint,
                validation=lambda w: jnp.mean((features @ w - 0.5 * y) ** 2),
            )  # fmt: skip
            return run.validation_loss

        return value

    want = float(jax.grad(of(nestor.Unroll(), 200))(0.3))
    for adjoint, close in (
        (nestor.Implicit(), 1e-5),
        (nestor.FiniteDifference(), 1e-6),
        (nestor.Truncate(last=100), 1e-6),
    ):
        np.testing.assert_allclose(
            float(jax.grad(of(adjoint, 200))(0.3)), want, rtol=close, err_msg=repr(adjoint)
        )
    one = float(jax.grad(of(nestor.OneStep(), 200))(0.3))
    assert 0 < one / want < 1  # the same sign, too short
    same = float(jax.grad(of(nestor.Truncate(last=1), 200))(0.3))
    np.testing.assert_allclose(same, one, rtol=1e-12)
    smooth = float(jax.grad(of(nestor.Evolution(sigma=0.02, pairs=100), 30))(0.3))
    plain = float(jax.grad(of(nestor.Unroll(), 30))(0.3))
    np.testing.assert_allclose(smooth, plain, rtol=0.5)
    with pytest.raises(nestor.CannotDifferentiate, match="Forward"):
        jax.grad(of(nestor.Forward(), 5))(0.3)
