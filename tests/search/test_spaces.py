"""Domains: the values they hold, and their places in the unit interval and back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nestor
from nestor.search import Array, Categorical, Float, Int, RandomSampler, create_study
from nestor.search._spaces import domain_from_json

DOMAINS = [
    Float(-2.0, 3.0),
    Float(1e-5, 10.0, log=True),
    Float(0.0, 1.0, step=0.25),
    Float(2.0, 2.0),
    Int(-3, 9),
    Int(0, 10, step=3),
    Int(1, 1000, log=True),
    Int(5, 5),
    Categorical(("a", None, 1, 1.5, True)),
]


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(DOMAINS), st.floats(0, 1))
def test_a_place_and_back(domain, place):
    value = domain.from_unit(place)
    assert domain.contains(value)
    assert domain.decode(domain.encode(value)) == value or domain.decode(domain.encode(value)) is value
    again = float(domain.to_unit(np.array(domain.encode(value))))
    assert 0 <= again <= 1
    if domain.count is None:
        assert again == pytest.approx(place, abs=1e-9)
    else:
        assert domain.from_unit(again) == value


@pytest.mark.parametrize("domain", [*DOMAINS, Array((2, 3), 0.1, 4.0, log=True)], ids=str)
def test_a_domain_survives_json(domain):
    again = domain_from_json(json.loads(json.dumps(domain.as_json())))
    assert again == domain
    assert hash(again) == hash(domain)


def test_every_whole_number_is_reached_equally():
    counts = np.bincount([Int(0, 4).from_unit(place) for place in np.linspace(0, 1, 5001)[:-1]])
    assert counts.tolist() == [1000] * 5


def test_one_and_true_are_two_choices():
    domain = Categorical((1, True, 1.0))
    assert [domain.encode(value) for value in (1, True, 1.0)] == [0.0, 1.0, 2.0]
    assert Categorical((1,)) != Categorical((True,))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Float(1, 0),
        lambda: Float(0, 1, log=True),
        lambda: Float(0, float("inf")),
        lambda: Float(0, 1, step=-1),
        lambda: Int(0, 2**60),
        lambda: Int(1, 4, log=True, step=2),
        lambda: Int(0.5, 2),
        lambda: Categorical(()),
        lambda: Categorical(([1],)),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(make):
    with pytest.raises(nestor.BadArgument):
        make()


def test_an_array_is_one_parameter():
    study = create_study(sampler=RandomSampler(seed=0))
    array = study.ask().suggest_array("w", (100, 100), -1.0, 1.0)
    assert array.shape == (100, 100)
    assert array.min() < -0.99 < 0.99 < array.max()
    assert (study.trials[0].params["w"] == array).all()


def test_a_name_keeps_its_kind():
    study = create_study()
    study.ask().suggest_float("x", 0, 1)
    with pytest.raises(nestor.BadArgument, match="one kind"):
        study.ask().suggest_int("x", 0, 1)


def test_numbers_of_numpy_are_choices_and_the_study_goes_on(tmp_path):
    """In a file they are Python's numbers; the same line of a later program means the same choices."""
    for _ in range(2):
        study = create_study(storage=tmp_path / "study.db", study_name="s", load_if_exists=True)
        trial = study.ask()
        assert type(trial.suggest_categorical("rate", list(np.logspace(-3, 0, 4)))) is float
        assert type(trial.suggest_categorical("width", np.arange(8, 10))) is int
        assert trial.suggest_categorical("deep", [np.bool_(True)]) is True


def test_a_domain_that_is_read_again_is_the_same_object():
    written = [["float", 0.0, 1.0, False, None], ["int", 0, 4, False, 2], ["categorical", "a", None, 2]]
    for one in written:
        assert domain_from_json(one) is domain_from_json(json.loads(json.dumps(one)))
    alike = [Categorical((one,)) for one in (1, 1.0, True, 0.0, -0.0)]
    assert len(set(alike)) == 5
    assert [domain_from_json(one.as_json()) for one in alike] == alike
