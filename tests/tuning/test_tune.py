"""`tune`: durable, repeatable, and as good as what it is made of."""

import jax.numpy as jnp
import numpy as np
import pytest

from nestor import search, tuning
from nestor.errors import BadArgument


def bowl(hyper):
    """Least at rate 0.01 and scale 0.3."""
    return (jnp.log10(hyper["rate"]) + 2) ** 2 + (hyper["scale"] - 0.3) ** 2


SPACE = {"rate": (1e-5, 1.0, "log"), "scale": (0.0, 1.0)}


def test_it_goes_on_where_it_was_interrupted(tmp_path):
    whole = tuning.tune(bowl, SPACE, n_trials=9, seed=1)
    for _ in range(2):  # the second call has nothing left to do
        for n_trials in (4, 9):
            parts = tuning.tune(
                bowl, SPACE, n_trials=n_trials, seed=1, storage=tmp_path / "s.db", study_name="mine"
            )
            assert len(parts.trials) >= n_trials
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]


def test_a_hundred_times_better_than_where_it_began():
    study = tuning.tune(bowl, SPACE, n_trials=12, seed=0, direction="minimize")
    mirrored = tuning.tune(lambda h: -bowl(h), SPACE, n_trials=12, seed=0, direction="maximize")
    assert study.best_value < 1e-4
    np.testing.assert_allclose(mirrored.best_value, -study.best_value, atol=1e-9)


def test_a_valley_is_followed():
    """Rosenbrock in two dimensions: a Gaussian process alone takes far longer."""
    study = tuning.tune(
        lambda h: 100 * (h["y"] - h["x"] ** 2) ** 2 + (1 - h["x"]) ** 2,
        {"x": (-2.0, 2.0), "y": (-1.0, 3.0)},
        n_trials=40,
        sampler=tuning.DescentSampler(other=search.RandomSampler(seed=0)),
    )
    assert study.best_value < 1e-3


def test_a_descent_for_each_choice():
    def two_bowls(hyper, picked):
        at = {"a": 0.2, "b": 0.7}[picked["kind"]]
        return jnp.sum((hyper - at) ** 2) + (0.1 if picked["kind"] == "a" else 0.0)

    study = tuning.tune(
        two_bowls,
        search.Array((3,), 0.0, 1.0),
        choices={"kind": search.Categorical(("a", "b"))},
        n_trials=24,
        sampler=tuning.DescentSampler(other=search.RandomSampler(seed=0)),
    )
    for kind, least in (("a", 0.1), ("b", 0.0)):
        assert min(t.value for t in study.trials if t.params["kind"] == kind) < least + 1e-3


def test_workers_in_order_share_a_descent():
    """In the ordered mode no two trials that do not know of each other take the same step."""
    posed = tuning.Differentiated(bowl, SPACE)
    study = search.create_study(sampler=tuning.DescentSampler(other=search.RandomSampler(seed=2)))
    study.optimize(posed, 16, ordered=3)
    points = {(t.params["rate"], t.params["scale"]) for t in study.trials}
    assert len(points) == 16
    assert study.best_value < 1e-2


def test_a_batch_is_not_sixteen_times_one_point():
    study = tuning.tune(
        bowl, SPACE, n_trials=32, batch=8, sampler=tuning.DescentSampler(other=search.RandomSampler(seed=2))
    )
    assert len({t.params["scale"] for t in study.trials}) == 32


def test_notes_are_kept():
    study = tuning.tune(lambda h: (bowl(h), {"rate": h["rate"]}), SPACE, noted=True, n_trials=2, seed=0)
    trial = study.trials[1]
    assert np.isclose(trial.user_attrs["notes"]["rate"], trial.params["rate"])


@pytest.mark.parametrize(
    "wrong",
    [{}, {"n_trials": 0}, {"n_trials": 4, "batch": 2, "refine": 3}, {"n_trials": 4, "refine": 0}],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(BadArgument):
        tuning.tune(bowl, SPACE, **wrong)


def test_a_mistake_in_the_objective_is_raised_and_a_numerical_failure_is_not():
    def failing(hyper):
        raise FloatingPointError("out of range")

    study = tuning.tune(failing, SPACE, n_trials=3, seed=0)
    assert [t.state.name for t in study.trials] == ["FAILED"] * 3
    assert "out of range" in study.trials[0].error
    with pytest.raises(AttributeError):
        tuning.tune(lambda h: h.rate, SPACE, n_trials=1, seed=0)


def test_choices_alone_in_a_batch():
    """A space that is empty, for all choices or for one of them."""

    def space(picked):
        return {"x": (0.0, 1.0)} if picked["kind"] == "a" else {}

    def objective(hyper, picked):
        return (hyper["x"] - 0.3) ** 2 if hyper else jnp.ones(()) * 0.5

    kinds = {"kind": search.Categorical(("a", "b"))}
    study = tuning.tune(objective, space, choices=kinds, n_trials=8, batch=4, seed=0)
    assert {trial.value == 0.5 for trial in study.trials if trial.params["kind"] == "b"} == {True}


def test_a_descent_does_not_begin_where_a_constraint_is_missed():
    """The least value misses it: the descent comes as near as it may."""

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraints([0.5 - x])
        trial.set_gradient({"x": 2 * x})
        return x * x

    study = search.create_study(sampler=tuning.DescentSampler(other=search.RandomSampler(seed=0)))
    study.optimize(objective, 20)
    assert 0.5 <= min(trial.params["x"] for trial in study.trials if trial.constraints[0] <= 0) < 0.56


def test_a_descent_beside_a_grid_ends_with_it():
    sampler = tuning.DescentSampler(other=search.GridSampler({"x": [0.1, 0.2]}))
    study = search.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1))
    assert [trial.params["x"] for trial in study.trials] == [0.1, 0.2]
