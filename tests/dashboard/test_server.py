"""What the server tells: the same as the study, only what changed, and nothing that can be written."""

import doctest
import inspect
import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest

from nestor import dashboard, search
from nestor.cli import main
from nestor.errors import BadArgument
from nestor.search import TrialState

SPECIAL = '<img src=x onerror="window.broken=1">'


def rich(trial: search.Trial) -> float:
    """Every kind of parameter, of end, and of note."""
    x = trial.suggest_float("x", -2, 2)
    kind = trial.suggest_categorical("kind", ["a", None, 3])
    if kind == "a":
        trial.suggest_float("rate", 1e-4, 1, log=True)
    trial.suggest_array("few", (2,), 0, 1)
    trial.suggest_array("many", (3, 4), 0, 1)
    trial.set_user_attr(SPECIAL, SPECIAL)
    trial.set_user_attr("odd", [math.inf, math.nan, {"deep": -math.inf}])
    for step in range(3):
        trial.report(math.nan if trial.number == 5 else x + step, step)
    if trial.number == 2:
        raise ValueError(SPECIAL)
    if trial.number == 3:
        raise search.TrialPruned("enough")
    trial.set_constraints([x - 1.5])
    return x**2 if trial.number != 4 else math.inf


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def study(path):
    study = search.create_study(storage=path, study_name=SPECIAL, sampler=search.RandomSampler(seed=0))
    study.optimize(rich, n_trials=8, catch=ValueError)
    study.set_user_attr("data", "digits")
    return study


def test_it_tells_what_the_study_holds(serving, path, study):
    served = serving(path)
    (listed,) = served.ask("studies")["studies"]
    assert (listed["name"], listed["directions"]) == (SPECIAL, ["minimize"])
    summary = served.ask("summary", study=SPECIAL)
    assert summary["best"] == {"number": study.best_trial.number, "values": [study.best_value]}
    assert summary["states"] == {"COMPLETE": 6, "PRUNED": 1, "FAILED": 1}
    assert summary["attrs"] == {"data": "digits"}
    told = served.ask("changes", study=SPECIAL, after=0)
    names = [name for name, _ in told["params"]]
    assert sorted(names) == ["few", "kind", "many", "rate", "x"]
    for row, trial in zip(sorted(told["trials"]), study.trials, strict=True):
        number, state, values, params, started, ended = row[:6]
        assert (number, state, started, ended) == (trial.number, trial.state, trial.started, trial.ended)
        wanted = None if trial.values is None else [str(v) if v in (math.inf,) else v for v in trial.values]
        assert values == wanted
        found = dict(zip(names, params, strict=True))
        assert found["x"] == trial.params["x"]
        assert found["kind"] == ("None" if trial.params["kind"] is None else trial.params["kind"])
        assert found["rate"] == trial.params.get("rate")
        assert found["few"] == {"shape": [2], "entries": trial.params["few"].tolist()}
        assert found["many"]["mean"] == pytest.approx(trial.params["many"].mean())
    assert (told["best"], told["front"]) == (study.best_trial.number, [])


def test_a_trial_in_detail(serving, path, study):
    trial = study.ask()
    x = trial.suggest_array("x2", (2, 2), 0, 1)
    study.tell(trial, 0.5, gradient={"x2": np.ones((2, 2))})
    served = serving(path)
    told = served.ask("trial", study=SPECIAL, number=8)
    assert told["gradient"] == {"x2": [[1, 1], [1, 1]]}
    assert told["params"]["x2"] == {"shape": [2, 2], "entries": x.ravel().tolist()}
    failed = served.ask("trial", study=SPECIAL, number=2)
    assert failed["state"] == "FAILED"
    assert failed["error"] == f"ValueError: {SPECIAL}"
    odd = served.ask("trial", study=SPECIAL, number=5)
    assert [value for _, value in odd["reports"]] == ["nan"] * 3
    assert odd["attrs"]["odd"] == ["inf", "nan", {"deep": "-inf"}]
    assert served.get("api/trial", study=SPECIAL, number=99)[0] == 404


def test_only_what_changed_is_told(serving, path, study):
    served = serving(path)
    place = served.ask("changes", study=SPECIAL, after=0)["place"]
    status, headers, content = served.get("api/changes", study=SPECIAL, after=place)
    assert (status, json.loads(content)) == (200, {"place": place})
    assert len(content) + sum(len(name) + len(text) + 4 for name, text in headers.items()) < 1000
    trial = study.ask()
    trial.suggest_float("x", -2, 2)
    study.tell(trial, 0.25)
    told = served.ask("changes", study=SPECIAL, after=place)
    assert [row[0] for row in told["trials"]] == [trial.number]
    assert told["place"] > place


def test_half_a_character_is_told(serving, path):
    """Python has such texts, of names of files that are no UTF-8; in UTF-8 there is no word for them."""
    study = search.create_study(storage=path, study_name="mine")
    study.set_user_attr("file", "\udc80.txt")

    def broken(trial):
        raise OSError("\udc80.txt is broken")

    study.optimize(broken, n_trials=1, catch=OSError)
    search.create_study(storage=path, study_name="\udc80")
    served = serving(path)
    assert [one["name"] for one in served.ask("studies")["studies"]] == ["\udc80", "mine"]
    assert served.ask("changes", study="mine", after=0)["attrs"] == {"file": "\udc80.txt"}
    assert served.ask("trial", study="mine", number=0)["error"] == "OSError: \udc80.txt is broken"


def test_studies_inside_trials_are_counted_and_told_on_demand(serving, path):
    outer = search.create_study(storage=path, study_name="outer")
    search.create_study(parent=outer.ask())
    served = serving(path)
    told = served.ask("studies")
    assert ([one["name"] for one in told["studies"]], told["nested"]) == (["outer"], 1)
    assert [one["name"] for one in served.ask("studies", nested=1)["studies"]] == ["outer/0", "outer"]


def test_many_trials_come_in_parts(serving, path):
    study = search.create_study(storage=path, study_name="many", sampler=search.RandomSampler(seed=0))
    study.add_trials([_frozen(k) for k in range(2100)])
    served = serving(path)
    first = served.ask("changes", study="many", after=0)
    second = served.ask("changes", study="many", after=first["place"])
    assert (first["more"], second["more"]) == (True, False)
    assert [row[0] for row in (*first["trials"], *second["trials"])] == list(range(2100))


def test_trials_that_one_entry_began_come_together(serving, path):
    """A place of the log is told whole: what comes after it cannot bring its other half."""
    study = search.create_study(storage=path, study_name="many", sampler=search.RandomSampler(seed=0))
    study.ask(2100)
    served = serving(path)
    told = served.ask("changes", study="many", after=0)
    assert (len(told["trials"]), told["more"]) == (2100, False)


def _frozen(k: int) -> search.FrozenTrial:
    return search.FrozenTrial(
        *(k, TrialState.COMPLETE, (float(k),), {"x": k / 3000}, {"x": search.Float(0, 1)}),
        **{"user_attrs": {}, "reports": {}, "constraints": None, "gradient": None, "error": None},
        **{"started": 1.0, "ended": 2.0, "attempt": 1},
    )


def test_a_study_that_is_gone_and_one_that_took_its_name(serving, path, study):
    served = serving(path)
    before = served.ask("summary", study=SPECIAL)["id"]
    search.delete_study(study_name=SPECIAL, storage=path)
    status, _, content = served.get("api/changes", study=SPECIAL, after=0, id=before)
    assert status == 404
    assert "no study" in json.loads(content)["error"]
    search.create_study(storage=path, study_name=SPECIAL)
    assert served.ask("changes", study=SPECIAL, after=0, id=before) == {"again": True}


def test_curves_and_importance(serving, path, study):
    served = serving(path)
    told = served.ask("curves", study=SPECIAL)
    assert told["of"] == 8
    assert told["curves"][0]["points"] == [[k, v] for k, v in study.trials[0].reports.items()]
    shares = served.ask("importance", study=SPECIAL)["importance"]
    assert [name for name, _ in shares] == list(search.importance(study))
    search.create_study(storage=path, study_name="empty")
    assert "complete trials" in served.ask("importance", study="empty")["why"]


def test_nothing_can_be_written_and_nobody_else_asks(serving, path, study):
    before = path.read_bytes()
    served = serving(path)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert served.get("api/studies", method=method)[0] == 405
    assert served.get("api/studies", headers={"Host": "elsewhere.example"})[0] == 400
    assert served.get("api/studies", headers={"Host": "localhost:1"})[0] == 200
    for wrong in ("../_server.py", "page.html", "%2e%2e/_server.py", "api/changes?study=x&after=0"):
        assert served.get(wrong)[0] == 404
    assert served.get("api/changes", study=SPECIAL, after="-1")[0] == 400
    status, headers, content = served.get("")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"http://" not in content.replace(b"http://www.w3.org/2000/svg", b"")
    assert path.read_bytes() == before


def test_ctrl_c_ends_it_quietly(serving, path, study):
    process = serving(path).process
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.db"], "a file that is there"),
        ([__file__], "a file of studies"),
        ([], "required"),
        (["study.db", "--port", "70000"], "from 0 to 65535"),
        (["study.db", "--prt", "1"], "--port"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines(capsys, words, said):
    pytest.importorskip("uvicorn")
    try:
        status = main(["dashboard", *words])
    except SystemExit as end:
        status = end.code
    assert status == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 2


def test_a_port_that_is_taken(serving, path, study, capsys):
    port = serving(path).address.rstrip("/").rpartition(":")[2]
    assert main(["dashboard", str(path), "--port", port]) == 1
    assert f"port {port} of 127.0.0.1" in capsys.readouterr().err


def test_a_missing_extra_is_named(path, study):
    code = f"""
import sys
sys.modules["starlette"] = None
from nestor.cli import main
from nestor.errors import BadArgument
sys.exit(main(["dashboard", {str(path)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'nestor[dashboard]'" in done.stderr


def test_a_study_in_memory_is_refused():
    with pytest.raises(BadArgument, match="other processes"):
        search.Follower(search.MemoryStorage())


@pytest.mark.parametrize("name", dashboard.__all__)
def test_an_example_runs(name):
    pytest.importorskip("starlette")
    text = inspect.getdoc(getattr(dashboard, name))
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)
