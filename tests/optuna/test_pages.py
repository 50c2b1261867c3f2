"""Optuna's pictures and its dashboard open our studies."""

import importlib
import io
import json
import math
import shutil
import subprocess
import threading
import wsgiref.simple_server
import wsgiref.util

import pytest

import nestor.optuna
from nestor import search

optuna = pytest.importorskip("optuna")

optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective(trial):
    x = trial.suggest_float("x", -5, 5)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    trial.set_user_attr("square", x * x)
    trial.set_constraints((x - 4.0,))
    for step in range(3):
        trial.report(x * x + (3 - step), step)
        if trial.should_prune():
            raise search.TrialPruned
    if trial.number == 7:
        raise MemoryError("too large")
    return x * x + (kind == "a")


@pytest.fixture
def study(tmp_path):
    study = search.create_study(
        storage=search.FileStorage(tmp_path / "study.db"),
        study_name="ours",
        sampler=search.TPESampler(seed=0),
        pruner=search.MedianPruner(),
    )
    study.set_user_attr("who", "me")
    study.optimize(objective, n_trials=30, catch=MemoryError)
    study.ask().suggest_float("x", -5, 5)  # one that runs
    yield study
    study.storage.close()


PICTURES = [
    *("plot_optimization_history", "plot_parallel_coordinate", "plot_slice", "plot_edf", "plot_timeline"),
    *("plot_intermediate_values", "plot_contour", "plot_rank"),
]


@pytest.mark.parametrize("kind", ["matplotlib", "plotly"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_its_pictures(kind, study):
    pytest.importorskip(kind)
    place = "optuna.visualization" + (".matplotlib" if kind == "matplotlib" else "")
    visualization = importlib.import_module(place)
    seen = optuna.load_study(study_name="ours", storage=nestor.optuna.Storage(study.storage))
    for name in PICTURES:
        assert getattr(visualization, name)(seen) is not None
    if kind == "matplotlib":
        importlib.import_module("matplotlib.pyplot").close("all")


def asked(app, path: str, query: str = ""):
    """What a page answers to GET, without a network."""
    environ = {"PATH_INFO": path, "QUERY_STRING": query}
    wsgiref.util.setup_testing_defaults(environ)
    environ["wsgi.errors"] = io.StringIO()
    said = []
    body = b"".join(app(environ, lambda status, headers, *_: said.append(status)))
    assert said[0].startswith("200"), (path, said[0], body)
    return body


def test_its_dashboard(study):
    """The list of studies and a study's trials, by the requests that its page makes."""
    dashboard = pytest.importorskip("optuna_dashboard")
    app = dashboard.wsgi(nestor.optuna.Storage(study.storage))
    (listed,) = json.loads(asked(app, "/api/studies"))["study_summaries"]
    assert listed["study_name"] == "ours"
    found = json.loads(asked(app, f"/api/studies/{listed['study_id']}"))
    assert found["name"] == "ours"
    assert found["best_trials"][0]["values"] == [study.best_value]
    assert len(found["trials"]) == len(study.trials) == 31
    states = [trial["state"].replace("Fail", "Failed").upper() for trial in found["trials"]]
    assert states == [trial.state.name for trial in study.trials]
    for trial, ours in zip(found["trials"][:-1], study.trials[:-1], strict=True):  # but the one that runs
        shown = {one["name"]: one["param_external_value"] for one in trial["params"]}
        assert shown == {name: str(value) for name, value in ours.params.items()}
        curve = {point["step"]: point["value"] for point in trial["intermediate_values"]}
        assert curve == {step: value for step, value in ours.reports.items() if math.isfinite(value)}
    assert b"ours" in asked(app, "/api/studies")
    assert asked(app, f"/csv/{listed['study_id']}").count(b"\n") == 32
    asked(app, "/dashboard")


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        """Requests are not news."""


@pytest.mark.slow
def test_its_dashboard_in_a_browser(study):
    """No error in the console, and the best value on the page."""
    dashboard = pytest.importorskip("optuna_dashboard")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    app = dashboard.wsgi(nestor.optuna.Storage(study.storage))
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    wait = ["--virtual-time-budget=15000", "--window-size=1400,2000", "--dump-dom"]
    try:
        for page in ("/dashboard/", "/dashboard/studies/0", "/dashboard/studies/0/trials"):
            url = f"http://127.0.0.1:{server.server_port}{page}"
            seen = subprocess.run(
                [browser, *flags, *wait, url], capture_output=True, text=True, timeout=120, check=True
            )
            assert "ours" in seen.stdout
            assert "CONSOLE" not in seen.stderr, seen.stderr
            if page == "/dashboard/studies/0":
                assert str(study.best_value) in seen.stdout
    finally:
        server.shutdown()
        server.server_close()
