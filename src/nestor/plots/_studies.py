"""Pictures of studies, as plotly figures: what they can show of their trials, one by one."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

from nestor.errors import BadArgument, NestorError
from nestor.plots._canvas import COLORS
from nestor.plots._study_columns import (
    axis,
    checked,
    columns,
    complete_trials,
    dimension,
    objective_name,
    plain,
    plotly,
    told,
)
from nestor.search import Direction, FrozenTrial, Study, TrialState, importance

_BLUE, _RED, _GREEN, _PINK, _YELLOW = COLORS[:5]
_GREY = "#8a939b"
_STATES = {
    TrialState.COMPLETE: _BLUE,
    TrialState.PRUNED: _YELLOW,
    TrialState.FAILED: _RED,
    TrialState.RUNNING: _GREEN,
    TrialState.PAUSED: _PINK,
    TrialState.WAITING: _GREY,
}


def optimization_history(study: Study, *, objective: int = 0, log: bool = False) -> Any:
    """Value by trial, and the best value so far.

    Pruned trials stand at their last reported value, trials that miss a constraint are grey and never the best.

    Args:
        study: a `nestor.search.Study`.
        objective: of several, which one, from 0.
        log: a logarithmic axis of values; what is not positive is left out.

    Returns:
        The plotly figure: ``figure.show()``, or ``figure.write_html("history.html")``. Its traces are ``complete``,
        ``misses a constraint``, ``pruned`` and ``best so far``, those that have something to show.

    Raises:
        BadArgument: there is no such objective. MissingExtra: plotly is not installed.

    >>> from nestor import plots, search
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=5)
    >>> [trace.name for trace in plots.optimization_history(study).data]
    ['complete', 'best so far']
    """
    name = objective_name(study, objective, "optimization_history")
    go, sign = plotly(), study.directions[objective].sign
    complete = complete_trials(study, "optimization_history")
    kept = [trial for trial in complete if not _misses(trial)]
    groups = {
        "complete": (kept, _BLUE),
        "misses a constraint": ([trial for trial in complete if _misses(trial)], _GREY),
        "pruned": ([trial for trial in study.trials_with(TrialState.PRUNED) if trial.values], _YELLOW),
    }
    figure = go.Figure()
    for title, (trials, color) in groups.items():
        if trials:
            heights = [trial.values[objective] for trial in trials]  # type: ignore[index]
            figure.add_trace(_points([trial.number for trial in trials], heights, trials, title, color))
    if kept:
        best = sign * np.minimum.accumulate([sign * trial.values[objective] for trial in kept])  # type: ignore[index]
        x = [*(trial.number for trial in kept), len(study.trials) - 1]
        y = [*best.tolist(), float(best[-1])]
        line = {"color": _RED, "width": 2, "shape": "hv"}
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name="best so far", line=line))
    return _dressed(figure, bool(figure.data), x="trial", y=name, log=log)


def slices(study: Study, *, params: Sequence[str] | None = None, objective: int = 0) -> Any:
    """Value against each parameter, one picture a parameter; the later the trial, the brighter.

    An array shows its entries when there are at most 4, else their mean. A logarithmic range has a logarithmic axis.

    Args:
        study: a `nestor.search.Study`; its complete trials are drawn.
        params: names of parameters; None for all.
        objective: as in `optimization_history`.

    Returns:
        The plotly figure, with one trace a parameter.

    Raises:
        BadArgument: there is no such parameter or objective. MissingExtra: plotly is not installed.

    >>> from nestor import plots, search
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("rate", 1e-4, 1, log=True), n_trials=5)
    >>> plots.slices(study).layout.xaxis.type
    'log'
    """
    name = objective_name(study, objective, "slices")
    trials = complete_trials(study, "slices")
    drawn = columns(trials, params, "slices")
    figure = plotly("subplots").make_subplots(rows=1, cols=max(1, len(drawn)), shared_yaxes=True)
    numbers = [trial.number for trial in trials]
    for place, column in enumerate(drawn, 1):
        there = [k for k, value in enumerate(column.values) if value is not None]
        marker = {
            "color": [numbers[k] for k in there],
            "coloraxis": "coloraxis",
            "size": 6,
            "line": {"color": "white", "width": 0.5},
        }
        trace = plotly().Scatter(
            x=[column.values[k] for k in there],
            y=[trials[k].values[objective] for k in there],  # type: ignore[index]
            mode="markers",
            name=column.name,
            marker=marker,
            text=[told(trials[k]) for k in there],
            hoverinfo="text",
            showlegend=False,
        )
        figure.add_trace(trace, row=1, col=place)
        figure.update_xaxes(title_text=plain(column.name), row=1, col=place, **axis(column))
    bar = {"colorscale": "Viridis", "colorbar": {"title": {"text": "trial"}}}
    figure.update_layout(coloraxis=bar, width=max(420, 260 * len(drawn)))
    return _dressed(figure, bool(drawn), y=name)


def parallel_coordinates(study: Study, *, params: Sequence[str] | None = None, objective: int = 0) -> Any:
    """One line a complete trial, over its parameters and its value.

    A parameter that a trial does not have is drawn below its axis, at ``absent``. Arrays as in `slices`.

    Args:
        study: a `nestor.search.Study`.
        params: names of parameters; None for all.
        objective: as in `optimization_history`.

    Returns:
        The plotly figure, with one trace whose last dimension is the value; the better a line, the darker.

    Raises:
        BadArgument: there is no such parameter or objective. MissingExtra: plotly is not installed.

    >>> from nestor import plots, search
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_int("n", 1, 4) / 2, n_trials=5)
    >>> [one.label for one in plots.parallel_coordinates(study).data[0].dimensions]
    ['n', 'value']
    """
    name = objective_name(study, objective, "parallel_coordinates")
    trials = complete_trials(study, "parallel_coordinates")
    values = [trial.values[objective] for trial in trials]  # type: ignore[index]
    dimensions = [dimension(column) for column in columns(trials, params, "parallel_coordinates")]
    figure = plotly().Figure()
    if trials:
        dimensions.append({"label": name, "values": values})
        maximize = study.directions[objective] == Direction.MAXIMIZE
        line = {"color": values, "colorscale": "Viridis", "reversescale": maximize, "showscale": True}
        figure.add_trace(plotly().Parcoords(dimensions=dimensions, line=line))
    return _dressed(figure, bool(trials)).update_layout(margin={"l": 80, "r": 60, "t": 80, "b": 40})


def importances(
    study: Study, *, quantile: float = 0.1, region: float = 1.0, objective: int | None = None
) -> Any:
    """How much each parameter decides whether a trial is among the best; see `nestor.search.importance`.

    Args:
        study: a `nestor.search.Study`.
        quantile: the share of the trials that are the best.
        region: the share of the trials that are looked at.
        objective: of several, the one to be good at; None is the Pareto front.

    Returns:
        The plotly figure, with one trace of horizontal bars, the largest on top.

    Raises:
        BadArgument: as `nestor.search.importance`. MissingExtra: plotly is not installed.

    >>> from nestor import plots, search
    >>> study = search.create_study(sampler=search.RandomSampler(seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=20)
    >>> plots.importances(study).data[0].y
    ('x',)
    """
    go = plotly()
    try:
        found = importance(
            checked(study, "importances"), quantile=quantile, region=region, objective=objective
        )
    except BadArgument:
        raise
    except NestorError:
        found = {}
    names = [plain(name) for name in reversed(found)]
    shares = list(reversed(found.values()))
    texts = [f"{100 * share:.0f} %" for share in shares]
    bar = go.Bar(x=shares, y=names, orientation="h", text=texts, marker={"color": _BLUE}, hoverinfo="y+x")
    figure = _dressed(go.Figure([bar]), bool(found), x="share of the importance")
    figure.update_yaxes(type="category")
    return figure


def intermediate_values(study: Study, *, log: bool = False) -> Any:
    """What trials reported on their way, one line a trial, coloured by how it ended.

    Args:
        study: a `nestor.search.Study`; running trials are drawn too.
        log: a logarithmic axis of values.

    Returns:
        The plotly figure, with one trace a trial that reported; ``trial 7`` is its name.

    Raises:
        BadArgument: it is no study. MissingExtra: plotly is not installed.

    >>> from nestor import plots, search
    >>> study = search.create_study()
    >>> trial = study.ask()
    >>> for step in range(3):
    ...     trial.report(1 / (step + 1), step)
    >>> plots.intermediate_values(study).data[0].x
    (0, 1, 2)
    """
    go, figure, seen = plotly(), plotly().Figure(), set()
    for trial in checked(study, "intermediate_values").trials:
        if trial.reports:
            steps, values = zip(*sorted(trial.reports.items()), strict=True)
            state = trial.state.name.lower()
            line = go.Scatter(
                x=steps,
                y=values,
                mode="lines+markers" if len(steps) <= 30 else "lines",
                name=f"trial {trial.number}",
                legendgroup=state,
                legendgrouptitle={"text": state},
                showlegend=False,
                line={"color": _STATES[trial.state], "width": 1.2},
                marker={"size": 3},
                opacity=0.7,
            )
            figure.add_trace(line)
            seen.add(state)
    return _dressed(figure, bool(seen), x="step", y="reported value", log=log)


def timeline(study: Study) -> Any:
    """When each trial ran, and how it ended; a trial that runs reaches until now.

    Args:
        study: a `nestor.search.Study`.

    Returns:
        The plotly figure, with one trace of bars a state, over local time.

    Raises:
        BadArgument: it is no study. MissingExtra: plotly is not installed.

    >>> from nestor import plots, search
    >>> study = search.create_study()
    >>> study.optimize(lambda trial: float(trial.number), n_trials=3)
    >>> [(trace.name, trace.y) for trace in plots.timeline(study).data]
    [('complete', (0, 1, 2))]
    """
    go, figure = plotly(), plotly().Figure()
    started = [trial for trial in checked(study, "timeline").trials if trial.started is not None]
    now = datetime.datetime.now().timestamp()
    for state, color in _STATES.items():
        group = [trial for trial in started if trial.state == state]
        if group:
            ends = [trial.ended or (now if state == TrialState.RUNNING else trial.started) for trial in group]
            spans = [1e3 * (end - trial.started) for end, trial in zip(ends, group, strict=True)]  # type: ignore[operator]
            bars = go.Bar(
                base=[datetime.datetime.fromtimestamp(trial.started) for trial in group],  # type: ignore[arg-type]
                x=spans,  # milliseconds
                y=[trial.number for trial in group],
                orientation="h",
                name=state.name.lower(),
                marker={"color": color, "line": {"width": 0}},
                text=[
                    f"{told(trial)}<br>took {span / 1e3:.4g} s"
                    for trial, span in zip(group, spans, strict=True)
                ],
                textposition="none",
                hoverinfo="text",
            )
            figure.add_trace(bars)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(type="date")
    return _dressed(figure, bool(started), y="trial")


def pareto_front(study: Study, *, objectives: Sequence[int] | None = None) -> Any:
    """The trials in the space of two or three objectives; those that no other betters in all stand out.

    Args:
        study: a `nestor.search.Study` of several objectives.
        objectives: which two or three, from 0; None for all. The front is that of all objectives, whatever is shown.

    Returns:
        The plotly figure, in two or three dimensions, with traces ``complete``, ``misses a constraint`` and
        ``front``, those that have something to show.

    Raises:
        BadArgument: not two or three objectives of this study. MissingExtra: plotly is not installed.

    >>> from nestor import plots, search
    >>> study = search.create_study(directions=["minimize", "maximize"], sampler=search.RandomSampler(seed=0))
    >>> study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)), n_trials=9)
    >>> [trace.name for trace in plots.pareto_front(study).data]
    ['complete', 'front']
    """
    count = len(checked(study, "pareto_front").directions)
    chosen = tuple(range(count) if objectives is None else objectives)
    known = all(not isinstance(one, bool) and one in range(count) for one in chosen)
    if len(chosen) not in (2, 3) or len(set(chosen)) != len(chosen) or not known:
        want = f"two or three different whole numbers from 0 to {count - 1}"
        do = "pass objectives=(0, 1)" if count > 1 else "use optimization_history for one objective"
        raise BadArgument("pareto_front", "objectives", got=objectives, want=want, do=do)
    go, figure = plotly(), plotly().Figure()
    complete = complete_trials(study, "pareto_front")
    best = {trial.number for trial in study.best_trials}
    groups = {
        "complete": ([t for t in complete if t.number not in best and not _misses(t)], _BLUE, 5),
        "misses a constraint": ([t for t in complete if _misses(t)], _GREY, 5),
        "front": ([t for t in complete if t.number in best], _RED, 8),
    }
    for title, (trials, color, size) in groups.items():
        if trials:
            places = [[trial.values[one] for trial in trials] for one in chosen]  # type: ignore[index]
            shown: dict[str, Any] = {
                "mode": "markers",
                "name": title,
                "marker": {"color": color, "size": size},
            }
            shown |= {"text": [told(trial) for trial in trials], "hoverinfo": "text"}
            if len(chosen) == 2:
                figure.add_trace(go.Scatter(x=places[0], y=places[1], **shown))
            else:
                shown["marker"]["size"] = size / 2
                figure.add_trace(go.Scatter3d(x=places[0], y=places[1], z=places[2], **shown))
    names = [f"{objective_name(study, one, 'pareto_front')} ({study.directions[one]})" for one in chosen]
    if len(chosen) == 3:
        axes = {
            one: {"title": {"text": name}}
            for one, name in zip(("xaxis", "yaxis", "zaxis"), names, strict=True)
        }
        figure.update_layout(scene=axes)
        return _dressed(figure, bool(complete))
    return _dressed(figure, bool(complete), x=names[0], y=names[1])


def _misses(trial: FrozenTrial) -> bool:
    return any(value > 0 for value in trial.constraints or ())


def _points(x: list[int], y: list[float], trials: list[FrozenTrial], name: str, color: str) -> Any:
    marker = {"color": color, "size": 6, "opacity": 0.75}
    texts = [told(trial) for trial in trials]
    return plotly().Scatter(x=x, y=y, mode="markers", name=name, marker=marker, text=texts, hoverinfo="text")


def _dressed(figure: Any, anything: bool, *, x: str = "", y: str = "", log: bool = False) -> Any:
    """A figure with its titles and a quiet ground; a word where there is nothing to draw yet."""
    figure.update_layout(template="plotly_white", margin={"l": 60, "r": 30, "t": 30, "b": 50})
    if x:
        figure.update_xaxes(title_text=x)
    if y:
        figure.update_layout(yaxis_title_text=y)  # of the first picture, where there are several
    if log:
        figure.update_yaxes(type="log")
    if not anything:
        figure.add_annotation(
            text="nothing to show yet", showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5
        )
    return figure
