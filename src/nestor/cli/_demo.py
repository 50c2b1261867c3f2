"""`nestor demo`: says what it will do, does it, prints a table, and writes a record and a picture."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nestor.cli import _digits, _experiment, _report
from nestor.errors import BadArgument, MissingExtra

INTERRUPTED = 130  # the shell's word for: ended by Ctrl-C

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
    _require("sklearn", "scikit-learn", "the data of the demo")
    if options.picture:
        _require("matplotlib", "matplotlib", "the picture of the demo (or pass --no-picture)")
    folder = _folder(options.out)
    record = _report.new_record(options.seed, options.steps, options.train_size)
    try:
        with jax.enable_x64(True):
            _experiment_and_report(options, folder, record)
    except KeyboardInterrupt:
        record["interrupted"] = True
        path = _report.write_record(record, folder)
        print(f"nestor demo: interrupted; what there was is in {path}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _experiment_and_report(options: argparse.Namespace, folder: Path, record: dict[str, Any]) -> None:
    say = (lambda text: None) if options.quiet else (lambda text: print(text, flush=True))
    clock = time.perf_counter()

    def lap() -> float:
        nonlocal clock
        before, clock = clock, time.perf_counter()
        return clock - before

    digits = _digits.load(options.seed, options.train_size)
    record["sizes"] = {name: len(split.labels) for name, split in digits._asdict().items()}
    say(PLAN.format(grid=_experiment.GRID.size, folds=_experiment.FOLDS, **record["sizes"]))
    say("")

    tuning = _experiment.Tuning(digits)
    batches = _experiment.GRID.size // _experiment.LANES
    found = _followed(tuning.single_strengths(), "single strengths", batches, _grid_words, options.quiet)
    single = list(found)[-1]
    _report.note_single(record, single, seconds=lap())

    steps: list[_experiment.Step] = []
    record["steps"] = steps  # filled while it runs, so that an interruption finds it
    moves = tuning.hypergradient_steps(single, options.steps)
    for step in _followed(moves, "hypergradients", options.steps + 1, _step_words, options.quiet):
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
    say("")
    print("\n".join(_report.table(record)))
    say("")
    say("\n".join(_report.story(record)))
    if options.picture:
        record["picture"] = str(_report.draw(record, folder))
        record["seconds"]["picture"] = round(lap(), 3)
    record["interrupted"] = False
    path = _report.write_record(record, folder)
    say("")
    print(f"Wrote {path}" + (f" and {Path(record['picture']).name}" if options.picture else ""))
    say(f"{_report.times(record)}")


def _grid_words(single: _experiment.Single) -> str:
    return f"validation loss {np.nanmin(single.validations):.4f} at e^{single.log_strength:g}"


def _step_words(step: _experiment.Step) -> str:
    return f"validation loss {step.validation:.4f}, held out {step.held_out:.4f}"


def _followed(
    steps: Iterable[Any], title: str, total: int, words: Callable[[Any], str], quiet: bool
) -> Iterator[Any]:
    """Progress: a bar on a terminal, a line every ten steps elsewhere, nothing if quiet."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    form = "{desc:>16} {n_fmt:>2}/{total_fmt} [{elapsed}] {bar:12} {postfix}"
    with tqdm(
        total=total,
        desc=title,
        disable=quiet or not terminal,
        bar_format=form,
        ncols=min(99, shutil.get_terminal_size((99, 20)).columns - 1),
        nrows=20,
        postfix="the first compiles",
    ) as bar:
        for number, step in enumerate(steps):
            yield step  # before it is shown: what was seen is also in the record after Ctrl-C
            bar.set_postfix_str(words(step), refresh=False)
            bar.update(1)
            if not (quiet or terminal) and number % 10 == 0:
                print(f"{title:>16} {number:3d}: {words(step)}", flush=True)


def _require(module: str, package: str, purpose: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(package, "demo", purpose)


def _folder(out: Path | None) -> Path:
    """The folder of the results, made before anything is computed."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"demo-{stamp}" if out is None else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / _report.RECORD
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadArgument(
            "nestor demo",
            "--out",
            got=f"{str(folder)!r} ({error.strerror})",
            want="a folder that can be made and written",
            do="pass another folder, for example --out runs/demo",
        ) from error
    return folder
