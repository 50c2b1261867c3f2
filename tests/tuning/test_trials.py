"""Trials that carry gradients: the gradient is the one told, in the parameter's units, and failures say why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nestor import search, tuning
from nestor.errors import BadArgument

SPACE = {"rate": (1e-4, 1.0, "log"), "layer": {"w": search.Array((2, 2), -1.0, 1.0), "b": (0.0, 2.0)}}


def smooth(hyper):
    """A function with a known gradient."""
    layer = hyper["layer"]
    return jnp.log(hyper["rate"]) ** 2 + jnp.sum(layer["w"] ** 3) + jnp.exp(layer["b"])


def quadratic(hyper, picked):
    """Better with kind "b"; its least point depends on the kind."""
    at = {"a": 0.2, "b": 0.7}[picked["kind"]]
    return (hyper - at) ** 2 + (0.5 if picked["kind"] == "a" else 0.0)


KINDS = {"kind": search.Categorical(("a", "b"))}


def ran(posed, n_trials, **options):
    study = search.create_study(sampler=search.RandomSampler(seed=3))
    study.optimize(posed, n_trials, **options)
    return study


@pytest.mark.parametrize("batch", [None, 3])
def test_the_gradient_told_is_the_closed_form(batch):
    posed = (
        tuning.Differentiated(smooth, SPACE)
        if batch is None
        else tuning.Batched(smooth, SPACE, gradient=True)
    )
    for trial in ran(posed, 4, batch=batch).trials:
        rate, w, b = (trial.params[name] for name in ("rate", "layer.w", "layer.b"))
        assert np.isclose(trial.value, np.log(rate) ** 2 + np.sum(w**3) + np.exp(b), rtol=1e-12)
        assert np.isclose(trial.gradient["rate"], 2 * np.log(rate) / rate, rtol=1e-12)
        np.testing.assert_allclose(trial.gradient["layer.w"], 3 * w**2, rtol=1e-12)
        assert np.isclose(trial.gradient["layer.b"], np.exp(b), rtol=1e-12)


def test_a_batch_is_the_trials_one_by_one():
    alone = ran(tuning.Differentiated(quadratic, (0.0, 1.0), KINDS), 7)
    batched = ran(tuning.Batched(quadratic, (0.0, 1.0), KINDS, gradient=True), 7, batch=5)
    assert [t.params for t in alone.trials] == [t.params for t in batched.trials]
    np.testing.assert_allclose([t.value for t in alone.trials], [t.value for t in batched.trials], rtol=1e-14)


def test_one_program_for_each_combination_of_choices():
    traces = []

    def counted(hyper, picked):
        traces.append(picked["kind"])
        return quadratic(hyper, picked)

    ran(tuning.Differentiated(counted, (0.0, 1.0), KINDS), 12)
    assert sorted(traces) == ["a", "b"]


def test_a_space_may_depend_on_the_choices():
    def space(picked):
        return {"deep": (0.0, 1.0)} if picked["kind"] == "a" else {"wide": (1.0, 2.0), "high": (2.0, 3.0)}

    posed = tuning.Batched(lambda hyper, picked: sum(hyper.values()), space, KINDS)
    study = ran(posed, 12, batch=6)
    forms = {trial.params["kind"]: set(trial.params) - {"kind"} for trial in study.trials}
    assert forms == {"a": {"deep"}, "b": {"wide", "high"}}
    assert all(np.isclose(t.value, sum(v for k, v in t.params.items() if k != "kind")) for t in study.trials)


@pytest.mark.parametrize("batch", [None, 4])
def test_a_value_that_is_not_finite_fails_the_trial_and_says_so(batch):
    def broken(hyper):
        return jnp.where(hyper > 0.5, jnp.inf, hyper)

    posed = tuning.Differentiated(broken, (0.0, 1.0)) if batch is None else tuning.Batched(broken, (0.0, 1.0))
    for trial in ran(posed, 8, batch=batch).trials:
        failed = trial.params["x"] > 0.5
        assert (trial.state == search.TrialState.FAILED) == failed
        assert not failed or "value is inf" in trial.error


def test_an_unknown_slope_is_left_out():
    posed = tuning.Differentiated(lambda h: jnp.sqrt(h["x"]) * 0 + h["y"], {"x": (0.0, 0.0), "y": (0.0, 1.0)})
    assert list(ran(posed, 1).trials[0].gradient) == ["y"]


def test_a_descent_in_a_trial_moves_it_and_the_study_remembers_where_to():
    posed = tuning.Differentiated(smooth, SPACE, refine=12)
    study = search.create_study(sampler=search.RandomSampler(seed=0), storage=None)
    study.optimize(posed, 1)
    trial = study.trials[0]
    reports = [trial.reports[step] for step in sorted(trial.reports)]
    assert reports == sorted(reports, reverse=True)
    assert trial.value == reports[-1] < reports[0]
    hyper = {"rate": trial.params["rate"], "layer": {k: trial.params[f"layer.{k}"] for k in ("w", "b")}}
    value, gradient = jax.value_and_grad(smooth)(jax.tree.map(jnp.asarray, hyper))
    assert np.isclose(value, trial.value, rtol=1e-12)
    np.testing.assert_allclose(gradient["layer"]["w"], trial.gradient["layer.w"], rtol=1e-9)


def test_a_descent_can_be_pruned():
    posed = tuning.Differentiated(quadratic, (0.0, 1.0), KINDS, refine=4)
    study = search.create_study(
        sampler=search.RandomSampler(seed=0), pruner=search.ThresholdPruner(upper=0.4)
    )
    study.optimize(posed, 8)
    states = {trial.params["kind"]: trial.state.name for trial in study.trials}
    assert states == {"a": "PRUNED", "b": "COMPLETE"}


@pytest.mark.parametrize(
    ("space", "choices"),
    [
        ({"n": search.Int(1, 3)}, None),
        ({"x": search.Float(0.0, 1.0, step=0.1)}, None),
        ({"x": "wide"}, None),
    ],
)
def test_a_space_that_cannot_be_differentiated_is_refused(space, choices):
    with pytest.raises(BadArgument, match="choices"):
        tuning.Differentiated(smooth, space, choices)


def test_a_name_is_used_once():
    posed = tuning.Differentiated(lambda h, p: h["kind"], {"kind": (0.0, 1.0)}, KINDS)
    with pytest.raises(BadArgument, match="rename"):
        ran(posed, 1)
