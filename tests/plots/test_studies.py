"""Pictures of studies: what their figures hold, for every kind of trial, parameter and objective."""

import doctest
import inspect
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from nestor import plots, search
from nestor.errors import BadArgument
from nestor.search import TrialState

pytest.importorskip("plotly")
NAMES = (
    *("importances", "intermediate_values", "optimization_history", "parallel_coordinates"),
    *("pareto_front", "slices", "timeline"),
)


def objective(trial: search.Trial) -> float:
    x = trial.suggest_float("x", -2, 2)
    rate = trial.suggest_float("rate", 1e-4, 1, log=True)
    kind = trial.suggest_categorical("kind", [None, 2, "<b>"])
    if kind == 2:
        trial.suggest_int("depth", 1, 8)
    trial.suggest_array("few", (2,), 0, 1)
    trial.suggest_array("many", (3, 4), 0, 1)
    for step in range(4):
        trial.report(x + step, step)
    trial.set_constraints([x - 1.5])
    if trial.number == 3:
        raise search.TrialPruned("enough")
    if trial.number == 4:
        raise ValueError("wrong")
    return math.inf if trial.number == 5 else x * x + rate


@pytest.fixture(scope="module")
def study() -> search.Study:
    study = search.create_study(sampler=search.RandomSampler(seed=3))
    study.optimize(objective, n_trials=20, catch=ValueError)
    study.ask().report(7.0, 1)
    study.enqueue_trial({"x": 0.0})
    return study


@pytest.fixture(scope="module")
def front() -> search.Study:
    study = search.create_study(
        directions=["minimize", "maximize", "minimize"], sampler=search.RandomSampler(seed=0)
    )

    def three(trial):
        a, b, c = (trial.suggest_float(name, 0, 1) for name in "abc")
        trial.set_constraints([a - 0.9])
        return a, b, c

    study.optimize(three, n_trials=25)
    return study


def complete(study):
    return [t for t in study.trials_with(TrialState.COMPLETE) if math.isfinite(t.value)]


def by_name(figure):
    return {trace.name: trace for trace in figure.data}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(name):
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(getattr(plots, name)), {}, name, None, None)
    said = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)


def test_the_history_and_the_best_so_far(study):
    traces = by_name(plots.optimization_history(study))
    kept = [t for t in complete(study) if t.constraints[0] <= 0]
    missed = [t.number for t in complete(study) if t.constraints[0] > 0]
    assert list(traces["complete"].x) == [t.number for t in kept]
    assert list(traces["misses a constraint"].x) == missed
    assert list(traces["pruned"].x) == [3]
    best = traces["best so far"]
    assert best.y[-1] == study.best_value
    assert list(best.y[:-1]) == np.minimum.accumulate([t.value for t in kept]).tolist()
    assert plots.optimization_history(study, log=True).layout.yaxis.type == "log"


def test_the_best_so_far_goes_the_other_way(front):
    best = by_name(plots.optimization_history(front, objective=1))["best so far"].y
    assert all(np.diff(best) >= 0)


def test_slices_have_the_axes_of_their_domains(study):
    figure = plots.slices(study)
    wanted = ["x", "rate", "kind", "few[0]", "few[1]", "mean of many", "depth"]
    assert sorted(trace.name for trace in figure.data) == sorted(wanted)
    axes = dict(zip([t.name for t in figure.data], figure.select_xaxes(), strict=True))
    assert (axes["x"].type, axes["rate"].type, axes["kind"].type) == ("linear", "log", "category")
    assert axes["kind"].categoryarray == ("None", "2", "<b>")
    traces = by_name(figure)
    assert list(traces["x"].y) == [t.value for t in complete(study)]
    assert list(traces["few[1]"].x) == [t.params["few"][1] for t in complete(study)]
    deep = [t for t in complete(study) if "depth" in t.params]
    assert list(traces["depth"].x) == [t.params["depth"] for t in deep]
    assert [trace.name for trace in plots.slices(study, params=["rate"]).data] == ["rate"]


def test_parallel_coordinates_show_what_is_absent(study):
    (trace,) = plots.parallel_coordinates(study, params=["rate", "kind", "depth"]).data
    rate, kind, depth, value = trace.dimensions
    trials = complete(study)
    assert np.allclose(rate.values, [math.log10(t.params["rate"]) for t in trials])
    assert rate.ticktext[0] == "0.0001"
    assert kind.ticktext == ("None", "2", "&lt;b>")
    absent = ["depth" not in t.params for t in trials]
    assert any(absent)
    assert (np.array(depth.values) < 1).tolist() == absent
    assert depth.ticktext[0] == "absent"
    assert list(value.values) == [t.value for t in trials]


def test_importances_are_those_of_search(study):
    (bars,) = plots.importances(study).data
    found = search.importance(study)
    assert list(bars.y)[::-1] == list(found)
    assert list(bars.x)[::-1] == list(found.values())


def test_curves_of_all_trials_that_reported(study):
    traces = by_name(plots.intermediate_values(study))
    assert len(traces) == 21
    assert list(traces["trial 4"].y) == list(study.trials[4].reports.values())
    assert (list(traces["trial 20"].x), list(traces["trial 20"].y)) == ([1], [7.0])
    assert len({traces[f"trial {k}"].line.color for k in (0, 3, 4, 20)}) == 4


def test_the_timeline_has_every_trial_that_began(study):
    traces = by_name(plots.timeline(study))
    assert {name: len(trace.y) for name, trace in traces.items()} == {
        "complete": 18,
        "pruned": 1,
        "failed": 1,
        "running": 1,
    }
    assert traces["pruned"].x[0] == pytest.approx(1e3 * study.trials[3].duration)


def test_the_front_in_two_and_three_dimensions(front):
    best = {trial.number for trial in front.best_trials}
    flat = by_name(plots.pareto_front(front, objectives=(0, 1)))
    deep = by_name(plots.pareto_front(front))
    assert len(flat["front"].x) == len(deep["front"].x) == len(best)
    assert set(flat["front"].x) == {front.trials[number].values[0] for number in best}
    assert deep["front"].type == "scatter3d"
    named = search.create_study(directions=["minimize", "maximize"])
    named.set_metric_names(["loss", "speed"])
    assert plots.pareto_front(named).layout.yaxis.title.text == "speed (maximize)"
    assert len(flat["misses a constraint"].x) == sum(t.constraints[0] > 0 for t in front.trials)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_without_trials_says_so(name):
    directions = ["minimize"] * (2 if name == "pareto_front" else 1)
    figure = getattr(plots, name)(search.create_study(directions=directions))
    assert figure.layout.annotations[0].text == "nothing to show yet"
    json.loads(figure.to_json())


def test_a_study_of_which_all_is_pruned_shows_it():
    study = search.create_study()
    trial = study.ask()
    trial.report(3.0, step=1)
    study.tell(trial, state=TrialState.PRUNED)
    figure = plots.optimization_history(study)
    assert [(trace.name, trace.y) for trace in figure.data] == [("pruned", (3.0,))]
    assert not figure.layout.annotations
    assert plots.slices(study).layout.annotations[0].text == "nothing to show yet"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_study_is_refused(name):
    with pytest.raises(BadArgument, match="Study"):
        getattr(plots, name)(3)


def test_wrong_names_and_numbers_are_refused(study, front):
    with pytest.raises(BadArgument, match="params"):
        plots.slices(study, params=["y"])
    with pytest.raises(BadArgument, match="objective"):
        plots.optimization_history(study, objective=1)
    with pytest.raises(BadArgument, match="two or three"):
        plots.pareto_front(study)
    with pytest.raises(BadArgument, match="two or three"):
        plots.pareto_front(front, objectives=(0, 0))


def test_plotly_is_imported_on_use():
    code = "import sys; from nestor import plots; print('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
