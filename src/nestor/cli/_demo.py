"""`nestor demo`: says what it will do, does it, prints a table, and writes a record and a picture."""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np

from nestor.cli import _digits, _experiment, _report, _stage

PLAN = """\
A linear classifier of handwritten digits, with one L2 strength for each of its 640 weights.
All strengths are tuned at once, by implicit hypergradients of the validation loss, against the best
single strength of a grid of {grid}. Data: {train} training, {validation} validation and {test} test images.
When to stop is decided by {folds} held-out folds of the validation images. The test images are looked at
after every choice is made. This takes about 20 seconds on two free cores, half of it compiling."""


def run(options: argparse.Namespace) -> int:
    """The whole demo; the exit status.

    Args:
        options: `steps`, `seed`, `train_size`, `out` (a path or None), `picture` and `quiet`.
    """
    return _stage.staged(
        _in_double_precision,
        options,
        command="nestor demo",
        file=_report.RECORD,
        write=_report.write_record,
        settings={
            "rate": _experiment.RATE,
            "folds": _experiment.FOLDS,
            "patience": _experiment.PATIENCE,
        },
        last_words=_report.times,
    )


def _in_double_precision(options: argparse.Namespace, record: dict[str, Any]) -> _stage.Ending:
    with jax.enable_x64(True):
        return _tuned(options, record)


def _tuned(options: argparse.Namespace, record: dict[str, Any]) -> _stage.Ending:
    say, lap = _stage.speaker(options.quiet), _stage.stopwatch()
    digits = _digits.load(options.seed, options.train_size)
    record["sizes"] = {name: len(split.labels) for name, split in digits._asdict().items()}
    say(PLAN.format(grid=_experiment.GRID.size, folds=_experiment.FOLDS, **record["sizes"]))
    say("")

    tuning = _experiment.Tuning(digits)
    batches = _experiment.GRID.size // _experiment.LANES
    found = _stage.followed(
        tuning.single_strengths(), "single strengths", batches, _grid_words, options.quiet
    )
    single = list(found)[-1]
    _report.note_single(record, single, seconds=lap())

    steps: list[_experiment.Step] = []
    record["steps"] = steps  # filled while it runs, so that an interruption finds it
    moves = tuning.hypergradient_steps(single, options.steps)
    for step in _stage.followed(moves, "hypergradients", options.steps + 1, _step_words, options.quiet):
        steps.append(step)
    if not steps:
        raise RuntimeError("the fit of the best single strength did not converge; try another --seed")
    choice = _experiment.chosen(steps)
    _report.note_steps(record, steps, choice, seconds=lap())

    strengths = [np.full_like(steps[choice].log_strengths, single.log_strength), steps[choice].log_strengths]
    refits = tuning.refits(strengths, [single.model, steps[choice].model])
    models = np.stack([single.model, *(step.model for step in steps)])
    judged = {
        "validation": _experiment.judge(models, digits.validation),
        "test": _experiment.judge(models, digits.test),
        "refitted": _experiment.judge(refits, digits.test),
    }
    gain = _experiment.gain(single.model, steps[choice].model, digits.test)
    _report.note_scores(record, judged, gain, seconds=lap())
    return _stage.Ending(_report.table(record), _report.story(record), _report.draw)


def _grid_words(single: _experiment.Single) -> str:
    return f"validation loss {np.nanmin(single.validations):.4f} at e^{single.log_strength:g}"


def _step_words(step: _experiment.Step) -> str:
    return f"validation loss {step.validation:.4f}, held out {step.held_out:.4f}"
