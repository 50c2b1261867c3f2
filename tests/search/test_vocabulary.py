"""Words that users of Optuna expect: stop, names of objectives, notes of programs, trials that are given."""

import contextlib
import dataclasses
import math
import sqlite3

import pytest

from nestor import search
from nestor.errors import BadArgument, NestorError
from nestor.search._sql import shown


def square(trial):
    return trial.suggest_float("x", -1, 1) ** 2


def test_a_callback_stops_and_the_next_call_goes_on(storage):
    study = search.create_study(storage=storage)
    study.optimize(square, n_trials=50, callbacks=[lambda study, trial: trial.number == 2 and study.stop()])
    assert len(study.trials) == 3
    study.optimize(square, n_trials=2)
    assert len(study.trials) == 5


def test_at_most_so_many_of_some_states(storage):
    study = search.create_study(storage=storage)

    def odd_ones_fail(trial):
        if trial.number % 2:
            raise MemoryError
        return square(trial)

    study.optimize(odd_ones_fail, catch=MemoryError, callbacks=[search.MaxTrialsCallback(3)])
    assert len(study.trials) == 5
    study.optimize(square, callbacks=[search.MaxTrialsCallback(7, states=None)])
    assert len(study.trials) == 7
    with pytest.raises(BadArgument, match="n_trials"):
        search.MaxTrialsCallback(0)


def test_objectives_have_names(storage):
    study = search.create_study(storage=storage, directions=["minimize", "maximize"], study_name="named")
    assert study.metric_names is None
    study.set_metric_names(["loss", "speed"])
    assert search.load_study(storage=storage, study_name="named").metric_names == ["loss", "speed"]
    with pytest.raises(BadArgument, match="2 names"):
        study.set_metric_names(["loss"])


def test_what_is_there_is_not_enqueued_again(storage):
    study = search.create_study(storage=storage)
    for given in ({"x": 0.5}, {"x": math.nan}, {"w": [1.0, 2.0]}):
        for _ in range(2):
            study.enqueue_trial(given, skip_if_exists=True)
    assert len(study.trials) == 3
    study.enqueue_trial({"x": 0.5})
    study = search.create_study()
    study.optimize(square, n_trials=3)
    study.enqueue_trial(study.trials[1].params, skip_if_exists=True)
    assert len(study.trials) == 3
    study.enqueue_trial({**study.trials[1].params, "y": 1}, skip_if_exists=True)
    assert len(study.trials) == 4


def test_records_keep_everything(storage, tmp_path):
    """Through a storage, a file of JSON lines and a copy."""
    domains = {"x": search.Float(0, 1, step=0.1), "n": search.Int(1, 9, log=True)}
    made = search.create_trial(
        params={"x": 0.5, "n": 3},
        domains=domains,
        state=search.TrialState.PRUNED,
        user_attrs={"a": [1, {"b": None}]},
        system_attrs={"c": "d"},
        reports={0: 3.0, 5: math.inf},
        constraints=(0.5, -1.0),
    )
    study = search.create_study(storage=storage, study_name="kept")
    study.add_trial(made)
    study.enqueue_trial({})
    study.export(tmp_path / "kept.jsonl")
    again = search.import_study(tmp_path / "kept.jsonl", storage=storage, study_name="again")
    copy = search.copy_study(
        from_study_name="again", from_storage=storage, to_storage=storage, to_study_name="c"
    )
    for one in (study, again, copy):
        assert dataclasses.replace(one.trials[0], attempt=0) == made  # it has no value, whatever it reported
        assert one.trials[1].state == search.TrialState.WAITING
    assert list(search.Register(storage).studies()) == [0, 1, 2]


def test_constraints_have_names(storage):
    study = search.create_study(storage=storage)
    trial = study.ask()
    trial.set_constraint("memory", 0.5)
    trial.set_constraint("latency", -1)
    trial.set_constraint("memory", 0.25)
    study.tell(trial, square(trial))
    assert study.trials[0].constraints == (0.25, -1.0)
    assert study.trials[0].system_attrs == {"constraints:memory": 0.25, "constraints:latency": -1.0}
    with pytest.raises(BadArgument, match="a number"):
        study.ask().set_constraint("memory", math.nan)


def test_a_record_is_checked():
    domains = {"x": search.Float(0, 1)}
    with pytest.raises(BadArgument, match="complete trial"):
        search.create_trial(params={"x": 0.5}, domains=domains)
    with pytest.raises(BadArgument, match="x=2"):
        search.create_trial(params={"x": 2}, domains=domains, value=1.0)
    with pytest.raises(BadArgument, match="with 'x'"):
        search.create_trial(params={"x": 0.5}, value=1.0)
    with pytest.raises(BadArgument, match="both"):
        search.create_trial(value=1.0, values=[1.0])


def test_a_given_trial_needs_all_its_parameters():
    assert square(search.fixed_trial({"x": 0.5})) == 0.25
    with pytest.raises(BadArgument, match="'x' too"):
        square(search.fixed_trial({}))


@pytest.mark.parametrize(
    ("low", "high", "step", "last"),
    [(-10.2, 10.2, 0.1, 10.2), (0.0, 1.0, 0.3, 0.9), (0.1, 0.8, 0.7, 0.8), (0, 0.7999999999999999, 0.1, 0.8)],
)
def test_steps_are_decimal(low, high, step, last):
    domain = search.Float(low, high, step=step)
    assert domain.high == last
    assert search.Float(low, domain.high, step=step) == domain
    assert domain.from_unit(1.0) == pytest.approx(last, rel=1e-15)


def test_a_database_of_another_program_is_left_alone(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(NestorError, match="another program"):
        search.create_study(storage=tmp_path / "other.db")


def test_a_url_is_shown_without_its_password():
    """Wherever it stands in it."""
    for url in ("postgresql://me:secret@host/db", "postgresql:///db?user=me&password=secret&port=1"):
        assert "secret" not in shown(url)
        assert "db" in shown(url)
    assert shown("postgresql:///db?user=me&password=secret&port=1").endswith("?user=me&password=***&port=1")
