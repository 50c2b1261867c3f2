"""Lines: named curves, and the history of a solve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.plots._canvas import COLORS, canvas, plain, whole
from nestor.solution import History, Solution
from nestor.training import Diagnosis


def curves(
    lines: Mapping[str, Any],
    x: Any = None,
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    log: bool = False,
    levels: Mapping[str, float] | None = None,
    marks: Mapping[str, float] | None = None,
    figure: Any = None,
) -> Any:
    """Named curves over a common axis.

    Args:
        lines: name -> values, each a sequence of the same length; NaN leaves a gap.
        x: the positions of the values; None counts from 0.
        title, x_label, y_label: texts; a label ends with its unit where there is one.
        log: a logarithmic vertical axis.
        levels: name -> height of a dashed horizontal line.
        marks: name -> position of a dotted vertical line.
        figure: a Matplotlib figure or subfigure to draw into; None makes a new one.

    Returns:
        The Matplotlib figure; write it with ``figure.savefig("curves.png")``.

    Raises:
        BadArgument: the lengths differ. MissingExtra: Matplotlib is not installed.

    >>> from nestor import plots
    >>> figure = plots.curves({"validation": [0.3, 0.2, 0.1], "test": [0.3, 0.25, 0.24]}, y_label="loss (nats)")
    >>> len(figure.axes[0].lines)
    2
    """
    values = {name: np.asarray(line, float).ravel() for name, line in lines.items()}
    lengths = {line.size for line in values.values()}
    places = None if x is None else np.asarray(x, float).ravel()
    if places is not None:
        lengths.add(places.size)
    if len(lengths) != 1:
        shown = ", ".join(f"{name!r}: {line.size}" for name, line in values.items()) or "no line at all"
        raise BadArgument(
            "curves",
            "lines",
            got=shown + ("" if places is None else f", x: {places.size}"),
            want="at least one line, all of one length, that of x",
            do="pad the shorter ones with NaN",
        )
    places = np.arange(lengths.pop(), dtype=float) if places is None else places
    figure = canvas(figure, (7.0, 4.2))
    axes = plain(figure.subplots())
    marker = "o" if places.size <= 12 else None
    for (name, line), color in zip(values.items(), _colors(len(values)), strict=True):
        axes.plot(places, line, label=name, color=color, linewidth=1.8, marker=marker, markersize=4)
    for (name, height), color in zip((levels or {}).items(), _colors(len(levels or {}), 3), strict=True):
        axes.axhline(height, label=name, color=color, linewidth=1.2, linestyle="--")
    for name, place in (marks or {}).items():
        axes.axvline(place, label=name, color="0.35", linewidth=1.2, linestyle=":")
    if log:
        axes.set_yscale("log")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.legend(fontsize="small", edgecolor="none", framealpha=0.9)
    return whole(figure)


def history(record: History | Solution, *, title: str = "", figure: Any = None) -> Any:
    """Objective and optimality of a solve, evaluation by evaluation.

    Args:
        record: a `Solution` that was asked for with ``history=True``, or its `History`. The solution also knows
            the tolerance, which is then drawn.
        title: a text above all.
        figure: as in `curves`.

    Returns:
        The Matplotlib figure, with two axes: the objective (logarithmic where all of it is positive) and the
        optimality (always logarithmic; zeros are left out). Filled points were kept as iterates, the others were
        trials of a line search or refused steps.

    Raises:
        BadArgument: there is no history. MissingExtra: Matplotlib is not installed.

    >>> import jax.numpy as jnp, nestor
    >>> from nestor import plots
    >>> solution = nestor.minimize(lambda x: jnp.sum(jnp.cosh(x - 1.0)), jnp.zeros(3), history=True)
    >>> [axes.get_ylabel() for axes in plots.history(solution).axes]
    ['objective', 'optimality']
    """
    past, tol = _past(record)
    value, optimality = np.asarray(past.value, float), np.asarray(past.optimality, float)
    kept = np.asarray(past.accepted, bool) & np.isfinite(value)
    figure = canvas(figure, (7.0, 5.2))
    upper, lower = (plain(axes) for axes in figure.subplots(2, 1, sharex=True))
    optimality = np.where(optimality > 0, optimality, np.nan)
    step = np.arange(value.size)
    for axes, line, color in ((upper, value, COLORS[0]), (lower, optimality, COLORS[1])):
        axes.plot(step, line, color=color, linewidth=1, alpha=0.5)
        axes.plot(step[~kept], line[~kept], "o", color=color, fillstyle="none", markersize=4, label="tried")
        axes.plot(step[kept], line[kept], "o", color=color, markersize=4, label="kept")
    finite = value[np.isfinite(value)]
    if finite.size and finite.min() > 0:
        upper.set_yscale("log")
    if np.any(np.isfinite(optimality)):
        lower.set_yscale("log")
    if tol is not None:
        lower.axhline(tol, color="0.35", linestyle="--", linewidth=1.2, label=f"tolerance {tol:.1e}")
    upper.set(ylabel="objective", title=title)
    lower.set(ylabel="optimality", xlabel="evaluation")
    lower.xaxis.get_major_locator().set_params(integer=True)
    for axes in (upper, lower):
        axes.legend(fontsize="small", edgecolor="none", framealpha=0.9)
    return whole(figure)


def adjoint_norms(diagnosis: Diagnosis, *, title: str = "", figure: Any = None) -> Any:
    """How large the derivative in the parameters is at each step of the runs of a diagnosis.

    The reverse pass goes from right to left: a line that rises to the left by decades is chaos, one that falls
    is a run that forgets its start, and one that ends is where NaN was born.

    Args:
        diagnosis: what `nestor.diagnose` returned, with at least one run.
        title: a text above.
        figure: as in `curves`.

    Returns:
        The Matplotlib figure.

    Raises:
        BadArgument: there was no run. MissingExtra: Matplotlib is not installed.

    >>> import nestor
    >>> from nestor import plots
    >>> end = lambda rate: nestor.train(lambda x, _: x**2, 1.0, None, optimizer=nestor.sgd(rate), steps=5).params
    >>> len(plots.adjoint_norms(nestor.diagnose(end, 0.1)).axes[0].lines)
    1
    """
    runs = diagnosis.adjoint_norms if isinstance(diagnosis, Diagnosis) else ()
    if not runs:
        raise BadArgument(
            "adjoint_norms",
            "diagnosis",
            got="a diagnosis without a run" if isinstance(diagnosis, Diagnosis) else diagnosis,
            want="the Diagnosis of an objective that calls nestor.train",
            do="pass nestor.diagnose(objective, hyper)",
        )
    longest = max(norms.size for norms in runs)
    lines = {}
    for i, norms in enumerate(runs):
        shown = np.where(norms > 0, norms, np.nan)
        lines[f"run {i}"] = np.pad(shown, (0, longest - norms.size), constant_values=np.nan)
    log = any(np.any(np.isfinite(line)) for line in lines.values())
    y_label = "norm of the derivative in the parameters"
    return curves(lines, title=title, x_label="step", y_label=y_label, log=log, figure=figure)


def _past(record: History | Solution) -> tuple[History, float | None]:
    past = record.history if isinstance(record, Solution) else record
    if not isinstance(past, History) or np.ndim(past.value) != 1:
        what = "a Solution without a history" if isinstance(record, Solution) else record
        raise BadArgument(
            "history",
            "record",
            got=what if past is None or not isinstance(past, History) else "the history of a batch of solves",
            want="one solve's Solution or History",
            do="call nestor.minimize(..., history=True), and pick one lane of a batch",
        )
    return past, float(record.stats.tol) if isinstance(record, Solution) else None


def _colors(count: int, first: int = 0) -> list[str]:
    return [COLORS[(first + i) % len(COLORS)] for i in range(count)]
