"""The doctor: one tiny run for each illness, and healthy ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import plots

SGD = nestor.sgd


def regression(hyper, adjoint=None, steps=30, **settings):
    """Ridge regression by gradient descent; a number from its end."""
    x = jax.random.normal(jax.random.key(0), (40, 3))
    loss = lambda w, batch: jnp.mean((batch @ w - 1) ** 2) + jnp.exp(hyper["decay"]) * jnp.sum(w**2)  # noqa: E731
    run = nestor.train(
        loss,
        jnp.zeros(3),
        x,
        optimizer=SGD(hyper["rate"], momentum=0.5),
        steps=steps,
        adjoint=adjoint,
        **settings,
    )
    return jnp.mean((x @ run.params - 0.5) ** 2)


def hyper(rate=0.1):
    return {"decay": -1.0, "rate": rate}


def kinds(diagnosis):
    return [finding.kind for finding in diagnosis.findings]


@pytest.mark.parametrize(
    "adjoint",
    [None, *(pytest.param(a, marks=pytest.mark.slow) for a in (nestor.Reversible(), nestor.Forward()))],
    ids=repr,
)
def test_a_healthy_run(adjoint):
    diagnosis = nestor.diagnose(lambda h: regression(h, adjoint), hyper())
    assert diagnosis.healthy, str(diagnosis)
    gradient = jax.grad(lambda h: regression(h, nestor.Unroll()))(hyper())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), diagnosis.gradient, gradient)
    assert diagnosis.value == float(regression(hyper()))
    assert len(diagnosis.adjoint_norms) == 1
    assert diagnosis.rates[0] < 0
    assert "Nothing is wrong" in str(diagnosis)


def test_the_norms_are_those_of_the_derivative_in_the_parameters():
    """x <- x - 2 r x: the derivative of the end in x_t is (1 - 2 r)^(T - t)."""

    def end(rate):
        return nestor.train(lambda x, _: x**2, 1.0, None, optimizer=SGD(rate), steps=12).params

    diagnosis = nestor.diagnose(end, 0.1)
    np.testing.assert_allclose(diagnosis.adjoint_norms[0], 0.8 ** np.arange(12, -1, -1), rtol=1e-12)
    np.testing.assert_allclose(diagnosis.rates[0], np.log(0.8), rtol=1e-10)


def test_an_unused_hyperparameter():
    diagnosis = nestor.diagnose(lambda h: regression(h), {**hyper(), "momentum": 0.9})
    assert [(f.kind, f.where) for f in diagnosis.findings] == [("zero gradient", "['momentum']")]
    assert "does not use it" in diagnosis.findings[0].text


def test_a_derivative_that_is_cut_off_and_one_that_is_flat():
    def objective(h):
        return h["good"] ** 2 + jnp.round(h["rounded"]) + jax.lax.stop_gradient(h["stopped"])

    start = {"good": 1.0, "rounded": 0.2, "stopped": 1.0}
    found = {f.where: f for f in nestor.diagnose(objective, start).findings}
    assert set(found) == {"['rounded']", "['stopped']"}
    assert "does not change" in found["['rounded']"].text
    assert "stop_gradient" in found["['stopped']"].remedy


@pytest.mark.parametrize(
    "adjoint",
    [pytest.param(nestor.Checkpoint(slots=3), marks=pytest.mark.slow), nestor.Reversible()],
    ids=repr,
)
def test_nan_is_traced_to_the_step_where_it_was_born(adjoint):
    """The batch of step 4 puts |z|^1.5, which has no second derivative there, at zero."""

    def objective(rate):
        loss = lambda x, b: jnp.sum((x - 1) ** 2) + jnp.sum(jnp.abs(x * b) ** 1.5)  # noqa: E731
        data = lambda t: jnp.where(t == 4, 0.0, 1.0)  # noqa: E731
        run = nestor.train(
            loss, jnp.ones(2), data, optimizer=SGD(rate, momentum=0.5), steps=9, adjoint=adjoint
        )
        return jnp.sum(run.params)

    diagnosis = nestor.diagnose(objective, 0.05)
    assert [(f.kind, f.where) for f in diagnosis.findings] == [("not finite", "run 0, step 4")]
    norms = diagnosis.adjoint_norms[0]
    assert np.isfinite(norms[5:]).all()
    assert np.isnan(norms[:5]).all()
    assert "second derivative" in diagnosis.findings[0].remedy


def test_nan_after_the_run_and_in_what_the_loss_closes_over():
    def end(scale):
        run = nestor.train(lambda x, _: jnp.sum(x**2), jnp.zeros(2), None, optimizer=SGD(0.1), steps=3)
        return jnp.linalg.norm(run.params * scale)

    assert nestor.diagnose(end, 1.0).findings[0].where == "outside the runs"

    def start(x0):
        run = nestor.train(lambda x, _: jnp.sum(x**2), x0, None, optimizer=SGD(0.1), steps=3)
        return jnp.linalg.norm(run.params)

    assert nestor.diagnose(start, jnp.zeros(2)).findings[0].where == "run 0, its end"

    def closed_over(weight):
        loss = lambda x, t: jnp.sum(x**2) * jnp.where(t == 1, jnp.sqrt(weight - 1), 1.0)  # noqa: E731
        data = lambda t: t  # noqa: E731
        return jnp.sum(nestor.train(loss, jnp.ones(2), data, optimizer=SGD(0.1), steps=3).params)

    finding = nestor.diagnose(closed_over, 1.0).findings[0]
    assert finding.kind == "not finite"
    assert "what the loss closes over" in finding.text


def wells(h, steps=40, adjoint=None):
    """Gradient descent on a row of wells: past the edge of stability it is chaotic."""
    loss = lambda x, _: jnp.sum(1 - jnp.cos(3 * x))  # noqa: E731
    run = nestor.train(
        loss, jnp.array([0.3, 0.7]), None, optimizer=SGD(h["rate"]), steps=steps, adjoint=adjoint
    )
    return jnp.sum(run.params**2)


def test_chaos():
    diagnosis = nestor.diagnose(wells, {"rate": 0.9})
    assert kinds(diagnosis) == ["chaos"]
    assert 0.5 < diagnosis.rates[0] < 2.5
    assert "Evolution" in diagnosis.findings[0].remedy
    assert nestor.diagnose(wells, {"rate": 0.05}).healthy


def test_a_steep_start_is_no_chaos():
    """Recorded losses enter at every step: the derivative grows on the way back, and nothing is wrong."""

    def objective(rate):
        run = nestor.train(lambda x, _: jnp.sum(x**2), jnp.ones(2), None, optimizer=SGD(rate), steps=40)
        return jnp.mean(run.history.loss)

    diagnosis = nestor.diagnose(objective, 0.2)
    assert diagnosis.healthy, str(diagnosis)
    assert diagnosis.adjoint_norms[0][0] > 1e3 * diagnosis.adjoint_norms[0][38]
    np.testing.assert_allclose(diagnosis.rates[0], np.log(0.6), rtol=1e-6)


def test_chaos_that_overflows():
    with jax.enable_x64(False):
        diagnosis = nestor.diagnose(lambda h: wells(h, steps=120), {"rate": jnp.float32(0.9)})
    assert set(kinds(diagnosis)) == {"not finite", "chaos"}
    assert "overflowed" in diagnosis.findings[0].text


@pytest.mark.slow
def test_truncation_bias():
    diagnosis = nestor.diagnose(lambda h: regression(h, nestor.Truncate(2), steps=20), hyper(0.02))
    assert kinds(diagnosis) == ["truncation bias"]
    assert "4 steps differentiated instead of 2" in diagnosis.findings[0].text
    assert nestor.diagnose(lambda h: regression(h, nestor.Truncate(20), steps=20), hyper(0.02)).healthy


@pytest.mark.slow
def test_an_implicit_derivative_of_a_run_that_has_not_converged():
    def objective(decay, steps):
        return regression({"decay": decay, "rate": 0.02}, nestor.Implicit(), steps)

    early = nestor.diagnose(lambda decay: objective(decay, 30), -1.0)
    assert kinds(early) == ["not converged"]
    assert "twice as many steps" in early.findings[0].text
    assert nestor.diagnose(lambda decay: objective(decay, 600), -1.0).healthy


@pytest.mark.slow
def test_implicit_derivatives_in_rates_are_zero_and_the_doctor_says_why():
    diagnosis = nestor.diagnose(lambda h: regression(h, nestor.Implicit(), 100), hyper())
    zero = next(f for f in diagnosis.findings if f.kind == "zero gradient")
    assert zero.where == "['rate']"
    assert "Implicit() sees only" in zero.remedy


def test_a_run_that_diverges():
    """Also where nothing is differentiated, so that `train` raises."""
    for objective in (regression, lambda h: h["rate"] + regression(hyper(1e30))):
        diagnosis = nestor.diagnose(objective, hyper(1e30))
        assert kinds(diagnosis)[0] == "diverged"
        assert "step" in diagnosis.findings[0].where


def test_a_value_that_is_nan_without_a_run():
    finding = nestor.diagnose(lambda x: jnp.log(x), -1.0).findings[0]
    assert (finding.kind, finding.where) == ("diverged", "the objective")


def test_what_was_compiled_before_is_seen_and_stays_as_it_was():
    objective = jax.jit(jax.grad(lambda h: regression(h, steps=10)))
    before = objective(hyper())
    inner = jax.jit(lambda h: regression(h, steps=10))
    inner(hyper())
    diagnosis = nestor.diagnose(lambda h: inner(h), hyper())
    assert len(diagnosis.adjoint_norms) == 1
    assert np.isfinite(diagnosis.adjoint_norms[0]).all()
    after = objective(hyper())
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert "callback" not in inner.lower(hyper()).as_text()


def test_runs_in_a_batch_and_runs_that_stop_early():
    def objective(rate):
        def one(start):
            run = nestor.train(
                lambda x, _: jnp.sum(x**2), start, None, optimizer=SGD(rate), steps=20, stagnation=3
            )
            return jnp.sum(run.params)

        return jnp.sum(jax.vmap(one)(jnp.array([[1.0, 2.0], [3.0, 4.0]])))

    diagnosis = nestor.diagnose(objective, 0.1)
    assert diagnosis.healthy, str(diagnosis)
    assert np.isfinite(diagnosis.adjoint_norms[0]).all()


def test_optax_too():
    def objective(rate):
        run = nestor.train(lambda x, _: jnp.sum(x**2), jnp.ones(3), None, optimizer=optax.adam(rate), steps=5)
        return jnp.sum(run.params**2)

    assert nestor.diagnose(objective, 0.1).healthy


def test_the_report_and_the_picture():
    diagnosis = nestor.diagnose(wells, {"rate": 0.9})
    text = str(diagnosis)
    assert "1. chaos, run 0" in text
    assert "Do this:" in text
    axes = plots.adjoint_norms(diagnosis).axes[0]
    assert axes.get_yscale() == "log"
    with pytest.raises(nestor.BadArgument, match="without a run"):
        plots.adjoint_norms(nestor.diagnose(lambda x: x**2, 1.0))


def test_wrong_arguments():
    with pytest.raises(nestor.BadArgument, match="objective"):
        nestor.diagnose(3.0, 1.0)
    with pytest.raises(nestor.BadArgument, match="floating"):
        nestor.diagnose(lambda x: x, jnp.arange(3))
    with pytest.raises(nestor.BadArgument, match="one floating-point number"):
        nestor.diagnose(lambda x: x, jnp.ones(3))
