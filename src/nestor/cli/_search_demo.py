"""`nestor demo search`: says what it will do, does it, prints a table, and writes a record and a picture."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor import plots, search
from nestor.cli import _digits, _search, _stage

RECORD, PICTURE = "search.json", "search.png"
RIVAL, SMALL, OURS = "searched, 141 numbers", "searched, 6 numbers", "searched and descended"

PLAN = """\
A net 64-width-10 for the digits, trained for {length} steps on {train} images. One study picks its optimizer
({optimizers}) and width ({widths}) by search, and in each trial 141 other settings (rates of the layers, L2 strengths
of pixels and classes, sizes of the first weights) descend along the exact hypergradient of the validation loss.
The rivals: the same sampler (TPE) without gradients, over the same settings, and over 6 of them, one a layer.
Each has {runs} training runs; a hypergradient counts as {each} of them.
Data: {train} training, {validation} validation and {test} test images. This takes some 40 seconds."""


def run(options: argparse.Namespace) -> int:
    """The whole demo; the exit status.

    Args:
        options: `steps` (training runs of each study), `seed`, `train_size`, `out` (a path or None), `picture` and
            `quiet`.
    """
    return _stage.staged(_compared, options, command="nestor demo search", file=RECORD)


def _compared(options: argparse.Namespace, record: dict[str, Any]) -> _stage.Ending:
    say, lap = _stage.speaker(options.quiet), _stage.stopwatch()
    digits = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32), _digits.load(options.seed, options.train_size)
    )
    record["sizes"] = {name: len(split.labels) for name, split in digits._asdict().items()}
    say(_plan(options, record))
    say("")
    record["studies"] = {}
    studies = {}
    rivals = {RIVAL: _search.EACH, SMALL: _search.FEW}
    for name in (OURS, RIVAL, SMALL):
        work = functools.partial(_search.searched, rivals[name]) if name in rivals else _search.followed
        with _Progress(name, options.steps, options.quiet) as told:
            studies[name] = work(options.steps, options.seed, digits, callbacks=[told])
        record["studies"][name] = _noted(studies[name], name == OURS, digits)
        record["seconds"][name] = round(lap(), 3)
    return _stage.Ending(_table(record["studies"]), _story(record["studies"], options.steps), _draw)


class _Progress:
    """A bar of training runs on a terminal, a line every 40 runs elsewhere, nothing if quiet."""

    def __init__(self, name: str, total: int, quiet: bool):
        self._name, self._total, self._quiet = name, total, quiet
        self._runs, self._said = 0, 0

    def __enter__(self) -> Any:
        import sys

        from tqdm import tqdm

        self._lines = not self._quiet and not sys.stderr.isatty()
        self._bar = tqdm(
            total=self._total,
            desc=f"{self._name:>24}",
            disable=self._quiet or self._lines,
            bar_format="{desc} {n_fmt:>3}/{total_fmt} runs [{elapsed}] {bar:12} {postfix}",
            ncols=99,
            postfix="the first compile",
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def __call__(self, study: search.Study, trial: search.FrozenTrial) -> None:
        """A trial has ended."""
        runs = _search.runs_of(trial)
        self._runs += runs
        complete = study.trials_with(search.TrialState.COMPLETE)
        words = f"best validation loss {study.best_value:.4f}" if complete else "none has come through yet"
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(runs)
        if self._lines and self._runs // 40 > self._said // 40:
            print(f"{self._name:>24} {self._runs:3d} runs: {words}", flush=True)
        self._said = self._runs


def _plan(options: argparse.Namespace, record: dict[str, Any]) -> str:
    return PLAN.format(
        length=_search.STEPS,
        optimizers=", ".join(_search.CHOICES["optimizer"].choices),
        widths=", ".join(map(str, _search.CHOICES["width"].choices)),
        runs=options.steps,
        each=_search.RUNS,
        **record["sizes"],
    )


def _noted(study: search.Study, ours: bool, digits: _digits.Digits) -> dict[str, Any]:
    """A study as the record has it, with the test loss of its best trial."""
    curve, best = _search.curve(study, ours), study.best_trial
    picked = {name: best.params[name] for name in _search.CHOICES}
    form = _search.FEW if np.ndim(best.params["l2.in"]) == 0 else _search.EACH
    hyper = {
        group: {layer: jnp.asarray(best.params[f"{group}.{layer}"], jnp.float32) for layer in layers}
        for group, layers in form.items()
    }
    model = _search.trained(hyper, picked, digits)
    return {
        "runs": curve.runs.tolist(),
        "best_validation_loss": curve.best.tolist(),
        "trials": len(study.trials),
        "picked": picked,
        "validation_loss": study.best_value,
        "test_loss": float(_search.loss(model, digits.test)),
    }


def _table(studies: dict[str, Any]) -> list[str]:
    goal = studies[RIVAL]["validation_loss"]
    head = f"{'':<26}{'trials':>8}{'runs':>7}{'validation':>12}{'test':>9}   {'picked':<14}"
    lines = [head + f"{f'runs to {goal:.4f}':>16}"]
    for name, study in studies.items():
        curve = _search.Curve(np.array(study["runs"]), np.array(study["best_validation_loss"]))
        needed = curve.runs_to(goal)
        picked = ", ".join(map(str, study["picked"].values()))
        lines.append(
            f"{name:<26}{study['trials']:>8}{study['runs'][-1]:>7}{study['validation_loss']:>12.4f}"
            f"{study['test_loss']:>9.4f}   {picked:<14}{'never' if np.isinf(needed) else format(needed, '.0f'):>16}"
        )
    return lines


def _story(studies: dict[str, Any], runs: int) -> list[str]:
    ours = _search.Curve(np.array(studies[OURS]["runs"]), np.array(studies[OURS]["best_validation_loss"]))
    lines = []
    for name in (RIVAL, SMALL):
        goal = studies[name]["validation_loss"]
        needed = ours.runs_to(goal)
        said = (
            "was not reached" if np.isinf(needed) else f"was reached in {needed:.0f} runs instead of {runs}"
        )
        lines.append(f"What '{name}' came to, {goal:.4f}, {said}.")
    return [*lines, "Settings were fitted to the validation images; the test images were looked at only now."]


def _draw(record: dict[str, Any], folder: Path) -> Path:
    from matplotlib.figure import Figure

    path = folder / PICTURE
    page: Any = Figure(figsize=(8, 4.8), dpi=120)
    page.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    at = np.arange(1, record["settings"]["steps"] + 1)
    lines = {}
    for name, study in record["studies"].items():
        place = np.searchsorted(study["runs"], at, side="right") - 1
        losses = np.array(study["best_validation_loss"])
        lines[name] = np.where(place >= 0, losses[np.maximum(place, 0)], np.nan)
    plots.curves(
        lines,
        at,
        title="One study, with and without hypergradients",
        x_label=f"training runs (a hypergradient counts as {_search.RUNS})",
        y_label="best validation loss (nats)",
        log=True,
        figure=page,
    )
    page.savefig(path)
    return path
