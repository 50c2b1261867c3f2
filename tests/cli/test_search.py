"""`nestor tune`, `nestor worker` and `nestor study` as they are typed."""

import csv
import io
import json
import signal
import subprocess
import sys
import time

import pytest

from nestor import search
from nestor.cli import _named
from nestor.errors import NestorError
from tests.cli.test_cli import ctrl_c, refused, typed

OBJECTIVES = """
import time

def objective(trial):
    x = trial.suggest_float("x", -5, 5)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    if x > 4:
        raise MemoryError("too large")
    return (x - 1) ** 2 + (kind == "b")

def slow(trial):
    time.sleep(0.05)
    return objective(trial)

def two(trial):
    x = trial.suggest_float("x", 0, 1)
    return x, 1 - x

class Middle:
    def __call__(self, asked, name, domain):
        return 0.5
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a file of objectives, whose name no other test has."""
    stem = f"objectives_{abs(hash(tmp_path)) % 10**8}"
    (tmp_path / f"{stem}.py").write_text(OBJECTIVES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("NESTOR_STORAGE", raising=False)
    return f"{stem}.py"


@pytest.mark.parametrize(
    "words",
    ["tune", "worker", "study", *(f"study {job}" for job in ("create", "list", "show", "best", "import"))],
)
def test_help_says_what_can_be_typed(capsys, words):
    status, out, err = typed(capsys, *words.split(), "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: nestor {words}")
    assert "--storage" in out or words == "study"


def test_a_study_from_making_to_deleting(capsys, place, tmp_path):
    words = ["--storage", "s.db", "--sampler", "tpe(n_startup=5)", "--seed", "3", "--total", "12"]
    assert typed(capsys, "study", "create", "mine", *words)[:2] == (0, "mine\n")
    status, out, err = typed(
        capsys, "worker", "--study", "mine", "--storage", "s.db", place, "--catch", "MemoryError"
    )
    assert (status, out) == (0, "")
    assert "12/12 trials" in err
    again = search.create_study(sampler=search.TPESampler(seed=3, n_startup=5))
    module = _named.objective_of(place, "nestor tune")[0]
    again.optimize(module, n_trials=12, catch=MemoryError)
    study = search.load_study(storage="s.db")
    assert [trial.params for trial in study.trials] == [trial.params for trial in again.trials]

    status, out, _ = typed(capsys, "study", "list", "--storage", "s.db")
    assert status == 0
    assert "mine" in out
    assert f"{study.best_value:.6g}" in out
    _, out, _ = typed(capsys, "study", "show", "--storage", "s.db", "--last", "3")
    for part in ("mine", "12 (", "sampler tpe(n_startup=5)", "best", "the last trials:", "\n11 "):
        assert part in out
    best = json.loads(typed(capsys, "study", "best", "--storage", "s.db", "--json")[1])
    assert best["params"] == study.best_params
    assert json.loads(typed(capsys, "study", "show", "--storage", "s.db", "--json")[1])["trials"] == 12

    rows = list(
        csv.DictReader(io.StringIO(typed(capsys, "study", "export", "--storage", "s.db", "--csv")[1]))
    )
    assert [row["params_x"] for row in rows] == [str(trial.params["x"]) for trial in study.trials]
    assert typed(capsys, "study", "export", "mine", "--storage", "s.db", "--out", "mine.jsonl")[0] == 0
    assert typed(capsys, "study", "import", "mine.jsonl", "--storage", "t.db", "--study", "other")[0] == 0
    assert search.load_study(storage="t.db").best_value == study.best_value
    assert search.study_names("t.db") == ["other"]
    assert typed(capsys, "study", "delete", "--storage", "s.db", "--yes")[0] == 0
    assert search.study_names("s.db") == []
    assert typed(capsys, "study", "list", "--storage", "s.db")[1] == "no studies\n"


def test_tuning_and_going_on(capsys, place):
    words = ["tune", place, "--storage", "s.db", "--catch", "MemoryError"]
    status, out, err = typed(capsys, *words, "--trials", "5")
    assert status == 0
    assert out.startswith("best ")
    assert "  kind" in out
    assert "5/5 trials" in err
    seed = search.load_study(storage="s.db").user_attrs["nestor"]["seed"]
    assert typed(capsys, *words, "--total", "8", "--quiet")[0::2] == (0, "")
    study = search.load_study(storage="s.db")
    assert len(study.trials) == 8
    whole = search.create_study(sampler=search.TPESampler(seed=seed))
    whole.optimize(_named.objective_of(place, "nestor tune")[0], n_trials=8, catch=MemoryError)
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]


def test_several_objectives_and_a_sampler_of_ones_own(capsys, place, monkeypatch):
    monkeypatch.setenv("NESTOR_STORAGE", "env.db")
    goals = ["--direction", "minimize", "--direction", "maximize"]
    words = ["tune", f"{place}:two", *goals, "--sampler", f"{place}:Middle", "--trials", "2", "--quiet"]
    assert typed(capsys, *words)[0] == 0
    study = search.load_study(storage="env.db")
    assert study.trials[0].values == (0.5, 0.5)
    assert "0.5, 0.5" in typed(capsys, "study", "best")[1]


def test_an_error_of_the_objective_says_what_to_do(capsys, place):
    status, _, err = typed(
        capsys, "tune", place, "--storage", "s.db", "--trials", "99", "--sampler", "random", "--seed", "0"
    )
    assert status == 1
    assert 'raise MemoryError("too large")' in err
    assert "--catch MemoryError" in err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["tune"], ("FILE.py:FUNCTION", "nestor tune --help")),
        (["tune", "none.py", "--trials", "1"], ("none.py", "no file")),
        (["tune", "no_module_of_this_name:f", "--trials", "1"], ("no_module_of_this_name",)),
        (["tune", "FILE:objectve", "--trials", "1"], ("objectve", "did you mean 'objective'")),
        (["tune", "FILE:OBJ", "--trials", "0"], ("--trials", "'0'")),
        (["tune", "FILE", "--sampler", "tpf"], ("--sampler", "did you mean 'tpe'")),
        (["tune", "FILE", "--sampler", "tpe(depth=3)"], ("--sampler", "depth", "n_startup")),
        (["tune", "FILE", "--sampler", "tpe(("], ("--sampler", "quote it")),
        (["tune", "FILE", "--pruner", "medium"], ("--pruner", "did you mean 'median'")),
        (["tune", "FILE", "--catch", "MemoryErr"], ("--catch", "MemoryErr")),
        (["tune", "FILE", "--trails", "3"], ("--trails", "did you mean '--trials'")),
        (["tune", "FILE", "--timeout", "soon"], ("--timeout", "'soon'")),
        (["study", "shaw"], ("shaw", "did you mean 'show'")),
        (["study", "show"], ("--storage", "NESTOR_STORAGE")),
        (["study", "show", "--storage", "typo.db"], ("typo.db", "check the path")),
        (["study", "create", "--storage", "htp://me:secret@host"], ("htp://me:***@host",)),
        (["study", "delete", "one", "two", "--storage", "s.db"], ("two", "nestor study delete --help")),
        (["worker", "FILE", "--storage", "typo.db"], ("typo.db",)),
    ],
)
def test_wrong_use_is_answered_in_two_lines(capsys, place, words, parts):
    words = [word.replace("FILE", place) for word in words]
    refused(capsys, words, parts)


def test_a_file_that_cannot_be_imported_says_why(place, tmp_path):
    (tmp_path / "broken_objective.py").write_text("import json\n1 / 0\n")
    with pytest.raises(
        NestorError, match=r"broken_objective.py could not be imported:\n(.|\n)*ZeroDivisionError"
    ):
        _named.objective_of("broken_objective.py", "nestor tune")
    (tmp_path / "json.py").write_text("def objective(trial): return 0.0")
    with pytest.raises(NestorError, match="rename the file"):
        _named.objective_of("json.py", "nestor tune")


@ctrl_c
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_it_in_good_order_and_the_same_command_goes_on(place, workers):
    command = [sys.executable, "-m", "nestor", "tune", f"{place}:slow", "--storage", "s.db", "--total", "60"]
    command += ["--workers", workers, "--seed", "1", "--catch", "MemoryError", "--quiet"]
    tune = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    began = time.monotonic()
    try:
        while not (search.study_names("s.db") and len(search.load_study(storage="s.db").trials) > 4):
            assert time.monotonic() - began < 60, tune.poll()
            time.sleep(0.05)
        tune.send_signal(signal.SIGINT)
        out, err = tune.communicate(timeout=60)
    finally:
        tune.kill()
    assert tune.returncode == 130, err
    assert err.splitlines() == [
        f"nestor tune: interrupted; the same command goes on with study '{place.removesuffix('.py')}'"
    ]
    assert out.startswith("best ")
    study = search.load_study(storage="s.db")
    assert not len(study.trials_with(search.TrialState.RUNNING))
    assert len(study.trials) < 60


def test_these_commands_start_without_jax(place):
    words = f"['tune', '{place}', '--storage', 's.db', '--trials', '12', '--quiet', '--catch', 'MemoryError']"
    code = f"import sys; from nestor.cli import main; main({words}); main(['study', 'list', '--storage', 's.db'])"
    code += "; print([name for name in ('jax', 'scipy', 'pandas', 'sqlalchemy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
