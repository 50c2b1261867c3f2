"""`nestor demo schedule`: says what it will do, does it, prints a table, and writes a record and a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor import plots
from nestor.cli import _digits, _schedule, _stage

RECORD, PICTURE = "schedule.json", "schedule.png"

PLAN = """\
The step sizes of a training run, one for each of {steps} steps of SGD with momentum {momentum:g}: a net
64-{hidden}-10 for the digits. They are learned by {outer} hypergradients of the validation loss, each from running
the training backwards bit for bit: {bits:.0f} bits stored for each parameter instead of {stored}.
The rival is the best constant rate of a sweep of {rates}, with the same budget: {seeds} runs for each.
Data: {train} training, {validation} validation and {test} test images. This takes about 20 seconds."""


def run(options: argparse.Namespace) -> int:
    """The whole demo; the exit status.

    Args:
        options: `steps`, `seed`, `train_size`, `out` (a path or None), `picture` and `quiet`.
    """
    return _stage.staged(_learned, options, command="nestor demo schedule", file=RECORD)


def _learned(options: argparse.Namespace, record: dict[str, Any]) -> _stage.Ending:
    say, lap = _stage.speaker(options.quiet), _stage.stopwatch()
    digits = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32), _digits.load(options.seed, options.train_size)
    )
    record["sizes"] = {name: len(split.labels) for name, split in digits._asdict().items()}
    say(_plan(options, record))
    say("")

    means, seeds = _schedule.constant_rates(options.steps, options.seed, digits)
    best = float(_schedule.RATES[np.nanargmin(means)])
    record["constant"] = {
        "log_rates": _schedule.RATES.tolist(),
        "validation_loss": means.tolist(),
        "seeds": seeds,
        "best": best,
    }
    record["seconds"]["sweep"] = round(lap(), 3)
    say(f"{'constant rates':>16}: validation loss {np.nanmin(means):.4f} at a rate of {np.exp(best):.3g}")

    steps: list[_schedule.Outer] = []
    record["curves"] = {"validation_loss": [], "hypergradient_norm": []}  # filled while it runs
    moves = _schedule.descent(best, options.steps, options.seed, digits)
    for step in _stage.followed(moves, "hypergradients", options.steps, _words, options.quiet):
        steps.append(step)
        record["curves"]["validation_loss"].append(step.validation)
        record["curves"]["hypergradient_norm"].append(step.slope)
        record["log_rates"] = step.log_rates.tolist()
    schedule = _schedule.learned(steps)
    record["log_rates"] = schedule.tolist()
    record["seconds"]["hypergradients"] = round(lap(), 3)

    rivals = {"best constant rate": np.full_like(schedule, best), "learned schedule": schedule}
    scores = {name: _schedule.judge(rates, options.seed, digits) for name, rates in rivals.items()}
    record["scores"] = {
        name: {key: column.tolist() for key, column in score._asdict().items()}
        for name, score in scores.items()
    }
    record["seconds"]["scores"] = round(lap(), 3)
    return _stage.Ending(_table(scores, best), _story(scores), _draw)


def _plan(options: argparse.Namespace, record: dict[str, Any]) -> str:
    return PLAN.format(
        steps=_schedule.STEPS,
        momentum=_schedule.MOMENTUM,
        hidden=_schedule.HIDDEN,
        outer=options.steps,
        bits=np.ceil(_schedule.BITS),
        stored=64 * _schedule.STEPS,
        rates=_schedule.RATES.size,
        seeds=max(1, options.steps * _schedule.RUNS // _schedule.RATES.size),
        **record["sizes"],
    )


def _words(step: _schedule.Outer) -> str:
    return f"validation loss {step.validation:.4f}, hypergradient {step.slope:.3f}"


def _table(scores: dict[str, _schedule.Scores], best: float) -> list[str]:
    names = ("train loss", "validation loss", "test loss", "test error")
    lines = [f"{'':<30}" + "".join(f"{name:>18}" for name in names)]
    for name, score in scores.items():
        label = f"{name}, {np.exp(best):.3g}" if name.startswith("best") else name
        row = [f"{np.mean(column):.4f}" for column in score[:3]] + [f"{np.mean(score.test_error):.1%}"]
        lines.append(f"{label:<30}" + "".join(f"{entry:>18}" for entry in row))
    return lines


def _story(scores: dict[str, _schedule.Scores]) -> list[str]:
    constant, schedule = scores.values()
    gains = constant.test_loss - schedule.test_loss
    spread = np.std(gains, ddof=1) / np.sqrt(gains.size)
    change = np.mean(schedule.test_loss) / np.mean(constant.test_loss) - 1
    return [
        f"Means over {gains.size} fresh seeds. Test loss: {change:+.0%} against the best constant rate",
        f"({-np.mean(gains):+.4f}, standard error {spread:.4f} over seeds).",
        "The schedule was fitted to the validation images; the test images were looked at only now.",
    ]


def _draw(record: dict[str, Any], folder: Path) -> Path:
    from matplotlib.figure import Figure

    path = folder / PICTURE
    page: Any = Figure(figsize=(11, 4.4), dpi=120)
    page.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    left, right = np.ravel(page.subfigures(1, 2))
    plots.curves(
        {"learned": np.exp(record["log_rates"])},
        levels={"best constant": float(np.exp(record["constant"]["best"]))},
        title="The learned step sizes",
        x_label="training step",
        y_label="step size",
        log=True,
        figure=left,
    )
    scores = record["scores"]["best constant rate"]
    plots.curves(
        {"validation, one fresh seed each": record["curves"]["validation_loss"]},
        levels={"best constant, mean over seeds": float(np.mean(scores["validation_loss"]))},
        title="Learning the schedule",
        x_label="hypergradient steps",
        y_label="cross-entropy (nats)",
        figure=right,
    )
    page.savefig(path)
    return path
