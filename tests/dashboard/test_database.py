"""The dashboard over a database: `make test-servers` gives it one."""

import json
import os

import pytest

from nestor import search

pytestmark = pytest.mark.skipif(
    "NESTOR_TEST_DATABASE" not in os.environ, reason="needs a database: make test-servers"
)


def test_it_follows_a_study_in_a_database(serving):
    url = os.environ["NESTOR_TEST_DATABASE"]
    name = f"dashboard {os.getpid()}"
    study = search.create_study(storage=url, study_name=name, sampler=search.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    served = serving(url)
    listed = served.ask("studies")
    assert name in [one["name"] for one in listed["studies"]]
    assert "@" not in listed["storage"]  # nor name nor password
    told = served.ask("changes", study=name, after=0)
    assert [row[0] for row in told["trials"]] == [0, 1, 2, 3, 4]
    assert served.ask("changes", study=name, after=told["place"]) == {"place": told["place"]}
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    told = served.ask("changes", study=name, after=told["place"])
    assert [row[0] for row in told["trials"]] == [5, 6]
    assert served.ask("summary", study=name)["best"]["values"] == [study.best_value]
    search.delete_study(study_name=name, storage=url)
    status, _, content = served.get("api/changes", study=name, after=0)
    assert (status, "no study" in json.loads(content)["error"]) == (404, True)
