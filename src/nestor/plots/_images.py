"""Arrays as a grid of images on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.plots._canvas import canvas, whole


def images(
    array: Any,
    shape: tuple[int, int] | None = None,
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    center: float | None = None,
    colors: str | None = None,
    title: str = "",
    scale_label: str = "",
    figure: Any = None,
) -> Any:
    """A grid of images on one colour scale.

    Args:
        array: shape (count, height, width), or (count, pixels) together with `shape`. NaN is drawn grey.
        shape: height and width of one image; None reads them from `array`.
        titles: one text an image.
        columns: images in a row; None is all of up to five, else five.
        center: the value that is drawn neutral, on a scale from blue (below) to red (above).
        colors: the name of a Matplotlib colour map; None chooses one by `center`.
        title: a text above all.
        scale_label: what the colours mean, with its unit.
        figure: as in `curves`.

    Returns:
        The Matplotlib figure.

    Raises:
        BadArgument: the sizes do not fit. MissingExtra: Matplotlib is not installed.

    >>> import numpy as np
    >>> from nestor import plots
    >>> figure = plots.images(np.eye(64)[:10], shape=(8, 8), titles=[str(digit) for digit in range(10)])
    >>> len(figure.axes)  # ten images and the scale
    11
    """
    stack = _stack(np.asarray(array, float), shape)
    count = len(stack)
    if titles is not None and len(titles) != count:
        raise BadArgument(
            "images",
            "titles",
            got=f"{len(titles)} texts",
            want=f"{count} texts, one an image",
            do="add the rest",
        )
    columns = min(count, 5) if columns is None else columns
    rows = math.ceil(count / columns)
    figure = canvas(figure, (1.5 * columns + 1.2, 1.7 * rows + 0.5))
    grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    low, high = _limits(stack, center)
    colors = colors or ("viridis" if center is None else "RdBu_r")
    drawn = None
    for place, axes in enumerate(grid):
        axes.set(xticks=[], yticks=[])
        if place >= count:
            axes.set_visible(False)
            continue
        axes.set_facecolor("0.8")
        axes.spines[:].set_color("0.6")
        drawn = axes.imshow(stack[place], cmap=colors, vmin=low, vmax=high, interpolation="nearest")
        if titles is not None:
            axes.set_title(titles[place], fontsize="medium")
    figure.colorbar(drawn, ax=list(grid), label=scale_label, shrink=0.9)
    if title:
        figure.suptitle(title)
    return whole(figure)


def _stack(array: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    if shape is not None and array.ndim == 2 and array.shape[1] == math.prod(shape):
        array = array.reshape(len(array), *shape)
    if array.ndim != 3 or array.size == 0 or (shape is not None and array.shape[1:] != tuple(shape)):
        raise BadArgument(
            "images",
            "array",
            got=f"of shape {array.shape}, with shape={shape}",
            want="of shape (count, height, width), or (count, height * width) with shape=(height, width)",
            do="put the images on the first axis: array.T, or array[None] for a single one",
        )
    return array


def _limits(stack: np.ndarray, center: float | None) -> tuple[float, float]:
    finite = stack[np.isfinite(stack)]
    if finite.size == 0:
        return 0.0, 1.0
    if center is None:
        return float(finite.min()), float(finite.max())
    reach = float(np.max(np.abs(finite - center))) or 1.0
    return center - reach, center + reach
