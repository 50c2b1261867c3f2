"""`nestor demo search`: what it prints and writes."""

import json
from pathlib import Path

import pytest

from nestor import search
from nestor.cli import _search, _search_demo
from tests.cli.test_cli import nestor as command


@pytest.mark.slow
def test_the_demo_searches_and_records_it(tmp_path: Path):
    done = command("demo", "search", "--steps", "64", "--out", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    for part in (_search_demo.OURS, _search_demo.RIVAL, _search_demo.SMALL, "test images", "Wrote"):
        assert part in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search.json", "search.png"]
    record = json.loads((tmp_path / "search.json").read_text())
    assert record["interrupted"] is False
    studies = record["studies"]
    assert studies[_search_demo.RIVAL]["runs"] == list(range(1, 65))
    assert studies[_search_demo.OURS]["runs"][-1] >= 64
    assert all(
        study["validation_loss"] == pytest.approx(study["best_validation_loss"][-1])
        for study in studies.values()
    )
    assert set(studies[_search_demo.OURS]["picked"]) == set(_search.CHOICES)


def test_a_curve_says_when_a_loss_was_reached():
    curve = _search.Curve(_search.np.array([4, 8, 12]), _search.np.array([0.5, 0.3, 0.3]))
    assert curve.runs_to(0.3) == 8
    assert curve.runs_to(0.2) == float("inf")


def test_a_first_trial_that_fails_is_shown_and_counted():
    """The demo's bar has no best value yet."""
    study = search.create_study(sampler=search.RandomSampler(seed=0))
    study.tell(study.ask(), float("nan"))
    with _search_demo._Progress("searched", 2, quiet=True) as told:
        told(study, study.trials[0])
    assert _search.runs_of(study.trials[0]) == 1
    trial = study.ask()
    trial.set_user_attr("evaluations", 3)
    study.tell(trial, 1.0)
    assert _search.runs_of(study.trials[1]) == 3 * _search.RUNS
