"""Figures without a screen and without pyplot's global state."""

from __future__ import annotations

from typing import Any

from nestor.errors import MissingExtra

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito 2008


def canvas(figure: Any, size: tuple[float, float]) -> Any:
    """A new figure of that many inches; or the one, or the part of one, that was given."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "drawing a picture") from error
    return Figure(figsize=size, dpi=120, layout="constrained") if figure is None else figure


def whole(figure: Any) -> Any:
    """The figure that a part belongs to."""
    return figure.get_figure(root=True) if hasattr(figure, "get_figure") else figure


def plain(axes: Any) -> Any:
    """Axes without a box, with a quiet grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes
