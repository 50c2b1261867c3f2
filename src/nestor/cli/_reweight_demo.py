"""`nestor demo reweight`: says what it will do, does it, prints a table, and writes a record and a picture."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import numpy as np

from nestor import plots
from nestor.cli import _reweight, _stage

RECORD, PICTURE = "reweight.json", "reweight.png"

PLAN = """\
A net 64-{hidden}-10 for the digits, trained on {train} images of which {wrong} have a wrong label, and on {clean} that
are known to be right. Every noisy image gets a weight, which a small net reads off its loss. Two levels move in
turns: the model on the weighted images, the small net on the loss of the model on the clean ones.
The rivals are the same net without weights: on all noisy images, on the clean ones, on both, and an oracle, which
knows the wrong labels and leaves them out. Test images: {test}. This takes about 10 seconds, most of it compiling."""


def run(options: argparse.Namespace) -> int:
    """The whole demo; the exit status.

    Args:
        options: `steps`, `seed`, `train_size`, `clean_size`, `wrong` (percent), `out` (a path or None), `picture`
            and `quiet`.
    """
    settings = {name: getattr(options, name) for name in ("clean_size", "wrong")}
    return _stage.staged(_reweighted, options, command="nestor demo reweight", file=RECORD, settings=settings)


def _reweighted(options: argparse.Namespace, record: dict[str, Any]) -> _stage.Ending:
    say, lap = _stage.speaker(options.quiet), _stage.stopwatch()
    noisy = _reweight.load(options.seed, options.train_size, options.clean_size, options.wrong / 100)
    record["curves"] = {"step": [], "test_accuracy": {}, "weight_of_right": [], "weight_of_wrong": []}
    record["sizes"] = {
        "train": noisy.wrong.size,
        "wrong": int(noisy.wrong.sum()),
        "clean": noisy.clean.labels.size,
        "test": noisy.test.labels.size,
    }
    say(PLAN.format(hidden=_reweight.HIDDEN, **record["sizes"]))
    say("")

    graph, names = _reweight.rivals(noisy, options.steps, options.seed)
    _follow(graph, names, "without weights", noisy, options, record)
    record["seconds"]["rivals"] = round(lap(), 3)

    graph = _reweight.reweighting(noisy, options.steps, options.seed)
    say("\n".join(f"    {line}" for line in graph.describe().splitlines()))
    _follow(graph, [_reweight.REWEIGHTED], "reweighting", noisy, options, record)
    record["seconds"]["reweighting"] = round(lap(), 3)

    record["test_accuracy"] = {name: line[-1] for name, line in record["curves"]["test_accuracy"].items()}
    return _stage.Ending(_table(record), _story(record, noisy), functools.partial(_draw, noisy))


def _follow(
    graph: Any,
    names: list[str],
    title: str,
    noisy: _reweight.Noisy,
    options: argparse.Namespace,
    record: dict[str, Any],
) -> None:
    """Run a graph, and write into the record what is seen on the way."""
    curves, steps = record["curves"], []
    for name in names:
        curves["test_accuracy"][name] = []
    looks = _reweight.looks(graph, names, noisy, options.steps, options.seed)
    total = _reweight.count_looks(options.steps)
    for look in _stage.followed(looks, title, total, _words, options.quiet):
        steps.append(look.step)
        curves["step"] = max(steps, curves["step"], key=len)
        for name, accuracy in look.accuracy.items():
            curves["test_accuracy"][name].append(accuracy)
        if look.weights is not None:
            record["weights"] = np.round(look.weights.astype(float), 5).tolist()
            for group, mask in (("wrong", noisy.wrong), ("right", ~noisy.wrong)):
                curves[f"weight_of_{group}"].append(float(np.mean(look.weights[mask])))


def _words(look: _reweight.Look) -> str:
    return f"step {look.step}: loss {look.loss:.4f}"


def _table(record: dict[str, Any]) -> list[str]:
    sizes, accuracy = record["sizes"], record["test_accuracy"]
    rows = [
        ("noisy", "noisy", f"{sizes['train']}"),
        ("clean only", "clean only", f"{sizes['clean']}"),
        ("noisy and clean", "noisy and clean", f"{sizes['train']} + {sizes['clean']}"),
        ("noisy and clean, reweighted", _reweight.REWEIGHTED, f"{sizes['train']} + {sizes['clean']}"),
        ("oracle: wrong labels left out", "oracle", f"{sizes['train'] - sizes['wrong']} + {sizes['clean']}"),
    ]
    lines = [f"{'trained on':<34}{'images':>14}{'test accuracy':>18}"]
    return lines + [f"{label:<34}{images:>14}{accuracy[name]:>18.1%}" for label, name, images in rows]


def _story(record: dict[str, Any], noisy: _reweight.Noisy) -> list[str]:
    weights, sizes = np.asarray(record["weights"]), record["sizes"]
    on_wrong = weights[noisy.wrong].sum() / max(weights.sum(), np.finfo(float).tiny)
    accuracy = record["test_accuracy"]
    gain = accuracy[_reweight.REWEIGHTED] - accuracy["noisy"]
    early = max(record["curves"]["test_accuracy"]["noisy and clean"])
    return [
        f"Wrong are {sizes['wrong'] / sizes['train']:.0%} of the labels; they have {on_wrong:.1%} of the weight.",
        f"Against training on the noisy images: {100 * gain:+.1f} points. Stopped at its best moment, which only the",
        f"test images tell, training on both without weights reaches {early:.1%}.",
        "One seed of one split; examples/reweight.py has five, and other ways to differentiate.",
    ]


def _draw(noisy: _reweight.Noisy, record: dict[str, Any], folder: Path) -> Path:
    from matplotlib.figure import Figure

    path, curves = folder / PICTURE, record["curves"]
    page: Any = Figure(figsize=(14.5, 4.4), dpi=120)
    page.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    left, middle, right = np.ravel(page.subfigures(1, 3))
    lines = {name: line for name, line in curves["test_accuracy"].items() if name != "oracle"}
    plots.curves(
        lines,
        curves["step"],
        levels={"oracle": record["test_accuracy"]["oracle"]},
        title="Accuracy on test images (for this picture only)",
        x_label="training step",
        y_label="test accuracy",
        figure=left,
    )
    plots.curves(
        {"right labels": curves["weight_of_right"], "wrong labels": curves["weight_of_wrong"]},
        curves["step"],
        title="Mean weight, step by step",
        x_label="training step",
        y_label="mean weight",
        figure=middle,
    )
    weights = np.asarray(record["weights"])
    plots.histograms(
        {"right labels": weights[~noisy.wrong], "wrong labels": weights[noisy.wrong]},
        limits=(0.0, 1.0),
        title="Weights of the noisy images at the end",
        x_label="weight",
        figure=right,
    )
    page.savefig(path)
    return path
