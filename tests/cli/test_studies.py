"""`nestor tune`, `nestor worker` and `nestor study` as they are typed."""

import json
import signal
import subprocess
import sys

import pytest

from nestor import search
from nestor.search import TrialState
from tests.cli.test_cli import ctrl_c, typed

OBJECTIVES = """
import time

def objective(trial):
    return trial.suggest_float("x", -1, 1) ** 2 + float(trial.suggest_array("w", 2, 0, 1).sum())

def slow(trial):
    time.sleep(0.05)
    return objective(trial)

def two(trial):
    return trial.suggest_float("x", 0, 1), float("inf")

def wrong(trial):
    raise ValueError("no such thing")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with objectives in a module of its own name, and NESTOR_STORAGE."""
    module = f"train_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(OBJECTIVES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NESTOR_STORAGE", "s.db")
    monkeypatch.setattr(sys, "path", sys.path[:])
    return module


def test_a_study_is_made_run_gone_on_with_looked_at_and_deleted(capsys, place):
    status, out, _ = typed(
        capsys, "study", "create", "mine", "--sampler", "random", "--seed", "3", "--total", "4"
    )
    assert (status, out) == (0, "mine\n")
    status, out, err = typed(capsys, "worker", "--study", "mine", f"{place}.py")
    assert (status, out) == (0, "")
    assert "4/4 trials" in err
    status, out, _ = typed(capsys, "tune", f"{place}.py", "--study", "mine", "--trials", "2", "--quiet")
    assert status == 0
    assert out.startswith("best")
    study = search.load_study(storage="s.db")
    alone = search.create_study(sampler=search.RandomSampler(seed=3))
    alone.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=6)
    assert [trial.params["x"] for trial in study.trials] == [trial.params["x"] for trial in alone.trials]
    status, out, _ = typed(capsys, "study", "list", "--json")
    assert [(row["study"], row["complete"], row["best"]) for row in json.loads(out)] == [
        ("mine", 6, study.best_value)
    ]
    status, out, _ = typed(capsys, "study", "show")
    assert "6 (6 complete)" in out
    status, out, _ = typed(capsys, "study", "best", "--json")
    assert json.loads(out)["number"] == study.best_trial.number
    status, out, _ = typed(capsys, "study", "export", "--csv")
    assert out.splitlines()[0] == "number,state,value,started,ended,params_x,params_w,error"
    assert len(out.splitlines()) == 7
    assert typed(capsys, "study", "export", "--out", "s.jsonl")[0] == 0
    status, out, _ = typed(capsys, "study", "import", "s.jsonl", "--study", "again")
    assert (status, out) == (0, "study 'again' with 6 trials\n")
    assert typed(capsys, "study", "delete", "mine", "--yes")[0] == 0
    assert search.study_names("s.db") == ["again"]


def test_what_a_new_study_is_run_with_is_noted(capsys, place):
    typed(capsys, "tune", f"{place}.py", "--trials", "1", "--seed", "5", "--quiet")
    assert search.load_study(storage="s.db").user_attrs["nestor"] == {"sampler": "portfolio", "seed": 5}
    typed(capsys, "tune", f"{place}.py", "--trials", "1", "--sampler", "tpe(n_startup=3)", "--quiet")
    assert search.load_study(storage="s.db").user_attrs["nestor"]["sampler"] == "portfolio"


def test_json_is_read_by_every_program(capsys, place):
    both = ("--direction", "minimize", "--direction", "maximize")
    assert typed(capsys, "tune", f"{place}.py:two", "--trials", "2", "--quiet", *both)[0] == 0
    _, out, _ = typed(capsys, "study", "best", "--json")
    assert "Infinity" not in out
    assert json.loads(out)[0]["values"][1] is None


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["study", "show", "--storage", "none.db"], ["--storage", "none.db"]),
        (["study", "show", "--last", "-1"], ["--last", "-1"]),
        (["study", "best", "nope"], ["'nope'", "no study here yet"]),
        (["worker", "FILE.py"], ["study_name", "no study here yet"]),
        (["tune", "FILE.py:objektive", "--trials", "1"], ["did you mean 'objective'"]),
        (["tune", "FILE.py", "--sampler", "tpee", "--trials", "1"], ["did you mean 'tpe'"]),
        (["tune", "FILE.py", "--storage", "FILE.py", "--trials", "1"], ["file is not a database"]),
        (["tune", "none.py", "--trials", "1"], ["none.py", "no file"]),
    ],
)
def test_a_wrong_word_is_named_with_a_remedy(capsys, place, words, parts):
    search.study_names(search.FileStorage("s.db"))
    status, out, err = typed(capsys, *(word.replace("FILE", place) for word in words))
    assert (status, out) == (2, "")
    for part in parts:
        assert part in err


def test_an_objective_that_raises_ends_the_command_and_is_shown(capsys, place):
    status, _, err = typed(capsys, "tune", f"{place}.py:wrong", "--trials", "2", "--quiet")
    assert status == 1
    assert "no such thing" in err
    assert "--catch ValueError" in err
    assert (
        typed(capsys, "tune", f"{place}.py:wrong", "--trials", "2", "--quiet", "--catch", "ValueError")[0]
        == 0
    )
    assert [trial.state for trial in search.load_study(storage="s.db").trials] == [TrialState.FAILED] * 3
    assert typed(capsys, "study", "best")[0] == 1


@ctrl_c
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_is_gone_on_with(capsys, place, sign):
    words = ["tune", f"{place}.py:slow", "--total", "12", "--sampler", "random", "--seed", "0"]
    running = subprocess.Popen([sys.executable, "-m", "nestor", *words], stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    running.stderr.readline()  # its first trial has ended
    running.send_signal(sign)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "goes on with study" in err
    study = search.load_study(storage="s.db")
    assert TrialState.RUNNING not in {trial.state for trial in study.trials}
    assert typed(capsys, *words, "--quiet")[0] == 0
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 12
