"""Levels of optimization as boxes, and who depends on whom as arrows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nestor.errors import BadArgument
from nestor.levels import Graph
from nestor.plots._canvas import COLORS, canvas, whole


def graph(graph: Graph, path: str | Path | None = None, *, title: str = "", figure: Any = None) -> Any:
    """A graph of levels: the highest on top, one box a level, one arrow for every level that a loss reads.

    Arrows go from the level that is read to the one that reads it: downwards they carry hyperparameters, upwards
    answers, which derivatives go through.

    Args:
        graph: a `nestor.Graph`.
        path: a file to write the picture to as well, such as "graph.png".
        title: a text above.
        figure: as in `curves`.

    Returns:
        The Matplotlib figure.

    Raises:
        BadArgument: it is not a graph. MissingExtra: Matplotlib is not installed.

    >>> import nestor
    >>> from nestor import plots
    >>> figure = plots.graph(nestor.Graph({
    ...     "w": nestor.Level(lambda p, _: (p["w"] - p["h"]) ** 2, 0.0, nestor.sgd(0.25), steps=40),
    ...     "h": nestor.Level(lambda p, _: (p["w"] - 3.0) ** 2, 0.0, nestor.sgd(0.25)),
    ... }))
    >>> [text.get_text() for text in figure.axes[0].texts if text.get_text() in ("w", "h")]
    ['w', 'h']
    """
    if not isinstance(graph, Graph):
        raise BadArgument(
            "graph",
            "graph",
            got=graph,
            want="a nestor.Graph",
            do="pass the graph itself, before or after its run",
        )
    names, reads = graph.names, graph.reads
    rows = _rows(graph)
    widest = max(map(len, rows))
    figure = canvas(figure, (2.6 + 2.0 * widest, 1.2 + 1.2 * len(rows)))
    axes = figure.subplots()
    places = {
        name: (2.0 * (i - (len(row) - 1) / 2), 1.2 * height)
        for height, row in enumerate(rows)
        for i, name in enumerate(row)
    }
    for name in names:
        axes.text(
            *places[name],
            name,
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.6", "facecolor": "white", "edgecolor": "0.25"},
            zorder=3,
        )
    for reader in names:
        for read in reads[reader]:
            if read != reader:
                _arrow(axes, places[read], places[reader], up=names.index(reader) > names.index(read))
    for words, color in (("answers", COLORS[0]), ("hyperparameters", COLORS[1])):
        axes.plot([], [], color=color, label=words)
    axes.legend(fontsize="small", edgecolor="none", loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)
    width = 1.0 * widest + 0.4
    axes.set(title=title, xlim=(-width, width), ylim=(-0.4, 1.2 * (len(rows) - 1) + 0.4))
    axes.set_axis_off()
    if path is not None:
        whole(figure).savefig(path)
    return whole(figure)


def _rows(graph: Graph) -> list[list[str]]:
    """The levels by height: each above all lower levels that it reads or that read it."""
    heights: dict[str, int] = {}
    for name in graph.names:
        joined = [
            h for other, h in heights.items() if other in graph.reads[name] or name in graph.reads[other]
        ]
        heights[name] = 1 + max(joined, default=-1)
    return [[name for name in heights if heights[name] == h] for h in range(1 + max(heights.values()))]


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], *, up: bool) -> None:
    """From box to box, to the right of the straight line as it goes; further away where it passes other boxes."""
    bend = 0.15 if abs(end[1] - start[1]) < 2 else 0.4
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": COLORS[0] if up else COLORS[1],
            "linewidth": 1.6,
            "shrinkA": 16,
            "shrinkB": 16,
            "connectionstyle": f"arc3,rad={bend}",
        },
        zorder=2,
    )
