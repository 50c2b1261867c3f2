"""How values are spread, group beside group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.plots._canvas import COLORS, canvas, plain, whole


def histograms(
    groups: Mapping[str, Any],
    *,
    bins: int = 25,
    limits: tuple[float, float] | None = None,
    title: str = "",
    x_label: str = "",
    log: bool = False,
    figure: Any = None,
) -> Any:
    """Named groups of values as histograms over common bins, each as shares of its own group.

    Args:
        groups: name -> values, of any shape and number; NaN and infinite ones are left out.
        bins: how many.
        limits: the ends of the axis; None takes the smallest and the largest value.
        title, x_label: texts; a label ends with its unit where there is one.
        log: a logarithmic vertical axis.
        figure: as in `curves`.

    Returns:
        The Matplotlib figure.

    Raises:
        BadArgument: there is no value to draw. MissingExtra: Matplotlib is not installed.

    >>> from nestor import plots
    >>> figure = plots.histograms({"right": [0.9, 0.8, 1.0], "wrong": [0.1, 0.0]}, x_label="weight")
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['right', 'wrong']
    """
    values = {name: np.asarray(group, float).ravel() for name, group in groups.items()}
    values = {name: group[np.isfinite(group)] for name, group in values.items()}
    if not values or not all(group.size for group in values.values()):
        empty = next((name for name, group in values.items() if not group.size), None)
        raise BadArgument(
            "histograms",
            "groups",
            got="no group at all" if empty is None else f"a group without a finite value, {empty!r}",
            want="at least one finite value in each group",
            do="leave empty groups out",
        )
    every = np.concatenate(list(values.values()))
    edges = np.histogram_bin_edges(every, bins, limits)
    figure = canvas(figure, (7.0, 4.2))
    axes = plain(figure.subplots())
    for i, (name, group) in enumerate(values.items()):
        shares = np.histogram(group, edges)[0] / group.size
        color = COLORS[i % len(COLORS)]
        axes.stairs(shares, edges, fill=True, alpha=0.35, color=color)
        axes.stairs(shares, edges, linewidth=1.8, color=color, label=name)
    if log:
        axes.set_yscale("log")
    axes.set(title=title, xlabel=x_label, ylabel="share of the group", xlim=(edges[0], edges[-1]))
    axes.legend(fontsize="small", edgecolor="none", framealpha=0.9)
    return whole(figure)
