"""Figures without a screen: what is drawn, on which scale, and what is refused."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import plots


@pytest.fixture(scope="module")
def solution() -> nestor.Solution:
    """A solve with its history."""
    return nestor.minimize(lambda x: jnp.sum(jnp.cosh(x - 1.0)), jnp.zeros(3), history=True)


def test_curves_draw_every_line_level_and_mark(tmp_path):
    figure = plots.curves(
        {"a": [1.0, np.nan, 3.0], "b": jnp.ones(3)},
        [0.0, 10.0, 20.0],
        title="t",
        x_label="steps",
        y_label="loss (nats)",
        log=True,
        levels={"floor": 0.5},
        marks={"chosen": 10.0},
    )
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["a", "b", "floor", "chosen"]
    assert list(axes.lines[0].get_xdata()) == [0.0, 10.0, 20.0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("steps", "loss (nats)", "log")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "floor", "chosen"]
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("lines", "x"), [({}, None), ({"a": [1.0], "b": [1.0, 2.0]}, None), ({"a": [1.0]}, [1.0, 2.0])]
)
def test_curves_refuse_lengths_that_differ(lines, x):
    with pytest.raises(nestor.BadArgument, match="of one length"):
        plots.curves(lines, x)


def test_a_history_shows_objective_optimality_and_tolerance(solution):
    figure = plots.history(solution, title="cosh")
    upper, lower = figure.axes
    assert upper.get_title() == "cosh"
    assert (upper.get_yscale(), lower.get_yscale()) == ("log", "log")
    assert np.array_equal(upper.lines[0].get_ydata(), solution.history.value)
    assert lower.lines[-1].get_ydata()[0] == pytest.approx(float(solution.stats.tol))
    figure.canvas.draw()


def test_a_history_alone_has_no_tolerance(solution):
    _, lower = plots.history(solution.history).axes
    assert not any(str(line.get_label()).startswith("tolerance") for line in lower.lines)


def test_a_negative_objective_is_drawn_on_a_plain_scale():
    run = nestor.minimize(lambda x: jnp.sum(jnp.cosh(x)) - 9.0, jnp.ones(2), history=True)
    assert plots.history(run).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(
    "record", [None, 3, nestor.minimize(lambda x: x**2, 1.0)], ids=["None", "a number", "no history"]
)
def test_a_history_that_is_none_is_refused(record):
    with pytest.raises(nestor.BadArgument, match="history=True"):
        plots.history(record)


def test_images_share_one_scale_around_their_center(tmp_path):
    array = np.arange(7 * 12, dtype=float).reshape(7, 12)
    array[0, 0] = np.nan
    figure = plots.images(
        array, (3, 4), titles=[str(i) for i in range(7)], columns=4, center=10.0, scale_label="unit"
    )
    *grid, scale = figure.axes
    assert [axes.get_visible() for axes in grid] == [True] * 7 + [False]
    assert {axes.images[0].get_clim() for axes in grid[:7]} == {(10.0 - 73.0, 10.0 + 73.0)}
    assert np.array_equal(grid[1].images[0].get_array(), array[1].reshape(3, 4))
    assert [axes.get_title() for axes in grid[:7]] == [str(i) for i in range(7)]
    assert scale.get_ylabel() == "unit"
    figure.savefig(tmp_path / "images.png")


def test_equal_images_are_drawn():
    plots.images(np.zeros((2, 3, 3)), center=0.0, title="nothing").canvas.draw()
    plots.images(np.full((1, 2, 2), np.nan)).canvas.draw()


@pytest.mark.parametrize(
    ("array", "shape"), [(np.zeros(5), None), (np.zeros((2, 5)), (2, 2)), (np.zeros((0, 2, 2)), None)]
)
def test_images_refuse_sizes_that_do_not_fit(array, shape):
    with pytest.raises(nestor.BadArgument, match="height"):
        plots.images(array, shape)


def test_images_refuse_too_few_titles():
    with pytest.raises(nestor.BadArgument, match="2 texts"):
        plots.images(np.zeros((2, 2, 2)), titles=["one"])


def test_a_part_of_a_figure_can_be_drawn_into(solution):
    from matplotlib.figure import Figure

    page = Figure(layout="constrained")
    left, right = page.subfigures(1, 2)
    assert plots.history(solution, figure=left) is page
    assert plots.images(np.zeros((2, 2, 2)), figure=right) is page
    assert len(page.axes) == 5
    page.canvas.draw()


def test_the_state_of_pyplot_is_left_alone():
    code = (
        "import sys; from nestor import plots; assert 'matplotlib' not in sys.modules;"
        "plots.curves({'a': [1.0, 2.0]}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(nestor.MissingExtra, match=r"pip install 'nestor\[plots\]'"):
        plots.curves({"a": [1.0]})


def test_histograms_are_shares_of_each_group_over_common_bins(tmp_path):
    figure = plots.histograms(
        {"a": [0.1, 0.1, 0.9, np.nan], "b": np.full((2, 5), 0.2)}, bins=2, limits=(0.0, 1.0), x_label="weight"
    )
    (axes,) = figure.axes
    shares, edges, _ = axes.patches[0].get_data()
    assert shares == pytest.approx([2 / 3, 1 / 3])
    assert list(edges) == [0.0, 0.5, 1.0]
    assert axes.patches[2].get_data()[0] == pytest.approx([1.0, 0.0])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("weight", "share of the group")
    figure.savefig(tmp_path / "histograms.png")


@pytest.mark.parametrize("groups", [{}, {"a": []}, {"a": [1.0], "b": [np.nan]}])
def test_histograms_refuse_groups_without_a_value(groups):
    with pytest.raises(nestor.BadArgument, match="at least one finite value"):
        plots.histograms(groups)


def test_a_graph_is_drawn_highest_on_top_with_an_arrow_for_each_reading(tmp_path):
    level = lambda loss: nestor.Level(loss, 0.0, nestor.sgd(0.1))  # noqa: E731
    graph = nestor.Graph(
        {
            "a": level(lambda p, _: (p["a"] - p["b"] - p["c"]) ** 2),
            "b": level(lambda p, _: (p["b"] - p["d"]) ** 2),
            "c": level(lambda p, _: (p["c"] - p["d"]) ** 2),
            "d": level(lambda p, _: (p["a"] - 1.0) ** 2 + p["d"] ** 2),
        }
    )
    figure = plots.graph(graph, tmp_path / "graph.png", title="diamond")
    (axes,) = figure.axes
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_text()}
    assert heights["a"] < heights["b"] == heights["c"] < heights["d"]
    arrows = [text for text in axes.texts if not text.get_text()]
    assert len(arrows) == sum(len(set(read) - {name}) for name, read in graph.reads.items()) == 5
    assert axes.get_title() == "diamond"
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_a_graph_is_not_drawn_as_one():
    with pytest.raises(nestor.BadArgument, match=r"nestor\.Graph"):
        plots.graph({"a": 1})  # pyright: ignore[reportArgumentType]
